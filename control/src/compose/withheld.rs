//! What must not be taken from a data plane without an operator's word.
//!
//! A state whose origin is in doubt (no state file was found, or only an older copy, or it is empty)
//! may lack what clients are being served by. It is compared with the snapshot in force before it is
//! published for the first time.

use std::collections::HashMap;

use sluice_api::{Shared, Snapshot, SnapshotService};

/// Why `wanted`, of a state of doubtful origin, must not replace the snapshot in force; `None` when it may.
pub fn withheld(in_force: &Snapshot, wanted: &Snapshot) -> Option<String> {
    let lost = taken_away(in_force, wanted)?;
    Some(format!(
        "publishing is held, as the state was not read from a good database or is empty, and would \
         take away services that the data plane forwards by: {lost}. Put them back, or say that they \
         may go: sluice confirm (POST /api/v1/confirm)"
    ))
}

/// Most services that are named.
const NAMED: usize = 8;

/// The services that would serve nobody any more if `wanted` came into force, as a phrase; `None`
/// when there is none. A service is what clients connect to: its VIP, port and protocol.
fn taken_away(in_force: &Snapshot, wanted: &Snapshot) -> Option<String> {
    let key = |s: &SnapshotService| (s.vip, s.port, s.protocol);
    let kept: HashMap<_, _> = wanted.services.iter().map(|s| (key(s), s)).collect();
    let lost = |service: &&Shared<SnapshotService>| match kept.get(&key(service)) {
        Some(kept) => kept.backends.is_empty() && !service.backends.is_empty(),
        None => true,
    };
    let lost: Vec<String> = in_force
        .services
        .iter()
        .filter(lost)
        .map(|s| format!("{} ({}:{}/{})", s.name, s.vip, s.port, s.protocol))
        .collect();
    let named = lost[..lost.len().min(NAMED)].join(", ");
    match lost.len() {
        0 => None,
        count if count > NAMED => Some(format!("{named} and {} more", count - NAMED)),
        _ => Some(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn snapshot(services: &[(u8, &str, usize)]) -> Snapshot {
        let service = |(vip, name, backends): &(u8, &str, usize)| {
            let backends: Vec<_> = (0..*backends)
                .map(|n| json!({"address": format!("10.0.0.{}", n + 1), "port": 80}))
                .collect();
            let service = serde_json::from_value(json!({
                "name": name, "vip": format!("198.51.100.{vip}"), "port": 80, "protocol": "tcp",
                "mode": "dr", "backends": backends
            }));
            SnapshotService::from_service(&service.unwrap(), |_| true)
        };
        Snapshot {
            services: services.iter().map(service).map(Shared::new).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn only_what_clients_would_miss_is_named() {
        let full = snapshot(&[(1, "a", 1), (2, "b", 2), (3, "empty", 0)]);
        let lost = |wanted: &[(u8, &str, usize)]| taken_away(&full, &snapshot(wanted));
        assert_eq!(
            lost(&[]).unwrap(),
            "a (198.51.100.1:80/tcp), b (198.51.100.2:80/tcp), empty (198.51.100.3:80/tcp)"
        );
        assert_eq!(lost(&[(1, "a", 1), (2, "b", 2), (3, "empty", 0), (4, "new", 0)]), None);
        assert_eq!(lost(&[(1, "renamed", 1), (2, "b", 1), (3, "empty", 0)]), None);
        assert_eq!(
            lost(&[(1, "a", 1), (2, "b", 0), (3, "empty", 0)]).unwrap(),
            "b (198.51.100.2:80/tcp)",
            "without backends it serves nobody"
        );
        assert_eq!(taken_away(&Snapshot::default(), &full), None);
        let many: Vec<_> = (0..20).map(|n| (n, "s", 1)).collect();
        assert!(taken_away(&snapshot(&many), &full).unwrap().ends_with("and 10 more"));
    }
}
