//! Which flows there are: client addresses times L4 ports, numbered.
//!
//! Flow `i` has address `i mod addresses` and port `i / addresses`: neighbours in number differ in
//! their address, so that few flows already spread over a load balancer that hashes on addresses.

use std::net::Ipv4Addr;

use super::GenError;

/// A range of client addresses and L4 ports, and how many flows of it are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpace {
    first_address: u32,
    addresses: u32,
    first_port: u16,
    flows: u32,
}

/// Both ends of a flow that differ from flow to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Client address, in host order.
    pub address: u32,
    /// Client's L4 port.
    pub port: u16,
}

impl FlowSpace {
    /// `flows` flows from `addresses` addresses and the ports `first_port` to `last_port`.
    ///
    /// # Errors
    /// No flows, or more of them than there are pairs; an address range that leaves the address
    /// space; ports in the wrong order.
    pub fn new(
        first_address: Ipv4Addr,
        addresses: u32,
        (first_port, last_port): (u16, u16),
        flows: u32,
    ) -> Result<Self, GenError> {
        if addresses == 0 || first_address.to_bits().checked_add(addresses - 1).is_none() {
            return Err(GenError::field(
                "client.count",
                addresses,
                format!("1 to {} addresses from {first_address} on", !first_address.to_bits()),
            ));
        }
        if first_port == 0 || last_port < first_port {
            let value = format!("{first_port}-{last_port}");
            return Err(GenError::field("client.ports", value, "FIRST-LAST, from 1 to 65535"));
        }
        let ports = u32::from(last_port - first_port) + 1;
        let most = u64::from(addresses) * u64::from(ports);
        if flows == 0 {
            return Err(GenError::field("traffic.flows", 0, format!("1 to {most}")));
        }
        if u64::from(flows) > most {
            return Err(GenError::TooManyFlows { flows, addresses, ports, most });
        }
        Ok(FlowSpace { first_address: first_address.to_bits(), addresses, first_port, flows })
    }

    /// How many flows.
    pub fn len(&self) -> u32 {
        self.flows
    }

    /// The first address.
    pub fn first_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first_address)
    }

    /// Flow number `index`, which is below [`FlowSpace::len`].
    #[inline]
    pub fn client(&self, index: u32) -> Client {
        debug_assert!(index < self.flows);
        Client {
            address: self.first_address + index % self.addresses,
            port: self.first_port + (index / self.addresses) as u16,
        }
    }

    /// The number of a flow; none when it is not one of ours.
    #[inline]
    pub fn index(&self, client: Client) -> Option<u32> {
        let address = client.address.wrapping_sub(self.first_address);
        let port = client.port.checked_sub(self.first_port)?;
        let index = u64::from(port) * u64::from(self.addresses) + u64::from(address);
        (address < self.addresses && index < u64::from(self.flows)).then_some(index as u32)
    }

    /// Whether an address is one of the clients', so that ARP for it is ours to answer.
    pub fn has_address(&self, address: u32) -> bool {
        address.wrapping_sub(self.first_address) < self.addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

    #[test]
    fn every_flow_is_its_own_and_is_found_again() {
        let flows = FlowSpace::new(FIRST, 7, (1_000, 1_010), 77).unwrap();
        let mut seen = std::collections::HashSet::new();
        for index in 0..flows.len() {
            let client = flows.client(index);
            assert!(seen.insert((client.address, client.port)));
            assert_eq!(flows.index(client), Some(index));
            assert!((1_000..=1_010).contains(&client.port) && flows.has_address(client.address));
        }
    }

    #[test]
    fn strangers_are_nobodys_flow() {
        let flows = FlowSpace::new(FIRST, 7, (1_000, 1_010), 20).unwrap();
        let first = FIRST.to_bits();
        for (address, port) in [
            (first - 1, 1_000),
            (first + 7, 1_000),
            (first, 999),
            (first, 1_003),
            (first + 6, 1_002),
        ] {
            assert_eq!(flows.index(Client { address, port }), None, "{address:x} {port}");
        }
        assert!(!flows.has_address(first - 1) && !flows.has_address(first + 7));
    }

    #[test]
    fn impossible_ranges_are_named() {
        let error = |addresses, ports, flows| {
            FlowSpace::new(FIRST, addresses, ports, flows).unwrap_err().to_string()
        };
        assert_eq!(
            error(2, (1, 10), 21),
            "traffic.flows is 21: expected at most 20, as there are 2 client addresses with 10 L4 \
             ports each (client.count, client.ports)"
        );
        assert_eq!(error(2, (1, 10), 0), "traffic.flows is 0: expected 1 to 20");
        assert!(error(0, (1, 10), 1).starts_with("client.count is 0: expected 1 to "));
        assert!(error(u32::MAX, (1, 10), 1).starts_with("client.count is 4294967295: expected"));
        assert!(error(1, (10, 9), 1).starts_with("client.ports is 10-9: expected"));
        assert!(error(1, (0, 9), 1).starts_with("client.ports is 0-9: expected"));
        let all = FlowSpace::new(Ipv4Addr::BROADCAST, 1, (1, u16::MAX), 65_535).unwrap();
        assert_eq!(all.client(65_534).port, u16::MAX);
    }
}
