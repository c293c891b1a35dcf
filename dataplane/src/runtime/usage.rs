//! How full is what belongs to services: local ports, and limits of conns. It takes a look at each
//! backend, so this is for threads that have the time.

use std::num::NonZeroU32;
use std::sync::Arc;

use sluice_api::stats::TableUsage;

use crate::counters::WorkerCounters;
use crate::ledger;
use crate::snapshot::Compiled;

/// Use of each pool's local ports.
pub fn local_ports(compiled: &Compiled) -> Vec<TableUsage> {
    compiled.pools().iter().map(|pool| compiled.port_spaces.pool_usage(pool)).collect()
}

/// Conns of services and backends that have a `max_conns`, beside it.
pub fn limits(compiled: &Compiled, workers: &[Arc<WorkerCounters>]) -> Vec<TableUsage> {
    let usage = |what: String, used: u64, limit: NonZeroU32| TableUsage {
        table: what,
        used,
        capacity: u64::from(limit.get()),
        bytes: 0,
    };
    let mut limits = Vec::new();
    for service in compiled.services().iter().filter(|service| service.has_limits) {
        let source = service.source();
        if let Some(limit) = source.max_conns {
            let used = workers.iter().map(|w| w.service(service.slot).conns.get()).sum();
            limits.push(usage(format!("service {}", source.name), used, limit));
        }
        for (backend, compiled) in source.backends.iter().zip(&service.backends) {
            if let Some(limit) = backend.max_conns {
                let what = format!("backend {} of service {}", backend.id(), source.name);
                limits.push(usage(what, ledger::conns(workers, compiled.slot), limit));
            }
        }
    }
    limits
}
