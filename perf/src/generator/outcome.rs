//! What a run showed: figures for people, programs and plots.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::connections::ConnectionCounts;
use super::counts::Counts;
use super::probe::ProbeCounts;

/// One second of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its end, in s since the run's start.
    pub at_seconds: f64,
    /// Packets sent per second.
    pub sent_pps: f64,
    /// Packets that came back per second.
    pub received_pps: f64,
    /// Latency's median in ns; none without probes.
    pub p50_ns: Option<u64>,
    /// Latency's 99th percentile in ns; none without probes.
    pub p99_ns: Option<u64>,
}

/// Latency of the probes, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub probes: u64,
    /// Least.
    pub min_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Most.
    pub max_ns: u64,
}

/// A part of the latency distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// Its upper end in ns.
    pub up_to_ns: u64,
    /// Probes in it.
    pub probes: u64,
}

impl Latency {
    /// The figures of a histogram; none when it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Latency {
            probes: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean().round(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: histogram.max(),
        })
    }

    /// The distribution in steps of a quarter, empty ones left out.
    pub fn buckets(histogram: &Histogram<u64>) -> Vec<Bucket> {
        histogram
            .iter_log(100, 1.25)
            .map(|step| Bucket {
                up_to_ns: step.value_iterated_to(),
                probes: step.count_since_last_iteration(),
            })
            .filter(|bucket| bucket.probes > 0)
            .collect()
    }
}

/// What became of connections that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConnectionOutcome {
    /// Counted over the run and its settling.
    #[serde(flatten)]
    pub counts: ConnectionCounts,
    /// Neither completed nor failed when the waiting ended (`run.settle_ms`).
    pub unfinished: u64,
    /// Completed per second of the run.
    pub completed_per_second: f64,
    /// From SYN to SYN-ACK, median in ns.
    pub handshake_p50_ns: u64,
    /// From SYN to SYN-ACK, 99th percentile in ns.
    pub handshake_p99_ns: u64,
}

impl ConnectionOutcome {
    /// From counts after and before a run of so many seconds; handshakes are in cycles.
    pub fn new(
        after: &ConnectionCounts,
        before: &ConnectionCounts,
        seconds: f64,
        handshake: &Histogram<u64>,
        hz: u64,
    ) -> Self {
        let counts = ConnectionCounts {
            started: after.started - before.started,
            established: after.established - before.established,
            completed: after.completed - before.completed,
            timed_out: after.timed_out - before.timed_out,
            reset: after.reset - before.reset,
            busy: after.busy - before.busy,
        };
        let ended = counts.completed + counts.timed_out + counts.reset;
        // Those that were under way before may have ended in this run.
        let unfinished = counts.started.saturating_sub(ended);
        let ns = |quantile| {
            (handshake.value_at_quantile(quantile) as f64 * 1e9 / hz as f64).round() as u64
        };
        ConnectionOutcome {
            counts,
            unfinished,
            completed_per_second: (counts.completed as f64 / seconds).round(),
            handshake_p50_ns: ns(0.5),
            handshake_p99_ns: ns(0.99),
        }
    }
}

/// What a run at one rate showed.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// How long it sent, in s.
    pub seconds: f64,
    /// Rate that was asked for, in packets per second; none for as fast as it goes.
    pub asked_pps: Option<f64>,
    /// Packets sent per second.
    pub sent_pps: f64,
    /// Packets that came back per second while it sent.
    pub received_pps: f64,
    /// Share of packets that did not come back, 0 to 1; of probes, for connections that come and go.
    pub loss: f64,
    /// What was counted, stragglers included.
    pub counts: Counts,
    /// Packets that the rate asked for and that were given up: the device was full, or the generator
    /// too slow.
    pub late: u64,
    /// Share of bursts for which the device had no room, 0 to 1. Near 0 at full rate, the generator
    /// itself is what limits the rate.
    pub refused: f64,
    /// What became of the probes.
    pub probes: ProbeCounts,
    /// Latency of the probes; none when none came back.
    pub latency: Option<Latency>,
    /// Distribution of latency.
    pub histogram: Vec<Bucket>,
    /// Second by second.
    pub intervals: Vec<Interval>,
    /// Connections that came and went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionOutcome>,
    /// Whether it was interrupted.
    pub interrupted: bool,
}

#[cfg(test)]
mod tests {
    use super::super::probe::histogram;
    use super::*;

    #[test]
    fn latency_has_its_percentiles() {
        let mut all = histogram();
        assert_eq!(Latency::of(&all), None);
        (1..=1_000).for_each(|ns| all.record(ns).unwrap());
        let latency = Latency::of(&all).unwrap();
        assert_eq!((latency.p50_ns, latency.p90_ns, latency.p99_ns), (500, 900, 990));
        assert_eq!((latency.p999_ns, latency.max_ns, latency.min_ns), (999, 1_000, 1));
        let buckets = Latency::buckets(&all);
        assert_eq!(buckets.iter().map(|b| b.probes).sum::<u64>(), 1_000);
        assert!(buckets.iter().all(|b| b.probes > 0));
        assert!(buckets.is_sorted_by_key(|b| b.up_to_ns));
    }
}
