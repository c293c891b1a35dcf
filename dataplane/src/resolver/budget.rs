//! What the resolver may send and say: a token bucket for ARP requests, and a limit on events, so
//! that no flood of addresses becomes a flood of packets or of log lines.

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

/// At most some events of one kind in each interval; the others are counted.
#[derive(Debug)]
pub(super) struct EventLimit {
    most: u32,
    interval_ms: u64,
    /// When the interval ends; 0 before the first event.
    ends_ms: u64,
    told: u32,
    untold: u64,
}

impl EventLimit {
    pub(super) fn new(most: u32, interval_ms: u64) -> Self {
        EventLimit { most, interval_ms, ends_ms: 0, told: 0, untold: 0 }
    }

    /// Whether this event may be told, and then how many before it were not.
    pub(super) fn allow(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms >= self.ends_ms {
            self.ends_ms = now_ms.saturating_add(self.interval_ms);
            self.told = 0;
        }
        if self.told < self.most {
            self.told += 1;
            Some(std::mem::take(&mut self.untold))
        } else {
            self.untold += 1;
            None
        }
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

    #[test]
    fn untold_events_are_counted() {
        let mut limit = EventLimit::new(2, 1_000);
        assert_eq!([limit.allow(0), limit.allow(1), limit.allow(2)], [Some(0), Some(0), None]);
        assert_eq!(limit.allow(999), None);
        assert_eq!(limit.allow(1_000), Some(2));
        assert_eq!(limit.allow(1_001), Some(0));
    }
}
