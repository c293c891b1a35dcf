//! Rewrite packets for their next hop: TTL in every mode, addresses and L4 ports in full-NAT.
//!
//! Checksums are updated by the conn's precomputed difference (RFC 1624), never computed anew: what
//! was damaged before Sluice stays detectably damaged behind it.

use sluice_api::DropReason;
use sluice_wire::checksum::Delta;
use sluice_wire::flow_head::NatHead;
use sluice_wire::headers::{Ipv4Frame, L4_OFFSET};
use sluice_wire::ipv4::PROTO_TCP;

use super::Tables;
use super::icmp_error::{self, Problem};
use crate::burst::{Meta, Verdict};
use crate::frame::Frame;
use crate::table::conn::Conn;
use crate::time::Millis;

/// What keeps a packet from taking the way to its next hop: its sender is told.
#[inline(always)]
pub fn obstacle<F: Frame>(
    frame: &mut F,
    meta: &Meta,
    t: &mut Tables,
    next_hop: u16,
    now: Millis,
) -> Option<Verdict> {
    let mtu = t.neighbours.get(next_hop).mtu;
    if meta.ip_len > mtu {
        return Some(too_big(frame, meta, t, mtu, now));
    }
    if NatHead::of(frame.bytes_mut()).is_none_or(|head| head.ttl() <= 1) {
        return Some(ttl_exceeded(frame, meta, t, now));
    }
    None
}

/// Rewrite the headers of a packet that may take another hop.
#[inline(always)]
pub fn rewrite_headers(frame: &mut [u8], meta: &Meta, conn: &Conn) {
    let Some(head) = NatHead::of(frame) else { return };
    let Some(rewrite) = conn.rewrite(meta.conn.direction()) else {
        head.take_hop(Delta::NONE);
        return;
    };
    head.take_hop(rewrite.ip_delta);
    head.set_tuple(rewrite.to.addresses, rewrite.to.ports);
    if meta.tuple.protocol == PROTO_TCP {
        if let Some(Some(sum)) = frame.get_mut(L4_OFFSET + 16..).map(<[u8]>::first_chunk_mut) {
            *sum = rewrite.l4_delta.apply(u16::from_ne_bytes(*sum)).to_ne_bytes();
        }
    } else if let Some(Some(sum)) = frame.get_mut(L4_OFFSET + 6..).map(<[u8]>::first_chunk_mut) {
        *sum = rewrite.l4_delta.apply_udp(u16::from_ne_bytes(*sum)).to_ne_bytes();
    }
}

/// A packet whose TTL is used up: the sender is told (RFC 1812, 5.3.1).
#[cold]
fn ttl_exceeded<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, now: Millis) -> Verdict {
    icmp_error::answer(frame, meta, t, now, Problem::TtlExceeded)
}

/// A packet larger than the egress port's MTU: the sender is told to send smaller ones (RFC 1191), if it
/// has set DF. One that has not expects to be fragmented and knows nothing to do about "fragmentation
/// needed and DF set" (RFC 792; RFC 1812, 5.2.7.1), and Sluice does not fragment.
#[cold]
fn too_big<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, mtu: u16, now: Millis) -> Verdict {
    let ip = Ipv4Frame::parse(frame.bytes()).ok();
    if !ip.is_some_and(|frame| frame.ip.dont_fragment()) {
        return Verdict::Drop(DropReason::WouldFragment);
    }
    icmp_error::answer(frame, meta, t, now, Problem::TooBig { mtu })
}
