//! `sluice-dataplane`: reads its file, starts, forwards.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use sluice_api::EXIT_WRONG_FILE;
use sluice_dataplane::args::Args;
use sluice_dataplane::{config::Config, runtime, stdio};
use sluice_log::{LAST_LINES, Log};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// What went wrong, and the exit status.
type Failure = (String, u8);

fn main() -> ExitCode {
    let args = Args::parse();
    let colours = io::stderr().is_terminal();
    // A check only prints; it may be read by hand, or by nobody.
    let log = if args.check { Log::start(io::stderr()) } else { stdio::take_over() };
    let log = match log {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            return ExitCode::FAILURE;
        }
    };
    log.report_panics();
    let done = run(&args, &log, colours);
    let code = done.map_or_else(
        |(message, code)| {
            log.say(&message);
            ExitCode::from(code)
        },
        |()| ExitCode::SUCCESS,
    );
    log.flush(LAST_LINES);
    stdio::flush();
    code
}

fn run(args: &Args, log: &Log, colours: bool) -> Result<(), Failure> {
    sluice_log::filter().map_err(|e| wrong_file(&e))?;
    // What is not there may be later: a supervisor is to try again.
    let config = Config::load(&args.config).map_err(|e| match e.is_files() {
        true => wrong_file(&e),
        false => (e.to_string(), 1),
    })?;
    let filter = sluice_log::filter_or(&config.runtime.log).map_err(|e| wrong_file(&e))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(log.clone()).with_ansi(colours);
    tracing_subscriber::registry().with(filter).with(lines).init();
    if args.check {
        return check(args, &config)
            .map_err(|e| (format!("standard output cannot be written: {e}"), 1));
    }
    let log_by = move |text: &str| match sluice_log::filter_or(text) {
        Ok(filter) => handle.reload(filter).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    runtime::run(config, &args.config, log_by).map_err(|e| (e.to_string(), 1))
}

fn wrong_file(error: &impl Display) -> Failure {
    (error.to_string(), EXIT_WRONG_FILE)
}

fn check(args: &Args, config: &Config) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{}", config.summary())?;
    writeln!(out, "{}: OK", args.config.display())
}
