//! Find where each packet goes next: from the conn's note, or by route and neighbour table.

use sluice_api::DropReason;

use super::{Tables, ToMain};
use crate::burst::{Burst, Verdict};
use crate::table::neighbour::NextHopRef;
use crate::table::wheel::Millis;

/// The stage.
pub fn resolve<F>(burst: &mut Burst<F>, t: &mut Tables, now: Millis) {
    for (_, meta) in burst.live_flows() {
        let conn = t.conns.get(meta.conn);
        let from_backend = meta.conn.is_from_backend();
        let note = if from_backend { conn.to_client } else { conn.to_backend };
        if t.neighbours.current(note).is_some() {
            meta.next_hop = note;
            continue;
        }
        let towards = if from_backend { conn.client_address() } else { conn.backend_address() };
        match look_up(t, towards, now) {
            Ok(note) => {
                let conn = t.conns.get_mut(meta.conn);
                *(if from_backend { &mut conn.to_client } else { &mut conn.to_backend }) = note;
                meta.next_hop = note;
            }
            Err(reason) => meta.verdict = Verdict::Drop(reason),
        }
    }
}

#[cold]
fn look_up(t: &mut Tables, address: u32, now: Millis) -> Result<NextHopRef, DropReason> {
    let hop = t.routes.lookup(address).ok_or(DropReason::NoRoute)?;
    let note = t.neighbours.slot_of(hop, now).map_err(|_| DropReason::NeighbourTableFull)?;
    t.counters.neighbours.set(t.neighbours.len() as u64);
    Ok(note)
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
