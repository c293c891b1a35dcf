//! The main thread's ARP table: which next hops are wanted, asked for, known, lost.
//!
//! A pure state machine. What workers want ([`Resolver::want`]), what ARP packets say
//! ([`Resolver::seen`]) and the time go in; requests to send, news for the workers and events come
//! out as [`Action`]s. It does no I/O and reads no clock.
//!
//! ```text
//!            want              answer                 want, 30 s after confirmation
//!   (none) ───────► incomplete ──────► reachable ───────────────────────────► probing
//!                    │ 3 × 1 s            ▲  ▲            answer                │
//!                    ▼                    │  └──────────────────────────────────┤ 3 × 1 s unicast,
//!                  failed ────────────────┘                                     │ 3 × 1 s broadcast
//!                    ▲ └─ want, 1 s after ─► incomplete                         │
//!                    └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Who is asked for, and who has a place in the table, goes by [`Rank`]: backends and gateways before
//! clients that have answered, these before strangers, of whom anybody can send any number of first
//! packets. Strangers have a share of the table, in which the newest are, and requests of their own:
//! one to the MAC address that the packet came from, which costs nobody else anything, then broadcasts
//! at a low rate, of the newest first: the older ones may well be given up before they are answered.
//!
//! Entries are made by workers' wants and for the backends of the snapshot in force ([`watch`]), never
//! by packets: a flood of ARP makes none. Who is already known is believed when it moves (RFC 826), as
//! failover depends on it. Entries that nobody wants for 10 minutes are removed (RFC 1122, 2.3.2.1),
//! but for backends' next hops, which are asked for even when they have failed.

mod ask;
mod budget;
mod entry;
mod report;
mod room;
mod transition;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_wire::ether::MacAddr;

use budget::{FIRST_PACKETS, KNOWN, RequestBudget, STRANGERS};
pub use budget::{REQUEST_BURST, REQUESTS_PER_SECOND};
use entry::{Entry, Place, Rank, State};
pub use report::Neighbour;
pub use watch::BackendHops;
use watch::Watch;

use crate::ids::InterfaceId;
use crate::next_hop::{NeighbourState, NeighbourUpdate, NextHop, Purpose};

/// Time between two requests for one address, in ms (RFC 1122, 2.3.2.1: at most one per second).
pub const REQUEST_INTERVAL_MS: u64 = 1_000;
/// Requests before an address counts as failed, and unicast ones before they are broadcast.
pub const TRIES: u8 = 3;
/// How long an answer counts as confirmation, in ms.
pub const REACHABLE_MS: u64 = 30_000;
/// How long a failed address is not asked for again, in ms.
pub const FAILED_HOLD_MS: u64 = 1_000;
/// When an entry that nobody wants is removed, in ms.
pub const UNUSED_MS: u64 = 600_000;
/// When a reachable entry that nobody wants may give its place to another, in ms: workers repeat
/// their want every 5 s.
pub const EVICTABLE_MS: u64 = 30_000;

/// What the main thread has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an ARP request.
    Request {
        /// Whom to ask for.
        target: NextHop,
        /// Destination MAC address; broadcast when absent.
        unicast_to: Option<MacAddr>,
    },
    /// Tell every worker.
    Publish(NeighbourUpdate),
    /// Tell the kernel behind an interface where a next hop is, as it may not have heard.
    TellKernel {
        /// The next hop.
        hop: NextHop,
        /// Its MAC address now.
        mac: MacAddr,
    },
    /// Tell the operator.
    Event {
        /// `neighbour-moved`, `neighbour-failed` or `neighbour-table-full`.
        kind: &'static str,
        /// The next hop, or the table.
        subject: String,
        /// A sentence.
        message: String,
    },
}

/// The ARP table.
#[derive(Debug)]
pub struct Resolver {
    capacity: usize,
    names: Vec<String>,
    entries: HashMap<NextHop, Entry>,
    /// When each entry needs attention without being asked.
    deadlines: BTreeSet<(u64, NextHop)>,
    /// All entries by rank and last want: the first of each is the longest unused.
    by_use: [BTreeSet<(u64, NextHop)>; 3],
    /// Failed entries by their last want.
    failed: BTreeSet<(u64, NextHop)>,
    /// Entries whose request is due, in the order in which they came; what is only to be confirmed
    /// behind what packets wait for.
    waiting: BTreeMap<Place, NextHop>,
    /// Strangers, likewise.
    waiting_strangers: BTreeMap<Place, NextHop>,
    last_place: u64,
    /// Answers may be lost on their way here.
    doubts_silence: bool,
    requests: RequestBudget,
    stranger_requests: RequestBudget,
    first_packet_requests: RequestBudget,
    watch: Watch,
    actions: Vec<Action>,
}

impl Resolver {
    /// A table of at most `capacity` next hops (`limits.neighbours`).
    pub fn new(capacity: usize) -> Self {
        Resolver {
            capacity,
            names: Vec::new(),
            entries: HashMap::with_capacity(capacity),
            deadlines: BTreeSet::new(),
            by_use: Default::default(),
            failed: BTreeSet::new(),
            waiting: BTreeMap::new(),
            waiting_strangers: BTreeMap::new(),
            last_place: 0,
            doubts_silence: false,
            requests: RequestBudget::new(KNOWN),
            stranger_requests: RequestBudget::new(STRANGERS),
            first_packet_requests: RequestBudget::new(FIRST_PACKETS),
            watch: Watch::default(),
            actions: Vec::new(),
        }
    }

    /// The same table with the interfaces' names, for its events; without, they name indices.
    pub fn with_interface_names(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names = names.into_iter().collect();
        self
    }

    /// Next hops in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Next hops it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A worker asks for a next hop, or still uses it. What is known is published, as the worker
    /// may have missed it or be new to it. Of a full table, workers are told `Removed`, so that
    /// they do not keep what the resolver does not.
    pub fn want(&mut self, now_ms: u64, key: NextHop, purpose: Purpose) {
        self.raise(key, Rank::of(purpose));
        let Some(entry) = self.entries.get_mut(&key) else {
            if self.make_room(now_ms, Rank::of(purpose)) {
                self.insert(now_ms, key, purpose);
            } else {
                self.publish(key, NeighbourState::Removed);
                if Rank::of(purpose) > Rank::Stranger {
                    self.table_full(key);
                }
            }
            return;
        };
        entry.came_from = purpose.came_from().or(entry.came_from);
        let by_use = &mut self.by_use[entry.rank as usize];
        by_use.remove(&(entry.wanted_ms, key));
        by_use.insert((now_ms, key));
        if self.failed.remove(&(entry.wanted_ms, key)) {
            self.failed.insert((now_ms, key));
        }
        entry.wanted_ms = now_ms;
        let waits = self.watch.is_wanted(&key) && entry.waiting.is_some();
        let is_watched = self.watch.contains(&key);
        match entry.state {
            // Its turn comes sooner now.
            State::Incomplete { .. } if waits => self.request(now_ms, key),
            State::Incomplete { .. } => {}
            State::Reachable { mac, fresh_until_ms } => {
                self.publish(key, NeighbourState::Reachable(mac));
                if now_ms >= fresh_until_ms {
                    self.set_state(key, State::Probing { mac, tries: 0 });
                    self.request(now_ms, key);
                }
            }
            State::Probing { mac, .. } => self.publish(key, NeighbourState::Reachable(mac)),
            // It is asked for anyway.
            State::Failed { .. } if is_watched => self.publish(key, NeighbourState::Failed),
            State::Failed { until_ms, .. } if now_ms < until_ms => {
                self.publish(key, NeighbourState::Failed);
                self.set_state(key, State::Failed { until_ms, wanted: true });
                self.set_due(key, until_ms);
            }
            State::Failed { .. } => {
                self.set_state(key, State::Incomplete { tries: 0 });
                self.request(now_ms, key);
            }
        }
    }

    /// An ARP packet was seen: who its sender is, and where, whether it is a reply, and whether its
    /// target is one of our addresses. Probes (RFC 5227: sender 0) and MAC addresses that no
    /// single station has say nothing.
    pub fn seen(&mut self, now_ms: u64, key: NextHop, mac: MacAddr, is_reply: bool, for_us: bool) {
        let Some(entry) = self.entries.get(&key) else { return };
        if key.address == 0 || !mac.is_station() {
            return;
        }
        let asked = match entry.state {
            State::Incomplete { .. } | State::Probing { .. } => true,
            State::Reachable { .. } | State::Failed { .. } => false,
        };
        let old = entry.mac();
        let moved = old.filter(|old| *old != mac);
        // An answer to our request proves that packets reach it; so does its own request to us,
        // nearly. Any other packet tells where it is and no more: the next want will verify.
        let confirms = for_us && (!is_reply || asked || moved.is_none());
        if !confirms && old == Some(mac) {
            return;
        }
        self.reached(now_ms, key, mac, confirms);
        if confirms {
            self.raise(key, Rank::Client);
        }
        if old != Some(mac) {
            self.publish(key, NeighbourState::Reachable(mac));
            // Answers to us reach it themselves, but it takes no second one within a second.
            if moved.is_some() || !(is_reply && for_us) {
                self.tell_kernel(key, mac);
            }
        }
        if let Some(old) = moved {
            self.moved(key, old, mac);
        }
    }

    /// An interface's link came up: what is behind it may be another network now, so that each of its
    /// next hops is verified when it is wanted next.
    pub fn link_up(&mut self, now_ms: u64, interface: InterfaceId) {
        for (hop, entry) in &mut self.entries {
            if let State::Reachable { fresh_until_ms, .. } = &mut entry.state
                && hop.interface == interface
            {
                *fresh_until_ms = (*fresh_until_ms).min(now_ms);
            }
        }
    }

    /// Whether answers may be lost on their way here, as in the queue of a worker that is stuck: one
    /// that is known is not given up then for want of an answer, but asked for again.
    pub fn doubt_silence(&mut self, doubt: bool) {
        self.doubts_silence = doubt;
    }

    /// Do what time has brought: repeat requests, give up, forget. To be called every 100 ms or
    /// more often.
    pub fn tick(&mut self, now_ms: u64) {
        while let Some((_, key)) = self.waiting.first_key_value() {
            let key = *key;
            if !self.requests.take(now_ms) {
                break;
            }
            self.send(now_ms, key);
        }
        // The newest first: its answer comes before it is given up.
        while let Some((_, key)) = self.waiting_strangers.last_key_value() {
            let key = *key;
            if !self.may_ask_stranger(now_ms, key) {
                break;
            }
            self.send(now_ms, key);
        }
        while let Some((_, key)) = self.watch.waiting.first_key_value() {
            let key = *key;
            if !self.watch.requests.take(now_ms) {
                break;
            }
            self.send(now_ms, key);
        }
        self.go_round(now_ms);
        while let Some((due_ms, key)) = self.deadlines.first().copied() {
            if due_ms > now_ms {
                break;
            }
            self.deadlines.pop_first();
            self.due(now_ms, key);
        }
    }

    /// What is to be done since the last call, in order.
    pub fn take_actions(&mut self) -> std::vec::Drain<'_, Action> {
        self.actions.drain(..)
    }

    fn publish(&mut self, hop: NextHop, state: NeighbourState) {
        self.actions.push(Action::Publish(NeighbourUpdate { hop, state }));
    }
}

#[cfg(test)]
mod tests;
