//! Next hops of the backends of the snapshot in force: looked after whether or not packets go there, so
//! that one that does not answer is known before the first client, and one that answers again too.
//!
//! Every [`ROUND_MS`] each has its turn: one that was never asked for is asked for, one whose
//! confirmation is old is confirmed, as if a worker wanted it. One that has failed is asked for about
//! once a second. All of that has a rate of its own, behind which no packet's next hop waits, and takes
//! no place in the table that others need.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::FixedState;
use sluice_api::stats::UnreachableBackend;

use super::Resolver;
use super::budget::{RequestBudget, WATCHED};
use super::entry::{Place, Rank, State};
use crate::family::{Family, V4};
use crate::next_hop::{NextHop, Purpose};
use crate::table::route::RouteTable;

/// Time between two turns of a next hop, in ms.
pub const ROUND_MS: u64 = 5_000;
/// Turns in each tick, so that no round of the main thread takes long.
const TURNS_PER_TICK: usize = 256;
/// Since when no worker may have wanted a next hop that is looked after only for us, in ms: workers
/// repeat their want every 5 s.
const IDLE_MS: u64 = 10_000;

/// Where the backends of a snapshot are, by next hop. Made where snapshots are compiled: it takes long
/// when there are many.
#[derive(Debug, Default)]
pub struct BackendHops {
    /// Next hops, each with its backends' places in `addresses`.
    hops: HashMap<NextHop, Range<usize>, FixedState>,
    /// The same in order.
    order: Box<[NextHop]>,
    /// Backends' addresses in host order, by next hop, each once.
    addresses: Box<[u32]>,
    /// Of those to which no route leads.
    without_route: Box<[u32]>,
}

impl BackendHops {
    /// Of backends with these addresses (host order; any of them may be there more than once).
    pub fn new(backends: impl IntoIterator<Item = u32>, routes: &RouteTable) -> Self {
        let mut all: Vec<u32> = backends.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        let mut without_route = Vec::new();
        let mut routed: Vec<(NextHop, u32)> = Vec::with_capacity(all.len());
        for address in all {
            match routes.lookup(address) {
                Some(hop) => routed.push((hop, address)),
                None => without_route.push(address),
            }
        }
        routed.sort_unstable();
        let mut hops: HashMap<NextHop, Range<usize>, FixedState> = HashMap::default();
        for (place, (key, _)) in routed.iter().enumerate() {
            hops.entry(*key).or_insert(place..place).end = place + 1;
        }
        let mut order: Vec<NextHop> = routed.iter().map(|(key, _)| *key).collect();
        order.dedup();
        let addresses = routed.into_iter().map(|(_, address)| address).collect();
        BackendHops { hops, order: order.into(), addresses, without_route: without_route.into() }
    }

    fn contains(&self, key: &NextHop) -> bool {
        self.hops.contains_key(key)
    }

    /// The backends that cannot be sent to when these next hops do not answer, in order.
    pub fn unreachable(&self, failed: &[NextHop]) -> Vec<UnreachableBackend> {
        let at = |address: &u32, next_hop: Option<u32>| UnreachableBackend {
            address: V4::ip(*address).into(),
            next_hop: next_hop.map(|hop| V4::ip(hop).into()),
        };
        let behind = failed.iter().flat_map(|key| {
            let places = self.hops.get(key).cloned().unwrap_or_default();
            self.addresses[places].iter().map(|address| at(address, Some(key.address)))
        });
        let without = self.without_route.iter().map(|address| at(address, None));
        let mut all: Vec<UnreachableBackend> = behind.chain(without).collect();
        all.sort_unstable();
        all
    }
}

/// What the resolver knows of the next hops that it looks after.
#[derive(Debug)]
pub(super) struct Watch {
    hops: Arc<BackendHops>,
    /// Whose turn it is, by its place in `order`, and when the next round begins.
    turn: usize,
    next_round_ms: u64,
    /// Those that have failed and were not reachable since.
    failed: BTreeSet<NextHop>,
    changes: u64,
    /// Entries that nobody else wants and whose request is due.
    pub(super) waiting: BTreeMap<Place, NextHop>,
    pub(super) requests: RequestBudget,
    /// Entries that no worker wants, or none any more.
    idle: HashSet<NextHop, FixedState>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            hops: Arc::default(),
            turn: 0,
            next_round_ms: 0,
            failed: BTreeSet::new(),
            changes: 0,
            waiting: BTreeMap::new(),
            requests: RequestBudget::new(WATCHED),
            idle: HashSet::default(),
        }
    }
}

impl Watch {
    /// Whether a next hop is looked after.
    pub(super) fn contains(&self, key: &NextHop) -> bool {
        self.hops.contains(key)
    }

    /// Whether nobody else wants a next hop that is looked after.
    pub(super) fn is_idle(&self, key: &NextHop) -> bool {
        self.idle.contains(key)
    }

    /// A worker wants it. Whether that is news.
    pub(super) fn is_wanted(&mut self, key: &NextHop) -> bool {
        self.idle.remove(key)
    }

    /// It does not answer.
    pub(super) fn has_failed(&mut self, key: NextHop) {
        if self.contains(&key) && self.failed.insert(key) {
            self.changes += 1;
        }
    }

    /// It answers, or has no place in the table any more.
    pub(super) fn is_well(&mut self, key: &NextHop) {
        self.changes += u64::from(self.failed.remove(key));
    }
}

impl Resolver {
    /// Look after these next hops from now on, in place of those before. The same ones again change nothing:
    /// with a snapshot every few ms, whose turn it is would be the first one's for ever.
    pub fn watch(&mut self, now_ms: u64, hops: Arc<BackendHops>) {
        let watch = &mut self.watch;
        if Arc::ptr_eq(&watch.hops, &hops) {
            return;
        }
        let before = std::mem::replace(&mut watch.hops, hops);
        let hops = &watch.hops;
        let had_any = !watch.failed.is_empty();
        watch.failed.retain(|key| hops.contains(key));
        watch.idle.retain(|key| hops.contains(key));
        // The same next hops may be those of other backends now.
        watch.changes += u64::from(had_any || before.without_route != hops.without_route);
        (watch.turn, watch.next_round_ms) = (0, now_ms);
    }

    /// How often what [`unreachable`](Self::unreachable) says may have changed.
    pub fn unreachable_changes(&self) -> u64 {
        self.watch.changes
    }

    /// Next hops of backends that do not answer, and what tells whose they are.
    pub fn unreachable(&self) -> (Vec<NextHop>, Arc<BackendHops>) {
        (self.watch.failed.iter().copied().collect(), Arc::clone(&self.watch.hops))
    }

    /// Give those their turn whose it is.
    pub(super) fn go_round(&mut self, now_ms: u64) {
        if now_ms < self.watch.next_round_ms {
            return;
        }
        let hops = Arc::clone(&self.watch.hops);
        let from = self.watch.turn;
        let to = hops.order.len().min(from + TURNS_PER_TICK);
        for key in &hops.order[from..to] {
            self.look_after(now_ms, *key);
        }
        self.watch.turn = to;
        if to == hops.order.len() {
            (self.watch.turn, self.watch.next_round_ms) = (0, now_ms + ROUND_MS);
        }
    }

    fn look_after(&mut self, now_ms: u64, key: NextHop) {
        self.raise(key, Rank::Site);
        let Some(entry) = self.entries.get(&key) else {
            // A quarter of the table is for those that packets go to.
            if self.entries.len() < self.capacity - self.capacity / 4 {
                self.watch.idle.insert(key);
                self.insert(now_ms, key, Purpose::Site);
            }
            return;
        };
        if now_ms >= entry.wanted_ms + IDLE_MS {
            self.watch.idle.insert(key);
        }
        match entry.state {
            State::Reachable { mac, fresh_until_ms } if now_ms >= fresh_until_ms => {
                self.set_state(key, State::Probing { mac, tries: 0 });
                self.request(now_ms, key);
            }
            // It had failed before it was a backend's.
            State::Failed { .. } if !self.watch.failed.contains(&key) => {
                self.failed.remove(&(entry.wanted_ms, key));
                self.set_due(key, now_ms);
            }
            _ => {}
        }
    }
}
