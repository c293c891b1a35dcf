//! The headers of nearly every packet in one view, so that the hot path checks one length.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::WireError;
use crate::ether::{EtherHeader, MacAddr, ethertype};
use crate::ipv4::{self, Ipv4Header};

/// Length of an [`Ipv4Frame`], in bytes.
pub const IPV4_FRAME_BYTES: usize = 38;
/// Where the IPv4 header starts, in bytes from the frame's start.
pub const L3_OFFSET: usize = 14;
/// Where TCP, UDP or ICMP start when there are no IP options, in bytes from the frame's start.
pub const L4_OFFSET: usize = 34;

/// Ethernet, IPv4 without options, and both L4 ports, 38 bytes.
///
/// Any 38 bytes can be viewed so. What they mean is known only once [`Ipv4Frame::is_plain_ipv4`]
/// holds, and the ports only for an unfragmented TCP or UDP packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ipv4Frame {
    /// The Ethernet header.
    pub ether: EtherHeader,
    /// The IPv4 header.
    pub ip: Ipv4Header,
    /// Source port of TCP or UDP.
    pub src_port: U16,
    /// Destination port of TCP or UDP.
    pub dst_port: U16,
}

impl Ipv4Frame {
    /// The view of a frame.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 38 bytes. Such a frame may still be a whole IPv4 packet with
    /// next to no payload; [`ipv4::parse`] tells.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<&Ipv4Frame, WireError> {
        Ipv4Frame::ref_from_prefix(frame).map(|(view, _)| view).map_err(|_| WireError::Truncated)
    }

    /// The view of a frame that will be changed; errors as in [`Ipv4Frame::parse`].
    #[inline]
    pub fn parse_mut(frame: &mut [u8]) -> Result<&mut Ipv4Frame, WireError> {
        Ipv4Frame::mut_from_prefix(frame).map(|(view, _)| view).map_err(|_| WireError::Truncated)
    }

    /// Whether it is untagged IPv4 whose header is 20 bytes long.
    #[inline]
    pub fn is_plain_ipv4(&self) -> bool {
        self.ether.ethertype.get() == ethertype::IPV4 && self.ip.version_ihl == 0x45
    }

    /// Source port of TCP or UDP.
    #[inline]
    pub const fn src_port(&self) -> u16 {
        self.src_port.get()
    }

    /// Destination port of TCP or UDP.
    #[inline]
    pub const fn dst_port(&self) -> u16 {
        self.dst_port.get()
    }

    /// Send the frame to the next hop `dst` from the port `src`.
    #[inline]
    pub const fn set_macs(&mut self, dst: MacAddr, src: MacAddr) {
        self.ether.dst = dst;
        self.ether.src = src;
    }
}

const _: () = assert!(size_of::<Ipv4Frame>() == IPV4_FRAME_BYTES);
const _: () = assert!(size_of::<EtherHeader>() == L3_OFFSET);
const _: () = assert!(L3_OFFSET + size_of::<Ipv4Header>() == L4_OFFSET);
const _: () = assert!(size_of::<Ipv4Header>() == ipv4::HEADER_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_head::NatHead;
    use crate::{Delta, TcpHeader, tcp};
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    struct Tuple {
        macs: [[u8; 6]; 2],
        src: [u8; 4],
        dst: [u8; 4],
        ports: [u16; 2],
    }

    fn tuple() -> impl Strategy<Value = Tuple> {
        any::<([[u8; 6]; 2], [u8; 4], [u8; 4], [u16; 2])>()
            .prop_map(|(macs, src, dst, ports)| Tuple { macs, src, dst, ports })
    }

    fn build(t: &Tuple, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(t.macs[0], t.macs[1])
            .ipv4(t.src, t.dst, ttl)
            .tcp(t.ports[0], t.ports[1], 1_000, 500)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    #[test]
    fn below_38_bytes_there_is_no_view() {
        let mut frame = [0; IPV4_FRAME_BYTES];
        for len in 0..IPV4_FRAME_BYTES {
            assert_eq!(Ipv4Frame::parse(&frame[..len]), Err(WireError::Truncated));
            assert_eq!(Ipv4Frame::parse_mut(&mut frame[..len]), Err(WireError::Truncated));
        }
        assert!(!Ipv4Frame::parse(&frame).unwrap().is_plain_ipv4());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn reads_what_etherparse_builds(
            t in tuple(), ttl: u8, payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let frame = build(&t, ttl, &payload);
            let view = Ipv4Frame::parse(&frame).unwrap();
            prop_assert!(view.is_plain_ipv4());
            prop_assert_eq!((view.ether.src.0, view.ether.dst.0), (t.macs[0], t.macs[1]));
            prop_assert_eq!((view.ip.src().octets(), view.ip.dst().octets()), (t.src, t.dst));
            prop_assert_eq!([view.src_port(), view.dst_port()], t.ports);
            prop_assert_eq!(ipv4::check(&view.ip, frame.len() - L3_OFFSET), Ok(20));

            let mut optioned = frame.clone();
            optioned[14] = 0x46;
            prop_assert!(!Ipv4Frame::parse(&optioned).unwrap().is_plain_ipv4());
            let mut tagged = frame;
            tagged[12] = 0x81;
            prop_assert!(!Ipv4Frame::parse(&tagged).unwrap().is_plain_ipv4());
        }

        /// Full-NAT of a TCP frame: the result must be the frame etherparse builds for the new
        /// addresses and ports, byte by byte.
        #[test]
        fn full_nat_equals_a_frame_built_anew(
            old in tuple(), new in tuple(), ttl in 2u8..,
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut frame = build(&old, ttl, &payload);
            let addresses = Delta::between_u32(
                u32::from_be_bytes(old.src), u32::from_be_bytes(new.src),
            ).and(Delta::between_u32(u32::from_be_bytes(old.dst), u32::from_be_bytes(new.dst)));
            let l4 = addresses.and(Delta::between(&old.ports, &new.ports));

            let head = NatHead::of(&mut frame).unwrap();
            head.set_macs(&[new.macs[1], new.macs[0]].concat().try_into().unwrap());
            head.take_hop(addresses.in_packets());
            let to = [new.src, new.dst].concat().try_into().unwrap();
            let [src_port, dst_port] = new.ports.map(u16::to_be_bytes);
            let ports = [src_port, dst_port].concat().try_into().unwrap();
            head.set_tuple(u64::from_ne_bytes(to), u32::from_ne_bytes(ports));
            let (header, _) = TcpHeader::mut_from_prefix(&mut frame[L4_OFFSET..]).unwrap();
            header.set_checksum(l4.apply(header.checksum()));

            prop_assert_eq!(&frame, &build(&new, ttl - 1, &payload));
            prop_assert!(tcp::checksum_is_valid(
                new.src.into(), new.dst.into(), &frame[L4_OFFSET..]
            ));
        }
    }
}
