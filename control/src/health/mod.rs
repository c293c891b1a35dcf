//! Health checks: asks every backend at its service's interval whether it is alive, and reports
//! each change of mind with a reason.
//!
//! Enters: the whole set of [`Target`]s, whenever the desired state changes. Leaves: one
//! [`HealthChange`] per change, on a channel. Owns: what it believes of each target, and when each
//! is due.
//!
//! One task ([`scheduler`]) keeps a heap of due times; only a check that is running has a task of
//! its own. [`machine`] counts rise and fall, [`phase`] spreads the checks in time, [`probe`] asks.
//!
//! # How fast a failure is seen
//! A check ends before the next one of its backend is due, a fifth of the interval (at most 100 ms)
//! earlier, even where the timeout is longer. So an interval of 500 ms with `fall` 2 finds a dead
//! backend within 500 + 500 + 400 ms.
//!
//! # How many checks run at once
//! At most half of the process's open file limit, and at most [`MAX_IN_FLIGHT`]: 512 under the
//! usual soft limit of 1,024. Checks beyond that wait their turn, in order of due time, and a
//! warning is logged when they are late by more than their interval. It matters only where many
//! backends are silent: each holds its place for the whole timeout. A raised open file limit
//! (`LimitNOFILE=`) raises the bound.

pub mod machine;
pub mod phase;
mod probe;
mod scheduler;

use std::collections::HashMap;

use sluice_api::BackendId;
use sluice_api::service::HealthCheck;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use scheduler::{Command, Scheduler};

/// Most checks that run at once, however many files the process may open.
pub const MAX_IN_FLIGHT: usize = 4_096;

/// A backend to check, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of its service.
    pub service: String,
    /// The backend within the service.
    pub backend: BackendId,
    /// How it is checked. Values out of range are clamped, never refused: see
    /// [`HealthCheck`] for what the API accepts.
    pub check: HealthCheck,
}

/// A backend that became healthy or unhealthy, or whose first check told which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// Name of its service.
    pub service: String,
    /// The backend within the service.
    pub backend: BackendId,
    /// What it is from now on.
    pub healthy: bool,
    /// What the deciding check saw: `HTTP 503, expected 200`, `connection refused`.
    pub reason: String,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
}

/// Handle of the running health checker. It stops when the handle is dropped, when
/// [`Checker::shutdown`] is called, or when nobody receives the changes any more.
#[derive(Debug)]
pub struct Checker {
    commands: UnboundedSender<Command>,
}

impl Checker {
    /// Starts checking on the current tokio runtime, with no targets yet. Changes go to `changes`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(changes: UnboundedSender<HealthChange>) -> Checker {
        let (commands, receiver) = unbounded_channel();
        tokio::spawn(Scheduler::new(changes, scheduler::in_flight_limit()).run(receiver));
        Checker { commands }
    }

    /// Replaces the whole set of targets. A target that was there before keeps its state and its
    /// phase; if its check changed, it keeps what is believed of it and starts counting anew. A
    /// target that is gone is forgotten, with the result of a check that still runs. Of two
    /// targets with the same service and backend the first counts.
    ///
    /// `initial` is what is known of targets that are new or still wait for their first result, as
    /// from before a restart; without it, the first result decides at once.
    pub fn set_targets(&self, targets: Vec<Target>, initial: &HashMap<(String, BackendId), bool>) {
        let targets = targets
            .into_iter()
            .map(|target| {
                let known = if initial.is_empty() {
                    None
                } else {
                    initial.get(&(target.service.clone(), target.backend)).copied()
                };
                (target, known)
            })
            .collect();
        // It fails only after the end, when there is nothing left to set.
        let _ = self.commands.send(Command::SetTargets(targets));
    }

    /// Starts no checks and believes no results until [`Checker::resume`]: what is believed of each
    /// target stays. For the time in which the way to the backends is known to be gone.
    pub fn pause(&self) {
        let _ = self.commands.send(Command::Pause);
    }

    /// Checks again after a pause, as soon as if all targets were new.
    pub fn resume(&self) {
        let _ = self.commands.send(Command::Resume);
    }

    /// Some worker of the data plane was stuck from so many ms ago to so many ms ago (0: it still
    /// is), so that answers may have been lost there; or none was lately. Checks that got no answer
    /// in that time tell nothing, and what was believed for such a one is taken back.
    pub fn doubt_silence(&self, doubt: Option<(u64, u64)>) {
        let _ = self.commands.send(Command::Doubt(doubt));
    }

    /// Stops all checks; no change is sent after those already on the channel.
    pub fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown);
    }
}
