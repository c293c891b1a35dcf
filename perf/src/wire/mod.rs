//! `sluice-perf wire`: the whole program, end to end over shared memory (memif), beside testpmd.
//!
//! The generator has one core, the device under test another. testpmd only swaps MAC addresses;
//! Sluice does full-NAT of open TCP connections. Both run for all of the time, and the one that is
//! not measured is stopped (SIGSTOP): so rounds alternate within a second, on a machine whose
//! neighbours come and go, and ratios are those of rounds that were neighbours in time.

mod error;
mod hugepages;
mod options;
mod process;
mod report;
mod site;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sluice_dataplane::dpdk::{Clock, Eal, EalConfig};

pub use error::WireError;
use hugepages::Hugepages;
pub use options::Options;
use process::Process;
use report::{Delays, Report, Rounds, Row, median, paired_ratio, rounded};
use site::{Control, Paths};

use crate::generator::outcome::Outcome;
use crate::generator::session::Session;
use crate::generator::stop_on_signals;

/// Names of the devices under test.
const TESTPMD: &str = "testpmd";
const SLUICE: &str = "sluice-dataplane";
/// What Sluice should do of testpmd's packets, by number of flows.
const GOALS: [(u32, f64); 2] = [(10_000, 0.75), (1_000_000, 0.55)];
/// What Sluice's 99th percentile of latency should be at most, by testpmd's.
const LATENCY_GOAL: f64 = 1.5;
/// Memory of the generator in MiB: buffers of two ports.
const GENERATOR_MB: u32 = 192;
/// Hugepages of all three programs in MiB, and what their allocators round up.
const HUGEPAGES_MB: u64 = GENERATOR_MB as u64 + 2 * 128 + 64;
/// Before each round, so that caches are those of the round.
const WARM_UP: Duration = Duration::from_millis(300);

/// Removes a directory with all in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A device under test: its process, and the generator's port to it.
struct Device {
    process: Process,
    session: Session,
}

/// The comparison under way. Fields are dropped in order: ports first, then programs.
struct Bench<'a> {
    options: &'a Options,
    paths: Paths,
    testpmd: Device,
    sluice: Device,
    control: Control,
    stop: Arc<AtomicBool>,
}

/// Compare and report.
///
/// # Errors
/// [`WireError`], in words that an operator can act on.
pub fn run(options: &Options) -> Result<(), WireError> {
    options.check()?;
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    options.check_cpus(&cpus.iter().map(|cpu| cpu.id).collect::<Vec<_>>())?;
    let (dataplane, testpmd) = (options.dataplane()?, options.testpmd()?);
    let stop = stop_on_signals().map_err(WireError::generator("signals"))?;
    let prefix = format!("sluice-wire-{}-", std::process::id());
    let _hugepages = Hugepages::reserve(HUGEPAGES_MB, &prefix)?;
    let directory = std::env::temp_dir().join(prefix.trim_end_matches('-'));
    std::fs::create_dir_all(&directory)
        .map_err(WireError::io(format!("making {}", directory.display())))?;
    let _scratch = Scratch(directory.clone());
    let paths = Paths { directory };
    let report = measure(options, paths, &prefix, (&dataplane, &testpmd), stop)?;
    report.print(options.json).map_err(WireError::io("standard output"))
}

fn measure(
    options: &Options,
    paths: Paths,
    prefix: &str,
    (dataplane, testpmd): (&Path, &Path),
    stop: Arc<AtomicBool>,
) -> Result<Report, WireError> {
    let eal = Eal::init(&EalConfig {
        main_cpu: options.generator_cpu,
        worker_cpus: vec![],
        hugepages: true,
        memory_mb: GENERATOR_MB,
        file_prefix: format!("{prefix}generator"),
        devices: vec![],
        extra_args: ["--no-shconf", "--single-file-segments"].map(str::to_owned).to_vec(),
    })?;
    let clock = Clock::new(&eal);
    let flows = options.flows[0];
    // DPDK's names are short.
    let open = |with: &'static str, name: &str, plan| {
        Session::open(&eal, clock, name, &plan, Arc::clone(&stop))
            .map_err(WireError::generator(with))
    };
    // Ports of ours first: they are what the others connect to.
    let mut to_testpmd = open(TESTPMD, "testpmd", site::testpmd_plan(options, &paths, flows)?)?;
    let mut to_sluice = open(SLUICE, "sluice", site::sluice_plan(options, &paths, flows)?)?;
    let cpus = [options.generator_cpu, options.device_cpu];
    let arguments = site::testpmd_arguments(options, &paths, prefix);
    let mut process = Process::spawn(TESTPMD, cpus, testpmd, &arguments, &paths.directory)?;
    process.wait_for("macswap packet forwarding", &stop)?;
    to_testpmd.connect().map_err(WireError::generator(TESTPMD))?;
    process.pause(true)?;
    let testpmd = Device { process, session: to_testpmd };

    let config = paths.directory.join("dataplane.toml");
    std::fs::write(&config, site::dataplane_toml(options, &paths, prefix))
        .map_err(WireError::io(config.display().to_string()))?;
    let arguments = ["--config".to_owned(), config.display().to_string()];
    let mut process = Process::spawn(SLUICE, cpus, dataplane, &arguments, &paths.directory)?;
    process.wait_for("READY", &stop)?;
    let mut control = Control::connect(&paths)?;
    control.apply()?;
    to_sluice.connect().map_err(WireError::generator(SLUICE))?;
    let sluice = Device { process, session: to_sluice };
    Bench { options, paths, testpmd, sluice, control, stop }.compare()
}

impl Bench<'_> {
    fn compare(mut self) -> Result<Report, WireError> {
        let mut rows = Vec::new();
        for flows in self.options.flows.clone() {
            match self.row(flows) {
                Ok(Some(row)) => {
                    rows.push(row);
                    if self.stop.load(Relaxed) {
                        break;
                    }
                }
                Ok(None) | Err(WireError::Interrupted) => break,
                Err(error) => return Err(error),
            }
        }
        if rows.is_empty() {
            return Err(WireError::Interrupted);
        }
        self.sluice.process.pause(false)?;
        let drops = self.control.stats()?.drops;
        Ok(Report {
            program: format!("sluice-perf wire {}", env!("CARGO_PKG_VERSION")),
            dpdk: Eal::version(),
            frame_bytes: 60,
            cpus: [self.options.generator_cpu, self.options.device_cpu],
            seconds: self.options.seconds,
            rounds: self.options.rounds,
            interrupted: self.stop.load(Relaxed),
            rows,
            sluice_drops: drops.into_iter().collect::<BTreeMap<_, _>>(),
            not_done: not_done(),
        })
    }

    /// Measure with so many flows; none when interrupted.
    fn row(&mut self, flows: u32) -> Result<Option<Row>, WireError> {
        let plan = site::testpmd_plan(self.options, &self.paths, flows)?;
        self.testpmd.session.replan(&plan);
        let plan = site::sluice_plan(self.options, &self.paths, flows)?;
        self.sluice.session.replan(&plan);
        self.let_run(false)?;
        eprintln!("{flows} flows: opening connections through Sluice");
        let opened =
            self.sluice.session.open_connections().map_err(WireError::generator(SLUICE))?;
        let opened_per_second =
            opened.map_or(0.0, |(count, time)| f64::from(count) / time.as_secs_f64());
        eprintln!("{flows} flows: open, {opened_per_second:.0} per s");
        let full = self.rounds(None)?;
        let (testpmd, sluice) = (Rounds::of(&full.0), Rounds::of(&full.1));
        let latency_mpps = sluice.mpps / 2.0;
        let half = match latency_mpps {
            // Interrupted before there was a rate to take the half of.
            0.0 => Default::default(),
            mpps => self.rounds(Some(mpps * 1e6))?,
        };
        if full.0.is_empty() || full.1.is_empty() {
            return Ok(None);
        }
        let (testpmd_latency, sluice_latency) = (Delays::of(&half.0), Delays::of(&half.1));
        let ratio = paired_ratio(&sluice.all_mpps, &testpmd.all_mpps);
        let goal = GOALS.iter().find(|(of, _)| *of == flows).map(|(_, goal)| *goal);
        let p99s = |d: &Delays| d.all_p99_ns.iter().map(|ns| *ns as f64).collect::<Vec<_>>();
        let latency_ratio = paired_ratio(&p99s(&sluice_latency), &p99s(&testpmd_latency));
        Ok(Some(Row {
            flows,
            ratio,
            goal,
            met: goal.map(|goal| ratio >= goal),
            opened_per_second: opened_per_second.round(),
            latency_mpps: rounded(latency_mpps),
            latency_ratio,
            latency_goal: LATENCY_GOAL,
            latency_met: (latency_ratio > 0.0).then_some(latency_ratio <= LATENCY_GOAL),
            testpmd,
            sluice,
            testpmd_latency,
            sluice_latency,
        }))
    }

    /// Give the CPU to testpmd or to Sluice, and take it from the other.
    fn let_run(&mut self, testpmd: bool) -> Result<(), WireError> {
        let (on, off) = if testpmd {
            (&mut self.testpmd, &mut self.sluice)
        } else {
            (&mut self.sluice, &mut self.testpmd)
        };
        off.process.pause(true)?;
        on.process.pause(false)
    }

    /// Rounds of testpmd and of Sluice in turn; each begins every other time. Those so far, when
    /// interrupted.
    fn rounds(&mut self, rate: Option<f64>) -> Result<(Vec<Outcome>, Vec<Outcome>), WireError> {
        let (mut testpmd, mut sluice) = (Vec::new(), Vec::new());
        for round in 0..self.options.rounds {
            for turn in 0..2 {
                let is_testpmd = (round + turn) % 2 == 0;
                self.let_run(is_testpmd)?;
                let (device, name) = if is_testpmd {
                    (&mut self.testpmd, TESTPMD)
                } else {
                    (&mut self.sluice, SLUICE)
                };
                device.session.drain(Duration::from_millis(20));
                device.session.run(rate, WARM_UP, &mut |_| {});
                let duration = Duration::from_secs_f64(self.options.seconds);
                let outcome = device.session.run(rate, duration, &mut |_| {});
                device.process.check()?;
                if outcome.interrupted {
                    return Ok((testpmd, sluice));
                }
                eprintln!("{}", progress(round, name, &outcome));
                if is_testpmd { testpmd.push(outcome) } else { sluice.push(outcome) }
            }
        }
        Ok((testpmd, sluice))
    }
}

fn progress(round: u32, name: &str, outcome: &Outcome) -> String {
    let latency = outcome.latency.map_or_else(String::new, |l| {
        let (p50, p99) = (l.p50_ns as f64 / 1e3, l.p99_ns as f64 / 1e3);
        format!(", latency p50 {p50:.1} µs, p99 {p99:.1} µs")
    });
    let full = match outcome.asked_pps {
        None => format!(", no room for {:.0} % of bursts", outcome.refused * 100.0),
        Some(_) => format!(", {} not offered", outcome.late),
    };
    format!(
        "round {}: {name:<16} {:.3} Mpps back of {:.3} Mpps sent{latency}{full}",
        round + 1,
        outcome.received_pps / 1e6,
        outcome.sent_pps / 1e6,
    )
}

impl Rounds {
    fn of(outcomes: &[Outcome]) -> Self {
        let values = |value: fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<_>>();
        let all = values(|o| o.received_pps / 1e6);
        Rounds {
            mpps: rounded(median(&all)),
            all_mpps: all.iter().copied().map(rounded).collect(),
            loss: median(&values(|o| o.loss)),
            refused: rounded(median(&values(|o| o.refused))),
        }
    }
}

impl Delays {
    fn of(outcomes: &[Outcome]) -> Self {
        let latencies: Vec<_> = outcomes.iter().filter_map(|o| o.latency).collect();
        let all_p99_ns: Vec<u64> = latencies.iter().map(|l| l.p99_ns).collect();
        let of = |values: Vec<f64>| median(&values) as u64;
        Delays {
            p50_ns: of(latencies.iter().map(|l| l.p50_ns as f64).collect()),
            p99_ns: of(all_p99_ns.iter().map(|ns| *ns as f64).collect()),
            all_p99_ns,
            loss: median(&outcomes.iter().map(|o| o.loss).collect::<Vec<_>>()),
        }
    }
}

fn not_done() -> Vec<String> {
    [
        "a real NIC: memif copies packets where a NIC uses DMA, and its cost is in both figures",
        "packets from servers to clients, beyond the handshakes: all packets counted are from clients",
        "more than one worker, other frame sizes, UDP, DR",
        "the main thread's own CPU: it shares the generator's",
    ]
    .map(str::to_owned)
    .to_vec()
}
