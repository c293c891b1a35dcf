//! How full is what belongs to services: local ports, and limits of conns. It takes a look at each
//! backend, so this is for threads that have the time.

use std::num::NonZeroU32;
use std::sync::Arc;

use sluice_api::Pool;
use sluice_api::stats::{PoolStats, TableUsage};

use sluice_path::counters::WorkerCounters;
use sluice_path::ledger;
use sluice_path::snapshot::Compiled;
use sluice_path::table::port_space::PortSpace;

/// Use of each pool's local ports.
pub fn local_ports(compiled: &Compiled) -> Vec<TableUsage> {
    compiled.pools().iter().map(|pool| compiled.port_spaces.pool_usage(pool)).collect()
}

/// How often each pool's local ports were used again too early.
pub fn pools(compiled: &Compiled) -> Vec<PoolStats> {
    let stats = |pool: &Pool| PoolStats {
        name: pool.name.clone(),
        reused: compiled.port_spaces.of(pool).map(PortSpace::reused).sum(),
        warning: reuse_warning(compiled, pool),
    };
    compiled.pools().iter().map(stats).collect()
}

/// That a pool is too small for the conns that its backends close.
fn reuse_warning(compiled: &Compiled, pool: &Pool) -> Option<String> {
    let spaces = compiled.port_spaces.of(pool);
    let worst = spaces.max_by_key(|space| space.reuse_rate())?;
    let (rate, capacity) = (u64::from(worst.reuse_rate()), worst.capacity());
    if rate == 0 {
        return None;
    }
    let services = compiled.services().iter().map(|service| service.source());
    let of_pool = services.filter(|s| s.pool.as_ref() == Some(&pool.name));
    let rest_s = of_pool.map(|s| s.timeouts.tcp_time_wait_ms.div_ceil(1_000)).max();
    let rest_s = u64::from(rest_s.unwrap_or_default());
    let addresses = pool.addresses.len() as u64;
    let last = if addresses == 1 { "address lasts" } else { "addresses last" };
    let enough = (rate * rest_s * addresses).div_ceil(capacity.max(1));
    Some(format!(
        "pool {}: {rate} conn/s to one backend, which closes first: {addresses} {last} for \
         {} s, and its TIME_WAIT for {rest_s} s; {enough} would do",
        pool.name,
        capacity / rate
    ))
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
