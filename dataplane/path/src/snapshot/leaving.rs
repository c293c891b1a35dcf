//! Addresses that no new conn uses and running ones still may: those of pools that drain, and VIPs
//! and local addresses that left the configuration. The latter are answered for by ARP and ping
//! until their last conn is gone, or somebody else has them.
//!
//! Conns are not counted by address: that would cost every conn something. While there is such an
//! address, each worker goes through its conns in small steps and counts; the main thread adds up.
//! A row is written by its worker alone.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use foldhash::fast::FixedState;
use sluice_api::Snapshot;
use sluice_api::stats::LeavingStats;

use super::address::Address;
use crate::counters::Counter;
use crate::family::V4;
use crate::ids::WorkerId;
use crate::table::conn::Conn;
use crate::time::{Millis, at_or_after};

/// Conns that a worker looks at in a round: within 1 us, and a million within a second under load.
const CONNS_PER_ROUND: usize = 64;
/// Time from the end of a count to the next one, in ms.
const PAUSE_MS: Millis = 1_000;

/// An address, and why it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaver {
    /// In host order.
    pub address: u32,
    /// What it is, or was.
    pub kind: Address,
    /// Whether it is in no pool or service any more.
    pub is_removed: bool,
}

/// What one worker has counted: a cache line of its own, as are its counters.
#[derive(Debug)]
#[repr(align(128))]
struct Row {
    /// By address: the count that is under way.
    counting: Box<[Counter]>,
    /// The last one that was completed.
    counted: Box<[Counter]>,
    /// How many were completed (published).
    counts: Counter,
}

/// Addresses that leave. Snapshots share it as long as the same ones do.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Tells it from all others; 0 when nothing leaves.
    id: u64,
    /// Sorted.
    leavers: Box<[Leaver]>,
    numbers: HashMap<u32, usize, FixedState>,
    /// By bits of a hash of the address: what certainly does not leave.
    filter: u64,
    /// By address: that it is not answered for any more.
    released: Box<[AtomicBool]>,
    /// By worker.
    rows: Box<[Row]>,
}

fn filter_bit(address: u32) -> u64 {
    1 << (address.wrapping_mul(0x9e37_79b9) >> 26)
}

impl Leaving {
    /// For these addresses, sorted; `id` is no other's and not 0.
    pub fn new(id: u64, leavers: Vec<Leaver>, workers: u16) -> Self {
        let of_each = || leavers.iter().map(|_| Counter::default()).collect();
        let row = |_| Row { counting: of_each(), counted: of_each(), counts: Counter::default() };
        Leaving {
            id,
            numbers: leavers.iter().map(|leaver| leaver.address).zip(0..).collect(),
            filter: leavers.iter().fold(0, |bits, leaver| bits | filter_bit(leaver.address)),
            released: leavers.iter().map(|_| AtomicBool::new(false)).collect(),
            rows: (0..workers).map(row).collect(),
            leavers: leavers.into(),
        }
    }

    /// Which addresses leave: what is drained, and what was ours in the previous snapshot, or was still
    /// answered for, and is neither ours nor a backend's in this one.
    pub(super) fn after(
        previous: &Arc<Leaving>,
        snapshot: &Snapshot,
        were_ours: &HashMap<u32, Address, FixedState>,
        are_ours: &HashMap<u32, Address, FixedState>,
        workers: u16,
    ) -> Arc<Leaving> {
        let drained = snapshot.pools.iter().flat_map(|pool| &pool.drained);
        let drained = drained.map(|address| Leaver {
            address: V4::of_valid(*address),
            kind: Address::Local,
            is_removed: false,
        });
        let backends: HashSet<u32> = snapshot
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .map(|backend| V4::of_valid(backend.address))
            .collect();
        let were_ours = were_ours.iter().map(|(address, kind)| (*address, *kind));
        let were_leaving = previous.leavers().filter(|leaver| leaver.is_removed);
        let removed = were_ours
            .chain(were_leaving.map(|leaver| (leaver.address, leaver.kind)))
            .filter(|(address, kind)| {
                !matches!(kind, Address::Own(_))
                    && !are_ours.contains_key(address)
                    && !backends.contains(address)
            })
            .map(|(address, kind)| Leaver { address, kind, is_removed: true });
        let mut leavers: Vec<Leaver> = drained.chain(removed).collect();
        leavers.sort_unstable();
        leavers.dedup();
        if previous.leavers().eq(leavers.iter().copied()) {
            return Arc::clone(previous);
        }
        let id = if leavers.is_empty() { 0 } else { snapshot.generation };
        Arc::new(Leaving::new(id, leavers, workers))
    }

    /// Those that are not released, sorted.
    pub fn leavers(&self) -> impl Iterator<Item = Leaver> + '_ {
        let released = |number: usize| self.released[number].load(Relaxed);
        self.leavers.iter().enumerate().filter(move |(n, _)| !released(*n)).map(|(_, l)| *l)
    }

    /// What an address was that left the configuration and is still answered for.
    pub fn answered(&self, address: u32) -> Option<Address> {
        let number = *self.numbers.get(&address)?;
        let leaver = &self.leavers[number];
        (leaver.is_removed && !self.released[number].load(Relaxed)).then_some(leaver.kind)
    }

    /// Answer no more for an address that left the configuration; whether it was answered for until
    /// now. Main thread only.
    pub fn release(&self, address: u32) -> bool {
        let is_answered = self.answered(address).is_some();
        if is_answered {
            self.released[self.numbers[&address]].store(true, Relaxed);
        }
        is_answered
    }

    /// Release those whose last conn is gone: they are the result. Main thread only.
    pub fn release_empty(&self) -> Vec<Ipv4Addr> {
        let removed = self.leavers.iter().enumerate().filter(|(_, leaver)| leaver.is_removed);
        removed
            .filter(|(number, _)| self.conns(*number) == Some(0))
            .filter(|(_, leaver)| self.release(leaver.address))
            .map(|(_, leaver)| Ipv4Addr::from_bits(leaver.address))
            .collect()
    }

    /// Conns of an address over all workers; `None` while one of them has not counted yet.
    fn conns(&self, number: usize) -> Option<u64> {
        let of = |row: &Row| (row.counts.observe() > 0).then(|| row.counted[number].get());
        self.rows.iter().map(of).sum()
    }

    /// For people.
    pub fn stats(&self) -> Vec<LeavingStats> {
        let stats = |(number, leaver): (usize, &Leaver)| LeavingStats {
            address: Ipv4Addr::from_bits(leaver.address).into(),
            kind: (if leaver.kind == Address::Vip { "vip" } else { "local" }).to_owned(),
            state: (if leaver.is_removed { "removed" } else { "drained" }).to_owned(),
            conns: self.conns(number),
        };
        let all = self.leavers.iter().enumerate();
        all.filter(|(number, _)| !self.released[*number].load(Relaxed)).map(stats).collect()
    }
}

/// How far a worker has come with counting.
#[derive(Debug, Default)]
pub struct Census {
    /// Whose addresses it counts.
    id: u64,
    /// The next conn to look at.
    next: usize,
    /// When the next count begins.
    begin_at: Option<Millis>,
}

impl Census {
    /// Count a few of a worker's conns. Call once a round.
    #[inline]
    pub fn step(&mut self, leaving: &Leaving, worker: WorkerId, conns: &[Conn], now: Millis) {
        if leaving.id != 0 {
            self.count(leaving, worker, conns, now);
        }
    }

    #[cold]
    fn count(&mut self, leaving: &Leaving, worker: WorkerId, conns: &[Conn], now: Millis) {
        if self.id != leaving.id {
            *self = Census { id: leaving.id, next: 0, begin_at: None };
        }
        let Some(row) = leaving.rows.get(worker.index()) else { return };
        if self.next == 0 {
            if self.begin_at.is_some_and(|at| !at_or_after(now, at)) {
                return;
            }
            row.counting.iter().for_each(|count| count.set(0));
        }
        let end = (self.next + CONNS_PER_ROUND).min(conns.len());
        for conn in &conns[self.next..end] {
            let flows = [conn.from_client(), conn.from_backend()];
            // Protocol 0: it is gone.
            for flow in flows.iter().filter(|flow| flow.protocol != 0) {
                if leaving.filter & filter_bit(flow.dst) != 0
                    && let Some(number) = leaving.numbers.get(&flow.dst)
                {
                    row.counting[*number].add(1);
                }
            }
        }
        self.next = end;
        if end == conns.len() {
            for (counted, counting) in row.counted.iter().zip(&row.counting) {
                counted.set(counting.get());
            }
            row.counts.publish(row.counts.get() + 1);
            (self.next, self.begin_at) = (0, Some(now.wrapping_add(PAUSE_MS)));
        }
    }
}

#[cfg(test)]
mod tests;
