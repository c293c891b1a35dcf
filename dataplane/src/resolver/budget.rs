//! What the resolver may send: a token bucket for ARP requests, so that no flood of addresses becomes
//! a flood of packets.

/// ARP requests per second, in the long run.
pub const REQUESTS_PER_SECOND: u64 = 1_000;
/// ARP requests at once after a quiet time.
pub const REQUEST_BURST: u64 = 100;

/// Tokens for ARP requests: one for each ms, at most [`REQUEST_BURST`].
#[derive(Debug)]
pub(super) struct RequestBudget {
    tokens: u64,
    filled_ms: u64,
}

impl RequestBudget {
    pub(super) fn new() -> Self {
        RequestBudget { tokens: REQUEST_BURST, filled_ms: 0 }
    }

    /// Take a token, if there is one.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        let new = now_ms.saturating_sub(self.filled_ms).saturating_mul(REQUESTS_PER_SECOND) / 1_000;
        self.filled_ms = self.filled_ms.max(now_ms);
        self.tokens = self.tokens.saturating_add(new).min(REQUEST_BURST);
        let has = self.tokens > 0;
        self.tokens -= u64::from(has);
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_a_burst_and_then_one_each_ms() {
        let mut budget = RequestBudget::new();
        let burst = (0..1_000).filter(|_| budget.take(5_000)).count();
        assert_eq!(burst, REQUEST_BURST as usize);
        assert!(budget.take(5_001) && !budget.take(5_001));
        assert!(!budget.take(4_000), "time that goes back brings nothing");
        assert!(budget.take(5_002));
    }
}
