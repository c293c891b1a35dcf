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
use crate::burst::{Burst, Meta, Verdict};
use crate::frame::Frame;
use crate::table::wheel::Millis;

/// The stage.
pub fn rewrite<F: Frame>(burst: &mut Burst<F>, t: &mut Tables, now: Millis) {
    for (frame, meta) in burst.live_flows() {
        let Some(next_hop) = t.neighbours.current(meta.next_hop) else {
            meta.verdict = Verdict::Drop(DropReason::NoRoute);
            continue;
        };
        let mtu = t.neighbours.get(next_hop).mtu;
        if meta.ip_len > mtu {
            meta.verdict = too_big(frame, meta, t, mtu, now);
            continue;
        }
        if !rewrite_one(frame.bytes_mut(), meta, t) {
            // RFC 1812, 5.3.1: the sender is told.
            meta.verdict = icmp_error::answer(
                frame,
                meta,
                t,
                now,
                (icmp_type::TIME_EXCEEDED, code::TTL_EXCEEDED, [0; 4]),
                DropReason::TtlExceeded,
            );
            continue;
        }
        let counters = t.counters.backend(t.conns.get(meta.conn).backend_slot());
        if meta.conn.is_from_backend() {
            counters.packets_out.add(1);
            counters.bytes_out.add(u64::from(meta.ip_len));
        } else {
            counters.packets_in.add(1);
            counters.bytes_in.add(u64::from(meta.ip_len));
        }
    }
}

/// Rewrite one packet; false, and nothing changed, when its TTL is used up.
#[inline(always)]
fn rewrite_one(frame: &mut [u8], meta: &Meta, t: &Tables) -> bool {
    let Ok(view) = Ipv4Frame::parse_mut(frame) else { return false };
    if !view.ip.decrement_ttl() {
        return false;
    }
    let conn = t.conns.get(meta.conn);
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

/// A packet larger than the egress port's MTU: the sender is told to send smaller ones (RFC 1191).
/// Sluice does not fragment: packets without DF are dropped and counted like the others.
#[cold]
fn too_big<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, mtu: u16, now: Millis) -> Verdict {
    let [high, low] = mtu.to_be_bytes();
    let message = (icmp_type::DEST_UNREACHABLE, code::FRAGMENTATION_NEEDED, [0, 0, high, low]);
    icmp_error::answer(frame, meta, t, now, message, DropReason::MtuExceeded)
}
