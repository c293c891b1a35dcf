//! What a data plane would not take of a state, so that the rest can be forwarded by. A snapshot is taken
//! whole or not at all: one service that breaks a rule would keep all others from it. Such a state comes
//! about when a data plane has addresses or limits that control did not know when it took the change.

use std::collections::HashMap;

use sluice_api::{BackendId, Problem, Problems, Snapshot, SnapshotService};

use super::State;
use super::check::{self, Environment};

/// The parts of a state that stay out of its snapshots, each with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    services: HashMap<String, String>,
    /// By service; those of services that are there.
    backends: HashMap<String, HashMap<BackendId, String>>,
    pools: HashMap<String, String>,
}

/// Whose a problem is.
#[derive(Debug, PartialEq, Eq)]
enum Owner<'a> {
    Pool(&'a str),
    Service(&'a str),
    Backend(&'a str, BackendId),
}

impl<'a> Owner<'a> {
    /// By the path of the field; `None` for what concerns the state as a whole, as its size.
    fn of(field: &'a str) -> Option<Owner<'a>> {
        let named = |list: &str| {
            let (name, rest) = field.strip_prefix(list)?.split_once(']')?;
            (!name.is_empty()).then_some((name, rest))
        };
        if let Some((pool, _)) = named("pools[") {
            return Some(Owner::Pool(pool));
        }
        let (service, rest) = named("services[")?;
        let backend = || rest.strip_prefix(".backends[")?.split_once(']')?.0.parse().ok();
        Some(backend().map_or(Owner::Service(service), |id| Owner::Backend(service, id)))
    }
}

impl LeftOut {
    /// What breaks a rule of `environment`'s data plane, or has a problem that it told itself. Without a
    /// pool its services are out, too.
    pub fn of(state: &State, environment: &Environment, told: &[Problem]) -> Self {
        let mut problems = Problems::keeping_all();
        check::collect_shared(&mut problems, state, environment);
        let mut left_out = LeftOut::default();
        for problem in problems.iter().chain(told) {
            let reason = || format!("the data plane does not take it: {problem}");
            match Owner::of(&problem.field) {
                Some(Owner::Pool(name)) => {
                    left_out.pools.entry(name.to_owned()).or_insert_with(reason);
                }
                Some(Owner::Service(name)) => {
                    left_out.services.entry(name.to_owned()).or_insert_with(reason);
                }
                Some(Owner::Backend(name, id)) => {
                    let backends = left_out.backends.entry(name.to_owned()).or_default();
                    backends.entry(id).or_insert_with(reason);
                }
                None => {}
            }
        }
        for service in &state.services {
            if let Some(reason) = service.pool.as_ref().and_then(|pool| left_out.pools.get(pool)) {
                let reason = || reason.clone();
                left_out.services.entry(service.name.clone()).or_insert_with(reason);
            }
        }
        left_out
    }

    /// Whether nothing stays out.
    pub fn is_empty(&self) -> bool {
        *self == LeftOut::default()
    }

    /// Take these parts out of a snapshot.
    pub fn trim(&self, snapshot: &mut Snapshot) {
        snapshot.pools.retain(|pool| !self.pools.contains_key(&pool.name));
        snapshot.services.retain(|service| !self.services.contains_key(&service.name));
        let has_some_out = |name: &String| self.backends.contains_key(name);
        for service in snapshot.services.iter_mut().filter(|service| has_some_out(&service.name)) {
            self.trim_service(service);
        }
    }

    /// Take its backends that are out, out of a service.
    pub fn trim_service(&self, service: &mut SnapshotService) {
        if let Some(out) = self.backends.get(&service.name) {
            service.backends.retain(|backend| !out.contains_key(&backend.id()));
        }
    }

    /// Why a service is out as a whole.
    pub fn service(&self, name: &str) -> Option<&str> {
        self.services.get(name).map(String::as_str)
    }

    /// Why a backend is out, by itself or with its service.
    pub fn backend(&self, service: &str, id: BackendId) -> Option<&str> {
        let own = || self.backends.get(service)?.get(&id).map(String::as_str);
        self.service(service).or_else(own)
    }

    /// Why a backend is out, or, without one, the service as a whole.
    pub fn part(&self, service: &str, id: Option<BackendId>) -> Option<&str> {
        id.map_or_else(|| self.service(service), |id| self.backend(service, id))
    }

    /// Why a pool is out.
    pub fn pool(&self, name: &str) -> Option<&str> {
        self.pools.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sluice_api::stats::Limits;
    use sluice_api::{Refusal, Shared};

    /// What a data plane whose port has 10.20.0.1 gets of a state: services with the last byte of each
    /// backend, and pools.
    fn composed(state: &State, told: &[Problem]) -> (LeftOut, Value) {
        let address = "10.20.0.1".parse().unwrap();
        let environment = Environment { limits: Limits::default(), port_addresses: vec![address] };
        let left_out = LeftOut::of(state, &environment, told);
        let services = state.services.iter().map(|s| SnapshotService::from_service(s, |_| true));
        let mut snapshot = Snapshot {
            generation: 0,
            services: services.map(Shared::new).collect(),
            pools: state.pools.to_vec(),
            no_service: Refusal::default(),
        };
        left_out.trim(&mut snapshot);
        let rest = sluice_api::validate::snapshot(
            &snapshot,
            &environment.limits,
            &environment.port_addresses,
        );
        assert_eq!(rest.into_vec(), [], "the data plane takes what is left");
        let services = snapshot.services.iter().map(|service| {
            let backends = service
                .backends
                .iter()
                .map(|b| b.address.to_string().rsplit('.').next().unwrap().parse::<u8>().unwrap());
            json!([service.name, backends.collect::<Vec<_>>()])
        });
        let pools = snapshot.pools.iter().map(|pool| pool.name.clone());
        let left = json!([services.collect::<Vec<_>>(), pools.collect::<Vec<_>>()]);
        (left_out, left)
    }

    fn state(services: &[(&str, &str, Option<&str>, &[&str])], pools: &[(&str, &str)]) -> State {
        let service = |(name, vip, pool, backends): &(&str, &str, Option<&str>, &[&str])| {
            let backend = |address: &&str| json!({"address": address, "port": 80});
            let backends: Vec<_> = backends.iter().map(backend).collect();
            let mode = if pool.is_some() { "full-nat" } else { "dr" };
            serde_json::from_value(json!({
                "name": name, "vip": vip, "port": 80, "protocol": "tcp", "mode": mode,
                "pool": pool, "backends": backends,
            }))
            .unwrap()
        };
        let pool = |(name, address): &(&str, &str)| {
            serde_json::from_value(json!({"name": name, "addresses": [address]})).unwrap()
        };
        State {
            version: 1,
            services: services.iter().map(service).collect::<Vec<_>>().into(),
            pools: pools.iter().map(pool).collect::<Vec<_>>().into(),
        }
    }

    const NO_PORT: &str = "is 10.20.0.1: expected an address that no port of the data plane has";

    #[test]
    fn only_what_breaks_a_rule_is_left_out() {
        let good: (&str, &str, Option<&str>, &[&str]) =
            ("good", "198.51.100.9", None, &["10.0.0.1", "10.0.0.2"]);
        let reason = |field: &str| format!("the data plane does not take it: {field} {NO_PORT}");

        let (left_out, left) = composed(&state(&[good], &[("p", "10.0.0.250")]), &[]);
        assert!(left_out.is_empty());
        assert_eq!(left, json!([[["good", [1, 2]]], ["p"]]));

        // A backend: the others of its service serve.
        let host = ("host", "198.51.100.1", None, &["10.20.0.1", "10.0.0.3"][..]);
        let (left_out, left) = composed(&state(&[host, good], &[]), &[]);
        assert_eq!(left, json!([[["host", [3]], ["good", [1, 2]]], []]));
        let id = "10.20.0.1:80".parse().unwrap();
        let expected = reason("services[host].backends[10.20.0.1:80].address");
        assert_eq!(left_out.backend("host", id), Some(expected.as_str()));
        assert_eq!(left_out.backend("host", "10.0.0.3:80".parse().unwrap()), None);
        assert_eq!(left_out.backend("good", id), None);
        assert_eq!(left_out.service("host"), None);

        // A VIP: the service, with all its backends.
        let vip = ("vip.1", "10.20.0.1", None, &["10.0.0.3"][..]);
        let (left_out, left) = composed(&state(&[vip, good], &[]), &[]);
        assert_eq!(left, json!([[["good", [1, 2]]], []]));
        let expected = reason("services[vip.1].vip");
        assert_eq!(left_out.service("vip.1"), Some(expected.as_str()));
        let id = "10.0.0.3:80".parse().unwrap();
        assert_eq!(left_out.backend("vip.1", id), Some(expected.as_str()));

        // A pool: with it the services that use it, and no others.
        let nat = ("nat", "198.51.100.2", Some("bad"), &["10.0.0.3"][..]);
        let other = ("other", "198.51.100.3", Some("p"), &["10.0.0.3"][..]);
        let pools = [("bad", "10.20.0.1"), ("p", "10.0.0.250")];
        let (left_out, left) = composed(&state(&[nat, other, good], &pools), &[]);
        assert_eq!(left, json!([[["other", [3]], ["good", [1, 2]]], ["p"]]));
        let expected = reason("pools[bad].addresses");
        assert_eq!(left_out.pool("bad"), Some(expected.as_str()));
        assert_eq!(left_out.service("nat"), Some(expected.as_str()));
        assert_eq!((left_out.pool("p"), left_out.service("other")), (None, None));
    }

    #[test]
    fn what_the_data_plane_told_counts_as_well() {
        let web = ("web", "198.51.100.1", None, &["10.0.0.1"][..]);
        let good = ("good", "198.51.100.9", None, &["10.0.0.1"][..]);
        let told = Problem::new("services[web].scheduler", "new", "one of old");
        let (left_out, left) = composed(&state(&[web, good], &[]), &[told]);
        assert_eq!(left, json!([[["good", [1]]], []]));
        let reason = left_out.service("web").unwrap();
        assert!(
            reason.ends_with("services[web].scheduler is new: expected one of old"),
            "{reason}"
        );
    }

    #[test]
    fn problems_belong_to_whom_their_field_names() {
        let id = "10.0.0.1:80".parse().unwrap();
        for (field, owner) in [
            ("pools[p.1].addresses", Some(Owner::Pool("p.1"))),
            ("services[web].vip", Some(Owner::Service("web"))),
            ("services[web].backends", Some(Owner::Service("web"))),
            ("services[web].backends[10.0.0.1:80].address", Some(Owner::Backend("web", id))),
            ("services[web].backends[10.0.0.1:80]", Some(Owner::Backend("web", id))),
            ("services", None),
            ("services[].backends", None),
            ("generation", None),
            ("(and more)", None),
        ] {
            assert_eq!(Owner::of(field), owner, "{field}");
        }
    }
}
