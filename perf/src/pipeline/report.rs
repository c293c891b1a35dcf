//! The report: a table for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::Options;
use super::measure::Figures;

/// A measured row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Flows, in random order.
    pub flows: u32,
    /// Median, in ns per packet.
    pub ns_per_packet: f64,
    /// 10th and 90th percentile, in ns per packet.
    pub spread: [f64; 2],
    /// 99.9th percentile, in ns per packet.
    pub p999: f64,
    /// The floor in the same run: median, in ns per packet.
    pub floor_ns: f64,
    /// `ns_per_packet` by `floor_ns`.
    pub ratio_to_floor: f64,
    /// Memory that a conn takes, in bytes, where the scenario makes conns: table by capacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_conn: Option<f64>,
}

impl Row {
    /// From the figures of both.
    pub fn new(scenario: &'static str, flows: u32, figures: Figures, floor: Figures) -> Self {
        Row {
            scenario,
            flows,
            ns_per_packet: round(figures.median),
            spread: [round(figures.p10), round(figures.p90)],
            p999: round(figures.p999),
            floor_ns: round(floor.median),
            ratio_to_floor: round(figures.median / floor.median.max(0.001)),
            bytes_per_conn: None,
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// All rows, and how they came about.
#[derive(Debug, Serialize)]
pub struct Report {
    rows: Vec<Row>,
    bursts_per_row: u32,
    burst: usize,
    cpu: u16,
    tsc_hz: u64,
    hugepages: bool,
    not_measured: Vec<String>,
}

impl Report {
    /// An empty report.
    pub fn new(options: &Options, tsc_hz: u64) -> Self {
        Report {
            rows: Vec::new(),
            bursts_per_row: options.bursts,
            burst: sluice_dataplane::burst::BURST,
            cpu: options.cpu,
            tsc_hz,
            hugepages: options.hugepages,
            not_measured: vec![
                "device receive and transmit".to_owned(),
                "rows with more flows than --most-flows".to_owned(),
            ],
        }
    }

    /// Add a row.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
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
            "{:<24} {:>10} {:>8} {:>15} {:>8} {:>7} {:>7} {:>6}",
            "scenario", "flows", "ns/pkt", "p10 - p90", "p99.9", "floor", "ratio", "B/conn"
        )?;
        for row in &self.rows {
            writeln!(
                out,
                "{:<24} {:>10} {:>8.1} {:>15} {:>8.1} {:>7.2} {:>7.1} {:>6}",
                row.scenario,
                row.flows,
                row.ns_per_packet,
                format!("{:.1} - {:.1}", row.spread[0], row.spread[1]),
                row.p999,
                row.floor_ns,
                row.ratio_to_floor,
                row.bytes_per_conn.map(|b| format!("{b:.0}")).unwrap_or_default(),
            )?;
        }
        Ok(())
    }
}
