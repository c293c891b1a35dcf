//! Control's TOML file: where it listens, where it keeps its state, and the services, backends and
//! pools that it starts with.
//!
//! ```toml
//! [control]
//! api_listen = "127.0.0.1:9600"
//!
//! [[pool]]
//! name = "local"
//! addresses = ["10.0.0.250"]
//!
//! [[service]]
//! name = "web"
//! # … the fields of `sluice_api::Service`
//! [[service.backend]]
//! address = "10.0.0.1"
//! port = 80
//! ```

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use sluice_api::read::{self, Spelling, in_toml};
use sluice_api::schema::{Field, Resource};
use sluice_api::{DEFAULT_API_LISTEN, DEFAULT_SOCKET, Pool, Problem, Problems, Refusal, Service};

use crate::model::{Environment, HasName, Named, State, check};
use crate::store::Keep;

/// Where versions before the database kept the state unless their file said otherwise. The database is in the
/// same directory.
pub const DEFAULT_STATE_FILE: &str = "/var/lib/sluice/state.json";
/// Seconds of a day.
const DAY: u64 = 24 * 3_600;
/// Most revisions that may be kept.
const MOST_REVISIONS: u64 = 1_000_000;
/// Longest time that they may be kept, in days.
const MOST_DAYS: u64 = 3_650;

/// Control's file, read and validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the HTTP API listens.
    pub api_listen: SocketAddr,
    /// Names and addresses beside its own that clients may call the API by.
    pub api_hosts: Vec<String>,
    /// Web pages that may use the API, as `https://lb.example`.
    pub api_origins: Vec<String>,
    /// Where the state and its history are kept.
    pub database: PathBuf,
    /// How much history is kept there.
    pub keep: Keep,
    /// Where versions before the database kept the state; it is read at the first start.
    pub state_file: PathBuf,
    /// Where the data plane listens.
    pub dataplane_socket: PathBuf,
    /// What who comes to a VIP is answered with where no service is.
    pub no_service: Refusal,
    /// The file's services.
    pub services: Named<Service>,
    /// The file's pools.
    pub pools: Named<Pool>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML; the message tells line and column.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        message: String,
    },
    /// It is TOML and breaks rules; all that it breaks.
    #[error("{}", lines(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Problems,
    },
}

fn lines(path: &Path, problems: &Problems) -> String {
    let lines = problems.lines().map(|line| format!("{}: {line}", path.display()));
    lines.collect::<Vec<_>>().join("\n")
}

impl Config {
    /// What of `new` is otherwise than here and takes effect with a restart only: a sentence each.
    pub fn fixed_at_start(&self, new: &Config) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let revisions = |config: &Config| config.keep.revisions.to_string();
        let days = |config: &Config| (config.keep.age.as_secs() / DAY).to_string();
        let fields = [
            ("api_listen", self.api_listen.to_string(), new.api_listen.to_string()),
            ("api_hosts", format!("{:?}", self.api_hosts), format!("{:?}", new.api_hosts)),
            ("api_origins", format!("{:?}", self.api_origins), format!("{:?}", new.api_origins)),
            ("database", path(&self.database), path(&new.database)),
            ("history_revisions", revisions(self), revisions(new)),
            ("history_days", days(self), days(new)),
            ("dataplane_socket", path(&self.dataplane_socket), path(&new.dataplane_socket)),
        ];
        let differs = fields.into_iter().filter(|(_, is, said)| is != said);
        differs
            .map(|(field, is, said)| {
                format!("control.{field} stays {is} until a restart (the file says {said})")
            })
            .collect()
    }

    /// Read and validate a file.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, is not TOML, or breaks rules.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text, path)
    }

    /// Read and validate the text of a file; `path` only names it in errors.
    ///
    /// # Errors
    /// [`ConfigError`]: it is not TOML, or breaks rules.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
                path: path.to_owned(),
                message: e.to_string().trim_end().to_owned(),
            })?;
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let config = read_file(table).map_err(invalid)?;
        let state =
            State { version: 0, services: config.services.clone(), pools: config.pools.clone() };
        let problems = check::state(&state, &Environment::default());
        if problems.is_empty() { Ok(config) } else { Err(invalid(problems.map(in_toml))) }
    }
}

fn read_file(table: toml::Table) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let mut config = Config {
        api_listen: SocketAddr::from(([127, 0, 0, 1], 9600)),
        api_hosts: Vec::new(),
        api_origins: Vec::new(),
        database: PathBuf::new(),
        keep: Keep::default(),
        state_file: DEFAULT_STATE_FILE.into(),
        dataplane_socket: DEFAULT_SOCKET.into(),
        no_service: Refusal::default(),
        services: Named::default(),
        pools: Named::default(),
    };
    debug_assert_eq!(config.api_listen.to_string(), DEFAULT_API_LISTEN);
    for (key, value) in table {
        let value = json(value);
        match key.as_str() {
            "control" => read_control(value, &mut config, &mut problems),
            "service" => {
                config.services = list(value, "service", &mut problems, |item, label| {
                    read::service(item, Spelling::Toml, label)
                });
            }
            "pool" => {
                config.pools = list(value, "pool", &mut problems, |item, label| {
                    read::pool(item, Spelling::Toml, label)
                });
            }
            _ => problems.push(Problem::new(
                key,
                read::shown(&value),
                "a known table: [control], [[pool]], [[service]]",
            )),
        }
    }
    if config.database.as_os_str().is_empty() {
        config.database = config.state_file.with_extension("db");
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

fn list<T: HasName>(
    value: Value,
    name: &str,
    problems: &mut Problems,
    read: impl Fn(Value, &str) -> Result<T, Problems>,
) -> Named<T> {
    let Value::Array(items) = value else {
        let expected = format!("tables of the form [[{name}]]");
        problems.push(Problem::new(name, read::shown(&value), expected));
        return Named::default();
    };
    let mut list = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match read(item, &format!("#{}", index + 1)) {
            Ok(item) => list.push(item),
            Err(mut more) => problems.append(&mut more),
        }
    }
    list.into()
}

fn read_control(value: Value, config: &mut Config, problems: &mut Problems) {
    let Value::Object(fields) = value else {
        problems.push(Problem::new("control", read::shown(&value), "a table [control]"));
        return;
    };
    for (name, value) in fields {
        let wrong =
            |expected: &str| Problem::new(format!("control.{name}"), read::shown(&value), expected);
        let text = value.as_str().filter(|text| !text.is_empty());
        match name.as_str() {
            "api_listen" => match text.and_then(|text| text.parse().ok()) {
                Some(address) => config.api_listen = address,
                None => problems.push(wrong("ADDRESS:PORT, as \"127.0.0.1:9600\"")),
            },
            "api_hosts" => match texts(&value, is_host) {
                Some(hosts) => config.api_hosts = hosts,
                None => problems.push(wrong(
                    "a list of names or addresses without a port, as [\"lb.example.net\"]",
                )),
            },
            "api_origins" => match texts(&value, is_origin) {
                Some(origins) => config.api_origins = origins,
                None => problems.push(wrong(
                    "a list of origins as a browser sends them, as [\"https://lb.example.net\"]",
                )),
            },
            "database" => match text {
                Some(path) => config.database = path.into(),
                None => problems.push(wrong("the path of a file")),
            },
            "history_revisions" => match number(&value, MOST_REVISIONS) {
                Some(revisions) => config.keep.revisions = revisions,
                None => problems.push(wrong(&format!("1 to {MOST_REVISIONS}"))),
            },
            "history_days" => match number(&value, MOST_DAYS) {
                Some(days) => config.keep.age = Duration::from_secs(days * DAY),
                None => problems.push(wrong(&format!("1 to {MOST_DAYS}"))),
            },
            "state_file" => match text {
                Some(path) => config.state_file = path.into(),
                None => problems.push(wrong("the path of a file")),
            },
            "dataplane_socket" => match text {
                Some(path) => config.dataplane_socket = path.into(),
                None => problems.push(wrong("the path of a unix socket")),
            },
            "no_service" => match read::word(&value) {
                Some(refusal) => config.no_service = refusal,
                None => problems.push(wrong(&no_service_text())),
            },
            _ => problems
                .push(wrong("a known field: api_listen, api_hosts, api_origins, database, history_revisions, history_days, state_file, dataplane_socket, no_service")),
        }
    }
}

/// A number from 1.
fn number(value: &Value, most: u64) -> Option<u64> {
    value.as_u64().filter(|number| (1..=most).contains(number))
}

/// What `no_service` may be: what a service's `no_backend` may.
fn no_service_text() -> String {
    Service::object().field("no_backend").map_or_else(String::new, Field::accepted)
}

/// A list of texts of a form.
fn texts(value: &Value, form: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let text = |item: &Value| item.as_str().filter(|text| form(text)).map(str::to_owned);
    value.as_array()?.iter().map(text).collect()
}

/// Whether a text is a host name or an address, without a port.
fn is_host(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.chars().all(is_part))
}

/// Whether a text is an origin (RFC 6454, 7): scheme, host, and a port that is not the scheme's own.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    matches!(scheme, "http" | "https") && is_host(host) && text == text.to_ascii_lowercase()
}

/// A TOML value as JSON. What JSON lacks (dates, infinities) becomes a string, which no field of
/// ours takes, so that the error shows it as it was written.
fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .map_or_else(|| Value::String(number.to_string()), Value::Number),
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(json).collect()),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(k, v)| (k, json(v))).collect::<Map<_, _>>())
        }
    }
}
