//! The snapshot that the data plane shall forward by.

use std::sync::Arc;

use sluice_api::{Service, Shared, Snapshot, SnapshotService};

use super::spare;
use crate::world::World;

/// What the data plane shall forward by, less what it would not take; its generation is 0, as only
/// the publisher numbers it.
pub fn snapshot(world: &World) -> Snapshot {
    let services = world.state.services.iter().map(|s| service(world, s)).collect();
    whole(world, services)
}

/// The snapshot of a world, and what it was composed of, so that the next one can share with it what has
/// not changed: then one weight among 40,000 backends costs its service, here and at the data plane.
pub struct Composed {
    world: Arc<World>,
    /// The snapshot.
    pub snapshot: Snapshot,
}

impl Composed {
    /// Of this world.
    pub fn of(world: Arc<World>) -> Self {
        Composed { snapshot: snapshot(&world), world }
    }

    /// The snapshot of another world, which is equal to that of [`Composed::of`].
    pub fn next(&self, world: Arc<World>) -> Self {
        let former = &self.world;
        let is_all_in = former.left_out.is_empty() && world.left_out.is_empty();
        let are_kept = is_all_in && Arc::ptr_eq(&former.around, &world.around);
        if !are_kept {
            return Composed::of(world);
        }
        let services = &world.state.services;
        let mut held =
            former.state.services.shared().iter().zip(&self.snapshot.services).peekable();
        let of = |now: &Arc<Service>| {
            // What is gone stands before what has stayed.
            while held.next_if(|(was, _)| services.get_shared(&was.name).is_none()).is_some() {}
            match held.next_if(|(was, _)| was.name == now.name) {
                Some((was, composed))
                    if Arc::ptr_eq(was, now)
                        && world.observed.has_same_of(&former.observed, &now.name) =>
                {
                    composed.clone()
                }
                _ => service(&world, now),
            }
        };
        let composed = services.shared().iter().map(of).collect();
        Composed { snapshot: whole(&world, composed), world }
    }
}

fn service(world: &World, service: &Service) -> Shared<SnapshotService> {
    let is_healthy = |b: &_| world.observed.is_healthy(service, b);
    let mut composed = SnapshotService::from_service(service, is_healthy);
    world.left_out.trim_service(&mut composed);
    spare::unreachable(&mut composed, &world.around);
    composed.into()
}

fn whole(world: &World, services: Vec<Shared<SnapshotService>>) -> Snapshot {
    let (pools, no_service) = (world.state.pools.to_vec(), world.no_service);
    let mut snapshot = Snapshot { generation: 0, services, pools, no_service };
    world.left_out.trim(&mut snapshot);
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthChange;
    use crate::model::{Environment, State};
    use serde_json::json;
    use sluice_api::Refusal;

    fn services() -> Vec<Service> {
        let service = |n: u8| {
            let backend = |b: u8| json!({"address": format!("10.0.{n}.{b}"), "port": 80});
            let check = if n.is_multiple_of(2) { json!({}) } else { json!(null) };
            serde_json::from_value(json!({
                "name": format!("s{n}"), "vip": format!("198.51.100.{n}"), "port": 80,
                "protocol": "tcp", "mode": "dr", "health_check": check,
                "backends": [backend(1), backend(2)]
            }))
            .unwrap()
        };
        (1..7).map(service).collect()
    }

    fn adopt(world: &mut World, change: impl FnOnce(&mut State)) {
        let mut next = State::clone(&world.state);
        change(&mut next);
        next.version += 1;
        world.adopt(Arc::new(next), Refusal::default(), 1);
    }

    fn health(world: &mut World, service: u8, healthy: bool) {
        let backend = format!("10.0.{service}.1:80").parse().unwrap();
        let (service, reason) = (format!("s{service}"), "told".to_owned());
        let change = HealthChange { service, backend, healthy: Some(healthy), reason, at_ms: 1 };
        assert!(world.note_health(&change));
    }

    /// Each change in turn: the next snapshot is the one that is composed from nothing, and shares so many
    /// services with the one before.
    #[test]
    fn the_next_one_shares_what_has_not_changed_and_is_as_if_composed_anew() {
        type Change = fn(&mut World);
        let changes: [(Change, usize); 10] = [
            (|_| (), 6),
            (|w| adopt(w, |s| s.services.get_mut("s3").unwrap().backends[0].weight = 7), 5),
            (|w| health(w, 2, true), 5),
            (|w| health(w, 4, false), 5),
            (|w| adopt(w, |s| s.services.remove("s3")), 5),
            (|w| adopt(w, |s| s.services.put(services().remove(2))), 5),
            (|w| adopt(w, |s| s.services.remove("s1")), 5),
            (
                |w| {
                    let port_addresses = vec![[10, 0, 5, 2].into()];
                    w.set_environment(Environment { port_addresses, ..Environment::default() });
                },
                0,
            ),
            (
                |w| {
                    w.set_environment(Environment::default());
                    w.set_surroundings(|a| a.unreachable.extend([([10, 0, 5, 1].into(), None)]));
                },
                0,
            ),
            (
                |w| adopt(w, |s| s.services = services().into_iter().rev().map(Arc::new).collect()),
                0,
            ),
        ];
        let mut world =
            World::new(State { version: 1, services: services().into(), ..State::default() }, 0);
        let mut composed = Composed::of(Arc::new(world.clone()));
        for (round, (change, shared)) in changes.into_iter().enumerate() {
            change(&mut world);
            let next = composed.next(Arc::new(world.clone()));
            assert_eq!(next.snapshot, snapshot(&world), "change {round}");
            let (before, now) = (&composed.snapshot.services, &next.snapshot.services);
            let kept = now.iter().filter(|now| before.iter().any(|was| was.is(now))).count();
            assert_eq!(kept, shared, "change {round}");
            composed = next;
        }
    }
}
