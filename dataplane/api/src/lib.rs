//! What both Sluice processes agree on.
//!
//! `sluice-control` holds the desired state and sends it as a [`Snapshot`]; `sluice-dataplane`
//! answers with statistics, events and its own status. Both directions use the [`message`] types
//! over one unix socket. Everything here is plain data: no I/O but the framing, no DPDK, no unsafe.
//!
//! The words are those of the API, the CLI, the metrics and the docs: service, backend, pool, vip.
#![forbid(unsafe_code)]

pub mod change;
pub mod clock;
pub mod drop_reason;
pub mod event;
pub mod event_limit;
mod family;
pub mod message;
pub mod problems;
pub mod read;
pub mod schema;
pub mod service;
mod shared;
pub mod snapshot;
mod snapshot_change;
pub mod stats;
pub mod validate;

pub use change::FieldChange;
pub use drop_reason::DropReason;
pub use event::Severity;
pub use problems::{Problem, Problems};
pub use service::{
    AdminState, Backend, BackendId, HashOn, Mode, NoConn, Pool, Protocol, Refusal, Scheduler,
    Service, Timeouts,
};
pub use shared::Shared;
pub use snapshot::{Snapshot, SnapshotBackend, SnapshotService};
pub use snapshot_change::{ChangedBackends, SnapshotChange};

/// Version of the messages on the socket between the two processes. It changes when an old peer
/// would misread a new message; a peer with another version is refused with a clear error.
pub const PROTOCOL_VERSION: u32 = 1;

/// Where the data plane listens unless its file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/dataplane.sock";

/// Exit status of both daemons when their file is wrong or cannot be read (`EX_CONFIG` of sysexits.h).
/// Starting again does not help: the systemd units do not.
pub const EXIT_WRONG_FILE: u8 = 78;

/// Where the HTTP API listens unless control's file says otherwise.
pub const DEFAULT_API_LISTEN: &str = "127.0.0.1:9600";

/// Header of a request that says that no web page sends it: a page of another site cannot.
pub const CLIENT_HEADER: &str = "sluice-client";

/// The longest wait for a change that a client may ask for, in ms.
pub const MAX_WAIT_MS: u64 = 60_000;
