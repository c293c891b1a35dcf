//! The desired state and everything that can be done to it. Pure: no I/O, no clock.
//!
//! What enters: a [`State`] and a change of one of its resources ([`resource`]), or of many ([`Batch`]). What leaves: the next state, or an [`ApiProblem`]
//! that lists everything that is wrong; the old state is never touched.

mod batch;
pub mod check;
pub mod diff;
mod left_out;
mod merge;
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
pub use precondition::{Precondition, state_tag, tag_of};
pub use problem::{ApiProblem, Kind};
pub use resource::check_next;

/// What the operator wants: services, pools, and how often that has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Grows by one with every change; the `ETag` of lists and of the whole.
    pub version: u64,
    /// All services, oldest first.
    pub services: Vec<Service>,
    /// All pools, oldest first.
    pub pools: Vec<Pool>,
}

impl State {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name == name)
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|p| p.name == name)
    }

    /// The service of this name, or the problem that says which there are.
    ///
    /// # Errors
    /// [`ApiProblem::NotFound`].
    pub fn find_service(&self, name: &str) -> Result<&Service, ApiProblem> {
        self.service(name).ok_or_else(|| self.no_service(name))
    }

    fn no_service(&self, name: &str) -> ApiProblem {
        ApiProblem::not_found(Kind::Service, name, self.services.iter().map(|s| &s.name))
    }
}
