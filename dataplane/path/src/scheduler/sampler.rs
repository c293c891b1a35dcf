//! Some of many backends, each as likely as its weight says: for least connections among so many that to
//! look at all of them would take longer than all else that a new conn costs.
//!
//! Of d backends drawn by weight the one with the fewest conns for its weight is taken. With n backends
//! no load is further above the mean than about ln ln n / ln d conns for a weight of 1, whatever n is
//! (Azar, Broder, Karlin, Upfal: Balanced Allocations, 1999): less than one conn for d = 16. A backend
//! that is new or comes back gets at most 16 times its share of new conns until it has caught up, and not
//! all of them at once.
//!
//! Drawing is by Vose's alias method: one table, built once, two reads for each draw.

/// Backends up to which all of them are looked at.
const ALL_UP_TO: usize = 256;
/// Backends that are drawn for each new conn.
const DRAWN: u64 = 16;

/// What is drawn in a place: itself, or another one.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Below this, of 2^32, it is `own`.
    threshold: u32,
    own: u32,
    other: u32,
}

/// Draws backends by weight.
#[derive(Debug)]
pub struct WeightSampler {
    places: Box<[Place]>,
}

impl WeightSampler {
    /// For backends with these weights, if they are too many to look at each.
    pub fn for_large(weights: &[u16]) -> Option<WeightSampler> {
        let takers = weights.iter().filter(|weight| **weight > 0).count();
        (takers > ALL_UP_TO).then(|| WeightSampler::build(weights))
    }

    fn build(weights: &[u16]) -> WeightSampler {
        let takers: Vec<u32> =
            (0..).zip(weights).filter(|(_, w)| **w > 0).map(|(i, _)| i).collect();
        let count = takers.len() as u64;
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        // Shares in units of 1 / sum of a place: a place is full with `sum`.
        let mut shares: Vec<u64> =
            takers.iter().map(|taker| u64::from(weights[*taker as usize]) * count).collect();
        let mut places: Vec<Place> = takers
            .iter()
            .map(|own| Place { threshold: u32::MAX, own: *own, other: *own })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..places.len()).partition(|place| shares[*place] < sum);
        while let (Some(place), Some(giver)) = (small.pop(), large.last().copied()) {
            places[place].threshold = ((u128::from(shares[place]) << 32) / u128::from(sum)) as u32;
            places[place].other = takers[giver];
            shares[giver] -= sum - shares[place];
            if shares[giver] < sum {
                large.pop();
                small.push(giver);
            }
        }
        WeightSampler { places: places.into() }
    }

    /// A backend, by 64 random bits.
    #[inline]
    fn draw(&self, random: u64) -> usize {
        let at = ((random >> 32) * self.places.len() as u64) >> 32;
        let place = &self.places[at as usize];
        let is_own = (random as u32) < place.threshold;
        (if is_own { place.own } else { place.other }) as usize
    }

    /// Of some backends, drawn by `random`, the index of the one with the least (load + new) / weight, as
    /// [`pick_least_connections`](super::pick_least_connections) has it of all. `None` when none of them
    /// takes a new conn.
    #[inline]
    pub fn pick(
        &self,
        weights: &[u16],
        load: impl Fn(usize) -> Option<u64>,
        new: u64,
        random: u64,
    ) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        for nth in 0..DRAWN {
            let index = self.draw(mixed(random.wrapping_mul(DRAWN).wrapping_add(nth)));
            let weight = u64::from(weights[index]);
            let Some(load) = load(index) else { continue };
            let load = load + new;
            let less = best
                .is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight);
            if less {
                best = Some((index, load, weight));
            }
        }
        best.map(|(index, ..)| index)
    }
}

/// 64 bits that look random, one for each number: SplitMix64 (Steele, Lea, Flood, 2014).
#[inline]
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::pick_least_connections;
    use std::time::Instant;

    const MANY: usize = 4_000;

    /// 4,000 backends, of weight 0, 100, 200 and 700 in turn.
    fn weights() -> Vec<u16> {
        (0..MANY).map(|i| [100, 200, 0, 700][i % 4]).collect()
    }

    #[test]
    fn few_backends_are_all_looked_at() {
        assert!(WeightSampler::for_large(&[1; ALL_UP_TO]).is_none());
        assert!(WeightSampler::for_large(&[&[1; ALL_UP_TO][..], &[0; 5]].concat()).is_none());
        assert!(WeightSampler::for_large(&[1; ALL_UP_TO + 1]).is_some());
    }

    #[test]
    fn each_is_drawn_as_often_as_its_weight_says() {
        let weights: Vec<u16> = (0..300).map(|i| [1, 5, 0, 1_000, 65_535][i % 5]).collect();
        let sampler = WeightSampler::build(&weights);
        let mut drawn = vec![0u64; weights.len()];
        let draws = 20_000_000;
        (0..draws).for_each(|n| drawn[sampler.draw(mixed(n))] += 1);
        let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for (weight, drawn) in weights.iter().zip(&drawn) {
            let expected = draws as f64 * f64::from(*weight) / sum as f64;
            let distance = (*drawn as f64 - expected).abs();
            // Five standard deviations of a count.
            assert!(distance <= 5.0 * expected.sqrt() + 1.0, "{weight}: {drawn} of {expected}");
        }
    }

    /// No backend is further than two conns per weight of 100 from its share, after as few or as many
    /// conns, also when they end at random meanwhile.
    #[test]
    fn loads_stay_close_to_the_weights() {
        let weights = weights();
        let sampler = WeightSampler::for_large(&weights).unwrap();
        let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let mut conns = vec![0u64; MANY];
        let (mut made, mut living) = (0u64, Vec::new());
        let furthest = |conns: &[u64], total: usize| {
            let of_share = |(weight, conns): (&u16, &u64)| {
                let share = total as f64 * f64::from(*weight) / sum;
                (*conns as f64 - share) * 100.0 / f64::from(*weight).max(1.0)
            };
            let all = weights.iter().zip(conns).filter(|(w, _)| **w > 0).map(of_share);
            all.fold((0.0f64, 0.0f64), |(low, high), d| (low.min(d), high.max(d)))
        };
        for round in 0..6 {
            for _ in 0..100_000 {
                made += 1;
                let picked = sampler.pick(&weights, |i| Some(conns[i]), 1, made).unwrap();
                conns[picked] += 1;
                living.push(picked);
                if round > 1 {
                    // One ends, whichever.
                    let gone =
                        living.swap_remove((mixed(made ^ 0x5eed) % living.len() as u64) as usize);
                    conns[gone] -= 1;
                }
            }
            let (low, high) = furthest(&conns, living.len());
            println!("{} conns: {low:.1} to {high:+.1} per weight of 100", living.len());
            assert!(high <= 2.0, "{high} above its share in round {round}");
            assert!(conns.iter().zip(&weights).all(|(c, w)| *w > 0 || *c == 0));
        }
        // One that has lost its conns, as after a restart, catches up, and gets no flood.
        let lost = conns[3];
        conns[3] = 0;
        let got = (0..10_000u64).filter(|n| {
            let picked = sampler.pick(&weights, |i| Some(conns[i]), 1, made + n).unwrap();
            conns[picked] += 1;
            picked == 3
        });
        let got = got.count() as f64;
        let share = 10_000.0 * 700.0 / sum;
        assert!(
            got > 8.0 * share && got < 24.0 * share,
            "{got} of {lost}, its share is {share:.1}"
        );
    }

    #[test]
    fn full_backends_are_passed_over() {
        let weights = weights();
        let sampler = WeightSampler::for_large(&weights).unwrap();
        let odd = |i: usize| (i % 4 == 3).then_some(0);
        assert!((0..1_000).all(|n| sampler.pick(&weights, odd, 1, n).is_none_or(|i| i % 4 == 3)));
        assert_eq!(sampler.pick(&weights, |_| None, 1, 7), None, "the caller looks at all then");
    }

    /// What it costs beside looking at all: loads in memory of their own, a line each.
    #[test]
    fn it_takes_a_fraction_of_looking_at_all() {
        #[repr(align(64))]
        struct Line(u64);
        let weights = weights();
        let sampler = WeightSampler::for_large(&weights).unwrap();
        let loads: Vec<Line> = (0..MANY as u64).map(|n| Line(mixed(n) % 100)).collect();
        let load = |i: usize| Some(loads[i].0);
        let time = |picks: u64, pick: &dyn Fn(u64) -> Option<usize>| {
            let start = Instant::now();
            let sum: usize = (0..picks).filter_map(pick).sum();
            assert!(sum > 0);
            start.elapsed().as_nanos() as u64 / picks
        };
        let all = time(2_000, &|n| pick_least_connections(&weights, load, 1, n as usize));
        let some = time(100_000, &|n| sampler.pick(&weights, load, 1, n));
        println!("{MANY} backends: {all} ns to look at all, {some} ns to look at {DRAWN}");
        assert!(some * 5 < all, "{some} ns, {all} ns");
    }
}
