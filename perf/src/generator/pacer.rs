//! Spends packets evenly over time.

/// How many packets may be made up for at once when the loop fell behind.
const MOST_BEHIND: u64 = 256;

/// Says how many packets are due, by the cycle counter.
#[derive(Clone, Debug)]
pub struct Pacer {
    start: u64,
    /// Packets per cycle, times 2^64; none: as many as there is room for.
    per_cycle: Option<u64>,
    sent: u64,
    late: u64,
}

impl Pacer {
    /// From `now` on, in cycles, at `rate` packets per second on a counter of `hz`; without a rate
    /// any number is due at any time.
    pub fn new(now: u64, rate: Option<f64>, hz: u64) -> Self {
        // A float turns into the largest number when it is too large: a packet per cycle.
        let per_cycle = rate.map(|rate| (rate / hz as f64 * 2_f64.powi(64)) as u64);
        Pacer { start: now, per_cycle, sent: 0, late: 0 }
    }

    /// Packets due now, at most `most`. Those given out count as sent.
    #[inline]
    pub fn take(&mut self, now: u64, most: usize) -> usize {
        let Some(per_cycle) = self.per_cycle else { return most };
        let elapsed = now.wrapping_sub(self.start);
        let target = ((u128::from(elapsed) * u128::from(per_cycle)) >> 64) as u64;
        let mut due = target.saturating_sub(self.sent);
        if due > MOST_BEHIND {
            // A burst to make up for a pause would measure the burst, not the rate.
            self.late += due - MOST_BEHIND;
            self.sent += due - MOST_BEHIND;
            due = MOST_BEHIND;
        }
        let given = due.min(most as u64);
        self.sent += given;
        given as usize
    }

    /// Packets given up because the loop was too late for them.
    pub fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_600_000_000;

    #[test]
    fn the_rate_is_exact_over_time() {
        for rate in [1.0, 333.3, 1e6, 14_880_952.0] {
            let mut pacer = Pacer::new(u64::MAX - 5, Some(rate), HZ);
            let mut sent = 0;
            for step in 0..=1_000_000_u64 {
                let now = (u64::MAX - 5).wrapping_add(step * HZ / 500_000);
                sent += pacer.take(now, 64);
            }
            assert!((sent as f64 - 2.0 * rate).abs() <= 1.0, "{sent} at {rate}");
            assert_eq!(pacer.late(), 0);
        }
    }

    #[test]
    fn nothing_is_due_early_and_no_more_than_there_is_room_for() {
        let mut pacer = Pacer::new(0, Some(1_000.0), 1_000_000);
        assert_eq!(pacer.take(999, 64), 0);
        assert_eq!(pacer.take(1_001, 64), 1);
        assert_eq!(pacer.take(1_001, 64), 0);
        assert_eq!(pacer.take(101_001, 64), 64);
        assert_eq!(pacer.take(101_001, 64), 36);
    }

    #[test]
    fn a_pause_is_not_made_up_for_but_counted() {
        let mut pacer = Pacer::new(0, Some(1_000_000.0), HZ);
        let taken: usize = (0..10).map(|_| pacer.take(HZ, 64)).sum();
        assert_eq!(taken as u64, MOST_BEHIND);
        assert!((1_000_000 - MOST_BEHIND).abs_diff(pacer.late()) <= 1, "{}", pacer.late());
        assert!((1..=2).contains(&pacer.take(HZ + 2_700, 64)));
    }

    #[test]
    fn without_a_rate_there_is_no_wait() {
        let mut pacer = Pacer::new(0, None, HZ);
        assert_eq!((pacer.take(0, 64), pacer.take(0, 32)), (64, 32));
    }
}
