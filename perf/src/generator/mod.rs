//! `sluice-perf gen`: a packet generator on one or two DPDK ports.
//!
//! A scenario ([`scenario`]) is checked and becomes a [`plan`]; a [`session`] opens the ports
//! ([`link`]), finds the next hop, opens connections ([`opener`]) and sends the load ([`sender`])
//! while a [`handler`] takes what comes in. What that showed is an [`outcome`], and a [`report`].

mod connections;
mod counts;
mod error;
mod flows;
mod handler;
mod html;
mod link;
mod opener;
mod order;
pub mod outcome;
mod pacer;
mod packet;
pub mod plan;
mod probe;
mod report;
pub mod scenario;
mod search;
mod sender;
pub mod session;
mod sizes;
mod svg;
mod template;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Args;
use sluice_dataplane::dpdk::{Clock, Eal, EalConfig};

pub use error::GenError;
use outcome::{Interval, Outcome};
use plan::{Plan, SearchPlan};
use report::{Outputs, Report};
use scenario::Scenario;
use search::{Found, Measured, SearchConfig, search};
use session::Session;

use crate::leftovers::Leftovers;

/// What to send, and where the results go.
#[derive(Args)]
#[command(args_override_self = true)]
pub struct Options {
    /// Scenario in TOML; flags win over it
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    flags: Scenario,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Write the result as JSON to a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write an HTML report with plots to a file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Generate and report.
///
/// # Errors
/// [`GenError`], in words that an operator can act on.
pub fn run(options: &Options) -> Result<(), GenError> {
    let scenario = match &options.scenario {
        Some(path) => options.flags.clone().over(&Scenario::read(path)?),
        None => options.flags.clone(),
    };
    let plan = Plan::new(&scenario)?;
    let outputs = Outputs::open(options)?;
    let stop = stop_on_signals()?;
    let _leftovers = plan.owns_file_prefix.then(|| Leftovers::of(plan.file_prefix.as_str()));
    let eal = Eal::init(&eal_config(&plan))?;
    let clock = Clock::new(&eal);
    let mut session = Session::open(&eal, clock, "gen", &plan, Arc::clone(&stop))?;
    session.connect()?;
    let mut report = Report::new(scenario, &session);
    report.opened = session.open_connections()?.map(Into::into);
    if stop.load(Relaxed) {
        return Err(GenError::Interrupted);
    }
    let rate = session.rate_pps()?;
    match &plan.search {
        None => report.outcome = Some(session.run(rate, plan.duration, &mut progress)),
        Some(wanted) => {
            let (found, best) = search_rate(&mut session, &plan, wanted, rate);
            (report.search, report.outcome) = (Some(found), best);
        }
    }
    report.interrupted = stop.load(Relaxed);
    outputs.write(&report)
}

/// A flag that SIGINT and SIGTERM set; the second of them ends the process at once.
///
/// # Errors
/// The signals cannot be caught.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, GenError> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(GenError::Signal)?;
    }
    Ok(stop)
}

fn eal_config(plan: &Plan) -> EalConfig {
    let server = plan.server.as_ref().and_then(|server| server.device.clone());
    let mut devices: Vec<String> = [plan.device.clone()].into_iter().chain(server).collect();
    // No files by which other processes could join: nothing to leave behind.
    let mut extra_args = vec!["--no-shconf".to_owned()];
    if plan.hugepages && devices.iter().any(|device| device.starts_with("net_memif")) {
        // memif without copying hands whole files of memory to its peer.
        extra_args.push("--single-file-segments".to_owned());
    }
    // Virtual devices are made when their port is opened, which says why one fails.
    devices.retain(|device| !device.starts_with("net_"));
    extra_args.extend(plan.eal_args.iter().cloned());
    EalConfig {
        main_cpu: plan.cpu,
        worker_cpus: vec![],
        hugepages: plan.hugepages,
        memory_mb: plan.memory_mb,
        file_prefix: plan.file_prefix.clone(),
        devices,
        extra_args,
    }
}

/// A line per second on standard error.
fn progress(interval: &Interval) {
    let latency = match (interval.p50_ns, interval.p99_ns) {
        (Some(p50), Some(p99)) => {
            format!(", latency p50 {:.1} µs, p99 {:.1} µs", p50 as f64 / 1e3, p99 as f64 / 1e3)
        }
        _ => String::new(),
    };
    eprintln!(
        "{:6.1} s: sent {:.3} Mpps, received {:.3} Mpps{latency}",
        interval.at_seconds,
        interval.sent_pps / 1e6,
        interval.received_pps / 1e6
    );
}

/// Search for the highest rate without loss; the outcome is that of the best trial.
fn search_rate(
    session: &mut Session,
    plan: &Plan,
    wanted: &SearchPlan,
    rate: Option<f64>,
) -> (Found, Option<Outcome>) {
    let most_pps = rate.or_else(|| session.line_pps()).unwrap_or_else(|| {
        eprintln!("the link's speed is unknown: looking for the highest rate that can be sent");
        session.run(None, plan.duration, &mut |_| {}).sent_pps
    });
    let config = SearchConfig {
        most_pps,
        resolution_pps: most_pps * wanted.resolution,
        loss_tolerance: wanted.loss_tolerance,
        most_trials: wanted.most_trials,
    };
    let mut best: Option<Outcome> = None;
    let found = search(&config, |rate| {
        let outcome = session.run(Some(rate), plan.duration, &mut |_| {});
        if outcome.interrupted {
            return None;
        }
        eprintln!(
            "trial at {:.4} Mpps: sent {:.4} Mpps, loss {:.5} %",
            rate / 1e6,
            outcome.sent_pps / 1e6,
            outcome.loss * 100.0
        );
        let measured = Measured {
            offered_pps: outcome.sent_pps,
            loss: outcome.loss,
            latency_ns: outcome.latency.map(|l| (l.p50_ns, l.p99_ns)),
        };
        let passed = outcome.loss <= config.loss_tolerance;
        if passed && best.as_ref().is_none_or(|b| b.sent_pps < outcome.sent_pps) {
            best = Some(outcome);
        }
        Some(measured)
    });
    (found, best)
}
