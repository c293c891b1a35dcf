//! Probes: packets with a number, of which the generator knows when each was sent.
//!
//! The number travels in the packet, the time stays here: so a probe fits into the six bytes of
//! payload that a 64-byte TCP frame has, and nobody can forge a time. From what comes back follow
//! latency, loss, duplicates and reordering.

use hdrhistogram::Histogram;
use serde::Serialize;

/// How many probes may be under way: one that comes back after so many others counts as lost.
const WINDOW: usize = 1 << 18;
/// Longest latency told apart, in ns.
const LONGEST_NS: u64 = 10_000_000_000;

/// A histogram of ns, to three digits, from 1 ns to 10 s.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .unwrap_or_else(|error| unreachable!("these bounds are valid for any histogram: {error}"))
}

#[derive(Clone, Copy)]
struct Sent {
    cycles: u64,
    /// Number of the flow.
    flow: u32,
    number: u32,
    arrived: bool,
}

/// What became of the probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProbeCounts {
    /// Sent.
    pub sent: u64,
    /// Come back, each counted once.
    pub received: u64,
    /// Come back once more.
    pub duplicates: u64,
    /// Come back after a later one of the same flow (RFC 4737, 3.3, with the flow as the stream).
    pub reordered_in_flow: u64,
    /// Come back after a later one of any flow (RFC 4737, 3.3, with all probes as the stream).
    pub reordered: u64,
    /// With a number that was never sent, or too long ago to tell.
    pub unknown: u64,
}

impl ProbeCounts {
    /// Sent and not come back.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

/// Remembers the probes under way.
pub struct Probes {
    sent: Box<[Sent]>,
    next: u32,
    /// The highest number that came back, plus one.
    expected: u32,
    /// By flow: the highest number that came back, plus one.
    expected_in_flow: Box<[u32]>,
    counts: ProbeCounts,
    latency: Histogram<u64>,
    interval: Histogram<u64>,
    hz: u64,
}

impl Probes {
    /// For so many flows, on a cycle counter of `hz`.
    pub fn new(flows: u32, hz: u64) -> Self {
        let none = Sent { cycles: 0, flow: 0, number: u32::MAX, arrived: true };
        Probes {
            sent: vec![none; WINDOW].into(),
            next: 0,
            expected: 0,
            expected_in_flow: vec![0; flows as usize].into(),
            counts: ProbeCounts::default(),
            latency: histogram(),
            interval: histogram(),
            hz,
        }
    }

    /// Forget what was counted; numbers go on, so that stragglers are told apart.
    pub fn restart(&mut self) {
        self.counts = ProbeCounts::default();
        self.latency.reset();
        self.interval.reset();
        self.sent.fill(Sent { cycles: 0, flow: 0, number: u32::MAX, arrived: true });
    }

    /// A probe of `flow` is sent now; its number.
    pub fn send(&mut self, flow: u32, cycles: u64) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.counts.sent += 1;
        self.sent[number as usize % WINDOW] = Sent { cycles, flow, number, arrived: false };
        number
    }

    /// A probe was not sent after all.
    pub fn unsend(&mut self, number: u32) {
        let sent = &mut self.sent[number as usize % WINDOW];
        if sent.number == number && !sent.arrived {
            sent.number = u32::MAX;
            self.counts.sent -= 1;
        }
    }

    /// A probe came back at this time.
    pub fn receive(&mut self, number: u32, cycles: u64) {
        let sent = &mut self.sent[number as usize % WINDOW];
        if sent.number != number || number == u32::MAX {
            self.counts.unknown += 1;
            return;
        }
        if sent.arrived {
            self.counts.duplicates += 1;
            return;
        }
        sent.arrived = true;
        self.counts.received += 1;
        let nanos = u128::from(cycles.saturating_sub(sent.cycles)) * 1_000_000_000;
        let nanos = (nanos / u128::from(self.hz)) as u64;
        self.latency.saturating_record(nanos.max(1));
        self.interval.saturating_record(nanos.max(1));
        self.counts.reordered += u64::from(!advance(&mut self.expected, number));
        if let Some(expected) = self.expected_in_flow.get_mut(sent.flow as usize) {
            self.counts.reordered_in_flow += u64::from(!advance(expected, number));
        }
    }

    /// What became of them so far.
    pub fn counts(&self) -> ProbeCounts {
        self.counts
    }

    /// Latency of all that came back, in ns.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// The 50th and 99th percentile of latency since the last call, in ns; none without probes.
    pub fn take_interval(&mut self) -> Option<(u64, u64)> {
        let some = !self.interval.is_empty();
        let at = |quantile| self.interval.value_at_quantile(quantile);
        let result = some.then(|| (at(0.5), at(0.99)));
        self.interval.reset();
        result
    }
}

/// RFC 4737, 3.3: a packet is in order when its number is not below the next one expected, which it
/// then moves on. Numbers wrap.
fn advance(expected: &mut u32, number: u32) -> bool {
    let in_order = number.wrapping_sub(*expected) < u32::MAX / 2;
    if in_order {
        *expected = number.wrapping_add(1);
    }
    in_order
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_000_000_000;

    fn probes() -> Probes {
        Probes::new(4, HZ)
    }

    #[test]
    fn latency_is_in_ns() {
        let mut probes = probes();
        for i in 1..=1_000_u64 {
            let number = probes.send(0, i * 10_000);
            probes.receive(number, i * 10_000 + 2 * i);
        }
        let at = |q| probes.latency().value_at_quantile(q);
        assert_eq!((at(0.5), at(0.99), probes.latency().max()), (500, 990, 1_000));
        assert_eq!(probes.take_interval(), Some((500, 990)));
        assert_eq!(probes.take_interval(), None);
        assert_eq!(probes.latency().len(), 1_000);
    }

    #[test]
    fn loss_duplicates_and_strangers_are_told_apart() {
        let mut probes = probes();
        let numbers: Vec<u32> = (0..10).map(|i| probes.send(i % 4, 0)).collect();
        for number in &numbers[..7] {
            probes.receive(*number, 1);
        }
        probes.receive(numbers[3], 2);
        probes.receive(numbers[3], 3);
        probes.receive(77, 3);
        probes.receive(u32::MAX, 3);
        let counts = probes.counts();
        assert_eq!((counts.sent, counts.received, counts.lost()), (10, 7, 3));
        assert_eq!((counts.duplicates, counts.unknown, counts.reordered), (2, 2, 0));
        probes.unsend(numbers[9]);
        probes.unsend(numbers[9]);
        probes.unsend(numbers[0]);
        assert_eq!((probes.counts().sent, probes.counts().lost()), (9, 2));
        probes.restart();
        probes.receive(numbers[8], 4);
        assert_eq!(probes.counts(), ProbeCounts { unknown: 1, ..ProbeCounts::default() });
    }

    #[test]
    fn reordering_is_that_of_rfc_4737() {
        let mut probes = probes();
        // Flows 0 1 0 1 0 1, arriving as 0 2 1 5 3 4.
        let numbers: Vec<u32> = (0..6).map(|i| probes.send(i % 2, 0)).collect();
        for i in [0, 2, 1, 5, 3, 4] {
            probes.receive(numbers[i], 1);
        }
        let counts = probes.counts();
        // 1 after 2, 3 and 4 after 5.
        assert_eq!(counts.reordered, 3);
        // Only 3 after 5 is of the same flow.
        assert_eq!(counts.reordered_in_flow, 1);
        assert_eq!(counts.lost(), 0);
    }

    #[test]
    fn numbers_wrap() {
        let mut expected = u32::MAX - 1;
        for number in [u32::MAX - 1, u32::MAX, 0, 1] {
            assert!(advance(&mut expected, number), "{number}");
        }
        assert!(!advance(&mut expected, u32::MAX));
        assert_eq!(expected, 2);
    }

    #[test]
    fn a_probe_that_is_overtaken_by_too_many_is_unknown() {
        let mut probes = probes();
        let first = probes.send(0, 0);
        (0..WINDOW).for_each(|_| {
            probes.send(0, 0);
        });
        probes.receive(first, 1);
        assert_eq!((probes.counts().unknown, probes.counts().received), (1, 0));
    }
}
