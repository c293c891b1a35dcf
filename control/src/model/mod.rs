//! The desired state and everything that can be done to it. Pure: no I/O, no clock.
//!
//! What enters: a [`State`] and a change of one of its resources ([`resource`]), or of many ([`Batch`]). What leaves: the next state, or an [`ApiProblem`]
//! that lists everything that is wrong; the old state is never touched.

mod batch;
pub mod check;
pub mod diff;
mod left_out;
mod merge;
mod named;
mod precondition;
mod problem;
pub mod reach;
pub mod resource;

use serde::{Deserialize, Serialize};
use sluice_api::{Pool, Service};

pub use batch::Batch;
pub use check::Environment;
pub use left_out::LeftOut;
pub use merge::merge_patch;
pub use named::{Changed, HasName, Named};
pub use precondition::{Precondition, state_tag, tag_of};
pub use problem::{ApiProblem, Kind};
pub use resource::check_next;

/// What the operator wants: services, pools, and how often that has changed. A copy is a copy of pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Grows by one with every change; the `ETag` of lists and of the whole.
    pub version: u64,
    /// All services, oldest first.
    pub services: Named<Service>,
    /// All pools, oldest first.
    pub pools: Named<Pool>,
}

impl State {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// Take what is equal in `held` from there, so that pointers tell what differs.
    pub fn share_with(&mut self, held: &State) {
        self.services.share_with(&held.services);
        self.pools.share_with(&held.pools);
    }

    /// The service of this name, or the problem that says which there are.
    ///
    /// # Errors
    /// [`ApiProblem::NotFound`].
    pub fn find_service(&self, name: &str) -> Result<&Service, ApiProblem> {
        let known = || self.services.iter().map(|service| &service.name);
        self.service(name).ok_or_else(|| ApiProblem::not_found(Kind::Service, name, known()))
    }
}
