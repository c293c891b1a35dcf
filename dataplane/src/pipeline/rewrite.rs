//! Rewrite packets for their next hop: TTL in every mode, addresses and L4 ports in full-NAT.
//!
//! Checksums are updated by the conn's precomputed difference (RFC 1624), never computed anew: what
//! was damaged before Sluice stays detectably damaged behind it.

use sluice_api::DropReason;
use sluice_wire::headers::{Ipv4Frame, L4_OFFSET};
use sluice_wire::icmp::{code, icmp_type};
use sluice_wire::ipv4::PROTO_TCP;
use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use super::{Tables, icmp_error};
use crate::burst::{Meta, Verdict};
use crate::frame::Frame;
use crate::table::conn::Conn;
use crate::table::wheel::Millis;

/// Rewrite a packet for its next hop: `Continue`, or why it goes no further.
#[inline(always)]
pub fn rewrite<F: Frame>(
    frame: &mut F,
    meta: &Meta,
    t: &mut Tables,
    next_hop: u16,
    now: Millis,
) -> Verdict {
    let mtu = t.neighbours.get(next_hop).mtu;
    if meta.ip_len > mtu {
        return too_big(frame, meta, t, mtu, now);
    }
    let conn = t.conns.get(meta.conn);
    if !rewrite_headers(frame.bytes_mut(), meta, conn) {
        return ttl_exceeded(frame, meta, t, now);
    }
    let counters = t.counters.backend(conn.backend_slot());
    if meta.conn.is_from_backend() {
        counters.packets_out.add(1);
        counters.bytes_out.add(u64::from(meta.ip_len));
    } else {
        counters.packets_in.add(1);
        counters.bytes_in.add(u64::from(meta.ip_len));
    }
    Verdict::Continue
}

/// Rewrite its headers; false, and nothing changed, when its TTL is used up.
#[inline(always)]
fn rewrite_headers(frame: &mut [u8], meta: &Meta, conn: &Conn) -> bool {
    let Ok(view) = Ipv4Frame::parse_mut(frame) else { return false };
    if !view.ip.decrement_ttl() {
        return false;
    }
    if !conn.is_full_nat() {
        return true;
    }
    let (to, ip_delta, l4_delta) = if meta.conn.is_from_backend() {
        (conn.from_client(), conn.ip_delta.inverse(), conn.l4_delta.inverse())
    } else {
        (conn.from_backend(), conn.ip_delta, conn.l4_delta)
    };
    // The packet leaves as the reverse of the other side's flow: from its destination to its source.
    view.ip.rewrite_addresses(to.dst, to.src, ip_delta);
    view.src_port = U16::new(to.dst_port);
    view.dst_port = U16::new(to.src_port);
    let is_tcp = meta.key.protocol == PROTO_TCP;
    let offset = L4_OFFSET + if is_tcp { 16 } else { 6 };
    if let Some(Ok((sum, _))) = frame.get_mut(offset..).map(U16::mut_from_prefix) {
        let old = sum.get();
        *sum = U16::new(if is_tcp { l4_delta.apply(old) } else { l4_delta.apply_udp(old) });
    }
    true
}

/// A packet whose TTL is used up: the sender is told (RFC 1812, 5.3.1).
#[cold]
fn ttl_exceeded<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, now: Millis) -> Verdict {
    let message = (icmp_type::TIME_EXCEEDED, code::TTL_EXCEEDED, [0; 4]);
    icmp_error::answer(frame, meta, t, now, message, DropReason::TtlExceeded)
}

/// A packet larger than the egress port's MTU: the sender is told to send smaller ones (RFC 1191).
/// Sluice does not fragment: packets without DF are dropped and counted like the others.
#[cold]
fn too_big<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, mtu: u16, now: Millis) -> Verdict {
    let [high, low] = mtu.to_be_bytes();
    let message = (icmp_type::DEST_UNREACHABLE, code::FRAGMENTATION_NEEDED, [0, 0, high, low]);
    icmp_error::answer(frame, meta, t, now, message, DropReason::MtuExceeded)
}
