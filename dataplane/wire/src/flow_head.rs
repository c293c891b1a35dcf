//! The start of nearly every packet, read in words: whether a frame is a sound TCP or UDP packet in
//! plain IPv4, in as few instructions as it takes.
//!
//! It only says yes or no. Whoever gets a no looks again, header by header, for the reason; a
//! property test holds the two to the same answer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{self, Delta};
use crate::ether::{MIN_FRAME_BYTES, MacAddr};
use crate::ipv4::{PROTO_TCP, PROTO_UDP};
use crate::tcp::TcpFlags;

/// Length of a [`FlowHead`], in bytes. No Ethernet frame is shorter than 60 bytes without its
/// checksum (IEEE 802.3, 3.2.8), but virtual devices do not always pad.
pub const FLOW_HEAD_BYTES: usize = 54;

/// Where the IPv4 header starts, in bytes from the frame's start.
const L3: usize = 14;
/// Where the IPv4 header ends when it has no options, in bytes from the frame's start.
const L4: usize = 34;
/// Ethernet, IPv4 without options and TCP without options; or UDP with twelve bytes of data.
///
/// Any 54 bytes can be viewed so; what they mean is known once [`FlowHead::is_sound`] holds.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct FlowHead([u8; FLOW_HEAD_BYTES]);

/// What the first bytes of sound packets to one station have in common, to compare in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station(u64);

impl From<MacAddr> for Station {
    fn from(MacAddr([a, b, c, d, e, f]): MacAddr) -> Self {
        Station(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

/// The destination MAC address, and the bit that says that the source is a group.
const MACS: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]);
/// Ethertype, version and IHL; the bytes before them are the source's, DSCP and ECN may be anything.
const TYPE: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
const IPV4: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0x08, 0x00, 0x45, 0]);
/// "More fragments" and the offset, in the word that starts with the total length.
const FRAGMENT: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0x3f, 0xff, 0, 0]);

impl FlowHead {
    /// The start of a frame; `None` below 54 bytes.
    #[inline(always)]
    pub fn of(frame: &[u8]) -> Option<&FlowHead> {
        FlowHead::ref_from_prefix(frame).ok().map(|(head, _)| head)
    }

    /// `N` bytes from `AT` on, both constants within the head.
    #[inline(always)]
    fn bytes<const AT: usize, const N: usize>(&self) -> [u8; N] {
        const { assert!(AT + N <= FLOW_HEAD_BYTES) };
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[AT..AT + N]);
        bytes
    }

    /// Source and destination address as they lie in the packet.
    #[inline(always)]
    pub fn addresses(&self) -> u64 {
        u64::from_ne_bytes(self.bytes::<26, 8>())
    }

    /// Source and destination L4 port as they lie in the packet.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        u32::from_ne_bytes(self.bytes::<L4, 4>())
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.0[23]
    }

    /// IP total length, in bytes.
    #[inline(always)]
    pub fn ip_len(&self) -> u16 {
        u16::from_be_bytes(self.bytes::<16, 2>())
    }

    /// TCP flags, when it is TCP.
    #[inline(always)]
    pub fn tcp_flags(&self) -> TcpFlags {
        TcpFlags(self.0[47])
    }

    /// The upper half of the sequence number as it lies in the packet, when it is TCP.
    #[inline(always)]
    pub fn seq_upper(&self) -> u16 {
        u16::from_ne_bytes(self.bytes::<38, 2>())
    }

    /// The sequence number, when it is TCP.
    #[inline]
    pub fn seq(&self) -> u32 {
        u32::from_be_bytes(self.bytes::<38, 4>())
    }

    /// The acknowledgment number, when it is TCP.
    #[inline]
    pub fn ack(&self) -> u32 {
        u32::from_be_bytes(self.bytes::<42, 4>())
    }

    /// How many bytes of data it carries, when it is sound TCP.
    #[inline]
    pub fn tcp_data_len(&self) -> u16 {
        self.ip_len().saturating_sub(20 + u16::from(self.0[46] >> 2 & 0x3c))
    }

    /// Whether this is the start of a sound TCP or UDP packet in a frame of `frame_len` bytes to
    /// a station: not from a group, untagged, IPv4 without options, no fragment, its lengths in
    /// agreement, and nothing behind it but what pads a frame to 60 bytes.
    ///
    /// Left to others: checksums, to [`ip_checksum_is_valid`](Self::ip_checksum_is_valid) and
    /// [`l4_checksum_is_valid`](Self::l4_checksum_is_valid); whether source addresses (the MAC
    /// address too), L4 ports and TCP flags are possible ones, to whoever finds no conn with them.
    #[inline(always)]
    pub fn is_sound(&self, to: Station, frame_len: usize) -> bool {
        debug_assert!(frame_len >= FLOW_HEAD_BYTES, "this is the start of the frame");
        let macs = u64::from_ne_bytes(self.bytes::<0, 8>());
        let kind = u64::from_ne_bytes(self.bytes::<8, 8>());
        let ip = u64::from_ne_bytes(self.bytes::<16, 8>());
        if (macs ^ to.0) & MACS != 0 || (kind ^ IPV4) & TYPE != 0 || ip & FRAGMENT != 0 {
            return false;
        }
        let ip_len = usize::from(self.ip_len());
        let ip_end = L3 + ip_len;
        // Each length lies within what is around it.
        if ip_end > frame_len || ip_end < frame_len && frame_len > MIN_FRAME_BYTES {
            return false;
        }
        match self.protocol() {
            PROTO_TCP => {
                let l4_len = usize::from(self.0[46] >> 2 & 0x3c);
                l4_len >= 20 && L4 - L3 + l4_len <= ip_len
            }
            PROTO_UDP => self.udp_len() >= 8 && L4 - L3 + self.udp_len() <= ip_len,
            _ => false,
        }
    }

    #[inline(always)]
    fn udp_len(&self) -> usize {
        usize::from(u16::from_be_bytes(self.bytes::<38, 2>()))
    }

    /// Whether the IPv4 header's checksum is right.
    #[inline(always)]
    pub fn ip_checksum_is_valid(&self) -> bool {
        checksum::is_valid(&self.bytes::<14, 20>())
    }

    /// Whether the TCP or UDP checksum is right, or absent, in the sound packet `frame` that this
    /// is the start of.
    #[inline(always)]
    pub fn l4_checksum_is_valid(&self, frame: &[u8]) -> bool {
        let addresses = self.bytes::<26, 8>();
        if self.protocol() == PROTO_TCP {
            // Segments without data are mostly a header without options: no loop for these.
            let len = self.ip_len() - 20;
            let header = checksum::raw_sum(&self.bytes::<L4, 20>());
            let Some(rest) = frame.get(FLOW_HEAD_BYTES..L4 + usize::from(len)) else {
                return false;
            };
            let sum = if rest.is_empty() { header } else { checksum::raw_sum_with(header, rest) };
            return checksum::is_valid_l4_v4(&addresses, PROTO_TCP, len, sum);
        }
        let len = self.udp_len();
        let Some(l4) = frame.get(L4..L4 + len) else { return false };
        let sum = checksum::raw_sum(l4);
        self.bytes::<40, 2>() == [0, 0]
            || checksum::is_valid_l4_v4(&addresses, self.protocol(), len as u16, sum)
    }
}

/// Ethernet, IPv4 without options and the first eight bytes behind it: what is rewritten of a
/// sound TCP or UDP packet but for TCP's checksum.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct NatHead([u8; 42]);

impl NatHead {
    /// The start of a frame; `None` below 42 bytes.
    #[inline(always)]
    pub fn of(frame: &mut [u8]) -> Option<&mut NatHead> {
        NatHead::mut_from_prefix(frame).ok().map(|(head, _)| head)
    }

    /// Hops that the packet may still take, this one included.
    #[inline(always)]
    pub fn ttl(&self) -> u8 {
        self.0[22]
    }

    /// Take one hop from a TTL that is at least 1, and mend the IPv4 checksum for that and for
    /// `delta`, which is one [in packets](Delta::in_packets).
    #[inline(always)]
    pub fn take_hop(&mut self, delta: Delta) {
        /// TTL is the upper half of its word: `~m + m'` is the same for every m that is >= 0x100.
        const ONE_HOP: Delta = Delta::between_u16(0x0100, 0x0000).in_packets();
        self.0[22] = self.0[22].wrapping_sub(1);
        let sum = u16::from_ne_bytes([self.0[24], self.0[25]]);
        self.0[24..26].copy_from_slice(&ONE_HOP.apply(delta.apply(sum)).to_ne_bytes());
    }

    /// Set addresses and L4 ports, as they lie in a packet.
    #[inline(always)]
    pub fn set_tuple(&mut self, addresses: u64, ports: u32) {
        self.0[26..34].copy_from_slice(&addresses.to_ne_bytes());
        self.0[L4..38].copy_from_slice(&ports.to_ne_bytes());
    }

    /// Set both MAC addresses: destination, then source.
    #[inline(always)]
    pub fn set_macs(&mut self, macs: &[u8; 12]) {
        self.0[..12].copy_from_slice(macs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv4::{self, Ipv4Header};
    use etherparse::{Ipv4HeaderSlice, PacketBuilder};
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn frame(is_tcp: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], MAC.0).ipv4(
            [10, 0, 0, 1],
            [10, 0, 0, 2],
            64,
        );
        match is_tcp {
            true => builder.tcp(1_000, 80, 7, 500).ack(9).write(&mut frame, payload).unwrap(),
            false => builder.udp(1_000, 80).write(&mut frame, payload).unwrap(),
        }
        frame.resize(frame.len().max(60), 0);
        frame
    }

    #[test]
    fn sound_packets_pass_and_their_words_lie_as_in_the_packet() {
        for is_tcp in [true, false] {
            for payload in [0, 1, 7, 400, 1_400] {
                let frame = frame(is_tcp, &vec![0xa5; payload]);
                let head = FlowHead::of(&frame).unwrap();
                assert!(head.is_sound(MAC.into(), frame.len()), "{payload}");
                assert!(head.ip_checksum_is_valid() && head.l4_checksum_is_valid(&frame));
                assert_eq!(head.addresses().to_ne_bytes(), [10, 0, 0, 1, 10, 0, 0, 2]);
                assert_eq!(
                    head.ports().to_ne_bytes(),
                    [1_000u16.to_be_bytes(), [0, 80]].concat()[..]
                );
                let headers = if is_tcp { 40 } else { 28 };
                assert_eq!(usize::from(head.ip_len()), headers + payload);
            }
        }
        assert!(FlowHead::of(&[0; FLOW_HEAD_BYTES - 1]).is_none());
    }

    #[test]
    fn padding_is_sound_and_a_trailer_is_not() {
        for is_tcp in [true, false] {
            for payload in 0..40 {
                let mut bytes = frame(is_tcp, &vec![0xa5; payload]);
                let ip_end = 14 + usize::from(FlowHead::of(&bytes).unwrap().ip_len());
                for frame_len in ip_end.saturating_sub(3).max(54)..ip_end + 40 {
                    bytes.resize(frame_len, 0xee);
                    let sound = FlowHead::of(&bytes).unwrap().is_sound(MAC.into(), frame_len);
                    let expected = frame_len == ip_end || (ip_end..=60).contains(&frame_len);
                    assert_eq!(sound, expected, "{is_tcp} {payload} {frame_len}");
                }
            }
        }
    }

    #[test]
    fn whatever_is_wrong_with_one_byte_is_a_no() {
        // Offset and value: MACs, VLAN, version, IHL, total length, fragment, protocol, data offset.
        let wrong: &[(usize, &[u8])] = &[
            (0, &[3]),
            (5, &[2]),
            (6, &[3]),
            (12, &[0x81, 0]),
            (14, &[0x65]),
            (14, &[0x46]),
            (16, &[0, 39]),
            (16, &[0, 47]),
            (20, &[0x20, 0]),
            (20, &[0, 1]),
            (23, &[1]),
            (46, &[0x40]),
            (46, &[0x60]),
        ];
        for (at, bytes) in wrong {
            let mut frame = frame(true, &[]);
            frame[*at..at + bytes.len()].copy_from_slice(bytes);
            let head = FlowHead::of(&frame).unwrap();
            assert!(!head.is_sound(MAC.into(), frame.len()), "{at}: {bytes:x?}");
        }
        for (at, bytes) in [(38, [0, 7]), (38, [0, 99])] {
            let mut frame = frame(false, &[0; 20]);
            frame[at..at + 2].copy_from_slice(&bytes);
            assert!(!FlowHead::of(&frame).unwrap().is_sound(MAC.into(), frame.len()), "{bytes:x?}");
        }
    }

    /// A frame around this IPv4 header, whose checksum is made right.
    fn around(header: &Ipv4Header) -> [u8; 42] {
        let mut frame = [0; 42];
        let mut header = *header;
        header.fill_checksum();
        frame[14..34].copy_from_slice(header.as_bytes());
        frame
    }

    fn header_of(frame: &[u8]) -> Ipv4Header {
        Ipv4Header::read_from_bytes(&frame[14..34]).unwrap()
    }

    fn known() -> Ipv4Header {
        header_of(&frame(false, &[]))
    }

    #[test]
    fn ttl_runs_down_with_a_right_checksum_for_every_start() {
        for protocol in 0..=255 {
            let mut bytes = around(&Ipv4Header { ttl: 255, protocol, ..known() });
            for ttl in (1..255).rev() {
                let head = NatHead::of(&mut bytes).unwrap();
                assert_eq!(head.ttl(), ttl + 1);
                head.take_hop(Delta::NONE);
                assert_eq!(bytes, around(&Ipv4Header { ttl, protocol, ..known() }));
            }
        }
    }

    #[test]
    fn ttl_at_the_checksums_edge() {
        // Find ids that put the checksum where RFC 1141's sum goes wrong: the result must be the
        // fully computed 0x0000, not 0xffff.
        let mut seen_zero = false;
        for id in 0..=u16::MAX {
            let header = Ipv4Header { id: id.into(), ..known() };
            let mut bytes = around(&header);
            NatHead::of(&mut bytes).unwrap().take_hop(Delta::NONE);
            let full = around(&Ipv4Header { ttl: header.ttl - 1, ..header });
            assert_eq!(bytes, full, "id {id:#06x}");
            seen_zero |= header_of(&bytes).checksum() == 0;
        }
        assert!(seen_zero);
        assert!(NatHead::of(&mut [0; 41]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn rewritten_headers_have_the_checksum_etherparse_computes(
            bytes: [u8; 20], src: u32, dst: u32, ttl in 2u8..,
        ) {
            let mut header = Ipv4Header::read_from_bytes(&bytes).unwrap();
            (header.version_ihl, header.ttl) = (0x45, ttl);
            header.flags_fragment = ipv4::FLAG_DF.into();
            let delta = Delta::between_u32(header.src_u32(), src)
                .and(Delta::between_u32(header.dst_u32(), dst));
            let mut frame = around(&header);
            let head = NatHead::of(&mut frame).unwrap();
            head.take_hop(delta.in_packets());
            head.set_tuple((u64::from(src) << 32 | u64::from(dst)).to_be(), 0);
            let packet = header_of(&frame);
            let theirs = Ipv4HeaderSlice::from_slice(packet.as_bytes()).unwrap().to_header();
            prop_assert_eq!(packet.checksum(), theirs.calc_header_checksum());
            prop_assert_eq!((packet.src_u32(), packet.dst_u32(), packet.ttl), (src, dst, ttl - 1));
            prop_assert!(packet.checksum_is_valid());
        }

        #[test]
        fn any_flipped_bit_under_a_checksum_is_found(
            is_tcp: bool, payload in prop::collection::vec(any::<u8>(), 0..100), bit in 0usize..160,
        ) {
            let mut frame = frame(is_tcp, &payload);
            frame[14 + bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!FlowHead::of(&frame).unwrap().ip_checksum_is_valid());
            frame[14 + bit / 8] ^= 1 << (bit % 8);
            let l4_bits = (usize::from(FlowHead::of(&frame).unwrap().ip_len()) - 20) * 8;
            let bit = bit % l4_bits;
            frame[34 + bit / 8] ^= 1 << (bit % 8);
            let head = FlowHead::of(&frame).unwrap();
            // A length that reaches past the end would not have passed as sound.
            let absent = !is_tcp && frame[40..42] == [0, 0];
            prop_assert!(absent || !head.l4_checksum_is_valid(&frame));
        }
    }
}
