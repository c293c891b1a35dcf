//! What the workers forward by: compiled beside this thread, adopted here a piece at a time, taken by the
//! workers between two rounds; and the counters of services, and conns over all workers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sluice_api::message::Response;
use sluice_api::stats::{LeavingStats, Stats};
use sluice_api::{Snapshot, SnapshotChange};
use sluice_wire::ether::MacAddr;

use super::compiler::Compiler;
use super::usage;
use crate::control_socket::Reply;
use crate::events::EventLog;
use sluice_path::ledger::{Books, Ledger};
use sluice_path::snapshot::Compiled;
use sluice_path::table::route::RouteTable;
use sluice_path::tally::{Adoption, Tally};

/// Backends whose limits are adopted in one round, about: up to 1 µs for each that has one, on a machine
/// that is busy otherwise.
const ADOPTED_PER_ROUND: usize = 2_048;

/// A snapshot on its way to the workers.
struct Adopting {
    /// What they will go by.
    compiled: Arc<Compiled>,
    /// Who has asked for it.
    reply: Reply,
    /// How far its limits are prepared.
    adoption: Adoption,
}

/// A snapshot that the workers go by from now on; who has asked for it is not answered yet.
pub struct Adopted {
    /// The snapshot.
    pub compiled: Arc<Compiled>,
    reply: Reply,
}

impl Adopted {
    /// Answer who has asked for it.
    pub fn answer(self) {
        self.reply.send(Response::Applied { generation: self.compiled.generation });
    }
}

/// The snapshots, and what is counted by them.
pub struct Forwarding {
    /// The one in force.
    compiled: Arc<ArcSwap<Compiled>>,
    /// Former ones that a worker may still hold: never freed on a worker.
    former: Vec<Arc<Compiled>>,
    /// Who compiles.
    compiler: Compiler,
    /// What was compiled, and is not known to everybody yet.
    adopting: Option<Adopting>,
    /// How many services and backends hold slots.
    slots_used: (usize, usize),
    /// Counters by service and backend.
    ledger: Ledger,
    /// Conns over all workers, and what each may make of them.
    tally: Tally,
}

impl Forwarding {
    /// By what the workers share.
    pub fn new(
        compiled: Arc<ArcSwap<Compiled>>,
        compiler: Compiler,
        ledger: Ledger,
        tally: Tally,
    ) -> Self {
        let (former, slots_used) = (Vec::new(), (0, 0));
        Forwarding { compiled, former, compiler, adopting: None, slots_used, ledger, tally }
    }

    /// Have a snapshot compiled and adopted; `reply` is answered when workers go by it, or it is refused.
    pub fn apply(&self, snapshot: Snapshot, reply: Reply) {
        self.compiler.apply(snapshot, reply);
    }

    /// The same with the snapshot that a change makes of the one in force.
    pub fn amend(&self, change: SnapshotChange, reply: Reply) {
        self.compiler.amend(change, reply);
    }

    /// Reach backends by these routes from now on.
    pub fn reroute(&self, routes: RouteTable) {
        self.compiler.reroute(Arc::new(routes));
    }

    /// Go on with what the compiler has done, a piece: how much there was, and what it has led to.
    pub fn go_on(&mut self, events: &mut EventLog) -> (usize, Option<Adopted>) {
        if self.adopting.is_none() {
            let Some(news) = self.compiler.news() else { return (0, None) };
            for freed in news.freed {
                self.tally.release(freed);
                self.ledger.release(freed);
            }
            self.slots_used = news.used;
            news.events.into_iter().for_each(|(kind, message)| events.add(kind, message));
            match news.done {
                Some((Some(compiled), reply)) => {
                    let adoption = self.tally.begin(&compiled);
                    self.adopting = Some(Adopting { compiled, reply, adoption });
                }
                Some((None, reply)) => {
                    reply.send(Response::Applied { generation: self.generation() });
                }
                None => {}
            }
        }
        (1, self.adopt())
    }

    /// Adopt a piece of a snapshot, and have the workers go by it when that was the last.
    fn adopt(&mut self) -> Option<Adopted> {
        let mut adopting = self.adopting.take()?;
        // Quotas come before the limits that they are for.
        if !self.tally.go_on(&mut adopting.adoption, &adopting.compiled, ADOPTED_PER_ROUND) {
            self.adopting = Some(adopting);
            return None;
        }
        let Adopting { compiled, reply, .. } = adopting;
        self.ledger.adopt(&compiled);
        self.former.push(self.compiled.swap(Arc::clone(&compiled)));
        Some(Adopted { compiled, reply })
    }

    /// Have former ones freed that no worker holds.
    pub fn free_former(&mut self) {
        for compiled in self.former.extract_if(.., |compiled| Arc::strong_count(compiled) == 1) {
            self.compiler.free(compiled);
        }
    }

    /// Count conns over all workers; call in each round.
    pub fn count(&mut self, now_ms: u64) {
        self.tally.round(now_ms);
    }

    /// The one in force.
    pub fn compiled(&self) -> Arc<Compiled> {
        self.compiled.load_full()
    }

    /// Its generation.
    pub fn generation(&self) -> u64 {
        self.compiled.load().generation
    }

    /// Somebody has an address: if we answer for it for the sake of conns only, it is theirs now, and
    /// this is told.
    pub fn let_go_of(&self, address: Ipv4Addr, mac: MacAddr, port: &str, events: &mut EventLog) {
        if self.compiled.load().leaving.release(address.to_bits()) {
            let message = format!(
                "{mac} on port {port} has {address}, which left the configuration: it is not \
                 answered for any more, what conns it has are lost"
            );
            events.add("address-released", message);
        }
    }

    /// Answer no more for addresses that left the configuration and whose last conn is gone.
    pub fn release_empty(&self, events: &mut EventLog) {
        let released = self.compiled.load().leaving.release_empty();
        let Some(first) = released.first() else { return };
        let others = match released.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!("{first}{others}: the last conn is gone, no longer answered for");
        events.add("address-released", message);
    }

    /// How many services and backends hold slots.
    pub fn slots_used(&self) -> (usize, usize) {
        self.slots_used
    }

    /// Memory of the tally, in bytes.
    pub fn tally_bytes(&self) -> u64 {
        self.tally.bytes() as u64
    }

    /// Drops of all threads, by reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        self.ledger.drops()
    }

    /// Addresses that left the configuration.
    pub fn leaving(&self) -> Vec<LeavingStats> {
        self.compiled.load().leaving.stats()
    }

    /// What is needed to add up the counters of services.
    pub fn services(&self) -> ServicesToCount {
        ServicesToCount { books: Arc::clone(self.ledger.books()), compiled: self.compiled() }
    }
}

/// What is needed to add up the counters of services; with many, that takes longer than a round of the
/// main thread may.
pub struct ServicesToCount {
    books: Arc<Books>,
    compiled: Arc<Compiled>,
}

impl ServicesToCount {
    /// With all other counters.
    pub fn add_to(self, mut stats: Stats) -> Stats {
        stats.services = self.books.services(&self.compiled);
        stats.pools = usage::pools(&self.compiled);
        stats.tables.extend(usage::local_ports(&self.compiled));
        stats
    }
}
