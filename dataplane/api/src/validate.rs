//! What makes a snapshot one that can be forwarded by. Control calls it before it stores a change,
//! the data plane before it applies one: the same rules, the same words.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::service::{Mode, Timeouts};
use crate::snapshot::{Snapshot, SnapshotService};
use crate::stats::Limits;

/// One thing that is wrong: which field, what it holds, what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Path of the field, as `services[web].backends[10.0.0.1:80].weight`.
    pub field: String,
    /// What it holds.
    pub value: String,
    /// What would be accepted.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: expected {}", self.field, self.value, self.expected)
    }
}

impl Problem {
    /// A problem with a field.
    pub fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Problem { field: field.into(), value: value.to_string(), expected: expected.into() }
    }
}

/// Longest timeout, in ms: 7 days.
pub const MAX_TIMEOUT_MS: u32 = 7 * 24 * 3_600 * 1_000;
/// Most addresses in one pool.
pub const MAX_POOL_ADDRESSES: usize = 256;
/// Sizes of a Maglev table.
pub const MAGLEV_SLOTS: std::ops::RangeInclusive<u32> = 251..=655_373;

/// Everything that is wrong with a snapshot; empty when it can be applied. `port_addresses` are
/// the data plane's own, when they are known.
pub fn snapshot(snapshot: &Snapshot, limits: &Limits, port_addresses: &[Ipv4Addr]) -> Vec<Problem> {
    let mut problems = Vec::new();
    limit(&mut problems, "services", snapshot.services.len(), limits.services);
    let backends = snapshot.services.iter().map(|s| s.backends.len()).sum();
    limit(&mut problems, "services[].backends", backends, limits.backends);
    check_pools(&mut problems, snapshot, port_addresses);
    check_services(&mut problems, snapshot, port_addresses);
    problems
}

fn limit(problems: &mut Vec<Problem>, field: &str, count: usize, most: u32) {
    if count > most as usize {
        let expected = format!("at most {most} in all, from [limits] of the data plane's file");
        problems.push(Problem::new(field, format!("{count} entries"), expected));
    }
}

fn check_pools(problems: &mut Vec<Problem>, snapshot: &Snapshot, port_addresses: &[Ipv4Addr]) {
    let vips: HashMap<Ipv4Addr, &str> =
        snapshot.services.iter().map(|s| (s.vip, s.name.as_str())).collect();
    let mut names = HashSet::new();
    let mut owner: HashMap<Ipv4Addr, &str> = HashMap::new();
    for pool in &snapshot.pools {
        let path = format!("pools[{}]", pool.name);
        check_name(problems, &format!("{path}.name"), &pool.name);
        if !names.insert(pool.name.as_str()) {
            problems.push(Problem::new(
                format!("{path}.name"),
                quoted(&pool.name),
                "a name that no other pool has",
            ));
        }
        let field = format!("{path}.addresses");
        if pool.addresses.is_empty() || pool.addresses.len() > MAX_POOL_ADDRESSES {
            let expected = format!("1 to {MAX_POOL_ADDRESSES} addresses");
            problems.push(Problem::new(
                &field,
                format!("{} addresses", pool.addresses.len()),
                expected,
            ));
        }
        for address in &pool.addresses {
            if !is_host(*address) {
                problems.push(Problem::new(&field, address, "a unicast address"));
            }
            if let Some(service) = vips.get(address) {
                let expected =
                    format!("an address that is no VIP; service {service} has it as its VIP");
                problems.push(Problem::new(&field, address, expected));
            }
            if port_addresses.contains(address) {
                problems.push(Problem::new(
                    &field,
                    address,
                    "an address that no port of the data plane has",
                ));
            }
            if let Some(other) = owner.insert(*address, &pool.name) {
                let expected = format!("each address once; pool {other} has it already");
                problems.push(Problem::new(&field, address, expected));
            }
        }
    }
}

fn check_services(problems: &mut Vec<Problem>, snapshot: &Snapshot, port_addresses: &[Ipv4Addr]) {
    let mut names = HashSet::new();
    let mut keys: HashMap<_, &str> = HashMap::new();
    let vips: HashSet<Ipv4Addr> = snapshot.services.iter().map(|s| s.vip).collect();
    for service in &snapshot.services {
        let path = format!("services[{}]", service.name);
        check_name(problems, &format!("{path}.name"), &service.name);
        if !names.insert(service.name.as_str()) {
            let expected = "a name that no other service has";
            problems.push(Problem::new(format!("{path}.name"), quoted(&service.name), expected));
        }
        if !is_host(service.vip) {
            problems.push(Problem::new(format!("{path}.vip"), service.vip, "a unicast address"));
        }
        if port_addresses.contains(&service.vip) {
            let expected = "an address that no port of the data plane has";
            problems.push(Problem::new(format!("{path}.vip"), service.vip, expected));
        }
        check_port(problems, &format!("{path}.port"), service.port);
        if let Some(other) =
            keys.insert((service.vip, service.port, service.protocol), &service.name)
        {
            let value = format!("{}:{}/{}", service.vip, service.port, service.protocol);
            let expected =
                format!("a VIP, port and protocol that no other service has; {other} has these");
            problems.push(Problem::new(format!("{path}.port"), value, expected));
        }
        check_scheduler(problems, &path, service);
        check_pool_of(problems, &path, service, snapshot);
        check_timeouts(problems, &path, &service.timeouts);
        check_backends(problems, &path, service, &vips);
    }
}

fn check_scheduler(problems: &mut Vec<Problem>, path: &str, service: &SnapshotService) {
    if !MAGLEV_SLOTS.contains(&service.maglev_slots) || !is_prime(service.maglev_slots) {
        let expected = format!("a prime from {} to {}", MAGLEV_SLOTS.start(), MAGLEV_SLOTS.end());
        problems.push(Problem::new(format!("{path}.maglev_slots"), service.maglev_slots, expected));
    }
}

fn check_pool_of(
    problems: &mut Vec<Problem>,
    path: &str,
    service: &SnapshotService,
    snapshot: &Snapshot,
) {
    let field = format!("{path}.pool");
    match (service.mode, &service.pool) {
        (Mode::FullNat, None) => {
            problems.push(Problem::new(
                field,
                "absent",
                "the name of a pool, as mode full-nat needs local addresses",
            ));
        }
        (Mode::FullNat, Some(name)) if !snapshot.pools.iter().any(|p| p.name == *name) => {
            let known: Vec<&str> = snapshot.pools.iter().map(|p| p.name.as_str()).collect();
            let known =
                if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
            problems.push(Problem::new(
                field,
                quoted(name),
                format!("the name of a pool ({known})"),
            ));
        }
        (Mode::Dr, Some(name)) => {
            problems.push(Problem::new(
                field,
                quoted(name),
                "no pool, as mode dr keeps the client's address",
            ));
        }
        _ => {}
    }
}

fn check_timeouts(problems: &mut Vec<Problem>, path: &str, timeouts: &Timeouts) {
    let fields = [
        ("tcp_syn_sent_ms", timeouts.tcp_syn_sent_ms),
        ("tcp_syn_received_ms", timeouts.tcp_syn_received_ms),
        ("tcp_established_ms", timeouts.tcp_established_ms),
        ("tcp_fin_wait_ms", timeouts.tcp_fin_wait_ms),
        ("tcp_last_ack_ms", timeouts.tcp_last_ack_ms),
        ("tcp_time_wait_ms", timeouts.tcp_time_wait_ms),
        ("tcp_closed_ms", timeouts.tcp_closed_ms),
        ("udp_one_way_ms", timeouts.udp_one_way_ms),
        ("udp_two_way_ms", timeouts.udp_two_way_ms),
    ];
    for (name, value) in fields {
        if !(1..=MAX_TIMEOUT_MS).contains(&value) {
            let expected = format!("1 to {MAX_TIMEOUT_MS} ms");
            problems.push(Problem::new(format!("{path}.timeouts.{name}"), value, expected));
        }
    }
}

fn check_backends(
    problems: &mut Vec<Problem>,
    path: &str,
    service: &SnapshotService,
    vips: &HashSet<Ipv4Addr>,
) {
    let mut seen = HashSet::new();
    for backend in &service.backends {
        let id = backend.id();
        let path = format!("{path}.backends[{id}]");
        if !seen.insert(id) {
            problems.push(Problem::new(
                &path,
                "listed twice",
                "each address:port once in a service",
            ));
        }
        if !is_host(backend.address) {
            problems.push(Problem::new(
                format!("{path}.address"),
                backend.address,
                "a unicast address",
            ));
        }
        if vips.contains(&backend.address) {
            let expected = "an address that is not a VIP of this load balancer";
            problems.push(Problem::new(format!("{path}.address"), backend.address, expected));
        }
        check_port(problems, &format!("{path}.port"), backend.port);
        if service.mode == Mode::Dr && backend.port != service.port {
            let expected = format!("{}, as mode dr cannot change the L4 port", service.port);
            problems.push(Problem::new(format!("{path}.port"), backend.port, expected));
        }
    }
}

fn check_port(problems: &mut Vec<Problem>, field: &str, port: u16) {
    if port == 0 {
        problems.push(Problem::new(field, port, "1 to 65535"));
    }
}

/// Whether a name is 1 to 63 of `a-z`, `0-9`, `-`, `.`, `_`: it goes into paths and metrics as it is.
pub fn is_name(name: &str) -> bool {
    let legal =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_');
    (1..=63).contains(&name.len())
        && name.bytes().all(legal)
        && name.bytes().any(|c| c.is_ascii_alphanumeric())
}

fn check_name(problems: &mut Vec<Problem>, field: &str, name: &str) {
    if !is_name(name) {
        problems.push(Problem::new(
            field,
            quoted(name),
            "1 to 63 of a-z, 0-9, '-', '.', '_', at least one a letter or digit",
        ));
    }
}

/// Whether an address can belong to a single host (RFC 6890).
pub fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
