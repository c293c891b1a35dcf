//! To which conn does a packet belong that quotes another one? ICMP errors about conns go to whoever
//! sent what they quote (RFC 1122, 3.2.2; RFC 5508 says what address translation does to them).
//!
//! An error travels like a packet of the flow that answers the quoted one: the same worker owns it,
//! the same conn says where it goes. It changes nothing of that conn: anybody can send one. What an
//! off-path attacker can send is known by the quote (RFC 5927) and has reasons of its own.

#[cfg(test)]
mod tests;

use sluice_api::DropReason;
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::icmp::{self, HEADER_BYTES, IcmpHeader, Quote, code, icmp_type};
use sluice_wire::ipv4::{self, PROTO_TCP, PROTO_UDP};
use zerocopy::FromBytes;

use super::egress;
use super::rate_limit::{Rate, RateLimit};
use super::shared::{Context, Shared};
use super::steer::Steer;
use crate::burst::{Meta, Verdict};
use crate::family::{Family, V4};
use crate::flow::{FlowKey, Tuple};
use crate::frame::Frame;
use crate::ids::Direction;
use crate::table::conn::{Conn, Rewrite};
use crate::time::Millis;

/// Smallest MTU that is believed, in bytes: what every link of today takes (RFC 5927, 7.2), and what
/// a host may rely on (RFC 1122, 3.3.3). Lower ones slow conns down and are mostly lies.
const LEAST_MTU: u16 = 576;

/// What is known of an ICMP error without looking at conns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Related {
    /// The flow that answers the quoted packet's, as it arrives.
    tuple: Tuple,
    /// Length of the quoted IP header, in bytes.
    header_len: usize,
    /// Bytes of the quoted packet behind its IP header, at least 8.
    l4_len: usize,
    /// The quoted TCP sequence number.
    sequence: Option<u32>,
}

/// Errors that are sent on.
pub struct Relate {
    /// How many.
    limit: RateLimit,
}

impl Relate {
    /// None was sent on yet; `seed` is one that others do not know.
    pub fn new(seed: u64, now: Millis) -> Self {
        // About one conn, and in all. A conn causes one per packet of its first window before its
        // sender knows the path's MTU.
        let each = Rate { per_second: 20, at_once: 20 };
        let all = Rate { per_second: 10_000, at_once: 1_000 };
        Relate { limit: RateLimit::new(each, all, seed, now) }
    }

    /// Send an ICMP error to where the packet came from that it is about. It is sound, and for an
    /// address that conns have.
    #[cold]
    pub fn send_on<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &mut Meta,
        steer: &Steer,
        shared: &mut Shared,
        cx: Context,
    ) -> Verdict {
        let message = &frame.bytes()[L4_OFFSET..L3_OFFSET + usize::from(meta.ip_len)];
        let related = match judge(message, meta.key().dst) {
            Ok(related) => related,
            Err(reason) => return Verdict::Drop(reason),
        };
        meta.tuple = related.tuple;
        meta.hash = shared.conns.hash(&meta.tuple);
        // No NIC spreads by what a packet quotes: the owner is asked for on every port.
        if let Some(worker) = steer.elsewhere(meta, cx.config) {
            return Verdict::HandOver { worker };
        }
        self.relate(frame, meta, &related, shared, cx.now)
    }

    /// Send the error its conn's way.
    fn relate<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &mut Meta,
        related: &Related,
        shared: &mut Shared,
        now: Millis,
    ) -> Verdict {
        let Shared { conns, next_hops, counters, .. } = shared;
        meta.conn = conns.find(meta.hash, &meta.tuple);
        if meta.conn.is_none() {
            return Verdict::Drop(DropReason::IcmpNoConn);
        }
        if meta.conn.is_wide() {
            return Verdict::Drop(DropReason::NoTreatment);
        }
        let line = conns.get(meta.conn);
        if related
            .sequence
            .is_some_and(|seq| !is_under_way(line, meta.conn.direction().opposite(), seq))
        {
            return Verdict::Drop(DropReason::IcmpBadSequence);
        }
        let rewrite = line.rewrite(meta.conn.direction());
        let slot = match next_hops.resolve(meta, conns, counters, now) {
            Ok(slot) => slot,
            Err(reason) => return Verdict::Drop(reason),
        };
        if meta.ip_len > next_hops.neighbours.get(slot).mtu {
            return Verdict::Drop(DropReason::MtuExceeded);
        }
        next_hops.ask(slot, now);
        let next_hop = next_hops.neighbours.get(slot);
        if !matches!(next_hop.verdict, Verdict::Transmit { .. }) {
            // If it waits, then as it came.
            return next_hop.verdict;
        }
        if !self.limit.take(meta.hash, now) {
            return Verdict::Drop(DropReason::IcmpRateLimit);
        }
        if let Err(reason) = rewrite_error(frame, meta, related, rewrite) {
            return Verdict::Drop(reason);
        }
        egress::set_macs(frame.bytes_mut(), next_hop);
        next_hop.verdict
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        self.limit.written()
    }
}

/// Make an error the one that the quoted packet's sender is to get: from whom it knows, about what
/// it has sent.
fn rewrite_error<F: Frame>(
    frame: &mut F,
    meta: &Meta,
    related: &Related,
    rewrite: Option<Rewrite>,
) -> Result<(), DropReason> {
    let Ok(view) = Ipv4Frame::parse_mut(frame.bytes_mut()) else {
        return Err(DropReason::Ipv4Truncated);
    };
    // No error about an error (RFC 1122, 3.2.2): nobody is told.
    if view.ip.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    view.ip.ttl -= 1;
    if let Some(rewrite) = rewrite {
        // Both addresses, as the receiver knows its peer by ours only: it has no way to a router on
        // the other side, and may not accept what comes from there.
        let to = FlowKey::from(&rewrite.to);
        (view.ip.src, view.ip.dst) = (to.src.into(), to.dst.into());
        let message = &mut frame.bytes_mut()[L4_OFFSET..L3_OFFSET + usize::from(meta.ip_len)];
        rewrite_quote(&mut message[HEADER_BYTES..], related, &rewrite);
        icmp::fill_checksum(message);
    }
    if let Ok(view) = Ipv4Frame::parse_mut(frame.bytes_mut()) {
        view.ip.fill_checksum();
    }
    Ok(())
}

/// Whether an error to the address `to` can be true, as far as it tells itself.
fn judge(message: &[u8], to: u32) -> Result<Related, DropReason> {
    let Ok((header, _)) = IcmpHeader::ref_from_prefix(message) else {
        return Err(DropReason::IcmpInvalid);
    };
    match (header.icmp_type, header.code) {
        (icmp_type::DEST_UNREACHABLE, 0..=15)
        | (icmp_type::TIME_EXCEEDED, 0..=1)
        | (icmp_type::PARAMETER_PROBLEM, 0..=2) => {}
        (icmp_type::REDIRECT, _) => return Err(DropReason::IcmpRedirect),
        (icmp_type::SOURCE_QUENCH, _) => return Err(DropReason::IcmpSourceQuench),
        _ => return Err(DropReason::IcmpIgnored),
    }
    let Quote { ip, header_len, l4 } =
        icmp::quote(message).map_err(|_| DropReason::IcmpBadQuote)?;
    // Whoever made it sent it to the source of the packet that it quotes. L4 ports are in the first
    // fragment only.
    if ip.src_u32() != to || ip.flags_fragment.get() & ipv4::FRAGMENT_OFFSET != 0 {
        return Err(DropReason::IcmpBadQuote);
    }
    // About our own pings, and never about an error.
    if !matches!(ip.protocol, PROTO_TCP | PROTO_UDP) {
        return Err(DropReason::IcmpIgnored);
    }
    if (header.icmp_type, header.code) == (icmp_type::DEST_UNREACHABLE, code::FRAGMENTATION_NEEDED)
    {
        let mtu = u16::from_be_bytes([header.rest[2], header.rest[3]]);
        if mtu < LEAST_MTU || mtu >= ip.total_len() {
            return Err(DropReason::IcmpBadMtu);
        }
    }
    let word = |at: usize| [l4[at], l4[at + 1], l4[at + 2], l4[at + 3]];
    let quoted = Tuple {
        addresses: V4::pair(ip.src_u32(), ip.dst_u32()),
        ports: u32::from_ne_bytes(word(0)),
        protocol: ip.protocol,
    };
    Ok(Related {
        tuple: quoted.reversed(),
        header_len,
        l4_len: l4.len(),
        sequence: (ip.protocol == PROTO_TCP).then(|| u32::from_be_bytes(word(4))),
    })
}

/// Whether a TCP segment with this sequence number may be on its way in a direction of the conn.
fn is_under_way(line: &Conn, direction: Direction, sequence: u32) -> bool {
    // In DR, backends are heard of by what clients acknowledge, once they do.
    let is_unheard = direction == Direction::FromBackend && line.state().is_half_open();
    is_unheard || line.seqs().may_be_under_way(direction, sequence)
}

/// Make the quoted packet the one that the error's receiver has sent: what Sluice did to it is undone,
/// in checksums too, as far as they are quoted. They may be wrong, and stay as wrong as they are.
fn rewrite_quote(quote: &mut [u8], related: &Related, rewrite: &Rewrite) {
    // The quoted packet goes the other way than the error, and both are turned the same way: what
    // the conn's rewrite does to the sums over one it does to those over the other.
    let Rewrite { to, ip_delta, l4_delta } = *rewrite;
    let sent = to.reversed();
    let update = |sum: &mut [u8], apply: &dyn Fn(u16) -> u16| {
        let old = u16::from_ne_bytes([sum[0], sum[1]]);
        sum.copy_from_slice(&apply(old).to_ne_bytes());
    };
    update(&mut quote[10..12], &|sum| ip_delta.apply(sum));
    quote[12..20].copy_from_slice(&sent.addresses.to_ne_bytes());
    let l4 = &mut quote[related.header_len..related.header_len + related.l4_len];
    l4[..4].copy_from_slice(&sent.ports.to_ne_bytes());
    if sent.protocol == PROTO_UDP {
        update(&mut l4[6..8], &|sum| l4_delta.apply_udp(sum));
    } else if let Some(sum) = l4.get_mut(16..18) {
        update(sum, &|sum| l4_delta.apply(sum));
    }
}
