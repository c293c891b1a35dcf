//! The command line of `sluice-dataplane`: also the source of its man page and shell completions.

use std::path::PathBuf;

use clap::Parser;

const EXIT_CODES: &str = "\
Exit codes:
  0  it was stopped by a signal; with --check: the file is good
  1  it cannot start, or a port was lost
  2  the command line is wrong
  78  the file is wrong, or cannot be read: starting again does not help
";

/// Sluice's data plane: forwards packets by the services that sluice-control sends it.
///
/// Prints what it took (ports, queues, memory) and READY, then runs until SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(name = "sluice-dataplane", version, after_help = EXIT_CODES)]
pub struct Args {
    /// The data plane's file, as /etc/sluice/dataplane.toml.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the file, print what it says, and exit.
    #[arg(long)]
    pub check: bool,
}
