//! Changes of degree: another weight, health or state of backends that are there, and stay. They come by
//! the thousand where everything else comes now and then, and nothing but their services is looked at:
//! addresses, slots, port spaces and next hops are those of the snapshot before.

use std::sync::Arc;

use sluice_api::{AdminState, Snapshot, SnapshotBackend};

use super::{Compiled, CompiledService};
use crate::flow::Endpoint;
use crate::slots::Slots;

impl Compiled {
    /// The places of the services that `snapshot` has otherwise, when it differs from this one in degree
    /// alone ([`SnapshotService::differs_in_degree`]); none when it differs in anything else.
    pub fn differing_in_degree(&self, snapshot: &Snapshot) -> Option<Vec<u32>> {
        let is_alike = self.generation > 0
            && self.order.len() == snapshot.services.len()
            && *self.pools == *snapshot.pools;
        if !is_alike {
            return None;
        }
        let mut changed = Vec::new();
        for (place, (old, new)) in (0..).zip(self.order.iter().zip(&snapshot.services)) {
            if old.source.is(new) {
                continue;
            }
            if !old.source.differs_in_degree(new) {
                return None;
            }
            if old.source != *new {
                changed.push(place);
            }
        }
        Some(changed)
    }

    /// Compile a snapshot of which this is all that differs from the `previous` one, doing something else
    /// after each service.
    pub(super) fn by_degree(
        snapshot: &Snapshot,
        changed: Vec<u32>,
        slots: &Slots,
        previous: &Compiled,
        mut between: impl FnMut(),
    ) -> Self {
        let mut services = previous.services.clone();
        let mut order = previous.order.clone();
        let mut gone = previous.gone.clone();
        for place in &changed {
            let source = &snapshot.services[*place as usize];
            let former = &previous.order[*place as usize];
            let local = former.local_addresses.clone();
            let compiled =
                Arc::new(CompiledService::new(source, slots, local, &previous.port_spaces));
            mark_gone(&mut gone, &compiled);
            let key = Endpoint::of_valid(source.vip, source.port, source.protocol);
            services.insert(key, Arc::clone(&compiled));
            order[*place as usize] = compiled;
            between();
        }
        Compiled {
            generation: snapshot.generation,
            timeouts: Arc::clone(&previous.timeouts),
            port_spaces: Arc::clone(&previous.port_spaces),
            no_service: snapshot.no_service,
            conns_may_arrive: previous.conns_may_arrive,
            shortened: previous.shortened,
            routes: Arc::clone(&previous.routes),
            backend_hops: Arc::clone(&previous.backend_hops),
            services,
            order,
            changed: changed.into(),
            left: Box::default(),
            retired_backends: slots.retired_backends().collect(),
            pools: previous.pools.clone(),
            addresses: previous.addresses.clone(),
            retired: previous.retired.clone(),
            leaving: Arc::clone(&previous.leaving),
            resetting: previous.resetting.clone(),
            ours: previous.ours.clone(),
            gone,
        }
    }
}

/// Whether a backend's conns can go nowhere.
fn is_dead(backend: &SnapshotBackend) -> bool {
    !backend.healthy || backend.state == AdminState::Down
}

/// Set the bits of [`Compiled::is_gone`] of a service's backends.
pub(super) fn mark_gone(bits: &mut [u64], service: &CompiledService) {
    for (source, compiled) in service.source.backends.iter().zip(&service.backends) {
        let (slot, bit) = (compiled.slot.index(), u64::from(is_dead(source)));
        let word = &mut bits[slot / 64];
        *word = *word & !(1 << (slot % 64)) | bit << (slot % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BackendSlot;
    use crate::testkit;
    use proptest::prelude::*;
    use sluice_api::{Mode, Protocol, SnapshotService, validate};

    fn services() -> Vec<SnapshotService> {
        let service = |n: u16| {
            let mode = if n.is_multiple_of(2) { Mode::FullNat } else { Mode::Dr };
            testkit::service(&format!("s{n}"), 1_000 + n, Protocol::Tcp, mode, 4)
        };
        (0..6).map(service).collect()
    }

    fn compile(snapshot: &Snapshot, slots: &mut Slots, previous: &Compiled) -> Compiled {
        slots.assign(snapshot).unwrap();
        Compiled::new(snapshot, slots, &testkit::own_addresses(), previous)
    }

    /// What workers see of it.
    fn seen(compiled: &Compiled, slots: &Slots) -> Vec<String> {
        let services = compiled.services().iter().map(|service| {
            let gone = service.backends.iter().map(|b| compiled.is_gone(b.slot));
            let (source, gone) = (&*service.source, gone.collect::<Vec<_>>());
            let spaces = service.port_spaces.len();
            let key = Endpoint::of_valid(source.vip, source.port, source.protocol);
            let found = compiled.services.get(&key).is_some_and(|s| Arc::ptr_eq(s, service));
            format!("{source:?} {:?} {gone:?} {spaces} {found}", service.weights)
        });
        let all = services.chain([format!("{:?}", compiled.addresses)]);
        let gone = slots.all_backends().map(|(_, slot)| compiled.is_gone(slot));
        all.chain([format!("{:?}", gone.collect::<Vec<_>>())]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Changes of degree, one after another, lead where a snapshot leads that is compiled at once; and
        /// all rules hold that held before.
        #[test]
        fn they_lead_where_a_whole_snapshot_leads(
            changes in proptest::collection::vec((0usize..6, 0usize..4, 0u16..3, any::<bool>(), 0u8..3), 1..12)
        ) {
            let limits = testkit::test_limits();
            let mut slots = Slots::new(limits.services, limits.backends);
            let mut snapshot = testkit::snapshot(1, services());
            let mut compiled = compile(&snapshot, &mut slots, &testkit::nothing_compiled());
            for (service, backend, weight, healthy, state) in changes {
                let mut next = Snapshot { generation: snapshot.generation + 1, ..snapshot.clone() };
                let backend = &mut next.services[service].backends[backend];
                (backend.weight, backend.healthy) = (weight, healthy);
                backend.state = [AdminState::Up, AdminState::Drain, AdminState::Down][usize::from(state)];
                let differing = compiled.differing_in_degree(&next).expect("in degree alone");
                let is_same = snapshot.services == next.services;
                prop_assert_eq!(differing, if is_same { vec![] } else { vec![service as u32] });
                let before = compiled;
                compiled = compile(&next, &mut slots, &before);
                prop_assert!(Arc::ptr_eq(&compiled.port_spaces, &before.port_spaces));
                let kept = compiled.order.iter().zip(&before.order).filter(|(a, b)| Arc::ptr_eq(a, b));
                prop_assert_eq!(kept.count(), if is_same { 6 } else { 5 });
                snapshot = next;
            }
            prop_assert!(validate::snapshot(&snapshot, &limits, &[]).is_empty());
            let whole = compile(&snapshot, &mut slots, &testkit::nothing_compiled());
            prop_assert_eq!(seen(&compiled, &slots), seen(&whole, &slots));
        }
    }

    #[test]
    fn what_is_more_than_degree_is_compiled_as_a_whole() {
        let limits = testkit::test_limits();
        let mut slots = Slots::new(limits.services, limits.backends);
        let first = testkit::snapshot(1, services());
        let compiled = compile(&first, &mut slots, &testkit::nothing_compiled());
        let changes: [fn(&mut Snapshot); 7] = [
            |next| next.services[0].backends.truncate(3),
            |next| next.services.swap(0, 1),
            |next| next.services[0].backends[0].port += 1,
            |next| next.services[1].timeouts.tcp_established_ms += 1,
            |next| next.services[0].maglev_slots = 509,
            |next| next.pools[0].drained = next.pools[0].addresses.clone(),
            |next| next.services.truncate(5),
        ];
        for change in changes {
            let mut next = first.clone();
            change(&mut next);
            assert_eq!(compiled.differing_in_degree(&next), None);
        }
        // One that is removed, and whose slot is used by another, is forgotten by what is shared.
        let mut next = Snapshot { generation: 2, ..first.clone() };
        next.services[1].backends[0].healthy = false;
        let ill = compile(&next, &mut slots, &compiled);
        let slot: BackendSlot = ill.services()[1].backends[0].slot;
        assert!(ill.is_gone(slot) && !compiled.is_gone(slot));
        next.generation = 3;
        next.services[1].backends[0].healthy = true;
        assert!(!compile(&next, &mut slots, &ill).is_gone(slot));
    }
}
