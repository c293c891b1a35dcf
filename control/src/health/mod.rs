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
//! # "Cannot ask" is not "does not answer"
//! A check that this host cannot make, or whose answer it may have lost, is undecided: it leaves
//! health as it was. [`way`] tells which checks depend on the data plane and whether it carries them
//! now, by what [`kernel`] says and [`watch`] looks at; [`doubt`] keeps the times in which silence tells
//! nothing. What silence has decided in such a time is taken back. As soon as a way is open again, who
//! could not be asked is asked, as if all were new.
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

mod doubt;
mod kernel;
pub mod machine;
pub mod phase;
mod probe;
mod scheduler;
mod watch;
mod way;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use schemars::JsonSchema;
use serde::Serialize;
use sluice_api::BackendId;
use sluice_api::service::HealthCheck;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use kernel::Kernel;
use scheduler::{Command, Scheduler, in_flight_limit};

pub use way::{Contact, PortInterface};

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
    /// What it is from now on; absent: unknown, as what its first check told was taken back.
    pub healthy: Option<bool>,
    /// What the deciding check saw: `HTTP 503, expected 200`, `connection refused`.
    pub reason: String,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// As the backend should answer.
    Passed,
    /// Otherwise, or not at all.
    Failed,
    /// It could not be made, or its answer may have been lost on this host: it tells nothing.
    Undecided,
}

/// What the last check of a backend saw, whether or not that has decided anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LastCheck {
    /// How it ended.
    pub result: CheckResult,
    /// Why, in words.
    pub reason: String,
    /// Since when checks end so, in ms since the Unix epoch.
    pub since_ms: u64,
}

/// The last check of every target that was checked at least once.
#[derive(Clone, Debug, Default)]
pub struct LastChecks(Arc<Mutex<HashMap<String, HashMap<BackendId, LastCheck>>>>);

impl LastChecks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<BackendId, LastCheck>>> {
        // A panic in another thread leaves whole values behind.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Of one backend.
    pub fn of(&self, service: &str, backend: BackendId) -> Option<LastCheck> {
        self.lock().get(service)?.get(&backend).cloned()
    }

    /// How many are undecided, by reason, and how many there are.
    pub fn undecided(&self) -> (Vec<(String, usize)>, usize) {
        let services = self.lock();
        let (mut reasons, mut all) = (HashMap::<&str, usize>::new(), 0);
        for check in services.values().flat_map(HashMap::values) {
            all += 1;
            if check.result == CheckResult::Undecided {
                *reasons.entry(&check.reason).or_default() += 1;
            }
        }
        let mut reasons: Vec<_> = reasons.into_iter().map(|(r, n)| (r.to_owned(), n)).collect();
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        (reasons, all)
    }

    fn note(&self, target: &Target, result: CheckResult, reason: &str, at_ms: u64) {
        let mut services = self.lock();
        let service = match services.get_mut(&target.service) {
            Some(service) => service,
            None => services.entry(target.service.clone()).or_default(),
        };
        let new = || LastCheck { result, reason: String::new(), since_ms: at_ms };
        let check = service.entry(target.backend).or_insert_with(new);
        if check.result != result {
            (check.result, check.since_ms) = (result, at_ms);
        }
        if check.reason != reason {
            reason.clone_into(&mut check.reason);
        }
    }

    fn retain(&self, keep: impl Fn(&str, BackendId) -> bool) {
        let mut services = self.lock();
        services.retain(|service, backends| {
            backends.retain(|backend, _| keep(service, *backend));
            !backends.is_empty()
        });
    }
}

/// Handle of the running health checker. It stops when the handle is dropped, when
/// [`Checker::shutdown`] is called, or when nobody receives the changes any more.
#[derive(Debug)]
pub struct Checker {
    commands: UnboundedSender<Command>,
    contact: tokio::sync::watch::Sender<Contact>,
    last_checks: LastChecks,
}

impl Checker {
    /// Starts checking on the current tokio runtime, with no targets yet, and no data plane met.
    /// Changes go to `changes`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(changes: UnboundedSender<HealthChange>) -> Checker {
        let (commands, receiver) = unbounded_channel();
        let (contact, contact_now) = tokio::sync::watch::channel(Contact::NotMet);
        let (kernel, last_checks) = (Kernel::open(), LastChecks::default());
        let scheduler = Scheduler::new(changes, in_flight_limit())
            .asking(kernel.clone())
            .noting(last_checks.clone());
        tokio::spawn(scheduler.run(receiver));
        // Whoever has stopped the checker has dropped this sender or stopped the receiver.
        tokio::spawn(watch::watch_ways(kernel, contact_now, commands.clone()));
        Checker { commands, contact, last_checks }
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

    /// Whether the data plane, through which checks go that leave by its ports, answers. While it does
    /// not, such checks are not made; when it does again, they are made as soon as if all were new.
    pub fn dataplane(&self, contact: Contact) {
        self.contact.send_if_modified(|known| {
            let is_news = *known != contact;
            if is_news {
                *known = contact;
            }
            is_news
        });
    }

    /// Some worker of the data plane was stuck from so many ms ago to so many ms ago (0: it still
    /// is), so that answers may have been lost there; or none was lately. Checks that got no answer
    /// in that time tell nothing, and what was believed for such a one is taken back.
    pub fn doubt_silence(&self, doubt: Option<(u64, u64)>) {
        let _ = self.commands.send(Command::Stalled(doubt));
    }

    /// What the last checks saw.
    pub fn last_checks(&self) -> LastChecks {
        self.last_checks.clone()
    }

    /// Stops all checks; no change is sent after those already on the channel.
    pub fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown);
    }
}
