//! The TCP header (RFC 9293).

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::BitOr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::WireError;
use crate::checksum;
use crate::ipv4::PROTO_TCP;

/// Length of a header without options, in bytes.
pub const HEADER_BYTES: usize = 20;

/// The flags of a TCP segment: a set.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No flag.
    pub const NONE: TcpFlags = TcpFlags(0);
    /// The sender has no more data.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronise sequence numbers: the first segment of either side.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// The connection is gone.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Hand the data to the user.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment number counts.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer counts.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// Congestion was seen (RFC 3168).
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// These flags and `flags`; as `|`, but also in constants.
    #[inline]
    pub const fn with(self, flags: TcpFlags) -> Self {
        TcpFlags(self.0 | flags.0)
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether any of `flags` is set.
    #[inline]
    pub const fn intersects(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 != 0
    }

    /// Whether it opens a connection: SYN without ACK (RFC 9293, 3.5).
    #[inline]
    pub const fn is_open(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0) == Self::SYN.0
    }

    /// Whether it acknowledges, and neither opens nor closes nor resets: any packet of an
    /// established connection.
    #[inline]
    pub const fn is_quiet(self) -> bool {
        self.0 & (Self::SYN.0 | Self::FIN.0 | Self::RST.0 | Self::ACK.0) == Self::ACK.0
    }

    /// Whether a stack would send it: one of SYN, ACK, FIN and RST is set, and SYN stands with
    /// neither FIN nor RST. Others come from scanners.
    #[inline]
    pub const fn is_plausible(self) -> bool {
        let (syn, fin, rst, ack) = (Self::SYN.0, Self::FIN.0, Self::RST.0, Self::ACK.0);
        self.0 & (syn | ack | fin | rst) != 0 && !(self.0 & syn != 0 && self.0 & (fin | rst) != 0)
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Display for TcpFlags {
    /// As `SYN|ACK`; `none` when empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut set = NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        match set.next() {
            None => return f.write_str("none"),
            Some((_, name)) => f.write_str(name)?,
        }
        set.try_for_each(|(_, name)| write!(f, "|{name}"))
    }
}

/// A TCP header without its options, 20 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct TcpHeader {
    /// Source port.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Sequence number of the first data byte, or of the SYN.
    pub seq: U32,
    /// Next sequence number expected, with [`TcpFlags::ACK`].
    pub ack: U32,
    /// Header length in units of 4 bytes in the upper half; the lower is reserved.
    pub data_offset: u8,
    /// The flags.
    pub flags: TcpFlags,
    /// Receive window, not scaled.
    pub window: U16,
    /// Checksum over pseudo-header, header and data.
    pub checksum: U16,
    /// Offset of the end of urgent data, with [`TcpFlags::URG`].
    pub urgent: U16,
}

/// The length of the header with its options, in bytes, once it is found to lie within `l4_len`,
/// the IP payload's length.
///
/// # Errors
/// [`WireError::BadHeaderLength`] for a data offset below 5, [`WireError::BadLength`] for one past
/// the end (RFC 9293, 3.1).
#[inline]
pub fn check(header: &TcpHeader, l4_len: usize) -> Result<usize, WireError> {
    let header_len = header.header_len();
    if header_len < HEADER_BYTES {
        return Err(WireError::BadHeaderLength);
    }
    if header_len > l4_len {
        return Err(WireError::BadLength);
    }
    Ok(header_len)
}

/// The header at the start of an IP payload and its length with options in bytes, by [`check`].
///
/// # Errors
/// Those of [`check`], and [`WireError::Truncated`] below 20 bytes.
#[inline]
pub fn parse(l4: &[u8]) -> Result<(&TcpHeader, usize), WireError> {
    let (header, _) = TcpHeader::ref_from_prefix(l4).map_err(|_| WireError::Truncated)?;
    let header_len = check(header, l4.len())?;
    Ok((header, header_len))
}

/// Whether the checksum of a whole segment is right.
#[inline]
pub fn checksum_is_valid(src: Ipv4Addr, dst: Ipv4Addr, segment: &[u8]) -> bool {
    checksum::compute_l4_v4(src.to_bits(), dst.to_bits(), PROTO_TCP, segment) == 0
}

impl TcpHeader {
    /// Source port.
    #[inline]
    pub const fn src_port(&self) -> u16 {
        self.src_port.get()
    }

    /// Destination port.
    #[inline]
    pub const fn dst_port(&self) -> u16 {
        self.dst_port.get()
    }

    /// Header length with options, in bytes, 0 to 60.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }

    /// The checksum field.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Set the checksum field.
    #[inline]
    pub const fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    /// A SYN to port 80 with the options MSS, SACK permitted, timestamps, NOP, window scale.
    const SYN: [u8; 40] = [
        0xc3, 0x50, 0x00, 0x50, 0x12, 0x34, 0x56, 0x78, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02, 0xfa,
        0xf0, 0x00, 0x00, 0x00, 0x00, // header
        2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7, // options
    ];

    #[test]
    fn reads_and_writes_real_bytes() {
        let (header, header_len) = parse(&SYN).unwrap();
        assert_eq!((header.src_port(), header.dst_port()), (50_000, 80));
        assert_eq!((header.seq.get(), header.ack.get()), (0x1234_5678, 0));
        assert_eq!((header_len, header.flags), (40, TcpFlags::SYN));
        assert_eq!((header.window.get(), header.checksum(), header.urgent.get()), (64_240, 0, 0));
        assert!(header.flags.is_open());
        assert_eq!(header.as_bytes(), &SYN[..20]);
    }

    #[test]
    fn every_short_or_lying_length_is_refused() {
        for len in 0..HEADER_BYTES {
            assert_eq!(parse(&SYN[..len]), Err(WireError::Truncated), "{len} bytes");
        }
        for len in HEADER_BYTES..SYN.len() {
            assert_eq!(parse(&SYN[..len]), Err(WireError::BadLength), "{len} bytes");
        }
        for offset in 0..16u8 {
            let mut changed = SYN;
            changed[12] = offset << 4 | 0x0f;
            let expected = match offset {
                0..5 => Err(WireError::BadHeaderLength),
                5..=10 => Ok(usize::from(offset) * 4),
                _ => Err(WireError::BadLength),
            };
            assert_eq!(parse(&changed).map(|(_, len)| len), expected, "data offset {offset}");
        }
    }

    #[test]
    fn flags() {
        use TcpFlags as F;
        assert!((F::SYN | F::ACK).contains(F::ACK) && !F::SYN.contains(F::SYN | F::ACK));
        assert!((F::SYN | F::ACK).intersects(F::ACK | F::RST) && !F::SYN.intersects(F::ACK));
        assert!(F::SYN.is_open() && (F::SYN | F::ECE | F::CWR).is_open());
        assert!(!(F::SYN | F::ACK).is_open() && !F::ACK.is_open());
        for flags in [F::SYN, F::SYN | F::ACK, F::ACK, F::RST, F::RST | F::ACK, F::FIN | F::ACK] {
            assert!(flags.is_plausible(), "{flags}");
        }
        // A bare FIN is odd but closes a connection in some stacks; PSH, URG or none never do.
        assert!(F::FIN.is_plausible());
        for flags in
            [F::NONE, F::PSH, F::URG | F::PSH, F::SYN | F::FIN, F::SYN | F::RST, F(0xff), F::ECE]
        {
            assert!(!flags.is_plausible(), "{flags}");
        }
        assert_eq!((F::SYN | F::ACK).to_string(), "SYN|ACK");
        assert_eq!(F(0xc0).to_string(), "ECE|CWR");
        assert_eq!(F::NONE.to_string(), "none");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn etherparse_agrees(
            src: [u8; 4], dst: [u8; 4], src_port: u16, dst_port: u16, seq: u32, ack: u32,
            window: u16, flags in 0u8..=255, payload in prop::collection::vec(any::<u8>(), 0..200),
            flip in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut theirs = etherparse::TcpHeader::new(src_port, dst_port, seq, window);
            let set = |flag| TcpFlags(flags).contains(flag);
            theirs.acknowledgment_number = ack;
            (theirs.fin, theirs.syn, theirs.rst) = (set(TcpFlags::FIN), set(TcpFlags::SYN), set(TcpFlags::RST));
            (theirs.psh, theirs.ack, theirs.urg) = (set(TcpFlags::PSH), set(TcpFlags::ACK), set(TcpFlags::URG));
            (theirs.ece, theirs.cwr) = (set(TcpFlags::ECE), set(TcpFlags::CWR));
            let mut packet = Vec::new();
            PacketBuilder::ipv4(src, dst, 64).tcp_header(theirs).write(&mut packet, &payload).unwrap();

            let segment = &packet[20..];
            let (ours, header_len) = parse(segment).unwrap();
            prop_assert_eq!(header_len, 20);
            prop_assert_eq!((ours.src_port(), ours.dst_port()), (src_port, dst_port));
            prop_assert_eq!((ours.seq.get(), ours.ack.get(), ours.window.get()), (seq, ack, window));
            prop_assert_eq!(ours.flags, TcpFlags(flags));
            prop_assert!(checksum_is_valid(src.into(), dst.into(), segment));

            let mut broken = segment.to_vec();
            broken[flip.index(segment.len())] ^= 1 << bit;
            prop_assert!(!checksum_is_valid(src.into(), dst.into(), &broken));
            let mut blank = segment.to_vec();
            let (header, _) = TcpHeader::mut_from_prefix(&mut blank).unwrap();
            let sent = header.checksum();
            header.set_checksum(0);
            prop_assert_eq!(
                checksum::compute_l4_v4(u32::from_be_bytes(src), u32::from_be_bytes(dst), PROTO_TCP, &blank),
                sent
            );
        }
    }
}
