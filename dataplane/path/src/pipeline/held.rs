//! Packets that wait for a MAC address, as they came.

use std::collections::VecDeque;

use sluice_api::DropReason;
use sluice_wire::headers::Ipv4Frame;

use super::shared::{Context, Shared};
use super::{Pipeline, Sink, life};
use crate::burst::{BURST, Burst, Meta};
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::ids::{InterfaceId, NextHopSlot};
use crate::next_hop::{NeighbourState, NeighbourUpdate};
use crate::snapshot::Compiled;
use crate::table::neighbour::{Neighbours, NextHopRef};
use crate::time::Millis;

/// Packets that may wait for one next hop's MAC address.
pub const HELD_PER_NEIGHBOUR: usize = 64;
/// Packets that may wait for MAC addresses in one worker.
pub const HELD: usize = 512;

/// A packet that waits for a MAC address, as it came.
pub struct Held<F> {
    pub note: NextHopRef,
    pub interface: InterfaceId,
    pub begins_conn: bool,
    pub frame: F,
}

/// Packets that wait.
pub struct Waiting<F> {
    packets: VecDeque<Held<F>>,
    /// Those of a burst whose wait has come to nothing.
    ended: Vec<Held<F>>,
    /// For those whose wait is over.
    released: Option<Box<Burst<F>>>,
}

impl<F: Frame> Waiting<F> {
    /// None.
    pub fn new() -> Self {
        Waiting {
            packets: VecDeque::with_capacity(HELD),
            ended: Vec::with_capacity(HELD),
            released: Some(Box::default()),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Let a packet wait, if there is room for it. Packets of strangers, of whom anybody can make any
    /// number, make room for all others, the oldest first; so do those whose next hop was given up.
    #[cold]
    #[inline(never)]
    pub fn hold(&mut self, packet: Held<F>, neighbours: &Neighbours) {
        if let Some(ended) = self.hold_or_end(packet, neighbours) {
            self.ended.push(ended);
        }
    }

    /// The packet that there is no room for.
    fn hold_or_end(&mut self, packet: Held<F>, neighbours: &Neighbours) -> Option<Held<F>> {
        let held = &mut self.packets;
        let waiting = held.iter().filter(|other| other.note == packet.note).count();
        if waiting >= HELD_PER_NEIGHBOUR || neighbours.current(packet.note).is_none() {
            return Some(packet);
        }
        if held.len() < HELD {
            held.push_back(packet);
            return None;
        }
        let Some(oldest) = held.iter().position(|other| neighbours.is_strangers(other.note)) else {
            return Some(packet);
        };
        let ended = held.remove(oldest);
        held.push_back(packet);
        ended
    }

    /// Give up those whose wait has come to nothing, and with them the conns that were made for them.
    #[inline(always)]
    pub fn end(&mut self, shared: &mut Shared, config: &Compiled) {
        if !self.ended.is_empty() {
            self.end_now(shared, config);
        }
    }

    #[cold]
    fn end_now(&mut self, shared: &mut Shared, config: &Compiled) {
        for held in self.ended.drain(..) {
            shared.counters.drop_count(DropReason::NeighbourPending).add(1);
            let Ok(view) = Ipv4Frame::parse(held.frame.bytes()) else { continue };
            if !held.begins_conn {
                continue;
            }
            let conn = shared.conns.find_key(&FlowKey::from(view));
            if !conn.is_none() && life::is_new(shared.conns.head(conn)) {
                shared.take_back_conn(conn, config);
            }
        }
        shared.conns.end_burst();
    }

    /// Fill a burst with those that wait for a next hop of which there is news; those that wait for
    /// nothing any more end. `left` is how many are still to be looked at.
    fn release(
        &mut self,
        burst: &mut Burst<F>,
        slot: NextHopSlot,
        neighbours: &Neighbours,
        left: &mut usize,
    ) {
        let unknown = Meta::received(InterfaceId::default(), true);
        let mut metas = [unknown; BURST];
        while *left > 0 && burst.len() < BURST {
            *left -= 1;
            let Some(held) = self.packets.pop_front() else { break };
            if held.note.slot() != slot {
                self.packets.push_back(held);
            } else if neighbours.current(held.note).is_some() {
                let meta = &mut metas[burst.len()];
                (meta.interface, meta.begins_conn) = (held.interface, held.begins_conn);
                burst.frames_mut().push(held.frame);
            } else {
                self.ended.push(held);
            }
        }
        let mut metas = metas.into_iter();
        burst.received(|_| metas.next().unwrap_or(unknown));
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        let start = self.packets.as_slices().0.as_ptr().addr();
        start..start + HELD * size_of::<Held<F>>()
    }
}

impl<F: Frame> Pipeline<F> {
    /// Take over what the main thread found out about a next hop. The packets that waited for it go
    /// through all stages again: what became of their conns meanwhile counts.
    pub fn update_neighbour(
        &mut self,
        update: &NeighbourUpdate,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
    ) {
        let cx = Context { config, now };
        let neighbours = &mut self.shared.next_hops.neighbours;
        // What waits for one that is forgotten ends first: to ask again at once would keep it out of
        // a full table, and others with it.
        let is_removed = update.state == NeighbourState::Removed;
        let state = if is_removed { NeighbourState::Failed } else { update.state };
        let Some(slot) = neighbours.update(&NeighbourUpdate { state, ..*update }, now) else {
            return;
        };
        let mut left = self.waiting.len();
        let Some(mut burst) = self.waiting.released.take() else { return };
        while left > 0 {
            let neighbours = &self.shared.next_hops.neighbours;
            self.waiting.release(&mut burst, slot, neighbours, &mut left);
            self.run_stages(&mut burst, cx, sink, true);
            self.waiting.end(&mut self.shared, config);
        }
        self.waiting.released = Some(burst);
        let Shared { next_hops, counters, .. } = &mut self.shared;
        if is_removed {
            next_hops.neighbours.update(update, now);
        }
        counters.neighbours.set(next_hops.neighbours.len() as u64);
    }

    /// Packets that wait for MAC addresses.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }
}
