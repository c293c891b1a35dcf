//! The port spaces of a snapshot: one for each pool and each backend's address, L4 port and protocol
//! behind it, however many services have it.
//!
//! They are made as part of the compiled snapshot, which hands on those whose pool is still the same;
//! workers count in them, each in its own part. A space that no service needs any more stays while
//! conns use it: its backend may come back before they end. It stays for one snapshot in any case, as
//! workers make conns by the snapshot before while this one is compiled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::FixedState;
use sluice_api::stats::TableUsage;
use sluice_api::{Pool, Snapshot};

use crate::family::V4;
use crate::flow::{Endpoint, FlowKey};
use crate::ids::WorkerId;
use crate::table::local_port::{LocalPort, OwnPorts};
use crate::table::port_space::PortSpace;

/// A pool's number, and a backend.
type SpaceKey = (u32, Endpoint);

/// All port spaces.
pub struct PortSpaces {
    /// The workers' shares of all ports.
    owners: Arc<[OwnPorts]>,
    seed: u32,
    /// By local address: the number of its pool, and its place in it.
    addresses: HashMap<u32, (u32, u32), FixedState>,
    /// By their addresses: numbers of the pools. Another list is another pool.
    pools: HashMap<Box<[u32]>, u32>,
    spaces: HashMap<SpaceKey, Arc<PortSpace>, FixedState>,
    /// Of these: no service of the snapshot needs it.
    unneeded: HashSet<SpaceKey, FixedState>,
    /// The next number for a pool.
    next_pool: u32,
}

impl PortSpaces {
    /// None yet. `owners` are the workers' shares of all ports; searches start by `seed`.
    pub fn empty(owners: Arc<[OwnPorts]>, seed: u64) -> Self {
        PortSpaces {
            owners,
            seed: seed as u32,
            addresses: HashMap::default(),
            pools: HashMap::default(),
            spaces: HashMap::default(),
            unneeded: HashSet::default(),
            next_pool: 0,
        }
    }

    /// How many workers share the ports.
    pub fn workers(&self) -> u16 {
        self.owners.len() as u16
    }

    /// Those of a snapshot, with what `previous` has of them.
    pub fn new(snapshot: &Snapshot, previous: &PortSpaces) -> Self {
        let mut all = PortSpaces::empty(Arc::clone(&previous.owners), 0);
        all.seed = previous.seed;
        all.next_pool = previous.next_pool;
        let mut numbers = HashMap::new();
        for pool in &snapshot.pools {
            let addresses: Box<[u32]> = pool.open_addresses().map(V4::of_valid).collect();
            let number = previous.pools.get(&addresses).copied().unwrap_or_else(|| {
                all.next_pool += 1;
                all.next_pool
            });
            for (index, address) in (0..).zip(&addresses) {
                all.addresses.insert(*address, (number, index));
            }
            numbers.insert(pool.name.as_str(), number);
            all.pools.insert(addresses, number);
        }
        for service in &snapshot.services {
            let Some(pool) = service.pool.as_deref().and_then(|name| numbers.get(name)) else {
                continue;
            };
            for backend in &service.backends {
                let key =
                    (*pool, Endpoint::of_valid(backend.address, backend.port, service.protocol));
                if !all.spaces.contains_key(&key) {
                    let known = previous.spaces.get(&key).cloned();
                    let space = known.unwrap_or_else(|| all.make(key));
                    all.spaces.insert(key, space);
                }
            }
        }
        let current: Vec<u32> = numbers.into_values().collect();
        for (key, space) in &previous.spaces {
            if !current.contains(&key.0) || all.spaces.contains_key(key) {
                continue;
            }
            if space.is_in_use() || !previous.unneeded.contains(key) {
                all.spaces.insert(*key, Arc::clone(space));
                all.unneeded.insert(*key);
            }
        }
        all
    }

    fn make(&mut self, (pool, backend): SpaceKey) -> Arc<PortSpace> {
        let addresses = self.pools.iter().find(|(_, number)| **number == pool);
        let addresses = addresses.map(|(addresses, _)| &**addresses).unwrap_or_default();
        self.seed = self.seed.wrapping_add(1 << 10);
        Arc::new(PortSpace::new(backend, addresses, &self.owners, self.seed))
    }

    /// The space towards a backend by a pool of these addresses.
    pub fn of_backend(
        &self,
        backend: Endpoint,
        local_addresses: &[u32],
    ) -> Option<&Arc<PortSpace>> {
        let pool = self.pools.get(local_addresses)?;
        self.spaces.get(&(*pool, backend))
    }

    /// The space that a return flow is of, and the local port there; `None` when it is of a pool
    /// that is gone.
    pub fn of_flow(&self, flow: &FlowKey) -> Option<(&PortSpace, LocalPort)> {
        let (pool, address) = *self.addresses.get(&flow.dst)?;
        let space = self.spaces.get(&(pool, flow.source()))?;
        Some((space, LocalPort { address, port: flow.dst_port }))
    }

    /// A conn with this return flow has ended.
    pub fn release(&self, own: &OwnPorts, flow: &FlowKey) {
        if let Some((space, local)) = self.of_flow(flow) {
            space.release(own, local);
        }
    }

    /// A conn with this return flow begins to rest.
    pub fn rest(&self, own: &OwnPorts, flow: &FlowKey) {
        if let Some((space, local)) = self.of_flow(flow) {
            space.rest(own, local);
        }
    }

    /// A conn with this return flow rests no more.
    pub fn end_rest(&self, own: &OwnPorts, flow: &FlowKey) {
        if let Some((space, local)) = self.of_flow(flow) {
            space.end_rest(own, local);
        }
    }

    /// Use of a pool's local ports towards the backend, on the worker, where the largest part of
    /// them is in use, and the memory of all its spaces.
    pub fn pool_usage(&self, pool: &Pool) -> TableUsage {
        let addresses: Vec<u32> = pool.open_addresses().map(V4::of_valid).collect();
        let workers = WorkerId::first(self.workers());
        let of_workers = |space| workers.clone().map(move |worker| PortSpace::usage(space, worker));
        let all = self.of_pool(&addresses).flat_map(of_workers);
        // Where no backend has any, what the worker with the fewest ports has.
        let least = self.owners.iter().map(|own| own.capacity(addresses.len())).min();
        let unused = (0, least.unwrap_or_default());
        let share = |(used, of): &(u32, u32)| u64::from(*used) * 1_000_000 / u64::from(*of).max(1);
        let (used, capacity) =
            all.filter(|(used, _)| *used > 0).max_by_key(share).unwrap_or(unused);
        TableUsage {
            table: format!("local_ports/{}", pool.name),
            used: used.into(),
            capacity: capacity.into(),
            bytes: self.of_pool(&addresses).map(|space| space.bytes() as u64).sum(),
        }
    }

    /// See how often ports were used again too early; for one thread, once a second.
    pub fn look_at_reuse(&self) {
        self.spaces.values().for_each(|space| space.look_at_reuse());
    }

    /// The spaces of a pool.
    pub fn of(&self, pool: &Pool) -> impl Iterator<Item = &PortSpace> {
        let addresses: Vec<u32> = pool.addresses.iter().copied().map(V4::of_valid).collect();
        self.of_pool(&addresses)
    }

    /// The spaces by a pool of these addresses.
    fn of_pool(&self, addresses: &[u32]) -> impl Iterator<Item = &PortSpace> + use<'_> {
        let pool = self.pools.get(addresses).copied();
        let of_pool = self.spaces.iter().filter(move |(key, _)| Some(key.0) == pool);
        of_pool.map(|(_, space)| &**space)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use sluice_api::{Mode, Protocol, SnapshotService};
    use std::net::Ipv4Addr;

    fn pool(name: &str, last: &[u8]) -> Pool {
        let addresses = last.iter().map(|last| Ipv4Addr::new(10, 0, 255, *last).into()).collect();
        Pool::new(name, addresses)
    }

    #[test]
    fn a_space_is_handed_on_until_its_pool_changes() {
        let owners: Arc<[OwnPorts]> = [OwnPorts::by_modulo(WorkerId(0), 1)].into();
        let web = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 2);
        let mut other = testkit::service("other", 81, Protocol::Tcp, Mode::FullNat, 2);
        other.backends = web.backends.clone();
        let mut snapshot = testkit::snapshot(1, vec![web.clone(), other]);
        snapshot.pools = vec![pool("lan", &[1, 2]), pool("spare", &[3])];
        let first = PortSpaces::new(&snapshot, &PortSpaces::empty(Arc::clone(&owners), 1));
        let addresses =
            |pool: &Pool| pool.addresses.iter().copied().map(V4::of_valid).collect::<Vec<_>>();
        let lan = addresses(&snapshot.pools[0]);
        assert_eq!(first.of_pool(&lan).count(), 2, "services with the same backends share them");
        let backend = Endpoint::of_valid(web.backends[0].address, 80, Protocol::Tcp);
        let of = |spaces: &PortSpaces, locals: &[u32]| spaces.of_backend(backend, locals).cloned();
        let space = of(&first, &lan).unwrap();
        let flow = space.reserve(&owners[0]).unwrap();

        // Another name, another order of services, a service that goes: the same space.
        snapshot.pools[0].name = "renamed".to_owned();
        snapshot.services.swap(0, 1);
        snapshot.services.iter_mut().for_each(|s| s.pool = Some("renamed".to_owned()));
        let second = PortSpaces::new(&snapshot, &first);
        assert!(Arc::ptr_eq(&space, &of(&second, &lan).unwrap()));
        snapshot.services.clear();
        let third = PortSpaces::new(&snapshot, &second);
        assert_eq!(third.of_pool(&lan).count(), 2, "workers may still make conns in both");
        let third = PortSpaces::new(&snapshot, &third);
        assert!(Arc::ptr_eq(&space, &of(&third, &lan).unwrap()), "a conn uses it");
        assert_eq!(third.of_pool(&lan).count(), 1, "the other backend has none");
        third.release(&owners[0], &flow);
        assert_eq!(space.usage(WorkerId(0)).0, 0);
        let fourth = PortSpaces::new(&snapshot, &third);
        assert_eq!(fourth.of_pool(&lan).count(), 0);

        // An address more or less: another one.
        let renamed = SnapshotService { pool: Some("renamed".to_owned()), ..web };
        snapshot.services = vec![renamed.into()];
        let before = PortSpaces::new(&snapshot, &first);
        snapshot.pools[0] = pool("renamed", &[1]);
        let after = PortSpaces::new(&snapshot, &before);
        assert!(of(&after, &lan).is_none());
        let left = addresses(&snapshot.pools[0]);
        let now = of(&after, &left).unwrap();
        assert_eq!(now.addresses(), left);
        // A conn of the former pool ends: by an address that is gone, or by one that stayed.
        let on = |dst: u32| FlowKey { dst, ..flow };
        after.release(&owners[0], &on(lan[1]));
        after.release(&owners[0], &on(lan[0]));
        assert_eq!(now.usage(WorkerId(0)).0, 0);
    }
}
