//! `sluice service …`: its commands, and the fields that flags can set.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use sluice_api::BackendId;

use super::value::{address, limit, timeout, weighted, words};

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
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
pub(crate) struct ServiceFields {
    /// The address clients connect to.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) vip: Option<IpAddr>,
    /// The L4 port clients connect to.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Its protocol [a new service: tcp].
    #[arg(long, value_parser = words("protocol"))]
    pub(crate) protocol: Option<String>,
    /// How packets reach the backends [a new service: full-nat].
    #[arg(long, value_parser = words("mode"))]
    pub(crate) mode: Option<String>,
    /// How a new conn chooses its backend.
    #[arg(long, value_parser = words("scheduler"))]
    pub(crate) scheduler: Option<String>,
    /// What Maglev hashes.
    #[arg(long, value_parser = words("hash_on"))]
    pub(crate) hash_on: Option<String>,
    /// Slots of the Maglev table, a prime [by the number of backends].
    #[arg(long, value_name = "N")]
    pub(crate) maglev_slots: Option<u32>,
    /// Most conns at a time, over all backends and workers.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_conns: Option<NonZeroU32>,
    /// Name of the pool of local addresses; full-NAT needs one.
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,
    /// What TCP of a conn that is not there is answered with [full-nat: reset, dr: drop].
    #[arg(long, value_parser = words("no_conn"))]
    pub(crate) no_conn: Option<String>,
    /// What new clients are answered with while no backend takes them.
    #[arg(long, value_parser = words("no_backend"))]
    pub(crate) no_backend: Option<String>,
    /// An idle timeout, as tcp_established_ms=900000; may be repeated.
    #[arg(long = "timeout", value_name = "NAME=MS", value_parser = timeout)]
    pub(crate) timeouts: Vec<(String, u32)>,
    #[command(flatten)]
    pub(crate) check: CheckFields,
}

/// Fields of a health check that flags can set.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health check")]
pub(crate) struct CheckFields {
    /// What is asked: a TCP handshake, or an HTTP GET.
    #[arg(long, value_parser = ["tcp", "http"])]
    pub(crate) check_kind: Option<String>,
    /// Time between two checks of one backend.
    #[arg(long, value_name = "MS")]
    pub(crate) check_interval_ms: Option<u32>,
    /// A check without an answer after this time has failed.
    #[arg(long, value_name = "MS")]
    pub(crate) check_timeout_ms: Option<u32>,
    /// Passed checks in a row that make a backend healthy.
    #[arg(long, value_name = "N")]
    pub(crate) check_rise: Option<u8>,
    /// Failed checks in a row that make a backend unhealthy.
    #[arg(long, value_name = "N")]
    pub(crate) check_fall: Option<u8>,
    /// L4 port to check when it is not the backend's own.
    #[arg(long, value_name = "PORT")]
    pub(crate) check_port: Option<u16>,
    /// HTTP: the path asked for.
    #[arg(long, value_name = "PATH")]
    pub(crate) check_path: Option<String>,
    /// HTTP: the Host header.
    #[arg(long, value_name = "HOST")]
    pub(crate) check_host: Option<String>,
    /// HTTP: the status codes that pass, as 200,204.
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub(crate) check_status: Vec<u16>,
    /// How a check's connection is closed.
    #[arg(long, value_parser = ["reset", "fin"])]
    pub(crate) check_close: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use clap::CommandFactory;
    use sluice_api::Service;
    use sluice_api::schema::{Field, Kind, Object, Resource};

    /// The flag of a field, by the name of its argument.
    fn id(prefix: &str, field: &Field) -> String {
        match (prefix, field.name.as_str()) {
            ("check_", "expected_status") => "check_status".to_owned(),
            (_, name) => format!("{prefix}{name}"),
        }
    }

    /// Every field has a flag that takes its words, and the flag stands in the documentation.
    fn compare(set: &clap::Command, object: &Object, prefix: &str) {
        let documentation = include_str!("../../../../docs/cli.md");
        for field in
            object.fields.iter().filter(|field| field.name != "name" && field.name != "backends")
        {
            if let ("health_check", Kind::Object(check)) = (field.name.as_str(), &field.kind) {
                compare(set, check, "check_");
                continue;
            }
            let id = id(prefix, field);
            let flag = set.get_arguments().find(|argument| *argument.get_id() == *id);
            let flag = flag.unwrap_or_else(|| panic!("no flag for {id}"));
            let long = flag.get_long().unwrap();
            let row = format!("`--{long}");
            assert!(documentation.contains(&row), "docs/cli.md does not name --{long}");
            if let Kind::Word(words) = &field.kind {
                let values: Vec<String> =
                    flag.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
                assert_eq!(&values, words, "--{long}");
            }
        }
    }

    #[test]
    fn flags_are_those_of_the_declared_fields() {
        let command = Cli::command();
        let service = command.find_subcommand("service").unwrap();
        compare(service.find_subcommand("set").unwrap(), Service::object(), "");
    }
}
