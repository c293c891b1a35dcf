//! Where a packet goes next: from the conn's note, or by route and neighbour table.

use sluice_api::DropReason;
use sluice_wire::ether::EtherHeader;
use zerocopy::FromBytes;

use super::rate_limit::{Rate, RateLimit};
use super::{Tables, ToMain};
use crate::burst::Meta;
use crate::frame::Frame;
use crate::next_hop::{NextHop, Purpose};
use crate::table::conn::ConnRef;
use crate::table::conn::state::ConnState;
use crate::table::conn::{Conn, NewConn};
use crate::table::neighbour::NextHopRef;
use crate::time::Millis;

/// The next hop of a backend's last conn: its next one has the same, as a rule.
#[derive(Clone, Copy, Default)]
pub struct LastHop {
    /// The backend's address, in host order.
    towards: u32,
    note: NextHopRef,
}

/// How many strangers a worker tells the main thread of: no flood of them keeps the rest out.
pub fn strangers_limit(seed: u64, now: Millis) -> RateLimit {
    let rate = Rate { per_second: 8_000, at_once: 400 };
    RateLimit::new(rate, rate, seed, now)
}

/// Note the next hop towards the backend in a new conn, if its last conn tells.
#[inline(always)]
pub fn note(t: &mut Tables, conn: ConnRef, new: &NewConn) {
    let last = t.last_hops[new.backend_slot as usize];
    if last.towards == new.backend_address {
        t.conns.get_mut(conn).next_hops[0] = last.note;
    }
}

/// A new conn's client in a connected network: have it looked for by its packet, which tells where it
/// is, before the backend's answer needs it.
#[inline(always)]
pub fn greet<F: Frame>(frame: &F, meta: &Meta, t: &mut Tables, now: Millis) {
    let client = meta.key().src;
    if t.routes.connected_interface(client) == Some(meta.interface) {
        greet_neighbour(frame, meta, client, t, now);
    }
}

#[cold]
#[inline(never)]
fn greet_neighbour<F: Frame>(frame: &F, meta: &Meta, client: u32, t: &mut Tables, now: Millis) {
    if !t.strangers_limit.take(client, now) {
        return;
    }
    let came_from = EtherHeader::ref_from_prefix(frame.bytes()).ok().map(|(ether, _)| ether.src);
    let hop = NextHop { interface: meta.interface, address: client };
    let stranger = Purpose::Stranger { came_from: None };
    let Ok(note) = t.neighbours.slot_of(hop, stranger, now) else { return };
    t.conns.get_mut(meta.conn).next_hops[1] = note;
    t.counters.neighbours.set(t.neighbours.len() as u64);
    if t.neighbours.should_ask(note.slot(), now) {
        let purpose = match t.neighbours.purpose(note.slot()) {
            Purpose::Stranger { .. } => Purpose::Stranger { came_from },
            known => known,
        };
        t.tell(ToMain::Want { hop, purpose });
    }
}

/// Slot of the next hop of a packet with a conn.
#[inline(always)]
pub fn resolve(meta: &Meta, t: &mut Tables, now: Millis) -> Result<u16, DropReason> {
    let note = t.conns.get(meta.conn).next_hops[meta.conn.direction()];
    match t.neighbours.current(note) {
        Some(slot) => Ok(slot),
        None => look_up(meta, t, now),
    }
}

#[cold]
fn look_up(meta: &Meta, t: &mut Tables, now: Millis) -> Result<u16, DropReason> {
    let conn = t.conns.get_mut(meta.conn);
    let direction = meta.conn.direction();
    let towards = conn.destination(direction);
    let hop = t.routes.lookup(towards).ok_or(DropReason::NoRoute)?;
    let purpose = if direction == 0 || hop.address != towards {
        Purpose::Site
    } else {
        purpose_of_client(conn)
    };
    let found = t.neighbours.slot_of(hop, purpose, now);
    let found = found.map_err(|_| DropReason::NeighbourTableFull)?;
    conn.next_hops[direction] = found;
    if direction == 0 {
        t.last_hops[conn.backend_slot() as usize] = LastHop { towards, note: found };
    }
    t.counters.neighbours.set(t.neighbours.len() as u64);
    t.neighbours.current(found).ok_or(DropReason::NeighbourTableFull)
}

/// For what a conn wants the next hop of its client.
fn purpose_of_client(conn: &Conn) -> Purpose {
    match conn.state() {
        ConnState::Established => Purpose::Client,
        _ => Purpose::Stranger { came_from: None },
    }
}

/// Tell the main thread, now and then, that a next hop is in use.
#[inline(always)]
pub fn ask(t: &mut Tables, slot: u16, now: Millis) {
    let neighbour = t.neighbours.get(slot);
    if neighbour.is_asked_for(now) {
        return;
    }
    let hop = NextHop { interface: neighbour.interface, address: neighbour.address };
    let purpose = t.neighbours.purpose(slot);
    let is_stranger = matches!(purpose, Purpose::Stranger { .. });
    if is_stranger && !t.strangers_limit.take(hop.address, now) {
        return;
    }
    t.neighbours.should_ask(slot, now);
    t.tell(ToMain::Want { hop, purpose });
}
