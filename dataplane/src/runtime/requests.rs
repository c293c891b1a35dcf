//! What control asks, and what it is told.

use std::net::{IpAddr, Ipv4Addr};

use sluice_api::message::{Request, Response};
use sluice_api::stats::{DataplaneStatus, Doubt, NeighbourStatus, Stats, TableUsage};
use sluice_api::validate;

use super::main_loop::MainLoop;
use super::pulse;
use crate::control_socket::Reply;
use sluice_path::slots;

/// A stall is told for so long after it, in ms: to whoever asks more often than that, each one.
const DOUBT_TOLD_MS: u64 = 5_000;

impl MainLoop {
    /// Answer a request, now or when it has been done. What takes long is left to other threads.
    pub fn handle(&mut self, request: Request, reply: Reply) {
        match request {
            Request::Status => reply.send(Response::Status(self.status())),
            Request::Apply { snapshot } => self.forwarding.apply(snapshot, reply),
            Request::Amend { change } => self.forwarding.amend(change, reply),
            Request::GetSnapshot => {
                let compiled = self.forwarding.compiled();
                reply.send_later(move || Response::Snapshot { snapshot: compiled.snapshot() });
            }
            Request::Announce { addresses } => {
                let addresses = self.announce_all(&addresses);
                reply.send(Response::Announced { addresses });
            }
            Request::Stats => {
                let (stats, services) = (self.own_stats(), self.forwarding.services());
                reply.send_later(move || Response::Stats(services.add_to(stats)));
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

    fn announce_all(&mut self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let compiled = self.forwarding.compiled();
        // What is no address of the snapshot is not announced, of whatever family.
        let accepted: Vec<Ipv4Addr> = addresses
            .iter()
            .filter_map(|address| validate::supported(*address).ok())
            .filter(|address| compiled.is_announced(*address))
            .collect();
        let now_ms = self.now_ms();
        for address in &accepted {
            self.announcements.announce(now_ms, *address);
        }
        accepted.into_iter().map(IpAddr::V4).collect()
    }

    fn status(&self) -> DataplaneStatus {
        let now_ms = self.now_ms();
        // While this thread did not come round, checks did not leave the host.
        let stalls = self.crew.stalls().chain(self.rounds.last_stall(now_ms));
        let doubt = pulse::doubtful_ms(stalls, now_ms, DOUBT_TOLD_MS);
        DataplaneStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.started.boot_id,
            uptime_ms: now_ms - self.started.at_ms,
            pid: std::process::id(),
            generation: self.forwarding.generation(),
            workers_generation: self.crew.generation(),
            doubt: doubt.map(|(began_ms, ended_ms)| Doubt { began_ms, ended_ms }),
            unreachable_changes: self.resolver.unreachable_changes(),
            announced: self.announcements.announced().map(IpAddr::V4).collect(),
            ports: self.ports.statuses(&self.config.ports, &self.crew),
            workers: self.crew.statuses(now_ms),
            limits: self.config.limits,
        }
    }

    /// All counters.
    pub fn stats(&self) -> Stats {
        self.forwarding.services().add_to(self.own_stats())
    }

    /// All counters but those of services.
    fn own_stats(&self) -> Stats {
        let now_ms = self.now_ms();
        Stats {
            boot_id: self.started.boot_id,
            uptime_ms: now_ms - self.started.at_ms,
            generation: self.forwarding.generation(),
            main_thread: self.rounds.stats(),
            workers: self.crew.stats(now_ms),
            ports: self.ports.stats(&self.crew),
            services: Vec::new(),
            pools: Vec::new(),
            tables: self.tables(),
            drops: self.forwarding.drops(),
            leaving: self.forwarding.leaving(),
        }
    }

    /// How full the tables are, but for local ports.
    pub fn tables(&self) -> Vec<TableUsage> {
        let workers = self.crew.workers().len() as u64;
        let limits = &self.config.limits;
        let (services, backends) = self.forwarding.slots_used();
        let (service_slots, backend_slots) =
            (slots::service_slots(limits.services), slots::backend_slots(limits.backends));
        let counter_bytes = self.crew.sum(|c| c.bytes() as u64);
        let mempool = self.outgoing.mempool();
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
                self.crew.sum(|c| c.conns.get()).saturating_sub(self.crew.sum(|c| c.resting.get())),
                u64::from(limits.connections.div_ceil(workers as u32)) * workers,
                self.started.conn_table_bytes,
            ),
            usage("neighbours", self.resolver.len() as u64, self.resolver.capacity() as u64, 0),
            usage("services", services as u64, service_slots.into(), 0),
            usage(
                "backends",
                backends as u64,
                backend_slots.into(),
                counter_bytes + self.forwarding.tally_bytes(),
            ),
            usage(
                "mbufs",
                u64::from(mempool.in_use()),
                u64::from(mempool.size()),
                mempool.memory_bytes(),
            ),
        ]
    }

    /// All next hops, to be put into words by whoever has the time.
    fn neighbours(&self) -> impl Iterator<Item = NeighbourStatus> + Send + use<> {
        let ports: Vec<String> = self.config.ports.iter().map(|port| port.name.clone()).collect();
        self.resolver.status(self.now_ms()).into_iter().map(move |n| NeighbourStatus {
            address: n.address.into(),
            mac: n.mac.map(|mac| mac.to_string()),
            port: ports[n.interface.port().index()].clone(),
            state: n.state.to_owned(),
            age_ms: n.age_ms,
        })
    }
}
