//! What control asks, and what it is told.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;

use sluice_api::message::{Request, Response};
use sluice_api::stats::{
    DataplaneStatus, Doubt, NeighbourStatus, PortStats, PortStatus, Stats, TableUsage, WorkerStats,
    WorkerStatus,
};
use sluice_api::{Problem, Snapshot, validate};

use super::main_loop::{MainLoop, WorkerHandle};
use super::pulse;
use crate::ledger;
use crate::snapshot::Compiled;

/// A stall is told for so long after it, in ms: to whoever asks more often than that, each one.
const DOUBT_TOLD_MS: u64 = 5_000;

impl MainLoop {
    /// Answer a request.
    pub fn handle(&mut self, request: Request) -> Response {
        match request {
            Request::Status => Response::Status(self.status()),
            Request::Apply { snapshot } => {
                let generation = snapshot.generation;
                match self.apply(snapshot) {
                    Ok(()) => Response::Applied { generation },
                    Err(problems) => Response::Rejected { problems },
                }
            }
            Request::GetSnapshot => Response::Snapshot { snapshot: self.snapshot.clone() },
            Request::Announce { addresses } => {
                Response::Announced { addresses: self.announce_all(&addresses) }
            }
            Request::Stats => Response::Stats(self.stats()),
            Request::Neighbours => Response::Neighbours { neighbours: self.neighbours() },
            Request::Events { since } => Response::Events { events: self.events.since(since) },
        }
    }

    /// The main thread's time, in ms.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ns() / 1_000_000
    }

    /// Addresses of the ports, with their ports.
    fn port_addresses(&self) -> Vec<(Ipv4Addr, u16)> {
        super::start::port_addresses(&self.config)
    }

    /// Forward by a snapshot, or say what is wrong with it and change nothing.
    fn apply(&mut self, snapshot: Snapshot) -> Result<(), Vec<Problem>> {
        let current = self.compiled.load_full();
        if snapshot.generation <= current.generation {
            if self.snapshot.as_ref() == Some(&snapshot) {
                return Ok(());
            }
            let expected = format!("above {}, which is in force", current.generation);
            return Err(vec![Problem::new("generation", snapshot.generation, expected)]);
        }
        let own = self.config.port_addresses();
        let problems = validate::snapshot(&snapshot, &self.config.limits, &own);
        if !problems.is_empty() {
            return Err(problems);
        }
        // Slots of removed backends whose conns have ended since are free for the new ones.
        self.free_former();
        self.slots.assign(&snapshot).map_err(|problem| vec![problem])?;
        // Quotas come before the limits that they are for.
        self.tally.adopt(&snapshot, &self.slots);
        let compiled = Compiled::new(&snapshot, &self.slots, &self.port_addresses(), &current);
        let ours: HashSet<Ipv4Addr> = compiled.announced_addresses().collect();
        self.announced.retain(|address| ours.contains(address));
        self.former.push(current);
        self.compiled.store(Arc::new(compiled));
        self.snapshot = Some(snapshot);
        Ok(())
    }

    fn announce_all(&mut self, addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let ours: HashSet<Ipv4Addr> = self.compiled.load().announced_addresses().collect();
        let accepted: Vec<Ipv4Addr> =
            addresses.iter().copied().filter(|a| ours.contains(a)).collect();
        for address in &accepted {
            self.announce(*address);
            if !self.announced.contains(address) {
                self.announced.push(*address);
            }
        }
        accepted
    }

    /// The ports as they are now.
    pub fn port_statuses(&self) -> Vec<PortStatus> {
        (0..)
            .zip(self.config.ports.iter().zip(&self.ports))
            .map(|(index, (config, main))| {
                let capabilities = main.port.rx_capabilities();
                let mut status = PortStatus {
                    name: config.name.clone(),
                    device: config.device.clone(),
                    driver: main.port.driver().to_owned(),
                    mac: main.mac.to_string(),
                    addresses: config.addresses.iter().map(ToString::to_string).collect(),
                    queues: self.workers.len() as u16,
                    max_queues: capabilities.max_queues,
                    mtu: main.port.mtu(),
                    max_mtu: capabilities.max_mtu,
                    ip_checksum_offload: capabilities.ip_checksum,
                    l4_checksum_offload: capabilities.l4_checksum,
                    link_up: main.link_up,
                    exception: config.exception.clone(),
                    ..PortStatus::default()
                };
                self.describe_steering(index, &mut status);
                status
            })
            .collect()
    }

    fn status(&self) -> DataplaneStatus {
        let now_ms = self.now_ms();
        let stalls = self.workers.iter().filter_map(|handle| handle.pulse.last_stall());
        let doubt = pulse::doubtful_ms(stalls, now_ms, DOUBT_TOLD_MS);
        let workers = (0..)
            .zip(&self.workers)
            .map(|(worker, handle)| WorkerStatus {
                worker,
                cpu: handle.cpu,
                generation: handle.counters.generation.get(),
                stuck_ms: handle.pulse.stuck_ms(now_ms),
            })
            .collect();
        DataplaneStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id,
            uptime_ms: now_ms - self.started_ms,
            pid: std::process::id(),
            generation: self.compiled.load().generation,
            workers_generation: self.workers_generation(),
            doubt: doubt.map(|(began_ms, ended_ms)| Doubt { began_ms, ended_ms }),
            announced: self.announced.clone(),
            ports: self.port_statuses(),
            workers,
            limits: self.config.limits,
        }
    }

    /// All counters.
    pub fn stats(&self) -> Stats {
        let now_ms = self.now_ms();
        let workers = (0..)
            .zip(&self.workers)
            .map(|(worker, handle)| {
                let c = &handle.counters;
                WorkerStats {
                    worker,
                    rx_packets: c.rx_packets.get(),
                    tx_packets: c.tx_packets.get(),
                    handed_over: c.handed_over.get(),
                    to_kernel: c.to_kernel.get(),
                    dropped: c.dropped(),
                    resets_sent: c.resets_sent.get(),
                    unreachables_sent: c.unreachables_sent.get(),
                    conns: c.conns.get(),
                    conns_created: c.conns_created.get(),
                    conns_expired: c.conns_expired.get(),
                    busy_polls: c.busy_polls.get(),
                    idle_polls: c.idle_polls.get(),
                    stuck_ms: handle.pulse.stuck_ms(now_ms),
                    stalls: handle.pulse.stalls(),
                    stalled_ms: handle.pulse.stalled_ms(now_ms),
                    drops: ledger::drops(std::iter::once(c.as_ref())),
                }
            })
            .collect();
        let ports = (0..)
            .zip(self.config.ports.iter().zip(&self.ports))
            .map(|(index, (config, main))| {
                let c = main.counters();
                let queues = self.queues(index);
                PortStats {
                    name: config.name.clone(),
                    rx_packets: c.rx_packets,
                    rx_bytes: c.rx_bytes,
                    tx_packets: c.tx_packets,
                    tx_bytes: c.tx_bytes,
                    rx_missed: c.rx_missed,
                    rx_errors: c.rx_errors,
                    rx_no_mbuf: c.rx_no_mbuf,
                    tx_errors: c.tx_errors,
                    mis_steered: queues.iter().map(|q| q.mis_steered).sum(),
                    queues,
                }
            })
            .collect();
        let services = self
            .snapshot
            .as_ref()
            .map(|s| self.ledger.services(s, &self.slots))
            .unwrap_or_default();
        Stats {
            boot_id: self.boot_id,
            uptime_ms: now_ms - self.started_ms,
            generation: self.compiled.load().generation,
            main_thread: self.rounds.stats(),
            workers,
            ports,
            services,
            tables: self.tables(),
            drops: self.ledger.drops(),
        }
    }

    /// How full the tables are.
    pub fn tables(&self) -> Vec<TableUsage> {
        let sum = |read: fn(&crate::counters::WorkerCounters) -> u64| {
            self.workers.iter().map(|w| read(&w.counters)).sum::<u64>()
        };
        let workers = self.workers.len() as u64;
        let limits = &self.config.limits;
        let ((services, service_slots), (backends, backend_slots)) = self.slots.usage();
        let counter_bytes: u64 = self.workers.iter().map(|w| w.counters.bytes() as u64).sum();
        let slot_bytes = counter_bytes + self.tally.bytes() as u64;
        let usage = |table: &str, used: u64, capacity: u64, bytes: u64| TableUsage {
            table: table.to_owned(),
            used,
            capacity,
            bytes,
        };
        let mut tables = vec![
            usage(
                "conns",
                sum(|c| c.conns.get()),
                u64::from(limits.connections.div_ceil(workers as u32)) * workers,
                self.conn_table_bytes,
            ),
            usage("neighbours", self.resolver.len() as u64, self.resolver.capacity() as u64, 0),
            usage("services", services as u64, service_slots as u64, 0),
            usage("backends", backends as u64, backend_slots as u64, slot_bytes),
            usage(
                "mbufs",
                u64::from(self.mempool.in_use()),
                u64::from(self.mempool.size()),
                self.mempool.memory_bytes(),
            ),
        ];
        tables.extend(self.local_ports());
        tables
    }

    /// Conns of services and backends that have a `max_conns`, beside it.
    pub fn limits(&self) -> Vec<TableUsage> {
        let Some(snapshot) = &self.snapshot else { return Vec::new() };
        let usage = |what: String, used: u64, limit: NonZeroU32| TableUsage {
            table: what,
            used,
            capacity: u64::from(limit.get()),
            bytes: 0,
        };
        let mut limits = Vec::new();
        for service in &snapshot.services {
            let slot = self.slots.service(&service.name).unwrap_or_default();
            if let Some(limit) = service.max_conns {
                let conns = |w: &WorkerHandle| w.counters.service(slot).conns.get();
                let used = self.workers.iter().map(conns).sum();
                limits.push(usage(format!("service {}", service.name), used, limit));
            }
            for backend in &service.backends {
                let slot = self.slots.backend(&(slot, backend.id()));
                if let (Some(limit), Some(slot)) = (backend.max_conns, slot) {
                    let what = format!("backend {} of service {}", backend.id(), service.name);
                    limits.push(usage(what, self.ledger.conns(slot), limit));
                }
            }
        }
        limits
    }

    /// Use of each pool's local ports towards the backend, on the worker, where it is highest: a
    /// port may serve one conn towards each backend, and workers do not share theirs.
    fn local_ports(&self) -> Vec<TableUsage> {
        let Some(snapshot) = &self.snapshot else { return Vec::new() };
        let spaces = &self.compiled.load().port_spaces;
        snapshot.pools.iter().map(|pool| spaces.pool_usage(pool)).collect()
    }

    fn neighbours(&self) -> Vec<NeighbourStatus> {
        self.resolver
            .status(self.now_ms())
            .into_iter()
            .map(|n| NeighbourStatus {
                address: n.address,
                mac: n.mac.map(|mac| mac.to_string()),
                port: self.config.ports[n.port as usize].name.clone(),
                state: n.state.to_owned(),
                age_ms: n.age_ms,
            })
            .collect()
    }
}
