//! What makes one snapshot of another, to be sent in its place when little differs.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::service::{Pool, Refusal};
use crate::shared::Shared;
use crate::snapshot::{Snapshot, SnapshotBackend, SnapshotService};

/// What makes one snapshot of another. Who takes it has all of the next one then, as if it had been sent
/// whole: there is nothing that can be done by one and not by the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChange {
    /// Generation of the snapshot that it is a change of.
    pub base: u64,
    /// Generation of the snapshot that it makes.
    pub generation: u64,
    /// Services that are new, in their order behind all others, or take the place of the one of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Shared<SnapshotService>>,
    /// Backends that differ in degree ([`SnapshotService::differs_in_degree`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<ChangedBackends>,
    /// Names of the services that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// All pools, when they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<Pool>>,
    /// What who comes to a VIP is answered with where no service is.
    pub no_service: Refusal,
}

/// The backends of a service that have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedBackends {
    /// The service's name.
    pub service: String,
    /// Each takes the place of the one with its address and L4 port.
    pub backends: Vec<SnapshotBackend>,
}

impl SnapshotChange {
    /// What makes `next` of `base`, whatever the generation of either says: the change is one from
    /// generation `from` to generation `to`. None when a whole snapshot says it better: services that are
    /// in both stand in another order, or new ones stand between others.
    pub fn between(base: &Snapshot, next: &Snapshot, from: u64, to: u64) -> Option<SnapshotChange> {
        let mut change = SnapshotChange {
            base: from,
            generation: to,
            services: Vec::new(),
            backends: Vec::new(),
            removed: Vec::new(),
            pools: (base.pools != next.pools).then(|| next.pools.clone()),
            no_service: next.no_service,
        };
        let mut following = next.services.iter().peekable();
        for old in &base.services {
            match following.next_if(|new| new.is(old) || new.name == old.name) {
                Some(new) => change.note(old, new),
                None => change.removed.push(old.name.clone()),
            }
        }
        change.services.extend(following.cloned());
        // One that was taken for gone stands further behind.
        let there: HashSet<&str> = change.services.iter().map(|s| s.name.as_str()).collect();
        let are_gone = change.removed.iter().all(|name| !there.contains(name.as_str()));
        are_gone.then_some(change)
    }

    fn note(&mut self, old: &Shared<SnapshotService>, new: &Shared<SnapshotService>) {
        if old == new {
            return;
        }
        if !old.differs_in_degree(new) {
            self.services.push(new.clone());
            return;
        }
        let both = old.backends.iter().zip(&new.backends);
        let backends = both.filter(|(old, new)| old != new).map(|(_, new)| new.clone()).collect();
        self.backends.push(ChangedBackends { service: new.name.clone(), backends });
    }

    /// Make the next snapshot of the one that this is a change of. None when it is not a change of that:
    /// it speaks of what is not there.
    pub fn apply(self, mut base: Snapshot) -> Option<Snapshot> {
        let held = base.services.clone();
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(held.len());
        places.extend(held.iter().map(|s| s.name.as_str()).zip(0..));
        let is_there = |name: &String| places.contains_key(name.as_str());
        if !self.removed.iter().all(is_there) {
            return None;
        }
        for ChangedBackends { service, backends } in self.backends {
            let service = &mut base.services[*places.get(service.as_str())?];
            for backend in backends {
                let id = backend.id();
                *service.backends.iter_mut().find(|b| b.id() == id)? = backend;
            }
        }
        for service in self.services {
            match places.get(service.name.as_str()) {
                Some(place) => base.services[*place] = service,
                None => base.services.push(service),
            }
        }
        if !self.removed.is_empty() {
            let removed: HashSet<&String> = self.removed.iter().collect();
            base.services.retain(|service| !removed.contains(&service.name));
        }
        if let Some(pools) = self.pools {
            base.pools = pools;
        }
        Some(Snapshot { generation: self.generation, no_service: self.no_service, ..base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{AdminState, HashOn, Mode, NoConn, Protocol, Scheduler, Timeouts};
    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn service(name: u8, backends: &[(u8, u16)]) -> SnapshotService {
        let backend = |(last, weight): &(u8, u16)| SnapshotBackend {
            address: [10, 0, 0, *last].into(),
            port: 80,
            weight: *weight,
            max_conns: None,
            state: AdminState::Up,
            healthy: true,
        };
        SnapshotService {
            name: format!("s{name}"),
            vip: [198, 51, 100, name].into(),
            port: 80,
            protocol: Protocol::Tcp,
            mode: Mode::FullNat,
            scheduler: Scheduler::Maglev,
            hash_on: HashOn::FiveTuple,
            maglev_slots: 251,
            max_conns: None,
            pool: Some("lan".to_owned()),
            no_conn: NoConn::Reset,
            no_backend: Refusal::default(),
            timeouts: Timeouts::default(),
            backends: backends.iter().map(backend).collect(),
        }
    }

    fn snapshot(services: Vec<SnapshotService>) -> Snapshot {
        let services = services.into_iter().map(Shared::new).collect();
        Snapshot { generation: 7, services, ..Snapshot::default() }
    }

    fn through(base: &Snapshot, next: &Snapshot) -> (SnapshotChange, Snapshot) {
        let change = SnapshotChange::between(base, next, 7, 8).expect("in order");
        let json = serde_json::to_string(&change).unwrap();
        let read: SnapshotChange = serde_json::from_str(&json).unwrap();
        assert_eq!(read, change);
        let made = read.apply(base.clone()).expect("it is a change of it");
        assert_eq!(made, Snapshot { generation: 8, ..next.clone() });
        (change, made)
    }

    #[test]
    fn one_weight_is_one_backend_and_shares_all_other_services() {
        let base = snapshot((0..9).map(|n| service(n, &[(1, 1), (2, 1)])).collect());
        let mut next = base.clone();
        next.services[4].backends[1].weight = 5;
        let (change, made) = through(&base, &next);
        assert!(change.services.is_empty() && change.removed.is_empty() && change.pools.is_none());
        let [ChangedBackends { service, backends }] = &change.backends[..] else { panic!("one") };
        assert_eq!((service.as_str(), backends.len(), backends[0].weight), ("s4", 1, 5));
        let shared = base.services.iter().zip(&made.services).filter(|(a, b)| a.is(b)).count();
        assert_eq!(shared, 8);
    }

    #[test]
    fn services_that_change_places_are_better_sent_whole() {
        let [a, b, c] = [1, 2, 3].map(|n| service(n, &[(1, 1)]));
        let base = snapshot(vec![a.clone(), b.clone()]);
        let next = snapshot(vec![b.clone(), a.clone()]);
        assert_eq!(SnapshotChange::between(&base, &next, 7, 8), None);
        let next = snapshot(vec![a.clone(), c.clone(), b.clone()]);
        assert_eq!(SnapshotChange::between(&base, &next, 7, 8), None);
        through(&base, &snapshot(vec![b, c]));
    }

    #[test]
    fn a_change_of_something_else_is_no_change_of_this() {
        let base = snapshot(vec![service(1, &[(1, 1)])]);
        let other = snapshot(vec![service(1, &[(1, 1), (2, 1)]), service(2, &[(1, 1)])]);
        let changes = [
            |next: &mut Snapshot| next.services[0].backends[1].weight = 9,
            |next: &mut Snapshot| next.services[1].backends[0].weight = 9,
            |next: &mut Snapshot| drop(next.services.remove(1)),
        ];
        for change in changes {
            let mut next = other.clone();
            change(&mut next);
            let change = SnapshotChange::between(&other, &next, 7, 8).unwrap();
            assert_eq!(change.apply(base.clone()), None);
        }
    }

    type Backends = BTreeMap<u8, u16>;

    fn services() -> impl Strategy<Value = BTreeMap<u8, Backends>> {
        btree_map(0u8..8, btree_map(0u8..4, 0u16..3, 0..4), 0..6)
    }

    proptest! {
        /// Whatever the two are, if only services stand in order.
        #[test]
        fn a_change_makes_the_next_snapshot_of_the_last(
            base in services(), next in services(), pools in any::<bool>(), resets in any::<bool>(),
        ) {
            let of = |map: &BTreeMap<u8, Backends>, kept: &BTreeMap<u8, Backends>| {
                // Those that stay first, as the others are new.
                let names = map.keys().filter(|n| kept.contains_key(n)).chain(map.keys().filter(|n| !kept.contains_key(n)));
                let one = |name: &u8| service(*name, &map[name].clone().into_iter().collect::<Vec<_>>());
                snapshot(names.map(one).collect())
            };
            let (base, mut next) = (of(&base, &base), of(&next, &base));
            if pools {
                next.pools = vec![Pool::new("lan", vec![[10, 0, 0, 9].into()])];
            }
            next.no_service = if resets { Refusal::Reset } else { Refusal::Drop };
            through(&base, &next);
        }
    }
}
