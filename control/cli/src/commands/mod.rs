//! A file per command: the requests it makes, and what it prints of the answers.

mod apply;
mod backend;
mod doctor;
mod events;
mod history;
mod host;
mod node;
mod pool;
mod port;
mod service;
mod stats;
mod status;
mod vip;

use crate::Context;
use crate::args::Command;
use crate::error::CliError;

pub(crate) use doctor::run as doctor;

/// Runs a command that speaks to the API.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Service { command } => service::run(context, command).await,
        Command::Backend { command } => backend::run(context, command).await,
        Command::Host { command } => host::run(context, command).await,
        Command::Pool { command } => pool::run(context, command).await,
        Command::Vip { command } => vip::run(context, command).await,
        Command::Node { command } => node::run(context, command).await,
        Command::Port { command } => port::run(context, command).await,
        Command::Stats(args) => stats::run(context, args).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Status => status::status(context).await,
        Command::Neighbours => status::neighbours(context).await,
        Command::Confirm => apply::confirm(context).await,
        Command::Apply { file, dry_run } => apply::run(context, &file, dry_run).await,
        Command::History { before, limit } => history::list(context, before, limit).await,
        Command::Diff { from, to } => history::diff(context, from, to).await,
        Command::Rollback { revision, dry_run } => {
            history::roll_back(context, revision, dry_run).await
        }
        Command::Export(args) => history::export(context, args).await,
        // Those that ask no API.
        Command::Completions { .. } | Command::Doctor(_) => Ok(()),
    }
}
