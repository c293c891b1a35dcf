//! Direct routing: the backend holds the VIP, and takes packets as they came.

use sluice_wire::checksum::Delta;
use sluice_wire::flow_head::NatHead;

/// Only the TTL changes.
#[inline(always)]
pub fn rewrite(frame: &mut [u8]) {
    if let Some(head) = NatHead::of(frame) {
        head.take_hop(Delta::NONE);
    }
}
