//! The one task that decides which check runs when: a heap of due times, a set of running checks.

mod asking;
mod entry;
mod limit;
mod ways;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sluice_api::BackendId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use sluice_api::clock::now_ms;

use super::doubt::Doubts;
use super::kernel::Kernel;
use super::machine::Machine;
use super::probe::Outcome;
use super::way::{Via, Ways};
use super::{CheckResult, HealthChange, LastChecks, Target, phase};

use asking::Asking;
use entry::{Entry, EntryId};
use limit::late;

pub(super) use limit::in_flight_limit;

/// A warning about checks that are late or cannot run comes at most so often.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// A check that ends so much later than its deadline was held up by this host.
const HELD_UP: Duration = Duration::from_millis(500);

/// What the handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Replace the set; with what is known of each target, should it be new.
    SetTargets(Vec<(Target, Option<bool>)>),
    /// Which ways are open now; until `since` they were as told before.
    Ways { ways: Ways, since: Instant },
    /// A worker of the data plane was stuck from so many ms ago to so many ms ago (0: and still is), or
    /// none was.
    Stalled(Option<(u64, u64)>),
    /// Stop.
    Shutdown,
}

struct Finished {
    id: EntryId,
    started_us: u64,
    /// By what it was asked; absent when it was not.
    via: Option<Via>,
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
    kernel: Kernel,
    ways: Arc<Ways>,
    /// When a way was last opened, in µs since `start`; 0: never.
    ways_opened_us: u64,
    doubts: Doubts,
    last_checks: LastChecks,
    /// When as many checks ran as may, in µs since `start`.
    full_us: u64,
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
            kernel: Kernel::unknown(),
            ways: Arc::default(),
            ways_opened_us: 0,
            doubts: Doubts::default(),
            last_checks: LastChecks::default(),
            full_us: 0,
            warned: None,
        }
    }

    /// Asking this kernel for ways.
    pub(super) fn asking(self, kernel: Kernel) -> Scheduler {
        Scheduler { kernel, ..self }
    }

    /// Noting there what each check saw.
    pub(super) fn noting(self, last_checks: LastChecks) -> Scheduler {
        Scheduler { last_checks, ..self }
    }

    /// Runs until told to stop, or until nobody sends commands or receives changes. Running checks
    /// end with it.
    pub(super) async fn run(mut self, mut commands: UnboundedReceiver<Command>) {
        let changes = self.changes.clone();
        loop {
            self.start_due();
            let full = self.running.len() >= self.limit;
            let wake = self.due.peek().map(|Reverse((due_us, _))| self.instant(*due_us));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::SetTargets(targets)) => self.set_targets(targets),
                    Some(Command::Ways { ways, since }) => self.set_ways(ways, since),
                    Some(Command::Stalled(stall)) => self.note_stall(stall),
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
        while self.running.len() < self.limit {
            let now_us = self.now_us();
            let Some(Reverse((due_us, id))) = self.due.peek().copied() else { return };
            if due_us > now_us {
                return;
            }
            self.due.pop();
            let Some(entry) = self.entries.get(&id) else { continue };
            let interval_us = entry.interval_us();
            let asking = Asking {
                kernel: self.kernel.clone(),
                ways: self.ways.clone(),
                last: entry.via.clone(),
                backend: entry.target.backend,
                check: entry.target.check.clone(),
                deadline: entry.deadline(),
            };
            self.running.spawn(async move {
                let (via, outcome) = asking.ask().await;
                Finished { id, started_us: now_us, via, outcome }
            });
            let late_us = now_us - due_us;
            if late_us > interval_us {
                let waited_its_turn = self.full_us >= due_us;
                self.warn(|limit| late(late_us / 1_000, limit, waited_its_turn));
            }
        }
        self.full_us = self.now_us();
    }

    fn finish(&mut self, finished: Result<Finished, JoinError>) {
        let Finished { id, started_us, via, outcome } = match finished {
            Ok(finished) => finished,
            // The runtime ends, and all checks with it.
            Err(error) if error.is_cancelled() => return,
            // One has panicked: a bug, and never to be overlooked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now_us = self.now_us();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Some(via) = via {
            entry.via = via;
        }
        let outcome = match outcome {
            Outcome::Silent(reason) => {
                let took = Duration::from_micros(now_us - started_us);
                if let Some(cause) = self.doubts.about(&entry.via, started_us, now_us) {
                    Outcome::Unable(format!("no answer, but {cause}"))
                } else if took > entry.deadline() + HELD_UP {
                    Outcome::Unable("no answer, but this host has held the check up".to_owned())
                } else {
                    Outcome::Silent(reason)
                }
            }
            outcome => outcome,
        };
        let (result, reason) = match &outcome {
            Outcome::Pass(reason) => (CheckResult::Passed, reason),
            Outcome::Fail(reason) | Outcome::Silent(reason) => (CheckResult::Failed, reason),
            Outcome::Unable(reason) => (CheckResult::Undecided, reason),
        };
        entry.undecided = result == CheckResult::Undecided;
        self.last_checks.note(&entry.target, result, reason, now_ms());
        // What it could not tell is asked at once, if the way was opened meanwhile.
        let due_us = if entry.undecided && self.ways_opened_us > started_us {
            phase::first_due(entry.phase, entry.interval_us(), now_us, 1)
        } else {
            phase::next_due(entry.phase, entry.interval_us(), started_us)
        };
        self.due.push(Reverse((due_us, id)));
        let is_silent = matches!(outcome, Outcome::Silent(_));
        if is_silent {
            entry.silent_us = now_us;
        }
        let (passed, reason) = match outcome {
            Outcome::Pass(reason) => (true, reason),
            Outcome::Fail(reason) | Outcome::Silent(reason) => (false, reason),
            Outcome::Unable(reason) => {
                let backend = entry.target.backend;
                return self.warn(|_| format!("cannot check backend {backend}: {reason}"));
            }
        };
        let Some(healthy) = entry.machine.record(passed) else { return };
        // What an answer has decided is not in doubt.
        entry.fell_us = if !healthy && is_silent { now_us } else { 0 };
        let change = entry.change(Some(healthy), reason);
        // Without a receiver, the loop ends before its next turn.
        let _ = self.changes.send(change);
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
        self.last_checks.retain(|service, backend| kept.contains(&(service.to_owned(), backend)));
        let (now_us, count) = (self.now_us(), new.len());
        for (key, target, believed) in new {
            let entry = Entry {
                machine: Machine::new(believed, target.check.rise, target.check.fall),
                phase: phase::phase(&target.service, target.backend),
                via: Via::Unknown,
                undecided: false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::way::{Contact, Interface};
    use sluice_api::service::HealthCheck;

    fn entry(interval_ms: u32, timeout_ms: u32) -> Entry {
        let check = HealthCheck { interval_ms, timeout_ms, ..HealthCheck::default() };
        let backend = "127.0.0.1:1".parse().unwrap();
        Entry {
            target: Target { service: "web".into(), backend, check },
            machine: Machine::new(None, 1, 1),
            phase: 0,
            via: Via::Unknown,
            undecided: false,
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
        via: Via,
    }

    fn ago(ms: u64) -> Instant {
        Instant::now() - Duration::from_millis(ms)
    }

    fn away(since_ms: u64) -> Contact {
        Contact::Away { since: ago(since_ms), why: "no answer".into() }
    }

    fn answers() -> Contact {
        Contact::Answers(vec![])
    }

    impl One {
        fn new(fall: u8) -> One {
            let (sender, changes) = tokio::sync::mpsc::unbounded_channel();
            let mut scheduler = Scheduler::new(sender, 1);
            let mut target = entry(1_000, 100).target;
            target.check.fall = fall;
            target.check.rise = 1;
            scheduler.set_targets(vec![(target, Some(true))]);
            One { scheduler, changes, via: Via::Port("sl-lan".into()) }
        }

        /// Let so much time have passed.
        fn pass(&mut self, ms: u64) {
            self.scheduler.start -= Duration::from_millis(ms);
        }

        /// A check of so many ms ends now.
        fn ends(&mut self, took_ms: u64, outcome: Outcome) -> Option<bool> {
            let started_us = self.scheduler.now_us().saturating_sub(took_ms * 1_000);
            let id = self.scheduler.last_id;
            let via = Some(self.via.clone());
            self.scheduler.due.clear();
            self.scheduler.finish(Ok(Finished { id, started_us, via, outcome }));
            self.change()
        }

        fn change(&mut self) -> Option<bool> {
            self.changes.try_recv().ok().map(|change| change.healthy.expect("it is known"))
        }

        /// The port's interface has this fault, or none; until so many ms ago it was as before.
        fn ways(&mut self, contact: Contact, fault: Option<&str>, since_ms: u64) {
            let fault = fault.map(str::to_owned);
            self.interface(contact, Interface { fault, ..Interface::default() }, since_ms);
        }

        /// The link of the port is down or up; it was seen now.
        fn link(&mut self, is_down: bool) {
            let link_fault = is_down.then(|| "the link of port lan is down".to_owned());
            self.interface(answers(), Interface { link_fault, ..Interface::default() }, 0);
        }

        fn interface(&mut self, contact: Contact, interface: Interface, since_ms: u64) {
            let interface = Interface { index: Some(7), ..interface };
            let ways = Ways { contact, interfaces: HashMap::from([("sl-lan".into(), interface)]) };
            self.scheduler.set_ways(ways, ago(since_ms));
        }

        /// In how many ms the next check is due.
        fn due_in_ms(&self) -> u64 {
            let Some(Reverse((due_us, _))) = self.scheduler.due.peek() else { panic!("not due") };
            due_us.saturating_sub(self.scheduler.now_us()) / 1_000
        }

        fn last_check(&self) -> super::super::LastCheck {
            let target = &self.scheduler.entries[&self.scheduler.last_id].target;
            self.scheduler.last_checks.of(&target.service, target.backend).expect("it was checked")
        }
    }

    fn silent() -> Outcome {
        Outcome::Silent("no answer".into())
    }

    #[test]
    fn silence_tells_nothing_while_a_worker_is_stuck() {
        let mut one = One::new(1);
        one.pass(10_000);
        one.scheduler.note_stall(Some((200, 0)));
        assert_eq!(one.ends(100, silent()), None);
        one.pass(5_000);
        assert_eq!(one.ends(100, silent()), None, "it lasts until it is said to be over");
        assert_eq!(one.ends(100, Outcome::Fail("refused".into())), Some(false), "an answer counts");
        assert_eq!(one.ends(100, Outcome::Pass("ok".into())), Some(true), "and so does this one");
        one.scheduler.note_stall(Some((7_000, 500)));
        assert_eq!(one.ends(600, silent()), None, "it began before");
        assert_eq!(one.ends(400, silent()), Some(false), "it began after");
    }

    #[test]
    fn what_silence_decided_is_taken_back() {
        let mut one = One::new(1);
        one.pass(10_000);
        assert_eq!(one.ends(100, silent()), Some(false));
        one.pass(200);
        one.scheduler.note_stall(Some((150, 0)));
        assert_eq!(one.change(), None, "that was before");
        one.scheduler.note_stall(Some((250, 0)));
        assert_eq!(one.change(), Some(true));
        one.scheduler.note_stall(Some((260, 0)));
        assert_eq!(one.change(), None, "once");

        // What an answer has decided stays.
        assert_eq!(one.ends(100, Outcome::Fail("refused".into())), Some(false));
        one.scheduler.note_stall(Some((5_000, 0)));
        assert_eq!(one.change(), None);
    }

    #[test]
    fn failures_that_were_silence_do_not_add_up() {
        let mut one = One::new(2);
        one.pass(10_000);
        assert_eq!(one.ends(100, silent()), None);
        one.scheduler.note_stall(Some((50, 0)));
        one.scheduler.note_stall(None);
        one.pass(1_000);
        assert_eq!(one.ends(100, silent()), None, "the first one");
        assert_eq!(one.ends(100, silent()), Some(false));
    }

    #[test]
    fn silence_tells_nothing_while_the_data_plane_does_not_answer() {
        let mut one = One::new(1);
        one.pass(10_000);
        one.ways(answers(), None, 0);
        // It hangs; control takes half a second to see that, and silence has decided by then.
        one.pass(1_000);
        assert_eq!(one.ends(100, silent()), Some(false));
        one.pass(100);
        one.ways(away(600), None, 0);
        assert_eq!(one.change(), Some(true), "taken back");
        assert_eq!(one.last_check().result, CheckResult::Undecided);
        one.pass(6_000);
        assert_eq!(one.ends(100, silent()), None);
        assert_eq!(one.last_check().reason, "no answer, but the data plane did not answer");

        one.ways(answers(), None, 0);
        assert!(one.due_in_ms() <= 200, "asked at once: {}", one.due_in_ms());
        one.pass(90);
        assert_eq!(one.ends(100, silent()), None, "it began while the data plane hung");
        assert!(one.due_in_ms() <= 200, "asked at once: {}", one.due_in_ms());
        one.pass(200);
        assert_eq!(one.ends(100, silent()), Some(false), "it began after");
    }

    #[test]
    fn an_interface_that_is_down_decides_nothing_for_its_backends_only() {
        let mut one = One::new(1);
        one.pass(10_000);
        one.ways(answers(), None, 0);
        one.pass(1_000);
        assert_eq!(one.ends(100, silent()), Some(false));
        one.pass(50);
        one.ways(answers(), Some("interface sl-lan is down"), 100);
        assert_eq!(one.change(), Some(true), "taken back");
        one.pass(4_000);
        assert_eq!(one.ends(100, silent()), None);
        assert_eq!(one.last_check().reason, "no answer, but interface sl-lan was not in order");
        one.via = Via::Port("sl-wan".into());
        assert_eq!(one.ends(100, silent()), Some(false), "another port's backend");
        assert_eq!(one.ends(100, Outcome::Pass("ok".into())), Some(true));
        one.via = Via::Port("sl-lan".into());
        one.ends(100, silent());
        one.ways(answers(), None, 0);
        assert!(one.due_in_ms() <= 200, "asked at once: {}", one.due_in_ms());
    }

    #[test]
    fn a_link_that_is_down_is_held_against_no_backend_behind_it() {
        let mut one = One::new(1);
        one.pass(10_000);
        one.link(false);
        assert_eq!(one.ends(100, silent()), Some(false));
        one.pass(1_100);
        one.link(true);
        assert_eq!(one.change(), None, "that was long before");
        one.link(false);
        assert_eq!(one.ends(5, Outcome::Pass("ok".into())), Some(true));

        // It goes down; control hears of it some time later, and silence has decided by then.
        one.pass(5_000);
        assert_eq!(one.ends(100, silent()), Some(false));
        one.pass(500);
        one.link(true);
        assert_eq!(one.change(), Some(true), "taken back");
        let reason = "no answer, but the link of the port with sl-lan was down";
        assert_eq!(one.last_check().reason, reason);
        one.pass(6_000);
        assert_eq!(one.ends(100, silent()), None);
        one.via = Via::Port("sl-wan".into());
        assert_eq!(one.ends(100, silent()), Some(false), "another port's backend");
        assert_eq!(one.ends(5, Outcome::Pass("ok".into())), Some(true));
        one.via = Via::Port("sl-lan".into());
        assert_eq!(one.ends(100, silent()), None);

        one.link(false);
        assert!(one.due_in_ms() <= 200, "asked at once: {}", one.due_in_ms());
        one.pass(90);
        assert_eq!(one.ends(100, silent()), None, "it began while the link was down");
        assert!(one.due_in_ms() <= 200, "asked at once: {}", one.due_in_ms());
        one.pass(200);
        assert_eq!(one.ends(100, silent()), Some(false), "it began after");
    }

    #[test]
    fn what_cannot_be_asked_says_so_and_changes_nothing() {
        let mut one = One::new(1);
        one.pass(10_000);
        let unable = || Outcome::Unable("network unreachable".into());
        assert_eq!(one.ends(0, unable()), None);
        let first = one.last_check();
        assert_eq!(one.ends(0, unable()), None);
        assert_eq!(one.last_check(), first, "since the first one");
        assert_eq!(
            (first.result, first.reason.as_str()),
            (CheckResult::Undecided, "network unreachable")
        );
        assert_eq!(
            one.scheduler.last_checks.undecided(),
            (vec![("network unreachable".into(), 1)], 1)
        );
        assert_eq!(one.ends(5, Outcome::Pass("ok".into())), None);
        assert_eq!(one.last_check().result, CheckResult::Passed);
        assert_eq!(one.scheduler.last_checks.undecided(), (vec![], 1));
    }

    #[test]
    fn a_first_verdict_that_was_silence_is_unknown_again() {
        let mut one = One::new(1);
        one.pass(10_000);
        let target = entry(1_000, 100).target;
        one.scheduler.set_targets(vec![(Target { service: "new".into(), ..target }, None)]);
        assert_eq!(one.ends(100, silent()), Some(false));
        one.scheduler.note_stall(Some((50, 0)));
        assert_eq!(one.changes.try_recv().unwrap().healthy, None);
    }

    #[test]
    fn a_check_that_this_host_held_up_tells_nothing() {
        let mut one = One::new(1);
        one.pass(10_000);
        assert_eq!(one.ends(3_000, silent()), None, "its deadline was 100 ms");
        assert_eq!(one.ends(300, silent()), Some(false));
    }

    #[tokio::test]
    async fn nine_backends_do_not_reach_the_limit() {
        let (changes, _receiver) = tokio::sync::mpsc::unbounded_channel();
        let mut scheduler = Scheduler::new(changes, 64);
        let target = |n| Target { service: format!("s{n}"), ..entry(100, 100).target };
        scheduler.set_targets((1..=9).map(|n| (target(n), None)).collect());
        // Control was stopped for a second.
        scheduler.start -= Duration::from_secs(1);
        scheduler.start_due();
        assert_eq!((scheduler.running.len(), scheduler.full_us), (9, 0));
        assert!(scheduler.warned.is_some(), "they were late");
    }
}
