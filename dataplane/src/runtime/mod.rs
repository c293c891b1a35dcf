//! The process: start-up order, the main thread's loop, and the way out.
//!
//! The main thread never touches a packet of a service. It resolves next hops, moves packets to and
//! from the kernel, answers control, and compiles snapshots.

mod exception;
mod main_loop;
mod requests;
mod start;
mod steering;
mod thresholds;
mod warnings;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sd_notify::NotifyState;

use crate::config::Config;
use crate::privileges;

pub use start::{StartError, port_addresses};

/// Run the data plane until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting. Once it forwards, it ends only by a signal or by a bug.
pub fn run(config: Config) -> Result<(), StartError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(StartError::Signal)?;
    }
    abort_on_panic();
    let mut main = start::start(config)?;
    let drivers = main.ports.iter().map(|port| port.port.driver());
    privileges::limit(drivers, main.config.exception.enabled)?;
    println!("READY");
    tell_supervisor(NotifyState::Ready);
    while !stop.load(Relaxed) {
        main.round();
    }
    tell_supervisor(NotifyState::Stopping);
    main.stop();
    Ok(())
}

/// Tell systemd, if it started us and wants to know.
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor cannot be told our state");
    }
}

/// A worker that panics must not leave the others limping: the process ends, a supervisor starts a
/// new one.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        eprintln!("sluice-dataplane: this is a bug; the process ends so that it can be restarted");
        std::process::abort();
    }));
}
