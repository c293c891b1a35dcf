//! The command line of `sluice-control`: also the source of its man page and shell completions.

use std::path::PathBuf;

use clap::Parser;

/// Sluice's control process: HTTP API, desired state, health checks.
///
/// Prints READY once it serves, then runs until SIGTERM or SIGINT.
/// Exit status: 0 stopped by a signal or the file is good, 1 it cannot start, 2 usage, 78 the file is
/// wrong.
#[derive(Debug, Parser)]
#[command(name = "sluice-control", version)]
pub struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Validate the file, and that it goes together with the state there is; then exit.
    #[arg(long)]
    pub check: bool,
}
