//! How many checks run at once, and what is said when that is too few.

use crate::health::MAX_IN_FLIGHT;

/// At least so many checks run at once, however few files the process may open.
const MIN_IN_FLIGHT: usize = 64;

/// Why checks are late.
pub(super) fn late(late_ms: u64, limit: usize, waited_its_turn: bool) -> String {
    if !waited_its_turn {
        return format!(
            "health checks are late by {late_ms} ms: control did not get to run: it was stopped, or \
             its host is overloaded"
        );
    }
    let most = match limit {
        MAX_IN_FLIGHT => "the most at all",
        _ => "the most that half of the open file limit (LimitNOFILE=) allows",
    };
    format!("health checks are late by {late_ms} ms: {limit} run at once, {most}")
}

/// Half of the process's soft limit of open files, within bounds: a check holds one, and the API
/// and the data plane need theirs.
pub(in crate::health) fn in_flight_limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .map_or(1_024, |soft| soft.parse().unwrap_or(usize::MAX));
    (open_files / 2).clamp(MIN_IN_FLIGHT, MAX_IN_FLIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_follows_the_open_file_limit() {
        assert!((MIN_IN_FLIGHT..=MAX_IN_FLIGHT).contains(&in_flight_limit()));
    }

    #[test]
    fn late_checks_blame_who_is_to_blame() {
        let limited = late(900, 512, true);
        assert!(
            limited.contains("512 run at once") && limited.contains("LimitNOFILE"),
            "{limited}"
        );
        let most = late(900, MAX_IN_FLIGHT, true);
        assert!(most.contains("4096 run at once") && !most.contains("LimitNOFILE"), "{most}");
        let stopped = late(900, 512, false);
        assert!(
            stopped.contains("did not get to run") && !stopped.contains("LimitNOFILE"),
            "{stopped}"
        );
    }
}
