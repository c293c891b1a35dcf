//! What the data plane tells about itself. Counters count from the data plane's start, never
//! reset, and only grow, except those called a gauge.

mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::service::Protocol;

pub use status::{
    DataplaneEvent, DataplaneStatus, Doubt, Limits, NeighbourStatus, PortStatus,
    UnreachableBackend, WorkerStatus,
};

/// All counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// As in [`DataplaneStatus`].
    pub boot_id: u64,
    /// As in [`DataplaneStatus`].
    pub uptime_ms: u64,
    /// As in [`DataplaneStatus`].
    pub generation: u64,
    /// The main thread.
    #[serde(default)]
    pub main_thread: MainThreadStats,
    /// Per worker.
    pub workers: Vec<WorkerStats>,
    /// Per port.
    pub ports: Vec<PortStats>,
    /// Per service, by name.
    pub services: Vec<ServiceStats>,
    /// Per pool of local addresses, by name.
    #[serde(default)]
    pub pools: Vec<PoolStats>,
    /// Fill of the tables.
    pub tables: Vec<TableUsage>,
    /// Dropped packets by reason's name, over all workers and the main thread; reasons that never
    /// happened are absent.
    pub drops: BTreeMap<String, u64>,
    /// Addresses that no new conn uses and running ones may.
    #[serde(default)]
    pub leaving: Vec<LeavingStats>,
}

/// An address that no new conn uses and running ones may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeavingStats {
    /// The address.
    pub address: IpAddr,
    /// `vip` or `local`.
    pub kind: String,
    /// `drained`, or `removed` from the configuration: answered for until its last conn is gone.
    pub state: String,
    /// Conns that it still has, as counted some seconds ago at most; absent before the first count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conns: Option<u64>,
}

/// How the main thread comes round: it answers control, resolves next hops and moves packets to and from
/// the kernel, so whatever holds it up holds those up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MainThreadStats {
    /// Rounds.
    pub rounds: u64,
    /// Rounds that took 20 ms or longer, or before which it was woken so much too late.
    pub late_rounds: u64,
    /// The longest round of the last 10 to 20 s, in µs, without the nap after it (gauge).
    pub longest_round_us: u64,
    /// How late it was woken from a nap, at the worst in the last 10 to 20 s, in µs (gauge).
    pub latest_wake_us: u64,
}

/// Counters of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStats {
    /// Its number.
    pub worker: u16,
    /// Packets received from ports and from other workers.
    pub rx_packets: u64,
    /// Packets given to ports.
    pub tx_packets: u64,
    /// Packets handed over to another worker.
    pub handed_over: u64,
    /// Packets given to the kernel.
    pub to_kernel: u64,
    /// Dropped packets, all reasons.
    pub dropped: u64,
    /// RSTs sent to who has no conn or finds nobody; what they answer counts as dropped.
    #[serde(default)]
    pub resets_sent: u64,
    /// ICMP destination unreachables sent to who finds nobody, likewise.
    #[serde(default)]
    pub unreachables_sent: u64,
    /// Conns it owns (gauge).
    pub conns: u64,
    /// Conns made.
    pub conns_created: u64,
    /// Conns that ended by timeout or close.
    pub conns_expired: u64,
    /// Poll rounds with at least one packet.
    pub busy_polls: u64,
    /// Poll rounds without any.
    pub idle_polls: u64,
    /// As in [`WorkerStatus`] (gauge).
    #[serde(default)]
    pub stuck_ms: u64,
    /// How often it has not come round for 100 ms or more.
    #[serde(default)]
    pub stalls: u64,
    /// How long that was in all, in ms.
    #[serde(default)]
    pub stalled_ms: u64,
    /// Dropped packets by reason's name; reasons that never happened are absent.
    pub drops: BTreeMap<String, u64>,
}

/// Counters of a port, as its driver keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortStats {
    /// Name from the file.
    pub name: String,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Bytes transmitted.
    pub tx_bytes: u64,
    /// Packets that the device had no room for.
    pub rx_missed: u64,
    /// Packets with errors.
    pub rx_errors: u64,
    /// Packets for which there was no mbuf.
    pub rx_no_mbuf: u64,
    /// Packets that the device could not send.
    pub tx_errors: u64,
    /// Packets that came to another queue than the port's RSS key and table say: they were handed
    /// over. 0 for a port whose RSS is not known.
    #[serde(default)]
    pub mis_steered: u64,
    /// Per queue.
    #[serde(default)]
    pub queues: Vec<QueueStats>,
}

/// Counters of a port's receive queue, as the worker with its number keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueStats {
    /// Its number, and that of the worker that polls it.
    pub queue: u16,
    /// Packets received.
    pub rx_packets: u64,
    /// As in [`PortStats`].
    pub mis_steered: u64,
}

/// Traffic in both directions. `in` is from clients, `out` is towards them; DR sees no `out`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients: IP total length.
    pub bytes_in: u64,
    /// Packets towards clients.
    pub packets_out: u64,
    /// Bytes towards clients: IP total length.
    pub bytes_out: u64,
    /// Conns made.
    pub conns_created: u64,
    /// Conns now (gauge).
    pub conns: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.conns_created += other.conns_created;
        self.conns += other.conns;
    }
}

/// Counters of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStats {
    /// Its name.
    pub name: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// Its L4 port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Traffic, including that of backends that are gone.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Most conns it may have; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// Per backend.
    pub backends: Vec<BackendStats>,
}

/// Counters of a backend within its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackendStats {
    /// Its address.
    pub address: IpAddr,
    /// Its L4 port.
    pub port: u16,
    /// Traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Most conns it may have; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
}

/// What became of a pool's local ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStats {
    /// Its name.
    pub name: String,
    /// How often a port was used again while the backend held it in TIME_WAIT, as no other was free.
    pub reused: u64,
    /// What is to be said about that, when it happened within the last minute.
    pub warning: Option<String>,
}

/// Fill of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableUsage {
    /// `conns`, `neighbours`, `services`, `backends`, or `local_ports/POOL`.
    pub table: String,
    /// Entries in use.
    pub used: u64,
    /// Entries there are.
    pub capacity: u64,
    /// Memory it takes, in bytes.
    pub bytes: u64,
}
