//! `sluice-dataplane`: reads its file, starts, forwards.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sluice_dataplane::args::Args;
use sluice_dataplane::log::Log;
use sluice_dataplane::{config::Config, runtime};

/// How long the end waits for the last lines of the log to be taken.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = match Log::start(std::io::stderr()) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(sluice_api::EXIT_WRONG_FILE);
        }
    };
    if args.check {
        print!("{}", config.summary());
        println!("{}: OK", args.config.display());
        return ExitCode::SUCCESS;
    }
    flush_on_panic(log.clone());
    let result = runtime::run(config);
    log.flush(LAST_LINES);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// What was logged before a panic comes before its report.
fn flush_on_panic(log: Log) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        log.flush(LAST_LINES);
        report(info);
    }));
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
