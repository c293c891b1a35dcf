//! Addresses with a prefix length, checked when they are made: text goes in, values that
//! cannot be wrong come out; and how many ports there can be. Owns nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use sluice_api::validate::{is_host, supported};

use crate::family::{Family, V4};

/// Most ports: with an exception port beside each, DPDK's own limit of 32 is reached.
pub const MAX_PORTS: usize = 16;

/// Why a text is no [`Prefix`] or [`InterfaceAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not of the form `address/length`.
    #[error("an IPv4 address, '/' and a prefix length of 0 to 32, as 10.0.0.0/8")]
    Form,
    /// A network of a family that is not forwarded.
    #[error("{0}")]
    NotYet(&'static str),
    /// A network with bits set behind its prefix.
    #[error("no bits set behind the prefix length: {0}")]
    HostBits(Prefix),
    /// An address that no single host can have (RFC 6890).
    #[error("a unicast address, not one of 0/8, 127/8, 224/4 or 240/4")]
    NotUnicast,
    /// The network's own address or its broadcast address (RFC 1122, 3.2.1.3).
    #[error("the address of a host in {0}, neither its first nor its last address")]
    NotHost(Prefix),
    /// A port's address with prefix length 0: the whole internet would be behind it.
    #[error("a prefix length of 1 to 32")]
    NoNetwork,
}

/// A network: no bits are set behind the prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix<F: Family = V4> {
    address: F::Address,
    len: u8,
}

impl Prefix {
    /// The network `address/len`; an error when a bit behind the prefix is set or `len` is above 32.
    pub fn new(address: Ipv4Addr, len: u8) -> Result<Self, NetworkError> {
        let prefix = Self::around(address, len).ok_or(NetworkError::Form)?;
        if prefix.address() == address { Ok(prefix) } else { Err(NetworkError::HostBits(prefix)) }
    }
}

impl<F: Family> Prefix<F> {
    /// The network of this prefix length in which an address lies; none when the family has no prefix
    /// so long.
    pub fn around(address: F::Ip, len: u8) -> Option<Self> {
        let is_fit = len <= F::BITS;
        is_fit.then(|| Prefix { address: F::number(address) & F::mask(len), len })
    }

    /// The network of one address.
    pub fn of_host(address: F::Address) -> Self {
        Prefix { address, len: F::BITS }
    }

    /// Its first address.
    pub fn address(self) -> F::Ip {
        F::ip(self.address)
    }

    /// Its first address, as a number.
    pub fn first(self) -> F::Address {
        self.address
    }

    /// Its prefix length.
    pub const fn prefix_len(self) -> u8 {
        self.len
    }

    /// Its last address: in IPv4, the directed broadcast address (RFC 919) when the prefix length is
    /// at most 30.
    pub fn last(self) -> F::Ip {
        F::ip(self.last_number())
    }

    /// Its last address, as a number.
    pub fn last_number(self) -> F::Address {
        self.address | !F::mask(self.len)
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: F::Ip) -> bool {
        F::number(address) & F::mask(self.len) == self.address
    }

    /// Whether the two have an address in common: then one lies in the other.
    pub fn overlaps(self, other: Prefix<F>) -> bool {
        self.contains(other.address()) || other.contains(self.address())
    }

    /// Whether a host can have the address: it lies in it and is neither the network's own address
    /// nor its broadcast address, where the family has such.
    pub fn has_host(self, address: F::Ip) -> bool {
        let is_edge = address == self.address() || address == self.last();
        self.contains(address) && !(is_edge && F::has_edges(self.len))
    }
}

impl<F: Family> fmt::Display for Prefix<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.len)
    }
}

impl FromStr for Prefix {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, len) = split(text)?;
        Prefix::new(address, len)
    }
}

/// An address of a port with the network that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    address: Ipv4Addr,
    prefix_len: u8,
}

impl InterfaceAddress {
    /// A host's address in a network of prefix length 1 to 32.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Result<Self, NetworkError> {
        let network = Prefix::around(address, prefix_len).ok_or(NetworkError::Form)?;
        if prefix_len == 0 {
            return Err(NetworkError::NoNetwork);
        }
        if !is_host(address) {
            return Err(NetworkError::NotUnicast);
        }
        if !network.has_host(address) {
            return Err(NetworkError::NotHost(network));
        }
        Ok(InterfaceAddress { address, prefix_len })
    }

    /// The address.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The prefix length of its network, 1 to 32.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The network that is connected by it.
    pub fn network(self) -> Prefix {
        let len = self.prefix_len;
        Prefix { address: V4::number(self.address) & V4::mask(len), len }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for InterfaceAddress {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix_len) = split(text)?;
        InterfaceAddress::new(address, prefix_len)
    }
}

fn split(text: &str) -> Result<(Ipv4Addr, u8), NetworkError> {
    let (address, len) = text.split_once('/').ok_or(NetworkError::Form)?;
    let ip: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
    let address = supported(ip).map_err(NetworkError::NotYet)?;
    // `u8::from_str` takes a sign and leading zeros; a prefix length has neither.
    if len.is_empty() || len.len() > 2 || !len.bytes().all(|c| c.is_ascii_digit()) {
        return Err(NetworkError::Form);
    }
    let len: u8 = len.parse().map_err(|_| NetworkError::Form)?;
    if len > 32 { Err(NetworkError::Form) } else { Ok((address, len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_no_host_bits() {
        let prefix: Prefix = "10.1.0.0/16".parse().unwrap();
        assert_eq!(prefix.to_string(), "10.1.0.0/16");
        assert!(prefix.contains(Ipv4Addr::new(10, 1, 255, 255)));
        assert!(!prefix.contains(Ipv4Addr::new(10, 2, 0, 0)));
        assert_eq!(prefix.last(), Ipv4Addr::new(10, 1, 255, 255));
        let error = "10.1.2.3/16".parse::<Prefix>().unwrap_err();
        assert_eq!(error.to_string(), "no bits set behind the prefix length: 10.1.0.0/16");
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST) && all.overlaps(prefix) && prefix.overlaps(all));
        for wrong in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "/8"] {
            assert_eq!(wrong.parse::<Prefix>(), Err(NetworkError::Form), "{wrong}");
        }
    }

    #[test]
    fn interface_addresses_are_hosts() {
        let address: InterfaceAddress = "10.0.0.1/24".parse().unwrap();
        assert_eq!(address.network().to_string(), "10.0.0.0/24");
        for fine in ["10.0.0.0/31", "10.0.0.1/31", "10.0.0.0/32"] {
            assert!(fine.parse::<InterfaceAddress>().is_ok(), "{fine}");
        }
        let error = |text: &str| text.parse::<InterfaceAddress>().unwrap_err().to_string();
        assert!(error("10.0.0.0/24").starts_with("the address of a host in 10.0.0.0/24"));
        assert!(error("10.0.0.255/24").starts_with("the address of a host in 10.0.0.0/24"));
        assert!(error("224.0.0.1/24").starts_with("a unicast address"));
        assert!(error("127.0.0.1/8").starts_with("a unicast address"));
        assert_eq!(error("10.0.0.1/0"), "a prefix length of 1 to 32");
    }
}
