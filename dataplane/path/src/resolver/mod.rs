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

mod budget;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use sluice_wire::ether::MacAddr;

use budget::{FIRST_PACKETS, KNOWN, RequestBudget, STRANGERS};
pub use budget::{REQUEST_BURST, REQUESTS_PER_SECOND};
pub use watch::BackendHops;
use watch::Watch;

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

/// For what a worker wants a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Packets to a backend, or by a gateway.
    Site,
    /// Packets of a conn to which both sides have agreed.
    Client,
    /// An answer to somebody of whom there was a first packet and no more.
    Stranger {
        /// The MAC address that it came from, where that is known.
        came_from: Option<MacAddr>,
    },
}

impl Purpose {
    fn rank(self) -> Rank {
        match self {
            Purpose::Site => Rank::Site,
            Purpose::Client => Rank::Client,
            Purpose::Stranger { .. } => Rank::Stranger,
        }
    }

    fn came_from(self) -> Option<MacAddr> {
        match self {
            Purpose::Stranger { came_from } => came_from.filter(|mac| mac.is_station()),
            Purpose::Site | Purpose::Client => None,
        }
    }
}

/// Who comes first when not all can be served: the later ones here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Wanted for first packets only, and has not answered.
    Stranger,
    /// Has answered, or has a conn.
    Client,
    /// A backend or gateway. There are no more of them than are configured.
    Site,
}

/// What the main thread has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an ARP request out of a port.
    Request {
        /// Index of the port.
        port: u16,
        /// The address asked for, in host order.
        target: u32,
        /// Destination MAC address; broadcast when absent.
        unicast_to: Option<MacAddr>,
    },
    /// Tell every worker.
    Publish(NeighbourUpdate),
    /// Tell the kernel behind a port where a next hop is, as it may not have heard.
    TellKernel {
        /// Index of the port.
        port: u16,
        /// The next hop, in host order.
        address: u32,
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

/// News of a next hop for the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourUpdate {
    /// Index of the port behind which it is.
    pub port: u16,
    /// Its address, in host order.
    pub address: u32,
    /// What is known of it now.
    pub state: NeighbourState,
}

/// What workers know of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Packets can go to this MAC address.
    Reachable(MacAddr),
    /// It does not answer.
    Failed,
    /// It is forgotten: a worker that still uses it has to ask again.
    Removed,
}

/// A next hop for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the port behind which it is.
    pub port: u16,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC address, when packets can go there.
    pub mac: Option<MacAddr>,
    /// `incomplete`, `reachable`, `probing` or `failed`.
    pub state: &'static str,
    /// Time since it was last confirmed, or since it was first wanted if it never was, in ms.
    pub age_ms: u64,
}

/// Port index and address in host order.
pub type Key = (u16, u32);

/// Whether packets can go there meanwhile, and the number among all that waited.
type Place = (bool, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Asked for `tries` times, not usable.
    Incomplete { tries: u8 },
    /// Usable; a want after `fresh_until_ms` starts probing.
    Reachable { mac: MacAddr, fresh_until_ms: u64 },
    /// Usable, but to be confirmed: asked `tries` times, first by unicast, then by broadcast.
    Probing { mac: MacAddr, tries: u8 },
    /// Not usable; a want asks anew, one before `until_ms` does so then.
    Failed { until_ms: u64, wanted: bool },
}

#[derive(Debug)]
struct Entry {
    state: State,
    rank: Rank,
    /// Where a first packet of it came from: asked first.
    came_from: Option<MacAddr>,
    /// Last want.
    wanted_ms: u64,
    /// Last confirmation, at first the first want.
    confirmed_ms: u64,
    /// The time in `deadlines`, if it stands there.
    due_ms: Option<u64>,
    /// Its place in `waiting` for a token to send its next request.
    waiting: Option<Place>,
    /// Its failure was told, and it was not reachable since.
    failure_told: bool,
}

impl Entry {
    fn mac(&self) -> Option<MacAddr> {
        match self.state {
            State::Reachable { mac, .. } | State::Probing { mac, .. } => Some(mac),
            State::Incomplete { .. } | State::Failed { .. } => None,
        }
    }

    /// Whether its next request goes to where its packet came from.
    fn asks_sender(&self) -> bool {
        self.came_from.is_some() && matches!(self.state, State::Incomplete { tries: 0 })
    }

    fn is_failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }
}

/// The ARP table.
#[derive(Debug)]
pub struct Resolver {
    capacity: usize,
    port_names: Vec<String>,
    entries: HashMap<Key, Entry>,
    /// When each entry needs attention without being asked.
    deadlines: BTreeSet<(u64, Key)>,
    /// All entries by rank and last want: the first of each is the longest unused.
    by_use: [BTreeSet<(u64, Key)>; 3],
    /// Failed entries by their last want.
    failed: BTreeSet<(u64, Key)>,
    /// Entries whose request is due, in the order in which they came; what is only to be confirmed
    /// behind what packets wait for.
    waiting: BTreeMap<Place, Key>,
    /// Strangers, likewise.
    waiting_strangers: BTreeMap<Place, Key>,
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
            port_names: Vec::new(),
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

    /// The same table with the ports' names, for its events; without, they name indices.
    pub fn with_port_names(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.port_names = names.into_iter().collect();
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

    /// Strangers among them that there may be.
    fn strangers_share(&self) -> usize {
        (self.capacity / 2).max(1)
    }

    /// A worker asks for a next hop, or still uses it. What is known is published, as the worker
    /// may have missed it or be new to it. Of a full table, workers are told `Removed`, so that
    /// they do not keep what the resolver does not.
    pub fn want(&mut self, now_ms: u64, port: u16, address: u32, purpose: Purpose) {
        let key = (port, address);
        self.raise(key, purpose.rank());
        let Some(entry) = self.entries.get_mut(&key) else {
            if self.make_room(now_ms, purpose.rank()) {
                self.insert(now_ms, key, purpose);
            } else {
                self.publish(key, NeighbourState::Removed);
                if purpose.rank() > Rank::Stranger {
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

    /// An ARP packet was seen on a port: its sender's pair, whether it is a reply, and whether its
    /// target is one of our addresses. Probes (RFC 5227: sender 0) and MAC addresses that no
    /// single station has say nothing.
    pub fn seen(
        &mut self,
        now_ms: u64,
        port: u16,
        sender: u32,
        mac: MacAddr,
        is_reply: bool,
        for_us: bool,
    ) {
        let key = (port, sender);
        let Some(entry) = self.entries.get(&key) else { return };
        if sender == 0 || !mac.is_station() {
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

    /// A port's link came up: what is behind it may be another network now, so that each of its
    /// next hops is verified when it is wanted next.
    pub fn port_up(&mut self, now_ms: u64, port: u16) {
        for ((of_port, _), entry) in &mut self.entries {
            if let State::Reachable { fresh_until_ms, .. } = &mut entry.state
                && *of_port == port
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

    /// All next hops, in order of address.
    pub fn status(&self, now_ms: u64) -> Vec<Neighbour> {
        let mut neighbours: Vec<Neighbour> = self
            .entries
            .iter()
            .map(|((port, address), entry)| Neighbour {
                port: *port,
                address: Ipv4Addr::from_bits(*address),
                mac: entry.mac(),
                state: match entry.state {
                    State::Incomplete { .. } => "incomplete",
                    State::Reachable { .. } => "reachable",
                    State::Probing { .. } => "probing",
                    State::Failed { .. } => "failed",
                },
                age_ms: now_ms.saturating_sub(entry.confirmed_ms),
            })
            .collect();
        neighbours.sort_unstable_by_key(|n| (n.address, n.port));
        neighbours
    }

    fn publish(&mut self, (port, address): Key, state: NeighbourState) {
        self.actions.push(Action::Publish(NeighbourUpdate { port, address, state }));
    }

    fn insert(&mut self, now_ms: u64, key: Key, purpose: Purpose) {
        let entry = Entry {
            state: State::Incomplete { tries: 0 },
            rank: purpose.rank(),
            came_from: purpose.came_from(),
            wanted_ms: now_ms,
            confirmed_ms: now_ms,
            due_ms: None,
            waiting: None,
            failure_told: false,
        };
        self.by_use[entry.rank as usize].insert((now_ms, key));
        self.entries.insert(key, entry);
        self.request(now_ms, key);
    }

    /// Whether there is room for one more of a rank. In a full table it is that of one that has failed,
    /// of a stranger, of one that nobody wants any more, or of one of a lower rank, the longest unused;
    /// a stranger over the strangers' share gets that of another one.
    fn make_room(&mut self, now_ms: u64, rank: Rank) -> bool {
        let strangers = &self.by_use[Rank::Stranger as usize];
        let oldest_stranger = strangers.first().copied();
        let is_over_share = rank == Rank::Stranger && strangers.len() >= self.strangers_share();
        if self.entries.len() < self.capacity && !is_over_share {
            return true;
        }
        let oldest = |rank: Rank| self.by_use[rank as usize].first().copied();
        let is_unused = |(wanted_ms, _): &(u64, Key)| now_ms >= wanted_ms + EVICTABLE_MS;
        let unused =
            [oldest(Rank::Client), oldest(Rank::Site)].into_iter().flatten().filter(is_unused);
        let room = if is_over_share { None } else { self.failed.first().copied() }
            .or(oldest_stranger)
            .or(unused.min())
            .or(oldest(Rank::Client).filter(|_| rank > Rank::Client));
        if let Some((_, key)) = room {
            self.remove(key);
        }
        room.is_some()
    }

    fn remove(&mut self, key: Key) {
        self.leave_queue(key);
        let Some(entry) = self.entries.remove(&key) else { return };
        self.watch.is_wanted(&key);
        self.watch.is_well(&key);
        self.by_use[entry.rank as usize].remove(&(entry.wanted_ms, key));
        self.failed.remove(&(entry.wanted_ms, key));
        if let Some(due_ms) = entry.due_ms {
            self.deadlines.remove(&(due_ms, key));
        }
        self.publish(key, NeighbourState::Removed);
    }

    /// An entry is of this rank, if it was of a lower one.
    fn raise(&mut self, key: Key, rank: Rank) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.rank >= rank {
            return;
        }
        self.by_use[entry.rank as usize].remove(&(entry.wanted_ms, key));
        self.by_use[rank as usize].insert((entry.wanted_ms, key));
        let was_stranger = std::mem::replace(&mut entry.rank, rank) == Rank::Stranger;
        if let (true, Some(place)) = (was_stranger, entry.waiting) {
            self.waiting_strangers.remove(&place);
            self.waiting.insert(place, key);
        }
    }

    /// Change an entry's state and keep the index of failed entries.
    fn set_state(&mut self, key: Key, state: State) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.state = state;
        // A backend's next hop that has failed gives its place to nobody, or nobody would know.
        if entry.is_failed() && !self.watch.contains(&key) {
            self.failed.insert((entry.wanted_ms, key));
        } else {
            self.failed.remove(&(entry.wanted_ms, key));
        }
    }

    fn set_due(&mut self, key: Key, due_ms: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(old) = entry.due_ms.replace(due_ms) {
            self.deadlines.remove(&(old, key));
        }
        self.deadlines.insert((due_ms, key));
    }

    /// The entry's next request: now if the rate allows it, else in its turn.
    fn request(&mut self, now_ms: u64, key: Key) {
        let Some(entry) = self.entries.get(&key) else { return };
        let may = match entry.rank {
            Rank::Stranger => self.may_ask_stranger(now_ms, key),
            _ if self.waits_behind_all(key) => self.watch.requests.take(now_ms),
            Rank::Client | Rank::Site => {
                let usable = entry.mac().is_some();
                let next = self.waiting.first_key_value();
                next.is_none_or(|((next_usable, _), _)| !usable && *next_usable)
                    && self.requests.take(now_ms)
            }
        };
        if may {
            self.send(now_ms, key);
        } else {
            self.queue(key);
        }
    }

    /// Whether no packet waits for its next request, and none would if it was sent.
    fn waits_behind_all(&self, key: Key) -> bool {
        let is_failed = self.entries.get(&key).is_some_and(Entry::is_failed);
        is_failed || self.watch.is_idle(&key)
    }

    /// Whether the rate allows the next request for a stranger.
    fn may_ask_stranger(&mut self, now_ms: u64, key: Key) -> bool {
        let asks_sender = self.entries.get(&key).is_some_and(Entry::asks_sender);
        (asks_sender && self.first_packet_requests.take(now_ms))
            || (!asks_sender && self.stranger_requests.take(now_ms))
    }

    /// Let an entry wait for its turn to be asked for.
    fn queue(&mut self, key: Key) {
        self.leave_queue(key);
        let is_last = self.waits_behind_all(key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(old) = entry.due_ms.take() {
            self.deadlines.remove(&(old, key));
        }
        self.last_place += 1;
        let place = (entry.mac().is_some(), self.last_place);
        entry.waiting = Some(place);
        let queue = match entry.rank {
            Rank::Stranger => &mut self.waiting_strangers,
            _ if is_last => &mut self.watch.waiting,
            Rank::Client | Rank::Site => &mut self.waiting,
        };
        queue.insert(place, key);
    }

    fn leave_queue(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(place) = entry.waiting.take() {
            self.waiting.remove(&place);
            self.waiting_strangers.remove(&place);
            self.watch.waiting.remove(&place);
        }
    }

    fn send(&mut self, now_ms: u64, key: Key) {
        self.leave_queue(key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let sender = entry.came_from.filter(|_| entry.asks_sender());
        let unicast_to = match &mut entry.state {
            State::Incomplete { tries } => {
                *tries += 1;
                sender
            }
            State::Probing { mac, tries } => {
                *tries += 1;
                (*tries <= TRIES).then_some(*mac)
            }
            State::Failed { .. } => None,
            State::Reachable { .. } => return,
        };
        let (port, target) = key;
        self.actions.push(Action::Request { port, target, unicast_to });
        self.set_due(key, now_ms + REQUEST_INTERVAL_MS);
    }

    /// An entry's deadline is there.
    fn due(&mut self, now_ms: u64, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.due_ms = None;
        let is_watched = self.watch.contains(&key);
        match entry.state {
            State::Failed { .. } if is_watched => {
                if !self.doubts_silence {
                    self.watch.has_failed(key);
                }
                self.request(now_ms, key);
            }
            State::Incomplete { tries: TRIES.. } => self.fail(now_ms, key),
            // Three more by broadcast when answers arrive again.
            State::Probing { mac, tries: TRIES.. } if self.doubts_silence => {
                self.set_state(key, State::Probing { mac, tries: TRIES });
                self.request(now_ms, key);
            }
            State::Probing { tries, .. } if tries >= 2 * TRIES => self.fail(now_ms, key),
            State::Incomplete { .. } | State::Probing { .. } => self.request(now_ms, key),
            State::Failed { wanted: true, .. } => {
                self.set_state(key, State::Incomplete { tries: 0 });
                self.request(now_ms, key);
            }
            State::Reachable { .. } | State::Failed { .. } => {
                let unused_ms = entry.wanted_ms + UNUSED_MS;
                if is_watched {
                    self.set_due(key, now_ms + UNUSED_MS);
                } else if now_ms >= unused_ms {
                    self.remove(key);
                } else {
                    self.set_due(key, unused_ms);
                }
            }
        }
    }

    fn reached(&mut self, now_ms: u64, key: Key, mac: MacAddr, confirmed: bool) {
        let fresh_until_ms = if confirmed { now_ms + REACHABLE_MS } else { now_ms };
        self.set_state(key, State::Reachable { mac, fresh_until_ms });
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if confirmed {
            entry.confirmed_ms = now_ms;
        }
        entry.failure_told = false;
        self.watch.is_well(&key);
        let unused_ms = entry.wanted_ms + UNUSED_MS;
        self.leave_queue(key);
        self.set_due(key, unused_ms);
    }

    fn fail(&mut self, now_ms: u64, key: Key) {
        let until_ms = now_ms + FAILED_HOLD_MS;
        self.set_state(key, State::Failed { until_ms, wanted: false });
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let unused_ms = entry.wanted_ms + UNUSED_MS;
        let told = std::mem::replace(&mut entry.failure_told, true);
        let is_stranger = entry.rank == Rank::Stranger;
        let is_watched = self.watch.contains(&key);
        self.set_due(key, if is_watched { now_ms } else { unused_ms });
        self.publish(key, NeighbourState::Failed);
        // Of strangers anybody can make any number.
        if !told && !is_stranger {
            let subject = self.name(key);
            let message = format!("{subject} does not answer ARP");
            self.actions.push(Action::Event { kind: "neighbour-failed", subject, message });
        }
    }

    /// It may know where this was before; of strangers there may be any number.
    fn tell_kernel(&mut self, key: Key, mac: MacAddr) {
        let (port, address) = key;
        if self.entries.get(&key).is_some_and(|entry| entry.rank > Rank::Stranger) {
            self.actions.push(Action::TellKernel { port, address, mac });
        }
    }

    fn moved(&mut self, key: Key, from: MacAddr, to: MacAddr) {
        let subject = self.name(key);
        let message = format!("{subject} moved from {from} to {to}");
        self.actions.push(Action::Event { kind: "neighbour-moved", subject, message });
    }

    fn table_full(&mut self, key: Key) {
        let message = format!(
            "no room for {}: all {} entries are in use; raise limits.neighbours",
            self.name(key),
            self.capacity
        );
        let subject = "neighbours".to_owned();
        self.actions.push(Action::Event { kind: "neighbour-table-full", subject, message });
    }

    /// Some of the addresses that are known to have a MAC address behind a port.
    pub fn addresses_of(&self, port: u16, mac: MacAddr) -> Vec<Ipv4Addr> {
        let has_it = |((at, _), entry): &(&Key, &Entry)| *at == port && entry.mac() == Some(mac);
        let known = self.entries.iter().filter(has_it);
        known.map(|((_, address), _)| Ipv4Addr::from_bits(*address)).take(4).collect()
    }

    /// As `10.0.0.7 on lan`.
    fn name(&self, (port, address): Key) -> String {
        let address = Ipv4Addr::from_bits(address);
        match self.port_names.get(usize::from(port)) {
            Some(name) => format!("{address} on {name}"),
            None => format!("{address} on port {port}"),
        }
    }
}

#[cfg(test)]
mod tests;
