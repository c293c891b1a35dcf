//! What the data plane is and knows: who it is, its ports and workers, next hops, events.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Severity;

/// Who the data plane is and what it took at start-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataplaneStatus {
    /// Version of the program.
    pub version: String,
    /// Random per start: a change means that the data plane was restarted and knows nothing.
    pub boot_id: u64,
    /// Time since start, in ms.
    pub uptime_ms: u64,
    /// Process id.
    pub pid: u32,
    /// Generation of the last snapshot applied, 0 before the first.
    pub generation: u64,
    /// Lowest generation that any worker still forwards by.
    pub workers_generation: u64,
    /// When a worker was last stuck: what was not answered then may have been lost there. Absent
    /// when that was never, or more than 5 s ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
    /// Grows whenever what [`UnreachableBackends`](crate::message::Request::UnreachableBackends)
    /// answers may have changed, from 0 at each start.
    #[serde(default)]
    pub unreachable_changes: u64,
    /// VIPs and local addresses whose announcements have left since start, three times by each of their
    /// ports whose link is up, and that are still in the snapshot.
    pub announced: Vec<IpAddr>,
    /// Ports, in the order of the file.
    pub ports: Vec<PortStatus>,
    /// Workers, in order.
    pub workers: Vec<WorkerStatus>,
    /// Table sizes from `[limits]`.
    pub limits: Limits,
}

/// A time in which some worker, or the main thread, did not come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Doubt {
    /// How long ago it began, in ms.
    pub began_ms: u64,
    /// How long ago it ended, in ms; 0 while it lasts.
    pub ended_ms: u64,
}

/// Table sizes: fixed at start-up, all in entries over the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Conns (1,024 to 200,000,000).
    pub connections: u32,
    /// Services (1 to 65,535).
    pub services: u32,
    /// Backends of all services together (1 to 1,000,000).
    pub backends: u32,
    /// Next hops, 16 to 65,535.
    pub neighbours: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 1_000_000, services: 1_024, backends: 16_384, neighbours: 4_096 }
    }
}

/// A port as it was brought up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PortStatus {
    /// Name from the file.
    pub name: String,
    /// DPDK's name of the device.
    pub device: String,
    /// DPDK's name of its driver.
    pub driver: String,
    /// MAC address, as `02:00:00:00:00:01`.
    pub mac: String,
    /// Addresses with prefix length, as `10.0.0.1/24`.
    pub addresses: Vec<String>,
    /// Receive queues (as many transmit queues).
    pub queues: u16,
    /// Queues that the device could have.
    pub max_queues: u16,
    /// MTU in bytes.
    pub mtu: u16,
    /// MTU that the device could have, in bytes.
    pub max_mtu: u16,
    /// Whether the device verifies IPv4 header checksums.
    pub ip_checksum_offload: bool,
    /// Whether the device verifies TCP and UDP checksums.
    pub l4_checksum_offload: bool,
    /// Whether the link is up.
    pub link_up: bool,
    /// How packets find the worker that owns their conn: `single-worker`; `rss`, by the NIC; or
    /// `handover`, by the worker that receives them.
    pub steering: String,
    /// Why so, in a few words.
    pub steering_reason: String,
    /// Bytes of the RSS key, 0 when it is not known.
    pub rss_key_bytes: u16,
    /// Entries of the RSS table (RETA), 0 when it is not known.
    pub rss_table_entries: u16,
    /// Name of the kernel interface that is its exception port.
    pub exception: Option<String>,
}

/// A worker as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    /// Its number, from 0.
    pub worker: u16,
    /// The CPU it is pinned to.
    pub cpu: u16,
    /// Generation of the snapshot that it forwards by.
    pub generation: u64,
    /// For how long it has not come round, in ms, once that is 100; else 0.
    #[serde(default)]
    pub stuck_ms: u64,
}

/// A next hop as the data plane knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NeighbourStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, when known.
    pub mac: Option<String>,
    /// Name of the port behind which it is.
    pub port: String,
    /// `incomplete`, `reachable`, `probing` or `failed`.
    pub state: String,
    /// Time since it was last confirmed, in ms.
    pub age_ms: u64,
}

/// A backend that the data plane cannot send to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct UnreachableBackend {
    /// The backend's address.
    pub address: IpAddr,
    /// The next hop towards it, itself or a gateway, which does not answer ARP. Absent when no route
    /// leads to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
}

/// Something that happened in the data plane, for an operator to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataplaneEvent {
    /// Grows by one with every event since start.
    pub seq: u64,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
    /// A word for programs: `neighbour-moved`, `neighbour-failed`, `link-up`, `link-down`, `table-80-percent`, …
    pub kind: String,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// A sentence for people.
    pub message: String,
}
