//! `sluice-perf`: measures Sluice, beside a reference measured in the same run.

mod count;
mod generator;
mod leftovers;
mod origin;
mod pipeline;
mod setup;
mod traffic;
mod wire;

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
    /// Send packets over any DPDK device, and measure what comes back: rate, loss, latency.
    Gen(Box<generator::Options>),
    /// The whole program end to end over memif, beside testpmd: packets per second and latency.
    /// Takes two CPUs whole, needs root for hugepages.
    Wire(wire::Options),
}

fn main() -> ExitCode {
    let success = |()| ExitCode::SUCCESS;
    let result: Result<ExitCode, Box<dyn std::error::Error>> = match Args::parse().command {
        Command::Pipeline(options) => pipeline::run(options).map(success).map_err(Into::into),
        Command::Count(options) => count::run(&options).map_err(Into::into),
        Command::Gen(options) => generator::run(&options).map(success).map_err(Into::into),
        Command::Wire(options) => wire::run(&options).map(success).map_err(Into::into),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sluice-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
