//! The report: a table for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::Options;
use super::expiry_sweep::ExpirySweep;
use super::goal::{self, Goal};
use super::measure::Figures;
use super::snapshot_pause::SnapshotPause;
use crate::origin::Origin;

/// A measured row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Flows, in random order; for scenarios that make conns, how many there are at most.
    pub flows: u32,
    /// Median, in ns per packet.
    pub ns_per_packet: f64,
    /// 10th and 90th percentile, in ns per packet.
    pub spread: [f64; 2],
    /// 99.9th percentile, in ns per packet.
    pub p999: f64,
    /// Medians of the rounds, in ns per packet, in order.
    pub round_medians: Vec<f64>,
    /// Bursts that are in no figure, as the kernel ran another program in them (over 1 ms).
    pub preempted_bursts: usize,
    /// The floor in the same run, between the rounds: median, in ns per packet.
    pub floor_ns: f64,
    /// `ns_per_packet` by `floor_ns`.
    pub ratio_to_floor: f64,
    /// What two lines of tables as large as the conn table's cost by themselves, looked up as the
    /// pipeline does it: median, in ns per packet.
    pub memory_floor_ns: f64,
    /// The most that `ns_per_packet` is to be, in ns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal_ns: Option<f64>,
    /// What is asked of this row, and whether it is met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// Memory that a conn takes, in bytes, where the scenario makes conns: table by capacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_conn: Option<f64>,
    /// Mean of a whole life of a conn, all its packets and its expiry, in ns: the median round's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_per_conn: Option<f64>,
    /// Whole lives of conns per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn_per_s: Option<f64>,
    /// What adopting snapshots did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_pause: Option<SnapshotPause>,
    /// What an expiry sweep did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_sweep: Option<ExpirySweep>,
}

impl Row {
    /// From the figures of both.
    pub fn new(figures: Figures, floor: Figures) -> Self {
        Row {
            scenario: "",
            flows: 0,
            ns_per_packet: round(figures.median),
            spread: [round(figures.p10), round(figures.p90)],
            p999: round(figures.p999),
            round_medians: Vec::new(),
            preempted_bursts: 0,
            floor_ns: round(floor.median),
            ratio_to_floor: round(figures.median / floor.median.max(0.001)),
            memory_floor_ns: 0.0,
            goal_ns: None,
            goal: None,
            bytes_per_conn: None,
            ns_per_conn: None,
            conn_per_s: None,
            snapshot_pause: None,
            expiry_sweep: None,
        }
    }

    fn is_full_nat(&self) -> bool {
        self.scenario != "dr-established"
    }
}

/// A figure with two digits behind the point.
pub fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// All rows, and how they came about.
#[derive(Debug, Serialize)]
pub struct Report {
    rows: Vec<Row>,
    /// Memory of a full-NAT conn, all in, in bytes: of the largest table measured.
    bytes_per_conn: Option<f64>,
    /// The longest round of a worker around the adoption of a snapshot, in us; see the row for the
    /// noise floor.
    snapshot_pause_us: Option<f64>,
    /// All goals that were measured.
    goals: Vec<RowGoal>,
    bursts_per_row: u32,
    rounds_per_row: u32,
    burst: usize,
    cpu: u16,
    tsc_hz: u64,
    hugepages: bool,
    origin: Origin,
    not_measured: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RowGoal {
    scenario: &'static str,
    flows: u32,
    #[serde(flatten)]
    goal: Goal,
}

impl Report {
    /// An empty report, and what it will not have.
    pub fn new(options: &Options, tsc_hz: u64, left_out: Vec<String>) -> Self {
        let mut not_measured = vec!["device receive and transmit".to_owned()];
        if !options.hugepages {
            not_measured.push("packets in hugepages: --hugepages was not given".to_owned());
        }
        not_measured.extend(left_out);
        Report {
            rows: Vec::new(),
            bytes_per_conn: None,
            snapshot_pause_us: None,
            goals: Vec::new(),
            bursts_per_row: options.bursts,
            rounds_per_row: options.rounds,
            burst: sluice_path::burst::BURST,
            cpu: options.cpu,
            tsc_hz,
            hugepages: options.hugepages,
            origin: Origin::of_this_run(),
            not_measured,
        }
    }

    /// Add a row.
    pub fn add(&mut self, row: Row) {
        let (scenario, flows) = (row.scenario, row.flows);
        self.goals.extend(row.goal.map(|goal| RowGoal { scenario, flows, goal }));
        if let Some(pause) = row.snapshot_pause {
            self.snapshot_pause_us = Some(pause.with_adoption.longest_us);
        }
        self.rows.push(row);
    }

    /// All rows are there.
    pub fn finish(&mut self) {
        let sized =
            self.rows.iter().filter(|row| row.is_full_nat() && row.bytes_per_conn.is_some());
        let Some(largest) = sized.max_by_key(|row| row.flows) else { return };
        let (scenario, flows) = (largest.scenario, largest.flows);
        self.bytes_per_conn = largest.bytes_per_conn;
        if let Some(bytes) = self.bytes_per_conn {
            let goal = Goal::at_most("bytes_per_conn", goal::BYTES_PER_CONN, bytes);
            self.goals.push(RowGoal { scenario, flows, goal });
        }
    }

    /// Print it.
    pub fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, self)?;
            return writeln!(out);
        }
        writeln!(
            out,
            "{:<21} {:>9} {:>8} {:>15} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6}",
            "scenario",
            "flows",
            "ns/pkt",
            "p10 - p90",
            "p99.9",
            "floor",
            "ratio",
            "memory",
            "goal",
            "B/conn"
        )?;
        let or_none = |value: Option<f64>| value.map(|v| format!("{v:.0}")).unwrap_or_default();
        for row in &self.rows {
            writeln!(
                out,
                "{:<21} {:>9} {:>8.1} {:>15} {:>8.1} {:>6.2} {:>6.1} {:>6.1} {:>6} {:>6}",
                row.scenario,
                row.flows,
                row.ns_per_packet,
                format!("{:.1} - {:.1}", row.spread[0], row.spread[1]),
                row.p999,
                row.floor_ns,
                row.ratio_to_floor,
                row.memory_floor_ns,
                or_none(row.goal_ns),
                or_none(row.bytes_per_conn),
            )?;
        }
        self.print_details(&mut out)?;
        for not in &self.not_measured {
            writeln!(out, "not measured: {not}")?;
        }
        Ok(())
    }

    fn print_details(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        for row in &self.rows {
            if let (Some(ns), Some(rate)) = (row.ns_per_conn, row.conn_per_s) {
                let millions = rate / 1e6;
                writeln!(out, "churn: {millions:.2} M conn/s, {ns:.0} ns for each whole life")?;
            }
            if let Some(p) = row.snapshot_pause {
                let (with, compiling, idle) = (p.with_adoption, p.while_compiling, p.while_idle);
                writeln!(
                    out,
                    "snapshot-pause: longest round in {} adoptions {:.1} us (median {:.1}); \
                     without adoption {:.1} us (median {:.1}) while the other thread compiles, \
                     {:.1} us (median {:.1}) while it sleeps; {} windows left out in which the \
                     kernel ran something else; compiling took {:.0} ms",
                    with.windows,
                    with.longest_us,
                    with.median_us,
                    compiling.longest_us,
                    compiling.median_us,
                    idle.longest_us,
                    idle.median_us,
                    p.preempted_windows,
                    p.compile_ms,
                )?;
            }
            if let Some(s) = row.expiry_sweep {
                writeln!(
                    out,
                    "expiry-sweep: a round without and with it, in us: median {:.2} and {:.2}, p99 \
                     {:.2} and {:.2}, p99.9 {:.2} and {:.2} (known to {:.2}); {} conns expired",
                    s.median_us[0],
                    s.median_us[1],
                    s.p99_us[0],
                    s.p99_us[1],
                    s.p999_us[0],
                    s.p999_us[1],
                    s.noise_us,
                    s.expired,
                )?;
            }
        }
        for RowGoal { scenario, flows, goal: g } in &self.goals {
            let verdict = if g.met { "met" } else { "NOT MET" };
            let (figure, measured, goal) = (g.figure, g.measured, g.goal);
            writeln!(out, "goal {verdict}: {scenario} {flows}: {figure} {measured}, goal {goal}")?;
        }
        Ok(())
    }
}
