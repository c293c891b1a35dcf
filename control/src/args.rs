//! The command line of `sluice-control`: also the source of its man page and shell completions.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
    /// What to do in the place of control's work.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done beside control's work.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look after the database that the file names.
    Db {
        /// What to do with it.
        #[command(subcommand)]
        command: DbCommand,
    },
}

/// What can be done with the database.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Look at all of it: is it whole? Control may run meanwhile.
    Check,
    /// Copy it, as of one moment. Control may run meanwhile.
    Backup {
        /// To which file; to the regular backup beside the database unless given.
        to: Option<PathBuf>,
    },
    /// Mend it while no control runs: what follows from the rest is made anew, or else the regular backup is
    /// put in its place, and the damaged one aside.
    Repair,
}
