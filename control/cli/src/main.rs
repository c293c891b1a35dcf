//! The `sluice` command. See `sluice --help`, or [`sluice_cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_cli::main()
}
