//! The supervisor's watchdog (sd_watchdog_enabled(3)): it is told that all is well only while the main
//! thread and all workers come round, so that a process that hangs is ended and started anew.

use std::time::Duration;

/// When the supervisor is to be told.
#[derive(Debug)]
pub struct Watchdog {
    /// After how long without a word the supervisor ends the process, in ms.
    patience_ms: Option<u64>,
    next_ms: u64,
}

impl Watchdog {
    /// As the supervisor says, if it wants to know.
    pub fn from_environment() -> Watchdog {
        Watchdog::new(sd_notify::watchdog_enabled())
    }

    fn new(patience: Option<Duration>) -> Watchdog {
        Watchdog { patience_ms: patience.map(|time| time.as_millis() as u64), next_ms: 0 }
    }

    /// Whether the main thread, which asks this in each round, is to tell it now; `silent_ms` is the
    /// longest time for which a worker has not come round.
    pub fn is_due(&mut self, now_ms: u64, silent_ms: u64) -> bool {
        let Some(patience_ms) = self.patience_ms else { return false };
        let is_well = silent_ms < patience_ms / 2;
        let is_due = is_well && now_ms >= self.next_ms;
        if is_due {
            self.next_ms = now_ms + patience_ms / 4;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_who_does_not_want_to_know() {
        assert!(!Watchdog::new(None).is_due(1_000_000, 0));
    }

    #[test]
    fn a_worker_that_hangs_ends_the_words() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        // A worker hangs from 20 s on.
        let silent_ms = |now_ms: u64| now_ms.saturating_sub(20_000);
        let told: Vec<u64> =
            (0..40_000).filter(|now_ms| watchdog.is_due(*now_ms, silent_ms(*now_ms))).collect();
        assert_eq!(told, (0..10).map(|n| n * 2_500).collect::<Vec<_>>(), "and none after 25 s");
        assert!(watchdog.is_due(40_000, 0), "it comes round again");
    }
}
