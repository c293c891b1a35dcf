//! Whether a change breaks a rule, by what it changes: a state may have 100,000 backends, and most changes
//! are about one.

use std::collections::HashSet;
use std::net::IpAddr;

use sluice_api::{Problems, Refusal, Service, Snapshot, SnapshotService, validate};

use super::{Environment, collect_own};
use crate::model::{Changed, State};

/// Whether `next` for sure breaks no rule that `state` does not break. What is changed of services is looked
/// at, and what that may collide with; of other changes nothing is said, and the whole must be looked at.
pub fn keeps_rules(state: &State, next: &State, environment: &Environment) -> bool {
    if !state.pools.changes(&next.pools).is_empty() || next.services.has_namesakes() {
        return false;
    }
    let changes = state.services.changes(&next.services);
    let changed: Vec<&Service> = changes.iter().filter_map(|c| c.now).map(AsRef::as_ref).collect();
    fits_limits(next, environment)
        && keep_own_rules(&changed, next, environment)
        && collide_with_none(&changes, next)
}

/// The rules of the changed services by themselves, and with pools and the data plane's ports.
fn keep_own_rules(changed: &[&Service], next: &State, environment: &Environment) -> bool {
    let part = Snapshot {
        generation: 0,
        services: changed
            .iter()
            .map(|s| SnapshotService::from_service(s, |_| true).into())
            .collect(),
        pools: next.pools.to_vec(),
        no_service: Refusal::default(),
    };
    let mut problems = Problems::default();
    validate::collect(&mut problems, &part, &environment.limits, &environment.port_addresses);
    changed.iter().for_each(|service| collect_own(&mut problems, service));
    problems.is_empty()
}

fn fits_limits(next: &State, environment: &Environment) -> bool {
    let fits = |count: usize, most: u32| count <= most as usize;
    fits(next.services.len(), environment.limits.services)
        && fits(next.services.iter().map(|s| s.backends.len()).sum(), environment.limits.backends)
}

/// Changed services and all others: what clients connect to, and backends that would be VIPs.
fn collide_with_none(changes: &[Changed<Service>], next: &State) -> bool {
    let key = |s: &Service| (s.vip, s.port, s.protocol);
    let (mut keys, mut vips) = (HashSet::new(), HashSet::new());
    let mut addresses: HashSet<IpAddr> = HashSet::new();
    for (before, now) in changes.iter().filter_map(|c| Some((c.before, c.now?))) {
        let before = before.map(AsRef::as_ref);
        if before.map(key) != Some(key(now)) {
            keys.insert(key(now));
        }
        if before.map(|service| service.vip) != Some(now.vip) {
            vips.insert(now.vip);
        }
        let known: HashSet<IpAddr> =
            before.iter().flat_map(|s| &s.backends).map(|b| b.address).collect();
        addresses.extend(now.backends.iter().map(|b| b.address).filter(|a| !known.contains(a)));
    }
    if keys.is_empty() && vips.is_empty() && addresses.is_empty() {
        return true;
    }
    let mut taken = keys.len();
    next.services.iter().all(|service| {
        // Each of the changed ones is met itself, once.
        let is_key = keys.contains(&key(service));
        let fits = !is_key || taken > 0;
        taken -= usize::from(is_key && taken > 0);
        let is_backend = |b: &sluice_api::Backend| vips.contains(&b.address);
        fits && !addresses.contains(&service.vip)
            && (vips.is_empty() || !service.backends.iter().any(is_backend))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::check;
    use serde_json::{Value, json};
    use sluice_api::Pool;
    use sluice_api::stats::Limits;

    fn state() -> State {
        let service = |n: u8| {
            let backends: Vec<Value> =
                (1..=3).map(|b| json!({"address": format!("10.1.{n}.{b}"), "port": 80})).collect();
            serde_json::from_value(json!({
                "name": format!("s{n}"), "vip": format!("198.51.100.{n}"), "port": 80,
                "protocol": "tcp", "mode": "full-nat", "pool": "p", "health_check": {},
                "backends": backends,
            }))
            .unwrap()
        };
        let services = (1..=5).map(service).collect::<Vec<Service>>().into();
        State {
            version: 1,
            services,
            pools: vec![Pool::new("p", vec![[10, 9, 0, 1].into()])].into(),
        }
    }

    /// What is said to keep the rules breaks none, and of what breaks none most is found to.
    #[test]
    fn nothing_that_breaks_a_rule_is_passed() {
        let environment = Environment {
            limits: Limits { services: 6, backends: 17, ..Limits::default() },
            port_addresses: vec![[10, 8, 0, 1].into()],
        };
        let mut found = [0; 3];
        let (services, addresses) =
            (["s1", "s2", "s6"], ["10.1.1.1", "10.1.9.9", "198.51.100.2", "10.9.0.1", "10.8.0.1"]);
        let mut tried = 0;
        for name in services {
            for vip in
                ["198.51.100.1", "198.51.100.2", "198.51.100.9", "10.1.1.1", "10.1.3.1", "10.9.0.1"]
            {
                for address in addresses {
                    for (port, zone) in [(80, "z"), (0, "z"), (81, "a zone")] {
                        for count in [1, 3] {
                            let old = state();
                            let mut next = old.clone();
                            let mut service = old.services[0].clone();
                            service.name = name.to_owned();
                            service.vip = vip.parse().unwrap();
                            service.backends.truncate(count);
                            service.backends[0].address = address.parse().unwrap();
                            service.backends[0].port = port;
                            service.backends[0].zone = Some(zone.to_owned());
                            next.services.put(service);
                            let is_good = check::state(&next, &environment).is_empty();
                            let keeps = keeps_rules(&old, &next, &environment);
                            assert!(is_good || !keeps, "{name} {vip} {address} {port} {zone}");
                            found[usize::from(is_good) + usize::from(keeps)] += 1;
                            tried += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(found.iter().sum::<usize>(), tried);
        assert!(found[0] > 100 && found[2] > 20, "{found:?}");
        assert_eq!(found[1], 0, "all that is good is found to be");
    }

    #[test]
    fn what_was_wrong_before_is_none_of_its_business() {
        let mut old = state();
        old.services.get_mut("s1").unwrap().backends[0].address = [198, 51, 100, 2].into();
        let mut next = old.clone();
        next.services.get_mut("s2").unwrap().backends[0].weight = 7;
        let environment = Environment::default();
        assert!(!check::state(&next, &environment).is_empty());
        assert!(keeps_rules(&old, &next, &environment));
        next.services.get_mut("s1").unwrap().backends[1].weight = 7;
        assert!(!keeps_rules(&old, &next, &environment), "the whole is to be looked at");
        next.pools.put(Pool::new("q", vec![[10, 1, 1, 1].into()]));
        assert!(!keeps_rules(&old, &next, &environment));
    }
}
