//! The `sluice` command: what an operator types becomes one or a few requests to the HTTP API, and
//! its answers become tables, or JSON as it came.
//!
//! It holds no state and knows no rule of its own: the API decides, and its words are printed. It shares
//! with control what [`sluice_api`] has, and nothing else.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod doctor;
mod error;
mod output;
mod table;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use client::Client;
use error::CliError;
use output::Output;

/// What every command works with.
pub(crate) struct Context {
    client: Client,
    output: Output,
}

/// Runs the command that the process was started with. Returns its exit code:
///
/// | code | meaning |
/// |---|---|
/// | 0 | done |
/// | 1 | the API refused the request, or `doctor` found something wrong |
/// | 2 | the command line or the file given is wrong |
/// | 3 | the API cannot be reached |
/// | 4 | there is no such resource |
/// | 5 | conflict: it exists already, is in use, or was changed meanwhile |
/// | 6 | server error, or the data plane cannot be reached |
/// | 7 | the change is stored, but not applied |
pub fn main() -> ExitCode {
    // A wrong command line ends here, with exit code 2.
    let cli = Cli::parse();
    let json = cli.json;
    let done = match cli.command {
        Command::Doctor(args) => commands::doctor(args, json),
        _ => run(cli).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            error.report(json);
            ExitCode::from(error.exit_code())
        }
    }
}

/// The command line of `sluice`, for its man pages and shell completions.
pub fn command() -> clap::Command {
    Cli::command()
}

fn run(cli: Cli) -> Result<(), CliError> {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
        return Output::new(false).text(&String::from_utf8_lossy(&script));
    }
    let client = Client::new(&cli.api)?.waiting(cli.wait).because(cli.reason);
    let context = Context { client, output: Output::new(cli.json) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(commands::run(&context, cli.command))?;
    match context.client.not_applied() {
        Some(reason) => Err(CliError::NotApplied(reason)),
        None => Ok(()),
    }
}
