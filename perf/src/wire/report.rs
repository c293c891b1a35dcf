//! The comparison: for people and for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

/// What a device under test did in the rounds of a row.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rounds {
    /// Packets received back, in Mpps, median.
    pub mpps: f64,
    /// Each round.
    pub all_mpps: Vec<f64>,
    /// Share of packets that were taken and did not come back, 0 to 1, median.
    pub loss: f64,
    /// Share of bursts for which the device had no room, 0 to 1, median: near 0, the generator was the
    /// bottleneck.
    pub refused: f64,
}

/// Latency at one rate.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Delays {
    /// Median of the rounds' medians, in ns.
    pub p50_ns: u64,
    /// Median of the rounds' 99th percentiles, in ns.
    pub p99_ns: u64,
    /// Each round's 99th percentile, in ns.
    pub all_p99_ns: Vec<u64>,
    /// Share of packets that did not come back, 0 to 1, median.
    pub loss: f64,
}

/// Throughput and latency with so many flows.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Flows, in random order.
    pub flows: u32,
    /// testpmd, at full rate.
    pub testpmd: Rounds,
    /// Sluice, at full rate.
    pub sluice: Rounds,
    /// Sluice's packets by testpmd's: median over the pairs of neighbouring rounds.
    pub ratio: f64,
    /// What the ratio should be at least; none where there is no goal.
    pub goal: Option<f64>,
    /// Whether it is.
    pub met: Option<bool>,
    /// Opening the connections through Sluice, per second.
    pub opened_per_second: f64,
    /// The rate at which latency was measured, in Mpps: half of Sluice's highest.
    pub latency_mpps: f64,
    /// testpmd's latency.
    pub testpmd_latency: Delays,
    /// Sluice's latency.
    pub sluice_latency: Delays,
    /// Sluice's 99th percentile by testpmd's: median over the pairs of neighbouring rounds.
    pub latency_ratio: f64,
    /// What that should be at most.
    pub latency_goal: f64,
    /// Whether it is; none when it was not measured.
    pub latency_met: Option<bool>,
}

/// All of the comparison.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The program and its version.
    pub program: String,
    /// DPDK's version.
    pub dpdk: String,
    /// Frame size in bytes, without frame check sequence.
    pub frame_bytes: u32,
    /// CPU of the generator, and of the device under test.
    pub cpus: [u16; 2],
    /// Seconds and number of rounds.
    pub seconds: f64,
    /// How many rounds each.
    pub rounds: u32,
    /// By number of flows.
    pub rows: Vec<Row>,
    /// Packets that Sluice dropped, by reason.
    pub sluice_drops: BTreeMap<String, u64>,
    /// What this does not show.
    pub not_done: Vec<String>,
    /// Whether it was interrupted: then rows or rounds are missing.
    pub interrupted: bool,
}

/// The middle one of some values; the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The median of each pair's quotient; pairs without a divisor are left out.
pub fn paired_ratio(of: &[f64], by: &[f64]) -> f64 {
    let pairs = of.iter().zip(by).filter(|(_, by)| **by > 0.0);
    rounded(median(&pairs.map(|(of, by)| of / by).collect::<Vec<_>>()))
}

/// To three digits behind the point.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Report {
    /// Print it.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, self)?;
            return writeln!(out);
        }
        for line in self.for_people() {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    fn for_people(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:>10} {:>13} {:>13} {:>6} {:>5}   {:>9} {:>20} {:>20} {:>6}",
            "flows",
            "testpmd Mpps",
            "Sluice Mpps",
            "ratio",
            "goal",
            "at Mpps",
            "testpmd p50/p99 µs",
            "Sluice p50/p99 µs",
            "ratio"
        )];
        let delays = |d: &Delays| match d.p99_ns {
            0 => "-".to_owned(),
            _ => format!("{:.1} / {:.1}", d.p50_ns as f64 / 1e3, d.p99_ns as f64 / 1e3),
        };
        for row in &self.rows {
            lines.push(format!(
                "{:>10} {:>13.2} {:>13.2} {:>6.2} {:>5}   {:>9.2} {:>20} {:>20} {:>6.2}",
                row.flows,
                row.testpmd.mpps,
                row.sluice.mpps,
                row.ratio,
                row.goal.map(|goal| format!("{goal:.2}")).unwrap_or_default(),
                row.latency_mpps,
                delays(&row.testpmd_latency),
                delays(&row.sluice_latency),
                row.latency_ratio
            ));
        }
        for row in &self.rows {
            for (what, goal_met) in [("ratio", row.met), ("latency", row.latency_met)] {
                if goal_met == Some(false) {
                    lines.push(format!("{} flows: the goal for {what} is missed", row.flows));
                }
            }
        }
        if self.interrupted {
            lines.push("interrupted: these are the results so far".to_owned());
        }
        lines.extend(self.not_done.iter().map(|what| format!("not done: {what}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(rounded(0.123_456), 0.123);
        // A machine that becomes slow in the third pair changes nothing.
        assert_eq!(paired_ratio(&[8.0, 7.0, 2.0], &[10.0, 10.0, 2.5]), 0.8);
        assert_eq!(paired_ratio(&[1.0, 1.0], &[0.0, 2.0]), 0.5);
    }

    #[test]
    fn missed_goals_are_said() {
        let row = Row {
            flows: 10_000,
            testpmd: Rounds { mpps: 15.0, ..Rounds::default() },
            sluice: Rounds { mpps: 10.0, ..Rounds::default() },
            ratio: 0.667,
            goal: Some(0.75),
            met: Some(false),
            opened_per_second: 1e6,
            latency_mpps: 5.0,
            testpmd_latency: Delays::default(),
            sluice_latency: Delays::default(),
            latency_ratio: 1.0,
            latency_goal: 1.5,
            latency_met: Some(true),
        };
        let report = Report {
            program: String::new(),
            dpdk: String::new(),
            frame_bytes: 60,
            cpus: [0, 1],
            seconds: 1.0,
            rounds: 3,
            rows: vec![row],
            sluice_drops: BTreeMap::new(),
            not_done: vec!["a real NIC".to_owned()],
            interrupted: false,
        };
        let text = report.for_people().join("\n");
        assert!(text.contains("10000 flows: the goal for ratio is missed"), "{text}");
        assert!(!text.contains("latency is missed") && text.contains("not done: a real NIC"));
    }
}
