//! A snapshot compiled for the packet path: everything a new conn needs, ready to read.
//!
//! A thread of its own compiles (`runtime/compiler.rs`), the workers only read. What has not changed
//! since the last snapshot (Maglev tables above all) is shared with it, so that one weight among 10,000
//! services costs one table.

mod address;
mod degree;
pub mod leaving;
mod service;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use sluice_api::{NoConn, Pool, Protocol, Refusal, Shared, Snapshot, SnapshotService};

pub use address::Address;
use address::{AddressFilter, own_addresses};
use leaving::Leaving;
pub use service::{CompiledBackend, CompiledService};

use crate::family::V4;
use crate::flow::{Endpoint, FlowKey};
use crate::ids::{BackendSlot, InterfaceId, ServiceSlot};
use crate::port_spaces::PortSpaces;
use crate::resolver::BackendHops;
use crate::slots::Slots;
use crate::table::conn::state::StateTimeouts;
use crate::table::local_port::OwnPorts;
use crate::table::route::RouteTable;

/// A compiled snapshot.
pub struct Compiled {
    /// The snapshot's generation, 0 before the first.
    pub generation: u64,
    /// Idle timeouts by service slot.
    pub timeouts: Arc<[StateTimeouts]>,
    /// Local ports of all pools towards all backends.
    pub port_spaces: Arc<PortSpaces>,
    /// What who comes to a VIP is answered with where no service is.
    pub no_service: Refusal,
    /// Whether conns may still arrive here that a former process or a peer has: until they have, a
    /// packet without a conn is no stray. Nothing of the kind is built yet, so nothing sets it.
    pub conns_may_arrive: bool,
    /// Differs from that of the former snapshot when timeouts have become shorter.
    pub shortened: u64,
    /// The routes that its backends are reached by.
    pub routes: Arc<RouteTable>,
    /// Next hops of its backends.
    pub backend_hops: Arc<BackendHops>,
    services: HashMap<Endpoint, Arc<CompiledService>, FixedState>,
    /// The same in the order of the snapshot.
    order: Box<[Arc<CompiledService>]>,
    /// Of these, by their places: those that the snapshot before did not have, or had otherwise.
    changed: Box<[u32]>,
    /// Slots of services that the snapshot before had and this one has not.
    left: Box<[ServiceSlot]>,
    /// Backends that are in no snapshot any more and still have conns: service slot and backend slot.
    retired_backends: Box<[(ServiceSlot, BackendSlot)]>,
    pools: Box<[Pool]>,
    addresses: HashMap<u32, Address, FixedState>,
    /// Addresses that were ours and are not any more: their conns go on.
    retired: HashMap<u32, Address, FixedState>,
    /// Addresses that no new conn uses and running ones may.
    pub leaving: Arc<Leaving>,
    /// Local addresses of TCP services in full-NAT that reset what has no conn.
    resetting: HashSet<u32, FixedState>,
    ours: AddressFilter,
    /// A bit per backend slot: unhealthy, down, or no longer in the snapshot.
    gone: Box<[u64]>,
}

impl Compiled {
    /// What the workers forward by before the first snapshot: only the ports' own addresses.
    /// `owners` are the workers' shares of all local ports, whose search starts by `seed`; backends will
    /// be reached by `routes`.
    pub fn empty(
        interfaces: &[(Ipv4Addr, InterfaceId)],
        owners: Arc<[OwnPorts]>,
        seed: u64,
        routes: Arc<RouteTable>,
    ) -> Self {
        let addresses = own_addresses(interfaces);
        Compiled {
            ours: AddressFilter::new(addresses.keys(), &AddressFilter::default()),
            generation: 0,
            timeouts: Arc::default(),
            port_spaces: Arc::new(PortSpaces::empty(owners, seed)),
            no_service: Refusal::Drop,
            conns_may_arrive: false,
            leaving: Arc::default(),
            resetting: HashSet::default(),
            shortened: 0,
            routes,
            backend_hops: Arc::default(),
            services: HashMap::default(),
            order: Box::default(),
            changed: Box::default(),
            left: Box::default(),
            retired_backends: Box::default(),
            pools: Box::default(),
            addresses,
            retired: HashMap::default(),
            gone: Box::default(),
        }
    }

    /// Compile a valid snapshot whose services and backends have their slots, sharing with the
    /// `previous` one what has not changed.
    pub fn new(
        snapshot: &Snapshot,
        slots: &Slots,
        interfaces: &[(Ipv4Addr, InterfaceId)],
        previous: &Compiled,
    ) -> Self {
        Self::in_pieces(snapshot, slots, interfaces, previous, || {})
    }

    /// As [`new`](Self::new), doing something else after each service that was not shared: a large
    /// Maglev table takes some 20 ms.
    pub fn in_pieces(
        snapshot: &Snapshot,
        slots: &Slots,
        interfaces: &[(Ipv4Addr, InterfaceId)],
        previous: &Compiled,
        mut between: impl FnMut(),
    ) -> Self {
        if let Some(changed) = previous.differing_in_degree(snapshot) {
            return Compiled::by_degree(snapshot, changed, slots, previous, between);
        }
        let pools = open_addresses(snapshot);
        let mut old: HashMap<&str, &Arc<CompiledService>, FixedState> =
            previous.order.iter().map(|s| (s.source.name.as_str(), s)).collect();
        let addresses = all_addresses(snapshot, interfaces);
        let port_spaces = PortSpaces::new(snapshot, &previous.port_spaces);
        let mut services =
            HashMap::with_capacity_and_hasher(snapshot.services.len(), FixedState::default());
        let mut order = Vec::with_capacity(snapshot.services.len());
        let mut changed = Vec::new();
        for service in &snapshot.services {
            let local = service.pool.as_deref().and_then(|name| pools.get(name));
            let local = local.cloned().unwrap_or_default();
            let compiled = match old.remove(service.name.as_str()) {
                Some(old) if old.source == *service && old.local_addresses == local => {
                    Arc::clone(old)
                }
                _ => {
                    changed.push(order.len() as u32);
                    let compiled = CompiledService::new(service, slots, local, &port_spaces);
                    between();
                    Arc::new(compiled)
                }
            };
            order.push(Arc::clone(&compiled));
            let key = Endpoint::of_valid(service.vip, service.port, service.protocol);
            services.insert(key, compiled);
        }
        Compiled {
            ours: AddressFilter::new(addresses.keys(), &previous.ours),
            generation: snapshot.generation,
            timeouts: Arc::clone(slots.timeouts()),
            port_spaces: Arc::new(port_spaces),
            no_service: snapshot.no_service,
            conns_may_arrive: previous.conns_may_arrive,
            leaving: Leaving::after(
                &previous.leaving,
                snapshot,
                &previous.addresses,
                &addresses,
                previous.port_spaces.workers(),
            ),
            resetting: resetting(snapshot),
            shortened: slots.shortened(),
            backend_hops: backend_hops(snapshot, previous, &changed, !old.is_empty()),
            routes: Arc::clone(&previous.routes),
            services,
            changed: changed.into(),
            left: old.values().map(|service| service.slot).collect(),
            retired_backends: slots.retired_backends().collect(),
            pools: snapshot.pools.as_slice().into(),
            retired: retired(&addresses, previous),
            addresses,
            gone: gone(&order, slots),
            order: order.into(),
        }
    }

    /// The same as the previous one, by other routes.
    pub fn rerouted(
        previous: &Compiled,
        slots: &Slots,
        interfaces: &[(Ipv4Addr, InterfaceId)],
        routes: Arc<RouteTable>,
    ) -> Self {
        let snapshot = previous.snapshot().unwrap_or_default();
        let mut compiled = Compiled::new(&snapshot, slots, interfaces, previous);
        compiled.backend_hops = hops_of(&snapshot, &routes);
        compiled.routes = routes;
        compiled
    }

    /// All services, in the order of the snapshot.
    pub fn services(&self) -> &[Arc<CompiledService>] {
        &self.order
    }

    /// How many services the snapshot before did not have, or had otherwise.
    pub fn changes(&self) -> usize {
        self.changed.len()
    }

    /// Services that the snapshot before did not have, or had otherwise, from the `from`-th of them.
    pub fn changed(&self, from: usize) -> impl Iterator<Item = &CompiledService> {
        self.changed[from..].iter().map(|place| &*self.order[*place as usize])
    }

    /// Slots of services that the snapshot before had and this one has not.
    pub fn left(&self) -> &[ServiceSlot] {
        &self.left
    }

    /// Backends that were removed and still had conns when this was compiled: service slot and backend
    /// slot.
    pub fn retired_backends(&self) -> &[(ServiceSlot, BackendSlot)] {
        &self.retired_backends
    }

    /// All pools, in the order of the snapshot.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// The snapshot that was compiled; none before the first.
    pub fn snapshot(&self) -> Option<Snapshot> {
        (self.generation > 0).then(|| Snapshot {
            generation: self.generation,
            services: self.order.iter().map(|service| service.source.clone()).collect(),
            pools: self.pools.to_vec(),
            no_service: self.no_service,
        })
    }

    /// Whether this is the snapshot that was compiled.
    pub fn is_of(&self, snapshot: &Snapshot) -> bool {
        let Snapshot { generation, services, pools, no_service } = snapshot;
        (self.generation, self.no_service) == (*generation, *no_service)
            && *self.pools == **pools
            && self.order.iter().map(|service| &service.source).eq(services)
    }

    /// Whether a backend can serve nobody any more: unhealthy, down, or removed.
    #[inline]
    pub fn is_gone(&self, backend_slot: BackendSlot) -> bool {
        let word = self.gone.get(backend_slot.index() / 64).copied().unwrap_or_default();
        word >> (backend_slot.0 % 64) & 1 != 0
    }

    /// The service of a packet from a client.
    #[inline]
    pub fn service(&self, key: &FlowKey) -> Option<&CompiledService> {
        self.services.get(&key.destination()).map(Arc::as_ref)
    }

    /// What an address is, if it is ours.
    #[inline]
    pub fn address(&self, address: u32) -> Option<Address> {
        self.addresses.get(&address).copied()
    }

    /// What an address is that is answered for, by ARP and ping: ours, or one that was and whose conns
    /// are not all gone.
    #[inline]
    pub fn answered(&self, address: u32) -> Option<Address> {
        self.address(address).or_else(|| self.leaving.answered(address))
    }

    /// Whether backends that send TCP segments without a conn to a local address are reset.
    pub fn local_resets(&self, address: u32) -> bool {
        self.resetting.contains(&address)
    }

    /// What an address of ours is, or was while it was ours: by this, packets are steered to the
    /// worker that owns their conn, which outlives its VIP and its pool.
    #[inline]
    pub fn address_of_conns(&self, address: u32) -> Option<Address> {
        self.address(address).or_else(|| self.retired_address(address))
    }

    #[cold]
    fn retired_address(&self, address: u32) -> Option<Address> {
        self.retired.get(&address).copied()
    }

    /// Whether packets with these addresses (as they stand in a packet) may be for us: for an
    /// address that is ours, or was, as its conns may go on. False is certain.
    #[inline(always)]
    pub fn may_be_ours(&self, addresses: u64) -> bool {
        self.ours.may_contain((addresses >> 32) as u32)
    }

    /// Whether an address is a VIP or a local one.
    pub fn is_announced(&self, address: Ipv4Addr) -> bool {
        matches!(self.address(address.to_bits()), Some(Address::Vip | Address::Local))
    }

    /// All VIPs and local addresses.
    pub fn announced_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses
            .iter()
            .filter(|(_, kind)| !matches!(kind, Address::Own(_)))
            .map(|(address, _)| Ipv4Addr::from_bits(*address))
    }
}

/// Addresses that new conns use, by pool; what is drained stays an address of ours.
fn open_addresses(snapshot: &Snapshot) -> HashMap<&str, Box<[u32]>> {
    let open = |pool: &Pool| pool.open_addresses().map(V4::of_valid).collect();
    snapshot.pools.iter().map(|pool| (pool.name.as_str(), open(pool))).collect()
}

/// Every address of ours: those of interfaces, local ones and VIPs.
fn all_addresses(
    snapshot: &Snapshot,
    interfaces: &[(Ipv4Addr, InterfaceId)],
) -> HashMap<u32, Address, FixedState> {
    let mut addresses = own_addresses(interfaces);
    let locals = snapshot.pools.iter().flat_map(|pool| &pool.addresses);
    addresses.extend(locals.map(|local| (V4::of_valid(*local), Address::Local)));
    let vips = snapshot.services.iter().map(|service| service.vip);
    addresses.extend(vips.map(|vip| (V4::of_valid(vip), Address::Vip)));
    addresses
}

/// Next hops of a snapshot's backends: those of the previous one when its services are the same.
fn backend_hops(
    snapshot: &Snapshot,
    previous: &Compiled,
    changed: &[u32],
    some_left: bool,
) -> Arc<BackendHops> {
    if changed.is_empty() && !some_left {
        return Arc::clone(&previous.backend_hops);
    }
    hops_of(snapshot, &previous.routes)
}

fn hops_of(snapshot: &Snapshot, routes: &RouteTable) -> Arc<BackendHops> {
    let backends = snapshot.services.iter().flat_map(|service| &service.backends);
    let addresses = backends.map(|backend| V4::of_valid(backend.address));
    Arc::new(BackendHops::new(addresses, routes))
}

/// The bits of [`Compiled::is_gone`].
fn gone(services: &[Arc<CompiledService>], slots: &Slots) -> Box<[u64]> {
    let ((_, _), (_, backend_slots)) = slots.usage();
    let mut bits = vec![0; backend_slots.div_ceil(64)];
    services.iter().for_each(|service| degree::mark_gone(&mut bits, service));
    for (_, slot) in slots.retired_backends() {
        bits[slot.index() / 64] |= 1 << (slot.0 % 64);
    }
    bits.into()
}

/// The local addresses of [`Compiled::local_resets`].
fn resetting(snapshot: &Snapshot) -> HashSet<u32, FixedState> {
    let resets =
        |s: &&Shared<SnapshotService>| s.protocol == Protocol::Tcp && s.no_conn == NoConn::Reset;
    let services = snapshot.services.iter().filter(resets);
    let names: HashSet<&str> = services.filter_map(|s| s.pool.as_deref()).collect();
    let pools = snapshot.pools.iter().filter(|pool| names.contains(pool.name.as_str()));
    pools.flat_map(|pool| &pool.addresses).copied().map(V4::of_valid).collect()
}

/// VIPs and local addresses that were in an earlier snapshot and are not in this one. Four bytes and
/// a kind for each address that ever was: an operator does not have so many.
fn retired(
    addresses: &HashMap<u32, Address, FixedState>,
    previous: &Compiled,
) -> HashMap<u32, Address, FixedState> {
    previous
        .addresses
        .iter()
        .chain(&previous.retired)
        .filter(|(address, kind)| {
            !matches!(kind, Address::Own(_)) && !addresses.contains_key(address)
        })
        .map(|(address, kind)| (*address, *kind))
        .collect()
}
