//! Put the next hop's MAC address in front of a packet, or let it wait for one.

use super::{Tables, next_hop};
use crate::burst::Verdict;
use crate::frame::Frame;
use crate::table::neighbour::Neighbour;
use crate::table::wheel::Millis;

/// Send a packet to its next hop.
#[inline(always)]
pub fn egress<F: Frame>(frame: &mut F, t: &mut Tables, slot: u16, now: Millis) -> Verdict {
    next_hop::ask(t, slot, now);
    let neighbour = t.neighbours.get(slot);
    if neighbour.is_reachable() {
        set_macs(frame.bytes_mut(), neighbour);
    }
    neighbour.verdict
}

/// Address a frame to a next hop.
#[inline(always)]
pub fn set_macs(frame: &mut [u8], neighbour: &Neighbour) {
    if let Some(macs) = frame.first_chunk_mut() {
        *macs = neighbour.macs;
    }
}
