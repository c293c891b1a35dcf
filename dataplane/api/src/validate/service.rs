//! The rules of services, each by itself and beside the others.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::backend::{self, OwnAddresses};
use super::value::{check_host, check_name, check_port, escaped, is_prime, quoted};
use crate::problems::{Problem, Problems, label};
use crate::schema::range_text;
use crate::service::{MAGLEV_SLOTS, TIMEOUT_MS, Timeouts, prime_in};
use crate::snapshot::{Snapshot, SnapshotService};

/// Adds what is wrong with the services of a snapshot, and with their backends.
pub(super) fn check(problems: &mut Problems, snapshot: &Snapshot, port_addresses: &[IpAddr]) {
    let mut names = HashSet::new();
    let mut keys: HashMap<_, &str> = HashMap::new();
    let own = OwnAddresses::of(snapshot, port_addresses);
    let pools: HashSet<&str> = snapshot.pools.iter().map(|p| p.name.as_str()).collect();
    for service in &snapshot.services {
        let path = format!("services[{}]", escaped(&service.name));
        check_name(problems, &format!("{path}.name"), &service.name);
        if !names.insert(service.name.as_str()) {
            let expected = "a name that no other service has";
            problems.push(Problem::new(format!("{path}.name"), quoted(&service.name), expected));
        }
        check_host(problems, &format!("{path}.vip"), service.vip);
        if port_addresses.contains(&service.vip) {
            let expected = "an address that no port of the data plane has";
            problems.push(Problem::new(format!("{path}.vip"), service.vip, expected));
        }
        check_port(problems, &format!("{path}.port"), service.port);
        if let Some(other) =
            keys.insert((service.vip, service.port, service.protocol), &service.name)
        {
            let value = format!("{}:{}/{}", service.vip, service.port, service.protocol);
            let expected = format!(
                "a VIP, port and protocol that no other service has; {} has these",
                label(other)
            );
            problems.push(Problem::new(format!("{path}.port"), value, expected));
        }
        check_scheduler(problems, &path, service);
        check_pool_of(problems, &path, service, snapshot, &pools);
        check_timeouts(problems, &path, &service.timeouts);
        backend::check(problems, &path, service, &own);
    }
}

fn check_scheduler(problems: &mut Problems, path: &str, service: &SnapshotService) {
    if !MAGLEV_SLOTS.contains(&service.maglev_slots) || !is_prime(service.maglev_slots) {
        let expected = prime_in(&MAGLEV_SLOTS);
        problems.push(Problem::new(format!("{path}.maglev_slots"), service.maglev_slots, expected));
    }
}

fn check_pool_of(
    problems: &mut Problems,
    path: &str,
    service: &SnapshotService,
    snapshot: &Snapshot,
    pools: &HashSet<&str>,
) {
    let field = format!("{path}.pool");
    match (service.mode.needs_pool(), &service.pool) {
        (true, None) => {
            problems.push(Problem::new(
                field,
                "absent",
                format!("the name of a pool, as mode {} needs local addresses", service.mode),
            ));
        }
        (true, Some(name)) if !pools.contains(name.as_str()) => {
            let known = known_pools(snapshot);
            problems.push(Problem::new(
                field,
                quoted(name),
                format!("the name of a pool ({known})"),
            ));
        }
        (false, Some(name)) => {
            problems.push(Problem::new(
                field,
                quoted(name),
                format!("no pool, as mode {} keeps the client's address", service.mode),
            ));
        }
        _ => {}
    }
}

/// Names to choose from, not more than a person reads.
fn known_pools(snapshot: &Snapshot) -> String {
    const MOST: usize = 8;
    let names: Vec<String> = snapshot.pools.iter().take(MOST).map(|p| label(&p.name)).collect();
    match snapshot.pools.len() {
        0 => "there is none".to_owned(),
        count if count > MOST => format!("{} and {} more", names.join(", "), count - MOST),
        _ => names.join(", "),
    }
}

fn check_timeouts(problems: &mut Problems, path: &str, timeouts: &Timeouts) {
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
        if !TIMEOUT_MS.contains(&value) {
            let expected = format!("{} ms", range_text(&TIMEOUT_MS));
            problems.push(Problem::new(format!("{path}.timeouts.{name}"), value, expected));
        }
    }
}
