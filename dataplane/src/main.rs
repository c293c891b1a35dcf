//! `sluice-dataplane`: reads its file, starts, forwards.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use sluice_api::EXIT_WRONG_FILE;
use sluice_dataplane::args::Args;
use sluice_dataplane::{config::Config, runtime};
use sluice_log::{LAST_LINES, Log};

/// What went wrong, and the exit status.
type Failure = (String, u8);

fn main() -> ExitCode {
    let args = Args::parse();
    let log = match Log::start(io::stderr()) {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            return ExitCode::FAILURE;
        }
    };
    log.report_panics();
    let done = run(&args, &log);
    let code = done.map_or_else(
        |(message, code)| {
            log.say(&message);
            ExitCode::from(code)
        },
        |()| ExitCode::SUCCESS,
    );
    log.flush(LAST_LINES);
    code
}

fn run(args: &Args, log: &Log) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(sluice_log::filter().map_err(|e| wrong_file(&e))?)
        .with_writer(log.clone())
        .with_ansi(io::stderr().is_terminal())
        .init();
    let config = Config::load(&args.config).map_err(|e| wrong_file(&e))?;
    if args.check {
        return check(args, &config)
            .map_err(|e| (format!("standard output cannot be written: {e}"), 1));
    }
    runtime::run(config).map_err(|e| (e.to_string(), 1))
}

fn wrong_file(error: &impl Display) -> Failure {
    (error.to_string(), EXIT_WRONG_FILE)
}

fn check(args: &Args, config: &Config) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{}", config.summary())?;
    writeln!(out, "{}: OK", args.config.display())
}
