//! What a poll loop does when there is nothing to do.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::thread::{ClockId, clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{Timespec, clock_gettime};

use crate::config::Idle;

/// Empty rounds before the first nap: short gaps within a burst of traffic cost nothing.
const SPIN_ROUNDS: u32 = 256;
/// First nap.
const FIRST_NAP: Duration = Duration::from_micros(20);
/// Longest nap of a worker: the most that a packet may wait on an idle worker, and what keeps it
/// below 5 % of a core.
pub const LONGEST_NAP: Duration = Duration::from_millis(1);

/// Backs off while there is no work: spins, then naps, each twice as long as the last.
#[derive(Clone, Debug)]
pub struct Backoff {
    mode: Idle,
    longest: Duration,
    empty_rounds: u32,
    nap: Duration,
}

impl Backoff {
    /// In this mode, with naps of at most `longest`.
    pub fn new(mode: Idle, longest: Duration) -> Self {
        Backoff { mode, longest, empty_rounds: 0, nap: FIRST_NAP }
    }

    /// A round has brought so many packets.
    #[inline(always)]
    pub fn after_round(&mut self, packets: usize) {
        if packets > 0 || self.mode == Idle::Busy {
            self.empty_rounds = 0;
            self.nap = FIRST_NAP;
            return;
        }
        self.empty_rounds += 1;
        if self.empty_rounds < SPIN_ROUNDS {
            std::hint::spin_loop();
            return;
        }
        self.empty_rounds = SPIN_ROUNDS;
        nap(self.nap);
        self.nap = (self.nap * 2).min(self.longest);
    }
}

/// Sleep for so long, however many signals the thread gets meanwhile. The deadline is absolute: what is
/// left of a relative one is rounded up at each signal, and never ends when they come often enough.
pub fn nap(length: Duration) {
    const NS: i64 = 1_000_000_000;
    let now = clock_gettime(ClockId::Monotonic);
    let ns = now.tv_nsec + i64::from(length.subsec_nanos());
    let seconds = now.tv_sec + length.as_secs() as i64 + ns / NS;
    let deadline = Timespec { tv_sec: seconds, tv_nsec: ns % NS };
    while clock_nanosleep_absolute(ClockId::Monotonic, &deadline) == Err(rustix::io::Errno::INTR) {}
}

/// Have naps of this thread, and of those it starts from now on, end when they should: the kernel adds
/// up to 50 µs otherwise, which is more than twice the shortest.
pub fn nap_exactly() {
    if let Err(error) = set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::warn!(%error, "the kernel keeps its timer slack: naps are longer than they should be");
    }
}
