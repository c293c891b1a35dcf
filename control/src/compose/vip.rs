//! VIPs: the addresses that clients connect to, and what their services make of them on this node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sluice_api::Service;

use crate::derived::{Derived, ServiceState};
use crate::world::World;

/// A VIP, and how it fares on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip<'w> {
    /// The address.
    pub address: IpAddr,
    /// Names of its services, oldest first.
    pub services: Vec<&'w str>,
    /// Serving when all its services serve, down when none takes new conns, else degraded.
    pub state: ServiceState,
    /// Why it is not serving.
    pub reason: Option<String>,
    /// Whether the data plane has told the networks of its ports where it is (gratuitous ARP); absent
    /// while nobody knows.
    pub announced: Option<bool>,
}

/// All VIPs, in order.
pub fn vips(world: &World) -> Vec<Vip<'_>> {
    let mut by_address: BTreeMap<IpAddr, Vec<&Service>> = BTreeMap::new();
    for service in &world.state.services {
        by_address.entry(service.vip).or_default().push(service);
    }
    by_address.into_iter().map(|(address, services)| of(world, address, &services)).collect()
}

/// The VIP with this address, if any service has it.
pub fn vip(world: &World, address: IpAddr) -> Option<Vip<'_>> {
    let services = world.state.services.iter().filter(|service| service.vip == address);
    let services: Vec<_> = services.collect();
    (!services.is_empty()).then(|| of(world, address, &services))
}

fn of<'w>(world: &World, address: IpAddr, services: &[&'w Service]) -> Vip<'w> {
    let fare: Vec<(&str, Derived)> =
        services.iter().map(|s| (s.name.as_str(), super::service(world, s))).collect();
    let (state, reason) = state(&fare);
    let known = world.link.status.as_ref().filter(|_| world.link.connected);
    let announced = known.map(|status| status.announced.contains(&address));
    Vip {
        address,
        services: fare.iter().map(|(name, _)| *name).collect(),
        state,
        reason,
        announced,
    }
}

fn state(services: &[(&str, Derived)]) -> (ServiceState, Option<String>) {
    let all_are = |state| services.iter().all(|(_, derived)| derived.state == state);
    if all_are(ServiceState::Serving) {
        return (ServiceState::Serving, None);
    }
    let trouble = services.iter().filter(|(_, derived)| derived.state != ServiceState::Serving);
    let told = trouble.map(|(name, derived)| match &derived.reason {
        Some(reason) => format!("service {name} is {}: {reason}", derived.state.word()),
        None => format!("service {name} is {}", derived.state.word()),
    });
    let reason = told.collect::<Vec<_>>().join("; ");
    let state =
        if all_are(ServiceState::Down) { ServiceState::Down } else { ServiceState::Degraded };
    (state, Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;
    use ServiceState::{Degraded, Down, Serving};
    use serde_json::json;

    fn service(name: &str, last: u8, port: u16, backends: &[&str]) -> Service {
        let backends: Vec<_> =
            backends.iter().map(|address| json!({"address": address, "port": port})).collect();
        serde_json::from_value(json!({
            "name": name, "vip": format!("198.51.100.{last}"), "port": port, "protocol": "tcp",
            "mode": "dr", "backends": backends,
        }))
        .unwrap()
    }

    #[test]
    fn a_vip_fares_as_its_services_do() {
        let one: &[&str] = &["10.0.0.1"];
        let services = vec![
            service("web", 2, 80, one),
            service("api", 1, 80, &[]),
            service("api-tls", 1, 443, &[]),
            service("web-tls", 2, 443, one),
            service("mail", 3, 25, one),
            service("imap", 3, 993, &[]),
        ];
        let world =
            World::new(State { version: 1, services: services.into(), ..State::default() }, 0);
        let told = |vip: &Vip| {
            let last = vip.address.to_string().rsplit('.').next().unwrap().parse().unwrap();
            (last, vip.services.join(" "), vip.state)
        };
        let all = vips(&world);
        assert_eq!(
            all.iter().map(told).collect::<Vec<_>>(),
            [
                (1, "api api-tls".to_owned(), Down),
                (2, "web web-tls".to_owned(), Serving),
                (3, "mail imap".to_owned(), Degraded),
            ]
        );
        assert_eq!(all[1].reason, None);
        let reason = "service imap is down: it has no backends";
        assert_eq!(all[2].reason.as_deref(), Some(reason));
        for one in &all {
            assert_eq!(one.announced, None, "no data plane has told");
            assert_eq!(vip(&world, one.address).as_ref(), Some(one));
        }
        assert_eq!(vip(&world, [198, 51, 100, 4].into()), None);
    }
}
