//! A pipeline without ports, and packets to feed it: for tests, simulation, fuzzers and benches.

pub mod fuzz;
mod harness;
mod packets;
mod random;
mod team;

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::stats::Limits;
use sluice_api::{
    AdminState, HashOn, Mode, NoConn, Pool, Protocol, Refusal, Scheduler, Shared, Snapshot,
    SnapshotBackend, SnapshotService, Timeouts, validate,
};
use sluice_wire::ether::MacAddr;

use crate::ids::InterfaceId;
use crate::network::InterfaceAddress;
use crate::next_hop::{NeighbourState, NeighbourUpdate, NextHop};
use crate::pipeline::InterfaceInfo;
use crate::snapshot::Compiled;
use crate::table::owner::Owners;
use crate::table::route::{Route, RouteTable};

pub use harness::{Harness, Out};
pub use packets::{flow, inspect, ip_frame, packet, segment};
pub use random::Random;
pub use team::Team;

/// Network of clients, behind port 0: 192.0.2.0/24; the port has .1, clients come through .254.
pub const CLIENT_PORT: InterfaceId = InterfaceId(0);
/// Network of backends, behind port 1: 10.0.0.0/16; the port has 10.0.0.1.
pub const BACKEND_PORT: InterfaceId = InterfaceId(1);
/// MAC addresses of the two ports.
pub const PORT_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
/// MAC address of whoever sends to Sluice; no next hop has it.
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
/// Next hop of clients beyond their network.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// The VIP of all services here.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The first local address of pool `lan`.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 1);

/// The interfaces' addresses, in their order.
const PORT_ADDRESSES: [&str; 2] = ["192.0.2.1/24", "10.0.0.1/16"];

/// The MAC address of a next hop: each has its own.
pub fn mac_of(interface: InterfaceId, address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([6, interface.0 as u8, a, b, c, d])
}

/// What the main thread says of a next hop that answers.
pub fn is_reachable(interface: InterfaceId, address: Ipv4Addr) -> NeighbourUpdate {
    let state = NeighbourState::Reachable(mac_of(interface, address));
    NeighbourUpdate { hop: NextHop { interface, address: address.to_bits() }, state }
}

fn interface_addresses() -> impl Iterator<Item = InterfaceAddress> {
    PORT_ADDRESSES.iter().map(|text| text.parse().expect("an address and its prefix length"))
}

/// The two interfaces, of a port each.
pub fn interfaces() -> Vec<InterfaceInfo> {
    let interfaces = interface_addresses().zip(PORT_MACS);
    interfaces
        .map(|(address, mac)| InterfaceInfo {
            mac,
            mtu: 1_500,
            address: address.address(),
            broadcasts: [address.network().last().to_bits()].into(),
            has_exception: true,
            checks_source: true,
        })
        .collect()
}

/// The interfaces' networks, and a route to everywhere else by [`GATEWAY`].
pub fn routes() -> Arc<RouteTable> {
    let networks =
        (0..).map(InterfaceId).zip(interface_addresses().map(|address| address.network()));
    let destination = "0.0.0.0/0".parse().expect("a network");
    let route = Route { destination, via: GATEWAY, interface: CLIENT_PORT };
    Arc::new(RouteTable::new(networks, &[route]))
}

/// Addresses of the interfaces, each with its own.
pub fn own_addresses() -> Vec<(Ipv4Addr, InterfaceId)> {
    interface_addresses().map(|address| address.address()).zip((0..).map(InterfaceId)).collect()
}

/// A service on [`VIP`] with backends 10.0.1.1, 10.0.1.2, … that have its port.
pub fn service(
    name: &str,
    port: u16,
    protocol: Protocol,
    mode: Mode,
    backends: u16,
) -> SnapshotService {
    SnapshotService {
        name: name.to_owned(),
        vip: VIP.into(),
        port,
        protocol,
        mode,
        scheduler: Scheduler::Wrr,
        hash_on: HashOn::FiveTuple,
        maglev_slots: 251,
        max_conns: None,
        pool: mode.needs_pool().then(|| "lan".to_owned()),
        no_conn: NoConn::of_mode(mode),
        no_backend: Refusal::default(),
        timeouts: Timeouts::default(),
        backends: (1..=backends)
            .map(|i| SnapshotBackend {
                address: Ipv4Addr::from_bits(0x0a00_0100 + u32::from(i)).into(),
                port,
                weight: 1,
                max_conns: None,
                state: AdminState::Up,
                healthy: true,
            })
            .collect(),
    }
}

/// A snapshot of these services and pool `lan` with one local address.
pub fn snapshot(generation: u64, services: Vec<SnapshotService>) -> Snapshot {
    Snapshot {
        generation,
        services: services.into_iter().map(Shared::new).collect(),
        pools: vec![Pool::new("lan", vec![LOCAL.into()])],
        no_service: Refusal::default(),
    }
}

/// Table sizes of all pipelines here.
pub fn test_limits() -> Limits {
    Limits { services: 64, backends: 4_096, ..Limits::default() }
}

/// That a snapshot is one that the data plane takes.
fn assert_valid(snapshot: &Snapshot) {
    let own: Vec<_> = own_addresses().into_iter().map(|(address, _)| address.into()).collect();
    assert_eq!(validate::snapshot(snapshot, &test_limits(), &own).into_vec(), []);
}

/// What a worker, the only one, forwards by before the first snapshot.
pub fn nothing_compiled() -> Compiled {
    let own_ports = Owners::Arithmetic { workers: 1 }.all_own_ports(1);
    Compiled::empty(&own_addresses(), own_ports, 7, routes())
}

/// Where a slice lies.
pub fn range_of<T>(slice: &[T]) -> std::ops::Range<usize> {
    let start = slice.as_ptr().addr();
    start..start + size_of_val(slice)
}
