//! The command line of `sluice-dataplane`: also the source of its man page and shell completions.

use std::path::PathBuf;

use clap::Parser;

/// Sluice's data plane: forwards packets by the services that sluice-control sends it.
///
/// Prints what it took (ports, queues, memory) and READY, then runs until SIGTERM or SIGINT.
/// Exit status: 0 stopped by a signal or the file is good, 1 it cannot start, 2 usage, 78 the file is
/// wrong.
#[derive(Debug, Parser)]
#[command(name = "sluice-dataplane", version)]
pub struct Args {
    /// The data plane's file, as /etc/sluice/dataplane.toml.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the file, print what it says, and exit.
    #[arg(long)]
    pub check: bool,
}
