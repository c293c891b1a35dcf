//! The rules that a state as a whole must follow: those of [`sluice_api::validate`], which the data
//! plane checks too, and those of health checks, which only control knows.

mod keep;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use sluice_api::problems::label;
use sluice_api::schema::range_text;
use sluice_api::service::{
    HealthCheck, HealthCheckKind, INTERVAL_MS, MIN_TIMEOUT_MS, RISE_FALL, STATUS, Service,
};
use sluice_api::stats::Limits;
use sluice_api::validate;
use sluice_api::{Problem, Problems, Refusal, Snapshot, SnapshotService};

use super::State;

pub use keep::keeps_rules;

/// Longest path of an HTTP check, and longest `Host`, in bytes.
pub const MAX_HTTP_TEXT: usize = 1_024;
/// What cannot stand in a request's path (RFC 3986, 3.3 and 3.4); `#` would end it.
const NOT_IN_PATH: [char; 4] = ['#', '<', '>', '`'];
/// Longest name of a zone, in bytes.
pub const MAX_ZONE: usize = 63;

/// What the rules depend on beside the state: what the data plane has, once it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its table sizes.
    pub limits: Limits,
    /// Addresses of its ports.
    pub port_addresses: Vec<IpAddr>,
}

impl Default for Environment {
    /// Of a data plane that has not told yet: the most that any can have, so that nothing is refused
    /// that it might take.
    fn default() -> Self {
        let limits = Limits { services: 65_535, backends: 1_000_000, ..Limits::default() };
        Environment { limits, port_addresses: Vec::new() }
    }
}

/// Everything that is wrong with a state; empty when it is one that can be forwarded by.
pub fn state(state: &State, environment: &Environment) -> Problems {
    let mut problems = Problems::default();
    collect(&mut problems, state, environment);
    problems
}

/// Adds everything that is wrong with a state, as [`state`] finds it.
pub fn collect(problems: &mut Problems, state: &State, environment: &Environment) {
    collect_shared(problems, state, environment);
    state.services.iter().for_each(|service| collect_own(problems, service));
}

/// Adds what is wrong with a service by the rules that only control has.
fn collect_own(problems: &mut Problems, service: &Service) {
    let path = format!("services[{}]", label(&service.name));
    check_zones(problems, &path, service);
    if let Some(check) = &service.health_check {
        check_health(problems, &format!("{path}.health_check"), check);
    }
}

/// Adds what is wrong with a state by the rules that the data plane has, too.
pub fn collect_shared(problems: &mut Problems, state: &State, environment: &Environment) {
    let snapshot = Snapshot {
        generation: 0,
        services: state
            .services
            .iter()
            .map(|s| SnapshotService::from_service(s, |_| true).into())
            .collect(),
        pools: state.pools.to_vec(),
        no_service: Refusal::default(),
    };
    validate::collect(problems, &snapshot, &environment.limits, &environment.port_addresses);
}

fn check_zones(problems: &mut Problems, path: &str, service: &Service) {
    for backend in &service.backends {
        if let Some(zone) = &backend.zone
            && !is_text(zone, MAX_ZONE)
        {
            problems.push(Problem::new(
                format!("{path}.backends[{}].zone", backend.id()),
                format!("{zone:?}"),
                format!("1 to {MAX_ZONE} visible ASCII characters"),
            ));
        }
    }
}

fn check_health(problems: &mut Problems, path: &str, check: &HealthCheck) {
    let mut range = |field: &str, value: u32, accepted: RangeInclusive<u32>, unit: &str| {
        if !accepted.contains(&value) {
            let expected = format!("{}{unit}", range_text(&accepted));
            problems.push(Problem::new(format!("{path}.{field}"), value, expected));
        }
    };
    let counts = u32::from(*RISE_FALL.start())..=u32::from(*RISE_FALL.end());
    range("interval_ms", check.interval_ms, INTERVAL_MS, " ms");
    range("rise", check.rise.into(), counts.clone(), "");
    range("fall", check.fall.into(), counts, "");
    if let Some(port) = check.port {
        range("port", port.into(), 1..=65_535, "");
    }
    if !(MIN_TIMEOUT_MS..=check.interval_ms).contains(&check.timeout_ms) {
        let expected =
            format!("{MIN_TIMEOUT_MS} ms to interval_ms, which is {} ms", check.interval_ms);
        problems.push(Problem::new(format!("{path}.timeout_ms"), check.timeout_ms, expected));
    }
    if check.kind == HealthCheckKind::Http {
        check_http(problems, path, check);
    }
}

fn check_http(problems: &mut Problems, path: &str, check: &HealthCheck) {
    let can_be_sent = is_text(&check.path, MAX_HTTP_TEXT) && !check.path.contains(NOT_IN_PATH);
    if !check.path.starts_with('/') || !can_be_sent {
        problems.push(Problem::new(
            format!("{path}.path"),
            format!("{:?}", check.path),
            format!(
                "a path that starts with '/', of at most {MAX_HTTP_TEXT} visible ASCII characters \
                 other than # < > `: those, blanks and all else as %XX"
            ),
        ));
    }
    if let Some(host) = &check.host
        && !is_text(host, MAX_HTTP_TEXT)
    {
        problems.push(Problem::new(
            format!("{path}.host"),
            format!("{host:?}"),
            format!("a host name, of at most {MAX_HTTP_TEXT} visible ASCII characters"),
        ));
    }
    let field = format!("{path}.expected_status");
    if check.expected_status.is_empty() {
        problems.push(Problem::new(&field, "[]", "at least one status code from 100 to 599"));
    }
    for status in check.expected_status.iter().filter(|s| !STATUS.contains(s)) {
        problems.push(Problem::new(&field, status, format!("codes from {}", range_text(&STATUS))));
    }
}

/// Whether a text can go into a request line or a header as it is: no blanks, no control bytes.
fn is_text(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sluice_api::read::{self, Spelling};
    use sluice_api::schema::{Kind, Object, Resource};

    fn good() -> Value {
        json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "health_check": {"kind": "http", "expected_status": [200]}, "timeouts": {},
            "backends": [{"address": "10.0.0.1", "port": 80}]
        })
    }

    /// Which fields are wrong of a service, by its declaration or by the rules.
    fn wrong(service: Value) -> Vec<String> {
        let problems = match read::service(service, Spelling::Json, "web") {
            Ok(service) => state(
                &State { services: vec![service].into(), ..State::default() },
                &Environment::default(),
            ),
            Err(problems) => problems,
        };
        problems.iter().map(|problem| problem.field.clone()).collect()
    }

    /// Tries each end of each range that is declared, and what lies beyond.
    fn try_ranges(object: &Object, at: &str, tried: &mut usize) {
        for field in &object.fields {
            let pointer = format!("{at}/{}", field.name);
            match field.kind.element() {
                Kind::Object(below) if matches!(field.kind, Kind::List(_)) => {
                    try_ranges(below, &format!("{pointer}/0"), tried);
                }
                Kind::Object(below) => try_ranges(below, &pointer, tried),
                Kind::Integer { least, most, .. } => {
                    for beyond in [least.checked_sub(1), most.checked_add(1)].into_iter().flatten()
                    {
                        let mut service = good();
                        let (parent, name) = pointer.rsplit_once('/').unwrap();
                        let many = matches!(field.kind, Kind::List(_));
                        service.pointer_mut(parent).unwrap()[name] =
                            if many { json!([beyond]) } else { json!(beyond) };
                        let wrong = wrong(service);
                        let is_told = wrong.iter().any(|path| path.ends_with(&field.name));
                        assert!(is_told, "{pointer} = {beyond}: {wrong:?}");
                        *tried += 1;
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn every_range_that_is_declared_is_kept_to() {
        assert_eq!(wrong(good()), [""; 0]);
        let mut tried = 0;
        try_ranges(Service::object(), "", &mut tried);
        assert!(tried > 30, "{tried}");
    }
}
