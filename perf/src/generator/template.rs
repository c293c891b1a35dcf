//! Prebuilt frames: a packet is a copy of its template with the client's address and port put in,
//! and the two checksums that follow from them.
//!
//! The first two bytes of the payload are a mark, the next four a number. The mark says which way a
//! packet goes and whether it is a probe; so what comes back is recognised by one comparison,
//! whatever a load balancer did to its headers. All behind is zero and adds nothing to a checksum.

use std::net::Ipv4Addr;

use sluice_wire::checksum::{self, fold};
use sluice_wire::ether::{EtherHeader, MacAddr, ethertype};
use sluice_wire::ipv4::{FLAG_DF, Ipv4Header, PROTO_TCP, PROTO_UDP};
use sluice_wire::tcp::{TcpFlags, TcpHeader};
use sluice_wire::udp::UdpHeader;
use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::order::Slot;
use super::sizes::{FCS_BYTES, Sizes};

/// Bytes that every frame has, and all that is written per packet.
pub const HEAD_BYTES: usize = 60;
/// Mark of a request that is no probe.
pub const REQUEST: u16 = 0xa5c4;
/// Mark of a request that is a probe.
pub const REQUEST_PROBE: u16 = 0xa5c5;
/// Mark of a reply to a request that is no probe.
pub const REPLY: u16 = 0xa5c6;
/// Mark of a reply to a probe.
pub const REPLY_PROBE: u16 = REPLY + (REQUEST_PROBE - REQUEST);
/// Sequence number of the clients' SYN.
pub const CLIENT_ISN: u32 = 0x1000_0000;
/// Sequence number of the servers' SYN.
pub const SERVER_ISN: u32 = 0x2000_0000;

/// What the packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP datagrams.
    Udp,
    /// TCP segments with data, of a connection that is open.
    TcpData,
    /// TCP segments that open a connection.
    TcpSyn,
    /// TCP segments that complete the handshake.
    TcpAck,
    /// TCP segments that say that there is no more data.
    TcpFin,
}

impl Kind {
    /// IP protocol number.
    pub const fn protocol(self) -> u8 {
        if matches!(self, Kind::Udp) { PROTO_UDP } else { PROTO_TCP }
    }

    /// Where the payload begins in a frame, in bytes.
    pub const fn payload_offset(self) -> usize {
        if matches!(self, Kind::Udp) { 42 } else { 54 }
    }

    /// Whether there is data, and so a mark and room for a probe's number.
    pub const fn has_payload(self) -> bool {
        matches!(self, Kind::Udp | Kind::TcpData)
    }

    const fn flags(self) -> TcpFlags {
        match self {
            Kind::Udp => TcpFlags::NONE,
            Kind::TcpData => TcpFlags::ACK.with(TcpFlags::PSH),
            Kind::TcpSyn => TcpFlags::SYN,
            Kind::TcpAck => TcpFlags::ACK,
            Kind::TcpFin => TcpFlags::FIN.with(TcpFlags::ACK),
        }
    }
}

/// Whom packets go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// MAC address of the next hop.
    pub next_hop: MacAddr,
    /// MAC address of our port.
    pub own: MacAddr,
    /// Address of the service.
    pub address: Ipv4Addr,
    /// L4 port of the service.
    pub port: u16,
}

/// A frame to copy.
#[derive(Clone, Debug)]
pub struct Template {
    head: [u8; HEAD_BYTES],
    len: u16,
    /// Sums without the client's address and port.
    ip_sum: u32,
    l4_sum: u32,
    payload_at: usize,
    is_udp: bool,
}

impl Template {
    /// A frame of `wire_bytes` bytes on the wire, frame check sequence included: 64 or more. Kinds
    /// without payload are as short as can be.
    pub fn new(kind: Kind, target: &Target, wire_bytes: u16) -> Self {
        let len = if kind.has_payload() { wire_bytes - FCS_BYTES } else { HEAD_BYTES as u16 };
        let payload_at = kind.payload_offset();
        let ip_len = if kind.has_payload() { len - 14 } else { payload_at as u16 - 14 };
        let ip = Ipv4Header {
            version_ihl: 0x45,
            dscp_ecn: 0,
            total_len: U16::new(ip_len),
            id: U16::ZERO,
            flags_fragment: U16::new(FLAG_DF),
            ttl: 64,
            protocol: kind.protocol(),
            checksum: U16::ZERO,
            src: U32::ZERO,
            dst: U32::new(target.address.to_bits()),
        };
        let mut l4 = l4_header(kind, target.port, ip_len - 20);
        if kind.has_payload() {
            l4.extend(REQUEST.to_be_bytes());
        }
        let ether = EtherHeader::new(target.next_hop, target.own, ethertype::IPV4);
        let mut head = [0; HEAD_BYTES];
        let parts = [ether.as_bytes(), ip.as_bytes(), &l4].concat();
        head[..parts.len()].copy_from_slice(&parts);
        let dst = target.address.to_bits();
        Template {
            head,
            len,
            ip_sum: checksum::sum(ip.as_bytes()),
            l4_sum: checksum::sum(&l4)
                + checksum::pseudo_header_v4(0, dst, kind.protocol(), ip_len - 20),
            payload_at,
            is_udp: kind == Kind::Udp,
        }
    }

    /// One template for each size, in order.
    pub fn for_sizes(kind: Kind, target: &Target, sizes: &Sizes) -> Vec<Template> {
        sizes.list().iter().map(|size| Template::new(kind, target, size.bytes)).collect()
    }

    /// Length of the frame in bytes, without frame check sequence.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Write the packet of `slot` into a frame of [`Template::len`] bytes, all of which behind the
    /// first 60 are zero.
    #[inline(always)]
    pub fn write(&self, slot: Slot, frame: &mut [u8]) {
        self.write_summed(slot, frame, 0);
    }

    #[inline(always)]
    fn write_summed(&self, slot: Slot, frame: &mut [u8], extra: u32) {
        let Some(head) = frame.first_chunk_mut::<HEAD_BYTES>() else { return };
        *head = self.head;
        let source = (slot.address >> 16) + (slot.address & 0xffff);
        let ip = !fold(self.ip_sum + source);
        let l4 = !fold(self.l4_sum + source + u32::from(slot.port) + extra);
        // RFC 768: a sum of zero is sent as all ones. TCP knows no such rule.
        let l4 = if self.is_udp && l4 == 0 { 0xffff } else { l4 };
        head[24..26].copy_from_slice(&ip.to_be_bytes());
        head[26..30].copy_from_slice(&slot.address.to_be_bytes());
        head[34..36].copy_from_slice(&slot.port.to_be_bytes());
        // Where UDP and TCP have their checksum.
        if self.is_udp {
            head[40..42].copy_from_slice(&l4.to_be_bytes());
        } else {
            head[50..52].copy_from_slice(&l4.to_be_bytes());
        }
    }

    /// As [`Template::write`], but a probe with this number. Only for kinds with payload.
    pub fn write_probe(&self, slot: Slot, frame: &mut [u8], number: u32) {
        let mark = u32::from(REQUEST_PROBE - REQUEST);
        self.write_summed(slot, frame, mark + (number >> 16) + (number & 0xffff));
        let at = self.payload_at;
        if let Some(payload) = frame.get_mut(at..at + 6) {
            payload[..2].copy_from_slice(&REQUEST_PROBE.to_be_bytes());
            payload[2..].copy_from_slice(&number.to_be_bytes());
        }
    }
}

fn l4_header(kind: Kind, dst_port: u16, l4_len: u16) -> Vec<u8> {
    let (src_port, dst_port) = (U16::ZERO, U16::new(dst_port));
    if kind == Kind::Udp {
        let (length, checksum) = (U16::new(l4_len), U16::ZERO);
        return UdpHeader { src_port, dst_port, length, checksum }.as_bytes().to_vec();
    }
    let opens = kind == Kind::TcpSyn;
    let header = TcpHeader {
        src_port,
        dst_port,
        seq: U32::new(if opens { CLIENT_ISN } else { CLIENT_ISN + 1 }),
        ack: U32::new(if opens { 0 } else { SERVER_ISN + 1 }),
        data_offset: 0x50,
        flags: kind.flags(),
        window: U16::new(u16::MAX),
        checksum: U16::ZERO,
        urgent: U16::ZERO,
    };
    header.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::packet;
    use super::*;
    use sluice_path::testkit::Random;
    use sluice_wire::Ipv4Frame;

    const TARGET: Target = Target {
        next_hop: MacAddr([2, 0, 0, 0, 0, 1]),
        own: MacAddr([2, 0, 0, 0, 0, 2]),
        address: Ipv4Addr::new(192, 0, 2, 100),
        port: 443,
    };
    const KINDS: [Kind; 5] = [Kind::Udp, Kind::TcpData, Kind::TcpSyn, Kind::TcpAck, Kind::TcpFin];

    fn random_slot(random: &mut Random) -> Slot {
        let bits = random.next_u64();
        Slot { address: bits as u32, port: (bits >> 32) as u16, template: 0 }
    }

    #[test]
    fn every_packet_has_right_lengths_and_checksums() {
        let mut random = Random(3);
        for kind in KINDS {
            for wire_bytes in [64, 65, 128, 1518] {
                let template = Template::new(kind, &TARGET, wire_bytes);
                for _ in 0..2_000 {
                    let slot = random_slot(&mut random);
                    let mut frame = vec![0; template.len()];
                    template.write(slot, &mut frame);
                    assert!(packet::is_intact(&frame), "{kind:?} of {wire_bytes}: {slot:?}");
                    let view = Ipv4Frame::parse(&frame).unwrap();
                    assert_eq!((view.ip.src_u32(), view.src_port()), (slot.address, slot.port));
                    assert_eq!((view.ip.dst(), view.dst_port()), (TARGET.address, TARGET.port));
                    assert_eq!((view.ether.dst, view.ether.src), (TARGET.next_hop, TARGET.own));
                }
            }
        }
    }

    #[test]
    fn sizes_are_those_on_the_wire() {
        assert_eq!(Template::new(Kind::Udp, &TARGET, 64).len(), 60);
        assert_eq!(Template::new(Kind::TcpData, &TARGET, 1518).len(), 1514);
        assert_eq!(Template::new(Kind::TcpSyn, &TARGET, 1518).len(), 60);
        let sizes: Sizes = "imix".parse().unwrap();
        let lens: Vec<usize> =
            Template::for_sizes(Kind::Udp, &TARGET, &sizes).iter().map(Template::len).collect();
        assert_eq!(lens, [60, 590, 1514]);
    }

    #[test]
    fn probes_carry_their_number() {
        let mut random = Random(4);
        for kind in [Kind::Udp, Kind::TcpData] {
            let template = Template::new(kind, &TARGET, 64);
            for _ in 0..10_000 {
                let number = random.next_u64() as u32;
                let mut frame = [0; 60];
                template.write_probe(random_slot(&mut random), &mut frame, number);
                assert!(packet::is_intact(&frame));
                let at = kind.payload_offset();
                assert_eq!(packet::mark(&frame, at), REQUEST_PROBE);
                assert_eq!(packet::number(&frame, at), number);
            }
        }
    }
}
