//! Weighted least connections: the backend whose conns are fewest for its weight.

/// The index of the backend with the least (conns + 1) / weight: with the new conn counted in,
/// idle backends are told apart by weight. Of equals, the first from `start` on (taken modulo the
/// number of backends) wins: pass another with each pick and worker, else all workers of an idle
/// service begin with the same backend. `None` when no weight is above 0.
///
/// O(n) in the number of backends, and only for new conns: any order kept between picks would have
/// to be mended with every conn that ends.
#[inline]
pub fn pick_least_connections(
    weights: &[u16],
    conns: impl Fn(usize) -> u32,
    start: usize,
) -> Option<usize> {
    let start = start.checked_rem(weights.len())?;
    let mut best: Option<(usize, u64, u64)> = None;
    for index in (start..weights.len()).chain(0..start) {
        let weight = u64::from(weights[index]);
        if weight == 0 {
            continue;
        }
        let load = u64::from(conns(index)) + 1;
        // load / weight < best_load / best_weight, without division: 33 bits times 16.
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
                assert_eq!(pick_least_connections(weights, |_| 0, start), None);
            }
        }
    }

    #[test]
    fn of_equals_the_first_from_start_on_wins() {
        let picks: Vec<_> =
            (0..6).map(|start| pick_least_connections(&[5, 0, 5, 5], |_| 9, start)).collect();
        assert_eq!(picks, [Some(0), Some(2), Some(2), Some(3), Some(0), Some(2)]);
    }

    #[test]
    fn an_idle_service_begins_with_the_heaviest() {
        for start in 0..3 {
            assert_eq!(pick_least_connections(&[1, 3, 2], |_| 0, start), Some(1));
        }
    }

    #[test]
    fn conns_settle_in_the_ratio_of_the_weights() {
        let weights = [100, 200, 0, 700];
        let mut conns = [0u32; 4];
        for start in 0..10_000 {
            conns[pick_least_connections(&weights, |i| conns[i], start).unwrap()] += 1;
        }
        assert_eq!(conns, [1_000, 2_000, 0, 7_000]);
        // A backend that lost its conns gets all new ones until it has caught up.
        conns[0] = 0;
        for start in 0..500 {
            assert_eq!(pick_least_connections(&weights, |i| conns[i], start), Some(0));
            conns[0] += 1;
        }
    }

    proptest! {
        #[test]
        fn it_is_the_minimum(
            backends in prop::collection::vec((any::<u16>(), any::<u32>()), 1..30), start: usize,
        ) {
            let weights: Vec<u16> = backends.iter().map(|b| b.0).collect();
            let picked = pick_least_connections(&weights, |i| backends[i].1, start);
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
