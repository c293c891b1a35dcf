//! One target, as the scheduler keeps it.

use std::time::Duration;

use crate::health::machine::Machine;
use crate::health::way::Via;
use crate::health::{HealthChange, Target};
use sluice_api::clock::now_ms;

/// Names one version of one target; a changed or re-added target gets a new one, so that late
/// results and stale heap entries find nothing.
pub(super) type EntryId = u64;

pub(super) struct Entry {
    pub(super) target: Target,
    pub(super) machine: Machine,
    pub(super) phase: u32,
    /// By what it was asked last.
    pub(super) via: Via,
    /// Whether its last check was undecided.
    pub(super) undecided: bool,
    /// When a check last ended without an answer, and when one made it unhealthy, in µs since the
    /// scheduler's start; 0: never.
    pub(super) silent_us: u64,
    pub(super) fell_us: u64,
}

impl Entry {
    pub(super) fn interval_us(&self) -> u64 {
        u64::from(self.target.check.interval_ms.max(1)) * 1_000
    }

    pub(super) fn change(&self, healthy: Option<bool>, reason: String) -> HealthChange {
        let (service, backend) = (self.target.service.clone(), self.target.backend);
        HealthChange { service, backend, healthy, reason, at_ms: now_ms() }
    }

    /// The timeout, less when it would run into the next check: then two checks in a row could not
    /// tell within two intervals.
    pub(super) fn deadline(&self) -> Duration {
        let interval_ms = self.target.check.interval_ms;
        let longest_ms = interval_ms - (interval_ms / 5).min(100);
        Duration::from_millis(self.target.check.timeout_ms.min(longest_ms).max(1).into())
    }
}
