//! Typed views over packet bytes: Ethernet, ARP, IPv4, ICMP, TCP, UDP and their checksums.
//!
//! Every header is a `repr(C)` struct of big-endian fields without alignment or padding, so that a
//! view borrows the packet's own bytes: one length check when it is made, none afterwards. What
//! enters is bytes, what leaves is a view or a [`WireError`]; which drop reason an error becomes
//! is the caller's to say. No DPDK, no allocation, no unsafe.
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod ether;
pub mod flow_head;
pub mod headers;
pub mod icmp;
pub mod ipv4;
pub mod tcp;
pub mod udp;

pub use arp::ArpPacket;
pub use checksum::Delta;
pub use ether::{EtherHeader, MacAddr};
pub use flow_head::FlowHead;
pub use headers::Ipv4Frame;
pub use icmp::IcmpHeader;
pub use ipv4::Ipv4Header;
pub use tcp::{TcpFlags, TcpHeader};
pub use udp::UdpHeader;

/// Why bytes are not the header that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header, or than the header's own lengths promise.
    #[error("fewer bytes than the header or its lengths need")]
    Truncated,
    /// The IP version is not 4.
    #[error("the IP version is not 4")]
    BadVersion,
    /// The header's length field is below the smallest header: IHL or TCP data offset below 5.
    #[error("the header length is below the smallest header")]
    BadHeaderLength,
    /// Lengths that contradict each other: IP total length below the header, TCP data offset or
    /// UDP length past the end, UDP length below 8.
    #[error("the lengths contradict each other")]
    BadLength,
    /// The checksum does not fit the bytes.
    #[error("the checksum is wrong")]
    BadChecksum,
    /// ARP for other than Ethernet and IPv4 addresses.
    #[error("the ARP address types or lengths are not those of Ethernet and IPv4")]
    BadAddressType,
    /// ARP that is neither a request nor a reply.
    #[error("the ARP operation is neither request nor reply")]
    BadOperation,
}
