//! Which interface and next hop lead to an address: longest prefix match over the connected
//! networks and the static routes. Built once, never changed: a new table replaces an old one.
//!
//! Prefixes nest or are disjoint, so they cut the address space into ranges, each with one answer.
//! A lookup is one binary search over the ranges' first addresses, however many prefix lengths
//! there are: with 10,000 routes about 15 steps, of which the last four share a cache line.

use crate::family::{Family, V4};
use crate::ids::InterfaceId;
use crate::network::Prefix;
use crate::next_hop::NextHop;

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<F: Family = V4> {
    /// Where to.
    pub destination: Prefix<F>,
    /// The gateway: a host in an interface's network.
    pub via: F::Ip,
    /// The interface that the gateway is behind.
    pub interface: InterfaceId,
}

/// What a route says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target<F: Family> {
    interface: InterfaceId,
    /// `None` for a connected network.
    gateway: Option<F::Address>,
}

/// The routes of the data plane.
#[derive(Clone, Debug)]
pub struct RouteTable<F: Family = V4> {
    all: Ranges<F, Target<F>>,
    connected: Ranges<F, Connected>,
}

/// What a connected network says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connected {
    interface: InterfaceId,
    /// Whether a host can have the address: it is neither the network's own nor its broadcast.
    is_host: bool,
}

impl<F: Family> RouteTable<F> {
    /// A table of connected networks, each with its interface, and static routes. Of two
    /// entries for one prefix the first counts, and a connected network before a route.
    pub fn new(
        connected: impl IntoIterator<Item = (InterfaceId, Prefix<F>)>,
        routes: &[Route<F>],
    ) -> Self {
        let connected: Vec<(Prefix<F>, InterfaceId)> =
            connected.into_iter().map(|(interface, network)| (network, interface)).collect();
        let mut all: Vec<(Prefix<F>, Target<F>)> = connected
            .iter()
            .map(|(network, interface)| (*network, Target { interface: *interface, gateway: None }))
            .collect();
        all.extend(routes.iter().map(|route| {
            let target = Target { interface: route.interface, gateway: Some(F::number(route.via)) };
            (route.destination, target)
        }));
        RouteTable { all: Ranges::new(all), connected: with_edges(&connected) }
    }

    /// The next hop towards an address (host order); `None` when no route leads there.
    pub fn lookup(&self, destination: F::Address) -> Option<NextHop<F>> {
        let target = self.all.get(destination)?;
        Some(NextHop {
            interface: target.interface,
            address: target.gateway.unwrap_or(destination),
        })
    }

    /// The interface whose own network an address (host order) is in.
    pub fn connected_interface(&self, address: F::Address) -> Option<InterfaceId> {
        self.connected.get(address).map(|network| network.interface)
    }

    /// Whether an address (host order) is a connected network's own or its broadcast address, which
    /// no host has (RFC 1122, 3.2.1.3).
    pub fn is_broadcast(&self, address: F::Address) -> bool {
        self.connected.get(address).is_some_and(|network| !network.is_host)
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.all.bytes() + self.connected.bytes()
    }
}

/// Connected networks, and in them the addresses that no host has: those that lie at the edge of the
/// smallest network around them.
fn with_edges<F: Family>(connected: &[(Prefix<F>, InterfaceId)]) -> Ranges<F, Connected> {
    let networks = connected.iter().map(|(network, interface)| (*network, (*network, *interface)));
    let smallest = Ranges::new(networks.collect());
    let edges = connected.iter().flat_map(|(network, _)| [network.address(), network.last()]);
    let edges = edges.filter_map(|edge| {
        let (network, interface) = smallest.get(F::number(edge))?;
        let alone = Prefix::of_host(F::number(edge));
        (!network.has_host(edge)).then_some((alone, Connected { interface, is_host: false }))
    });
    let networks = connected
        .iter()
        .map(|(network, interface)| (*network, Connected { interface: *interface, is_host: true }));
    Ranges::new(networks.chain(edges).collect())
}

/// The whole address space in ranges, each with the value of the longest prefix around it.
#[derive(Clone, Debug)]
struct Ranges<F: Family, T> {
    /// First address of each range, ascending; the first is 0, so that every address is in one.
    starts: Box<[F::Address]>,
    values: Box<[Option<T>]>,
}

impl<F: Family, T: Copy + PartialEq> Ranges<F, T> {
    fn new(mut entries: Vec<(Prefix<F>, T)>) -> Self {
        // A prefix comes right before those that it contains. The sort is stable: of equals, the
        // first stays first.
        entries.sort_by_key(|(prefix, _)| (prefix.address(), prefix.prefix_len()));
        entries.dedup_by_key(|(prefix, _)| *prefix);
        let mut ranges = vec![(F::Address::default(), None)];
        let mut open: Vec<(Prefix<F>, T)> = Vec::new();
        for (prefix, value) in entries {
            while let Some((ended, _)) = open.pop_if(|(outer, _)| !outer.overlaps(prefix)) {
                resume(&mut ranges, ended, open.last());
            }
            ranges.push((prefix.first(), Some(value)));
            open.push((prefix, value));
        }
        while let Some((ended, _)) = open.pop() {
            resume(&mut ranges, ended, open.last());
        }
        // Of ranges that begin at one address the last counts, as the others are empty.
        ranges.reverse();
        ranges.dedup_by_key(|(start, _)| *start);
        ranges.reverse();
        ranges.dedup_by_key(|(_, value)| *value);
        debug_assert!(ranges.is_sorted_by_key(|(start, _)| *start));
        let (starts, values): (Vec<F::Address>, Vec<Option<T>>) = ranges.into_iter().unzip();
        Ranges { starts: starts.into(), values: values.into() }
    }

    fn get(&self, address: F::Address) -> Option<T> {
        // The first start is 0: there is always one at or before the address.
        let after = self.starts.partition_point(|start| *start <= address);
        self.values[after - 1]
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.values)
    }
}

/// Behind the end of a prefix, go on with the one around it.
fn resume<F: Family, T: Copy>(
    ranges: &mut Vec<(F::Address, Option<T>)>,
    ended: Prefix<F>,
    outer: Option<&(Prefix<F>, T)>,
) {
    if let Some(next) = F::after(ended.last_number()) {
        ranges.push((next, outer.map(|(_, value)| *value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::V6;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::net::Ipv4Addr;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn address(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().unwrap().to_bits()
    }

    fn route(destination: &str, via: &str, interface: InterfaceId) -> Route {
        Route { destination: prefix(destination), via: via.parse().unwrap(), interface }
    }

    fn hop(table: &RouteTable, to: &str) -> Option<(u16, Ipv4Addr)> {
        table.lookup(address(to)).map(|hop| (hop.interface.0, Ipv4Addr::from_bits(hop.address)))
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = RouteTable::new(
            [(InterfaceId(0), prefix("10.0.0.0/24")), (InterfaceId(1), prefix("192.0.2.0/28"))],
            &[
                route("0.0.0.0/0", "10.0.0.254", InterfaceId(0)),
                route("10.0.0.128/25", "192.0.2.1", InterfaceId(1)),
                route("255.255.255.255/32", "192.0.2.2", InterfaceId(1)),
            ],
        );
        let gateway = Ipv4Addr::new(10, 0, 0, 254);
        assert_eq!(hop(&table, "10.0.0.7"), Some((0, Ipv4Addr::new(10, 0, 0, 7))), "connected");
        assert_eq!(hop(&table, "10.0.0.127"), Some((0, Ipv4Addr::new(10, 0, 0, 127))));
        assert_eq!(hop(&table, "10.0.0.128"), Some((1, Ipv4Addr::new(192, 0, 2, 1))));
        assert_eq!(hop(&table, "10.0.1.0"), Some((0, gateway)));
        assert_eq!(hop(&table, "0.0.0.0"), Some((0, gateway)));
        assert_eq!(hop(&table, "255.255.255.254"), Some((0, gateway)));
        assert_eq!(hop(&table, "255.255.255.255"), Some((1, Ipv4Addr::new(192, 0, 2, 2))));
        assert_eq!(table.connected_interface(address("10.0.0.200")), Some(InterfaceId(0)));
        assert_eq!(table.connected_interface(address("192.0.2.15")), Some(InterfaceId(1)));
        assert_eq!(table.connected_interface(address("192.0.2.16")), None);
    }

    #[test]
    fn networks_and_their_broadcast_addresses_are_no_hosts() {
        let table = RouteTable::new(
            [
                (InterfaceId(0), prefix("10.0.0.0/24")),
                (InterfaceId(1), prefix("192.0.2.0/31")),
                (InterfaceId(1), prefix("198.51.100.9/32")),
                // A host with a network of its own at another one's edge, and a network in another.
                (InterfaceId(2), prefix("10.0.0.255/32")),
                (InterfaceId(3), prefix("172.16.0.0/16")),
                (InterfaceId(2), prefix("172.16.7.0/24")),
                // Networks whose edges meet: the smaller one decides.
                (InterfaceId(0), prefix("203.0.113.0/24")),
                (InterfaceId(1), prefix("203.0.113.254/31")),
                (InterfaceId(2), prefix("203.0.113.0/28")),
            ],
            &[route("0.0.0.0/0", "10.0.0.254", InterfaceId(0))],
        );
        let broadcasts = ["10.0.0.0", "172.16.0.0", "172.16.255.255", "172.16.7.0", "172.16.7.255"];
        let hosts = ["10.0.0.1", "10.0.0.255", "192.0.2.0", "192.0.2.1", "198.51.100.9"];
        assert!(table.is_broadcast(address("203.0.113.0")));
        assert!(table.is_broadcast(address("203.0.113.15")));
        assert!(!table.is_broadcast(address("203.0.113.255")));
        assert_eq!(table.connected_interface(address("203.0.113.0")), Some(InterfaceId(2)));
        let others = ["172.16.6.255", "172.16.8.0", "10.0.1.0", "0.0.0.0", "255.255.255.255"];
        for text in broadcasts {
            assert!(table.is_broadcast(address(text)), "{text}");
        }
        for text in hosts.into_iter().chain(others) {
            assert!(!table.is_broadcast(address(text)), "{text}");
        }
        assert_eq!(table.connected_interface(address("172.16.7.255")), Some(InterfaceId(2)));
    }

    #[test]
    fn without_a_default_route_most_addresses_lead_nowhere() {
        let table = RouteTable::new([(InterfaceId(3), prefix("10.0.0.0/8"))], &[]);
        assert_eq!(hop(&table, "9.255.255.255"), None);
        assert_eq!(hop(&table, "11.0.0.0"), None);
        assert_eq!(hop(&table, "10.255.255.255").unwrap().0, 3);
        let empty = RouteTable::new([], &[]);
        assert_eq!(hop(&empty, "10.0.0.1"), None);
        assert!(empty.bytes() < 64);
    }

    #[test]
    fn a_connected_network_comes_before_a_route_to_it() {
        let table = RouteTable::new(
            [(InterfaceId(0), prefix("10.0.0.0/24")), (InterfaceId(1), prefix("10.0.0.0/24"))],
            &[route("10.0.0.0/24", "192.0.2.1", InterfaceId(2))],
        );
        assert_eq!(hop(&table, "10.0.0.5"), Some((0, Ipv4Addr::new(10, 0, 0, 5))));
    }

    /// Prefixes in a small corner, at both ends of the address space and anywhere.
    fn any_prefix<F: Family>() -> impl Strategy<Value = Prefix<F>>
    where
        F::Address: Arbitrary + From<u16>,
    {
        let corner = any::<F::Address>().prop_map(|base| base & F::mask(F::BITS - 12));
        let bits = prop_oneof![
            any::<F::Address>(),
            (0u16..4096).prop_map(F::Address::from),
            (corner, 0u16..4096).prop_map(|(base, low)| base | F::Address::from(low)),
            Just(F::Address::default()),
            Just(F::mask(F::BITS)),
        ];
        (bits, 0..=F::BITS).prop_map(|(bits, len)| Prefix::around(F::ip(bits), len).unwrap())
    }

    fn any_interface() -> impl Strategy<Value = InterfaceId> {
        (0u16..4).prop_map(InterfaceId)
    }

    fn any_route<F: Family>() -> impl Strategy<Value = Route<F>>
    where
        F::Address: Arbitrary + From<u16>,
    {
        (any_prefix::<F>(), any::<F::Address>(), any_interface()).prop_map(
            |(destination, via, interface)| Route { destination, via: F::ip(via), interface },
        )
    }

    type Networks<F> = Vec<(InterfaceId, Prefix<F>)>;

    fn any_networks<F: Family>() -> impl Strategy<Value = Networks<F>>
    where
        F::Address: Arbitrary + From<u16>,
    {
        prop::collection::vec((any_interface(), any_prefix::<F>()), 0..6)
    }

    /// The answer by looking at every entry.
    fn scan<F: Family>(
        connected: &Networks<F>,
        routes: &[Route<F>],
        to: F::Address,
    ) -> Option<NextHop<F>> {
        let networks = connected
            .iter()
            .map(|(interface, network)| (*network, NextHop { interface: *interface, address: to }));
        let routes = routes.iter().map(|r| {
            (r.destination, NextHop { interface: r.interface, address: F::number(r.via) })
        });
        networks
            .chain(routes)
            .enumerate()
            .filter(|(_, (prefix, _))| prefix.contains(F::ip(to)))
            .max_by_key(|(order, (prefix, _))| (prefix.prefix_len(), Reverse(*order)))
            .map(|(_, (_, hop))| hop)
    }

    fn agrees_with_scan<F: Family>(
        connected: &Networks<F>,
        routes: &[Route<F>],
        anywhere: Vec<F::Address>,
    ) -> Result<(), TestCaseError> {
        let table = RouteTable::new(connected.iter().copied(), routes);
        let prefixes = connected
            .iter()
            .map(|(_, prefix)| *prefix)
            .chain(routes.iter().map(|route| route.destination));
        // The first and the last address of each, and the next to it on either side.
        let edges = prefixes.flat_map(|prefix| {
            let (first, last) = (prefix.first(), prefix.last_number());
            let before = F::after(!first).map(|next| !next);
            [Some(first), Some(last), before, F::after(last)].into_iter().flatten()
        });
        for to in edges.chain(anywhere) {
            prop_assert_eq!(table.lookup(to), scan(connected, routes, to), "to {:x?}", to);
            let interface = scan(connected, &[], to).map(|hop| hop.interface);
            prop_assert_eq!(table.connected_interface(to), interface);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_scan_of_all_entries(
            connected in any_networks::<V4>(),
            routes in prop::collection::vec(any_route::<V4>(), 0..60),
            anywhere in prop::collection::vec(any::<u32>(), 0..20),
        ) {
            agrees_with_scan(&connected, &routes, anywhere)?;
        }

        #[test]
        fn in_ipv6_too(
            connected in any_networks::<V6>(),
            routes in prop::collection::vec(any_route::<V6>(), 0..60),
            anywhere in prop::collection::vec(any::<u128>(), 0..20),
        ) {
            agrees_with_scan(&connected, &routes, anywhere)?;
        }
    }

    #[test]
    fn the_longest_prefix_of_ipv6_wins_from_0_to_128() {
        let ip = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap();
        let network = |text, len| Prefix::<V6>::around(ip(text), len).unwrap();
        let route = |text, len, via| Route {
            destination: network(text, len),
            via: ip(via),
            interface: InterfaceId(1),
        };
        let table = RouteTable::<V6>::new(
            [(InterfaceId(0), network("fd00::", 64))],
            &[
                route("::", 0, "fd00::fe"),
                route("2001:db8::", 32, "fd00::1"),
                route("2001:db8::7", 128, "fd00::2"),
                route("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128, "fd00::3"),
            ],
        );
        let hop = |to| table.lookup(ip(to).to_bits()).map(|hop| (hop.interface.0, hop.ip()));
        assert_eq!(hop("fd00::abcd"), Some((0, ip("fd00::abcd"))), "connected");
        assert_eq!(hop("::"), Some((1, ip("fd00::fe"))));
        assert_eq!(hop("2001:db8::6"), Some((1, ip("fd00::1"))));
        assert_eq!(hop("2001:db8::7"), Some((1, ip("fd00::2"))));
        assert_eq!(hop("2001:db8::8"), Some((1, ip("fd00::1"))));
        assert_eq!(hop("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"), Some((1, ip("fd00::fe"))));
        assert_eq!(hop("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some((1, ip("fd00::3"))));
        assert!(!table.is_broadcast(ip("fd00::ffff:ffff:ffff:ffff").to_bits()));
        assert!(!table.is_broadcast(ip("fd00::").to_bits()));
    }

    #[test]
    fn ten_thousand_routes_take_little_memory() {
        let routes: Vec<Route> = (0..10_000u32)
            .map(|n| Route {
                destination: Prefix::around(Ipv4Addr::from_bits(n << 13), 20).unwrap(),
                via: Ipv4Addr::from_bits(n),
                interface: InterfaceId(0),
            })
            .collect();
        let table = RouteTable::new([], &routes);
        for (n, route) in (0u32..).zip(&routes) {
            let inside = route.destination.last().to_bits();
            assert_eq!(
                table.lookup(inside),
                Some(NextHop { interface: InterfaceId(0), address: n })
            );
            assert_eq!(table.lookup(inside + 1), None);
        }
        assert!(table.bytes() < 400_000, "{} bytes", table.bytes());
    }
}
