//! Weighted least connections: the backend whose conns are fewest for its weight.

/// The index of the backend with the least (load + new) / weight, where `new` is what the new conn
/// adds to a load: with it counted in, idle backends are told apart by weight. A backend whose load
/// is `None` takes no new conn. Of equals, the first from `start` on (taken modulo the number of
/// backends) wins: pass another with each pick and worker, else all workers of an idle service begin
/// with the same backend. `None` when no weight is above 0, or none of those takes it.
///
/// **On one worker** loads are conns and `new` is 1. **On N workers** that decide alone, a load is
/// what [`Reading::estimate`](crate::tally::Reading::estimate) says, P + N·d, for P conns on all
/// workers when they were last read and d that this worker has made since, and `new` is N. Then, for
/// new conns that come to the workers in any proportion, with readings at any times:
///
/// > conns(a) / weight(a) ≤ (conns(b) + N) / weight(b), for all backends a and b
///
/// holds ever after it held once, and holds for any a that every worker has picked since a reading,
/// whatever was before. That is, backends of equal weight differ by at most N conns; one decider
/// alone keeps them within 1. *Proof.* A worker that picked a since the reading had
/// (P(a) + N·d(a)) / weight(a) ≤ (P(b) + N·(d(b) + 1)) / weight(b), with the picked conn in d(a); d(b)
/// only grows after that. For one that has not, d(a) = 0 and it is P(a) / weight(a) ≤ (P(b) + N) /
/// weight(b), which held at the reading. The mean over all workers is the claim, as conns are P + the
/// sum of d. When conns end, any distance can arise, and new conns go to the backends that are behind,
/// on workers also whose own conns are even. Conns made while a service's backends are being read, of
/// which there are as many as come in some microseconds, can each be wrong by one more.
///
/// O(n) in the number of backends, and only for new conns: any order kept between picks would have
/// to be mended with every conn that ends.
#[inline]
pub fn pick_least_connections(
    weights: &[u16],
    load: impl Fn(usize) -> Option<u64>,
    new: u64,
    start: usize,
) -> Option<usize> {
    let start = start.checked_rem(weights.len())?;
    let mut best: Option<(usize, u64, u64)> = None;
    for index in (start..weights.len()).chain(0..start) {
        let weight = u64::from(weights[index]);
        if weight == 0 {
            continue;
        }
        let Some(load) = load(index) else { continue };
        let load = load + new;
        // load / weight < best_load / best_weight, without division: 40 bits times 16.
        let less = match best {
            None => true,
            Some((_, best_load, best_weight)) => load * best_weight < best_load * weight,
        };
        if less {
            best = Some((index, load, weight));
        }
    }
    best.map(|(index, ..)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn none_without_weight() {
        for weights in [&[][..], &[0], &[0, 0]] {
            for start in [0, 1, usize::MAX] {
                assert_eq!(pick_least_connections(weights, |_| Some(0), 1, start), None);
            }
        }
    }

    #[test]
    fn of_equals_the_first_from_start_on_wins() {
        let picks: Vec<_> = (0..6)
            .map(|start| pick_least_connections(&[5, 0, 5, 5], |_| Some(9), 1, start))
            .collect();
        assert_eq!(picks, [Some(0), Some(2), Some(2), Some(3), Some(0), Some(2)]);
    }

    #[test]
    fn an_idle_service_begins_with_the_heaviest() {
        for start in 0..3 {
            assert_eq!(pick_least_connections(&[1, 3, 2], |_| Some(0), 1, start), Some(1));
        }
    }

    #[test]
    fn conns_settle_in_the_ratio_of_the_weights() {
        let weights = [100, 200, 0, 700];
        let mut conns = [0u64; 4];
        for start in 0..10_000 {
            conns[pick_least_connections(&weights, |i| Some(conns[i]), 1, start).unwrap()] += 1;
        }
        assert_eq!(conns, [1_000, 2_000, 0, 7_000]);
        // A backend that lost its conns gets all new ones until it has caught up.
        conns[0] = 0;
        for start in 0..500 {
            assert_eq!(pick_least_connections(&weights, |i| Some(conns[i]), 1, start), Some(0));
            conns[0] += 1;
        }
    }

    #[test]
    fn a_full_backend_is_passed_over() {
        let pick = |full: &[usize]| {
            let load = |i: usize| (!full.contains(&i)).then_some(i as u64);
            pick_least_connections(&[1, 1, 1], load, 1, 0)
        };
        assert_eq!([pick(&[]), pick(&[0]), pick(&[0, 1])], [Some(0), Some(1), Some(2)]);
        assert_eq!(pick(&[0, 1, 2]), None);
    }

    proptest! {
        #[test]
        fn it_is_the_minimum(
            backends in prop::collection::vec((any::<u16>(), any::<u32>()), 1..30), start: usize,
        ) {
            let weights: Vec<u16> = backends.iter().map(|b| b.0).collect();
            let picked = pick_least_connections(
                &weights, |i| Some(u64::from(backends[i].1)), 1, start,
            );
            let ratio = |i: usize| (u128::from(backends[i].1) + 1, u128::from(weights[i]));
            let takers = (0..weights.len()).filter(|i| weights[*i] > 0);
            match picked {
                None => prop_assert_eq!(takers.count(), 0),
                Some(picked) => {
                    let (load, weight) = ratio(picked);
                    prop_assert!(weight > 0);
                    for other in takers {
                        let (other_load, other_weight) = ratio(other);
                        prop_assert!(load * other_weight <= other_load * weight);
                    }
                }
            }
        }
    }
}
