//! What the resolver may send: token buckets for ARP requests, so that no flood of addresses becomes a
//! flood of packets.

/// ARP requests per second, in the long run, for backends, gateways and known clients.
pub const REQUESTS_PER_SECOND: u64 = 1_000;
/// ARP requests at once after a quiet time.
pub const REQUEST_BURST: u64 = 100;
/// Of strangers, by broadcast, beside the others': all of the network hears them.
pub(super) const STRANGERS: Rate = Rate { per_second: 200, at_once: 50 };
/// Of strangers, each to the MAC address that its packet came from: nobody else hears these, and there
/// is one for a packet at most.
pub(super) const FIRST_PACKETS: Rate = Rate { per_second: 10_000, at_once: 500 };
/// Of backends and gateways to which no packet goes, beside the others'.
pub(super) const WATCHED: Rate = Rate { per_second: 500, at_once: 100 };
/// Of all others.
pub(super) const KNOWN: Rate = Rate { per_second: REQUESTS_PER_SECOND, at_once: REQUEST_BURST };

/// How often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: u64,
    /// After a quiet time.
    pub(super) at_once: u64,
}

/// Tokens for ARP requests.
#[derive(Debug)]
pub(super) struct RequestBudget {
    rate: Rate,
    /// In thousandths: so many flow in per ms as tokens per second.
    level: u64,
    filled_ms: u64,
}

impl RequestBudget {
    const TOKEN: u64 = 1_000;

    pub(super) fn new(rate: Rate) -> Self {
        RequestBudget { rate, level: rate.at_once * Self::TOKEN, filled_ms: 0 }
    }

    /// Take a token, if there is one.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        let new = now_ms.saturating_sub(self.filled_ms).saturating_mul(self.rate.per_second);
        self.filled_ms = self.filled_ms.max(now_ms);
        self.level = self.level.saturating_add(new).min(self.rate.at_once * Self::TOKEN);
        let has = self.level >= Self::TOKEN;
        if has {
            self.level -= Self::TOKEN;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_a_burst_and_then_one_each_ms() {
        let mut budget = RequestBudget::new(KNOWN);
        let burst = (0..1_000).filter(|_| budget.take(5_000)).count();
        assert_eq!(burst, REQUEST_BURST as usize);
        assert!(budget.take(5_001) && !budget.take(5_001));
        assert!(!budget.take(4_000), "time that goes back brings nothing");
        assert!(budget.take(5_002));
    }

    #[test]
    fn a_slow_rate_loses_nothing_to_frequent_looks() {
        let mut budget = RequestBudget::new(STRANGERS);
        while budget.take(0) {}
        assert_eq!((1..=10_000).filter(|now_ms| budget.take(*now_ms)).count(), 2_000);
    }
}
