//! The result: figures for people, JSON for programs, a page with plots.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sluice_dataplane::dpdk::Eal;

use super::html;
use super::outcome::{ConnectionOutcome, Latency, Outcome};
use super::scenario::Scenario;
use super::search::Found;
use super::session::Session;
use super::{GenError, Options};
use crate::output::OutputFile;

/// Connections that were opened before the run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Opened {
    /// How many.
    pub connections: u32,
    /// How long that took, in s.
    pub seconds: f64,
}

impl From<(u32, Duration)> for Opened {
    fn from((connections, duration): (u32, Duration)) -> Self {
        Opened { connections, seconds: duration.as_secs_f64() }
    }
}

/// All of a result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The program and its version.
    pub program: String,
    /// DPDK's version.
    pub dpdk: String,
    /// Device and driver of each port.
    pub devices: Vec<String>,
    /// MAC address that packets were sent to.
    pub next_hop: String,
    /// Packets per second that fill the line; none when its speed is unknown.
    pub line_pps: Option<f64>,
    /// What was asked for.
    pub scenario: Scenario,
    /// Connections that were opened before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
    /// The run, or the best trial of a search.
    pub outcome: Option<Outcome>,
    /// The search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Found>,
    /// Whether it was interrupted: then the results are those so far.
    pub interrupted: bool,
}

/// Where a report goes, opened before anything is measured.
pub struct Outputs {
    json: bool,
    out: Option<OutputFile>,
    page: Option<OutputFile>,
}

impl Outputs {
    /// Open all that the options ask for.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn open(options: &Options) -> Result<Outputs, GenError> {
        let open = |path: &Option<PathBuf>| {
            path.as_deref()
                .map(|path| OutputFile::open(path).map_err(|source| cannot_write(path, source)))
                .transpose()
        };
        let (out, page) = (open(&options.out)?, open(&options.html)?);
        Ok(Outputs { json: options.json, out, page })
    }

    /// Write a report wherever it is wanted; to standard output for people unless as JSON.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(self, report: &Report) -> Result<(), GenError> {
        let text = serde_json::to_string_pretty(report).map_err(|error| GenError::Output {
            what: "the result".to_owned(),
            source: error.into(),
        })?;
        let to_file = |output: OutputFile, text: &str| {
            let path = output.path.clone();
            output.write(text.as_bytes()).map_err(|source| cannot_write(&path, source))
        };
        if let Some(output) = self.out {
            to_file(output, &format!("{text}\n"))?;
        }
        if let Some(output) = self.page {
            to_file(output, &html::page(report))?;
        }
        let lines = if self.json { text } else { report.for_people().join("\n") };
        writeln!(io::stdout().lock(), "{lines}")
            .map_err(|source| GenError::Output { what: "standard output".to_owned(), source })
    }
}

fn cannot_write(path: &Path, source: io::Error) -> GenError {
    GenError::Output { what: path.display().to_string(), source }
}

impl Report {
    /// An empty report of a session.
    pub fn new(scenario: Scenario, session: &Session) -> Self {
        Report {
            program: format!("sluice-perf gen {}", env!("CARGO_PKG_VERSION")),
            dpdk: Eal::version(),
            devices: session.devices(),
            next_hop: session.next_hop().to_string(),
            line_pps: session.line_pps(),
            scenario,
            opened: None,
            outcome: None,
            search: None,
            interrupted: false,
        }
    }

    /// The figures, line by line.
    pub fn for_people(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(opened) = &self.opened {
            lines.push(format!("opened       {} in {:.2} s", opened.connections, opened.seconds));
        }
        if let Some(found) = &self.search {
            lines.push(format!(
                "throughput   {:.4} Mpps without intolerable loss, {} trials{}",
                found.throughput_pps / 1e6,
                found.trials.len(),
                if found.complete { "" } else { " (resolution not reached)" }
            ));
        }
        let Some(outcome) = &self.outcome else {
            lines.push("no run was without intolerable loss".to_owned());
            return lines;
        };
        let Outcome { counts, probes, .. } = outcome;
        lines.push(format!("sent         {:.4} Mpps, {}", outcome.sent_pps / 1e6, counts.sent));
        lines.push(format!(
            "received     {:.4} Mpps, {}",
            outcome.received_pps / 1e6,
            counts.received
        ));
        lines.push(format!("loss         {:.6} %", outcome.loss * 100.0));
        if let Some(l) = &outcome.latency {
            lines.push(of_latency(l));
        }
        lines.push(format!(
            "probes       {} sent, {} lost, {} duplicates, {} reordered ({} within a flow)",
            probes.sent,
            probes.lost(),
            probes.duplicates,
            probes.reordered,
            probes.reordered_in_flow
        ));
        lines.push(format!("checksums    {} wrong", counts.checksum_errors));
        lines.push(format!(
            "device       had no room for {:.1} % of bursts",
            outcome.refused * 100.0
        ));
        if outcome.late > 0 {
            lines.push(format!(
                "not offered  {} packets of the rate: the device was full, or the generator late",
                outcome.late
            ));
        }
        if let Some(c) = &outcome.connections {
            lines.push(of_connections(c));
        }
        if self.interrupted {
            lines.push("interrupted: these are the results so far".to_owned());
        }
        lines
    }
}

fn of_latency(l: &Latency) -> String {
    let us = |ns: u64| ns as f64 / 1e3;
    format!(
        "latency      p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2} µs",
        us(l.p50_ns),
        us(l.p90_ns),
        us(l.p99_ns),
        us(l.p999_ns),
        us(l.max_ns)
    )
}

fn of_connections(c: &ConnectionOutcome) -> String {
    let counts = &c.counts;
    format!(
        "connections  {} started, {} completed ({} per s), {} timed out, {} reset, {} unfinished",
        counts.started,
        counts.completed,
        c.completed_per_second,
        counts.timed_out,
        counts.reset,
        c.unfinished
    )
}
