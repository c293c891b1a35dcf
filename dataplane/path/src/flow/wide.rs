//! Flows of either family as flows of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Flow, FlowBytes, FlowHasher, FlowKey, Tuple};
use crate::family::{Family, V4, V6};
use crate::ids::L4Port;

/// A flow of either family as one of IPv6, the addresses of IPv4 mapped (RFC 4291, 2.5.5.2), so that
/// those of both can be compared: what a wide conn is found by, whose sides may differ.
pub type WideTuple = FlowBytes<V6>;

impl WideTuple {
    /// From an address and L4 port to another, each of either family.
    pub fn between(src: (IpAddr, L4Port), dst: (IpAddr, L4Port), protocol: u8) -> Self {
        let number = |ip| match ip {
            IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip).to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let (src_port, dst_port) = (src.1, dst.1);
        let (src, dst) = (number(src.0), number(dst.0));
        WideTuple::from(&Flow { src, dst, src_port, dst_port, protocol })
    }

    /// The same as one of IPv4, when both addresses are.
    pub fn plain(&self) -> Option<Tuple> {
        let (src, dst) = V6::addresses(self.addresses);
        let number = |ip| Some(Ipv6Addr::from_bits(ip).to_ipv4_mapped()?.to_bits());
        let addresses = V4::pair(number(src)?, number(dst)?);
        Some(Tuple { addresses, ports: self.ports, protocol: self.protocol })
    }
}

impl From<&Tuple> for WideTuple {
    fn from(tuple: &Tuple) -> Self {
        let FlowKey { src, dst, src_port, dst_port, protocol } = FlowKey::from(tuple);
        let ip = |address| IpAddr::from(Ipv4Addr::from_bits(address));
        WideTuple::between((ip(src), src_port), (ip(dst), dst_port), protocol)
    }
}

impl FlowHasher {
    /// The hash of a flow of either family: of one of IPv4, the same as that of its [`Tuple`].
    pub fn hash_wide(&self, flow: &WideTuple) -> u64 {
        match flow.plain() {
            Some(plain) => self.hash(&plain),
            None => self.hash(flow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_of_ipv4_is_the_same_both_ways_and_has_one_hash() {
        let (hasher, client_port) = (FlowHasher::new(7), L4Port(5_000));
        let (src, dst) = (0xc633_6401, 0xc000_0264);
        let key = FlowKey { src, dst, src_port: client_port, dst_port: L4Port(80), protocol: 6 };
        let tuple = Tuple::from(&key);
        let wide = WideTuple::from(&tuple);
        let of = |address: &str| address.parse::<IpAddr>().unwrap();
        let vip = (of("192.0.2.100"), L4Port(80));
        assert_eq!(wide, WideTuple::between((of("198.51.100.1"), client_port), vip, 6));
        assert_eq!(wide.plain(), Some(tuple));
        assert_eq!(hasher.hash_wide(&wide), hasher.hash(&tuple));
        // One side of IPv6, or a prefix that only looks mapped.
        for other in ["2001:db8::1", "::198.51.100.1", "::fffe:c633:6401"] {
            let other = WideTuple::between((of(other), client_port), vip, 6);
            assert_eq!(other.plain(), None);
            assert_ne!(hasher.hash_wide(&other), hasher.hash(&tuple));
            assert_eq!(hasher.hash_wide(&other), hasher.hash(&other));
        }
    }
}
