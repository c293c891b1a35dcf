//! From cycles to figures.

use serde::Serialize;

/// Cycles of many bursts, each divided by its packets.
pub struct Samples {
    /// Cycles per packet, times 1,000.
    sorted: Vec<u64>,
    hz: u64,
}

/// What was measured, in ns per packet.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// Median.
    pub median: f64,
    /// 10th percentile.
    pub p10: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
}

impl Samples {
    /// From the cycles that bursts of `packets` took.
    pub fn new(cycles: &[u64], packets: usize, hz: u64) -> Self {
        let mut sorted: Vec<u64> = cycles.iter().map(|c| c * 1_000 / packets as u64).collect();
        sorted.sort_unstable();
        Samples { sorted, hz }
    }

    fn ns_at(&self, per_mille: usize) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        let cycles = self.sorted.get(last * per_mille / 1_000).copied().unwrap_or_default();
        cycles as f64 / 1e3 / (self.hz as f64 / 1e9)
    }

    /// The figures.
    pub fn figures(&self) -> Figures {
        Figures {
            median: self.ns_at(500),
            p10: self.ns_at(100),
            p90: self.ns_at(900),
            p99: self.ns_at(990),
            p999: self.ns_at(999),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_ns_per_packet() {
        let cycles: Vec<u64> = (1..=1_001).map(|i| i * 32).collect();
        let figures = Samples::new(&cycles, 32, 2_000_000_000).figures();
        assert_eq!((figures.median, figures.p10, figures.p90), (250.5, 50.5, 450.5));
    }
}
