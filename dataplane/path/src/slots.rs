//! Slots of services and backends: small numbers that conns and counters use in place of names.
//!
//! A slot outlives its service or backend for as long as a conn refers to it, so that counters and
//! timeouts of running conns stay right, and is then given to the next newcomer. The thread that
//! compiles snapshots owns this; workers only see the numbers.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;
use sluice_api::{BackendId, Problem, Snapshot};

use crate::ids::{BackendSlot, ServiceSlot};
use crate::table::conn::state::{STATES, StateTimeouts, state_timeouts};

/// Key of a backend: its service's slot, and its identity there.
pub type BackendKey = (ServiceSlot, BackendId);

/// Who holds which slot.
struct Registry<K> {
    slots: HashMap<K, u32, RandomState>,
    /// Gone from the snapshot, slot still referred to.
    retired: HashMap<K, u32, RandomState>,
    free: Vec<u32>,
}

impl<K: Clone + Eq + Hash> Registry<K> {
    fn new(capacity: u32) -> Self {
        Registry {
            slots: HashMap::default(),
            retired: HashMap::default(),
            free: (0..capacity).rev().collect(),
        }
    }

    /// How many of `wanted` would need a free slot.
    fn newcomers<'a>(&self, wanted: impl Iterator<Item = &'a K>) -> usize
    where
        K: 'a,
    {
        wanted
            .filter(|key| !self.slots.contains_key(key) && !self.retired.contains_key(key))
            .count()
    }

    /// The slot of a key that is now wanted; the caller has made sure that there is room.
    fn claim(&mut self, key: &K) -> u32 {
        if let Some(slot) = self.slots.get(key) {
            return *slot;
        }
        let slot = self.retired.remove(key).or_else(|| self.free.pop()).expect("room was checked");
        self.slots.insert(key.clone(), slot);
        slot
    }

    fn retire_all_but(&mut self, wanted: impl Fn(&K) -> bool) {
        let gone: Vec<K> = self.slots.keys().filter(|key| !wanted(key)).cloned().collect();
        for key in gone {
            if let Some(slot) = self.slots.remove(&key) {
                self.retired.insert(key, slot);
            }
        }
    }

    /// Free the retired slots that nothing refers to; `freed` hears of each.
    fn reclaim(&mut self, mut unused: impl FnMut(&K, u32) -> bool, mut freed: impl FnMut(&K, u32)) {
        let free = &mut self.free;
        self.retired.retain(|key, slot| {
            let done = unused(key, *slot);
            if done {
                freed(key, *slot);
                free.push(*slot);
            }
            !done
        });
    }
}

/// A slot that nothing refers to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// A backend's, and the slot of the service it was part of.
    Backend {
        /// Slot of the service.
        service: ServiceSlot,
        /// Slot of the backend.
        slot: BackendSlot,
    },
    /// A service's.
    Service {
        /// Slot of the service.
        slot: ServiceSlot,
    },
}

/// All slots of the process.
pub struct Slots {
    services: Registry<String>,
    backends: Registry<BackendKey>,
    timeouts: Arc<[StateTimeouts]>,
    /// How often a timeout of a slot was shortened.
    shortened: u64,
    service_slots: usize,
    backend_slots: usize,
}

/// Room for slots that are retired: as much again as may be configured, and a little for tiny limits.
const fn with_retired(limit: u32) -> u32 {
    limit.saturating_mul(2).saturating_add(64)
}

/// Service slots that a limit of so many services needs.
pub fn service_slots(limit: u32) -> u32 {
    with_retired(limit).min(u16::MAX as u32)
}

/// Backend slots that a limit of so many backends needs.
pub fn backend_slots(limit: u32) -> u32 {
    with_retired(limit)
}

impl Slots {
    /// Slots for these limits.
    pub fn new(services: u32, backends: u32) -> Self {
        let (service_slots, backend_slots) = (service_slots(services), backend_slots(backends));
        Slots {
            services: Registry::new(service_slots),
            backends: Registry::new(backend_slots),
            timeouts: vec![[1; STATES]; service_slots as usize].into(),
            shortened: 0,
            service_slots: service_slots as usize,
            backend_slots: backend_slots as usize,
        }
    }

    /// Give every service and backend of a valid snapshot its slot, and retire the others.
    ///
    /// # Errors
    /// Nothing is changed when retired slots, whose conns still run, leave too few free.
    pub fn assign(&mut self, snapshot: &Snapshot) -> Result<(), Problem> {
        let fresh = self.services.newcomers(snapshot.services.iter().map(|s| &s.name));
        if fresh > self.services.free.len() {
            return Err(still_draining("services", fresh, self.services.free.len()));
        }
        // A service without a slot has only new backends.
        let known = |name: &str| {
            self.services.slots.get(name).or_else(|| self.services.retired.get(name)).copied()
        };
        let fresh: usize = snapshot
            .services
            .iter()
            .map(|s| match known(&s.name) {
                None => s.backends.len(),
                Some(slot) => {
                    let keys: Vec<BackendKey> =
                        s.backends.iter().map(|b| (ServiceSlot(slot as u16), b.id())).collect();
                    self.backends.newcomers(keys.iter())
                }
            })
            .sum();
        if fresh > self.backends.free.len() {
            return Err(still_draining("backends", fresh, self.backends.free.len()));
        }

        let backends = snapshot.services.iter().map(|s| s.backends.len()).sum();
        let mut wanted = HashSet::with_capacity_and_hasher(backends, RandomState::default());
        for service in &snapshot.services {
            let slot = ServiceSlot(self.services.claim(&service.name) as u16);
            let timeouts = state_timeouts(&service.timeouts);
            let old = self.timeouts[slot.index()];
            if old != timeouts {
                Arc::make_mut(&mut self.timeouts)[slot.index()] = timeouts;
            }
            if old.iter().zip(&timeouts).any(|(old, new)| new < old) {
                self.shortened += 1;
            }
            for backend in &service.backends {
                let key = (slot, backend.id());
                self.backends.claim(&key);
                wanted.insert(key);
            }
        }
        let names: HashSet<&str, RandomState> =
            snapshot.services.iter().map(|s| s.name.as_str()).collect();
        self.services.retire_all_but(|name| names.contains(name.as_str()));
        self.backends.retire_all_but(|key| wanted.contains(key));
        Ok(())
    }

    /// Slot of a service in the snapshot.
    pub fn service(&self, name: &str) -> Option<ServiceSlot> {
        self.services.slots.get(name).map(|slot| ServiceSlot(*slot as u16))
    }

    /// Slot of a backend in the snapshot.
    pub fn backend(&self, key: &BackendKey) -> Option<BackendSlot> {
        self.backends.slots.get(key).map(|slot| BackendSlot(*slot))
    }

    /// Goes up when a timeout of a slot is shortened: its conns' timers are to be looked at, those of a
    /// service that went and comes back among them.
    pub fn shortened(&self) -> u64 {
        self.shortened
    }

    /// Timeouts by service slot, retired ones included.
    pub fn timeouts(&self) -> &Arc<[StateTimeouts]> {
        &self.timeouts
    }

    /// Free retired slots without conns; `conns` tells how many a backend slot has, `freed` hears
    /// of each slot that is free now. Call when every worker forwards by a snapshot that no longer
    /// has them.
    pub fn reclaim(&mut self, conns: impl Fn(BackendSlot) -> u64, mut freed: impl FnMut(Freed)) {
        self.backends.reclaim(
            |_, slot| conns(BackendSlot(slot)) == 0,
            |key, slot| freed(Freed::Backend { service: key.0, slot: BackendSlot(slot) }),
        );
        let backends = &self.backends;
        self.services.reclaim(
            |_, slot| !backends.retired.keys().any(|(service, _)| u32::from(service.0) == slot),
            |_, slot| freed(Freed::Service { slot: ServiceSlot(slot as u16) }),
        );
    }

    /// Whether any slot waits to be reclaimed.
    pub fn has_retired(&self) -> bool {
        !self.backends.retired.is_empty() || !self.services.retired.is_empty()
    }

    /// Backends that are no longer in the snapshot: service slot and backend slot.
    pub fn retired_backends(&self) -> impl Iterator<Item = (ServiceSlot, BackendSlot)> + '_ {
        self.backends.retired.iter().map(|(key, slot)| (key.0, BackendSlot(*slot)))
    }

    /// All backends that hold slots, retired ones included: service slot and backend slot.
    pub fn all_backends(&self) -> impl Iterator<Item = (ServiceSlot, BackendSlot)> + '_ {
        let retired = self.backends.retired.iter();
        self.backends.slots.iter().chain(retired).map(|(key, slot)| (key.0, BackendSlot(*slot)))
    }

    /// How many services and backends hold slots, retired ones included, and how many slots there
    /// are: ((services, slots), (backends, slots)).
    pub fn usage(&self) -> ((usize, usize), (usize, usize)) {
        (
            (self.service_slots - self.services.free.len(), self.service_slots),
            (self.backend_slots - self.backends.free.len(), self.backend_slots),
        )
    }
}

fn still_draining(what: &str, wanted: usize, free: usize) -> Problem {
    Problem::new(
        what,
        format!("{wanted} new entries"),
        format!(
            "at most {free} new ones until conns of removed {what} have ended, or higher [limits]"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use sluice_api::{Mode, Protocol, SnapshotService};

    /// A service with backends 10.0.1.1, 10.0.1.2, …
    fn service(name: &str, backends: u16) -> SnapshotService {
        testkit::service(name, 80, Protocol::Tcp, Mode::Dr, backends)
    }

    fn snapshot(services: Vec<SnapshotService>) -> Snapshot {
        testkit::snapshot(1, services)
    }

    #[test]
    fn slots_stay_while_conns_run_and_come_back_afterwards() {
        let mut slots = Slots::new(1, 2);
        let room = slots.usage().1.1;
        slots.assign(&snapshot(vec![service("a", 2)])).unwrap();
        let key =
            (slots.service("a").unwrap(), BackendId { address: [10, 0, 1, 1].into(), port: 80 });
        let slot = slots.backend(&key).unwrap();

        slots.assign(&snapshot(vec![service("b", 1)])).unwrap();
        assert_eq!(slots.backend(&key), None);
        let mut freed = vec![];
        slots.reclaim(|s| u64::from(s == slot), |f| freed.push(f));
        assert!(matches!(freed[..], [Freed::Backend { .. }]), "the other one had no conn");
        assert_eq!(slots.usage(), ((2, 66), (2, room)));

        // It comes back before its conns have ended: same slot, same counters.
        slots.assign(&snapshot(vec![service("a", 1)])).unwrap();
        assert_eq!(slots.backend(&key), Some(slot));
        slots.reclaim(|_| 0, |_| {});
        assert_eq!(slots.usage(), ((1, 66), (1, room)));
    }

    #[test]
    fn too_few_slots_are_refused_before_anything_changes() {
        let mut slots = Slots::new(1, 1);
        slots.assign(&snapshot(vec![service("a", 60)])).unwrap();
        let problem = slots.assign(&snapshot(vec![service("b", 60)])).unwrap_err();
        assert_eq!(
            (problem.field.as_str(), problem.value.as_str()),
            ("backends", "60 new entries")
        );
        assert!(slots.service("a").is_some() && slots.service("b").is_none());
    }
}
