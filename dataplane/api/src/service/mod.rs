//! Services, backends and local pools: the words an operator uses, with the same fields and units
//! in TOML, JSON and the CLI.

mod backend;
mod health_check;
mod policy;
mod pool;
mod timeouts;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{Object, Resource, fields_of, range_text};

pub use backend::{AdminState, Backend, BackendId, NewWeight, NotABackend, default_weight};
pub use health_check::{
    CheckClose, HealthCheck, HealthCheckKind, INTERVAL_MS, MIN_TIMEOUT_MS, RISE_FALL, STATUS,
};
pub use policy::{HashOn, Mode, NoConn, Protocol, Refusal, Scheduler};
pub use pool::Pool;
pub use timeouts::{TIMEOUT_MS, Timeouts};

/// Sizes of a Maglev table.
pub const MAGLEV_SLOTS: RangeInclusive<u32> = 251..=655_373;

/// What is accepted as a size of a Maglev table.
pub fn prime_in(range: &RangeInclusive<u32>) -> String {
    format!("a prime from {}", range_text(range))
}

/// Maglev slots of a service that names none: the first of five primes, each about four times the last,
/// that has 128 for each of so many backends. So the share of a backend is right to 1 %, as in the paper
/// (section 5.3: a table of more than 100 slots for each), and seldom a backend more is another size, and
/// with it another backend for most new conns.
pub const fn maglev_slots_for(backends: usize) -> u32 {
    match backends {
        0..=32 => 4_099,
        33..=128 => 16_411,
        129..=512 => 65_537,
        513..=2_048 => 262_147,
        _ => *MAGLEV_SLOTS.end(),
    }
}

/// A virtual service: what clients connect to, and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name: 1 to 63 of `a-z`, `0-9`, `-`, `.`, `_`; unique.
    pub name: String,
    /// The address clients connect to.
    pub vip: IpAddr,
    /// The L4 port clients connect to, 1 to 65,535.
    #[schemars(range(min = 1))]
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
    /// Slots of the Maglev table: a prime from 251 to 655,373. Absent: by the number of backends
    /// ([`maglev_slots_for`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        range(min = *MAGLEV_SLOTS.start(), max = *MAGLEV_SLOTS.end()),
        extend("x-accepted" = prime_in(&MAGLEV_SLOTS)),
    )]
    pub maglev_slots: Option<u32>,
    /// Most conns that it may have at a time, over all backends and workers, 1 to 4,294,967,295;
    /// new ones beyond are dropped. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// The pool of local addresses; full-NAT needs one, DR takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-accepted" = "the name of a pool"))]
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

impl Service {
    /// Slots of its Maglev table, by what it says or by its backends.
    pub fn maglev_table_slots(&self) -> u32 {
        self.maglev_slots.unwrap_or(maglev_slots_for(self.backends.len()))
    }
}

impl Resource for Service {
    const MANY: &str = "services";
    const ONE: &str = "service";

    fn object() -> &'static Object {
        static OBJECT: LazyLock<Object> = LazyLock::new(|| {
            let below =
                [fields_of::<Timeouts>(), fields_of::<HealthCheck>(), fields_of::<Backend>()];
            Object::of::<Service>(&below)
        });
        &OBJECT
    }
}
