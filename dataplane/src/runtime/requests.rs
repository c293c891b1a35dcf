//! What control asks, and what it is told.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::message::{Request, Response};
use sluice_api::stats::{
    DataplaneStatus, Doubt, NeighbourStatus, PortStats, PortStatus, Stats, TableUsage, WorkerStats,
    WorkerStatus,
};

use super::main_loop::{Adopting, MainLoop};
use super::{pulse, usage};
use crate::control_socket::Reply;
use sluice_path::ledger::{self, Books};
use sluice_path::slots;
use sluice_path::snapshot::Compiled;

/// A stall is told for so long after it, in ms: to whoever asks more often than that, each one.
const DOUBT_TOLD_MS: u64 = 5_000;
/// Backends whose limits are adopted in one round, about: up to 1 µs for each that has one, on a machine
/// that is busy otherwise.
const ADOPTED_PER_ROUND: usize = 2_048;

impl MainLoop {
    /// Answer a request, now or when it has been done. What takes long is left to other threads.
    pub fn handle(&mut self, request: Request, reply: Reply) {
        match request {
            Request::Status => reply.send(Response::Status(self.status())),
            Request::Apply { snapshot } => self.compiler.apply(snapshot, reply),
            Request::GetSnapshot => {
                let compiled = self.compiled.load_full();
                reply.send_later(move || Response::Snapshot { snapshot: compiled.snapshot() });
            }
            Request::Announce { addresses } => {
                let addresses = self.announce_all(&addresses);
                reply.send(Response::Announced { addresses });
            }
            Request::Stats => {
                let (stats, rest) = (self.own_stats(), self.service_stats());
                reply.send_later(move || Response::Stats(rest.add_to(stats)));
            }
            Request::Neighbours => {
                let neighbours = self.neighbours();
                reply.send_later(move || Response::Neighbours { neighbours: neighbours.collect() });
            }
            Request::UnreachableBackends => {
                let (failed, hops) = self.resolver.unreachable();
                reply.send_later(move || Response::UnreachableBackends {
                    backends: hops.unreachable(&failed),
                });
            }
            Request::Events { since } => {
                reply.send(Response::Events { events: self.events.since(since) });
            }
        }
    }

    /// The main thread's time, in ms.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ns() / 1_000_000
    }

    /// Go on with what the compiler has done; how much there was.
    pub fn take_news(&mut self) -> usize {
        if self.adopting.is_none() {
            let Some(news) = self.compiler.news() else { return 0 };
            for freed in news.freed {
                self.tally.release(freed);
                self.ledger.release(freed);
            }
            self.slots_used = news.used;
            news.events.into_iter().for_each(|(kind, message)| self.events.add(kind, message));
            match news.done {
                Some((Some(compiled), reply)) => {
                    let adoption = self.tally.begin(&compiled);
                    self.adopting = Some(Adopting { compiled, reply, adoption });
                }
                Some((None, reply)) => {
                    let generation = self.compiled.load().generation;
                    reply.send(Response::Applied { generation });
                }
                None => {}
            }
        }
        self.adopt();
        1
    }

    /// Adopt a piece of a snapshot, and have the workers go by it when that was the last.
    fn adopt(&mut self) {
        let Some(mut adopting) = self.adopting.take() else { return };
        // Quotas come before the limits that they are for.
        if !self.tally.go_on(&mut adopting.adoption, &adopting.compiled, ADOPTED_PER_ROUND) {
            self.adopting = Some(adopting);
            return;
        }
        let Adopting { compiled, reply, .. } = adopting;
        self.ledger.adopt(&compiled);
        self.announcer.retain(|address| compiled.is_announced(address));
        self.resolver.watch(self.now_ms(), Arc::clone(&compiled.backend_hops));
        let generation = compiled.generation;
        self.former.push(self.compiled.swap(compiled));
        reply.send(Response::Applied { generation });
    }

    fn announce_all(&mut self, addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let compiled = self.compiled.load_full();
        let accepted: Vec<Ipv4Addr> =
            addresses.iter().copied().filter(|a| compiled.is_announced(*a)).collect();
        let now_ms = self.now_ms();
        for address in &accepted {
            self.announcer.announce(now_ms, *address);
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
        // While this thread did not come round, checks did not leave the host.
        let stalls = stalls.chain(self.rounds.last_stall(now_ms));
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
            unreachable_changes: self.resolver.unreachable_changes(),
            announced: self.announcer.announced().collect(),
            ports: self.port_statuses(),
            workers,
            limits: self.config.limits,
        }
    }

    /// All counters.
    pub fn stats(&self) -> Stats {
        self.service_stats().add_to(self.own_stats())
    }

    /// What is needed to add up the counters of services.
    fn service_stats(&self) -> ServicesToCount {
        ServicesToCount {
            books: Arc::clone(self.ledger.books()),
            compiled: self.compiled.load_full(),
        }
    }

    /// All counters but those of services.
    fn own_stats(&self) -> Stats {
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
        Stats {
            boot_id: self.boot_id,
            uptime_ms: now_ms - self.started_ms,
            generation: self.compiled.load().generation,
            main_thread: self.rounds.stats(),
            workers,
            ports,
            services: Vec::new(),
            pools: Vec::new(),
            tables: self.tables(),
            drops: self.ledger.drops(),
            leaving: self.compiled.load().leaving.stats(),
        }
    }

    /// How full the tables are, but for local ports.
    pub fn tables(&self) -> Vec<TableUsage> {
        let sum = |read: fn(&sluice_path::counters::WorkerCounters) -> u64| {
            self.workers.iter().map(|w| read(&w.counters)).sum::<u64>()
        };
        let workers = self.workers.len() as u64;
        let limits = &self.config.limits;
        let (services, backends) = self.slots_used;
        let (service_slots, backend_slots) =
            (slots::service_slots(limits.services), slots::backend_slots(limits.backends));
        let counter_bytes: u64 = self.workers.iter().map(|w| w.counters.bytes() as u64).sum();
        let slot_bytes = counter_bytes + self.tally.bytes() as u64;
        let usage = |table: &str, used: u64, capacity: u64, bytes: u64| TableUsage {
            table: table.to_owned(),
            used,
            capacity,
            bytes,
        };
        vec![
            usage(
                "conns",
                // Those that rest give way to new ones.
                sum(|c| c.conns.get()).saturating_sub(sum(|c| c.resting.get())),
                u64::from(limits.connections.div_ceil(workers as u32)) * workers,
                self.conn_table_bytes,
            ),
            usage("neighbours", self.resolver.len() as u64, self.resolver.capacity() as u64, 0),
            usage("services", services as u64, service_slots.into(), 0),
            usage("backends", backends as u64, backend_slots.into(), slot_bytes),
            usage(
                "mbufs",
                u64::from(self.mempool.in_use()),
                u64::from(self.mempool.size()),
                self.mempool.memory_bytes(),
            ),
        ]
    }

    /// All next hops, to be put into words by whoever has the time.
    fn neighbours(&self) -> impl Iterator<Item = NeighbourStatus> + Send + use<> {
        let ports: Vec<String> = self.config.ports.iter().map(|port| port.name.clone()).collect();
        self.resolver.status(self.now_ms()).into_iter().map(move |n| NeighbourStatus {
            address: n.address,
            mac: n.mac.map(|mac| mac.to_string()),
            port: ports[n.port as usize].clone(),
            state: n.state.to_owned(),
            age_ms: n.age_ms,
        })
    }
}

/// What is needed to add up the counters of services; with many, that takes longer than a round of the
/// main thread may.
struct ServicesToCount {
    books: Arc<Books>,
    compiled: Arc<Compiled>,
}

impl ServicesToCount {
    fn add_to(self, mut stats: Stats) -> Stats {
        stats.services = self.books.services(&self.compiled);
        stats.pools = usage::pools(&self.compiled);
        stats.tables.extend(usage::local_ports(&self.compiled));
        stats
    }
}
