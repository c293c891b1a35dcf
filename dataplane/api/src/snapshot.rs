//! The desired state as the data plane needs it: whole, immutable, numbered.

use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::service::{
    AdminState, Backend, BackendId, HashOn, Mode, NoConn, Pool, Protocol, Refusal, Scheduler,
    Service, Timeouts,
};
use crate::shared::Shared;

/// The largest generation: numbers up to it are the same in every reader of JSON. Any other may follow
/// it.
pub const MAX_GENERATION: u64 = 1 << 53;

/// Everything the data plane forwards by. Control sends the whole of it for a single weight and
/// for 30,000 backends alike; the data plane takes all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows with every change; the data plane refuses to go back, but from [`MAX_GENERATION`].
    pub generation: u64,
    /// All services. Copies of a snapshot share them.
    pub services: Vec<Shared<SnapshotService>>,
    /// All local pools.
    pub pools: Vec<Pool>,
    /// What who comes to a VIP is answered with where no service is.
    #[serde(default)]
    pub no_service: Refusal,
}

/// A service, less what only control needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotService {
    /// Its name.
    pub name: String,
    /// The address clients connect to.
    pub vip: IpAddr,
    /// The L4 port clients connect to.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// How packets reach its backends.
    pub mode: Mode,
    /// How a new conn chooses its backend.
    pub scheduler: Scheduler,
    /// What Maglev hashes.
    pub hash_on: HashOn,
    /// Slots of the Maglev table.
    pub maglev_slots: u32,
    /// Most conns over all backends and workers; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// Name of its pool (full-NAT).
    pub pool: Option<String>,
    /// What TCP segments without a conn are answered with.
    pub no_conn: NoConn,
    /// What new clients are answered with while no backend takes new conns.
    pub no_backend: Refusal,
    /// Idle timeouts of its conns.
    pub timeouts: Timeouts,
    /// Its backends, with their health.
    pub backends: Vec<SnapshotBackend>,
}

/// A backend with its observed health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBackend {
    /// Its address.
    pub address: IpAddr,
    /// Its L4 port.
    pub port: u16,
    /// Its configured weight.
    pub weight: u16,
    /// Most conns over all workers; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// What the operator wants it to do.
    pub state: AdminState,
    /// What the health checks say.
    pub healthy: bool,
}

impl SnapshotBackend {
    /// Its identity within the service.
    pub fn id(&self) -> BackendId {
        BackendId { address: self.address, port: self.port }
    }

    /// Whether the scheduler may give it a new conn.
    pub fn takes_new_conns(&self) -> bool {
        self.healthy && self.state == AdminState::Up && self.weight > 0
    }
}

impl SnapshotService {
    /// Whether another is this one but for degrees: the weights, limits, states and health of its
    /// backends. No rule of [`validate`](crate::validate) looks at any of these.
    pub fn differs_in_degree(&self, other: &SnapshotService) -> bool {
        // A field that is added here is to be put on one side or the other.
        let SnapshotService {
            name,
            vip,
            port,
            protocol,
            mode,
            scheduler,
            hash_on,
            maglev_slots,
            max_conns,
            pool,
            no_conn,
            no_backend,
            timeouts,
            backends,
        } = self;
        let id = SnapshotBackend::id;
        (name, vip, port, protocol, mode)
            == (&other.name, &other.vip, &other.port, &other.protocol, &other.mode)
            && (scheduler, hash_on, maglev_slots)
                == (&other.scheduler, &other.hash_on, &other.maglev_slots)
            && (max_conns, pool, no_conn, no_backend)
                == (&other.max_conns, &other.pool, &other.no_conn, &other.no_backend)
            && *timeouts == other.timeouts
            && backends.len() == other.backends.len()
            && backends.iter().map(id).eq(other.backends.iter().map(id))
    }

    /// A service as the data plane needs it; `healthy` tells the observed health of each backend.
    pub fn from_service(service: &Service, mut healthy: impl FnMut(&Backend) -> bool) -> Self {
        SnapshotService {
            name: service.name.clone(),
            vip: service.vip,
            port: service.port,
            protocol: service.protocol,
            mode: service.mode,
            scheduler: service.scheduler,
            hash_on: service.hash_on,
            maglev_slots: service.maglev_table_slots(),
            max_conns: service.max_conns,
            pool: service.pool.clone(),
            no_conn: service.no_conn.unwrap_or(NoConn::of_mode(service.mode)),
            no_backend: service.no_backend,
            timeouts: service.timeouts,
            backends: service
                .backends
                .iter()
                .map(|b| SnapshotBackend {
                    address: b.address,
                    port: b.port,
                    weight: b.weight,
                    max_conns: b.max_conns,
                    state: b.state,
                    healthy: healthy(b),
                })
                .collect(),
        }
    }
}
