//! Which states of services have been told, so that each change is an event. Pure: time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Derived, ServiceState};

/// How long a service may wait for first checks before it is told that it does not serve.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Entry {
    told: Option<ServiceState>,
    /// Since when it does not serve because it waits for first checks.
    unsettled: Option<Instant>,
}

/// What was told of each service.
#[derive(Debug, Default)]
pub struct Told(HashMap<String, Entry>);

impl Told {
    /// Whether it is news that a service is as derived. One that serves from the start is none; nor is
    /// one that waits for its first checks, unless they do not come.
    pub fn is_news(&mut self, service: &str, derived: &Derived, now: Instant) -> bool {
        let entry = self.0.entry(service.to_owned()).or_default();
        if derived.is_settling && derived.state != ServiceState::Serving {
            let since = *entry.unsettled.get_or_insert(now);
            if now.saturating_duration_since(since) < SETTLES_WITHIN {
                return false;
            }
        } else {
            entry.unsettled = None;
        }
        match entry.told.replace(derived.state) {
            Some(told) => told != derived.state,
            None => derived.state != ServiceState::Serving,
        }
    }

    /// Forget services that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|service, _| is_there(service));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServiceState::{Degraded, Down, Serving};

    #[test]
    fn each_change_is_told_once_and_first_checks_get_their_time() {
        let start = Instant::now();
        let mut told = Told::default();
        let mut look = |ms: u64, state, is_settling| {
            let derived = Derived { state, reason: None, warnings: vec![], is_settling };
            told.is_news("web", &derived, start + Duration::from_millis(ms))
        };
        assert!(!look(0, Down, true), "its first checks are on their way");
        assert!(!look(300, Serving, false), "as it should be");
        assert!(look(1_000, Degraded, false));
        assert!(!look(1_100, Degraded, false), "once");
        assert!(look(2_000, Down, false));
        assert!(look(3_000, Serving, false));
        // All its backends were replaced, and nobody can ask the new ones.
        assert!(!look(4_000, Down, true));
        assert!(!look(8_999, Down, true));
        assert!(look(9_000, Down, true));
        assert!(!look(9_100, Down, true), "once");

        told.retain(|service| service != "web");
        let down = Derived { state: Down, reason: None, warnings: vec![], is_settling: false };
        assert!(told.is_news("web", &down, start), "another one of this name, that never served");
    }
}
