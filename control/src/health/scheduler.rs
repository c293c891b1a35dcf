//! The one task that decides which check runs when: a heap of due times, a set of running checks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_api::BackendId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::machine::Machine;
use super::probe::{Outcome, probe};
use super::{HealthChange, MAX_IN_FLIGHT, Target, phase};

/// At least so many checks run at once, however few files the process may open.
const MIN_IN_FLIGHT: usize = 64;
/// A warning about checks that are late or cannot run comes at most so often.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What the handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Replace the set; with what is known of each target, should it be new.
    SetTargets(Vec<(Target, Option<bool>)>),
    /// Start no checks and believe no results until told to go on.
    Pause,
    /// Check again.
    Resume,
    /// Answers may have been lost from so many ms ago to so many ms ago (0: and still are), or not.
    Doubt(Option<(u64, u64)>),
    /// Stop.
    Shutdown,
}

/// Names one version of one target; a changed or re-added target gets a new one, so that late
/// results and stale heap entries find nothing.
type EntryId = u64;

struct Entry {
    target: Target,
    machine: Machine,
    phase: u32,
    /// When a check last ended without an answer, and when one made it unhealthy, in µs since the
    /// scheduler's start; 0: never.
    silent_us: u64,
    fell_us: u64,
}

/// A time in which answers may have been lost, in µs since the scheduler's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    from_us: u64,
    /// Absent while it lasts.
    until_us: Option<u64>,
}

impl Entry {
    fn interval_us(&self) -> u64 {
        u64::from(self.target.check.interval_ms.max(1)) * 1_000
    }

    fn change(&self, healthy: bool, reason: String) -> HealthChange {
        let (service, backend) = (self.target.service.clone(), self.target.backend);
        HealthChange { service, backend, healthy, reason, at_ms: unix_ms() }
    }

    /// The timeout, less when it would run into the next check: then two checks in a row could not
    /// tell within two intervals.
    fn deadline(&self) -> Duration {
        let interval_ms = self.target.check.interval_ms;
        let longest_ms = interval_ms - (interval_ms / 5).min(100);
        Duration::from_millis(self.target.check.timeout_ms.min(longest_ms).max(1).into())
    }
}

struct Finished {
    id: EntryId,
    started_us: u64,
    outcome: Outcome,
}

/// State of the task.
pub(super) struct Scheduler {
    changes: UnboundedSender<HealthChange>,
    limit: usize,
    start: Instant,
    last_id: EntryId,
    entries: HashMap<EntryId, Entry>,
    by_key: HashMap<(String, BackendId), EntryId>,
    /// Due time in µs since `start`. An entry is here or running, never both.
    due: BinaryHeap<Reverse<(u64, EntryId)>>,
    running: JoinSet<Finished>,
    paused: bool,
    /// Checks that started earlier, in µs since `start`, started before a pause: they tell nothing.
    resumed_us: u64,
    doubt: Option<Doubt>,
    warned: Option<Instant>,
}

impl Scheduler {
    /// Without targets yet; runs at most `limit` checks at once.
    pub(super) fn new(changes: UnboundedSender<HealthChange>, limit: usize) -> Scheduler {
        Scheduler {
            changes,
            limit,
            start: Instant::now(),
            last_id: 0,
            entries: HashMap::new(),
            by_key: HashMap::new(),
            due: BinaryHeap::new(),
            running: JoinSet::new(),
            paused: false,
            resumed_us: 0,
            doubt: None,
            warned: None,
        }
    }

    /// Runs until told to stop, or until nobody sends commands or receives changes. Running checks
    /// end with it.
    pub(super) async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        let changes = self.changes.clone();
        loop {
            self.start_due();
            let full = self.paused || self.running.len() >= self.limit;
            let wake = self.due.peek().map(|Reverse((due_us, _))| self.instant(*due_us));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::SetTargets(targets)) => self.set_targets(targets),
                    Some(Command::Pause) => self.paused = true,
                    Some(Command::Resume) => self.resume(),
                    Some(Command::Doubt(doubt)) => self.doubt_silence(doubt),
                    Some(Command::Shutdown) | None => return,
                },
                Some(finished) = self.running.join_next() => self.finish(finished),
                () = sleep_until(wake.unwrap_or(self.start)), if wake.is_some() && !full => {}
                () = changes.closed() => return,
            }
        }
    }

    fn instant(&self, since_start_us: u64) -> Instant {
        self.start + Duration::from_micros(since_start_us)
    }

    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn next_id(&mut self) -> EntryId {
        self.last_id += 1;
        self.last_id
    }

    fn start_due(&mut self) {
        while !self.paused && self.running.len() < self.limit {
            let now_us = self.now_us();
            let Some(Reverse((due_us, id))) = self.due.peek().copied() else { return };
            if due_us > now_us {
                return;
            }
            self.due.pop();
            let Some(entry) = self.entries.get(&id) else { continue };
            let (backend, check) = (entry.target.backend, entry.target.check.clone());
            let (deadline, interval_us) = (entry.deadline(), entry.interval_us());
            self.running.spawn(async move {
                let outcome = probe(backend, &check, deadline).await;
                Finished { id, started_us: now_us, outcome }
            });
            let late_us = now_us - due_us;
            if late_us > interval_us {
                self.warn(|limit| {
                    format!(
                        "health checks are late by {} ms: {limit} run at once, the most that half \
                         of the open file limit allows",
                        late_us / 1_000
                    )
                });
            }
        }
    }

    fn finish(&mut self, finished: Result<Finished, JoinError>) {
        let Finished { id, started_us, outcome } = match finished {
            Ok(finished) => finished,
            // Nobody aborts checks, so one has panicked: a bug, and never to be overlooked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now_us = self.now_us();
        let in_doubt = self.doubt.is_some_and(|doubt| {
            doubt.from_us <= now_us && doubt.until_us.is_none_or(|us| started_us <= us)
        });
        let Some(entry) = self.entries.get_mut(&id) else { return };
        self.due.push(Reverse((phase::next_due(entry.phase, entry.interval_us(), started_us), id)));
        if self.paused || started_us < self.resumed_us {
            return;
        }
        let (passed, reason) = match outcome {
            Outcome::Pass(reason) => (true, reason),
            Outcome::Fail(reason) => (false, reason),
            Outcome::Silent(_) if in_doubt => return,
            Outcome::Silent(reason) => {
                entry.silent_us = now_us;
                (false, reason)
            }
            Outcome::Unable(reason) => {
                let backend = entry.target.backend;
                return self.warn(|_| format!("cannot check backend {backend}: {reason}"));
            }
        };
        let Some(healthy) = entry.machine.record(passed) else { return };
        // What an answer has decided is not in doubt.
        entry.fell_us = if !healthy && entry.silent_us == now_us { now_us } else { 0 };
        let change = entry.change(healthy, reason);
        // Without a receiver, the loop ends before its next turn.
        let _ = self.changes.send(change);
    }

    /// Checks without an answer between then and then tell nothing; nor did they.
    fn doubt_silence(&mut self, doubt: Option<(u64, u64)>) {
        let now_us = self.now_us();
        let Some((began_ms, ended_ms)) = doubt else {
            // That it is over was not heard.
            if let Some(Doubt { until_us: until_us @ None, .. }) = &mut self.doubt {
                *until_us = Some(now_us);
            }
            return;
        };
        let ago = |ms: u64| now_us.saturating_sub(ms.saturating_mul(1_000));
        let mut new =
            Doubt { from_us: ago(began_ms), until_us: (ended_ms > 0).then(|| ago(ended_ms)) };
        if let Some(old) = self.doubt.filter(|old| old.until_us.is_none_or(|us| us >= new.from_us))
        {
            new.from_us = new.from_us.min(old.from_us);
        }
        self.doubt = Some(new);
        for entry in self.entries.values_mut().filter(|entry| entry.silent_us > new.from_us) {
            entry.silent_us = 0;
            if std::mem::take(&mut entry.fell_us) > new.from_us {
                entry.machine.restore();
                let reason = "no answer, but a worker of the data plane was stuck: taken back";
                let _ = self.changes.send(entry.change(true, reason.to_owned()));
            } else if entry.machine.healthy() != Some(false) {
                entry.machine.forget();
            }
        }
    }

    /// Go on: all targets are due anew, spread as new ones are.
    fn resume(&mut self) {
        if !std::mem::take(&mut self.paused) {
            return;
        }
        let now_us = self.now_us();
        self.resumed_us = now_us;
        let waiting: Vec<EntryId> = self.due.drain().map(|Reverse((_, id))| id).collect();
        let count = waiting.len();
        for id in waiting {
            let Some(entry) = self.entries.get(&id) else { continue };
            let due_us = phase::first_due(entry.phase, entry.interval_us(), now_us, count);
            self.due.push(Reverse((due_us, id)));
        }
    }

    fn set_targets(&mut self, targets: Vec<(Target, Option<bool>)>) {
        let mut kept = HashSet::with_capacity(targets.len());
        let mut new = Vec::new();
        for (target, known) in targets {
            let key = (target.service.clone(), target.backend);
            if !kept.insert(key.clone()) {
                continue;
            }
            let entry = self.by_key.get(&key).and_then(|id| self.entries.get_mut(id));
            let believed = match entry {
                Some(entry) if entry.target == target => {
                    if entry.machine.healthy().is_none() {
                        entry.machine = Machine::new(known, target.check.rise, target.check.fall);
                    }
                    continue;
                }
                Some(entry) => entry.machine.healthy().or(known),
                None => known,
            };
            new.push((key, target, believed));
        }
        self.forget_all_but(&kept);
        let (now_us, count) = (self.now_us(), new.len());
        for (key, target, believed) in new {
            let entry = Entry {
                machine: Machine::new(believed, target.check.rise, target.check.fall),
                phase: phase::phase(&target.service, target.backend),
                silent_us: 0,
                fell_us: 0,
                target,
            };
            let id = self.next_id();
            let due_us = phase::first_due(entry.phase, entry.interval_us(), now_us, count);
            self.due.push(Reverse((due_us, id)));
            self.entries.insert(id, entry);
            if let Some(old) = self.by_key.insert(key, id) {
                self.entries.remove(&old);
            }
        }
        // Not more heap than targets, however often the set changes.
        self.due.retain(|Reverse((_, id))| self.entries.contains_key(id));
    }

    fn forget_all_but(&mut self, kept: &HashSet<(String, BackendId)>) {
        let entries = &mut self.entries;
        self.by_key.retain(|key, id| {
            let keep = kept.contains(key);
            if !keep {
                entries.remove(id);
            }
            keep
        });
    }

    fn warn(&mut self, message: impl FnOnce(usize) -> String) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!("{}", message(self.limit));
        }
    }
}

/// Half of the process's soft limit of open files, within bounds: a check holds one, and the API
/// and the data plane need theirs.
pub(super) fn in_flight_limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .map_or(1_024, |soft| soft.parse().unwrap_or(usize::MAX));
    (open_files / 2).clamp(MIN_IN_FLIGHT, MAX_IN_FLIGHT)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_api::service::HealthCheck;

    fn entry(interval_ms: u32, timeout_ms: u32) -> Entry {
        let check = HealthCheck { interval_ms, timeout_ms, ..HealthCheck::default() };
        let backend = "127.0.0.1:1".parse().unwrap();
        Entry {
            target: Target { service: "web".into(), backend, check },
            machine: Machine::new(None, 1, 1),
            phase: 0,
            silent_us: 0,
            fell_us: 0,
        }
    }

    #[test]
    fn a_check_ends_before_the_next_is_due() {
        let deadline = |interval, timeout| entry(interval, timeout).deadline().as_millis();
        assert_eq!(deadline(500, 300), 300);
        assert_eq!(deadline(500, 500), 400);
        assert_eq!(deadline(100, 100), 80);
        assert_eq!(deadline(60_000, 60_000), 59_900);
        assert_eq!(deadline(0, 0), 1, "nonsense is clamped");
    }

    #[test]
    fn the_bound_follows_the_open_file_limit() {
        assert!((MIN_IN_FLIGHT..=MAX_IN_FLIGHT).contains(&in_flight_limit()));
    }

    #[tokio::test]
    async fn no_more_checks_run_than_the_limit() {
        let (changes, _receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut scheduler = Scheduler::new(changes, 3);
        let targets = (1..=50)
            .map(|port| (Target { service: format!("s{port}"), ..entry(100, 100).target }, None))
            .collect();
        scheduler.set_targets(targets);
        tokio::time::sleep(Duration::from_millis(110)).await;
        scheduler.start_due();
        assert_eq!(scheduler.running.len(), 3);
        assert_eq!(scheduler.due.len(), 47, "the others wait their turn");
    }

    #[tokio::test]
    async fn the_heap_does_not_grow_with_changes() {
        let (changes, _receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut scheduler = Scheduler::new(changes, 1);
        for round in 0..100 {
            let mut target = entry(3_600_000, 1_000).target;
            target.check.rise = round + 1;
            scheduler.set_targets(vec![(target, None)]);
        }
        assert_eq!((scheduler.due.len(), scheduler.entries.len()), (1, 1));
        assert_eq!(scheduler.by_key.len(), 1);
    }

    /// A scheduler over one backend that is believed healthy and falls at once, its changes, and
    /// what it makes of a check that began and ended so many ms after the start.
    struct One {
        scheduler: Scheduler,
        changes: tokio::sync::mpsc::UnboundedReceiver<HealthChange>,
    }

    impl One {
        fn new(fall: u8) -> One {
            let (sender, changes) = tokio::sync::mpsc::unbounded_channel();
            let mut scheduler = Scheduler::new(sender, 1);
            let mut target = entry(1_000, 100).target;
            target.check.fall = fall;
            target.check.rise = 1;
            scheduler.set_targets(vec![(target, Some(true))]);
            One { scheduler, changes }
        }

        /// Let so much time have passed.
        fn pass(&mut self, ms: u64) {
            self.scheduler.start -= Duration::from_millis(ms);
        }

        /// A check of so many ms ends now.
        fn ends(&mut self, took_ms: u64, outcome: Outcome) -> Option<bool> {
            let started_us = self.scheduler.now_us().saturating_sub(took_ms * 1_000);
            let id = self.scheduler.last_id;
            self.scheduler.finish(Ok(Finished { id, started_us, outcome }));
            self.change()
        }

        fn change(&mut self) -> Option<bool> {
            self.changes.try_recv().ok().map(|change| change.healthy)
        }
    }

    fn silent() -> Outcome {
        Outcome::Silent("no answer".into())
    }

    #[test]
    fn silence_tells_nothing_while_a_worker_is_stuck() {
        let mut one = One::new(1);
        one.pass(10_000);
        one.scheduler.doubt_silence(Some((200, 0)));
        assert_eq!(one.ends(100, silent()), None);
        one.pass(5_000);
        assert_eq!(one.ends(100, silent()), None, "it lasts until it is said to be over");
        assert_eq!(one.ends(100, Outcome::Fail("refused".into())), Some(false), "an answer counts");
        assert_eq!(one.ends(100, Outcome::Pass("ok".into())), Some(true), "and so does this one");
        one.scheduler.doubt_silence(Some((7_000, 500)));
        assert_eq!(one.ends(600, silent()), None, "it began before");
        assert_eq!(one.ends(400, silent()), Some(false), "it began after");
    }

    #[test]
    fn what_silence_decided_is_taken_back() {
        let mut one = One::new(1);
        one.pass(10_000);
        assert_eq!(one.ends(100, silent()), Some(false));
        one.pass(200);
        one.scheduler.doubt_silence(Some((150, 0)));
        assert_eq!(one.change(), None, "that was before");
        one.scheduler.doubt_silence(Some((250, 0)));
        assert_eq!(one.change(), Some(true));
        one.scheduler.doubt_silence(Some((260, 0)));
        assert_eq!(one.change(), None, "once");

        // What an answer has decided stays.
        assert_eq!(one.ends(100, Outcome::Fail("refused".into())), Some(false));
        one.scheduler.doubt_silence(Some((5_000, 0)));
        assert_eq!(one.change(), None);
    }

    #[test]
    fn failures_that_were_silence_do_not_add_up() {
        let mut one = One::new(2);
        one.pass(10_000);
        assert_eq!(one.ends(100, silent()), None);
        one.scheduler.doubt_silence(Some((50, 0)));
        one.scheduler.doubt_silence(None);
        one.pass(1_000);
        assert_eq!(one.ends(100, silent()), None, "the first one");
        assert_eq!(one.ends(100, silent()), Some(false));
    }
}
