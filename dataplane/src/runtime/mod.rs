//! The process: start-up order, the main thread's loop, and the way out.
//!
//! The main thread never touches a packet of a service. It resolves next hops, moves packets to and
//! from the kernel, and answers control; `compiler` compiles snapshots beside it.

mod announce;
mod compiler;
mod crew;
mod exception;
mod forwarding;
mod kernel_path;
mod links;
mod main_loop;
mod outgoing;
mod ports;
mod probation;
mod pulse;
mod reload;
mod requests;
mod rounds;
mod start;
mod steering;
mod thresholds;
mod usage;
mod vf;
mod warnings;
mod watchdog;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use sluice_log::Supervisor;

use crate::config::Config;
use crate::dpdk::PortFault;
use crate::privileges;
use reload::Reload;
use watchdog::Watchdog;

pub use start::{StartError, own_addresses};

/// Why the data plane has ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It has not started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A port cannot go on. All stop in order, for a supervisor to start it anew.
    #[error("port {port} ({device}): {fault}")]
    Port {
        /// The port's name.
        port: String,
        /// Its device.
        device: String,
        /// What has become of it.
        fault: PortFault,
    },
}

/// Run the data plane, as the file at `path` says, until SIGTERM or SIGINT. At SIGHUP the file is read
/// again, and what may change while it runs does: routes, and what is logged, by `log_by`. SIGUSR1 and
/// SIGUSR2 do nothing.
///
/// # Errors
/// [`RunError`]: what kept it from starting, or the port that was lost.
pub fn run(
    config: Config,
    path: &Path,
    log_by: impl Fn(&str) -> Result<(), String> + 'static,
) -> Result<(), RunError> {
    let stop = Arc::new(AtomicBool::new(false));
    let reload = Arc::new(AtomicBool::new(false));
    let ignored = Arc::new(AtomicBool::new(false));
    for (signal, flag) in [
        (SIGTERM, &stop),
        (SIGINT, &stop),
        (SIGHUP, &reload),
        (SIGUSR1, &ignored),
        (SIGUSR2, &ignored),
    ] {
        signal_hook::flag::register(signal, Arc::clone(flag)).map_err(StartError::Signal)?;
    }
    abort_on_panic();
    let mut main = start::start(config)?;
    let drivers = main.ports.iter().map(|main| main.port().driver());
    privileges::limit(drivers, main.config.exception.enabled).map_err(StartError::Capabilities)?;
    main.rounds.watch().map_err(StartError::Thread)?;
    let mut reload = Reload::new(path, reload, log_by);
    let mut watchdog = Watchdog::from_environment();
    let supervisor = Supervisor::start(|error| {
        tracing::warn!(%error, "the supervisor cannot be told our state");
    });
    let supervisor = supervisor.map_err(StartError::Thread)?;
    println!("READY");
    supervisor.tell(NotifyState::Ready);
    let mut lost = None;
    while !stop.load(Relaxed) && lost.is_none() {
        main.round();
        main.reload(&mut reload);
        if watchdog.is_due(main.now_ms(), main.crew.longest_silence_ms()) {
            supervisor.tell(NotifyState::Watchdog);
        }
        lost = main.lost_port();
    }
    supervisor.tell(NotifyState::Stopping);
    if let Some(error) = &lost {
        // Before the stop, which waits for drivers whose device may not answer any more.
        tracing::error!("{error}; stopping");
    }
    main.stop();
    lost.map_or(Ok(()), Err)
}

/// A worker that panics must not leave the others limping: the process ends, a supervisor starts a
/// new one.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        eprintln!("sluice-dataplane: this is a bug; the process ends so that it can be restarted");
        crate::stdio::flush();
        std::process::abort();
    }));
}
