//! ARP for IPv4 over Ethernet (RFC 826), and its use to announce addresses (RFC 5227).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::WireError;
use crate::ether::{EtherHeader, HEADER_BYTES, MIN_FRAME_BYTES, MacAddr, ethertype};

/// Length of an ARP packet, in bytes, without Ethernet header and padding.
pub const PACKET_BYTES: usize = 28;
/// Operation: who has the target address?
pub const OP_REQUEST: u16 = 1;
/// Operation: the sender has its address.
pub const OP_REPLY: u16 = 2;

const HW_ETHERNET: u16 = 1;

/// An ARP packet for Ethernet and IPv4, 28 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ArpPacket {
    /// Kind of hardware address: 1, Ethernet.
    pub hw_type: U16,
    /// Kind of protocol address, an EtherType: 0x0800, IPv4.
    pub proto_type: U16,
    /// Length of a hardware address in bytes: 6.
    pub hw_len: u8,
    /// Length of a protocol address in bytes: 4.
    pub proto_len: u8,
    /// [`OP_REQUEST`] or [`OP_REPLY`].
    pub op: U16,
    /// MAC address of the sender.
    pub sender_mac: MacAddr,
    /// IPv4 address of the sender; 0 in a probe.
    pub sender_ip: U32,
    /// MAC address of the target; meaningless in a request.
    pub target_mac: MacAddr,
    /// IPv4 address of the target: the one asked for.
    pub target_ip: U32,
}

/// The ARP packet at the start of an Ethernet payload; what follows is padding.
///
/// # Errors
/// [`WireError::Truncated`] below 28 bytes, [`WireError::BadAddressType`] for other than Ethernet
/// and IPv4, [`WireError::BadOperation`] for other than request and reply (RFC 826, "Packet
/// Reception").
#[inline]
pub fn parse(payload: &[u8]) -> Result<&ArpPacket, WireError> {
    let (packet, _) = ArpPacket::ref_from_prefix(payload).map_err(|_| WireError::Truncated)?;
    let types = (packet.hw_type.get(), packet.proto_type.get(), packet.hw_len, packet.proto_len);
    if types != (HW_ETHERNET, ethertype::IPV4, 6, 4) {
        return Err(WireError::BadAddressType);
    }
    if !matches!(packet.op(), OP_REQUEST | OP_REPLY) {
        return Err(WireError::BadOperation);
    }
    Ok(packet)
}

impl ArpPacket {
    /// [`OP_REQUEST`] or [`OP_REPLY`].
    #[inline]
    pub const fn op(&self) -> u16 {
        self.op.get()
    }

    /// The sender's address.
    #[inline]
    pub const fn sender_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.sender_ip.get())
    }

    /// The target's address.
    #[inline]
    pub const fn target_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.target_ip.get())
    }

    /// Whether the sender may be believed: a group address is nobody's own (RFC 1812, 3.3.2).
    #[inline]
    pub const fn sender_is_station(&self) -> bool {
        self.sender_mac.is_station()
    }

    /// Whether it asks if anybody has an address before taking it: the sender address is 0, and
    /// nothing may be learned from it (RFC 5227, 1.1).
    #[inline]
    pub const fn is_probe(&self) -> bool {
        self.sender_ip.get() == 0
    }

    /// Whether it tells of its own sender: request or reply with sender and target address the
    /// same (RFC 5227, 3).
    #[inline]
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip && !self.is_probe()
    }
}

/// A whole Ethernet frame with an ARP packet, padded to the shortest length (IEEE 802.3).
pub fn build_arp(
    op: u16,
    sender_mac: MacAddr,
    sender_ip: Ipv4Addr,
    target_mac: MacAddr,
    target_ip: Ipv4Addr,
    ether_dst: MacAddr,
) -> [u8; MIN_FRAME_BYTES] {
    let ether = EtherHeader::new(ether_dst, sender_mac, ethertype::ARP);
    let packet = ArpPacket {
        hw_type: U16::new(HW_ETHERNET),
        proto_type: U16::new(ethertype::IPV4),
        hw_len: 6,
        proto_len: 4,
        op: U16::new(op),
        sender_mac,
        sender_ip: U32::new(sender_ip.to_bits()),
        target_mac,
        target_ip: U32::new(target_ip.to_bits()),
    };
    let mut frame = [0; MIN_FRAME_BYTES];
    frame[..HEADER_BYTES].copy_from_slice(ether.as_bytes());
    frame[HEADER_BYTES..][..PACKET_BYTES].copy_from_slice(packet.as_bytes());
    frame
}

/// A broadcast that asks who has `target_ip`.
pub fn build_request(
    sender_mac: MacAddr,
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
) -> [u8; MIN_FRAME_BYTES] {
    build_arp(OP_REQUEST, sender_mac, sender_ip, MacAddr::ZERO, target_ip, MacAddr::BROADCAST)
}

/// The answer to `request`: `our_mac` has the address it asks for.
pub fn build_reply(request: &ArpPacket, our_mac: MacAddr) -> [u8; MIN_FRAME_BYTES] {
    let (to, ip) = (request.sender_mac, request.sender_ip());
    build_arp(OP_REPLY, our_mac, request.target_ip(), to, ip, to)
}

/// The broadcast that tells everybody that `mac` has `ip` now: a request for itself, with target
/// MAC address zero (RFC 5227, 2.3 and 3).
pub fn build_announcement(mac: MacAddr, ip: Ipv4Addr) -> [u8; MIN_FRAME_BYTES] {
    build_request(mac, ip, ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0a]);
    const THEIRS: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0b]);

    /// `ping 10.0.0.1` from 10.0.0.2, as it crosses the wire.
    const REQUEST: [u8; 60] = {
        let mut frame = [0; 60];
        let bytes = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x0b, 0x08,
            0x06, // Ethernet
            0, 1, 0x08, 0, 6, 4, 0, 1, // types, lengths, operation
            0x02, 0, 0, 0, 0, 0x0b, 10, 0, 0, 2, // sender
            0, 0, 0, 0, 0, 0, 10, 0, 0, 1, // target
        ];
        let mut i = 0;
        while i < bytes.len() {
            frame[i] = bytes[i];
            i += 1;
        }
        frame
    };

    #[test]
    fn reads_and_writes_real_bytes() {
        let packet = parse(&REQUEST[14..]).unwrap();
        assert_eq!(packet.op(), OP_REQUEST);
        assert_eq!((packet.sender_mac, packet.sender_ip()), (THEIRS, Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(
            (packet.target_mac, packet.target_ip()),
            (MacAddr::ZERO, Ipv4Addr::new(10, 0, 0, 1))
        );
        assert!(packet.sender_is_station() && !packet.is_probe() && !packet.is_announcement());
        assert_eq!(build_request(THEIRS, packet.sender_ip(), packet.target_ip()), REQUEST);

        let reply = build_reply(packet, OURS);
        let (ether, payload) = EtherHeader::ref_from_prefix(&reply).unwrap();
        assert_eq!((ether.dst, ether.src, ether.ethertype()), (THEIRS, OURS, ethertype::ARP));
        let reply = parse(payload).unwrap();
        assert_eq!(reply.op(), OP_REPLY);
        assert_eq!((reply.sender_mac, reply.sender_ip()), (OURS, packet.target_ip()));
        assert_eq!((reply.target_mac, reply.target_ip()), (THEIRS, packet.sender_ip()));
    }

    #[test]
    fn announcement_is_that_of_rfc_5227() {
        let vip = Ipv4Addr::new(192, 0, 2, 1);
        let frame = build_announcement(OURS, vip);
        let (ether, payload) = EtherHeader::ref_from_prefix(&frame).unwrap();
        assert_eq!((ether.dst, ether.src), (MacAddr::BROADCAST, OURS));
        let packet = parse(payload).unwrap();
        assert!(packet.is_announcement() && !packet.is_probe());
        assert_eq!((packet.op(), packet.target_mac), (OP_REQUEST, MacAddr::ZERO));
        assert_eq!((packet.sender_ip(), packet.target_ip()), (vip, vip));

        let probe = build_request(OURS, Ipv4Addr::UNSPECIFIED, vip);
        assert!(parse(&probe[14..]).unwrap().is_probe());
        let nothing = build_request(OURS, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
        assert!(!parse(&nothing[14..]).unwrap().is_announcement());
    }

    #[test]
    fn refuses_short_and_foreign_packets() {
        let payload = &REQUEST[14..];
        for len in 0..PACKET_BYTES {
            assert_eq!(parse(&payload[..len]), Err(WireError::Truncated), "{len} bytes");
        }
        assert!(parse(&payload[..PACKET_BYTES]).is_ok());
        let with = |at: usize, value: u8| {
            let mut changed = payload.to_vec();
            changed[at] = value;
            parse(&changed).map(|_| ())
        };
        for at in 0..6 {
            assert_eq!(with(at, 0x55), Err(WireError::BadAddressType), "byte {at}");
        }
        for op in (0..=255u8).filter(|op| !matches!(op, 1 | 2)) {
            assert_eq!(with(7, op), Err(WireError::BadOperation));
        }
        assert_eq!(with(6, 1), Err(WireError::BadOperation));
    }

    proptest! {
        #[test]
        fn round_trips_and_etherparse_agrees(
            reply: bool, sender_mac: [u8; 6], sender_ip: [u8; 4],
            target_mac: [u8; 6], target_ip: [u8; 4], dst: [u8; 6],
        ) {
            let op = if reply { OP_REPLY } else { OP_REQUEST };
            let frame = build_arp(
                op, sender_mac.into(), sender_ip.into(), target_mac.into(), target_ip.into(),
                dst.into(),
            );
            let packet = parse(&frame[14..]).unwrap();
            prop_assert_eq!(packet.op(), op);
            prop_assert_eq!(packet.sender_ip(), Ipv4Addr::from(sender_ip));
            prop_assert_eq!(packet.target_ip(), Ipv4Addr::from(target_ip));

            let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::NetSlice::Arp(arp)) = sliced.net else {
                return Err(TestCaseError::fail("etherparse sees no ARP"));
            };
            prop_assert_eq!(arp.operation().0, op);
            prop_assert_eq!(arp.sender_hw_addr(), &sender_mac[..]);
            prop_assert_eq!(arp.sender_protocol_addr(), &sender_ip[..]);
            prop_assert_eq!(arp.target_hw_addr(), &target_mac[..]);
            prop_assert_eq!(arp.target_protocol_addr(), &target_ip[..]);
        }
    }
}
