//! What follows the rules and yet cannot work, or only with the help of others: addresses that no
//! network or route of the data plane's ports leads to, schedulers with too little room. Such a state is
//! not refused, as networks and services change one after the other; it is warned of.

use std::net::IpAddr;

use sluice_api::{Backend, Scheduler, Service};

use super::State;

/// A network: an address in it, and its prefix length.
pub type Network = (IpAddr, u8);

/// What the data plane's ports lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The networks of its ports; empty when they are not known.
    pub networks: Vec<Network>,
    /// The destinations of its routes.
    pub routes: Vec<Network>,
}

impl Reach {
    fn is_near(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || is_in_one_of(&self.networks, address)
    }

    fn has_way(&self, address: IpAddr) -> bool {
        self.is_near(address) || is_in_one_of(&self.routes, address)
    }
}

/// Whether one of these networks holds an address.
pub fn is_in_one_of(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|(network, length)| match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(*length)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= u32::from(*length)
        }
        _ => false,
    })
}

/// A network as it is written, `10.0.0.1/24`.
pub fn network(text: &str) -> Option<Network> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    Some((address, length.parse().ok().filter(|length| *length <= longest)?))
}

/// What cannot work in a service, whatever routers and hosts around do.
pub fn cannot_work(service: &Service, networks: &[Network]) -> Vec<String> {
    let reach = Reach { networks: networks.to_vec(), routes: Vec::new() };
    let mut doubts = Vec::new();
    if service.mode.keeps_vip() {
        let far = backends(service, |backend| !reach.is_near(backend.address));
        doubts.extend(far.map(|(far, are)| {
            format!(
                "service {}: {far} {are} in no network of the data plane's ports: expected addresses in \
                 one, as with mode {} packets still go to the VIP, and a gateway would send them back",
                service.name, service.mode
            )
        }));
    }
    let sharing = service.backends.iter().filter(|backend| backend.weight > 0).count();
    let slots = service.maglev_table_slots();
    if service.scheduler == Scheduler::Maglev && usize::try_from(slots).is_ok_and(|s| s < sharing) {
        doubts.push(format!(
            "service {}: {sharing} backends share {slots} slots, so some get no conns: expected \
             maglev_slots to be a prime above {sharing}, better above {}",
            service.name,
            sharing.saturating_mul(100)
        ));
    }
    doubts
}

/// What cannot work in a state, or only where routers and hosts around do their part.
pub fn doubts(state: &State, reach: &Reach) -> Vec<String> {
    let mut doubts = Vec::new();
    for service in &state.services {
        doubts.append(&mut cannot_work(service, &reach.networks));
        let Service { name, vip, .. } = service;
        if !reach.is_near(*vip) {
            doubts.push(format!(
                "service {name}: VIP {vip} is in no network of the data plane's ports: routers must send \
                 it there"
            ));
        }
        if !service.mode.keeps_vip() {
            let lost = backends(service, |backend| !reach.has_way(backend.address));
            doubts.extend(lost.map(|(lost, are)| {
                format!("service {name}: {lost} {are} in no network of the data plane's ports, and no route leads there")
            }));
        }
    }
    for pool in &state.pools {
        if !pool.addresses.iter().any(|address| reach.is_near(*address)) {
            doubts.push(format!(
                "pool {}: its addresses are in no network of the data plane's ports: backends must have a \
                 route back",
                pool.name
            ));
        }
    }
    doubts
}

/// Names those of a service's backends that are so, with the verb that follows; none when none is.
fn backends(
    service: &Service,
    are_so: impl Fn(&Backend) -> bool,
) -> Option<(String, &'static str)> {
    let mut found = service.backends.iter().filter(|backend| are_so(backend));
    let first = found.next()?.id();
    Some(match found.count() {
        0 => (format!("backend {first}"), "is"),
        more => (format!("backend {first} and {more} more"), "are"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluice_api::Pool;

    fn service(mode: &str, vip: &str, backends: &[&str]) -> Service {
        let backends: Vec<_> =
            backends.iter().map(|address| json!({"address": address, "port": 80})).collect();
        let pool = (mode == "full-nat").then_some("lan");
        serde_json::from_value(json!({
            "name": "web", "vip": vip, "port": 80, "protocol": "tcp", "mode": mode, "pool": pool,
            "backends": backends,
        }))
        .unwrap()
    }

    fn told(service: Service, pool: &str, networks: &[&str], routes: &[&str]) -> Vec<String> {
        let read = |list: &[&str]| list.iter().map(|text| network(text).unwrap()).collect();
        let pool = service.pool.as_ref().map(|name| Pool::new(name, vec![pool.parse().unwrap()]));
        let state = State {
            version: 0,
            services: vec![service].into(),
            pools: Vec::from_iter(pool).into(),
        };
        doubts(&state, &Reach { networks: read(networks), routes: read(routes) })
    }

    const NEAR: &[&str] = &["10.10.0.1/24", "10.20.0.1/24"];
    const DEFAULT: &[&str] = &["0.0.0.0/0"];

    #[test]
    fn what_is_near_or_has_a_route_is_no_matter() {
        let nat = service("full-nat", "10.10.0.100", &["10.20.0.11", "10.30.0.11"]);
        assert_eq!(told(nat.clone(), "10.20.0.200", NEAR, DEFAULT), [""; 0]);
        let dr = service("dr", "10.10.0.100", &["10.20.0.11"]);
        assert_eq!(told(dr.clone(), "", NEAR, &[]), [""; 0]);
        // Nothing is said of networks that are not known.
        assert_eq!(told(nat, "192.0.2.1", &[], &[]), [""; 0]);
        assert_eq!(told(dr, "", &[], &[]), [""; 0]);
    }

    #[test]
    fn a_dr_backend_behind_a_gateway_cannot_work() {
        let dr = service("dr", "10.10.0.100", &["10.20.0.11", "10.30.0.11"]);
        assert_eq!(
            told(dr, "", NEAR, DEFAULT),
            [
                "service web: backend 10.30.0.11:80 is in no network of the data plane's ports: expected \
              addresses in one, as with mode dr packets still go to the VIP, and a gateway would send \
              them back"
            ]
        );
        let two = service("dr", "10.10.0.100", &["10.31.0.11", "10.30.0.11"]);
        let told = told(two, "", NEAR, DEFAULT);
        assert!(
            told[0].starts_with("service web: backend 10.31.0.11:80 and 1 more are in no"),
            "{told:?}"
        );
    }

    #[test]
    fn addresses_that_nothing_leads_to_are_told() {
        let nat = service("full-nat", "192.0.2.1", &["10.30.0.11"]);
        assert_eq!(
            told(nat, "192.0.2.7", NEAR, &["10.40.0.0/16"]),
            [
                "service web: VIP 192.0.2.1 is in no network of the data plane's ports: routers must send \
                 it there",
                "service web: backend 10.30.0.11:80 is in no network of the data plane's ports, and no \
                 route leads there",
                "pool lan: its addresses are in no network of the data plane's ports: backends must have \
                 a route back",
            ]
        );
    }

    #[test]
    fn more_backends_than_maglev_slots_are_told() {
        let addresses: Vec<_> = (0..=255).map(|last| format!("10.20.0.{last}")).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        let mut dr = service("dr", "10.10.0.100", &addresses[..251]);
        dr.maglev_slots = Some(251);
        assert_eq!(cannot_work(&dr, &[]), [""; 0], "as many as there are slots");
        let mut dr = service("dr", "10.10.0.100", &addresses[..252]);
        dr.maglev_slots = Some(251);
        assert_eq!(
            cannot_work(&dr, &[]),
            [
                "service web: 252 backends share 251 slots, so some get no conns: expected maglev_slots to \
              be a prime above 252, better above 25200"
            ]
        );
        dr.backends[0].weight = 0;
        assert_eq!(cannot_work(&dr, &[]), [""; 0], "one takes none");
        dr.backends[0].weight = 1;
        dr.scheduler = Scheduler::Wrr;
        assert_eq!(cannot_work(&dr, &[]), [""; 0], "slots are Maglev's");
    }
}
