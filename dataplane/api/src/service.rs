//! Services, backends and local pools: the words an operator uses, with the same fields and units
//! in TOML, JSON and the CLI.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp,
    /// UDP, RFC 768.
    Udp,
}

impl Protocol {
    /// The IP protocol number (IANA): 6 or 17.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Source and destination are rewritten; replies come back through Sluice. Needs a pool.
    FullNat,
    /// Direct routing: only MAC addresses change; the backend holds the VIP and replies to the
    /// client itself.
    Dr,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::FullNat => "full-nat",
            Mode::Dr => "dr",
        })
    }
}

/// How a new conn chooses its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Maglev consistent hashing (Eisenbud et al., NSDI 2016), weighted.
    #[default]
    Maglev,
    /// Weighted round robin: exact over every round of a worker.
    Wrr,
    /// Weighted least connections, over all workers.
    Wlc,
    /// Weighted choice by a hash of the client address.
    SourceHash,
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheduler::Maglev => "maglev",
            Scheduler::Wrr => "wrr",
            Scheduler::Wlc => "wlc",
            Scheduler::SourceHash => "source-hash",
        })
    }
}

/// What Maglev hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum HashOn {
    /// The client address alone: all conns of a client go to one backend.
    #[serde(rename = "source")]
    Source,
    /// Both addresses, both L4 ports and the protocol.
    #[default]
    #[serde(rename = "5-tuple")]
    FiveTuple,
}

/// What the operator wants a backend to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// Takes new conns while healthy.
    #[default]
    Up,
    /// Keeps its conns, takes no new ones.
    Drain,
    /// Out of service: no new conns and no health checks. Conns it still has run out.
    Down,
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdminState::Up => "up",
            AdminState::Drain => "drain",
            AdminState::Down => "down",
        })
    }
}

/// What a TCP segment of a conn that is not there is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoConn {
    /// RST, as by a host that knows no such connection (RFC 9293, 3.10.7.1).
    Reset,
    /// Nothing.
    Drop,
}

impl NoConn {
    /// What a service does that does not say: in full-NAT reset. In DR drop: another node may know
    /// the conn, and the backend could answer itself.
    pub const fn of_mode(mode: Mode) -> Self {
        match mode {
            Mode::FullNat => NoConn::Reset,
            Mode::Dr => NoConn::Drop,
        }
    }
}

impl fmt::Display for NoConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoConn::Reset => "reset",
            NoConn::Drop => "drop",
        })
    }
}

/// What a client is answered with that nobody serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// TCP: RST, "connection refused". UDP, which has none: ICMP port unreachable.
    #[default]
    Reset,
    /// ICMP destination unreachable, with the code that fits.
    Unreachable,
    /// Nothing.
    Drop,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Reset => "reset",
            Refusal::Unreachable => "unreachable",
            Refusal::Drop => "drop",
        })
    }
}

/// How long a conn may stay idle in each state, in ms (1 to 604,800,000 = 7 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// The client's SYN was seen, the backend has not answered.
    pub tcp_syn_sent_ms: u32,
    /// The backend's SYN-ACK was seen (in DR: the client's SYN), the handshake is not complete.
    pub tcp_syn_received_ms: u32,
    /// Handshake complete.
    pub tcp_established_ms: u32,
    /// One side has sent FIN.
    pub tcp_fin_wait_ms: u32,
    /// Both sides have sent FIN, the last ACK is missing.
    pub tcp_last_ack_ms: u32,
    /// Both sides have closed, the backend first: how long it holds the ports in TIME_WAIT. Where the
    /// client closed first, 10 s at the most.
    pub tcp_time_wait_ms: u32,
    /// Either side has sent RST.
    pub tcp_closed_ms: u32,
    /// UDP: only the client has sent so far. In DR always this one, as replies pass elsewhere.
    pub udp_one_way_ms: u32,
    /// UDP: the backend has answered.
    pub udp_two_way_ms: u32,
}

impl Default for Timeouts {
    /// RFC 5382 (TCP) and RFC 4787 (UDP) ask for at least 124 min and 2 min of a NAT for strangers;
    /// a load balancer knows its services, and peers use 90 s to 15 min. We take 15 min and 2 min.
    fn default() -> Self {
        Timeouts {
            tcp_syn_sent_ms: 10_000,
            tcp_syn_received_ms: 30_000,
            tcp_established_ms: 900_000,
            tcp_fin_wait_ms: 60_000,
            tcp_last_ack_ms: 30_000,
            tcp_time_wait_ms: 60_000,
            tcp_closed_ms: 2_000,
            udp_one_way_ms: 60_000,
            udp_two_way_ms: 120_000,
        }
    }
}

/// A backend's identity within its service, written `address:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// The backend's address.
    pub address: Ipv4Addr,
    /// The backend's L4 port.
    pub port: u16,
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

impl FromStr for BackendId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<std::net::SocketAddrV4>()
            .map(|a| BackendId { address: *a.ip(), port: a.port() })
            .map_err(|_| {
                format!("{text:?} is not a backend: expected ADDRESS:PORT, as in 10.0.0.1:80")
            })
    }
}

/// A real server within a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its L4 port, 1 to 65,535. In DR it must be the service's port.
    pub port: u16,
    /// Its share relative to the service's other backends: 0 (no new conns) to 65,535.
    #[serde(default = "default_weight")]
    pub weight: u16,
    /// Most conns that it may have in this service at a time, over all workers, 1 to 4,294,967,295;
    /// new ones beyond go to other backends. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// The zone it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What the operator wants it to do.
    #[serde(default)]
    pub state: AdminState,
}

/// Weight of a backend that names none.
pub const fn default_weight() -> u16 {
    100
}

/// Maglev slots of a service that names none (the paper's small table, a prime).
pub const fn default_maglev_slots() -> u32 {
    65_537
}

impl Backend {
    /// Its identity within the service.
    pub fn id(&self) -> BackendId {
        BackendId { address: self.address, port: self.port }
    }
}

/// Time between two checks of one backend, in ms.
pub const INTERVAL_MS: RangeInclusive<u32> = 100..=3_600_000;
/// Least time that a check waits for an answer, in ms; the most is its interval.
pub const MIN_TIMEOUT_MS: u32 = 10;
/// Checks in a row that change a backend's health.
pub const RISE_FALL: RangeInclusive<u8> = 1..=100;
/// HTTP status codes (RFC 9110, 15).
pub const STATUS: RangeInclusive<u16> = 100..=599;

/// How control asks whether a backend is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    #[serde(default)]
    pub kind: HealthCheckKind,
    /// Time between two checks of one backend, in ms (100 to 3,600,000).
    #[serde(default = "HealthCheck::default_interval_ms")]
    pub interval_ms: u32,
    /// A check without an answer after this time has failed, in ms (10 to interval_ms).
    #[serde(default = "HealthCheck::default_timeout_ms")]
    pub timeout_ms: u32,
    /// Passed checks in a row that make an unhealthy backend healthy (1 to 100).
    #[serde(default = "HealthCheck::default_rise")]
    pub rise: u8,
    /// Failed checks in a row that make a healthy backend unhealthy (1 to 100).
    #[serde(default = "HealthCheck::default_fall")]
    pub fall: u8,
    /// L4 port to check when it is not the backend's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// HTTP: the path asked for; starts with `/`.
    #[serde(default = "HealthCheck::default_path")]
    pub path: String,
    /// HTTP: the `Host` header; the backend's `address:port` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// HTTP: the status codes that pass (100 to 599).
    #[serde(default = "HealthCheck::default_expected_status")]
    pub expected_status: Vec<u16>,
    /// How a check's connection is closed.
    #[serde(default)]
    pub close: CheckClose,
}

/// How the connection of a health check is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckClose {
    /// With RST: neither side keeps anything of it.
    #[default]
    Reset,
    /// With FIN, as most clients do: for servers that log a reset as an error.
    Fin,
}

/// Kind of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheckKind {
    /// A TCP handshake completes.
    #[default]
    Tcp,
    /// `GET path` answers with an expected status.
    Http,
}

impl HealthCheck {
    fn default_interval_ms() -> u32 {
        2_000
    }
    fn default_timeout_ms() -> u32 {
        1_000
    }
    fn default_rise() -> u8 {
        2
    }
    fn default_fall() -> u8 {
        3
    }
    fn default_path() -> String {
        "/".to_owned()
    }
    fn default_expected_status() -> Vec<u16> {
        vec![200]
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            kind: HealthCheckKind::default(),
            interval_ms: Self::default_interval_ms(),
            timeout_ms: Self::default_timeout_ms(),
            rise: Self::default_rise(),
            fall: Self::default_fall(),
            port: None,
            path: Self::default_path(),
            host: None,
            expected_status: Self::default_expected_status(),
            close: CheckClose::default(),
        }
    }
}

/// A virtual service: what clients connect to, and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name: 1 to 63 of `a-z`, `0-9`, `-`, `.`, `_`; unique.
    pub name: String,
    /// The address clients connect to.
    pub vip: Ipv4Addr,
    /// The L4 port clients connect to, 1 to 65,535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// How packets reach its backends.
    pub mode: Mode,
    /// How a new conn chooses its backend.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// What Maglev hashes; other schedulers ignore it.
    #[serde(default)]
    pub hash_on: HashOn,
    /// Slots of the Maglev table: a prime from 251 to 655,373.
    #[serde(default = "default_maglev_slots")]
    pub maglev_slots: u32,
    /// Most conns that it may have at a time, over all backends and workers, 1 to 4,294,967,295;
    /// new ones beyond are dropped. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// The pool of local addresses; full-NAT needs one, DR takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What TCP segments to it are answered with that belong to no conn. Absent: by its mode,
    /// `reset` in full-NAT and `drop` in DR. UDP has no such segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_conn: Option<NoConn>,
    /// What new clients are answered with while no backend takes new conns.
    #[serde(default)]
    pub no_backend: Refusal,
    /// Idle timeouts of its conns.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How its backends are checked. Without one, a backend counts as healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Its backends; each address:port once.
    #[serde(default)]
    pub backends: Vec<Backend>,
}

/// A named set of local addresses: the source addresses of full-NAT towards backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, by the rules of a service's name.
    pub name: String,
    /// Its addresses, 1 to 256, each in one pool only, none a VIP or an address of a port.
    pub addresses: Vec<Ipv4Addr>,
    /// Those of them that new conns do not use; running ones go on. Never all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<Ipv4Addr>,
}

impl Pool {
    /// A pool of these addresses, none drained.
    pub fn new(name: impl Into<String>, addresses: Vec<Ipv4Addr>) -> Self {
        Pool { name: name.into(), addresses, drained: Vec::new() }
    }

    /// The addresses that new conns use.
    pub fn open_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.addresses.iter().copied().filter(|address| !self.drained.contains(address))
    }
}
