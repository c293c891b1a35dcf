//! A worker's copy of the next hops: what to write in front of a packet, and out of which interface.
//!
//! The main thread resolves (`resolver/`) and tells every worker; a worker asks it for an address
//! that it does not know, and again now and then while it uses one. Conns keep the slot of their
//! next hop; its epoch, raised whenever the slot changes hands, tells them when to look again. Slots
//! are used in turn, so that an epoch comes round only after 32,766 times as many next hops as there
//! are free slots.
//!
//! Time wraps after 49 days, and a time 25 days back looks like one to come. No entry gets that old
//! unheard of: the main thread tells of each that anybody wants, and forgets all others within
//! minutes.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;

use foldhash::fast::RandomState;
use sluice_api::DropReason;
use sluice_wire::ether::MacAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::family::{Family, V4};
use crate::ids::{InterfaceId, NextHopSlot};
use crate::next_hop::{NeighbourState, NeighbourUpdate, NextHop, Purpose};
use crate::time::{Millis, at_or_after};
use crate::verdict::Verdict;

/// How often a worker tells the main thread that a next hop is in use, in ms.
const WANT_EVERY_MS: u32 = 5_000;

/// The bit that the note in an entry has while that is not reachable, and no conn's note has: so one
/// comparison tells both.
const NOT_READY: u32 = 1 << 31;
/// The epochs that notes of next hops have.
const EPOCHS: RangeInclusive<u16> = 1..=0x7ffe;

/// A conn's note of its next hop: a slot, and above it an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct NextHopRef(u32);

impl NextHopRef {
    /// Not looked up yet: a slot that no table has, in an epoch that no slot has.
    pub const UNRESOLVED: NextHopRef = NextHopRef(u32::MAX);

    const fn new(slot: NextHopSlot, epoch: u16) -> Self {
        NextHopRef((epoch as u32) << 16 | slot.0 as u32)
    }

    /// The slot that it leads to, as long as it is [current](Neighbours::current).
    #[inline(always)]
    pub const fn slot(self) -> NextHopSlot {
        NextHopSlot(self.0 as u16)
    }

    const fn epoch(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

const _: () = assert!(NextHopRef::new(NextHopSlot(0), *EPOCHS.end()).0 & NOT_READY == 0);

impl Default for NextHopRef {
    fn default() -> Self {
        NextHopRef::UNRESOLVED
    }
}

/// A next hop as packets need it.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub struct Neighbour<F: Family = V4> {
    /// Destination and source MAC address: the first 12 bytes of a frame.
    pub macs: [u8; 12],
    /// What becomes of packets to it: transmitted when it is reachable, held while it is asked for,
    /// dropped when it did not answer.
    pub verdict: Verdict,
    /// The interface that it is behind.
    pub interface: InterfaceId,
    /// That interface's MTU, in bytes.
    pub mtu: u16,
    /// Its address, in host order.
    pub address: F::Address,
    want_at: Millis,
    /// What conns note that are to be led here; with [`NOT_READY`] while it is not reachable.
    note: u32,
}

const _: () = assert!(size_of::<Neighbour>() == 32, "two next hops share a cache line");

impl<F: Family> Neighbour<F> {
    /// Whether packets can go there.
    pub fn is_reachable(&self) -> bool {
        self.note & NOT_READY == 0
    }

    /// Whether the main thread was told of it so lately that it is not to be told yet.
    #[inline(always)]
    pub fn is_asked_for(&self, now: Millis) -> bool {
        (1..=WANT_EVERY_MS).contains(&self.want_at.wrapping_sub(now))
    }
}

/// An interface as its next hops need it.
#[derive(Clone, Copy, Debug)]
pub struct Egress {
    /// Its own MAC address.
    pub mac: MacAddr,
    /// Its MTU, in bytes.
    pub mtu: u16,
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The next hops of one worker.
pub struct Neighbours<F: Family = V4> {
    entries: Box<[Neighbour<F>]>,
    slots: HashMap<NextHop<F>, NextHopSlot, RandomState>,
    /// The longest free slot is used next.
    free: VecDeque<NextHopSlot>,
    /// By slot, for what it is wanted.
    purposes: Box<[Purpose]>,
    /// Those made for strangers, the oldest first; some are somebody else's by now, or a client's.
    strangers: VecDeque<NextHopRef>,
    /// Slots of strangers.
    strangers_len: usize,
    interfaces: Box<[Egress]>,
}

impl<F: Family> Neighbours<F> {
    /// A table of `capacity` next hops (at most 65,535) behind these interfaces.
    pub fn new(capacity: u16, interfaces: &[Egress]) -> Self {
        let slots = || (0..capacity).map(NextHopSlot);
        let empty = |slot| Neighbour {
            macs: [0; 12],
            verdict: Verdict::Drop(DropReason::NeighbourUnreachable),
            interface: InterfaceId(0),
            mtu: 0,
            address: F::Address::default(),
            want_at: 0,
            note: NextHopRef::new(slot, *EPOCHS.start()).0 | NOT_READY,
        };
        Neighbours {
            entries: slots().map(empty).collect(),
            slots: HashMap::with_capacity_and_hasher(capacity as usize, RandomState::default()),
            free: slots().collect(),
            purposes: vec![Purpose::Site; capacity as usize].into(),
            strangers: VecDeque::with_capacity(usize::from(capacity).max(1)),
            strangers_len: 0,
            interfaces: interfaces.into(),
        }
    }

    /// Next hops in the table.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All slots, for [`ready`].
    #[inline(always)]
    pub fn entries(&self) -> &[Neighbour<F>] {
        &self.entries
    }

    /// The slot that a note leads to, if it still belongs to the same next hop.
    #[inline(always)]
    pub fn current(&self, note: NextHopRef) -> Option<NextHopSlot> {
        let entry = self.entries.get(note.slot().index())?;
        (note.0 == entry.note & !NOT_READY).then_some(note.slot())
    }

    /// The entry in a slot.
    #[inline(always)]
    pub fn get(&self, slot: NextHopSlot) -> &Neighbour<F> {
        &self.entries[slot.index()]
    }

    /// For what the next hop in a slot is wanted.
    pub fn purpose(&self, slot: NextHopSlot) -> Purpose {
        self.purposes[slot.index()]
    }

    /// Whether a note leads to a stranger that has not answered, or nowhere any more.
    pub fn is_strangers(&self, note: NextHopRef) -> bool {
        self.current(note).is_none_or(|slot| is_stranger(self.purposes[slot.index()]))
    }

    /// The note of a next hop, with a new entry if it has none. Strangers have half of the table, in
    /// which the newest are; they make room for all others.
    ///
    /// # Errors
    /// [`Full`] when there is no entry left for it.
    pub fn slot_of(
        &mut self,
        hop: NextHop<F>,
        purpose: Purpose,
        now: Millis,
    ) -> Result<NextHopRef, Full> {
        let slot = match self.slots.get(&hop) {
            Some(slot) => *slot,
            None => self.add(hop, purpose, now).ok_or(Full)?,
        };
        if !is_stranger(purpose) {
            self.note_purpose(slot, purpose);
        }
        Ok(NextHopRef(self.entries[slot.index()].note & !NOT_READY))
    }

    fn note_purpose(&mut self, slot: NextHopSlot, purpose: Purpose) {
        let old = std::mem::replace(&mut self.purposes[slot.index()], purpose);
        self.strangers_len += usize::from(is_stranger(purpose));
        self.strangers_len -= usize::from(is_stranger(old));
    }

    /// Take the slot of the stranger that has waited longest; false when there is none.
    fn give_up_stranger(&mut self) -> bool {
        while let Some(note) = self.strangers.pop_front() {
            if let Some(slot) = self.current(note)
                && is_stranger(self.purposes[slot.index()])
            {
                self.forget(slot);
                return true;
            }
        }
        false
    }

    /// A slot is free from now on: its conns look their next hop up again.
    fn forget(&mut self, slot: NextHopSlot) {
        self.note_purpose(slot, Purpose::Site);
        let entry = &mut self.entries[slot.index()];
        entry.verdict = Verdict::Drop(DropReason::NeighbourUnreachable);
        entry.note = following(NextHopRef(entry.note & !NOT_READY)).0 | NOT_READY;
        self.slots.remove(&NextHop { interface: entry.interface, address: entry.address });
        self.free.push_back(slot);
    }

    fn add(&mut self, hop: NextHop<F>, purpose: Purpose, now: Millis) -> Option<NextHopSlot> {
        let share = (self.entries.len() / 2).max(1);
        let is_stranger = is_stranger(purpose);
        // The list does not grow: those in it that have answered are given up with the oldest.
        let is_full = self.strangers_len >= share || self.strangers.len() >= self.entries.len();
        if self.free.is_empty() || (is_stranger && is_full) {
            self.give_up_stranger();
        }
        let slot = self.free.pop_front()?;
        let egress = self.interfaces[hop.interface.index()];
        let mut macs = [0; 12];
        macs[6..].copy_from_slice(&egress.mac.0);
        let entry = &mut self.entries[slot.index()];
        *entry = Neighbour {
            macs,
            verdict: Verdict::Hold,
            interface: hop.interface,
            mtu: egress.mtu,
            address: hop.address,
            // A slot that was just made is wanted at once.
            want_at: now,
            note: entry.note | NOT_READY,
        };
        let note = NextHopRef(entry.note & !NOT_READY);
        self.slots.insert(hop, slot);
        if is_stranger {
            self.strangers.push_back(note);
        }
        self.note_purpose(slot, purpose);
        Some(slot)
    }

    /// Routes have changed: all conns look their next hop up again, while the next hops stay as they are.
    pub fn reroute(&mut self) {
        for note in &mut self.strangers {
            let entry = self.entries.get(note.slot().index());
            if entry.is_some_and(|entry| note.0 == entry.note & !NOT_READY) {
                *note = following(*note);
            }
        }
        for entry in &mut self.entries {
            let not_ready = entry.note & NOT_READY;
            entry.note = following(NextHopRef(entry.note & !NOT_READY)).0 | not_ready;
        }
    }

    /// Whether the main thread should be told now that this next hop is wanted; true at most every
    /// 5 s for each.
    #[inline(always)]
    pub fn should_ask(&mut self, slot: NextHopSlot, now: Millis) -> bool {
        let entry = &mut self.entries[slot.index()];
        if entry.is_asked_for(now) {
            return false;
        }
        // What is missing is asked for again sooner: the message may have been lost.
        let pause = if entry.is_reachable() { WANT_EVERY_MS } else { 500 };
        entry.want_at = now.wrapping_add(pause);
        true
    }

    /// Take over what the main thread found out; the slot it concerns, if this worker knows it.
    pub fn update(&mut self, update: &NeighbourUpdate<F>, now: Millis) -> Option<NextHopSlot> {
        let slot = *self.slots.get(&update.hop)?;
        let entry = &mut self.entries[slot.index()];
        if !entry.is_asked_for(now) {
            entry.want_at = now;
        }
        match update.state {
            NeighbourState::Reachable(mac) => {
                entry.macs[..6].copy_from_slice(&mac.0);
                entry.verdict = Verdict::Transmit { interface: entry.interface };
                entry.note &= !NOT_READY;
                if is_stranger(self.purposes[slot.index()]) {
                    self.note_purpose(slot, Purpose::Client);
                }
            }
            NeighbourState::Failed => {
                if entry.is_reachable() {
                    // It was asked for as seldom as what is reachable: the next packet asks again.
                    entry.want_at = now;
                }
                entry.verdict = Verdict::Drop(DropReason::NeighbourUnreachable);
                entry.note |= NOT_READY;
            }
            NeighbourState::Removed => self.forget(slot),
        }
        Some(slot)
    }
}

/// The note of the same slot in its next epoch.
fn following(note: NextHopRef) -> NextHopRef {
    let epoch = note.epoch() + 1;
    let epoch = if EPOCHS.contains(&epoch) { epoch } else { *EPOCHS.start() };
    NextHopRef::new(note.slot(), epoch)
}

fn is_stranger(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Stranger { .. })
}

/// The next hop that a note leads to, when there is nothing to be done about it: the note is
/// current, the next hop reachable, and the main thread need not be asked yet.
#[inline(always)]
pub fn ready<F: Family>(
    entries: &[Neighbour<F>],
    note: NextHopRef,
    now: Millis,
) -> Option<&Neighbour<F>> {
    let entry = entries.get(note.slot().index())?;
    (note.0 == entry.note && !at_or_after(now, entry.want_at)).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::V6;
    use crate::testkit::Random;

    const SITE: Purpose = Purpose::Site;
    const STRANGER: Purpose = Purpose::Stranger { came_from: None };
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const PORT: Egress = Egress { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 };

    fn hop(address: u32) -> NextHop {
        NextHop { interface: InterfaceId(0), address }
    }

    fn update(address: u32, state: NeighbourState) -> NeighbourUpdate {
        NeighbourUpdate { hop: hop(address), state }
    }

    #[test]
    fn a_next_hop_is_asked_for_then_reachable_then_asked_for_seldom() {
        let mut table = Neighbours::new(4, &[PORT]);
        let note = table.slot_of(hop(7), SITE, 1_000).unwrap();
        let slot = table.current(note).unwrap();
        assert_eq!(table.get(slot).verdict, Verdict::Hold);
        assert!(ready(table.entries(), note, 0).is_none());
        assert!(table.should_ask(slot, 1_000) && !table.should_ask(slot, 1_400));
        assert!(table.should_ask(slot, 1_500), "an unanswered question is repeated");

        assert_eq!(table.update(&update(7, NeighbourState::Reachable(MAC)), 1_500), Some(slot));
        assert_eq!(table.get(slot).macs, [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
        assert!(ready(table.entries(), note, 2_000).is_none(), "the main thread is to be asked");
        assert!(table.should_ask(slot, 2_000) && !table.should_ask(slot, 6_999));
        assert!(ready(table.entries(), note, 6_999).is_some());
        assert!(table.should_ask(slot, 7_000));
    }

    /// Addresses that agree in all but their upper half are different next hops.
    #[test]
    fn next_hops_of_ipv6_are_told_apart_by_the_whole_address() {
        let at = |upper: u128| NextHop { interface: InterfaceId(0), address: upper << 64 | 7 };
        let mut table = Neighbours::<V6>::new(4, &[PORT]);
        let notes = [1, 2].map(|upper| table.slot_of(at(upper), SITE, 0).unwrap());
        assert_ne!(notes[0], notes[1]);
        let update = NeighbourUpdate { hop: at(2), state: NeighbourState::Reachable(MAC) };
        let slot = table.update(&update, 0);
        assert_eq!(slot, table.current(notes[1]));
        assert!(!table.get(notes[0].slot()).is_reachable());
        assert_eq!(table.get(notes[1].slot()).address, at(2).address);
        let removed = NeighbourUpdate { hop: at(1), state: NeighbourState::Removed };
        table.update(&removed, 0);
        assert_eq!((table.current(notes[0]), table.len()), (None, 1));
        assert_eq!(table.slot_of(at(2), SITE, 0), Ok(notes[1]));
    }

    #[test]
    fn a_next_hop_that_fails_is_asked_for_at_once_and_then_twice_a_second() {
        let mut table = Neighbours::new(4, &[PORT]);
        let note = table.slot_of(hop(7), SITE, 0).unwrap();
        let slot = table.current(note).unwrap();
        table.update(&update(7, NeighbourState::Reachable(MAC)), 0);
        assert!(table.should_ask(slot, 1_000));
        table.update(&update(7, NeighbourState::Failed), 1_200);
        assert!(table.should_ask(slot, 1_200));
        table.update(&update(7, NeighbourState::Failed), 1_201);
        assert!(!table.should_ask(slot, 1_699) && table.should_ask(slot, 1_700));
    }

    #[test]
    fn a_slot_that_changes_hands_invalidates_every_note() {
        let mut table = Neighbours::new(1, &[PORT]);
        let old = table.slot_of(hop(7), SITE, 0).unwrap();
        assert_eq!(table.slot_of(hop(8), SITE, 0), Err(Full));
        table.update(&update(7, NeighbourState::Removed), 0);
        assert_eq!(table.current(old), None);
        let new = table.slot_of(hop(8), SITE, 0).unwrap();
        assert_ne!(old, new);
        assert_eq!(table.get(table.current(new).unwrap()).address, 8);
        assert_eq!(table.current(NextHopRef::UNRESOLVED), None);
        assert_eq!(table.update(&update(7, NeighbourState::Failed), 0), None);
    }

    #[test]
    fn nothing_makes_unresolved_ready_and_epochs_wrap() {
        let never = |table: &Neighbours, now| {
            let unresolved = NextHopRef::UNRESOLVED;
            ready(table.entries(), unresolved, now).is_none() && table.current(unresolved).is_none()
        };
        assert_eq!(NextHopRef::default(), NextHopRef::UNRESOLVED);
        let full_size = Neighbours::new(u16::MAX, &[PORT]);
        assert!(never(&full_size, 0) && never(&Neighbours::new(0, &[PORT]), 0));
        let mut table = Neighbours::new(1, &[PORT]);
        let first = table.slot_of(hop(0), SITE, 0).unwrap();
        let epochs = u32::from(EPOCHS.end() - EPOCHS.start()) + 1;
        for n in 0..2 * epochs {
            let (hop_now, now) = (hop(n), n << 16);
            let note = table.slot_of(hop_now, SITE, now).unwrap();
            assert_eq!(note == first, n % epochs == 0, "notes repeat as seldom as can be");
            for state in [NeighbourState::Failed, NeighbourState::Reachable(MAC)] {
                table.update(&update(n, state), now);
                assert!(never(&table, now) && never(&table, now.wrapping_sub(1)));
            }
            assert!(table.should_ask(note.slot(), now));
            assert_eq!(ready(table.entries(), note, now).map(|e| e.address), Some(n));
            table.update(&update(n, NeighbourState::Removed), now);
            assert!(never(&table, now) && never(&table, now.wrapping_sub(1)));
            assert!(ready(table.entries(), note, now).is_none() && table.current(note).is_none());
        }
    }

    #[test]
    fn strangers_have_half_of_the_table_and_make_room_for_others() {
        let mut table = Neighbours::new(8, &[PORT]);
        let notes: Vec<NextHopRef> =
            (0..5).map(|n| table.slot_of(hop(n), STRANGER, 0).unwrap()).collect();
        assert_eq!((table.current(notes[0]), table.len()), (None, 4), "the oldest is given up");
        // Who answers is a stranger no more, nor who is wanted for something else.
        table.update(&update(1, NeighbourState::Reachable(MAC)), 0);
        table.slot_of(hop(2), SITE, 0).unwrap();
        for n in 10..10_000 {
            table.slot_of(hop(n), STRANGER, 0).unwrap();
        }
        assert!(table.current(notes[1]).is_some() && table.current(notes[2]).is_some());
        assert!(table.current(notes[3]).is_none() && table.current(notes[4]).is_none());
        assert_eq!((table.len(), table.strangers_len), (6, 4));
        assert!(table.strangers.len() <= 8 && table.strangers.capacity() <= 16);
        // All others have the whole table.
        let known: Vec<NextHopRef> =
            (100_000..100_006).map(|n| table.slot_of(hop(n), SITE, 0).unwrap()).collect();
        assert!(known.iter().all(|note| table.current(*note).is_some()));
        assert_eq!((table.len(), table.strangers_len), (8, 0));
        assert_eq!(table.slot_of(hop(5), STRANGER, 0), Err(Full));
        assert_eq!(table.slot_of(hop(6), SITE, 0), Err(Full));
    }

    /// The list of strangers stays within its bounds also when its oldest one waits for ever.
    #[test]
    fn strangers_that_answer_leave_no_trace() {
        let mut table = Neighbours::new(8, &[PORT]);
        for n in 0..1_000 {
            table.slot_of(hop(n), STRANGER, 0).unwrap();
            if n > 0 {
                table.update(&update(n, NeighbourState::Reachable(MAC)), 0);
                table.update(&update(n, NeighbourState::Removed), 0);
            }
        }
        assert!(table.strangers.len() <= 8 && table.strangers_len <= 1, "{:?}", table.strangers);
    }

    /// What the model knows of a next hop in the table.
    struct Known {
        /// Its number among all that there have been.
        number: u64,
        mac: Option<MacAddr>,
        /// When the main thread is to be asked next, in ms of a clock that does not wrap.
        want_at: u64,
    }

    /// The main thread's part: within 25 days it tells of each next hop, or forgets it.
    const HEARD_WITHIN_MS: u64 = (1 << 31) - 10_000;

    const CAPACITY: u16 = 6;

    /// A table beside a plain model of it.
    struct Beside {
        table: Neighbours,
        known: HashMap<u32, Known>,
        /// Every note that was given, with its address and the number of its entry.
        notes: Vec<(NextHopRef, u32, u64)>,
        numbers: u64,
        start: Millis,
        time: u64,
    }

    impl Beside {
        /// From any time and any epochs on.
        fn new(random: &mut Random) -> Self {
            let mut table = Neighbours::new(CAPACITY, &[PORT]);
            for (slot, entry) in (0..).map(NextHopSlot).zip(&mut table.entries) {
                let epoch = random.one_of(&[1, 2, 20_000, EPOCHS.end() - 2, *EPOCHS.end()]);
                entry.note = NextHopRef::new(slot, epoch).0 | NOT_READY;
            }
            let start = random.one_of(&[0, 1, i32::MAX as u32 - 100, 1 << 31, u32::MAX - 100]);
            let (known, notes) = (HashMap::new(), Vec::new());
            Beside { table, known, notes, numbers: 0, start, time: 0 }
        }

        fn now(&self) -> Millis {
            self.start.wrapping_add(self.time as u32)
        }

        fn look_up(&mut self, address: u32) {
            let is_full = self.known.len() == usize::from(CAPACITY);
            let result = self.table.slot_of(hop(address), SITE, self.now());
            let refused = is_full && !self.known.contains_key(&address);
            assert_eq!(result.is_err(), refused);
            let Ok(note) = result else { return };
            let entry = self.known.entry(address).or_insert_with(|| {
                self.numbers += 1;
                Known { number: self.numbers, mac: None, want_at: self.time }
            });
            self.notes.push((note, address, entry.number));
        }

        fn news(&mut self, address: u32, state: NeighbourState) {
            let slot = self.table.update(&update(address, state), self.now());
            assert_eq!(slot.is_some(), self.known.contains_key(&address));
            let Some(entry) = self.known.get_mut(&address) else { return };
            if state == NeighbourState::Failed && entry.mac.is_some() {
                entry.want_at = self.time;
            }
            entry.mac = match state {
                NeighbourState::Reachable(mac) => Some(mac),
                _ => None,
            };
            if state == NeighbourState::Removed {
                self.known.remove(&address);
            }
        }

        fn ask(&mut self, address: u32) {
            let now = self.now();
            let Some(entry) = self.known.get_mut(&address) else { return };
            let note = self.table.slot_of(hop(address), SITE, now).unwrap();
            let asks = self.table.should_ask(self.table.current(note).unwrap(), now);
            assert_eq!(asks, self.time >= entry.want_at, "{} {}", self.time, entry.want_at);
            if asks {
                entry.want_at = self.time + if entry.mac.is_some() { 5_000 } else { 500 };
            }
        }

        /// Weeks in which nothing changes.
        fn hear_nothing_new(&mut self) {
            self.time += HEARD_WITHIN_MS;
            let now = self.now();
            for (address, entry) in &self.known {
                let state = match entry.mac {
                    Some(mac) => NeighbourState::Reachable(mac),
                    None => NeighbourState::Failed,
                };
                self.table.update(&update(*address, state), now);
            }
        }

        /// Every note leads where the model says; how many were of which kind.
        fn check(&self, seen: &mut [u32; 5]) {
            let (table, now) = (&self.table, self.now());
            assert!(ready(table.entries(), NextHopRef::UNRESOLVED, now).is_none());
            assert!(table.current(NextHopRef::UNRESOLVED).is_none());
            for (note, address, number) in &self.notes {
                let entry = self.known.get(address).filter(|entry| entry.number == *number);
                let current = table.current(*note).map(|slot| table.get(slot).address);
                assert_eq!(current, entry.map(|_| *address));
                let ready = ready(table.entries(), *note, now);
                let expected = entry.filter(|entry| self.time < entry.want_at);
                let expected = expected.and_then(|entry| entry.mac);
                assert_eq!(
                    ready.map(|e| (&e.macs[..6], e.address)),
                    expected.as_ref().map(|mac| (&mac.0[..], *address)),
                );
                seen[usize::from(current.is_some()) + 2 * usize::from(ready.is_some())] += 1;
            }
            seen[4] += u32::from(table.len() == usize::from(CAPACITY));
        }
    }

    /// Beside a plain model, from any time on, with silences of weeks and epochs that wrap.
    #[test]
    fn it_agrees_with_a_model_whatever_the_time() {
        const HOPS: usize = 9;
        let mut random = Random::from_env();
        let mut seen = [0; 5];
        for _ in 0..300 {
            let mut beside = Beside::new(&mut random);
            for _ in 0..400 {
                let address = random.below(HOPS) as u32;
                match random.below(10) {
                    0..=2 => beside.look_up(address),
                    3..=5 => {
                        let mac = MacAddr([2, 0, 0, 0, random.below(256) as u8, address as u8]);
                        let state = random.one_of(&[
                            NeighbourState::Reachable(mac),
                            NeighbourState::Reachable(mac),
                            NeighbourState::Failed,
                            NeighbourState::Removed,
                        ]);
                        beside.news(address, state);
                    }
                    6..=7 => beside.ask(address),
                    8 => beside.time += random.one_of(&[0, 1, 499, 500, 4_999, 5_000]),
                    _ => (0..random.below(4)).for_each(|_| beside.hear_nothing_new()),
                }
                beside.check(&mut seen);
            }
        }
        // Stale notes, notes of what is not ready, ready ones, and full tables.
        assert!([0, 1, 3, 4].iter().all(|kind| seen[*kind] > 1_000), "{seen:?}");
    }
}
