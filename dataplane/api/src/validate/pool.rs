//! The rules of pools: whose addresses they may be.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::value::{check_host, check_name, escaped, quoted};
use crate::problems::{Problem, Problems, label};
use crate::service::Pool;
use crate::snapshot::Snapshot;

/// Most addresses in one pool.
pub const MAX_POOL_ADDRESSES: usize = 256;

/// Adds what is wrong with the pools of a snapshot.
pub(super) fn check(problems: &mut Problems, snapshot: &Snapshot, port_addresses: &[IpAddr]) {
    let vips: HashMap<IpAddr, &str> =
        snapshot.services.iter().map(|s| (s.vip, s.name.as_str())).collect();
    let mut names = HashSet::new();
    let mut owner: HashMap<IpAddr, &str> = HashMap::new();
    for pool in &snapshot.pools {
        let path = format!("pools[{}]", escaped(&pool.name));
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
        check_drained(problems, &path, pool);
        for address in &pool.addresses {
            check_host(problems, &field, *address);
            if let Some(service) = vips.get(address) {
                let expected = format!(
                    "an address that is no VIP; service {} has it as its VIP",
                    label(service)
                );
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
                let expected = format!("each address once; pool {} has it already", label(other));
                problems.push(Problem::new(&field, address, expected));
            }
        }
    }
}

fn check_drained(problems: &mut Problems, path: &str, pool: &Pool) {
    let field = format!("{path}.drained");
    let mut seen = HashSet::new();
    for address in &pool.drained {
        if !pool.addresses.contains(address) {
            problems.push(Problem::new(&field, address, "an address of the pool"));
        } else if !seen.insert(address) {
            problems.push(Problem::new(&field, address, "each address once"));
        }
    }
    if !pool.addresses.is_empty() && pool.open_addresses().next().is_none() {
        let value = format!("all {} addresses", pool.addresses.len());
        problems.push(Problem::new(&field, value, "fewer, as new conns need one"));
    }
}
