//! The `sluice-control` program: arguments, log, signals.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use sd_notify::NotifyState;
use sluice_api::EXIT_WRONG_FILE;
use sluice_control::args::{Arguments, Command, DbCommand};
use sluice_control::config::Config;
use sluice_control::dataplane_file::{self, DATAPLANE_FILE};
use sluice_control::model::State;
use sluice_control::model::reach::doubts;
use sluice_control::server::{self, Server, StartError};
use sluice_control::store::{self, Mended, StoreError};
use sluice_log::{LAST_LINES, Log, Supervisor};
use tokio::signal::unix::{SignalKind, signal};

/// What went wrong, and the exit status.
type Failure = (String, u8);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = match Log::start(io::stderr()) {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(io::stderr(), "sluice-control: {error}");
            return ExitCode::FAILURE;
        }
    };
    log.report_panics();
    let done = run(&arguments, &log);
    let code = done.map_or_else(
        |(message, code)| {
            log.say(&format!("sluice-control: {message}"));
            ExitCode::from(code)
        },
        |()| ExitCode::SUCCESS,
    );
    log.flush(LAST_LINES);
    code
}

fn run(arguments: &Arguments, log: &Log) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(sluice_log::filter().map_err(|e| wrong_file(&e))?)
        .with_writer(log.clone())
        .with_ansi(io::stderr().is_terminal())
        .init();
    let config = Config::load(&arguments.config).map_err(|e| wrong_file(&e))?;
    match &arguments.command {
        Some(Command::Db { command }) => look_after(&config.database, command),
        None if arguments.check => check(&config, arguments),
        None => serve(&config, &arguments.config),
    }
}

/// `sluice-control db`: done without control.
fn look_after(database: &Path, command: &DbCommand) -> Result<(), Failure> {
    let failed = |error: StoreError| (error.to_string(), 1);
    let shown = database.display();
    let line = match command {
        DbCommand::Check => {
            format!("{shown} is whole: {}", store::check(database).map_err(failed)?)
        }
        DbCommand::Backup { to } => {
            let copy = store::backup(database, to.as_deref()).map_err(failed)?;
            format!("{shown} is copied to {}", copy.display())
        }
        DbCommand::Repair => match store::repair(database).map_err(failed)? {
            Mended::Whole(found) => format!("{shown} is whole, and as it was: {found}"),
            Mended::Rebuilt(found) => format!("{shown} is mended, and nothing is lost: {found}"),
            Mended::Restored { found, aside } => {
                let aside = aside.map(|aside| format!("; what was there is {}", aside.display()));
                format!("{shown} is the last backup now: {found}{}", aside.unwrap_or_default())
            }
        },
    };
    writeln!(io::stdout(), "{line}")
        .map_err(|e| (format!("standard output cannot be written: {e}"), 1))
}

fn wrong_file(error: &impl Display) -> Failure {
    (error.to_string(), EXIT_WRONG_FILE)
}

fn not_started(error: &StartError) -> Failure {
    let code = if matches!(error, StartError::Conflict { .. }) { EXIT_WRONG_FILE } else { 1 };
    (error.to_string(), code)
}

fn check(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let reach = match &arguments.dataplane_file {
        Some(file) => dataplane_file::reach(file).map_err(|e| wrong_file(&e))?,
        None => dataplane_file::reach(DATAPLANE_FILE.as_ref()).unwrap_or_default(),
    };
    let mut out = io::stdout().lock();
    let mut print = |line: String| {
        writeln!(out, "{line}").map_err(|e| (format!("standard output cannot be written: {e}"), 1))
    };
    // The file's verdict first: it holds also where the state cannot be read, as by another user.
    print(format!("OK: {} services, {} pools", config.services.len(), config.pools.len()))?;
    // The file's alone: what the API has made is warned of where it runs, in `/readyz`.
    let state =
        State { version: 0, services: config.services.clone(), pools: config.pools.clone() };
    doubts(&state, &reach).into_iter().try_for_each(|doubt| print(format!("warning: {doubt}")))?;
    let notes = server::check(config).map_err(|e| not_started(&e))?;
    notes.into_iter().try_for_each(print)
}

#[tokio::main]
async fn serve(config: &Config, path: &Path) -> Result<(), Failure> {
    // Before READY: a signal right after it must find its handler.
    let handler = |kind| signal(kind).map_err(|e| (format!("cannot handle signals: {e}"), 1));
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut hangup = handler(SignalKind::hangup())?;
    // Nothing is asked for by these, and a handler that is there does not end the process.
    let _ignored = [SignalKind::user_defined1(), SignalKind::user_defined2()].map(handler);
    // Whether anybody reads standard output is nothing to wait for, nor to end for.
    let out = Log::start(io::stdout()).map_err(|e| (format!("cannot start a thread: {e}"), 1))?;
    let server = server::start(config).await.map_err(|e| not_started(&e))?;
    out.say(&format!("READY api=http://{}/api/v1", server.api));
    let supervisor = Supervisor::start(|error| {
        tracing::warn!(%error, "the supervisor cannot be told our state");
    });
    let supervisor = supervisor.map_err(|e| (format!("cannot start a thread: {e}"), 1))?;
    supervisor.tell(NotifyState::Ready);
    let reloads = async {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: reading {} again", path.display());
            server.reload(Config::load(path)).await;
        }
    };
    // All in this one task: the watchdog is not told of well-being by one that hangs.
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = reloads => {}
        () = feed_watchdog(&server, &supervisor) => {}
    }
    supervisor.tell(NotifyState::Stopping);
    server.stop().await;
    Ok(())
}

/// Tell the supervisor that all is well, if it wants to know, as long as that is so. Never ends.
async fn feed_watchdog(server: &Server, supervisor: &Supervisor) {
    match sd_notify::watchdog_enabled() {
        Some(limit) => server.watch(limit, || supervisor.tell(NotifyState::Watchdog)).await,
        None => std::future::pending().await,
    }
}
