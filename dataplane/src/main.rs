//! `sluice-dataplane`: reads its file, starts, forwards.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sluice_dataplane::{config::Config, runtime};

/// Sluice's data plane: forwards packets by the services that sluice-control sends it.
///
/// Prints what it took (ports, queues, memory) and READY, then runs until SIGTERM or SIGINT.
/// Exit status: 0 stopped by a signal, 1 the file is wrong or it cannot start, 2 usage.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The data plane's file, as /etc/sluice/dataplane.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the file, print what it says, and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

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
