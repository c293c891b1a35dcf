//! Where a packet goes next: from the conn's note, or by route and neighbour table.

use sluice_api::DropReason;

use super::{Tables, ToMain};
use crate::burst::Meta;
use crate::table::conn::NewConn;
use crate::table::conn_index::ConnRef;
use crate::table::neighbour::NextHopRef;
use crate::table::wheel::Millis;

/// The next hop of a backend's last conn: its next one has the same, as a rule.
#[derive(Clone, Copy, Default)]
pub struct LastHop {
    /// The backend's address, in host order.
    towards: u32,
    note: NextHopRef,
}

/// Note the next hop towards the backend in a new conn, if its last conn tells.
#[inline(always)]
pub fn note(t: &mut Tables, conn: ConnRef, new: &NewConn) {
    let last = t.last_hops[new.backend_slot as usize];
    if last.towards == new.backend_address {
        t.conns.get_mut(conn).next_hops[0] = last.note;
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
    let note = &mut conn.next_hops[direction];
    let hop = t.routes.lookup(towards).ok_or(DropReason::NoRoute)?;
    let found = t.neighbours.slot_of(hop, now).map_err(|_| DropReason::NeighbourTableFull)?;
    *note = found;
    if direction == 0 {
        t.last_hops[conn.backend_slot() as usize] = LastHop { towards, note: found };
    }
    t.counters.neighbours.set(t.neighbours.len() as u64);
    t.neighbours.current(found).ok_or(DropReason::NeighbourTableFull)
}

/// Tell the main thread, now and then, that a next hop is in use.
#[inline(always)]
pub fn ask(t: &mut Tables, slot: u16, now: Millis) {
    if t.neighbours.should_ask(slot, now) {
        let neighbour = t.neighbours.get(slot);
        let (port, address) = (neighbour.port, neighbour.address);
        t.tell(ToMain::Want { port, address });
    }
}
