//! What a poll loop does when there is nothing to do.

use std::time::Duration;

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
        std::thread::sleep(self.nap);
        self.nap = (self.nap * 2).min(self.longest);
    }
}
