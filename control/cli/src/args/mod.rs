//! The command line: which commands there are and what each takes.

mod backend;
mod host;
mod pool;
mod service;
mod value;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sluice_api::DEFAULT_API_LISTEN;

pub(crate) use backend::{BackendAt, BackendCommand};
pub(crate) use host::HostCommand;
pub(crate) use pool::{PoolAddress, PoolCommand};
pub(crate) use service::{CheckFields, ServiceCommand, ServiceFields};
pub(crate) use value::Limit;

use value::seconds;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the API refused the request: a field is wrong; doctor: something must be mended
  2  the command line, or a file given on it, is wrong
  3  the API cannot be reached
  4  there is no such service, backend, host, pool, VIP, node, port or revision
  5  conflict: it exists already, is in use, or was changed meanwhile
  6  server error, or the data plane cannot be reached
  7  the change is stored, but not applied: packets are not treated by it yet
  8  a host that drains still has conns at the deadline

With --json, standard output is the API's JSON, and an error is one line of problem+json on
standard error.";

/// Steer the Sluice load balancer over its HTTP API.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Where the API is.
    #[arg(long, global = true, value_name = "URL", env = "SLUICE_API",
          default_value_t = format!("http://{DEFAULT_API_LISTEN}"))]
    pub(crate) api: String,
    /// Print JSON for programs instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to wait until a change is applied, also while the data plane cannot be reached. From
    /// 0 to 60; unless given, 2 s while it can be reached.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) wait: Option<Duration>,
    /// Why a change is made, for the history.
    #[arg(long, global = true, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Services: what clients connect to.
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Backends of a service: the real servers.
    Backend {
        #[command(subcommand)]
        command: BackendCommand,
    },
    /// Hosts: all backends at one address, in whichever services.
    Host {
        #[command(subcommand)]
        command: HostCommand,
    },
    /// Local pools: the source addresses of full-NAT.
    Pool {
        #[command(subcommand)]
        command: PoolCommand,
    },
    /// VIPs: the addresses of services.
    Vip {
        #[command(subcommand)]
        command: VipCommand,
    },
    /// Nodes: the hosts that forward.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Ports of the data plane.
    Port {
        #[command(subcommand)]
        command: PortCommand,
    },
    /// Counters: of services and their backends, unless told otherwise.
    Stats(StatsArgs),
    /// What happened: health, announcements, changes, the data plane's own events.
    Events(EventsArgs),
    /// Whether control and data plane are up, and what they run.
    Status,
    /// Next hops as the data plane knows them.
    Neighbours,
    /// Make the pools and services of a file be as they are in the file. Others stay untouched.
    ///
    /// The file is TOML with [[pool]], [[service]] and [[service.backend]] tables, or JSON
    /// {"pools": [...], "services": [...]}. All of it is applied in one change, or nothing. A
    /// backend's weight and state and a pool's drained addresses stay as they are where the file does
    /// not name them; other fields that it does not name get their defaults.
    Apply {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// Only print what would change, field by field.
        #[arg(long)]
        dry_run: bool,
    },
    /// Changes of the desired state, newest first: who made each, when, and why.
    History {
        /// Only those before this revision.
        #[arg(long, value_name = "REVISION")]
        before: Option<u64>,
        /// At most so many.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: Option<u32>,
    },
    /// What differs between two revisions, field by field.
    Diff {
        /// The one.
        from: u64,
        /// The other; the newest unless given.
        to: Option<u64>,
    },
    /// Make the state be as it was with a revision. That is a change of its own, which can be undone too.
    Rollback {
        /// The revision.
        revision: u64,
        /// Only print what would change, field by field.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the whole desired state, as `apply` takes it.
    Export(ExportArgs),
    /// Publish the state though it takes services away from the data plane.
    ///
    /// Control holds back a state that it did not read from a good database, or that is empty,
    /// while the data plane forwards by services that are not in it. This says that they may go.
    Confirm,
    /// Look at this host: what keeps the data plane from starting or costs it speed, and what mends
    /// it.
    ///
    /// Looks at hugepages, limits, CPUs, NUMA, the clock, IOMMU, vfio-pci, the ports' devices and
    /// both configuration files, and asks the data plane if one runs. Needs no control and changes
    /// nothing. Exit code 1 when something must be mended. As root it sees most.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum VipCommand {
    /// All VIPs, with the services of each and how they fare on this node.
    List,
    /// One VIP.
    Show {
        /// Its address.
        #[arg(value_parser = value::address)]
        address: IpAddr,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes that control knows of: its own.
    List,
    /// One node: versions, workers and ports.
    Show {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PortCommand {
    /// What ports are and can do, how their packets find the worker that owns them, and what their
    /// queues received.
    Show {
        /// Only this one, with all that is known of it.
        name: Option<String>,
        /// Packets per second over so many seconds, in place of totals.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
        rates: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Only this service and its backends.
    #[arg(conflicts_with_all = ["drops", "workers", "ports", "tables"])]
    pub(crate) service: Option<String>,
    /// Dropped packets by reason, with what each reason means.
    #[arg(long)]
    pub(crate) drops: bool,
    /// Per worker.
    #[arg(long)]
    pub(crate) workers: bool,
    /// Per port.
    #[arg(long)]
    pub(crate) ports: bool,
    /// How full the tables are.
    #[arg(long)]
    pub(crate) tables: bool,
    /// Print again every so many seconds, with rates.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) watch: Option<u32>,
    /// With --watch: end after so many prints.
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only events after the one with this sequence number.
    #[arg(long, value_name = "SEQ")]
    pub(crate) since: Option<u64>,
    /// At most so many events: the newest, or with --since those that follow.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
    /// Go on and print events as they come, until interrupted. With --json, one event a line.
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// As it was with this revision; the newest unless given.
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = ExportFormat::Toml)]
    pub(crate) format: ExportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// As control's file has it.
    Toml,
    /// As the API has it.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The data plane's file.
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/dataplane.toml")]
    pub(crate) dataplane_file: PathBuf,
    /// Control's file.
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/control.toml")]
    pub(crate) control_file: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
