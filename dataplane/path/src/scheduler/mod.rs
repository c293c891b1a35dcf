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

use sluice_api::{BackendId, HashOn, Scheduler, SnapshotService};

use crate::flow::FlowKey;

pub use sluice_api::validate::MAX_SERVICE_BACKENDS;

/// How a service picks, with what was computed for it.
pub enum Picker {
    /// Table and what is hashed into it.
    Maglev(MaglevTable, HashOn),
    /// The cycle; where a worker stands in it is the worker's.
    Wrr(WrrTable),
    /// Conns are counted by the worker, and by its view those of the others. With many backends, some
    /// of them are looked at.
    Wlc(Option<WeightSampler>),
    /// Weighted by a hash of the client address.
    SourceHash(SourceHashTable),
}

impl Picker {
    /// That of a service whose backends have these effective weights.
    pub fn build(service: &SnapshotService, weighted: &[(BackendId, u16)]) -> Self {
        let weights = || weighted.iter().map(|(_, weight)| *weight).collect::<Box<[u16]>>();
        match service.scheduler {
            Scheduler::Maglev => {
                Picker::Maglev(MaglevTable::build(weighted, service.maglev_slots), service.hash_on)
            }
            Scheduler::Wrr => Picker::Wrr(WrrTable::build(&weights())),
            Scheduler::Wlc => Picker::Wlc(WeightSampler::for_large(&weights())),
            Scheduler::SourceHash => Picker::SourceHash(SourceHashTable::build(weighted)),
        }
    }

    /// The choice for a flow: its place among the backends. `wrr` is where the worker stands in turn,
    /// `least` finds the backend with the least conns for the load of each.
    #[inline(always)]
    pub fn pick(
        &self,
        flow: &FlowKey,
        wrr: &mut Wrr,
        least: impl FnOnce(Option<&WeightSampler>) -> Option<usize>,
    ) -> Option<usize> {
        match self {
            Picker::Maglev(table, hash_on) => {
                table.lookup(maglev_hash(*hash_on, flow)).map(usize::from)
            }
            Picker::Wrr(table) => wrr.pick(table).map(usize::from),
            Picker::Wlc(sampler) => least(sampler.as_ref()),
            Picker::SourceHash(table) => table.lookup(source_hash(flow.src)).map(usize::from),
        }
    }

    /// The choice among those that `takes` tells, or the scheduler's next one; `least` knows them.
    /// Schedulers by hash and in turn look at so many of their choices only: then the first backend
    /// that takes it has it, from a place of their own on.
    pub fn pick_where(
        &self,
        flow: &FlowKey,
        weights: &[u16],
        wrr: &mut Wrr,
        least: impl FnOnce(Option<&WeightSampler>) -> Option<usize>,
        takes: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let takes_it = |index: u16| takes(usize::from(index));
        let (next, start) = match self {
            Picker::Maglev(table, hash_on) => {
                let hash = maglev_hash(*hash_on, flow);
                (table.lookup_where(hash, takes_it), hash)
            }
            Picker::Wrr(table) => (wrr.pick_where(table, takes_it), wrr.seed()),
            Picker::Wlc(sampler) => return least(sampler.as_ref()),
            Picker::SourceHash(table) => {
                let hash = source_hash(flow.src);
                (table.lookup_where(hash, takes_it), hash)
            }
        };
        next.map(usize::from).or_else(|| {
            let start = start % (weights.len() as u64).max(1);
            first_that_takes(weights, start, takes)
        })
    }
}

/// What Maglev looks up for a flow.
fn maglev_hash(hash_on: HashOn, flow: &FlowKey) -> u64 {
    match hash_on {
        HashOn::Source => source_hash(flow.src),
        HashOn::FiveTuple => flow_hash(flow),
    }
}
