//! A worker's copy of the next hops: what to write in front of a packet, and out of which port.
//!
//! The main thread resolves (`resolver.rs`) and tells every worker; a worker asks it for an address
//! that it does not know, and again now and then while it uses one. Conns keep the slot of their
//! next hop; its epoch, raised whenever the slot changes hands, tells them when to look again.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use sluice_api::DropReason;
use sluice_wire::ether::MacAddr;

use super::route::NextHop;
use super::wheel::{Millis, at_or_after};
use crate::burst::Verdict;
use crate::resolver::{NeighbourState, NeighbourUpdate};

/// How often a worker tells the main thread that a next hop is in use, in ms.
const WANT_EVERY_MS: u32 = 5_000;

/// A conn's note of its next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHopRef {
    slot: u16,
    epoch: u16,
}

impl NextHopRef {
    /// Not looked up yet: epoch 0 is never current.
    pub const UNRESOLVED: NextHopRef = NextHopRef { slot: 0, epoch: 0 };
}

/// A next hop as packets need it.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub struct Neighbour {
    /// Destination and source MAC address: the first 12 bytes of a frame.
    pub macs: [u8; 12],
    /// What becomes of packets to it: transmitted when it is reachable, held while it is asked for,
    /// dropped when it did not answer.
    pub verdict: Verdict,
    /// Egress port.
    pub port: u16,
    /// The egress port's MTU, in bytes.
    pub mtu: u16,
    /// Its address, in host order.
    pub address: u32,
    want_at: Millis,
    /// That of the notes that lead here.
    epoch: u16,
    /// The same while it is reachable, and 0 otherwise.
    ready_epoch: u16,
}

const _: () = assert!(size_of::<Neighbour>() == 32, "two next hops share a cache line");

impl Neighbour {
    /// Whether packets can go there.
    pub fn is_reachable(&self) -> bool {
        self.ready_epoch != 0
    }
}

/// A port's side of a next hop.
#[derive(Clone, Copy, Debug)]
pub struct EgressPort {
    /// The port's own MAC address.
    pub mac: MacAddr,
    /// Its MTU, in bytes.
    pub mtu: u16,
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The next hops of one worker.
pub struct Neighbours {
    entries: Box<[Neighbour]>,
    slots: HashMap<(u16, u32), u16, RandomState>,
    free: Vec<u16>,
    /// Never 0.
    ports: Box<[EgressPort]>,
}

impl Neighbours {
    /// A table of `capacity` next hops (at most 65,535) behind these ports.
    pub fn new(capacity: u16, ports: &[EgressPort]) -> Self {
        let empty = Neighbour {
            macs: [0; 12],
            verdict: Verdict::Drop(DropReason::NeighbourUnreachable),
            port: 0,
            mtu: 0,
            address: 0,
            want_at: 0,
            epoch: 1,
            ready_epoch: 0,
        };
        Neighbours {
            entries: vec![empty; capacity as usize].into_boxed_slice(),
            slots: HashMap::with_capacity_and_hasher(capacity as usize, RandomState::default()),
            free: (0..capacity).rev().collect(),
            ports: ports.into(),
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
    pub fn entries(&self) -> &[Neighbour] {
        &self.entries
    }

    /// The slot that a note leads to, if it still belongs to the same next hop.
    #[inline(always)]
    pub fn current(&self, note: NextHopRef) -> Option<u16> {
        let entry = self.entries.get(note.slot as usize)?;
        (note.epoch == entry.epoch).then_some(note.slot)
    }

    /// The entry in a slot.
    #[inline(always)]
    pub fn get(&self, slot: u16) -> &Neighbour {
        &self.entries[slot as usize]
    }

    /// The note and slot of a next hop, with a new entry if it has none.
    ///
    /// # Errors
    /// [`Full`] when there is no entry left for it.
    pub fn slot_of(&mut self, hop: NextHop, now: Millis) -> Result<NextHopRef, Full> {
        let slot = match self.slots.get(&(hop.port, hop.address)) {
            Some(slot) => *slot,
            None => self.add(hop, now).ok_or(Full)?,
        };
        Ok(NextHopRef { slot, epoch: self.entries[slot as usize].epoch })
    }

    fn add(&mut self, hop: NextHop, now: Millis) -> Option<u16> {
        let slot = self.free.pop()?;
        let egress = self.ports[hop.port as usize];
        let mut macs = [0; 12];
        macs[6..].copy_from_slice(&egress.mac.0);
        let entry = &mut self.entries[slot as usize];
        *entry = Neighbour {
            macs,
            verdict: Verdict::Hold { neighbour: slot },
            port: hop.port,
            mtu: egress.mtu,
            address: hop.address,
            // A slot that was just made is wanted at once.
            want_at: now,
            epoch: entry.epoch,
            ready_epoch: 0,
        };
        self.slots.insert((hop.port, hop.address), slot);
        Some(slot)
    }

    /// Whether the main thread should be told now that this next hop is wanted; true at most every
    /// 5 s for each.
    #[inline(always)]
    pub fn should_ask(&mut self, slot: u16, now: Millis) -> bool {
        let entry = &mut self.entries[slot as usize];
        if !at_or_after(now, entry.want_at) {
            return false;
        }
        // What is missing is asked for again sooner: the message may have been lost.
        let pause = if entry.is_reachable() { WANT_EVERY_MS } else { 500 };
        entry.want_at = now.wrapping_add(pause);
        true
    }

    /// Take over what the main thread found out; the slot it concerns, if this worker knows it.
    pub fn update(&mut self, update: &NeighbourUpdate) -> Option<u16> {
        let key = (update.port, update.address);
        let slot = *self.slots.get(&key)?;
        let entry = &mut self.entries[slot as usize];
        let failed = Verdict::Drop(DropReason::NeighbourUnreachable);
        match update.state {
            NeighbourState::Reachable(mac) => {
                entry.macs[..6].copy_from_slice(&mac.0);
                entry.verdict = Verdict::Transmit { port: entry.port };
                entry.ready_epoch = entry.epoch;
            }
            NeighbourState::Failed => {
                entry.verdict = failed;
                entry.ready_epoch = 0;
            }
            NeighbourState::Removed => {
                entry.verdict = failed;
                entry.ready_epoch = 0;
                // Its conns look their next hop up again; 0 stays "never".
                entry.epoch = entry.epoch.wrapping_add(1).max(1);
                self.slots.remove(&key);
                self.free.push(slot);
            }
        }
        Some(slot)
    }
}

/// The next hop that a note leads to, when there is nothing to be done about it: the note is
/// current, the next hop reachable, and the main thread need not be asked yet.
#[inline(always)]
pub fn ready(entries: &[Neighbour], note: NextHopRef, now: Millis) -> Option<&Neighbour> {
    let entry = entries.get(note.slot as usize)?;
    (note.epoch == entry.ready_epoch && !at_or_after(now, entry.want_at)).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const PORT: EgressPort = EgressPort { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1500 };

    fn hop(address: u32) -> NextHop {
        NextHop { port: 0, address }
    }

    fn update(address: u32, state: NeighbourState) -> NeighbourUpdate {
        NeighbourUpdate { port: 0, address, state }
    }

    #[test]
    fn a_next_hop_is_asked_for_then_reachable_then_asked_for_seldom() {
        let mut table = Neighbours::new(4, &[PORT]);
        let note = table.slot_of(hop(7), 1_000).unwrap();
        let slot = table.current(note).unwrap();
        assert_eq!(table.get(slot).verdict, Verdict::Hold { neighbour: slot });
        assert!(ready(table.entries(), note, 0).is_none());
        assert!(table.should_ask(slot, 1_000) && !table.should_ask(slot, 1_400));
        assert!(table.should_ask(slot, 1_500), "an unanswered question is repeated");

        assert_eq!(table.update(&update(7, NeighbourState::Reachable(MAC))), Some(slot));
        assert_eq!(table.get(slot).macs, [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
        assert!(ready(table.entries(), note, 2_000).is_none(), "the main thread is to be asked");
        assert!(table.should_ask(slot, 2_000) && !table.should_ask(slot, 6_999));
        assert!(ready(table.entries(), note, 6_999).is_some());
        assert!(table.should_ask(slot, 7_000));
    }

    #[test]
    fn a_slot_that_changes_hands_invalidates_every_note() {
        let mut table = Neighbours::new(1, &[PORT]);
        let old = table.slot_of(hop(7), 0).unwrap();
        assert_eq!(table.slot_of(hop(8), 0), Err(Full));
        table.update(&update(7, NeighbourState::Removed));
        assert_eq!(table.current(old), None);
        let new = table.slot_of(hop(8), 0).unwrap();
        assert_ne!(old, new);
        assert_eq!(table.get(table.current(new).unwrap()).address, 8);
        assert_eq!(table.current(NextHopRef::UNRESOLVED), None);
        assert_eq!(table.update(&update(7, NeighbourState::Failed)), None);
    }
}
