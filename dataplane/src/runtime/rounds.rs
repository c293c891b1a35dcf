//! Whether the main thread comes round, and what keeps it when it does not.
//!
//! The main thread notes what it is about to do ([`Rounds::step`]); a round that takes long, or a nap
//! out of which it is woken late, becomes an event when it is over. A thread of its own looks at the
//! same notes and says so in the log while it lasts, as the main thread itself cannot.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice_api::stats::MainThreadStats;

use super::pulse::{STUCK_MS, Stall};

/// From here on a round took long, or a nap ended late, in ns.
const LATE_NS: u64 = 20_000_000;
/// From here on it was a stall: what others were seen to do, or not to do, meanwhile tells nothing.
const STALL_NS: u64 = STUCK_MS * 1_000_000;
/// At most one event about that in this time, in ns.
const EVENT_EVERY_NS: u64 = 10_000_000_000;
/// The longest is that of the current and of the last window, each of this length, in ns.
const WINDOW_NS: u64 = 10_000_000_000;
/// How often the watching thread looks.
const LOOK: Duration = Duration::from_millis(100);
/// After this time it says that the main thread is silent, and again each time it has doubled.
const SILENT: Duration = Duration::from_millis(500);

/// What the main thread does in a round, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Waits for work.
    #[default]
    Nap,
    /// Looks after workers, reads what they say.
    Messages,
    /// Moves packets to and from the kernel.
    Kernel,
    /// Looks after next hops.
    NextHops,
    /// Answers control.
    Control,
    /// Has workers go by a new snapshot.
    Snapshot,
    /// Counts conns over all workers.
    Tally,
    /// Looks at links.
    Links,
    /// Sets up ports anew.
    Ports,
    /// Looks at counters and tables.
    Tables,
}

impl Step {
    const ALL: [(Step, &'static str); 10] = [
        (Step::Nap, "asleep: its CPU is taken by others, or the machine stood still"),
        (Step::Messages, "looking after workers"),
        (Step::Kernel, "moving packets to and from the kernel"),
        (Step::NextHops, "looking after next hops"),
        (Step::Control, "answering control"),
        (Step::Snapshot, "taking a new snapshot over"),
        (Step::Tally, "counting conns over all workers"),
        (Step::Links, "looking at links"),
        (Step::Ports, "setting ports up anew"),
        (Step::Tables, "looking at counters and tables"),
    ];

    /// In words that follow "it was".
    fn words(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What the main thread notes, for the watching thread to see.
#[derive(Debug)]
struct Notes {
    start: Instant,
    /// When the current step began, in ns since `start`.
    since_ns: AtomicU64,
    step: AtomicU8,
    /// The main thread is about to end, which may take its time.
    over: AtomicBool,
}

/// How long the main thread's rounds take. It owns this.
#[derive(Debug)]
pub struct Rounds {
    notes: Arc<Notes>,
    step: Step,
    since_ns: u64,
    /// The round so far, without its nap, and the step in it that took longest.
    round_ns: u64,
    slowest: (Step, u64),
    /// When the round before this one began, in ns since the start.
    round_began_ns: u64,
    /// The last time in which it did not come round: from when to when, in ns since the start.
    stall: Option<(u64, u64)>,
    /// The longest nap that it asks for.
    nap_ns: u64,
    stats: MainThreadStats,
    /// Longest round and latest wake-up of the window before.
    before_us: (u64, u64),
    now_us: (u64, u64),
    window_ends_ns: u64,
    next_event_ns: u64,
    untold: u64,
}

impl Rounds {
    /// Of a main thread whose naps are no longer than `nap`.
    pub fn new(nap: Duration) -> Rounds {
        let notes = Notes {
            start: Instant::now(),
            since_ns: AtomicU64::new(0),
            step: AtomicU8::new(Step::Nap as u8),
            over: AtomicBool::new(false),
        };
        Rounds {
            notes: Arc::new(notes),
            step: Step::Nap,
            since_ns: 0,
            round_ns: 0,
            slowest: (Step::Nap, 0),
            round_began_ns: 0,
            stall: None,
            nap_ns: nap.as_nanos() as u64,
            stats: MainThreadStats::default(),
            before_us: (0, 0),
            now_us: (0, 0),
            window_ends_ns: WINDOW_NS,
            next_event_ns: 0,
            untold: 0,
        }
    }

    /// The main thread is about to do this. Returns what is to be told of the round that is over with
    /// its nap: nearly always nothing.
    pub fn step(&mut self, step: Step) -> Option<String> {
        self.step_at(step, self.notes.start.elapsed().as_nanos() as u64)
    }

    fn step_at(&mut self, step: Step, now_ns: u64) -> Option<String> {
        let took_ns = now_ns.saturating_sub(self.since_ns);
        let done = std::mem::replace(&mut self.step, step);
        self.since_ns = now_ns;
        self.notes.step.store(step as u8, Relaxed);
        self.notes.since_ns.store(now_ns, Relaxed);
        if done != Step::Nap {
            self.round_ns += took_ns;
            if took_ns > self.slowest.1 {
                self.slowest = (done, took_ns);
            }
            return None;
        }
        let late_ns = took_ns.saturating_sub(self.nap_ns);
        let (round_ns, slowest) = (self.round_ns, self.slowest);
        (self.round_ns, self.slowest) = (0, (Step::Nap, 0));
        let began_ns = std::mem::replace(&mut self.round_began_ns, now_ns);
        if round_ns + late_ns >= STALL_NS {
            self.stall = Some((began_ns, now_ns));
        }
        self.account(now_ns, round_ns, late_ns);
        let (took_ns, (slow_step, slow_ns)) =
            if late_ns > round_ns { (late_ns, (Step::Nap, late_ns)) } else { (round_ns, slowest) };
        if took_ns < LATE_NS {
            return None;
        }
        self.stats.late_rounds += 1;
        if now_ns < self.next_event_ns {
            self.untold += 1;
            return None;
        }
        self.next_event_ns = now_ns + EVENT_EVERY_NS;
        let more = match std::mem::take(&mut self.untold) {
            0 => String::new(),
            more => format!("; {more} more since that was last told"),
        };
        let ms = |ns: u64| ns / 1_000_000;
        Some(format!(
            "the main thread came round {} ms late: {} ms of it, it was {}{more}",
            ms(took_ns),
            ms(slow_ns),
            slow_step.words()
        ))
    }

    fn account(&mut self, now_ns: u64, round_ns: u64, late_ns: u64) {
        self.stats.rounds += 1;
        if now_ns >= self.window_ends_ns {
            self.window_ends_ns = now_ns + WINDOW_NS;
            self.before_us = std::mem::take(&mut self.now_us);
        }
        let (round_us, late_us) = &mut self.now_us;
        *round_us = (round_ns / 1_000).max(*round_us);
        *late_us = (late_ns / 1_000).max(*late_us);
    }

    /// What is known by now.
    pub fn stats(&self) -> MainThreadStats {
        MainThreadStats {
            longest_round_us: self.now_us.0.max(self.before_us.0),
            latest_wake_us: self.now_us.1.max(self.before_us.1),
            ..self.stats
        }
    }

    /// The last time in which it did not come round for as long as that makes a worker stuck, by the clock
    /// by which it is `now_ms`.
    pub fn last_stall(&self, now_ms: u64) -> Option<Stall> {
        let (since_ns, until_ns) = self.stall?;
        let now_ns = self.notes.start.elapsed().as_nanos() as u64;
        let at = |ns: u64| now_ms.saturating_sub(now_ns.saturating_sub(ns) / 1_000_000);
        Some(Stall { since_ms: at(since_ns), until_ms: Some(at(until_ns)) })
    }

    /// Nobody is to say any more that it is silent: it ends, and waits for others to do so.
    pub fn end(&self) {
        self.notes.over.store(true, Relaxed);
    }

    /// Start the thread that tells of a main thread that is silent. It ends with this.
    ///
    /// # Errors
    /// The kernel does not give us a thread.
    pub fn watch(&self) -> io::Result<JoinHandle<()>> {
        let notes = Arc::downgrade(&self.notes);
        std::thread::Builder::new().name("watch-main".into()).spawn(move || watch(&notes))
    }
}

fn watch(notes: &Weak<Notes>) {
    let mut silence = Silence::default();
    loop {
        std::thread::sleep(LOOK);
        let Some(notes) = notes.upgrade() else { return };
        if notes.over.load(Relaxed) {
            return;
        }
        let step = Step::ALL[usize::from(notes.step.load(Relaxed))].0;
        let since = Duration::from_nanos(notes.since_ns.load(Relaxed));
        let lasts = notes.start.elapsed().saturating_sub(since);
        if silence.is_to_be_told(lasts) {
            tracing::error!(
                "the main thread is silent since {} ms: it is {}; control is not answered, ARP not \
                 sent, the host's packets not moved; workers forward",
                lasts.as_millis(),
                step.words()
            );
        }
    }
}

/// When silence is to be told of: after [`SILENT`], and each time it has doubled.
#[derive(Debug)]
struct Silence {
    next: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Silence { next: SILENT }
    }
}

impl Silence {
    fn is_to_be_told(&mut self, lasts: Duration) -> bool {
        if lasts < SILENT {
            self.next = SILENT;
        }
        let told = lasts >= self.next;
        if told {
            self.next = lasts * 2;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A round that begins in time at `at_ms`, in which each step takes so many ms, and what is told
    /// after a nap of `nap_ms`.
    fn round(
        rounds: &mut Rounds,
        at_ms: u64,
        steps: &[(Step, u64)],
        nap_ms: u64,
    ) -> Option<String> {
        (rounds.step, rounds.since_ns) = (Step::Nap, at_ms * MS);
        (rounds.round_ns, rounds.slowest) = (0, (Step::Nap, 0));
        let mut now = at_ms * MS;
        let mut told = None;
        for (step, took_ms) in steps {
            told = rounds.step_at(*step, now).or(told);
            now += took_ms * MS;
        }
        told = rounds.step_at(Step::Nap, now).or(told);
        rounds.step_at(Step::Messages, now + nap_ms * MS).or(told)
    }

    #[test]
    fn steps_have_their_words() {
        for (place, (step, _)) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, place, "{step:?}");
        }
    }

    #[test]
    fn a_long_round_names_its_slowest_step() {
        let mut rounds = Rounds::new(Duration::from_millis(2));
        assert_eq!(round(&mut rounds, 0, &[(Step::Messages, 1), (Step::Control, 18)], 2), None);
        let steps = [(Step::Messages, 3), (Step::Control, 40), (Step::Tally, 9)];
        assert_eq!(
            round(&mut rounds, 100, &steps, 1).unwrap(),
            "the main thread came round 52 ms late: 40 ms of it, it was answering control"
        );
        let stats = rounds.stats();
        assert_eq!((stats.late_rounds, stats.longest_round_us), (1, 52_000));
    }

    #[test]
    fn a_nap_that_ends_late_is_told_apart() {
        let mut rounds = Rounds::new(Duration::from_millis(2));
        let told = round(&mut rounds, 0, &[(Step::Messages, 1)], 302).unwrap();
        assert!(
            told.starts_with("the main thread came round 300 ms late: 300 ms of it, it was asleep")
        );
        assert_eq!(rounds.stats().latest_wake_us, 300_000);
        assert_eq!(rounds.stats().longest_round_us, 1_000);
    }

    #[test]
    fn a_stall_is_remembered_with_its_times() {
        let mut rounds = Rounds::new(Duration::from_millis(2));
        round(&mut rounds, 0, &[(Step::Tally, 60)], 41);
        assert_eq!(rounds.stall, None, "99 ms");
        rounds.round_began_ns = 500 * MS;
        round(&mut rounds, 500, &[(Step::Tally, 60)], 42);
        assert_eq!(rounds.stall, Some((500 * MS, 602 * MS)));
        // It is later now than it was then, whenever the clock of whoever asks began.
        let stall = rounds.last_stall(1_000_000).unwrap();
        assert!(stall.until_ms.unwrap() - stall.since_ms <= 102 && stall.since_ms <= 1_000_000);
    }

    #[test]
    fn events_are_ten_seconds_apart_and_count_the_others() {
        let mut rounds = Rounds::new(Duration::from_millis(2));
        let mut slow = |at_ms| round(&mut rounds, at_ms, &[(Step::Links, 30)], 1);
        assert!(slow(1_000).is_some());
        assert!((11..=20).all(|tenth| slow(tenth * 100).is_none()));
        assert!(slow(11_200).unwrap().ends_with("; 10 more since that was last told"));
        assert_eq!(rounds.stats().late_rounds, 12);
    }

    #[test]
    fn the_longest_is_forgotten_after_two_windows() {
        let mut rounds = Rounds::new(Duration::from_millis(2));
        let mut longest = |at_s: u64, took_ms| {
            round(&mut rounds, at_s * 1_000, &[(Step::Kernel, took_ms)], 1);
            rounds.stats().longest_round_us
        };
        assert_eq!([longest(1, 9), longest(9, 3), longest(11, 4)], [9_000; 3]);
        assert_eq!([longest(22, 1), longest(33, 1)], [4_000, 1_000]);
    }

    #[test]
    fn silence_is_told_each_time_it_has_doubled() {
        let mut silence = Silence::default();
        let looks = [100, 499, 600, 700, 1_199, 1_200, 1_300, 2_500, 3, 450, 501];
        let told = looks.map(|ms| silence.is_to_be_told(Duration::from_millis(ms)));
        let expected = [600, 1_200, 2_500, 501];
        assert_eq!(told, looks.map(|ms| expected.contains(&ms)));
    }

    #[test]
    fn the_watching_thread_ends_with_what_it_watches() {
        let rounds = Rounds::new(Duration::from_millis(2));
        let thread = rounds.watch().unwrap();
        drop(rounds);
        thread.join().unwrap();
    }
}
