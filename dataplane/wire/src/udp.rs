//! The UDP header (RFC 768).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::WireError;
use crate::checksum;
use crate::ipv4::PROTO_UDP;

/// Length of a header, in bytes.
pub const HEADER_BYTES: usize = 8;

/// A UDP header, 8 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct UdpHeader {
    /// Source port; 0 when no reply is expected.
    pub src_port: U16,
    /// Destination port.
    pub dst_port: U16,
    /// Length of header and data, in bytes.
    pub length: U16,
    /// Checksum over pseudo-header, header and data; 0 when the sender computed none.
    pub checksum: U16,
}

/// The length of header and data, in bytes, once it is found to lie within `l4_len`, the IP
/// payload's length. The IP payload may be longer: RFC 9868 puts options behind the data.
///
/// # Errors
/// [`WireError::BadLength`] for a length below 8 or past the end.
#[inline]
pub fn check(header: &UdpHeader, l4_len: usize) -> Result<usize, WireError> {
    let length = usize::from(header.length.get());
    if length < HEADER_BYTES || length > l4_len {
        return Err(WireError::BadLength);
    }
    Ok(length)
}

/// The header at the start of an IP payload and the length of header and data, by [`check`].
///
/// # Errors
/// Those of [`check`], and [`WireError::Truncated`] below 8 bytes.
#[inline]
pub fn parse(l4: &[u8]) -> Result<(&UdpHeader, usize), WireError> {
    let (header, _) = UdpHeader::ref_from_prefix(l4).map_err(|_| WireError::Truncated)?;
    let length = check(header, l4.len())?;
    Ok((header, length))
}

/// Whether the checksum of a datagram of exactly its own length is right, or absent (0).
#[inline]
pub fn checksum_is_valid(src: Ipv4Addr, dst: Ipv4Addr, datagram: &[u8]) -> bool {
    let absent = datagram.len() >= HEADER_BYTES && datagram[6..8] == [0, 0];
    absent || checksum::compute_l4_v4(src.to_bits(), dst.to_bits(), PROTO_UDP, datagram) == 0
}

/// The checksum to send in a datagram whose checksum field holds 0: never 0 itself (RFC 768).
#[inline]
pub fn compute_checksum(src: Ipv4Addr, dst: Ipv4Addr, datagram: &[u8]) -> u16 {
    match checksum::compute_l4_v4(src.to_bits(), dst.to_bits(), PROTO_UDP, datagram) {
        0 => 0xffff,
        checksum => checksum,
    }
}

impl UdpHeader {
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
    use crate::Delta;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_real_bytes() {
        let datagram = [0x14, 0xe9, 0x00, 0x35, 0x00, 0x0c, 0xbe, 0xef, b'a', b'b', b'c', b'd'];
        let (header, length) = parse(&datagram).unwrap();
        assert_eq!((header.src_port(), header.dst_port()), (5_353, 53));
        assert_eq!((length, header.checksum()), (12, 0xbeef));
        assert_eq!(header.as_bytes(), &datagram[..8]);
    }

    #[test]
    fn every_short_or_lying_length_is_refused() {
        let datagram = [0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4];
        for len in 0..HEADER_BYTES {
            assert_eq!(parse(&datagram[..len]), Err(WireError::Truncated), "{len} bytes");
        }
        for len in HEADER_BYTES..datagram.len() {
            assert_eq!(parse(&datagram[..len]), Err(WireError::BadLength), "{len} bytes");
        }
        for length in 0..=u16::MAX {
            let mut changed = datagram;
            changed[4..6].copy_from_slice(&length.to_be_bytes());
            let expected = if (8..=12).contains(&length) {
                Ok(length.into())
            } else {
                Err(WireError::BadLength)
            };
            assert_eq!(parse(&changed).map(|(_, len)| len), expected, "length {length}");
        }
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_ffff() {
        // Choose the data so that the sum is 0xffff: pseudo-header 17 + 10, header 10, no ports.
        let zero = Ipv4Addr::UNSPECIFIED;
        let data = !(17 + 10 + 10u16);
        let mut datagram = [0, 0, 0, 0, 0, 10, 0, 0, 0, 0];
        datagram[8..].copy_from_slice(&data.to_be_bytes());
        assert_eq!(checksum::compute_l4_v4(0, 0, PROTO_UDP, &datagram), 0);
        assert_eq!(compute_checksum(zero, zero, &datagram), 0xffff);
        datagram[6..8].copy_from_slice(&[0xff, 0xff]);
        assert!(checksum_is_valid(zero, zero, &datagram));
        datagram[9] ^= 1;
        assert!(!checksum_is_valid(zero, zero, &datagram));
        datagram[6..8].copy_from_slice(&[0, 0]);
        assert!(checksum_is_valid(zero, zero, &datagram), "no checksum is no wrong one");
        assert!(!checksum_is_valid(zero, zero, &[0, 1, 2]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// What full-NAT does to a datagram, against what etherparse builds from scratch.
        #[test]
        fn rewritten_by_delta_equals_etherparse(
            old_src: [u8; 4], old_dst: [u8; 4], old_ports: (u16, u16),
            new_src: [u8; 4], new_dst: [u8; 4], new_ports: (u16, u16),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let build = |src, dst, ports: (u16, u16)| {
                let mut packet = Vec::new();
                PacketBuilder::ipv4(src, dst, 64)
                    .udp(ports.0, ports.1)
                    .write(&mut packet, &payload)
                    .unwrap();
                packet.split_off(20)
            };
            let mut datagram = build(old_src, old_dst, old_ports);
            let expected = build(new_src, new_dst, new_ports);
            prop_assert!(checksum_is_valid(old_src.into(), old_dst.into(), &datagram));

            let delta = Delta::between_u32(u32::from_be_bytes(old_src), u32::from_be_bytes(new_src))
                .and(Delta::between_u32(u32::from_be_bytes(old_dst), u32::from_be_bytes(new_dst)))
                .and(Delta::between(
                    &[old_ports.0, old_ports.1],
                    &[new_ports.0, new_ports.1],
                ));
            let (header, _) = UdpHeader::mut_from_prefix(&mut datagram).unwrap();
            header.src_port = U16::new(new_ports.0);
            header.dst_port = U16::new(new_ports.1);
            header.set_checksum(delta.apply_udp(header.checksum()));
            prop_assert_eq!(&datagram, &expected);

            let (header, length) = parse(&datagram).unwrap();
            prop_assert_eq!(length, 8 + payload.len());
            let sent = header.checksum();
            datagram[6..8].fill(0);
            prop_assert_eq!(compute_checksum(new_src.into(), new_dst.into(), &datagram), sent);
        }
    }
}
