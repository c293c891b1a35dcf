//! Weighted round robin: in every `cycle` picks in a row, each backend gets exactly its weight,
//! where `cycle` is the sum of the weights divided by their greatest common divisor.
//!
//! A cycle is laid out when the table is built, and picking is a step through it. A short cycle is
//! a list of its picks, in which each backend has at any moment got its due to within one. A long
//! one is a walk over a line on which each backend has a stretch as long as its weight, in steps of
//! about 1/φ of its length that have no common divisor with it: so each point is met once per
//! cycle, and the visits to any stretch are nearly evenly spaced (three-distance theorem).
//!
//! N workers go through the same cycle, each by itself, from places that lie evenly apart. Of all
//! picks together, from any moment on, each backend has its due to within less than 2 N (short cycle)
//! or 5 N (long one), as each worker keeps it to within 2 or 5 for itself; and exactly its due
//! whenever each worker has gone through whole cycles.

use crate::ids::WorkerId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::CHOICES;

/// Longest cycle that is laid out as a list: 8 KiB. Weights between 1 and 100 of up to 40
/// backends fit whatever they are, equal ones of 4,096.
const LONGEST_SEQUENCE: u64 = 4_096;

/// A cycle of picks; shared by all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrrTable {
    cycle: Cycle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cycle {
    /// The backends' indices in the order of the picks; empty when no backend takes new conns.
    Sequence(Box<[u16]>),
    /// Where each backend's stretch ends, and the step from one pick to the next.
    Walk { ends: Box<[u32]>, step: u32 },
}

/// Where a worker stands in a service's cycle. It outlives the table: under a new one, of other
/// backends or weights, it goes on from the same position, and every cycle from there on is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrr {
    /// Before the first pick, [`FRESH`] and a part of the cycle in 2^32-ths.
    position: u64,
}

/// Above all positions.
const FRESH: u64 = 1 << 32;

impl WrrTable {
    /// A table for backends of these effective weights; picks give indices into this very slice.
    ///
    /// # Panics
    /// With more than [`MAX_SERVICE_BACKENDS`](super::MAX_SERVICE_BACKENDS) weights: a validated
    /// snapshot has fewer.
    pub fn build(weights: &[u16]) -> Self {
        assert!(weights.len() <= super::MAX_SERVICE_BACKENDS, "{} weights", weights.len());
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let reduced = weights.iter().map(|weight| weight / divisor);
        let total: u64 = reduced.clone().map(u64::from).sum();
        let cycle = if total <= LONGEST_SEQUENCE {
            Cycle::Sequence(sequence(reduced))
        } else {
            let sum = |end: &mut u32, weight: u16| {
                *end += u32::from(weight);
                Some(*end)
            };
            // 65,535 weights of 65,535 still add up to less than 2^32.
            Cycle::Walk { ends: reduced.scan(0, sum).collect(), step: step(total as u32) }
        };
        WrrTable { cycle }
    }

    /// Picks in a cycle; 0 when no backend takes new conns.
    pub fn cycle(&self) -> u32 {
        match &self.cycle {
            Cycle::Sequence(sequence) => sequence.len() as u32,
            Cycle::Walk { ends, .. } => ends.last().copied().unwrap_or(0),
        }
    }
}

impl Wrr {
    /// Where a worker of so many starts: as far from the others as can be, so that a few conns on
    /// many workers do not all go to the first backends.
    pub const fn of_worker(worker: WorkerId, workers: u16) -> Self {
        let workers = if workers == 0 { 1 } else { workers as u64 };
        // Rounded up, as the pick is found by rounding down.
        Wrr { position: FRESH | (((worker.0 as u64) << 32).div_ceil(workers) % FRESH) }
    }

    /// A number that is another after each pick.
    pub(crate) const fn seed(&self) -> u64 {
        self.position
    }

    /// Where to pick in a cycle of so many, which are not 0: positions come from another table, or
    /// are the first, at times only.
    #[inline(always)]
    fn position_in(&self, total: u32) -> u32 {
        match self.position {
            at if at < u64::from(total) => at as u32,
            fresh if fresh >= FRESH => (((fresh - FRESH) * u64::from(total)) >> 32) as u32,
            other => other as u32 % total,
        }
    }

    /// The next backend that takes a new conn, of 64 picks; those that do not have had their turn.
    pub fn pick_where(&mut self, table: &WrrTable, takes: impl Fn(u16) -> bool) -> Option<u16> {
        let mut picks = std::iter::from_fn(|| self.pick(table)).take(CHOICES);
        picks.find(|index| takes(*index))
    }

    /// The index of the next backend; `None` when none takes new conns. O(1), and O(log n) for a
    /// cycle above 4,096.
    #[inline]
    pub fn pick(&mut self, table: &WrrTable) -> Option<u16> {
        match &table.cycle {
            Cycle::Sequence(sequence) => {
                if sequence.is_empty() {
                    return None;
                }
                let at = self.position_in(sequence.len() as u32) as usize;
                self.position = if at + 1 == sequence.len() { 0 } else { at as u64 + 1 };
                Some(sequence[at])
            }
            Cycle::Walk { ends, step } => {
                let total = *ends.last()?;
                let at = self.position_in(total);
                let next = u64::from(at) + u64::from(*step);
                self.position =
                    if next >= u64::from(total) { next - u64::from(total) } else { next };
                Some(ends.partition_point(|end| *end <= at) as u16)
            }
        }
    }
}

/// The picks of a cycle of T for weights that add up to T: the k-th pick of weight w may come from
/// kT/w on and must come before (k + 1)T/w. The earliest deadline first meets all of them (Baruah
/// et al., "Proportionate progress", 1996), which is what keeps each backend within one of its due.
fn sequence(weights: impl Iterator<Item = u16> + Clone) -> Box<[u16]> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut turns: Vec<(u64, u64, u16)> = Vec::with_capacity(total as usize);
    for (index, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        let turn = |k: u64| (k * total / weight, ((k + 1) * total).div_ceil(weight), index as u16);
        turns.extend((0..weight).map(turn));
    }
    turns.sort_unstable();
    let mut turns = turns.into_iter().peekable();
    let mut waiting = BinaryHeap::new();
    let mut picks = Vec::with_capacity(total as usize);
    for now in 0..total {
        while let Some((_, deadline, index)) = turns.next_if(|(from, ..)| *from <= now) {
            waiting.push(Reverse((deadline, index)));
        }
        picks.extend(waiting.pop().map(|Reverse((_, index))| index));
    }
    debug_assert_eq!(picks.len() as u64, total);
    picks.into_boxed_slice()
}

/// A number near total/φ that has no common divisor with `total`. Of 256, that whose continued
/// fraction with `total` has the smallest sum of quotients, to which the unevenness of the walk is
/// proportional (Niederreiter, "Random number generation", 1992, theorem 5.17).
fn step(total: u32) -> u32 {
    let golden = (f64::from(total) / std::f64::consts::GOLDEN_RATIO) as u32;
    let candidates = (golden..total).take(256);
    let best = candidates.filter_map(|step| Some((quotients(step, total)?, step))).min();
    best.map_or(1, |(_, step)| step)
}

/// Sum of the quotients of Euclid's algorithm; `None` when there is a common divisor.
fn quotients(step: u32, total: u32) -> Option<u64> {
    let (mut a, mut b, mut sum) = (total, step, 0);
    while b != 0 {
        sum += u64::from(a / b);
        (a, b) = (b, a % b);
    }
    (a == 1).then_some(sum)
}

/// Greatest common divisor; that with 0 is the other number.
fn gcd<T: Copy + Default + PartialEq + std::ops::Rem<Output = T>>(a: T, b: T) -> T {
    if b == T::default() { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picks(state: &mut Wrr, table: &WrrTable, count: u32) -> Vec<u16> {
        (0..count).map(|_| state.pick(table).unwrap()).collect()
    }

    fn count(picks: &[u16], backends: usize) -> Vec<u32> {
        let mut counts = vec![0; backends];
        for index in picks {
            counts[usize::from(*index)] += 1;
        }
        counts
    }

    #[test]
    fn none_without_weight() {
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            let table = WrrTable::build(weights);
            assert_eq!(table.cycle(), 0);
            let mut state = Wrr::of_worker(WorkerId(3), 4);
            assert_eq!(state.pick(&table), None);
            assert_eq!(state, Wrr::of_worker(WorkerId(3), 4));
        }
    }

    #[test]
    fn picks_of_a_backend_are_spaced() {
        let all = |weights: &[u16]| {
            let table = WrrTable::build(weights);
            picks(&mut Wrr::default(), &table, table.cycle())
        };
        assert_eq!(all(&[100, 100, 100]), [0, 1, 2]);
        assert_eq!(all(&[5, 1, 1]), [0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(all(&[3, 1, 1, 1]), [0, 1, 0, 2, 0, 3]);
        assert_eq!(all(&[0, 200, 0, 100]), [1, 1, 3]);
        assert_eq!(all(&[7]), [0]);
    }

    #[test]
    fn workers_that_start_apart_begin_apart() {
        let first = |weights: &[u16], workers: u16| -> Vec<u16> {
            let table = WrrTable::build(weights);
            (0..workers)
                .map(|w| Wrr::of_worker(WorkerId(w), workers).pick(&table).unwrap())
                .collect()
        };
        assert_eq!(first(&[1, 1, 1], 3), [0, 1, 2]);
        assert_eq!(first(&[1; 12], 4), [0, 3, 6, 9]);
        // Not the first backends, however many there are and however long the cycle.
        assert_eq!(first(&[1; 4_000], 4), [0, 1_000, 2_000, 3_000]);
        let long: Vec<u16> = (0..1_000).map(|i| 60_000 + i).collect();
        let mut first = first(&long, 8);
        first.dedup_by_key(|index| *index / 100);
        assert_eq!(first.len(), 8, "{first:?}");
    }

    #[test]
    fn the_longest_cycle_does_not_overflow() {
        let mut weights = vec![u16::MAX; usize::from(u16::MAX)];
        weights[0] = u16::MAX - 1;
        let table = WrrTable::build(&weights);
        assert_eq!(table.cycle(), 65_535 * 65_535 - 1);
        for start in [0, table.cycle() - 1, table.cycle(), u32::MAX] {
            let mut state = Wrr { position: start.into() };
            let counts = count(&picks(&mut state, &table, 65_535 * 3), weights.len());
            // Three rounds, nearly evenly spread.
            assert!(counts.iter().all(|c| (1..=5).contains(c)));
        }
    }

    #[test]
    fn a_worker_goes_on_through_changes() {
        let mut state = Wrr::default();
        for weights in [&[3, 2, 1][..], &[1], &[0, 0], &[1, 4_000, 997], &[9, 0, 9], &[50; 300]] {
            let table = WrrTable::build(weights);
            for _ in 0..2 {
                for _ in 0..table.cycle() / 3 {
                    state.pick(&table);
                }
                let counts = count(&picks(&mut state, &table, table.cycle()), weights.len());
                let divisor = weights.iter().copied().fold(0, gcd).max(1);
                let expected: Vec<u32> = weights.iter().map(|w| u32::from(w / divisor)).collect();
                assert_eq!(counts, expected);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// From any position, over short cycles and long ones.
        #[test]
        fn every_cycle_is_exact_and_even_within(
            weights in prop_oneof![
                prop::collection::vec(0u16..20, 1..40),
                prop::collection::vec(0u16..1_000, 1..40),
            ],
            start: u32,
        ) {
            let table = WrrTable::build(&weights);
            prop_assume!(table.cycle() > 0);
            let divisor = weights.iter().copied().fold(0, gcd).max(1);
            let total = f64::from(table.cycle());
            let mut state = Wrr { position: start.into() };
            let mut counts = vec![0u32; weights.len()];
            for picked in 1..=table.cycle() {
                counts[usize::from(state.pick(&table).unwrap())] += 1;
                if picked % 16 == 0 {
                    // Two positions within one of their due each are within two of each other.
                    let most = if total <= LONGEST_SEQUENCE as f64 { 2.0 } else { 5.0 };
                    for (count, weight) in counts.iter().zip(&weights) {
                        let due = f64::from(picked) * f64::from(weight / divisor) / total;
                        let off = (f64::from(*count) - due).abs();
                        prop_assert!(off < most, "{count} of {due}: {counts:?}");
                    }
                }
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(*count, u32::from(weight / divisor));
            }
        }

        #[test]
        fn a_step_meets_every_point(total in 1u32..) {
            let step = step(total);
            prop_assert_eq!(gcd(step, total), 1);
            prop_assert!(step < total || total == 1);
        }
    }
}
