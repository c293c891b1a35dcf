//! The IPv4 header (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::WireError;
use crate::checksum;

/// Length of a header without options, in bytes.
pub const HEADER_BYTES: usize = 20;
/// Protocol number of ICMP (IANA).
pub const PROTO_ICMP: u8 = 1;
/// Protocol number of TCP (IANA).
pub const PROTO_TCP: u8 = 6;
/// Protocol number of UDP (IANA).
pub const PROTO_UDP: u8 = 17;

/// "Don't fragment", in [`Ipv4Header::flags_fragment`].
pub const FLAG_DF: u16 = 0x4000;
/// "More fragments", in [`Ipv4Header::flags_fragment`].
pub const FLAG_MF: u16 = 0x2000;
/// The fragment offset, in [`Ipv4Header::flags_fragment`], in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// An IPv4 header without its options, 20 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version in the upper half, header length in units of 4 bytes (IHL) in the lower.
    pub version_ihl: u8,
    /// DSCP in the upper six bits (RFC 2474), ECN in the lower two (RFC 3168).
    pub dscp_ecn: u8,
    /// Length of header and payload, in bytes.
    pub total_len: U16,
    /// Identification, the same in all fragments of a packet.
    pub id: U16,
    /// [`FLAG_DF`], [`FLAG_MF`] and [`FRAGMENT_OFFSET`].
    pub flags_fragment: U16,
    /// Hops that the packet may still take.
    pub ttl: u8,
    /// What follows: [`PROTO_TCP`], [`PROTO_UDP`], [`PROTO_ICMP`], …
    pub protocol: u8,
    /// Checksum over the header with its options.
    pub checksum: U16,
    /// Source address.
    pub src: U32,
    /// Destination address.
    pub dst: U32,
}

/// The length of the header with its options, in bytes, once all its lengths are found to agree
/// with each other and with `available_len`, the bytes from the header's start to the frame's end
/// (Ethernet padding included). `total_len` may be relied on afterwards.
///
/// # Errors
/// [`WireError::BadVersion`], [`WireError::BadHeaderLength`] for an IHL below 5,
/// [`WireError::Truncated`] when IHL or total length reach past the end,
/// [`WireError::BadLength`] when the total length is below the header's (RFC 1812, 5.2.2).
#[inline]
pub fn check(header: &Ipv4Header, available_len: usize) -> Result<usize, WireError> {
    if header.version() != 4 {
        return Err(WireError::BadVersion);
    }
    let header_len = header.header_len();
    if header_len < HEADER_BYTES {
        return Err(WireError::BadHeaderLength);
    }
    if header_len > available_len {
        return Err(WireError::Truncated);
    }
    let total_len = usize::from(header.total_len());
    if total_len < header_len {
        return Err(WireError::BadLength);
    }
    if total_len > available_len {
        return Err(WireError::Truncated);
    }
    Ok(header_len)
}

/// The header at the start of `packet` and its length with options in bytes, by [`check`].
///
/// # Errors
/// Those of [`check`], and [`WireError::Truncated`] below 20 bytes.
#[inline]
pub fn parse(packet: &[u8]) -> Result<(&Ipv4Header, usize), WireError> {
    let (header, _) = Ipv4Header::ref_from_prefix(packet).map_err(|_| WireError::Truncated)?;
    let header_len = check(header, packet.len())?;
    Ok((header, header_len))
}

impl Ipv4Header {
    /// The IP version.
    #[inline]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Header length with options, in units of 4 bytes.
    #[inline]
    pub const fn ihl(&self) -> u8 {
        self.version_ihl & 0x0f
    }

    /// Header length with options, in bytes, 0 to 60.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.ihl() as usize * 4
    }

    /// Whether options follow.
    #[inline]
    pub const fn has_options(&self) -> bool {
        self.ihl() > 5
    }

    /// Length of header and payload, in bytes.
    #[inline]
    pub const fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// Whether it is one of several fragments: more follow, or it is not the first. Only the
    /// first of them holds L4 ports, and none the whole L4 checksum.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & (FLAG_MF | FRAGMENT_OFFSET) != 0
    }

    /// Whether routers must not fragment it.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_fragment.get() & FLAG_DF != 0
    }

    /// Source address.
    #[inline]
    pub const fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.src.get())
    }

    /// Destination address.
    #[inline]
    pub const fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.dst.get())
    }

    /// Source address in host order.
    #[inline]
    pub const fn src_u32(&self) -> u32 {
        self.src.get()
    }

    /// Destination address in host order.
    #[inline]
    pub const fn dst_u32(&self) -> u32 {
        self.dst.get()
    }

    /// The checksum field.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Whether the checksum fits a header without options; for one with, see
    /// [`checksum_is_valid`].
    #[inline(always)]
    pub fn checksum_is_valid(&self) -> bool {
        checksum::is_valid(self.as_bytes())
    }

    /// Set the checksum of a header without options.
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.checksum = U16::ZERO;
        self.checksum = U16::new(checksum::compute(self.as_bytes()));
    }

    /// Whether the TCP or UDP checksum in `l4`, which is all that it covers, is right.
    #[inline(always)]
    pub fn l4_checksum_is_valid(&self, l4: &[u8]) -> bool {
        let Some(addresses) = self.as_bytes().last_chunk() else { return false };
        let sum = checksum::raw_sum(l4);
        checksum::is_valid_l4_v4(addresses, self.protocol, l4.len() as u16, sum)
    }
}

/// Whether the checksum fits a whole header, its options included.
#[inline]
pub fn checksum_is_valid(header_with_options: &[u8]) -> bool {
    checksum::is_valid(header_with_options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Options};
    use proptest::prelude::*;

    /// The header in Wikipedia's article on its checksum: a UDP packet of 115 bytes.
    const KNOWN: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    fn header(bytes: &[u8]) -> Ipv4Header {
        Ipv4Header::read_from_bytes(bytes).unwrap()
    }

    #[test]
    fn reads_and_writes_real_bytes() {
        let mut packet = KNOWN.to_vec();
        packet.resize(115, 0);
        let (known, header_len) = parse(&packet).unwrap();
        assert_eq!((header_len, known.version(), known.ihl()), (20, 4, 5));
        assert_eq!((known.total_len(), known.ttl, known.protocol), (115, 64, PROTO_UDP));
        assert_eq!(known.src(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(known.dst_u32(), 0xc0a8_00c7);
        assert!(known.dont_fragment() && !known.is_fragment() && !known.has_options());
        assert!(known.checksum_is_valid());

        let mut rebuilt = Ipv4Header { checksum: U16::ZERO, ..*known };
        assert!(!rebuilt.checksum_is_valid());
        rebuilt.fill_checksum();
        assert_eq!(rebuilt.as_bytes(), KNOWN);
    }

    #[test]
    fn every_short_or_lying_length_is_refused() {
        let mut packet = KNOWN.to_vec();
        packet.resize(115, 0);
        for len in 0..115 {
            assert_eq!(parse(&packet[..len]), Err(WireError::Truncated), "{len} bytes");
        }
        let with = |at: usize, value: u8| {
            let mut changed = packet.clone();
            changed[at] = value;
            parse(&changed).map(|(_, len)| len)
        };
        for version in (0..16).filter(|v| *v != 4) {
            assert_eq!(with(0, version << 4 | 5), Err(WireError::BadVersion));
        }
        for ihl in 0..5 {
            assert_eq!(with(0, 0x40 | ihl), Err(WireError::BadHeaderLength));
        }
        for ihl in 5..16 {
            assert_eq!(with(0, 0x40 | ihl), Ok(usize::from(ihl) * 4));
        }
        assert_eq!(with(3, 19), Err(WireError::BadLength));
        assert_eq!(with(3, 20), Ok(20));
        assert_eq!(with(3, 116), Err(WireError::Truncated));
        assert_eq!(with(2, 0xff), Err(WireError::Truncated));

        let mut optioned = header(&KNOWN);
        optioned.version_ihl = 0x4f;
        optioned.total_len = U16::new(59);
        assert_eq!(check(&optioned, 59), Err(WireError::Truncated));
        assert_eq!(check(&optioned, 60), Err(WireError::BadLength));
        optioned.total_len = U16::new(60);
        assert_eq!(check(&optioned, 60), Ok(60));
    }

    #[test]
    fn fragments_are_told_from_whole_packets() {
        let mut known = header(&KNOWN);
        for (field, fragment) in [
            (0, false),
            (FLAG_DF, false),
            (0x8000, false),
            (FLAG_MF, true),
            (1, true),
            (0x1fff, true),
        ] {
            known.flags_fragment = U16::new(field);
            assert_eq!(known.is_fragment(), fragment, "{field:#06x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn etherparse_agrees(
            payload_len in 0u16..1_500, ttl: u8, protocol: u8, src: [u8; 4], dst: [u8; 4],
            id: u16, dont_fragment: bool, more_fragments: bool, offset in 0u16..0x2000,
            options in prop::collection::vec(any::<u8>(), 0..=10),
        ) {
            let mut theirs =
                etherparse::Ipv4Header::new(payload_len, ttl, IpNumber(protocol), src, dst).unwrap();
            theirs.identification = id;
            theirs.dont_fragment = dont_fragment;
            theirs.more_fragments = more_fragments;
            theirs.fragment_offset = offset.try_into().unwrap();
            let options: Vec<u8> = options.iter().flat_map(|b| [*b; 4]).collect();
            theirs.options = Ipv4Options::try_from(&options[..]).unwrap();
            theirs.set_payload_len(usize::from(payload_len)).unwrap();
            theirs.header_checksum = theirs.calc_header_checksum();
            let mut packet = Vec::new();
            theirs.write_raw(&mut packet).unwrap();
            let header_len = packet.len();
            packet.resize(header_len + usize::from(payload_len), 0x5a);

            let (ours, our_len) = parse(&packet).unwrap();
            prop_assert_eq!(our_len, header_len);
            prop_assert_eq!(usize::from(ours.total_len()), packet.len());
            prop_assert_eq!((ours.ttl, ours.protocol, ours.id.get()), (ttl, protocol, id));
            prop_assert_eq!((ours.src().octets(), ours.dst().octets()), (src, dst));
            prop_assert_eq!(ours.is_fragment(), theirs.is_fragmenting_payload());
            prop_assert_eq!(ours.dont_fragment(), dont_fragment);
            prop_assert_eq!(ours.has_options(), !options.is_empty());
            prop_assert!(checksum_is_valid(&packet[..header_len]));
            if options.is_empty() {
                prop_assert!(ours.checksum_is_valid());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((header, len)) = parse(&bytes) {
                prop_assert!(len >= HEADER_BYTES && len <= usize::from(header.total_len()));
                prop_assert!(usize::from(header.total_len()) <= bytes.len());
            }
        }
    }
}
