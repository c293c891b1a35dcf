//! Full-NAT: other addresses and L4 ports on either side.
//!
//! Checksums are updated by the conn's precomputed difference (RFC 1624), never computed anew: what
//! was damaged before Sluice stays detectably damaged behind it.

use sluice_wire::flow_head::NatHead;
use sluice_wire::headers::L4_OFFSET;
use sluice_wire::ipv4::PROTO_TCP;

use crate::burst::Meta;
use crate::table::conn::Conn;

/// TTL, addresses, L4 ports and checksums.
#[inline(always)]
pub fn rewrite(frame: &mut [u8], meta: &Meta, conn: &Conn) {
    let Some(head) = NatHead::of(frame) else { return };
    let Some(rewrite) = conn.rewrite(meta.conn.direction()) else { return };
    head.set_tuple(rewrite.to.addresses, rewrite.to.ports);
    head.take_hop(rewrite.ip_delta);
    if meta.tuple.protocol == PROTO_TCP {
        if let Some(Some(sum)) = frame.get_mut(L4_OFFSET + 16..).map(<[u8]>::first_chunk_mut) {
            *sum = rewrite.l4_delta.apply(u16::from_ne_bytes(*sum)).to_ne_bytes();
        }
    } else if let Some(Some(sum)) = frame.get_mut(L4_OFFSET + 6..).map(<[u8]>::first_chunk_mut) {
        *sum = rewrite.l4_delta.apply_udp(u16::from_ne_bytes(*sum)).to_ne_bytes();
    }
}
