//! What follows from desired state, observed health and what the data plane tells: does a service
//! serve, and which backends take new conns? Pure.
//!
//! | a service is | when |
//! |---|---|
//! | `serving` | backends take new conns, and the others do not by an operator's will, or wait for their first check |
//! | `degraded` | some take new conns, others cannot; or replies may not find back to its pool |
//! | `down` | no backend takes new conns, no local address is left for them, or the data plane does not take the service |
//!
//! It tells of services, not of the processes: whether the data plane is there at all, and has the last
//! snapshot, is what `/readyz` tells.

mod told;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::Serialize;
use sluice_api::stats::DataplaneStatus;
use sluice_api::{AdminState, Backend, Mode, Pool, Service};

use crate::model::LeftOut;
use crate::model::reach::{self, Network};
use crate::observed::Health;

pub use told::Told;

/// How a service fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// New conns are served as desired.
    Serving,
    /// They are served by fewer backends than desired, or perhaps not all.
    Degraded,
    /// They are not served.
    Down,
}

impl ServiceState {
    /// All, in order of harm.
    pub const ALL: [ServiceState; 3] =
        [ServiceState::Serving, ServiceState::Degraded, ServiceState::Down];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            ServiceState::Serving => "serving",
            ServiceState::Degraded => "degraded",
            ServiceState::Down => "down",
        }
    }
}

/// What the data plane tells of the networks around it, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Networks of its ports, as address and prefix length; empty when it has not told yet.
    pub networks: Vec<Network>,
    /// Addresses of backends that it cannot send to, each with the next hop that does not answer, or
    /// none where no route leads.
    pub unreachable: HashMap<IpAddr, Option<IpAddr>>,
}

impl Surroundings {
    /// The networks of a data plane's ports.
    pub fn networks_of(status: &DataplaneStatus) -> Vec<Network> {
        let addresses = status.ports.iter().flat_map(|port| &port.addresses);
        addresses.filter_map(|text| reach::network(text)).collect()
    }

    /// Whether the data plane is known not to reach a backend at this address: nobody on the way answers, or
    /// DR, which goes by MAC address, would have to pass a gateway.
    pub fn cut_off(&self, mode: Mode, backend: IpAddr) -> bool {
        self.unreachable.contains_key(&backend) || mode.keeps_vip() && self.is_in_none(backend)
    }

    /// Whether an address is known to be in no network of a port.
    fn is_in_none(&self, address: IpAddr) -> bool {
        !self.networks.is_empty() && !reach::is_in_one_of(&self.networks, address)
    }
}

/// Why a backend takes no new conns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle<'a> {
    Down,
    Drain,
    WeightZero,
    /// It is not in the snapshot, for this reason.
    LeftOut(&'a str),
    Unhealthy,
    Waiting,
    NextHop(IpAddr),
    NoRoute,
    Gateway,
}

impl Obstacle<'_> {
    /// Whether nobody needs to be told: an operator wants it so, or it is a matter of a moment.
    fn is_expected(self) -> bool {
        use Obstacle::*;
        matches!(self, Down | Drain | WeightZero | Waiting)
    }

    /// The word for several of them.
    fn group(self) -> &'static str {
        match self {
            Obstacle::Down => "down",
            Obstacle::Drain => "draining",
            Obstacle::WeightZero => "of weight 0",
            Obstacle::LeftOut(_) => "not taken by the data plane",
            Obstacle::Unhealthy => "unhealthy",
            Obstacle::Waiting => "waiting for the first check",
            Obstacle::NextHop(_) => "behind a next hop that does not answer",
            Obstacle::NoRoute => "without a route",
            Obstacle::Gateway => "behind a gateway, where DR does not lead",
        }
    }
}

impl fmt::Display for Obstacle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Down => f.write_str("it is down"),
            Obstacle::Drain => f.write_str("it is draining"),
            Obstacle::WeightZero => f.write_str("its weight is 0"),
            Obstacle::LeftOut(reason) => f.write_str(reason),
            Obstacle::Unhealthy => f.write_str("it is unhealthy"),
            Obstacle::Waiting => f.write_str("it waits for its first check"),
            Obstacle::NextHop(hop) => write!(f, "next hop {hop} does not answer the data plane"),
            Obstacle::NoRoute => f.write_str("no route of the data plane leads to it"),
            Obstacle::Gateway => {
                f.write_str("it is in no network of a port, and DR passes no gateway")
            }
        }
    }
}

/// Whether a backend takes new conns, as far as is known here: whether it has `max_conns` just now,
/// only the data plane knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Taking {
    /// Whether it does.
    pub takes_new_conns: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What follows for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// How it fares.
    pub state: ServiceState,
    /// Why it is not serving.
    pub reason: Option<String>,
    /// What may be wrong beside that.
    pub warnings: Vec<String>,
    /// Whether it waits for first checks: what it is, is not settled.
    pub is_settling: bool,
}

/// What follows for a service from its definition, its pool if there is one, the health of each of its
/// backends, what is around the data plane, and what that does not take.
pub fn derive(
    service: &Service,
    pool: Option<&Pool>,
    health: &[Health],
    around: &Surroundings,
    left_out: &LeftOut,
) -> Derived {
    let obstacle = |(backend, health): (&Backend, &Health)| {
        let left_out = left_out.backend(&service.name, backend.id());
        obstacle(service.mode, backend, *health, around, left_out)
    };
    let obstacles: Vec<Option<Obstacle>> =
        service.backends.iter().zip(health).map(obstacle).collect();
    let mut warnings = Vec::new();
    if around.is_in_none(service.vip) {
        warnings.push(format!(
            "VIP {} lies in no network of the data plane's ports: routers must send it there",
            service.vip
        ));
    }
    let (state, reason) = if let Some(reason) = left_out.service(&service.name) {
        (ServiceState::Down, Some(reason.to_owned()))
    } else if let Some(reason) = pool_is_shut(service, pool) {
        (ServiceState::Down, Some(reason))
    } else if let found @ (ServiceState::Degraded | ServiceState::Down, _) = by_backends(&obstacles)
    {
        found
    } else if let Some(reason) = pool_is_astray(pool, around) {
        (ServiceState::Degraded, Some(reason))
    } else {
        (ServiceState::Serving, None)
    };
    let is_settling = obstacles.contains(&Some(Obstacle::Waiting));
    Derived { state, reason, warnings, is_settling }
}

/// Whether a backend takes new conns; `left_out` says why it is not in the snapshot.
pub fn taking(
    mode: Mode,
    backend: &Backend,
    health: Health,
    around: &Surroundings,
    left_out: Option<&str>,
) -> Taking {
    let obstacle = obstacle(mode, backend, health, around, left_out);
    Taking {
        takes_new_conns: obstacle.is_none(),
        reason: obstacle.map(|obstacle| obstacle.to_string()),
    }
}

/// What an operator wants counts first, then whether the data plane has it, then health, then the way.
fn obstacle<'a>(
    mode: Mode,
    backend: &Backend,
    health: Health,
    around: &Surroundings,
    left_out: Option<&'a str>,
) -> Option<Obstacle<'a>> {
    match backend.state {
        AdminState::Down => return Some(Obstacle::Down),
        AdminState::Drain => return Some(Obstacle::Drain),
        AdminState::Up if backend.weight == 0 => return Some(Obstacle::WeightZero),
        AdminState::Up => {}
    }
    if let Some(reason) = left_out {
        return Some(Obstacle::LeftOut(reason));
    }
    match health {
        Health::Unhealthy => return Some(Obstacle::Unhealthy),
        Health::Unknown => return Some(Obstacle::Waiting),
        Health::Healthy | Health::Unchecked => {}
    }
    if mode.keeps_vip() && around.is_in_none(backend.address) {
        return Some(Obstacle::Gateway);
    }
    let next_hop = around.unreachable.get(&backend.address)?;
    Some(next_hop.map_or(Obstacle::NoRoute, Obstacle::NextHop))
}

fn by_backends(obstacles: &[Option<Obstacle>]) -> (ServiceState, Option<String>) {
    let all = obstacles.len();
    let mut groups: BTreeMap<Obstacle, usize> = BTreeMap::new();
    for obstacle in obstacles.iter().flatten() {
        // All next hops are one group, and all reasons.
        let group = match obstacle {
            Obstacle::NextHop(_) => Obstacle::NextHop(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            Obstacle::LeftOut(_) => Obstacle::LeftOut(""),
            other => *other,
        };
        *groups.entry(group).or_default() += 1;
    }
    let told: Vec<String> =
        groups.iter().map(|(group, count)| format!("{count} {}", group.group())).collect();
    let (lost, told) = (groups.values().sum::<usize>(), told.join(", "));
    if all == 0 {
        (ServiceState::Down, Some("it has no backends".to_owned()))
    } else if lost == all {
        let text = format!("none of {all} backends takes new conns: {told}");
        (ServiceState::Down, Some(text))
    } else if groups.keys().any(|group| !group.is_expected()) {
        let text = format!("{lost} of {all} backends take no new conns: {told}");
        (ServiceState::Degraded, Some(text))
    } else {
        (ServiceState::Serving, None)
    }
}

/// Why no new conn gets a local address.
fn pool_is_shut(service: &Service, pool: Option<&Pool>) -> Option<String> {
    let name = service.pool.as_ref()?;
    match pool {
        None => Some(format!("there is no pool {name}")),
        Some(pool) if pool.open_addresses().next().is_none() => {
            Some(format!("all addresses of pool {name} are drained"))
        }
        Some(_) => None,
    }
}

/// Why replies may not find back.
fn pool_is_astray(pool: Option<&Pool>, around: &Surroundings) -> Option<String> {
    let pool = pool?;
    let astray = pool.open_addresses().all(|address| around.is_in_none(address));
    astray.then(|| {
        format!(
            "no address of pool {} lies in a network of the data plane's ports: backends must have a \
             route back",
            pool.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluice_api::Problem;
    use sluice_api::stats::PortStatus;

    use crate::model::{Environment, State};

    use ServiceState::{Degraded, Down, Serving};

    /// A service with one backend per letter: up, draining, down, of weight zero.
    fn service(backends: &str, pool: Option<&str>) -> Service {
        let backend = |(n, letter): (usize, char)| {
            let state = match letter {
                'd' => "drain",
                'x' => "down",
                _ => "up",
            };
            let weight = if letter == '0' { 0 } else { 100 };
            json!({"address": format!("10.0.0.{}", n + 1), "port": 80, "state": state, "weight": weight})
        };
        let backends: Vec<_> = backends.chars().enumerate().map(backend).collect();
        let mode = if pool.is_some() { "full-nat" } else { "dr" };
        serde_json::from_value(json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": mode,
            "pool": pool, "backends": backends,
        }))
        .unwrap()
    }

    fn health(letters: &str) -> Vec<Health> {
        let health = |letter| match letter {
            '+' => Health::Healthy,
            '-' => Health::Unhealthy,
            '?' => Health::Unknown,
            _ => Health::Unchecked,
        };
        letters.chars().map(health).collect()
    }

    fn around(networks: &[&str], unreachable: &[(&str, Option<&str>)]) -> Surroundings {
        let network = |text: &&str| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        Surroundings {
            networks: networks.iter().map(network).collect(),
            unreachable: unreachable
                .iter()
                .map(|(to, hop)| (to.parse().unwrap(), hop.map(|hop| hop.parse().unwrap())))
                .collect(),
        }
    }

    /// A service with these backends of this health fares so, in these surroundings.
    fn check(
        (backends, letters): (&str, &str),
        around: &Surroundings,
        state: ServiceState,
        reason: Option<&str>,
    ) {
        let service = service(backends, None);
        let derived = derive(&service, None, &health(letters), around, &LeftOut::default());
        let found = (derived.state, derived.reason.as_deref());
        assert_eq!(found, (state, reason), "{backends} {letters}");
        assert_eq!(derived.warnings, [""; 0]);
        assert_eq!(derived.is_settling, letters.contains('?'), "{backends} {letters}");
    }

    fn near() -> Surroundings {
        around(&["10.0.0.254/24", "198.51.100.254/24"], &[])
    }

    #[test]
    fn a_service_fares_as_operators_and_checks_have_it() {
        let cases = [
            ("uu", "++", Serving, None),
            ("uu", "nn", Serving, None),
            // An operator's will, and the first moment, are no trouble while others serve.
            ("udx0", "+++n", Serving, None),
            ("uu", "+?", Serving, None),
            ("", "", Down, Some("it has no backends")),
            ("dd", "++", Down, Some("none of 2 backends takes new conns: 2 draining")),
            ("00", "++", Down, Some("none of 2 backends takes new conns: 2 of weight 0")),
            ("xx", "nn", Down, Some("none of 2 backends takes new conns: 2 down")),
            ("uu", "--", Down, Some("none of 2 backends takes new conns: 2 unhealthy")),
            (
                "uu",
                "??",
                Down,
                Some("none of 2 backends takes new conns: 2 waiting for the first check"),
            ),
            (
                "xdu",
                "n+-",
                Down,
                Some("none of 3 backends takes new conns: 1 down, 1 draining, 1 unhealthy"),
            ),
            ("uuu", "++-", Degraded, Some("1 of 3 backends take no new conns: 1 unhealthy")),
            (
                "ud-",
                "++-",
                Degraded,
                Some("2 of 3 backends take no new conns: 1 draining, 1 unhealthy"),
            ),
        ];
        for (backends, letters, state, reason) in cases {
            check((backends, letters), &near(), state, reason);
        }
    }

    #[test]
    fn a_service_fares_as_the_ways_to_its_backends_are() {
        let lost = |to: &[&str], hop: Option<&str>| {
            let to: Vec<_> = to.iter().map(|to| (*to, hop)).collect();
            Surroundings { unreachable: around(&[], &to).unreachable, ..near() }
        };
        let silent = |to: &[&str]| lost(to, Some("10.0.0.9"));
        let no_route = lost(&["10.0.0.1", "10.0.0.2"], None);
        let cases = [
            (
                "uu",
                "++",
                &silent(&["10.0.0.1"]),
                Degraded,
                Some("1 of 2 backends take no new conns: 1 behind a next hop that does not answer"),
            ),
            (
                "uu",
                "nn",
                &silent(&["10.0.0.1", "10.0.0.2"]),
                Down,
                Some(
                    "none of 2 backends takes new conns: 2 behind a next hop that does not answer",
                ),
            ),
            (
                "uu",
                "++",
                &no_route,
                Down,
                Some("none of 2 backends takes new conns: 2 without a route"),
            ),
            (
                "uu",
                "+-",
                &silent(&["10.0.0.2"]),
                Degraded,
                Some("1 of 2 backends take no new conns: 1 unhealthy"),
            ),
            (
                "uu",
                "++",
                &around(&["198.51.100.254/24"], &[]),
                Down,
                Some(
                    "none of 2 backends takes new conns: 2 behind a gateway, where DR does not lead",
                ),
            ),
            // Of a data plane that has not told anything, nothing is known to be wrong.
            ("uu", "++", &Surroundings::default(), Serving, None),
        ];
        for (backends, letters, around, state, reason) in cases {
            check((backends, letters), around, state, reason);
        }
    }

    #[test]
    fn backends_take_new_conns_or_say_why_not() {
        let around =
            around(&[], &[("10.0.0.7", Some("10.0.0.9")), ("10.0.0.8", None), ("10.0.0.2", None)]);
        let service = service("udx0uuuu", None);
        let pairs = service.backends.iter().zip(health("+-n-?-++"));
        let taking =
            pairs.map(|(backend, health)| taking(service.mode, backend, health, &around, None));
        let expected = [
            None,
            Some("it is draining"),
            Some("it is down"),
            Some("its weight is 0"),
            Some("it waits for its first check"),
            Some("it is unhealthy"),
            Some("next hop 10.0.0.9 does not answer the data plane"),
            Some("no route of the data plane leads to it"),
        ];
        for (taking, expected) in taking.zip(expected) {
            assert_eq!(taking.reason.as_deref(), expected);
            assert_eq!(taking.takes_new_conns, expected.is_none());
        }
    }

    #[test]
    fn what_the_data_plane_does_not_take_is_down() {
        let left_out = |field: &str| {
            let state = State { services: vec![service("uu", None)].into(), ..State::default() };
            let told = Problem::new(field, "bad", "good");
            LeftOut::of(&state, &Environment::default(), &[told])
        };
        let derived = |backends: &str, letters: &str, left_out: &LeftOut| {
            let around = Surroundings::default();
            derive(&service(backends, None), None, &health(letters), &around, left_out)
        };
        let whole = derived("uu", "??", &left_out("services[web].vip"));
        let reason = "the data plane does not take it: services[web].vip is bad: expected good";
        assert_eq!((whole.state, whole.reason.as_deref()), (Down, Some(reason)));
        assert!(!whole.is_settling, "no check changes that");

        let one = left_out("services[web].backends[10.0.0.1:80].address");
        let cases = [
            ("uu", "n+", Degraded, "1 of 2 backends take no new conns: "),
            ("uu", "?+", Degraded, "1 of 2 backends take no new conns: "),
            ("u", "n", Down, "none of 1 backends takes new conns: "),
        ];
        for (backends, letters, state, begin) in cases {
            let derived = derived(backends, letters, &one);
            let reason = format!("{begin}1 not taken by the data plane");
            assert_eq!((derived.state, derived.reason), (state, Some(reason)), "{letters}");
        }
        assert_eq!(derived("du", "n+", &one).state, Serving, "nobody misses it");

        let service = service("u", None);
        let backend = &service.backends[0];
        let why = one.backend("web", backend.id());
        let taking =
            taking(service.mode, backend, Health::Unhealthy, &Surroundings::default(), why);
        assert!(!taking.takes_new_conns);
        assert_eq!(taking.reason.as_deref(), why);
    }

    #[test]
    fn pools_and_vips_in_no_network() {
        let web = service("u", Some("local"));
        let pool = |addresses: &[&str], drained: &[&str]| -> Pool {
            serde_json::from_value(
                json!({"name": "local", "addresses": addresses, "drained": drained}),
            )
            .unwrap()
        };
        let told = around(&["10.0.0.254/24", "198.51.100.254/24"], &[]);
        let state = |pool: Option<&Pool>, around: &Surroundings| {
            let derived = derive(&web, pool, &health("+"), around, &LeftOut::default());
            (derived.state, derived.reason.unwrap_or_default(), derived.warnings)
        };
        let near = pool(&["10.0.0.8"], &[]);
        assert_eq!(state(Some(&near), &told), (Serving, String::new(), vec![]));
        let far = pool(&["10.1.0.8", "10.1.0.9"], &[]);
        let (found, reason, _) = state(Some(&far), &told);
        assert_eq!(found, Degraded);
        assert!(reason.starts_with("no address of pool local lies in a network"), "{reason}");
        assert_eq!(state(Some(&far), &Surroundings::default()).0, Serving, "nothing is known");
        let (found, reason, _) = state(Some(&pool(&["10.0.0.8"], &["10.0.0.8"])), &told);
        assert_eq!((found, reason.as_str()), (Down, "all addresses of pool local are drained"));
        assert_eq!(state(None, &told).1, "there is no pool local");

        let (found, _, warnings) = state(Some(&near), &around(&["10.0.0.254/24"], &[]));
        assert_eq!(found, Serving, "routers may know the way");
        assert!(warnings[0].starts_with("VIP 198.51.100.1 lies in no network"), "{warnings:?}");
        // All addresses are in this one.
        assert_eq!(
            state(Some(&far), &around(&["0.0.0.0/0"], &[])),
            (Serving, String::new(), vec![])
        );
    }

    #[test]
    fn networks_are_those_of_the_ports() {
        let port = |addresses: [&str; 2]| PortStatus {
            addresses: addresses.map(str::to_owned).into(),
            ..PortStatus::default()
        };
        let ports = vec![port(["10.0.0.1/24", "nonsense"]), port(["192.0.2.1/31", "192.0.2.1/33"])];
        let status = DataplaneStatus { ports, ..DataplaneStatus::default() };
        let networks = Surroundings::networks_of(&status);
        let expected = [("10.0.0.1", 24), ("192.0.2.1", 31)];
        assert_eq!(networks, expected.map(|(address, length)| (address.parse().unwrap(), length)));
    }
}
