//! Packets that wait for a MAC address, as they came.

use std::collections::VecDeque;

use sluice_api::DropReason;
use sluice_wire::headers::Ipv4Frame;

use super::{Pipeline, Sink, life};
use crate::burst::{BURST, Meta};
use crate::flow::{FlowKey, Tuple};
use crate::frame::Frame;
use crate::ids::InterfaceId;
use crate::next_hop::{NeighbourState, NeighbourUpdate};
use crate::snapshot::Compiled;
use crate::table::neighbour::{Neighbours, NextHopRef};
use crate::time::Millis;

/// Packets that may wait for one next hop's MAC address.
pub const HELD_PER_NEIGHBOUR: usize = 64;
/// Packets that may wait for MAC addresses in one worker.
pub const HELD: usize = 512;

/// A packet that waits for a MAC address, as it came.
pub(super) struct Held<F> {
    pub(super) note: NextHopRef,
    pub(super) interface: InterfaceId,
    pub(super) begins_conn: bool,
    pub(super) frame: F,
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
        let t = &mut self.tables;
        // What waits for one that is forgotten ends first: to ask again at once would keep it out of
        // a full table, and others with it.
        let is_removed = update.state == NeighbourState::Removed;
        let state = if is_removed { NeighbourState::Failed } else { update.state };
        let Some(slot) = t.neighbours.update(&NeighbourUpdate { state, ..*update }, now) else {
            return;
        };
        let unknown = Meta::received(InterfaceId::default(), true);
        let mut left = self.held.len();
        let Some(mut burst) = self.released.take() else { return };
        while left > 0 {
            let mut metas = [unknown; BURST];
            while left > 0 && burst.len() < BURST {
                left -= 1;
                let Some(held) = self.held.pop_front() else { break };
                if held.note.slot() != slot {
                    self.held.push_back(held);
                } else if self.tables.neighbours.current(held.note).is_some() {
                    let meta = &mut metas[burst.len()];
                    (meta.interface, meta.begins_conn) = (held.interface, held.begins_conn);
                    burst.frames_mut().push(held.frame);
                } else {
                    self.given_up.push(held);
                }
            }
            let mut metas = metas.into_iter();
            burst.received(|_| metas.next().unwrap_or(unknown));
            self.run_stages(&mut burst, config, now, sink, true);
            self.end_wait(config);
        }
        self.released = Some(burst);
        let t = &mut self.tables;
        if is_removed {
            t.neighbours.update(update, now);
        }
        t.counters.neighbours.set(t.neighbours.len() as u64);
    }

    /// Packets whose wait for a MAC address ends here, and with it the conns that were made for them.
    #[cold]
    pub(super) fn end_wait(&mut self, config: &Compiled) {
        let t = &mut self.tables;
        for held in self.given_up.drain(..) {
            t.counters.drop_count(DropReason::NeighbourPending).add(1);
            let Ok(view) = Ipv4Frame::parse(held.frame.bytes()) else { continue };
            if !held.begins_conn {
                continue;
            }
            let mut meta = Meta::received(held.interface, true);
            meta.tuple = Tuple::from(&FlowKey {
                src: view.ip.src_u32(),
                dst: view.ip.dst_u32(),
                src_port: view.src_port(),
                dst_port: view.dst_port(),
                protocol: view.ip.protocol,
            });
            meta.conn = t.conns.find(t.hasher.hash(&meta.tuple), &meta.tuple);
            if !meta.conn.is_none() && life::is_new(t.conns.get(meta.conn)) {
                life::unmake(&mut meta, t, config);
            }
        }
        t.conns.end_burst();
    }
}

/// Let a packet wait, if there is room for it. Packets of strangers, of whom anybody can make any
/// number, make room for all others, the oldest first; so do those whose next hop was given up. The
/// packet that there is no room for.
pub(super) fn hold<F>(
    held: &mut VecDeque<Held<F>>,
    packet: Held<F>,
    neighbours: &Neighbours,
) -> Option<Held<F>> {
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
