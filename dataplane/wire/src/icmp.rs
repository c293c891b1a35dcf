//! ICMP (RFC 792).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::WireError;
use crate::checksum;
use crate::ipv4::{self, Ipv4Header};

/// Length of a header, in bytes: the same for all kinds that matter here.
pub const HEADER_BYTES: usize = 8;
/// Longest error message, in bytes from its IP header on (RFC 1812, 4.3.2.3).
pub const MAX_ERROR_BYTES: usize = 576;

/// Values of the type field.
pub mod icmp_type {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// A packet could not be delivered; see [`super::code`].
    pub const DEST_UNREACHABLE: u8 = 3;
    /// Send slower: nobody sends or heeds it any more (RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// There is a shorter way.
    pub const REDIRECT: u8 = 5;
    /// A host asks for its data back: ping.
    pub const ECHO_REQUEST: u8 = 8;
    /// A packet's TTL ran out, or reassembly took too long.
    pub const TIME_EXCEEDED: u8 = 11;
    /// A packet's header makes no sense.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Values of the code field.
pub mod code {
    /// Destination unreachable: no route to the network.
    pub const NET_UNREACHABLE: u8 = 0;
    /// Destination unreachable: the host does not answer.
    pub const HOST_UNREACHABLE: u8 = 1;
    /// Destination unreachable: nobody takes this IP protocol.
    pub const PROTOCOL_UNREACHABLE: u8 = 2;
    /// Destination unreachable: nobody listens on this port.
    pub const PORT_UNREACHABLE: u8 = 3;
    /// Destination unreachable: too long for the next link, and not to be fragmented; the next
    /// link's MTU stands in the last two bytes of the header (RFC 1191, 4).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Destination unreachable: forbidden by an administrator (RFC 1812, 5.2.7.1).
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 13;
    /// Time exceeded: the TTL ran out in transit.
    pub const TTL_EXCEEDED: u8 = 0;
    /// Time exceeded: not all fragments came.
    pub const REASSEMBLY_TIMEOUT: u8 = 1;
}

/// An ICMP header, 8 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct IcmpHeader {
    /// See [`icmp_type`].
    pub icmp_type: u8,
    /// See [`code`].
    pub code: u8,
    /// Checksum over header and data; there is no pseudo-header.
    pub checksum: U16,
    /// Echo: identifier and sequence number. Errors: unused, but for an MTU.
    pub rest: [u8; 4],
}

/// The header of a whole ICMP message (an IP payload), whose checksum is right.
///
/// # Errors
/// [`WireError::Truncated`] below 8 bytes, [`WireError::BadChecksum`].
#[inline]
pub fn parse(message: &[u8]) -> Result<&IcmpHeader, WireError> {
    let (header, _) = IcmpHeader::ref_from_prefix(message).map_err(|_| WireError::Truncated)?;
    if checksum::compute(message) != 0 {
        return Err(WireError::BadChecksum);
    }
    Ok(header)
}

impl IcmpHeader {
    /// Whether it tells of a problem with another packet: such must never be answered by an error
    /// (RFC 1122, 3.2.2).
    #[inline]
    pub const fn is_error(&self) -> bool {
        // Source quench (4) and redirect (5) are errors too; nobody sends the former any more.
        matches!(self.icmp_type, 3 | 4 | 5 | 11 | 12)
    }

    /// Whether it is a ping.
    #[inline]
    pub const fn is_echo_request(&self) -> bool {
        self.icmp_type == icmp_type::ECHO_REQUEST && self.code == 0
    }
}

/// The IPv4 packet that an ICMP error is about, as far as the error quotes it.
#[derive(Clone, Copy, Debug)]
pub struct Quote<'m> {
    /// Its header as it was when the error was made: TTL and checksum had changed on the way.
    pub ip: &'m Ipv4Header,
    /// The length of its header with options, in bytes.
    pub header_len: usize,
    /// What follows the header, at least 8 bytes: L4 ports, and perhaps all of the packet.
    pub l4: &'m [u8],
}

/// What an ICMP error quotes (RFC 792; RFC 1812, 4.3.2.3); its own header is for the caller to
/// judge. Nothing that follows the quote (RFC 4884) is taken for part of it.
///
/// # Errors
/// [`WireError::Truncated`] below a header with its options and 8 bytes, and those of
/// [`ipv4::check`] but for a packet that is longer than its quote.
pub fn quote(message: &[u8]) -> Result<Quote<'_>, WireError> {
    let quoted = message.get(HEADER_BYTES..).ok_or(WireError::Truncated)?;
    let (ip, _) = Ipv4Header::ref_from_prefix(quoted).map_err(|_| WireError::Truncated)?;
    let header_len = ipv4::check(ip, usize::from(u16::MAX))?;
    let end = quoted.len().min(usize::from(ip.total_len()));
    let l4 = quoted.get(header_len..end).filter(|l4| l4.len() >= 8).ok_or(WireError::Truncated)?;
    Ok(Quote { ip, header_len, l4 })
}

/// Set the checksum of a whole message. Below 8 bytes nothing is done.
pub fn fill_checksum(message: &mut [u8]) {
    if message.len() < HEADER_BYTES {
        return;
    }
    message[2..4].fill(0);
    let checksum = checksum::compute(message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

/// Turn a whole echo request into its reply: same identifier, sequence number and data (RFC 792).
/// The checksum is computed anew, as an update cannot tell the two zeros of ones-complement apart,
/// and a reply may be all zero. The caller swaps the addresses. Below 8 bytes nothing is done.
pub fn make_echo_reply(message: &mut [u8]) {
    if message.len() < HEADER_BYTES {
        return;
    }
    message[..2].copy_from_slice(&[icmp_type::ECHO_REPLY, 0]);
    fill_checksum(message);
}

/// Write an ICMP error about the IPv4 packet `original` to the start of `out`, and say how many
/// bytes it took: header, then as much of `original` (from its IP header on) as fits into `out`
/// and into [`MAX_ERROR_BYTES`] (RFC 1812, 4.3.2.3). The IP header is the caller's.
///
/// `None`, and nothing written, when no error may be sent about it (RFC 1812, 4.3.2.7: a fragment
/// that is not the first, an ICMP error), when it is no IPv4 packet, or when `out` does not hold
/// the header, the IP header and 8 bytes. That addresses are unicast is for the caller to see.
pub fn build_error(
    out: &mut [u8],
    icmp_type: u8,
    code: u8,
    rest: [u8; 4],
    original: &[u8],
) -> Option<usize> {
    let (ip, ip_len) = ipv4::parse(original).ok()?;
    if ip.flags_fragment.get() & ipv4::FRAGMENT_OFFSET != 0 {
        return None;
    }
    let original = &original[..usize::from(ip.total_len())];
    if ip.protocol == ipv4::PROTO_ICMP {
        let (inner, _) = IcmpHeader::ref_from_prefix(&original[ip_len..]).ok()?;
        if inner.is_error() {
            return None;
        }
    }
    let most = out.len().min(MAX_ERROR_BYTES - ipv4::HEADER_BYTES).checked_sub(HEADER_BYTES)?;
    let quoted = original.len().min(most);
    if quoted < original.len().min(ip_len + 8) {
        return None;
    }
    let message = &mut out[..HEADER_BYTES + quoted];
    let header = IcmpHeader { icmp_type, code, checksum: U16::ZERO, rest };
    message[HEADER_BYTES..].copy_from_slice(&original[..quoted]);
    message[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    fill_checksum(message);
    Some(message.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Slice, Icmpv4Type, PacketBuilder, icmpv4};
    use proptest::prelude::*;

    /// An echo request of Linux' ping, cut to 8 bytes of data.
    const PING: [u8; 16] =
        [8, 0, 0x8b, 0x9b, 0x30, 0x39, 0, 1, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17];

    #[test]
    fn a_ping_becomes_its_reply() {
        let mut message = PING;
        message[2..4].fill(0);
        let checksum = checksum::compute(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        assert!(parse(&message).unwrap().is_echo_request());

        make_echo_reply(&mut message);
        let reply = parse(&message).unwrap();
        assert_eq!((reply.icmp_type, reply.code), (icmp_type::ECHO_REPLY, 0));
        assert!(!reply.is_error() && !reply.is_echo_request());
        assert_eq!(message[4..], PING[4..]);
    }

    #[test]
    fn a_reply_of_zeros_only_has_the_checksum_of_zeros() {
        let mut message = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        assert!(parse(&message).unwrap().is_echo_request());
        make_echo_reply(&mut message);
        assert_eq!(message, [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        assert!(parse(&message).is_ok());
    }

    #[test]
    fn short_and_broken_messages_are_refused() {
        for len in 0..HEADER_BYTES {
            assert_eq!(parse(&PING[..len]), Err(WireError::Truncated));
        }
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4_echo_request(7, 9)
            .write(&mut packet, b"ping")
            .unwrap();
        let message = &packet[20..];
        assert_eq!(parse(message).unwrap().rest, [0, 7, 0, 9]);
        for at in 0..message.len() {
            let mut broken = message.to_vec();
            broken[at] ^= 0x10;
            assert_eq!(parse(&broken), Err(WireError::BadChecksum), "byte {at}");
        }
    }

    fn udp(payload_len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 1)
            .udp(1_000, 2_000)
            .write(&mut packet, &vec![0xa5; payload_len])
            .unwrap();
        packet
    }

    #[test]
    fn errors_quote_the_packet_within_576_bytes() {
        for payload_len in [0, 1, 100, 519, 520, 521, 1_400] {
            let mut original = udp(payload_len);
            let packet_len = original.len();
            original.resize(packet_len + 6, 0xee); // Ethernet padding is not quoted
            let mut out = [0; 1_500];
            let len = build_error(
                &mut out,
                icmp_type::TIME_EXCEEDED,
                code::TTL_EXCEEDED,
                [0; 4],
                &original,
            )
            .unwrap();
            assert_eq!(len, HEADER_BYTES + packet_len.min(548));
            assert_eq!(parse(&out[..len]).unwrap().icmp_type, icmp_type::TIME_EXCEEDED);
            assert_eq!(out[8..len], original[..len - 8]);
            let theirs = Icmpv4Slice::from_slice(&out[..len]).unwrap();
            assert_eq!(
                theirs.icmp_type(),
                Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit)
            );
        }
        let mut out = [0; 1_500];
        let (kind, code) = (icmp_type::DEST_UNREACHABLE, code::FRAGMENTATION_NEEDED);
        let len = build_error(&mut out, kind, code, [0, 0, 0x05, 0xdc], &udp(1_472)).unwrap();
        assert_eq!(
            Icmpv4Slice::from_slice(&out[..len]).unwrap().icmp_type(),
            Icmpv4Type::DestinationUnreachable(
                icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1_500 }
            )
        );
    }

    #[test]
    fn quotes_are_read_as_far_as_they_go() {
        let original = udp(100);
        let mut with_options = original.clone();
        with_options[0] = 0x47;
        with_options.splice(20..20, [1; 8]);
        with_options[3] += 8;
        for (packet, header_len) in [(original, 20), (with_options, 28)] {
            for len in 0..packet.len() + 40 {
                // Extensions may follow (RFC 4884).
                let mut message = vec![0; HEADER_BYTES];
                message.extend(packet.iter().chain(&[0xee; 40]).take(len));
                match quote(&message) {
                    Ok(quote) => {
                        assert!(len >= header_len + 8);
                        assert_eq!(quote.header_len, header_len);
                        assert_eq!(quote.l4, &packet[header_len..len.min(packet.len())]);
                        assert_eq!(quote.ip.src_u32(), 0x0a00_0001);
                    }
                    Err(error) => {
                        assert!(len < header_len + 8, "{len}");
                        assert_eq!(error, WireError::Truncated);
                    }
                }
            }
        }
        let bad = |at: usize, value: u8| {
            let mut message = [&[0; 8][..], &udp(100)].concat();
            message[8 + at] = value;
            quote(&message).map(|quote| quote.l4.len())
        };
        assert_eq!(bad(0, 0x65), Err(WireError::BadVersion));
        assert_eq!(bad(0, 0x44), Err(WireError::BadHeaderLength));
        assert_eq!(bad(3, 19), Err(WireError::BadLength));
        assert_eq!(bad(3, 27), Err(WireError::Truncated), "no packet has less than 8 bytes of L4");
        assert_eq!(bad(3, 28), Ok(8));
        assert_eq!(bad(2, 0xff), Ok(108), "the rest of it is not quoted");
    }

    #[test]
    fn no_error_about_what_must_not_be_answered() {
        let mut out = [0; 600];
        let error = |out: &mut [u8], original: &[u8]| {
            build_error(out, icmp_type::DEST_UNREACHABLE, code::HOST_UNREACHABLE, [0; 4], original)
        };
        let mut fragment = udp(100);
        fragment[7] = 1;
        assert_eq!(error(&mut out, &fragment), None);
        fragment[6..8].copy_from_slice(&ipv4::FLAG_MF.to_be_bytes());
        assert!(error(&mut out, &fragment).is_some(), "the first fragment may be answered");

        let icmp = |first: u8| {
            let mut packet = udp(0);
            packet[9] = ipv4::PROTO_ICMP;
            packet[20] = first;
            packet
        };
        for kind in [3, 4, 5, 11, 12] {
            assert_eq!(error(&mut out, &icmp(kind)), None, "ICMP type {kind}");
        }
        assert!(error(&mut out, &icmp(icmp_type::ECHO_REQUEST)).is_some());

        assert_eq!(error(&mut out, &[]), None);
        assert_eq!(error(&mut out, &[0x60; 40]), None);
        assert_eq!(error(&mut out[..35], &udp(100)), None, "too small for header and 8 bytes");
        assert_eq!(error(&mut out[..36], &udp(100)), Some(36));
        assert_eq!(error(&mut out[..7], &udp(0)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            original in prop::collection::vec(any::<u8>(), 0..100), room in 0usize..100,
        ) {
            let mut out = vec![0; room];
            let _ = parse(&original);
            let _ = quote(&original);
            if let Some(len) = build_error(&mut out, 3, 1, [0; 4], &original) {
                prop_assert!(parse(&out[..len]).is_ok());
            }
        }
    }
}
