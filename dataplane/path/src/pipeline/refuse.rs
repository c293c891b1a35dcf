//! Answer packets that nobody here takes as a host would: TCP segments of no conn and TCP clients of
//! no service by RST (RFC 9293, 3.10.7.1), others by ICMP destination unreachable (RFC 1122,
//! 3.2.2.1), in the packet's own buffer and within a rate.
//!
//! Enters: packets that are about to be dropped for a [`DropReason`]. Leaves: the answer, or the
//! drop. The packet counts as dropped in either case, and the answer under a name of its own.

use sluice_api::{DropReason, NoConn, Refusal};
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::icmp::{code, icmp_type};
use sluice_wire::ipv4::{FLAG_DF, HEADER_BYTES, PROTO_TCP};
use sluice_wire::tcp::{self, TcpFlags, TcpHeader};
use sluice_wire::{WireError, checksum};
use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::icmp::turn_around;
use super::icmp_error;
use super::rate_limit::{Rate, RateLimit};
use super::shared::{Context, Shared};
use super::steer::Steer;
use crate::burst::{Meta, Verdict};
use crate::frame::Frame;
use crate::snapshot::Compiled;
use crate::time::Millis;

/// RSTs to one address, and in all: so many clients a second learn at once that their conn is gone, at
/// some 0.2 % of the worker's time. None is longer than what it answers.
const RESETS: [Rate; 2] =
    [Rate { per_second: 1_000, at_once: 500 }, Rate { per_second: 10_000, at_once: 1_000 }];
/// ICMP unreachables to one address, and in all.
const UNREACHABLES: [Rate; 2] =
    [Rate { per_second: 100, at_once: 50 }, Rate { per_second: 1_000, at_once: 200 }];

/// The answers of a worker, as far as they are bounded.
pub struct Refusals {
    resets: RateLimit,
    unreachables: RateLimit,
}

impl Refusals {
    /// With nothing sent so far; `seed` is one that others do not know.
    pub fn new(seed: u64, now: Millis) -> Self {
        let limit = |[each, all]: [Rate; 2]| RateLimit::new(each, all, seed, now);
        Refusals { resets: limit(RESETS), unreachables: limit(UNREACHABLES) }
    }

    /// What becomes of a packet that is dropped for this reason: its answer, if it gets one.
    #[inline(always)]
    pub fn refuse<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &Meta,
        reason: DropReason,
        steer: &Steer,
        shared: &Shared,
        cx: Context,
    ) -> Verdict {
        // A flood is mostly dropped for others.
        match reason {
            DropReason::NoConn
            | DropReason::SynToLocal
            | DropReason::NoBackend
            | DropReason::NoService => self.answer(frame, meta, reason, steer, shared, cx),
            _ => Verdict::Drop(reason),
        }
    }

    #[cold]
    #[inline(never)]
    fn answer<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &Meta,
        reason: DropReason,
        steer: &Steer,
        shared: &Shared,
        cx: Context,
    ) -> Verdict {
        let Context { config, now } = cx;
        let drop = Verdict::Drop(reason);
        let Some(answer) = wanted(meta, config, reason) else { return drop };
        if !may_answer(meta, steer, config) {
            return drop;
        }
        let sent = match answer {
            Answer::Reset => self.resets.take(meta.key().src, now) && reset(frame, meta).is_ok(),
            Answer::Unreachable(code) => {
                let kind = (icmp_type::DEST_UNREACHABLE, code, [0; 4]);
                self.unreachables.take(meta.key().src, now)
                    && icmp_error::write(frame, meta, meta.key().dst, kind).is_some()
            }
        };
        if !sent {
            return drop;
        }
        shared.counters.drop_count(reason).add(1);
        match answer {
            Answer::Reset => shared.counters.resets_sent.add(1),
            Answer::Unreachable(_) => shared.counters.unreachables_sent.add(1),
        }
        Verdict::Transmit { interface: meta.interface }
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> [std::ops::Range<usize>; 2] {
        [self.resets.written(), self.unreachables.written()]
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Reset,
    /// ICMP destination unreachable, with this code.
    Unreachable(u8),
}

/// The answer that the configuration wants for it.
fn wanted(meta: &Meta, config: &Compiled, reason: DropReason) -> Option<Answer> {
    let key = meta.key();
    let is_tcp = key.protocol == PROTO_TCP;
    // Nor is a RST answered by ICMP: whoever sent it has no connection that could be told of.
    if is_tcp && meta.tcp_flags.contains(TcpFlags::RST) {
        return None;
    }
    let refusal = |refusal, unreachable| match refusal {
        Refusal::Reset if is_tcp => Some(Answer::Reset),
        // RFC 1122, 4.1.3.1: what a UDP host says in place of a reset.
        Refusal::Reset => Some(Answer::Unreachable(code::PORT_UNREACHABLE)),
        Refusal::Unreachable if is_tcp => Some(Answer::Unreachable(unreachable)),
        Refusal::Unreachable => Some(Answer::Unreachable(code::PORT_UNREACHABLE)),
        Refusal::Drop => None,
    };
    let service = config.service(&key);
    match reason {
        DropReason::NoConn | DropReason::SynToLocal => {
            let resets = match service {
                Some(service) => service.no_conn == NoConn::Reset,
                None => config.local_resets(key.dst),
            };
            resets.then_some(Answer::Reset)
        }
        DropReason::NoBackend => refusal(service?.no_backend, code::HOST_UNREACHABLE),
        DropReason::NoService => refusal(config.no_service, code::PORT_UNREACHABLE),
        _ => None,
    }
}

/// Whether it is certain that nobody has the packet's conn, and that its sender may be answered.
fn may_answer(meta: &Meta, steer: &Steer, config: &Compiled) -> bool {
    let key = meta.key();
    // What is sent once cannot be taken back when the conn arrives.
    !config.conns_may_arrive
        // Only the owner of a flow knows whether it has a conn. Another worker decides about its
        // packets in the moments in which workers adopt a snapshot, or when nobody can own it.
        && steer.is_home(meta, config)
        // It would come back.
        && config.address_of_conns(key.src).is_none()
}

/// Turn a TCP segment into the RST that answers it (RFC 9293, 3.10.7.1).
fn reset<F: Frame>(frame: &mut F, meta: &Meta) -> Result<(), WireError> {
    let key = meta.key();
    let end = L3_OFFSET + usize::from(meta.ip_len);
    let l4 = frame.bytes().get(L4_OFFSET..end).ok_or(WireError::Truncated)?;
    let (segment, header_len) = tcp::parse(l4)?;
    let flags = segment.flags;
    let (seq, ack, flags) = if flags.contains(TcpFlags::ACK) {
        // Where the sender is: it can be no other's RST.
        (segment.ack, U32::ZERO, TcpFlags::RST)
    } else {
        // SYN and FIN take a place in the sequence each (RFC 9293, 3.4).
        let places = |flag| u32::from(flags.contains(flag));
        let len = (l4.len() - header_len) as u32 + places(TcpFlags::SYN) + places(TcpFlags::FIN);
        let next = segment.seq.get().wrapping_add(len);
        (U32::ZERO, U32::new(next), TcpFlags::RST | TcpFlags::ACK)
    };
    let mut header = TcpHeader {
        src_port: segment.dst_port,
        dst_port: segment.src_port,
        seq,
        ack,
        data_offset: 0x50,
        flags,
        window: U16::ZERO,
        checksum: U16::ZERO,
        urgent: U16::ZERO,
    };
    let sum = checksum::compute_l4_v4(key.dst, key.src, PROTO_TCP, header.as_bytes());
    header.checksum = U16::new(sum);

    let end = L4_OFFSET + tcp::HEADER_BYTES;
    frame.set_len(end.max(60)).map_err(|_| WireError::Truncated)?;
    let bytes = frame.bytes_mut();
    bytes[L4_OFFSET..end].copy_from_slice(header.as_bytes());
    bytes[end..].fill(0);
    let view = Ipv4Frame::parse_mut(bytes)?;
    view.ip.dscp_ecn = 0;
    view.ip.total_len = U16::new((HEADER_BYTES + tcp::HEADER_BYTES) as u16);
    // RFC 6864, 4.1: what is never fragmented needs no number.
    view.ip.id = U16::ZERO;
    view.ip.flags_fragment = U16::new(FLAG_DF);
    turn_around(bytes, key.dst, key.src);
    Ok(())
}

#[cfg(test)]
mod tests;
