//! How a new conn chooses its backend: pure functions over weights, no packets, no I/O.
//!
//! What enters is a service's backends with their *effective* weights (0 for one that takes no new
//! conns, see [`SnapshotBackend::takes_new_conns`](sluice_api::SnapshotBackend::takes_new_conns)),
//! what leaves is an index into the caller's list. Tables are built off the workers, once per
//! snapshot, and are immutable; picking neither allocates nor fails, and says `None` when no
//! backend takes new conns.
//!
//! | scheduler | built | picking | state per worker and service |
//! |---|---|---|---|
//! | Maglev | [`MaglevTable`] | O(1) | none |
//! | source hash | [`SourceHashTable`] | O(1) | none |
//! | weighted round robin | [`WrrTable`] | O(1), O(log n) for weights that share no divisor | [`Wrr`], 8 bytes |
//! | weighted least connections | nothing, or [`WeightSampler`] | O(n), O(1) above 256 backends | the conn counts |
//!
//! Backends may be full: then every scheduler has a way on to another choice, the same on all
//! workers where the choice is. Workers do not share their state; what that means for the balance
//! over all of them is said at each scheduler, and held by `tests/tests/scheduling_on_workers.rs`.

mod hash;
mod maglev;
mod sampler;
mod source_hash;
mod wlc;
mod wrr;

pub use hash::{first_that_takes, flow_hash, source_hash};
pub use maglev::MaglevTable;
pub use sampler::WeightSampler;
pub use source_hash::SourceHashTable;
pub use wlc::pick_least_connections;
pub use wrr::{Wrr, WrrTable};

pub use sluice_api::validate::MAX_SERVICE_BACKENDS;
