//! `sluice-perf`: measures Sluice, beside a reference measured in the same run.

mod count;
mod origin;
mod pipeline;
mod setup;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure Sluice's packet path.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The worker's stages in process, on real mbufs, without device I/O; beside each figure the
    /// floor: the same bursts with nothing but their MAC addresses swapped.
    Pipeline(pipeline::Options),
    /// Instructions, and lines of memory touched, per packet and per operation of each piece: as
    /// valgrind's callgrind counts them, the same on every machine. Needs neither DPDK's set-up nor
    /// root.
    Count(count::Options),
}

fn main() -> ExitCode {
    let result: Result<ExitCode, Box<dyn std::error::Error>> = match Args::parse().command {
        Command::Pipeline(options) => {
            pipeline::run(options).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::Count(options) => count::run(&options).map_err(Into::into),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sluice-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
