//! The `sluice-control` program: arguments, log, signals.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use sd_notify::NotifyState;
use sluice_api::EXIT_WRONG_FILE;
use sluice_control::args::Arguments;
use sluice_control::config::Config;
use sluice_control::server::{self, StartError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error.to_string(), EXIT_WRONG_FILE),
    };
    let done = if arguments.check { check(&config) } else { serve(&config) };
    done.map_or_else(|(message, code)| fail(&message, code), |()| ExitCode::SUCCESS)
}

/// What went wrong, and the exit status.
type Failure = (String, u8);

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("sluice-control: {message}");
    ExitCode::from(code)
}

fn not_started(error: &StartError) -> Failure {
    let code = if matches!(error, StartError::Conflict { .. }) { EXIT_WRONG_FILE } else { 1 };
    (error.to_string(), code)
}

fn check(config: &Config) -> Result<(), Failure> {
    let notes = server::check(config).map_err(|e| not_started(&e))?;
    println!("OK: {} services, {} pools", config.services.len(), config.pools.len());
    for note in notes {
        println!("{note}");
    }
    Ok(())
}

#[tokio::main]
async fn serve(config: &Config) -> Result<(), Failure> {
    // Before READY: a signal right after it must find its handler.
    let handler = |kind| signal(kind).map_err(|e| (format!("cannot handle signals: {e}"), 1));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let server = server::start(config).await.map_err(|e| not_started(&e))?;
    println!("READY api=http://{}/api/v1", server.api);
    tell_supervisor(NotifyState::Ready);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    tell_supervisor(NotifyState::Stopping);
    server.stop().await;
    Ok(())
}

/// Tell systemd, if it started us and wants to know.
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor cannot be told our state");
    }
}
