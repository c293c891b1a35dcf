//! Measures Sluice, beside a reference measured in the same run: the program `sluice-perf`, and the
//! pieces of the packet path that it shares with the criterion benches.

mod count;
mod generator;
mod leftovers;
mod origin;
mod output;
pub mod pieces;
mod pipeline;
mod setup;
mod traffic;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  measured
  1  it could not be measured; count --check: something got worse
  2  the command line is wrong
  77  count --check: the figures are of another toolchain and cannot be compared
";

/// Measure Sluice's packet path.
#[derive(Parser)]
#[command(name = "sluice-perf", version, after_help = EXIT_CODES)]
pub struct Args {
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

/// Do what was asked for, and print what was measured; the exit code.
///
/// # Errors
/// Why nothing was measured, in words for whoever called the program.
pub fn run(args: Args) -> Result<ExitCode, Box<dyn Error>> {
    match args.command {
        Command::Pipeline(options) => pipeline::run(options)?,
        Command::Count(options) => return Ok(count::run(&options)?),
        Command::Gen(options) => generator::run(&options)?,
        Command::Wire(options) => wire::run(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}
