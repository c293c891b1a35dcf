//! Whether a worker comes round: its rounds as the main thread sees them go up. A worker that the
//! kernel, a debugger or its device holds up is noticed here; nothing is asked of it.

use sluice_path::ids::WorkerId;

/// A worker that has not come round for so long is stuck, in ms.
pub const STUCK_MS: u64 = 100;
/// What main sends goes by a worker that came round within so long, in ms, where there is one: some
/// naps of an idle one.
pub const FRESH_MS: u64 = 10;
/// Of the time between two looks at most so much counts, in ms: while the main thread was held up
/// itself, as with the whole process, it knows nothing of others.
const LONGEST_LOOK_MS: u64 = 10;
/// The event of a worker comes at most so often, in ms.
const TOLD_EVERY_MS: u64 = 10_000;

/// A time in which a worker did not come round, in ms by the main thread's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Its last round before.
    pub since_ms: u64,
    /// Its first round after; absent while it lasts.
    pub until_ms: Option<u64>,
}

/// What an operator is to hear of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is stuck; so many times that were not told came before.
    Stuck {
        /// How many.
        untold: u64,
    },
    /// It comes round again.
    Back {
        /// How long it did not, in ms.
        after_ms: u64,
    },
}

/// The pulse of one worker.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    rounds: u64,
    moved_ms: u64,
    looked_ms: u64,
    silent_ms: u64,
    last: Option<Stall>,
    stalls: u64,
    stalled_ms: u64,
    /// The stall that lasts was told.
    told: bool,
    quiet_until_ms: u64,
    untold: u64,
}

impl Pulse {
    /// Of a worker that is well now.
    pub fn new(now_ms: u64) -> Self {
        Pulse { moved_ms: now_ms, looked_ms: now_ms, ..Pulse::default() }
    }

    /// It has made so many rounds by now.
    pub fn look(&mut self, rounds: u64, now_ms: u64) -> Option<News> {
        let passed_ms = now_ms.saturating_sub(self.looked_ms).min(LONGEST_LOOK_MS);
        self.looked_ms = now_ms;
        if rounds != self.rounds {
            self.rounds = rounds;
            let after_ms = now_ms.saturating_sub(self.moved_ms);
            (self.moved_ms, self.silent_ms) = (now_ms, 0);
            return self.back(now_ms, after_ms);
        }
        self.silent_ms += passed_ms;
        if self.silent_ms < STUCK_MS || self.is_stuck() {
            return None;
        }
        self.last = Some(Stall { since_ms: self.moved_ms, until_ms: None });
        self.stalls += 1;
        self.told = now_ms >= self.quiet_until_ms;
        if !self.told {
            self.untold += 1;
            return None;
        }
        self.quiet_until_ms = now_ms + TOLD_EVERY_MS;
        Some(News::Stuck { untold: std::mem::take(&mut self.untold) })
    }

    fn back(&mut self, now_ms: u64, after_ms: u64) -> Option<News> {
        let stall = self.last.as_mut().filter(|stall| stall.until_ms.is_none())?;
        stall.until_ms = Some(now_ms);
        self.stalled_ms += after_ms;
        self.told.then_some(News::Back { after_ms })
    }

    /// It was made to pause: that was no stall.
    pub fn forgive(&mut self, now_ms: u64) {
        if !self.is_stuck() {
            (self.moved_ms, self.looked_ms, self.silent_ms) = (now_ms, now_ms, 0);
        }
    }

    /// Whether it is stuck.
    pub fn is_stuck(&self) -> bool {
        self.last.is_some_and(|stall| stall.until_ms.is_none())
    }

    /// Its last stall.
    pub fn last_stall(&self) -> Option<Stall> {
        self.last
    }

    /// For how long it has not come round, as far as somebody looked, in ms.
    pub fn silent_ms(&self) -> u64 {
        self.silent_ms
    }

    /// For how long it has been stuck, in ms; 0 when it is not.
    pub fn stuck_ms(&self, now_ms: u64) -> u64 {
        if self.is_stuck() { now_ms.saturating_sub(self.moved_ms).max(1) } else { 0 }
    }

    /// How often it was stuck.
    pub fn stalls(&self) -> u64 {
        self.stalls
    }

    /// For how long it was stuck in all, in ms.
    pub fn stalled_ms(&self, now_ms: u64) -> u64 {
        self.stalled_ms + self.stuck_ms(now_ms)
    }
}

/// The worker by which the main thread sends: the one it has, as long as that comes round, else the
/// one that came round last.
pub fn carrier(current: WorkerId, mut silent_ms: impl Iterator<Item = u64> + Clone) -> WorkerId {
    if silent_ms.clone().nth(current.index()).is_some_and(|silent| silent < FRESH_MS) {
        return current;
    }
    let mut best = (u64::MAX, current);
    for worker in (0..).map(WorkerId) {
        let Some(silent) = silent_ms.next() else { break };
        best = best.min((silent, worker));
    }
    best.1
}

/// The time in which some worker did not come round: of stalls that last, and of those that ended
/// within `recent_ms` before now; how long ago it began and ended, in ms (0 while one lasts).
pub fn doubtful_ms(
    stalls: impl Iterator<Item = Stall>,
    now_ms: u64,
    recent_ms: u64,
) -> Option<(u64, u64)> {
    let ago = |at_ms: u64| now_ms.saturating_sub(at_ms);
    stalls
        .map(|stall| (ago(stall.since_ms), stall.until_ms.map_or(0, ago)))
        .filter(|(_, ended)| *ended <= recent_ms)
        .reduce(|a, b| (a.0.max(b.0), a.1.min(b.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Look every ms from a time to another, at a worker that makes a round each time or none.
    fn watch(pulse: &mut Pulse, ms: std::ops::Range<u64>, comes_round: bool) -> Vec<(u64, News)> {
        let rounds = pulse.rounds;
        ms.zip(1..)
            .filter_map(|(now, n)| {
                let rounds = if comes_round { rounds + n } else { rounds };
                pulse.look(rounds, now).map(|news| (now, news))
            })
            .collect()
    }

    #[test]
    fn a_worker_that_does_not_come_round_is_told_once_and_when_it_is_back() {
        let mut pulse = Pulse::new(1_000);
        assert_eq!(watch(&mut pulse, 1_000..2_000, true), []);
        // Its last round was at 1,999.
        let stuck = News::Stuck { untold: 0 };
        assert_eq!(watch(&mut pulse, 2_000..9_000, false), [(2_099, stuck)]);
        assert_eq!((pulse.stuck_ms(8_999), pulse.stalls()), (7_000, 1));
        assert_eq!(pulse.last_stall(), Some(Stall { since_ms: 1_999, until_ms: None }));
        let back = News::Back { after_ms: 7_001 };
        assert_eq!(watch(&mut pulse, 9_000..9_100, true), [(9_000, back)]);
        assert_eq!((pulse.stuck_ms(9_100), pulse.stalls(), pulse.stalled_ms(9_100)), (0, 1, 7_001));
        assert_eq!(pulse.last_stall(), Some(Stall { since_ms: 1_999, until_ms: Some(9_000) }));
    }

    #[test]
    fn less_than_100_ms_is_nothing() {
        let mut pulse = Pulse::new(0);
        watch(&mut pulse, 0..10, true);
        assert_eq!(watch(&mut pulse, 10..109, false), []);
        assert_eq!(watch(&mut pulse, 109..110, true), []);
        assert_eq!((pulse.stalls(), pulse.is_stuck()), (0, false));
    }

    #[test]
    fn who_was_away_himself_blames_nobody() {
        let mut pulse = Pulse::new(0);
        watch(&mut pulse, 0..10, true);
        // The whole process stood still for a minute; the main thread is the first to run.
        assert_eq!(pulse.look(pulse.rounds, 60_000), None);
        assert_eq!(pulse.silent_ms(), 10);
        assert_eq!(pulse.look(pulse.rounds + 1, 60_001), None);
        // Or the workers paused for it.
        watch(&mut pulse, 60_001..60_099, false);
        pulse.forgive(60_400);
        assert_eq!(watch(&mut pulse, 60_400..60_450, false), []);
    }

    #[test]
    fn one_that_is_stuck_again_and_again_is_told_every_10_s() {
        let mut pulse = Pulse::new(0);
        let mut told = Vec::new();
        for start in (0..30_000).step_by(200) {
            told.extend(watch(&mut pulse, start..start + 150, false));
            told.extend(watch(&mut pulse, start + 150..start + 200, true));
        }
        let stuck: Vec<News> =
            told.iter().map(|(_, n)| *n).filter(|n| matches!(n, News::Stuck { .. })).collect();
        let untold = |untold| News::Stuck { untold };
        // At 99 ms after each 200; told at 100, and from 10,100 on.
        assert_eq!(stuck, [untold(0), untold(50), untold(49)], "{told:?}");
        assert_eq!(told.len(), 6, "with an end for each that was told: {told:?}");
        assert_eq!(pulse.stalls(), 150);
    }

    #[test]
    fn the_carrier_stays_as_long_as_it_comes_round() {
        let pick = |current, silent: &[u64]| carrier(WorkerId(current), silent.iter().copied()).0;
        assert_eq!(pick(0, &[FRESH_MS - 1, 0]), 0);
        assert_eq!(pick(0, &[FRESH_MS, 3, 2]), 2);
        assert_eq!(pick(2, &[0, 0, 5]), 2, "none goes back by itself");
        assert_eq!(pick(1, &[500, 400]), 1, "the best there is");
        assert_eq!(pick(0, &[900]), 0);
    }

    #[test]
    fn stalls_of_several_workers_are_one_time_of_doubt() {
        let stall = |since_ms, until_ms| Stall { since_ms, until_ms };
        let doubt = |stalls: &[Stall]| doubtful_ms(stalls.iter().copied(), 10_000, 1_000);
        assert_eq!(doubt(&[]), None);
        assert_eq!(doubt(&[stall(8_000, Some(8_900))]), None, "long ago");
        assert_eq!(doubt(&[stall(8_000, Some(9_400))]), Some((2_000, 600)));
        assert_eq!(doubt(&[stall(9_000, None), stall(8_000, Some(9_400))]), Some((2_000, 0)));
    }
}
