//! In which order flows send: computed once, so that the packet loop only reads on.

use sluice_path::testkit::Random;

use super::GenError;
use super::flows::FlowSpace;

/// The order of the flows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// One after another, round and round.
    Sequential,
    /// Each packet is of any flow, all equally likely.
    Random,
    /// The flow of rank k is chosen with a probability proportional to k^-exponent.
    Zipf {
        /// Above 0, at most 4; 1 is the classic one.
        exponent: f64,
    },
}

/// One packet to come: what differs from its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Client address, in host order.
    pub address: u32,
    /// Client's L4 port.
    pub port: u16,
    /// Number of the template.
    pub template: u16,
}

/// Slots of a random order for few flows: long enough that sizes and flows do not march in step.
const LEAST_SLOTS: usize = 1 << 20;
/// Slots of a sequential order of few flows: whole bursts are taken from it.
const LEAST_SEQUENTIAL: usize = 4_096;
/// Slots beyond which an order is not made longer than twice its flows (8 bytes each).
const MANY_SLOTS: usize = 1 << 22;

impl Order {
    /// The order that a scenario names; the exponent counts for Zipf only.
    ///
    /// # Errors
    /// An unknown name, or an exponent out of range.
    pub fn from_name(name: &str, exponent: f64) -> Result<Self, GenError> {
        match name {
            "sequential" => Ok(Order::Sequential),
            "random" => Ok(Order::Random),
            "zipf" if exponent > 0.0 && exponent <= 4.0 => Ok(Order::Zipf { exponent }),
            "zipf" => {
                Err(GenError::field("traffic.zipf_exponent", exponent, "above 0 and at most 4"))
            }
            other => Err(GenError::field(
                "traffic.order",
                format!("{other:?}"),
                "\"sequential\", \"random\" or \"zipf\"",
            )),
        }
    }

    /// The packets of one round over `flows`, whose sizes go round by `sizes` ([`super::sizes`]).
    /// It is repeated for as long as the run takes.
    pub fn slots(self, flows: &FlowSpace, sizes: &[u8], seed: u64) -> Vec<Slot> {
        let count = flows.len() as usize;
        let long = (4 * count).max(LEAST_SLOTS).min(MANY_SLOTS.max(2 * count));
        let mut random = Random(seed.max(1));
        let slot = |(position, index): (usize, u32)| {
            let client = flows.client(index);
            let template = u16::from(sizes[position % sizes.len()]);
            Slot { address: client.address, port: client.port, template }
        };
        match self {
            // Whole rounds of flows, so that every flow sends equally often.
            Order::Sequential => {
                let rounds = sizes.len() * LEAST_SEQUENTIAL.div_ceil(count * sizes.len());
                let total = if count * rounds <= MANY_SLOTS { count * rounds } else { count };
                (0..total).map(|i| slot((i, (i % count) as u32))).collect()
            }
            Order::Random => (0..long).map(|i| slot((i, random.below(count) as u32))).collect(),
            Order::Zipf { exponent } => {
                let zipf = Zipf::new(flows.len(), exponent, &mut random);
                (0..long).map(|i| slot((i, zipf.draw(&mut random)))).collect()
            }
        }
    }
}

/// Draws flows by Zipf's law. Ranks are given to flows at random, so that the busy ones are not
/// neighbours.
struct Zipf {
    /// Sum of the weights of all ranks up to this one.
    sums: Vec<f64>,
    flow_of_rank: Vec<u32>,
}

impl Zipf {
    fn new(flows: u32, exponent: f64, random: &mut Random) -> Self {
        let mut sum = 0.0;
        let sums = (1..=flows)
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        let mut flow_of_rank: Vec<u32> = (0..flows).collect();
        for last in (1..flow_of_rank.len()).rev() {
            flow_of_rank.swap(last, random.below(last + 1));
        }
        Zipf { sums, flow_of_rank }
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let total = self.sums.last().copied().unwrap_or_default();
        // 53 bits: all that a float in [0, 1) can tell apart.
        let point = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let rank = self.sums.partition_point(|sum| *sum <= point).min(self.sums.len() - 1);
        self.flow_of_rank[rank]
    }
}

#[cfg(test)]
mod tests {
    use super::super::flows::Client;
    use super::*;

    fn flows(count: u32) -> FlowSpace {
        FlowSpace::new([10, 0, 0, 1].into(), 64, (1_024, 65_535), count).unwrap()
    }

    fn counts(order: Order, flows: &FlowSpace) -> Vec<u32> {
        let mut counts = vec![0; flows.len() as usize];
        for slot in order.slots(flows, &[0], 7) {
            let client = Client { address: slot.address, port: slot.port };
            counts[flows.index(client).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn sequential_takes_each_in_turn_with_every_size() {
        let flows = flows(100);
        let slots = Order::Sequential.slots(&flows, &[0, 1, 2], 1);
        assert_eq!(slots.len(), 4_200);
        assert_eq!(Order::Sequential.slots(&super::tests::flows(1), &[0], 1).len(), 4_096);
        for (position, slot) in slots.iter().enumerate() {
            let client = flows.client(position as u32 % 100);
            assert_eq!((slot.address, slot.port), (client.address, client.port));
            assert_eq!(usize::from(slot.template), position % 3);
        }
    }

    #[test]
    fn random_is_even_and_the_same_for_a_seed() {
        let flows = flows(1_000);
        let slots = Order::Random.slots(&flows, &[0], 5);
        assert_eq!(slots, Order::Random.slots(&flows, &[0], 5));
        assert_ne!(slots, Order::Random.slots(&flows, &[0], 6));
        let counts = counts(Order::Random, &flows);
        // Mean 1,049, standard deviation 32.
        assert!(counts.iter().all(|c| (850..1_250).contains(c)), "{counts:?}");
    }

    #[test]
    fn zipf_follows_its_law() {
        let flows = flows(1_000);
        let mut counts = counts(Order::Zipf { exponent: 1.0 }, &flows);
        let busiest = counts.iter().position(|c| Some(c) == counts.iter().max());
        assert_ne!(busiest, Some(0), "ranks are spread over the flows");
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let total: u32 = counts.iter().sum();
        let harmonic: f64 = (1..=1_000).map(|k| 1.0 / f64::from(k)).sum();
        for rank in [1, 2, 10, 100] {
            let share = f64::from(counts[rank - 1]) / f64::from(total);
            let law = 1.0 / rank as f64 / harmonic;
            assert!((share / law - 1.0).abs() < 0.15, "rank {rank}: {share} instead of {law}");
        }
    }

    #[test]
    fn orders_have_names() {
        assert_eq!(Order::from_name("sequential", 0.0).unwrap(), Order::Sequential);
        assert_eq!(Order::from_name("zipf", 1.1).unwrap(), Order::Zipf { exponent: 1.1 });
        let error = Order::from_name("shuffled", 1.0).unwrap_err().to_string();
        assert!(error.starts_with("traffic.order is \"shuffled\": expected \"sequential\""));
        for bad in [0.0, -1.0, 4.5, f64::NAN, f64::INFINITY] {
            let error = Order::from_name("zipf", bad).unwrap_err().to_string();
            assert!(error.starts_with("traffic.zipf_exponent is "), "{error}");
        }
    }
}
