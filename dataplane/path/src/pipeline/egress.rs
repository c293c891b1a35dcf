//! Put the next hop's MAC address in front of a packet.

use crate::table::neighbour::Neighbour;

/// Address a frame to a next hop.
#[inline(always)]
pub fn set_macs(frame: &mut [u8], neighbour: &Neighbour) {
    if let Some(macs) = frame.first_chunk_mut() {
        *macs = neighbour.macs;
    }
}
