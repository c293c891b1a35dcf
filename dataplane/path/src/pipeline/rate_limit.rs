//! How often something may happen that others can cause: token buckets, per subject and in all.
//!
//! Owns a small table of fixed size. Subjects that fall into one bucket by their hash share its
//! rate; the hash is keyed, so that nobody can aim at another one's bucket.

use crate::time::Millis;

/// Buckets of a table.
const BUCKETS: usize = 256;

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Times per second, on average (up to 1,000,000).
    pub per_second: u32,
    /// Times at once, after a pause (1 to 1,000,000).
    pub at_once: u32,
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What is in it, in thousandths of a token: so many flow in per ms as tokens per second.
    level: u32,
    filled_at: Millis,
}

impl Bucket {
    const TOKEN: u32 = 1_000;

    fn full(rate: Rate, now: Millis) -> Self {
        Bucket { level: rate.at_once * Self::TOKEN, filled_at: now }
    }

    /// Let in what has come since the last call; whether a token is there.
    fn fill(&mut self, rate: Rate, now: Millis) -> bool {
        let fresh = now.wrapping_sub(self.filled_at).saturating_mul(rate.per_second);
        self.level = self.level.saturating_add(fresh).min(rate.at_once * Self::TOKEN);
        self.filled_at = now;
        self.level >= Self::TOKEN
    }
}

/// A limit for each of many subjects, and one for all of them together.
#[derive(Debug)]
pub struct RateLimit {
    each: Rate,
    all: Rate,
    of_all: Bucket,
    buckets: Box<[Bucket; BUCKETS]>,
    /// Odd: multiply-shift hashing is universal (Dietzfelbinger et al., 1997).
    multiplier: u64,
}

impl RateLimit {
    /// With all buckets full; `seed` is one that others do not know.
    pub fn new(each: Rate, all: Rate, seed: u64, now: Millis) -> Self {
        RateLimit {
            each,
            all,
            of_all: Bucket::full(all, now),
            buckets: Box::new([Bucket::full(each, now); BUCKETS]),
            multiplier: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// Whether it may happen once more about this subject: an address, or a flow's hash. What one
    /// subject is refused takes nothing from the others.
    pub fn take(&mut self, subject: impl Into<u64>, now: Millis) -> bool {
        let hash = subject.into().wrapping_mul(self.multiplier);
        let bucket = &mut self.buckets[(hash >> 56) as usize % BUCKETS];
        let may = bucket.fill(self.each, now) && self.of_all.fill(self.all, now);
        if may {
            bucket.level -= Bucket::TOKEN;
            self.of_all.level -= Bucket::TOKEN;
        }
        may
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        crate::testkit::range_of(&*self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Rate = Rate { per_second: 10, at_once: 5 };
    const ALL: Rate = Rate { per_second: 100, at_once: 20 };

    fn taken(limit: &mut RateLimit, subject: u32, now: Millis) -> usize {
        (0..1_000).filter(|_| limit.take(subject, now)).count()
    }

    #[test]
    fn each_subject_has_its_rate_within_that_of_all() {
        // The clock wraps on the way.
        let start = u32::MAX - 200;
        let at = |ms: u32| start.wrapping_add(ms);
        let mut limit = RateLimit::new(EACH, ALL, 7, start);
        assert_eq!(taken(&mut limit, 1, at(0)), 5);
        assert_eq!(taken(&mut limit, 1, at(99)), 0);
        assert_eq!(taken(&mut limit, 1, at(100)), 1);
        assert_eq!(taken(&mut limit, 1, at(450)), 3, "what is half a token is not lost");
        assert_eq!(taken(&mut limit, 1, at(500)), 1);
        assert_eq!(taken(&mut limit, 1, at(1_000_000)), 5);
        // What one is refused takes nothing from the others: 15 are left of 20 at once.
        let others: usize = (2..100).map(|s| taken(&mut limit, s, at(1_000_000))).sum();
        assert_eq!(others, 15);
        assert_eq!((2..100).map(|s| taken(&mut limit, s, at(1_000_100))).sum::<usize>(), 10);
    }

    #[test]
    fn a_long_pause_fills_a_bucket_and_no_more() {
        let most = Rate { per_second: 1_000_000, at_once: 1_000_000 };
        let mut limit = RateLimit::new(most, most, 1, 0);
        assert!(limit.take(0_u32, u32::MAX));
        assert_eq!(limit.of_all.level, 999_999_000);
    }

    #[test]
    fn subjects_spread_over_the_buckets() {
        for seed in [1, 7, u64::MAX] {
            let mut limit = RateLimit::new(EACH, Rate { at_once: 100_000, ..ALL }, seed, 0);
            // Neighbours in one network, as clients mostly are.
            let taken: usize = (0..256).map(|i| taken(&mut limit, 0xc633_6400 + i, 0)).sum();
            assert!(taken > 5 * 128, "{taken} by 256 subjects under seed {seed}");
        }
    }
}
