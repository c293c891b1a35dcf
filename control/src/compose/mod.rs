//! Where all that is known meets: the only maker of snapshots, and of what is said of services and
//! backends. Pure: no clock, no I/O.
//!
//! What enters: a [`World`]. What leaves: the [`Snapshot`] that the data plane shall forward by, how each
//! service fares, and whether each backend takes new conns. A rule about any of these is a function here,
//! or one that is called from here, with a table of cases.

mod snapshot;
mod spare;
mod vip;
mod withheld;

use sluice_api::{Backend, Service};

use crate::derived::{self, Derived, Taking};
use crate::world::World;

pub use snapshot::{Composed, snapshot};
pub use vip::{Vip, vip, vips};
pub use withheld::withheld;

/// How a service of the world's state fares.
pub fn service(world: &World, service: &Service) -> Derived {
    let health = service.backends.iter().map(|b| world.observed.health(service, b));
    let health: Vec<_> = health.collect();
    let pool = service.pool.as_ref().and_then(|name| world.state.pool(name));
    derived::derive(service, pool, &health, &world.around, &world.left_out)
}

/// All services of the world's state, each with how it fares.
pub fn services(world: &World) -> impl Iterator<Item = (&Service, Derived)> {
    world.state.services.iter().map(|s| (s, service(world, s)))
}

/// Whether a backend takes new conns.
pub fn taking(world: &World, service: &Service, backend: &Backend) -> Taking {
    let health = world.observed.health(service, backend);
    let left_out = world.left_out.backend(&service.name, backend.id());
    derived::taking(service.mode, backend, health, &world.around, left_out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::derived::ServiceState::{self, Degraded, Down, Serving};
    use crate::health::HealthChange;
    use crate::model::{Environment, State};
    use serde_json::{Value, json};
    use sluice_api::{Refusal, Shared, Snapshot, SnapshotService};

    /// Service `web` with backends 10.0.0.1 and 10.0.0.2, which are checked, and `api` with 10.0.0.3, which
    /// is not.
    fn world() -> World {
        let service = |name: &str, vip: &str, backends: Value, check: Value| {
            let service = json!({
                "name": name, "vip": vip, "port": 80, "protocol": "tcp", "mode": "dr",
                "health_check": check, "backends": backends,
            });
            serde_json::from_value(service).unwrap()
        };
        let two = json!([{"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 80}]);
        let one = json!([{"address": "10.0.0.3", "port": 80}]);
        let services: Vec<Service> = vec![
            service("web", "198.51.100.1", two, json!({})),
            service("api", "198.51.100.2", one, Value::Null),
        ];
        World::new(State { version: 1, services: services.into(), ..State::default() }, 0)
    }

    fn health(world: &mut World, last: u8, healthy: bool) {
        let backend = format!("10.0.0.{last}:80").parse().unwrap();
        let (service, reason) = ("web".to_owned(), "told".to_owned());
        let change = HealthChange { service, backend, healthy: Some(healthy), reason, at_ms: 1 };
        assert!(world.note_health(&change));
    }

    fn lost(world: &mut World, last: u8) {
        let address = [10, 0, 0, last].into();
        world.set_surroundings(|around| around.unreachable.extend([(address, None)]));
    }

    /// Each backend as its last byte, with `+` when it takes new conns, `d` when it drains, `-` else.
    fn in_words(snapshot: &Snapshot) -> String {
        let service = |service: &Shared<SnapshotService>| {
            let backends = service.backends.iter().map(|b| {
                let sign = match (b.takes_new_conns(), b.state) {
                    (true, _) => '+',
                    (false, sluice_api::AdminState::Drain) => 'd',
                    (false, _) => '-',
                };
                format!("{}{sign}", b.address.to_string().rsplit('.').next().unwrap_or_default())
            });
            format!("{}: {}", service.name, backends.collect::<Vec<_>>().join(" "))
        };
        snapshot.services.iter().map(service).collect::<Vec<_>>().join(", ")
    }

    type Case = (&'static str, fn(&mut World), &'static str, [ServiceState; 2]);

    #[test]
    fn what_is_known_makes_the_snapshot_and_says_how_services_fare() {
        let cases: [Case; 6] = [
            ("nothing is known", |_| (), "web: 1- 2-, api: 3+", [Down, Serving]),
            (
                "one is healthy, one is not",
                |world| {
                    health(world, 1, true);
                    health(world, 2, false);
                },
                "web: 1+ 2-, api: 3+",
                [Degraded, Serving],
            ),
            (
                "one has no next hop: the others get its conns",
                |world| {
                    health(world, 1, true);
                    health(world, 2, true);
                    lost(world, 1);
                },
                "web: 1d 2+, api: 3+",
                [Degraded, Serving],
            ),
            (
                "nobody has a next hop: the first packet after it is back is served",
                |world| lost(world, 3),
                "web: 1- 2-, api: 3+",
                [Down, Down],
            ),
            (
                "the data plane has a backend's address: it stays out",
                |world| {
                    let port_addresses = vec![[10, 0, 0, 2].into()];
                    health(world, 1, true);
                    world.set_environment(Environment { port_addresses, ..Environment::default() });
                },
                "web: 1+, api: 3+",
                [Degraded, Serving],
            ),
            (
                "the data plane told of a problem of a service: it stays out",
                |world| {
                    let problem = sluice_api::Problem::new("services[api].mode", "x", "y");
                    assert!(world.leave_out(1, &[problem]));
                },
                "web: 1- 2-",
                [Down, Down],
            ),
        ];
        for (what, change, expected, states) in cases {
            let mut world = world();
            change(&mut world);
            assert_eq!(in_words(&snapshot(&world)), expected, "{what}");
            let found: Vec<_> = services(&world).map(|(_, derived)| derived.state).collect();
            assert_eq!(found, states, "{what}");
            for service in &world.state.services {
                for backend in &service.backends {
                    let taking = taking(&world, service, backend);
                    assert_eq!(taking.takes_new_conns, taking.reason.is_none(), "{what}");
                }
            }
        }
    }

    #[test]
    fn a_snapshot_has_all_that_is_wanted_and_no_number() {
        let mut world = world();
        let mut state = State::clone(&world.state);
        state.services.remove("api");
        world.adopt(Arc::new(state), Refusal::Drop, 2);
        let snapshot = snapshot(&world);
        assert_eq!((snapshot.generation, snapshot.no_service), (0, Refusal::Drop));
        assert_eq!(in_words(&snapshot), "web: 1- 2-");
    }
}
