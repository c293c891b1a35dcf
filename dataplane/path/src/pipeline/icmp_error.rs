//! Tell the sender of a packet why it went no further: ICMP errors, in the packet's own buffer,
//! within rate limits (RFC 1812, 4.3.2.8).

use sluice_api::DropReason;
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::icmp::{self, MAX_ERROR_BYTES, code, icmp_type};
use sluice_wire::ipv4::{HEADER_BYTES, PROTO_ICMP};
use zerocopy::byteorder::network_endian::U16;

use super::icmp::turn_around;
use super::rate_limit::{Rate, RateLimit};
use super::shared::Shared;
use crate::burst::{Meta, Verdict};
use crate::frame::Frame;
use crate::time::Millis;

/// What a packet's sender is told.
#[derive(Clone, Copy, Debug)]
pub enum Problem {
    /// The packet's TTL is used up (RFC 1812, 5.3.1).
    TtlExceeded,
    /// It is larger than the next link takes (RFC 1191).
    TooBig {
        /// That link's MTU, in bytes.
        mtu: u16,
    },
}

impl Problem {
    /// Type, code and rest of the header.
    fn message(self) -> (u8, u8, [u8; 4]) {
        match self {
            Problem::TtlExceeded => (icmp_type::TIME_EXCEEDED, code::TTL_EXCEEDED, [0; 4]),
            Problem::TooBig { mtu } => {
                let [high, low] = mtu.to_be_bytes();
                (icmp_type::DEST_UNREACHABLE, code::FRAGMENTATION_NEEDED, [0, 0, high, low])
            }
        }
    }

    /// Why the packet goes no further.
    fn reason(self) -> DropReason {
        match self {
            Problem::TtlExceeded => DropReason::TtlExceeded,
            Problem::TooBig { .. } => DropReason::MtuExceeded,
        }
    }
}

/// How many errors of each kind a worker sends, to one address and in all. Kinds do not share:
/// whoever traces routes, or floods, takes nothing from path-MTU discovery.
pub struct ErrorLimits {
    ttl: RateLimit,
    too_big: RateLimit,
}

impl ErrorLimits {
    /// Nothing has been sent yet; `seed` is one that others do not know.
    pub fn new(seed: u64, now: Millis) -> Self {
        // A traceroute sends three probes per hop, and mtr one a second.
        let ttl = [Rate { per_second: 10, at_once: 10 }, Rate { per_second: 100, at_once: 50 }];
        // A sender needs one for a path, and causes one per packet of its first window until then;
        // many conns may start at once, also behind one address.
        let too_big =
            [Rate { per_second: 50, at_once: 50 }, Rate { per_second: 1_000, at_once: 200 }];
        let limit = |[each, all]: [Rate; 2]| RateLimit::new(each, all, seed, now);
        ErrorLimits { ttl: limit(ttl), too_big: limit(too_big) }
    }

    fn take(&mut self, problem: Problem, destination: u32, now: Millis) -> bool {
        let limit = match problem {
            Problem::TtlExceeded => &mut self.ttl,
            Problem::TooBig { .. } => &mut self.too_big,
        };
        limit.take(destination, now)
    }

    /// Turn a packet into an ICMP error about itself, back to its sender; or drop it, when no error
    /// may be sent. The packet counts as dropped in either case.
    #[cold]
    pub fn answer<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &Meta,
        problem: Problem,
        shared: &Shared,
        now: Millis,
    ) -> Verdict {
        let our_address = shared.interfaces.get(meta.interface).address.to_bits();
        if !self.take(problem, meta.key().src, now)
            || write(frame, meta, our_address, problem.message()).is_none()
        {
            return Verdict::Drop(problem.reason());
        }
        shared.counters.drop_count(problem.reason()).add(1);
        Verdict::Transmit { interface: meta.interface }
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> [std::ops::Range<usize>; 2] {
        [self.ttl.written(), self.too_big.written()]
    }
}

/// Turn a packet into an ICMP error about itself, from an address of ours to its sender. `None`, and
/// the packet is to be dropped, when no error may be sent about it.
pub fn write<F: Frame>(
    frame: &mut F,
    meta: &Meta,
    our_address: u32,
    (icmp_type, code, rest): (u8, u8, [u8; 4]),
) -> Option<()> {
    let end = L3_OFFSET + usize::from(meta.ip_len);
    // Most of the original that may be quoted is on the stack: it moves within its own buffer.
    let mut message = [0; MAX_ERROR_BYTES - HEADER_BYTES];
    let original = &frame.bytes()[L3_OFFSET..end];
    let len = icmp::build_error(&mut message, icmp_type, code, rest, original)?;
    frame.set_len((L4_OFFSET + len).max(60)).ok()?;
    let bytes = frame.bytes_mut();
    bytes[L4_OFFSET..L4_OFFSET + len].copy_from_slice(&message[..len]);
    bytes[L4_OFFSET + len..].fill(0);
    let view = Ipv4Frame::parse_mut(bytes).ok()?;
    view.ip.version_ihl = 0x45;
    // RFC 1812, 4.3.2.5: precedence 6, internetwork control.
    view.ip.dscp_ecn = 0xc0;
    view.ip.total_len = U16::new((HEADER_BYTES + len) as u16);
    view.ip.id = U16::ZERO;
    view.ip.flags_fragment = U16::ZERO;
    view.ip.protocol = PROTO_ICMP;
    turn_around(bytes, our_address, meta.key().src);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sluice_api::{DropReason, Mode, Protocol};
    use sluice_wire::checksum;
    use sluice_wire::tcp::TcpFlags;

    use crate::flow::FlowKey;
    use crate::frame::Frame;
    use crate::testkit::{self, *};

    const TTL_EXCEEDED: [u8; 2] = [11, 0];
    const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];

    fn client(last: u8) -> FlowKey {
        let address = Ipv4Addr::new(198, 51, 100, last);
        flow(Protocol::Tcp, (address, 5_000), (VIP, 80))
    }

    fn with_conns_of(clients: impl IntoIterator<Item = u8>) -> Harness {
        let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
        let mut h = Harness::new(&snapshot(1, vec![service]), 1_000);
        let syns =
            clients.into_iter().map(|c| packet(PORT_MACS[0], &client(c), TcpFlags::SYN, b""));
        h.receive(CLIENT_PORT, syns);
        h
    }

    fn dying(client_: u8) -> Vec<u8> {
        let mut bytes = packet(PORT_MACS[0], &client(client_), TcpFlags::ACK, b"");
        bytes[22] = 1;
        bytes[24..26].fill(0);
        let sum = checksum::compute(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn large(client_: u8) -> Vec<u8> {
        packet(PORT_MACS[0], &client(client_), TcpFlags::ACK, &[0; 1_480])
    }

    /// How many ICMP errors of a kind leave.
    fn told(h: &mut Harness, kind: [u8; 2], packets: impl IntoIterator<Item = Vec<u8>>) -> usize {
        let out = h.receive(CLIENT_PORT, packets);
        let is_kind = |bytes: &[u8]| bytes[23] == 1 && bytes[34..36] == kind;
        out.transmitted.iter().filter(|(_, frame)| is_kind(frame.bytes())).count()
    }

    #[test]
    fn packets_whose_ttl_runs_out_take_nothing_from_path_mtu_discovery() {
        let mut h = with_conns_of([1, 2]);
        assert_eq!(told(&mut h, TTL_EXCEEDED, (0..120).map(|_| dying(1))), 10);
        assert_eq!(told(&mut h, FRAGMENTATION_NEEDED, [large(1)]), 1);
        assert_eq!(told(&mut h, TTL_EXCEEDED, [dying(2)]), 1, "nor from another client's");
        h.now += 1_000;
        assert_eq!(told(&mut h, TTL_EXCEEDED, (0..120).map(|_| dying(1))), 10);
        assert_eq!(h.drops(DropReason::TtlExceeded), 241, "each counts, told or not");
        assert_eq!(h.drops(DropReason::MtuExceeded), 1);
    }

    #[test]
    fn errors_have_a_rate_in_all() {
        let mut h = with_conns_of(0..=255);
        assert_eq!(told(&mut h, TTL_EXCEEDED, (0..=255).map(dying)), 50);
        assert_eq!(told(&mut h, FRAGMENTATION_NEEDED, (0..=255).map(large)), 200);
        h.now += 100;
        assert_eq!(told(&mut h, TTL_EXCEEDED, (0..=255).map(dying)), 10);
        assert_eq!(told(&mut h, FRAGMENTATION_NEEDED, (0..=255).map(large)), 100);
    }
}
