//! A limit divided among workers that decide alone: each may have as many conns as its quota.
//!
//! The rule that makes it strict: the sum over all workers of what each has or may have, whichever
//! is more, never exceeds the limit. So a quota is only raised by what is certainly free. What a
//! lower quota frees is free once the worker is known to go by it, and what it has was read again
//! after that.

/// The quotas of one limit, by worker.
#[derive(Clone, Debug)]
pub struct Division {
    limit: u32,
    quotas: Box<[u32]>,
    /// Conns when last divided.
    before: Box<[u32]>,
    /// New conns refused by then.
    refused: Box<[u32]>,
    /// Workers that made conns until their quota was used up, or refused some, and have no room yet.
    asking: Box<[bool]>,
    /// Who is next to get one of the last conns, of which there are not enough for all that ask.
    turn: usize,
}

impl Division {
    /// Even quotas, for something that no worker has conns on, or can make any on yet.
    pub fn even(limit: u32, workers: usize) -> Self {
        let mut division = Self::held(limit, workers);
        let (each, left) = (limit / workers as u32, limit as usize % workers);
        let quotas = division.quotas.iter_mut().enumerate();
        quotas.for_each(|(worker, quota)| *quota = each + u32::from(worker < left));
        division
    }

    /// No quotas: for something on which workers may be making conns without regard to this limit.
    pub fn held(limit: u32, workers: usize) -> Self {
        let none: Box<[u32]> = vec![0; workers].into();
        let asking = vec![false; workers].into();
        let (quotas, before) = (none.clone(), none.clone());
        Division { limit, quotas, before, refused: none, asking, turn: 0 }
    }

    /// The limit.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The quotas, by worker.
    pub fn quotas(&self) -> &[u32] {
        &self.quotas
    }

    /// Go by another limit. When more is granted already than it allows, or it is not known whether
    /// that is `in_effect`, all quotas are taken back until the next [`divide`](Self::divide).
    /// Returns whether quotas changed.
    pub fn set_limit(&mut self, limit: u32, own: &[u32], in_effect: bool) -> bool {
        let lower = limit < self.limit;
        self.limit = limit;
        if lower && (!in_effect || self.reserved(own) > u64::from(limit)) {
            self.quotas.fill(0);
            return true;
        }
        false
    }

    /// What workers have or may have.
    fn reserved(&self, own: &[u32]) -> u64 {
        own.iter().zip(&self.quotas).map(|(own, quota)| u64::from(*own.max(quota))).sum()
    }

    /// Divide anew what is not used; returns whether quotas changed. All quotas must be in effect,
    /// and `own`, the conns of each worker, read after that; `refused` is how many new ones each has
    /// refused so far, modulo 2^32.
    ///
    /// While nobody is short of room nothing changes. Then half of what is free is divided among
    /// all, the other half among those that ask: so a load that meets one worker only reaches the
    /// limit in steps of about half the distance. The last ones, too few for all, stay where they are
    /// until somebody asks for them.
    pub fn divide(&mut self, own: &[u32], refused: &[u32]) -> bool {
        let workers = self.quotas.len();
        let used: u64 = own.iter().map(|own| u64::from(*own)).sum();
        let limit = u64::from(self.limit);
        if used > limit {
            // Made before this limit was in force. Not even one that ends may be replaced.
            let changed = self.quotas.iter().any(|quota| *quota > 0);
            self.quotas.fill(0);
            return changed;
        }
        let unused = limit - used;
        self.note_who_asks(own, refused);
        let room = |worker: usize| u64::from(self.quotas[worker].saturating_sub(own[worker]));
        let enough = (unused / workers as u64).div_ceil(4);
        let asking = self.asking.iter().filter(|asking| **asking).count();
        let is_enough = match enough {
            0 => asking == 0 && (0..workers).any(|worker| room(worker) > 0),
            _ => (0..workers).all(|worker| room(worker) >= enough),
        };
        if unused > 0 && is_enough {
            return false;
        }

        let for_all = if asking == 0 || asking == workers { unused } else { unused / 2 };
        let each = for_all / workers as u64;
        let others = unused - each * workers as u64;
        let extra = if for_all == unused { 0 } else { others / asking as u64 };
        let left = others - extra * asking as u64;
        let mut order: Vec<usize> = (0..workers).map(|i| (self.turn + i) % workers).collect();
        order.sort_by_key(|worker| (!self.asking[*worker], room(*worker) > 0));

        let mut free = limit - self.reserved(own).min(limit);
        let mut changed = false;
        for (place, worker) in order.into_iter().enumerate() {
            let more = if self.asking[worker] { extra } else { 0 };
            let one = u64::from((place as u64) < left);
            let wanted = u64::from(own[worker]) + each + more + one;
            let reserved = u64::from(own[worker].max(self.quotas[worker]));
            let given = wanted.saturating_sub(reserved).min(free);
            free -= given;
            if one > 0 && given > 0 {
                self.turn = (worker + 1) % workers;
            }
            let quota = wanted.min(reserved + given) as u32;
            changed |= quota != self.quotas[worker];
            self.quotas[worker] = quota;
        }
        changed
    }

    fn note_who_asks(&mut self, own: &[u32], refused: &[u32]) {
        for (worker, (own, refused)) in own.iter().zip(refused).enumerate() {
            let has_room = *own < self.quotas[worker];
            let asks = *own > self.before[worker] || *refused != self.refused[worker];
            self.asking[worker] = !has_room && (asks || self.asking[worker]);
            (self.before[worker], self.refused[worker]) = (*own, *refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Random;
    use proptest::prelude::*;

    #[test]
    fn a_new_limit_is_divided_evenly() {
        assert_eq!(Division::even(10, 4).quotas(), [3, 3, 2, 2]);
        assert_eq!(Division::even(2, 4).quotas(), [1, 1, 0, 0]);
        assert_eq!(Division::even(u32::MAX, 1).quotas(), [u32::MAX]);
        assert_eq!(Division::held(10, 4).quotas(), [0, 0, 0, 0]);
    }

    #[test]
    fn nothing_changes_while_all_have_room() {
        let mut division = Division::even(1_000, 4);
        assert!(!division.divide(&[100, 0, 180, 40], &[0; 4]));
        assert_eq!(division.quotas(), [250; 4]);
        assert!(division.divide(&[100, 0, 250, 40], &[0; 4]), "worker 2 has none left");
        // What the others give up is free in the next turn.
        assert!(division.quotas()[2] == 250 && division.quotas().iter().sum::<u32>() < 1_000);
        assert!(division.divide(&[100, 0, 250, 40], &[0; 4]));
        assert!(division.quotas()[2] > 400, "{:?}", division.quotas());
    }

    #[test]
    fn above_a_lower_limit_nothing_is_replaced() {
        let mut division = Division::even(100, 2);
        assert!(division.set_limit(30, &[20, 20], true));
        assert_eq!(division.quotas(), [0, 0]);
        assert!(!division.divide(&[16, 15], &[0; 2]));
        assert_eq!(division.quotas(), [0, 0]);
        assert!(division.divide(&[14, 15], &[0; 2]));
        assert_eq!(division.quotas().iter().sum::<u32>(), 30);
    }

    #[test]
    fn a_lower_limit_that_was_not_granted_away_holds_nobody_up() {
        let mut division = Division::even(100, 2);
        assert!(!division.set_limit(100, &[0, 0], false));
        assert!(!division.set_limit(120, &[0, 0], false));
        assert!(!division.set_limit(100, &[0, 0], true), "100 were granted");
        assert!(division.set_limit(99, &[0, 0], true));
    }

    /// Passes until a load that meets one worker only has reached the limit.
    fn passes_to_the_limit(limit: u32, workers: usize) -> u32 {
        let mut division = Division::even(limit, workers);
        let (mut own, mut refused) = (vec![0; workers], vec![0; workers]);
        for passes in 0.. {
            own[workers - 1] = division.quotas()[workers - 1];
            if own[workers - 1] == limit {
                return passes;
            }
            refused[workers - 1] += 1;
            division.divide(&own, &refused);
        }
        unreachable!()
    }

    #[test]
    fn a_skewed_load_reaches_the_limit_in_steps_of_half_the_distance() {
        let passes = |limit| [1, 2, 4, 8].map(|workers| passes_to_the_limit(limit, workers));
        println!("{:?} {:?} {:?}", passes(10), passes(1_000), passes(1_000_000));
        for limit in [1u32, 2, 7, 10, 1_000, 1_000_000] {
            for (passes, workers) in passes(limit).into_iter().zip([1, 2, 4, 8]) {
                let most = 2 * (limit.ilog2() + workers);
                assert!(passes <= most, "{limit} over {workers} workers: {passes} passes");
            }
        }
    }

    /// And stays there until it is used, or another asks.
    #[test]
    fn the_last_conn_finds_whoever_asks_for_it() {
        for workers in [2, 4, 8] {
            let mut division = Division::even(1, workers);
            let (own, mut refused) = (vec![0; workers], vec![0; workers]);
            for asking in (0..workers).rev().chain(0..workers) {
                // One new conn is refused; the client sends its SYN again a second later.
                refused[asking] += u32::from(division.quotas()[asking] == 0);
                let mut passes = 0;
                while division.quotas()[asking] == 0 {
                    division.divide(&own, &refused);
                    passes += 1;
                    assert!(passes <= 2, "{workers} workers: {passes} passes");
                }
                (0..100).for_each(|_| assert!(!division.divide(&own, &refused)));
                assert_eq!(division.quotas()[asking], 1);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Workers make conns up to their quotas, as they stand or stood before they heard of new
        /// ones, and end them, in any order; the limit changes. What is never seen: a conn made when
        /// there were as many as the limit in force allows.
        #[test]
        fn no_conn_is_made_above_the_limit(
            seed in 1u64.., workers in 1usize..9, mut limit in 1u32..200,
        ) {
            let mut random = Random(seed);
            let mut division = Division::even(limit, workers);
            let (mut own, mut refused) = (vec![0u32; workers], vec![0u32; workers]);
            // What each worker goes by: quotas reach it some time after they were published.
            let mut seen = division.quotas().to_vec();
            // The highest limit that is still in force somewhere.
            let mut in_force = limit;
            for _ in 0..400 {
                let worker = random.below(workers);
                match random.below(10) {
                    0..=4 => if own[worker] < seen[worker] {
                        let all: u32 = own.iter().sum();
                        prop_assert!(all < in_force, "{all} of {in_force}: {own:?} {seen:?}");
                        own[worker] += 1;
                    } else {
                        refused[worker] += 1;
                    },
                    5..=6 => own[worker] = own[worker].saturating_sub(1),
                    7 => seen[worker] = division.quotas()[worker],
                    8 => {
                        // All have heard of the last quotas before the next ones are made.
                        seen.copy_from_slice(division.quotas());
                        in_force = limit;
                        division.divide(&own, &refused);
                    }
                    _ => if random.below(8) == 0 {
                        limit = 1 + random.below(200) as u32;
                        let in_effect = seen == division.quotas();
                        division.set_limit(limit, &own, in_effect);
                        in_force = in_force.max(limit);
                    },
                }
            }
        }
    }
}
