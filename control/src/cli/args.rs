//! The command line: which commands there are and what each takes.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sluice_api::{BackendId, DEFAULT_API_LISTEN};

use crate::publish::MAX_WAIT_MS;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the API refused the request: a field is wrong; doctor: something must be mended
  2  the command line, or a file given on it, is wrong
  3  the API cannot be reached
  4  there is no such service, backend, pool or port
  5  conflict: it exists already, is in use, or was changed meanwhile
  6  server error, or the data plane cannot be reached
  7  the change is stored, but not applied: packets are not treated by it yet

With --json, standard output is the API's JSON, and an error is one line of problem+json on
standard error.";

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected 0 to {} seconds, as 5 or 0.5", MAX_WAIT_MS / 1_000);
    let wait = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    wait.filter(|wait| *wait <= Duration::from_millis(MAX_WAIT_MS)).ok_or_else(wrong)
}

/// Steer the Sluice load balancer over its HTTP API.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, after_help = EXIT_CODES)]
pub(super) struct Cli {
    /// Where the API is.
    #[arg(long, global = true, value_name = "URL", env = "SLUICE_API",
          default_value_t = format!("http://{DEFAULT_API_LISTEN}"))]
    pub(super) api: String,
    /// Print JSON for programs instead of tables.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// How long to wait until a change is applied, also while the data plane cannot be reached. From
    /// 0 to 60; unless given, 2 s while it can be reached.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(super) wait: Option<Duration>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    /// Local pools: the source addresses of full-NAT.
    Pool {
        #[command(subcommand)]
        command: PoolCommand,
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
    /// Publish the state though it takes services away from the data plane.
    ///
    /// Control holds back a state that it did not read from a good state file, or that is empty,
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
pub(super) enum ServiceCommand {
    /// All services.
    List,
    /// One service with its backends.
    Show {
        /// Its name.
        name: String,
    },
    /// Make a new service, from flags or from a file.
    Create {
        /// Its name; with --file it may stand in the file.
        #[arg(required_unless_present = "file")]
        name: Option<String>,
        /// A backend, as 10.0.0.1:80 or 10.0.0.1:80=WEIGHT; may be repeated.
        #[arg(long = "backend", value_name = "ADDR:PORT[=WEIGHT]", value_parser = weighted)]
        backends: Vec<(BackendId, Option<u16>)>,
        /// JSON or TOML file with the fields of the service; `-` is standard input.
        #[arg(long, conflicts_with_all = FIELD_IDS)]
        file: Option<PathBuf>,
        #[command(flatten)]
        fields: Box<ServiceFields>,
    },
    /// Change fields of a service; those not named stay as they are.
    Set {
        /// Its name.
        name: String,
        /// Take the pool away, as for mode dr.
        #[arg(long, conflicts_with = "pool")]
        no_pool: bool,
        /// Take the limit of conns away.
        #[arg(long, conflicts_with = "max_conns")]
        no_max_conns: bool,
        /// Check backends no more: all count as healthy.
        #[arg(long, conflicts_with_all = CHECK_IDS)]
        no_check: bool,
        #[command(flatten)]
        fields: Box<ServiceFields>,
    },
    /// Remove a service and its backends.
    Delete {
        /// Its name.
        name: String,
    },
}

/// Fields of a service that flags can set. The API knows the ranges.
#[derive(Debug, Default, Args)]
pub(super) struct ServiceFields {
    /// The address clients connect to.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) vip: Option<Ipv4Addr>,
    /// The L4 port clients connect to.
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Its protocol [a new service: tcp].
    #[arg(long, value_parser = ["tcp", "udp"])]
    pub(super) protocol: Option<String>,
    /// How packets reach the backends [a new service: full-nat].
    #[arg(long, value_parser = ["full-nat", "dr"])]
    pub(super) mode: Option<String>,
    /// How a new conn chooses its backend.
    #[arg(long, value_parser = ["maglev", "wrr", "wlc", "source-hash"])]
    pub(super) scheduler: Option<String>,
    /// What Maglev hashes.
    #[arg(long, value_parser = ["source", "5-tuple"])]
    pub(super) hash_on: Option<String>,
    /// Slots of the Maglev table, a prime.
    #[arg(long, value_name = "N")]
    pub(super) maglev_slots: Option<u32>,
    /// Most conns at a time, over all backends and workers.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(super) max_conns: Option<NonZeroU32>,
    /// Name of the pool of local addresses; full-NAT needs one.
    #[arg(long, value_name = "POOL")]
    pub(super) pool: Option<String>,
    /// What TCP of a conn that is not there is answered with [full-nat: reset, dr: drop].
    #[arg(long, value_parser = ["reset", "drop"])]
    pub(super) no_conn: Option<String>,
    /// What new clients are answered with while no backend takes them.
    #[arg(long, value_parser = ["reset", "unreachable", "drop"])]
    pub(super) no_backend: Option<String>,
    /// An idle timeout, as tcp_established_ms=900000; may be repeated.
    #[arg(long = "timeout", value_name = "NAME=MS", value_parser = timeout)]
    pub(super) timeouts: Vec<(String, u32)>,
    #[command(flatten)]
    pub(super) check: CheckFields,
}

/// Fields of a health check that flags can set.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health check")]
pub(super) struct CheckFields {
    /// What is asked: a TCP handshake, or an HTTP GET.
    #[arg(long, value_parser = ["tcp", "http"])]
    pub(super) check_kind: Option<String>,
    /// Time between two checks of one backend.
    #[arg(long, value_name = "MS")]
    pub(super) check_interval_ms: Option<u32>,
    /// A check without an answer after this time has failed.
    #[arg(long, value_name = "MS")]
    pub(super) check_timeout_ms: Option<u32>,
    /// Passed checks in a row that make a backend healthy.
    #[arg(long, value_name = "N")]
    pub(super) check_rise: Option<u8>,
    /// Failed checks in a row that make a backend unhealthy.
    #[arg(long, value_name = "N")]
    pub(super) check_fall: Option<u8>,
    /// L4 port to check when it is not the backend's own.
    #[arg(long, value_name = "PORT")]
    pub(super) check_port: Option<u16>,
    /// HTTP: the path asked for.
    #[arg(long, value_name = "PATH")]
    pub(super) check_path: Option<String>,
    /// HTTP: the Host header.
    #[arg(long, value_name = "HOST")]
    pub(super) check_host: Option<String>,
    /// HTTP: the status codes that pass, as 200,204.
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub(super) check_status: Vec<u16>,
    /// How a check's connection is closed: reset or fin.
    #[arg(long, value_name = "HOW")]
    pub(super) check_close: Option<String>,
}

const FIELD_IDS: [&str; 23] = [
    "vip",
    "port",
    "protocol",
    "mode",
    "scheduler",
    "hash_on",
    "maglev_slots",
    "max_conns",
    "pool",
    "no_conn",
    "no_backend",
    "timeouts",
    "backends",
    "check_kind",
    "check_interval_ms",
    "check_timeout_ms",
    "check_rise",
    "check_fall",
    "check_port",
    "check_path",
    "check_host",
    "check_status",
    "check_close",
];
const CHECK_IDS: [&str; 10] = [
    "check_kind",
    "check_interval_ms",
    "check_timeout_ms",
    "check_rise",
    "check_fall",
    "check_port",
    "check_path",
    "check_host",
    "check_status",
    "check_close",
];

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// All backends of a service, with their health.
    List {
        /// Name of the service.
        service: String,
    },
    /// Add a backend to a service.
    Add {
        #[command(flatten)]
        at: BackendAt,
        /// Its share relative to the service's other backends.
        #[arg(long)]
        weight: Option<u16>,
        /// Most conns at a time, over all workers.
        #[arg(long, value_name = "N", value_parser = limit)]
        max_conns: Option<NonZeroU32>,
        /// The zone it stands in.
        #[arg(long)]
        zone: Option<String>,
        /// What it is to do at first.
        #[arg(long, value_parser = ["up", "drain", "down"])]
        state: Option<String>,
    },
    /// Remove a backend from a service. Drain it first to let its conns finish.
    Remove {
        #[command(flatten)]
        at: BackendAt,
    },
    /// Set a backend's weight; 0 takes no new conns.
    Weight {
        #[command(flatten)]
        at: BackendAt,
        /// The new weight.
        weight: u16,
    },
    /// Set how many conns a backend may have at a time; new ones beyond go to other backends.
    MaxConns {
        #[command(flatten)]
        at: BackendAt,
        /// The new limit, or `none`.
        #[arg(value_name = "N|none", value_parser = limit_or_none)]
        max_conns: Limit,
    },
    /// Let a backend keep its conns, but give it no new ones.
    Drain {
        #[command(flatten)]
        at: BackendAt,
    },
    /// Let a backend take new conns while it is healthy.
    Up {
        #[command(flatten)]
        at: BackendAt,
    },
    /// Take a backend out of service: no new conns, no health checks.
    Down {
        #[command(flatten)]
        at: BackendAt,
    },
}

/// Names a backend.
#[derive(Debug, Args)]
pub(super) struct BackendAt {
    /// Name of the service.
    pub(super) service: String,
    /// The backend, as 10.0.0.1:80.
    #[arg(value_name = "ADDR:PORT")]
    pub(super) backend: BackendId,
}

/// Names an address of a pool.
#[derive(Debug, Args)]
pub(super) struct PoolAddress {
    /// Name of the pool.
    pub(super) name: String,
    /// The address.
    pub(super) address: Ipv4Addr,
}

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// All pools.
    List,
    /// One pool.
    Show {
        /// Its name.
        name: String,
    },
    /// Make a new pool.
    Create {
        /// Its name.
        name: String,
        /// A local address; may be repeated, or several separated by commas.
        #[arg(long = "address", value_name = "ADDRESS", required = true, value_delimiter = ',')]
        addresses: Vec<Ipv4Addr>,
    },
    /// Add addresses to a pool.
    AddAddress {
        /// Its name.
        name: String,
        /// The addresses.
        #[arg(required = true, value_delimiter = ',')]
        addresses: Vec<Ipv4Addr>,
    },
    /// Remove addresses from a pool.
    RemoveAddress {
        /// Its name.
        name: String,
        /// The addresses.
        #[arg(required = true, value_delimiter = ',')]
        addresses: Vec<Ipv4Addr>,
    },
    /// Let an address keep its conns, but give it no new ones.
    Drain {
        #[command(flatten)]
        at: PoolAddress,
    },
    /// Let new conns use an address again.
    Up {
        #[command(flatten)]
        at: PoolAddress,
    },
    /// Remove a pool that no service uses.
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PortCommand {
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
pub(super) struct StatsArgs {
    /// Only this service and its backends.
    #[arg(conflicts_with_all = ["drops", "workers", "ports", "tables"])]
    pub(super) service: Option<String>,
    /// Dropped packets by reason, with what each reason means.
    #[arg(long)]
    pub(super) drops: bool,
    /// Per worker.
    #[arg(long)]
    pub(super) workers: bool,
    /// Per port.
    #[arg(long)]
    pub(super) ports: bool,
    /// How full the tables are.
    #[arg(long)]
    pub(super) tables: bool,
    /// Print again every so many seconds, with rates.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(super) watch: Option<u32>,
    /// With --watch: end after so many prints.
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) count: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Only events after the one with this sequence number.
    #[arg(long, value_name = "SEQ")]
    pub(super) since: Option<u64>,
    /// At most so many events: the newest, or with --since those that follow.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u32>,
    /// Go on and print events as they come, until interrupted. With --json, one event a line.
    #[arg(long, short)]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The data plane's file.
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/dataplane.toml")]
    pub(super) dataplane_file: PathBuf,
    /// Control's file.
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/control.toml")]
    pub(super) control_file: PathBuf,
}

fn weighted(text: &str) -> Result<(BackendId, Option<u16>), String> {
    let Some((id, weight)) = text.split_once('=') else { return Ok((text.parse()?, None)) };
    let weight = weight.parse().map_err(|_| format!("weight {weight:?}: expected 0 to 65535"))?;
    Ok((id.parse()?, Some(weight)))
}

/// A limit of conns, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<NonZeroU32>);

fn limit(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("max_conns {text:?}: expected 1 to {}", u32::MAX))
}

fn limit_or_none(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    limit(text).map(|limit| Limit(Some(limit))).map_err(|error| format!("{error}, or none"))
}

fn timeout(text: &str) -> Result<(String, u32), String> {
    let expected = || format!("{text:?}: expected NAME=MS, as in tcp_established_ms=900000");
    let (name, ms) = text.split_once('=').ok_or_else(expected)?;
    Ok((name.to_owned(), ms.parse().map_err(|_| expected())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_of_flags() {
        assert_eq!(weighted("10.0.0.1:80"), Ok(("10.0.0.1:80".parse().unwrap(), None)));
        assert_eq!(weighted("10.0.0.1:80=0"), Ok(("10.0.0.1:80".parse().unwrap(), Some(0))));
        assert!(weighted("10.0.0.1:80=65536").unwrap_err().contains("0 to 65535"));
        assert!(weighted("10.0.0.1").unwrap_err().contains("ADDRESS:PORT"));
        assert_eq!(limit("7"), Ok(NonZeroU32::new(7).unwrap()));
        for wrong in ["0", "-1", "many", "4294967296"] {
            assert!(limit(wrong).unwrap_err().contains("expected 1 to 4294967295"));
        }
        assert_eq!(limit_or_none("none"), Ok(Limit(None)));
        assert!(limit_or_none("0").unwrap_err().ends_with("1 to 4294967295, or none"));
        assert_eq!(timeout("udp_one_way_ms=5"), Ok(("udp_one_way_ms".to_owned(), 5)));
        assert!(timeout("udp_one_way_ms").is_err());
        assert!(timeout("udp_one_way_ms=5s").is_err());
    }
}
