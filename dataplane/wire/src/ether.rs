//! Ethernet II framing (IEEE 802.3) and MAC addresses.

use std::fmt;
use std::str::FromStr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of an Ethernet header, in bytes.
pub const HEADER_BYTES: usize = 14;
/// Shortest Ethernet frame, in bytes, without the frame check sequence (IEEE 802.3).
pub const MIN_FRAME_BYTES: usize = 60;

/// Values of the EtherType field (IANA, IEEE 802 numbers).
pub mod ethertype {
    /// IPv4, RFC 894.
    pub const IPV4: u16 = 0x0800;
    /// ARP, RFC 826.
    pub const ARP: u16 = 0x0806;
    /// A customer VLAN tag, IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag, IEEE 802.1ad.
    pub const QINQ: u16 = 0x88a8;
    /// IPv6, RFC 2464.
    pub const IPV6: u16 = 0x86dd;
}

/// A MAC address, EUI-48.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations on the link.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// No station: "unknown" in ARP.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Whether it names a group of stations, broadcast included (the I/G bit, IEEE 802 8.2).
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it names all stations.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// Whether it can be the address of one station: neither a group nor zero.
    #[inline]
    pub const fn is_station(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl From<[u8; 6]> for MacAddr {
    #[inline]
    fn from(bytes: [u8; 6]) -> Self {
        MacAddr(bytes)
    }
}

impl fmt::Display for MacAddr {
    /// As `02:00:00:00:00:01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address: expected six pairs of hex digits, as in 02:00:00:00:00:01")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Six pairs of hex digits, all separated by `:` or all by `-`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut pairs = text.split(separator);
        for byte in &mut bytes {
            // from_str_radix alone would take "+1".
            let pair = pairs
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|c| c.is_ascii_hexdigit()))
                .ok_or_else(error)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        if pairs.next().is_some() { Err(error()) } else { Ok(MacAddr(bytes)) }
    }
}

/// An Ethernet II header, 14 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct EtherHeader {
    /// Destination.
    pub dst: MacAddr,
    /// Source.
    pub src: MacAddr,
    /// What follows; see [`ethertype`]. Below 0x0600 it is an IEEE 802.3 length.
    pub ethertype: U16,
}

impl EtherHeader {
    /// A header from its fields.
    #[inline]
    pub const fn new(dst: MacAddr, src: MacAddr, ethertype: u16) -> Self {
        EtherHeader { dst, src, ethertype: U16::new(ethertype) }
    }

    /// The EtherType, see [`ethertype`].
    #[inline]
    pub const fn ethertype(&self) -> u16 {
        self.ethertype.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_has_the_wire_layout() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x06, 0xee];
        let (header, rest) = EtherHeader::ref_from_prefix(&bytes).unwrap();
        assert_eq!(header.dst, MacAddr([1, 2, 3, 4, 5, 6]));
        assert_eq!(header.src, MacAddr([7, 8, 9, 10, 11, 12]));
        assert_eq!(header.ethertype(), ethertype::ARP);
        assert_eq!(rest, [0xee]);
        assert_eq!(
            EtherHeader::new(header.dst, header.src, ethertype::ARP).as_bytes(),
            &bytes[..HEADER_BYTES]
        );
        for len in 0..HEADER_BYTES {
            assert!(EtherHeader::ref_from_prefix(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn kinds_of_mac_address() {
        let station = MacAddr([0x02, 0, 0, 0, 0, 1]);
        assert!(station.is_station() && !station.is_multicast() && !station.is_broadcast());
        let group = MacAddr([0x01, 0, 0x5e, 0, 0, 1]);
        assert!(group.is_multicast() && !group.is_broadcast() && !group.is_station());
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr::ZERO.is_station() && !MacAddr::ZERO.is_multicast());
    }

    #[test]
    fn mac_text_is_strict_and_names_the_value() {
        assert_eq!("AA-bb-0c-00-00-01".parse(), Ok(MacAddr([0xaa, 0xbb, 0x0c, 0, 0, 1])));
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:01",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "02:00-00:00:00:01",
            "+2:00:00:00:00:01",
            "020000000001",
            "02:00:00:00:00:01 ",
        ] {
            let error = bad.parse::<MacAddr>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn mac_text_round_trips(bytes: [u8; 6]) {
            let mac = MacAddr(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    }
}
