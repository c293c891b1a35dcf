//! `sluice-perf`: measures Sluice, beside a reference measured in the same run.

use std::process::ExitCode;

use clap::Parser;
use sluice_perf::{Args, run};

fn main() -> ExitCode {
    run(Args::parse()).unwrap_or_else(|error| {
        eprintln!("sluice-perf: {error}");
        ExitCode::FAILURE
    })
}
