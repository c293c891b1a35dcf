//! `sluice-perf count`: instructions instead of time.
//!
//! Each scenario runs in a process of its own under valgrind's callgrind, which counts the
//! instructions of nothing but the scenario's operations, and simulates a small cache to count the
//! lines of memory that they touch. Neither depends on the machine or on what else it does: only on
//! the code and the compiler. So a guard can be narrow: `--check` holds the figures against those
//! recorded, and `--record` records anew.
//!
//! Time is not counted here. A packet path with as few instructions may be slower (more misses,
//! longer chains of dependent loads); `sluice-perf pipeline` takes the time.

mod buffer;
mod callgrind;
mod guard;
mod inside;
mod packets;
mod runner;
mod workers;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::origin::{Origin, Record, RecordError};

/// The file that `--record` writes.
pub const FILE: &str = "instructions.json";

/// What to count.
#[derive(Args)]
pub struct Options {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Only scenarios whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Also print what each stage of the pipeline takes.
    #[arg(long)]
    stages: bool,
    /// Compare with the figures in this file: exit code 1 when a scenario got worse by more than
    /// the tolerance, 77 when the file's figures are another compiler's.
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    check: Option<PathBuf>,
    /// How much worse a figure may get under --check, in % (0 to 50).
    #[arg(long, value_name = "PERCENT", default_value_t = 3, requires = "check", value_parser = clap::value_parser!(u32).range(0..=50))]
    tolerance: u32,
    /// Write the figures to instructions.json in this directory, to be compared with from now on.
    #[arg(long, value_name = "DIR", conflicts_with = "only")]
    record: Option<PathBuf>,
    /// Run one scenario, as callgrind is to see it.
    #[arg(long, hide = true, value_name = "NAME")]
    inside: Option<String>,
}

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum CountError {
    #[error("--only is {name:?}: expected part of one of {known}")]
    NoScenario { name: String, known: String },
    #[error(
        "this is a {0:?} build, whose instructions say nothing: expected `cargo run --release`"
    )]
    NotRelease(&'static str),
    #[error(
        "cannot run valgrind: {0}: expected it to be installed (on Debian: apt-get install valgrind)"
    )]
    Valgrind(io::Error),
    #[error("{scenario} under valgrind {status}; it said: {said}")]
    Failed { scenario: String, status: std::process::ExitStatus, said: String },
    #[error("{scenario}: callgrind's output has no {what}")]
    Output { scenario: String, what: &'static str },
    #[error("cannot read {path}: {error}: expected a file that `sluice-perf count --record` wrote")]
    Baseline { path: PathBuf, error: io::Error },
    #[error("cannot write the report: {0}")]
    Report(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What one scenario takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    /// What is counted: `packet`, `conn`, `lookup` …
    pub per: String,
    /// Instructions of this program, without those of the C library's.
    pub instructions: f64,
    /// Instructions of shared libraries: the C library's copying, where it has any.
    pub in_libraries: f64,
    /// Lines of memory: accesses that miss in a simulated first level of 32 KiB.
    pub lines: f64,
    /// Lines that miss in the simulated last level of 64 KiB, too: far smaller than the tables, so
    /// that they stand for a big table in a real cache.
    pub far_lines: f64,
    /// Instructions by stage of the pipeline, with what it calls.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stages: BTreeMap<String, f64>,
}

/// All counts, and where they come from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// What to do to record anew.
    pub record_with: String,
    /// The compiler.
    pub rustc: String,
    /// Its flags.
    pub rustflags: String,
    /// By name.
    pub scenarios: BTreeMap<String, Count>,
    /// Where they come from; not compared.
    #[serde(default, skip_deserializing)]
    pub origin: Option<Origin>,
}

/// Count, report, compare, record.
pub fn run(options: &Options) -> Result<ExitCode, CountError> {
    if let Some(name) = &options.inside {
        let (operations, unit) = inside::run(name)?;
        println!("{operations} {unit}");
        return Ok(ExitCode::SUCCESS);
    }
    let profile = env!("SLUICE_PROFILE");
    if profile != "release" {
        return Err(CountError::NotRelease(profile));
    }
    let before = options.check.as_deref().map(guard::read).transpose()?;
    if let Some(reason) = before.as_ref().and_then(guard::cannot_compare) {
        eprintln!("SKIPPED: {reason}");
        return Ok(ExitCode::from(guard::SKIPPED));
    }
    let record = options.record.as_deref().map(|dir| Record::open(dir, FILE)).transpose()?;
    let report = count(options)?;
    print(&report, options)?;
    if let Some(record) = record {
        record.keep(&report)?;
    }
    match before {
        Some(before) => Ok(guard::check(&before, &report, options.tolerance)),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn count(options: &Options) -> Result<Report, CountError> {
    let name = options.only.clone().unwrap_or_default();
    let mut scenarios = BTreeMap::new();
    let chosen: Vec<&str> = inside::names().filter(|n| n.contains(&name)).collect();
    if chosen.is_empty() {
        let known = inside::names().collect::<Vec<_>>().join(", ");
        return Err(CountError::NoScenario { name, known });
    }
    // One process per CPU at a time: they do not disturb each other's counts.
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(String, Count)>, CountError> {
        let mine = std::iter::from_fn(|| chosen.get(next.fetch_add(1, Relaxed)));
        mine.map(|name| Ok(((*name).to_owned(), callgrind::count(name)?))).collect()
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            scenarios.extend(worker.join().expect("counting does not panic")?);
        }
        Ok::<(), CountError>(())
    })?;
    Ok(Report {
        record_with: "cargo run --release -p sluice-perf -- count --record perf/results".to_owned(),
        rustc: env!("SLUICE_RUSTC").to_owned(),
        rustflags: env!("SLUICE_RUSTFLAGS").to_owned(),
        scenarios,
        origin: Some(Origin::of_this_run()),
    })
}

fn print(report: &Report, options: &Options) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, report)?;
        return writeln!(out);
    }
    writeln!(
        out,
        "{:<26} {:>14} {:>12} {:>8} {:>9}  per",
        "scenario", "instructions", "in libraries", "lines", "far lines"
    )?;
    for (name, c) in &report.scenarios {
        writeln!(
            out,
            "{name:<26} {:>14.1} {:>12.1} {:>8.2} {:>9.2}  {}",
            c.instructions, c.in_libraries, c.lines, c.far_lines, c.per
        )?;
        for (stage, instructions) in c.stages.iter().filter(|_| options.stages) {
            writeln!(out, "    {stage:<22} {instructions:>14.1}")?;
        }
    }
    Ok(())
}
