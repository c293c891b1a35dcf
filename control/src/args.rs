//! The command line of `sluice-control`: also the source of its man page and shell completions.

use std::path::PathBuf;

use clap::Parser;

/// Sluice's control process: HTTP API, desired state, health checks.
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
