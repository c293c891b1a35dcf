//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4), weighted.
//!
//! Backends take turns; in its turn a backend takes the first free slot in its own order of
//! preference, until none is free. The heaviest has a turn in every round, one of weight w in w of
//! max_weight rounds, evenly spaced and the first time in the first round. So each share is that of
//! the weight, rounded up to a whole slot, and every backend gets a slot while there are enough.
//! When a backend leaves, nearly all slots of the others stay theirs.
//!
//! The table depends on identities and weights alone, not on the order in which they are given:
//! all nodes and all versions build the same one.

use sluice_api::BackendId;

use super::MAX_SERVICE_BACKENDS;
use super::hash::{Preference, is_prime, next_slot_that_takes, slot_of};

const NONE: u16 = u16::MAX;

/// Slots, each with the index of its backend. 2 bytes per slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaglevTable {
    slots: Box<[u16]>,
}

/// A backend while the table is filled. The rounds of its turns are 0, max/w, 2·max/w, …, rounded
/// down: a whole step, and an error that adds up to one more round now and then.
struct Candidate {
    preference: Preference,
    index: u16,
    weight: u16,
    step: u16,
    step_error: u16,
    error: u32,
    /// The next candidate in the same round.
    next: u16,
}

/// The candidates that have their turn in a round, in order: a list through `Candidate::next`.
#[derive(Clone, Copy)]
struct Round {
    first: u16,
    last: u16,
}

impl MaglevTable {
    /// A table of `slots`, a prime, for `backends`; lookups give indices into this very slice.
    /// Without a backend of weight above 0 it is empty. 65,537 slots take 1–2 ms.
    ///
    /// # Panics
    /// When `slots` is no prime, or there are more than [`MAX_SERVICE_BACKENDS`] backends: a
    /// validated snapshot has neither.
    pub fn build(backends: &[(BackendId, u16)], slots: u32) -> Self {
        assert!(is_prime(slots), "a Maglev table has a prime number of slots, not {slots}");
        let mut candidates = candidates(backends, slots);
        if candidates.is_empty() {
            return MaglevTable { slots: Box::default() };
        }
        let mut table = vec![NONE; slots as usize].into_boxed_slice();
        // One bit per slot stays in the L1 cache where the table does not.
        let mut taken = vec![0u64; slots.div_ceil(64) as usize];
        // The heaviest has a turn in each round, so there are at most `slots` rounds.
        let mut rounds = vec![Round { first: NONE, last: NONE }; slots as usize];
        for at in 0..candidates.len() {
            enqueue(&mut rounds[0], &mut candidates, at as u16);
        }
        let mut free = slots;
        for round in 0..rounds.len() {
            let mut at = rounds[round].first;
            while at != NONE {
                let candidate = &mut candidates[usize::from(at)];
                // In registers while it looks for a free slot.
                let mut preference = candidate.preference;
                let slot = loop {
                    let slot = preference.next_slot();
                    if taken[slot / 64] >> (slot % 64) & 1 == 0 {
                        break slot;
                    }
                };
                candidate.preference = preference;
                taken[slot / 64] |= 1 << (slot % 64);
                table[slot] = candidate.index;
                free -= 1;
                if free == 0 {
                    return MaglevTable { slots: table };
                }
                let following = candidate.next;
                let later = round + candidate.rounds_to_next_turn();
                if let Some(later) = rounds.get_mut(later) {
                    enqueue(later, &mut candidates, at);
                }
                at = following;
            }
        }
        unreachable!("each round fills a slot, and there are as many rounds as slots")
    }

    /// The index of the backend for a [`flow_hash`](super::flow_hash) or
    /// [`source_hash`](super::source_hash); `None` when the table is empty.
    #[inline]
    pub fn lookup(&self, hash: u64) -> Option<u16> {
        self.slots.get(slot_of(hash, self.slots.len())).copied()
    }

    /// As [`lookup`](Self::lookup), going on from slot to slot while the backend does not take the
    /// conn; `None` when that of 64 slots in a row does not.
    pub fn lookup_where(&self, hash: u64, takes: impl Fn(u16) -> bool) -> Option<u16> {
        next_slot_that_takes(&self.slots, hash, takes)
    }

    /// How many slots there are: 0 in an empty table.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no backend takes new conns.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// The backends that take part, in the order of their identities.
fn candidates(backends: &[(BackendId, u16)], slots: u32) -> Vec<Candidate> {
    assert!(backends.len() <= MAX_SERVICE_BACKENDS, "{} backends in a service", backends.len());
    let max_weight = backends.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    let mut order: Vec<u16> = (0..backends.len() as u16).collect();
    order.retain(|index| backends[usize::from(*index)].1 > 0);
    order.sort_unstable_by_key(|index| backends[usize::from(*index)].0);
    let candidate = |index: u16| {
        let (id, weight) = backends[usize::from(index)];
        Candidate {
            preference: Preference::new(id, slots),
            index,
            weight,
            step: max_weight / weight,
            step_error: max_weight % weight,
            error: 0,
            next: NONE,
        }
    };
    order.into_iter().map(candidate).collect()
}

impl Candidate {
    fn rounds_to_next_turn(&mut self) -> usize {
        self.error += u32::from(self.step_error);
        let whole = self.error >= u32::from(self.weight);
        if whole {
            self.error -= u32::from(self.weight);
        }
        usize::from(self.step) + usize::from(whole)
    }
}

fn enqueue(round: &mut Round, candidates: &mut [Candidate], at: u16) {
    candidates[usize::from(at)].next = NONE;
    if round.first == NONE {
        round.first = at;
    } else {
        candidates[usize::from(round.last)].next = at;
    }
    round.last = at;
}

#[cfg(test)]
mod tests {
    use super::super::{flow_hash, source_hash};
    use super::*;
    use crate::flow::FlowKey;
    use crate::ids::L4Port;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const SLOTS: u32 = 65_537;

    /// From a client to a web service.
    fn flow_of(src: u32, port: u16) -> FlowKey {
        let (src_port, dst_port) = (L4Port(port), L4Port(80));
        FlowKey { src, dst: 0xc000_0201, src_port, dst_port, protocol: 6 }
    }

    fn backends(weights: &[u16]) -> Vec<(BackendId, u16)> {
        let id =
            |i: usize| BackendId { address: [10, 0, (i >> 8) as u8, i as u8].into(), port: 8_000 };
        weights.iter().enumerate().map(|(i, weight)| (id(i), *weight)).collect()
    }

    fn counts(table: &MaglevTable, backends: usize) -> Vec<u32> {
        let mut counts = vec![0; backends];
        for index in &table.slots {
            counts[usize::from(*index)] += 1;
        }
        counts
    }

    #[test]
    fn a_size_by_the_number_of_backends_is_fair_to_one_per_cent() {
        for many in [1, 2, 31, 32, 33, 128, 129, 512, 513, 2_048, 2_049, 5_000] {
            let slots = sluice_api::service::maglev_slots_for(many);
            let table = MaglevTable::build(&backends(&vec![7; many]), slots);
            let due = f64::from(slots) / many as f64;
            for count in counts(&table, many) {
                assert!(
                    (f64::from(count) / due - 1.0).abs() <= 0.01,
                    "{count} of {slots} / {many}"
                );
            }
        }
    }

    /// The owner of each slot by identity.
    fn owners(table: &MaglevTable, backends: &[(BackendId, u16)]) -> Vec<BackendId> {
        table.slots.iter().map(|index| backends[usize::from(*index)].0).collect()
    }

    #[test]
    fn without_a_backend_it_is_empty() {
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            let table = MaglevTable::build(&backends(weights), SLOTS);
            assert!(table.is_empty());
            assert_eq!((table.len(), table.lookup(0), table.lookup(u64::MAX)), (0, None, None));
        }
    }

    #[test]
    #[should_panic(expected = "prime number of slots, not 65536")]
    fn refuses_other_than_a_prime() {
        MaglevTable::build(&backends(&[1]), 65_536);
    }

    #[test]
    fn one_backend_has_every_slot() {
        for weight in [1, 100, u16::MAX] {
            let table = MaglevTable::build(&backends(&[0, weight]), 251);
            assert!(table.slots.iter().all(|index| *index == 1));
        }
    }

    #[test]
    fn shares_follow_weights_to_within_two_slots() {
        for weights in [
            vec![1; 10],
            vec![100; 7],
            vec![1, 2, 3, 4],
            vec![100, 50, 25, 0, 25],
            vec![u16::MAX, 1],
            vec![1, u16::MAX, 30_000, 777],
            (1..=100).collect(),
        ] {
            let table = MaglevTable::build(&backends(&weights), SLOTS);
            assert_eq!(table.len(), SLOTS as usize);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (count, weight) in counts(&table, weights.len()).iter().zip(&weights) {
                let expected = f64::from(SLOTS) * f64::from(*weight) / total;
                let off = (f64::from(*count) - expected).abs();
                assert!(off <= 2.0, "weight {weight}: {count} slots, {expected:.1} expected");
                assert_eq!(*count == 0, *weight == 0);
            }
        }
    }

    #[test]
    fn flows_follow_weights_within_two_percent() {
        let weights = [100, 200, 100, 400];
        let table = MaglevTable::build(&backends(&weights), SLOTS);
        let mut counts = [0u32; 4];
        for flow in 0..200_000u32 {
            let (client, port) = (0x0a01_0000 + flow / 1_000, 10_000 + (flow % 1_000) as u16);
            let hash = flow_hash(&flow_of(client, port));
            counts[usize::from(table.lookup(hash).unwrap())] += 1;
        }
        for (count, weight) in counts.iter().zip(weights) {
            let expected = 250 * u32::from(weight);
            assert!(count.abs_diff(expected) * 50 <= expected, "{counts:?}");
        }
    }

    #[test]
    fn without_one_backend_few_other_slots_move() {
        for (weights, most_percent) in [(vec![100; 10], 3.0), (vec![100; 100], 3.0)] {
            let all = backends(&weights);
            let before = owners(&MaglevTable::build(&all, SLOTS), &all);
            for gone in [0, weights.len() / 2, weights.len() - 1] {
                let mut fewer = all.clone();
                fewer[gone].1 = 0;
                let after = owners(&MaglevTable::build(&fewer, SLOTS), &fewer);
                let moved = before
                    .iter()
                    .zip(&after)
                    .filter(|(was, is)| was != is && **was != all[gone].0)
                    .count();
                let percent = moved as f64 * 100.0 / f64::from(SLOTS);
                assert!(percent <= most_percent, "{percent:.2} % of other slots moved");
            }
        }
    }

    #[test]
    fn many_light_backends_beside_a_heavy_one_are_quick() {
        let mut weights = vec![1; 60_000];
        weights[7] = u16::MAX;
        let table = MaglevTable::build(&backends_wide(&weights), 655_373);
        assert!(counts(&table, weights.len()).iter().all(|count| *count >= 1));
    }

    fn backends_wide(weights: &[u16]) -> Vec<(BackendId, u16)> {
        let id = |i: usize| BackendId {
            address: Ipv4Addr::from_bits(0x0a00_0000 + i as u32).into(),
            port: 80,
        };
        weights.iter().enumerate().map(|(i, weight)| (id(i), *weight)).collect()
    }

    #[test]
    fn more_backends_than_slots_still_fill_it() {
        let table = MaglevTable::build(&backends_wide(&[100; 1_000]), 251);
        assert!(counts(&table, 1_000).iter().all(|count| *count <= 1));
    }

    /// A change here is a change of which backend a flow reaches, on all nodes of a cluster: do
    /// not adapt these numbers, keep the code. They were computed by an independent program.
    #[test]
    fn golden_values() {
        assert_eq!(flow_hash(&flow_of(0x0a00_0001, 40_000)), 0x74d0_8988_bbcb_24f0);
        assert_eq!(source_hash(0x0a00_0001), 0x23e8_cc27_aeac_cb68);
        let table = MaglevTable::build(&backends(&[100, 50, 25]), 251);
        assert_eq!(table.slots[..16], [1, 2, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
        let digest = |table: &MaglevTable| {
            let bytes: Vec<u8> = table.slots.iter().flat_map(|i| i.to_be_bytes()).collect();
            xxhash_rust::xxh3::xxh3_64(&bytes)
        };
        assert_eq!(digest(&table), 0xa2bf_3a06_6c13_60d1);
        let table = MaglevTable::build(&backends(&[100; 10]), SLOTS);
        assert_eq!(digest(&table), 0x4e62_268b_00f9_a095);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_order_gives_the_same_table(
            weights in prop::collection::vec(0u16..500, 1..40), seed in any::<u64>(),
        ) {
            let all = backends(&weights);
            let mut shuffled = all.clone();
            // Fisher–Yates by a multiplicative generator.
            let mut state = seed | 1;
            for i in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(i, (state >> 33) as usize % (i + 1));
            }
            let (one, other) = (MaglevTable::build(&all, 2_039), MaglevTable::build(&shuffled, 2_039));
            prop_assert_eq!(owners(&one, &all), owners(&other, &shuffled));
        }

        #[test]
        fn every_slot_is_filled_in_proportion(
            weights in prop::collection::vec(any::<u16>(), 1..60),
            slots in prop::sample::select(vec![251u32, 2_039, 65_537]),
        ) {
            let table = MaglevTable::build(&backends(&weights), slots);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            prop_assume!(total > 0.0);
            prop_assert_eq!(table.len(), slots as usize);
            for (count, weight) in counts(&table, weights.len()).iter().zip(&weights) {
                let expected = f64::from(slots) * f64::from(*weight) / total;
                prop_assert!((f64::from(*count) - expected).abs() <= 2.0 + weights.len() as f64 / 10.0);
                prop_assert_eq!(*count > 0, *weight > 0);
            }
        }
    }
}
