//! Where a packet goes next: from the conn's note, or by route and neighbour table.

use std::sync::Arc;

use sluice_api::DropReason;
use sluice_wire::ether::EtherHeader;
use zerocopy::FromBytes;

use super::rate_limit::{Rate, RateLimit};
use super::{OUTBOX, PipelineConfig, ToMain};
use crate::burst::Meta;
use crate::counters::WorkerCounters;
use crate::frame::Frame;
use crate::ids::{Direction, NextHopSlot};
use crate::next_hop::{NextHop, Purpose};
use crate::table::conn::state::ConnState;
use crate::table::conn::{Conn, ConnRef, ConnTable, NewConn};
use crate::table::neighbour::{Egress, Neighbours, NextHopRef};
use crate::table::route::RouteTable;
use crate::time::Millis;

/// The next hop of a backend's last conn: its next one has the same, as a rule.
#[derive(Clone, Copy, Default)]
struct LastHop {
    /// The backend's address, in host order.
    towards: u32,
    note: NextHopRef,
}

/// Next hops, and what the main thread is to know of them.
pub struct NextHops {
    /// Which way leads where.
    pub routes: Arc<RouteTable>,
    /// What is known of those that packets have gone to.
    pub neighbours: Neighbours,
    /// By backend slot.
    last_hops: Box<[LastHop]>,
    /// How many strangers the main thread is told of: no flood of them keeps the rest out.
    strangers: RateLimit,
    /// Messages to the main thread.
    outbox: Vec<ToMain>,
}

impl NextHops {
    /// Where routes lead, with none known.
    pub fn new(config: &PipelineConfig, now: Millis) -> Self {
        let egress: Vec<Egress> =
            config.interfaces.iter().map(|p| Egress { mac: p.mac, mtu: p.mtu }).collect();
        let strangers = Rate { per_second: 8_000, at_once: 400 };
        NextHops {
            routes: Arc::clone(&config.routes),
            neighbours: Neighbours::new(config.neighbours, &egress),
            last_hops: vec![LastHop::default(); config.backend_slots].into(),
            strangers: RateLimit::new(strangers, strangers, config.seed, now),
            outbox: Vec::with_capacity(OUTBOX),
        }
    }

    /// Tell the main thread something; false when there is no room for it in this burst.
    pub fn tell(&mut self, message: ToMain) -> bool {
        let room = self.outbox.len() < OUTBOX;
        if room {
            self.outbox.push(message);
        }
        room
    }

    /// What the main thread was told since the last call.
    pub fn take_messages(&mut self) -> impl Iterator<Item = ToMain> {
        self.outbox.drain(..)
    }

    /// Go by these routes from now on.
    #[inline(always)]
    pub fn go_by(&mut self, routes: &Arc<RouteTable>) {
        if !Arc::ptr_eq(&self.routes, routes) {
            self.reroute(routes);
        }
    }

    #[cold]
    fn reroute(&mut self, routes: &Arc<RouteTable>) {
        self.routes = Arc::clone(routes);
        self.neighbours.reroute();
    }

    /// Note the next hop towards the backend in a new conn, if its last conn tells.
    #[inline(always)]
    pub fn note(&self, conns: &mut ConnTable, conn: ConnRef, new: &NewConn) {
        let last = self.last_hops[new.backend_slot.index()];
        if last.towards == new.backend_address {
            conns.get_mut(conn).next_hops[Direction::FromClient.index()] = last.note;
        }
    }

    /// A new conn's client in a connected network: have it looked for by its packet, which tells
    /// where it is, before the backend's answer needs it.
    #[inline(always)]
    pub fn greet<F: Frame>(
        &mut self,
        frame: &F,
        meta: &Meta,
        conns: &mut ConnTable,
        counters: &WorkerCounters,
        now: Millis,
    ) {
        let client = meta.key().src;
        if self.routes.connected_interface(client) == Some(meta.interface) {
            let note = self.greet_neighbour(frame, meta, client, now);
            if let Some(note) = note {
                conns.get_mut(meta.conn).next_hops[Direction::FromBackend.index()] = note;
                counters.neighbours.set(self.neighbours.len() as u64);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn greet_neighbour<F: Frame>(
        &mut self,
        frame: &F,
        meta: &Meta,
        client: u32,
        now: Millis,
    ) -> Option<NextHopRef> {
        if !self.strangers.take(client, now) {
            return None;
        }
        let came_from =
            EtherHeader::ref_from_prefix(frame.bytes()).ok().map(|(ether, _)| ether.src);
        let hop = NextHop { interface: meta.interface, address: client };
        let stranger = Purpose::Stranger { came_from: None };
        let note = self.neighbours.slot_of(hop, stranger, now).ok()?;
        if self.neighbours.should_ask(note.slot(), now) {
            let purpose = match self.neighbours.purpose(note.slot()) {
                Purpose::Stranger { .. } => Purpose::Stranger { came_from },
                known => known,
            };
            self.tell(ToMain::Want { hop, purpose });
        }
        Some(note)
    }

    /// Slot of the next hop of a packet with a conn.
    #[inline(always)]
    pub fn resolve(
        &mut self,
        meta: &Meta,
        conns: &mut ConnTable,
        counters: &WorkerCounters,
        now: Millis,
    ) -> Result<NextHopSlot, DropReason> {
        let line = conns.get_mut(meta.conn);
        match self.neighbours.current(line.next_hops[meta.conn.direction().index()]) {
            Some(slot) => Ok(slot),
            None => self.look_up(meta, line, counters, now),
        }
    }

    #[cold]
    fn look_up(
        &mut self,
        meta: &Meta,
        conn: &mut Conn,
        counters: &WorkerCounters,
        now: Millis,
    ) -> Result<NextHopSlot, DropReason> {
        let direction = meta.conn.direction();
        let towards = conn.destination(direction);
        let hop = self.routes.lookup(towards).ok_or(DropReason::NoRoute)?;
        let purpose = if direction == Direction::FromClient || hop.address != towards {
            Purpose::Site
        } else {
            purpose_of_client(conn)
        };
        let found = self.neighbours.slot_of(hop, purpose, now);
        let found = found.map_err(|_| DropReason::NeighbourTableFull)?;
        conn.next_hops[direction.index()] = found;
        if direction == Direction::FromClient {
            self.last_hops[conn.backend_slot().index()] = LastHop { towards, note: found };
        }
        counters.neighbours.set(self.neighbours.len() as u64);
        self.neighbours.current(found).ok_or(DropReason::NeighbourTableFull)
    }

    /// Tell the main thread, now and then, that a next hop is in use.
    #[inline(always)]
    pub fn ask(&mut self, slot: NextHopSlot, now: Millis) {
        let neighbour = self.neighbours.get(slot);
        if neighbour.is_asked_for(now) {
            return;
        }
        let hop = NextHop { interface: neighbour.interface, address: neighbour.address };
        let purpose = self.neighbours.purpose(slot);
        let is_stranger = matches!(purpose, Purpose::Stranger { .. });
        if is_stranger && !self.strangers.take(hop.address, now) {
            return;
        }
        self.neighbours.should_ask(slot, now);
        self.tell(ToMain::Want { hop, purpose });
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> [std::ops::Range<usize>; 4] {
        use crate::testkit::range_of;
        let outbox = self.outbox.as_ptr().addr();
        [
            range_of(self.neighbours.entries()),
            range_of(&self.last_hops),
            self.strangers.written(),
            outbox..outbox + OUTBOX * size_of::<ToMain>(),
        ]
    }
}

/// For what a conn wants the next hop of its client.
fn purpose_of_client(conn: &Conn) -> Purpose {
    match conn.state() {
        ConnState::Established => Purpose::Client,
        _ => Purpose::Stranger { came_from: None },
    }
}
