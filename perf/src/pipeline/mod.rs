//! `sluice-perf pipeline`: what a packet costs in the worker's stages.
//!
//! Each burst is written into mbufs just before it is timed, by the cycle counter and on its own:
//! packets are as warm as a NIC with direct cache access and a driver leave them, and what is
//! measured is what the stages add. The floor says what is left of the bench itself. A burst that
//! took over a millisecond is in no figure: the kernel ran another program in it, which it does not
//! do on a worker's own CPU. The report counts them.

mod bench;
mod churn;
mod expiry_sweep;
mod goal;
mod measure;
mod memory_floor;
mod report;
mod scenario;
mod services;
mod snapshot_pause;

use std::io;
use std::path::PathBuf;

use clap::Args;
use sluice_dataplane::dpdk::{Clock, Eal, EalConfig, EalError, MempoolError};

use bench::Bench;
use report::Report;
use scenario::Scenario;

use crate::origin::{Record, RecordError};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Only scenarios whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Bursts measured per row (100 to 1,000,000).
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    bursts: u32,
    /// Rounds that a row's bursts are shared among, after a warm-up of one more (1 to 100).
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Snapshots adopted in snapshot-pause (1 to 10,000).
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    adoptions: u32,
    /// Most flows of any row: rows with more are left out, and the report says so.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    most_flows: u32,
    /// CPU to run on.
    #[arg(long, default_value_t = 1)]
    cpu: u16,
    /// Who has verified the packets' checksums: a NIC with checksum offload, as the virtual
    /// functions that Sluice is for have, or nobody, so that the worker does.
    #[arg(long, value_enum, default_value_t = Checksums::Nic)]
    checksums: Checksums,
    /// Keep packets in hugepages (they must be reserved); otherwise in ordinary pages. Tables lie in
    /// transparent huge pages in either case.
    #[arg(long)]
    hugepages: bool,
    /// Also write the JSON report to pipeline.json in this directory.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// The CPU for the thread that compiles snapshots.
    #[arg(skip)]
    other_cpu: Option<usize>,
}

/// Who verifies checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksums {
    /// The NIC.
    Nic,
    /// The worker.
    Software,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum PerfError {
    #[error(transparent)]
    Eal(#[from] EalError),
    #[error(transparent)]
    Mempool(#[from] MempoolError),
    #[error("--cpu is {0}: expected a CPU that is online and allowed")]
    Cpu(u16),
    #[error("--only is {name:?}: expected part of one of {known}")]
    NoScenario { name: String, known: String },
    #[error("cannot write the report: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Measure and report.
pub fn run(mut options: Options) -> Result<(), PerfError> {
    let record = options.record.as_deref();
    let record = record.map(|dir| Record::open(dir, "pipeline.json")).transpose()?;
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    if !core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(options.cpu) }) {
        return Err(PerfError::Cpu(options.cpu));
    }
    options.other_cpu = cpus.iter().map(|c| c.id).find(|id| *id != usize::from(options.cpu));
    let (mut rows, mut left_out) = scenario::rows(&options)?;
    if options.other_cpu.is_none() {
        // Compiling on the worker's own CPU would measure the scheduler.
        rows.retain(|row| row.scenario != Scenario::SnapshotPause);
        left_out.push("snapshot-pause: needs a second CPU to compile on".to_owned());
    }
    let eal = Eal::init(&EalConfig {
        main_cpu: options.cpu,
        worker_cpus: vec![],
        hugepages: options.hugepages,
        memory_mb: 64,
        file_prefix: format!("sluice-perf-{}", std::process::id()),
        devices: vec![],
        extra_args: vec![],
    })?;
    let clock = Clock::new(&eal);
    let nic_checksums = options.checksums == Checksums::Nic;
    let sizes = (options.bursts, options.rounds);
    let mut bench = Bench::new(&eal, clock, sizes, nic_checksums)?;
    let mut report = Report::new(&options, clock.hz(), left_out);
    for row in rows {
        eprintln!("{} with {} flows …", row.scenario.name(), row.flows);
        let measured = scenario::measure(&mut bench, &row, &options);
        report.add(measured);
    }
    report.finish();
    report.print(options.json)?;
    if let Some(record) = record {
        record.keep(&report)?;
    }
    Ok(())
}
