//! The command line of `sluice-control`: also the source of its man page and shell completions.

use std::path::PathBuf;

use clap::Parser;

const EXIT_CODES: &str = "\
Exit codes:
  0  it was stopped by a signal; with --check: the file is good
  1  it cannot start; with --check: the state there is cannot be used, or not be read by this user
  2  the command line is wrong
  78  the file is wrong, cannot be read, or does not go together with the state there is: starting
      again does not help
";

/// Sluice's control process: HTTP API, desired state, health checks.
///
/// Prints READY once it serves, then runs until SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(name = "sluice-control", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Validate the file, and that it goes together with the state there is; then exit. A file that is
    /// good is said to be OK before the state is looked at.
    #[arg(long)]
    pub check: bool,
    /// With --check: the data plane's file, to warn of addresses that its ports do not lead to.
    /// /etc/sluice/dataplane.toml where that can be read.
    #[arg(long, value_name = "FILE", requires = "check")]
    pub dataplane_file: Option<PathBuf>,
}
