//! `sluice-dataplane`: reads its file, starts, forwards.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use sluice_dataplane::args::Args;
use sluice_dataplane::{config::Config, runtime};

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if args.check {
        print!("{}", config.summary());
        println!("{}: OK", args.config.display());
        return ExitCode::SUCCESS;
    }
    match runtime::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
