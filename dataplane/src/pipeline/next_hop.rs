//! Where a packet goes next: from the conn's note, or by route and neighbour table.

use sluice_api::DropReason;

use super::{Tables, ToMain};
use crate::burst::Meta;
use crate::table::wheel::Millis;

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
    *note = t.neighbours.slot_of(hop, now).map_err(|_| DropReason::NeighbourTableFull)?;
    t.counters.neighbours.set(t.neighbours.len() as u64);
    t.neighbours.current(*note).ok_or(DropReason::NeighbourTableFull)
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
