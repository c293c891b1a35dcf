//! The desired state and everything that can be done to it. Pure: no I/O, no clock.
//!
//! What enters: a [`State`] and an [`Action`]. What leaves: the next state, or an [`ApiProblem`]
//! that lists everything that is wrong; the old state is never touched.

mod apply;
mod batch;
pub mod check;
pub mod diff;
mod left_out;
mod merge;
mod precondition;
mod problem;
pub mod reach;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_api::{AdminState, Backend, BackendId, Pool, Service};

pub use apply::{apply, check_next};
pub use batch::Batch;
pub use check::Environment;
pub use left_out::LeftOut;
pub use merge::merge_patch;
pub use precondition::{Precondition, state_tag, tag_of};
pub use problem::{ApiProblem, Kind};

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

    /// The pool of this name, or the problem that says which there are.
    ///
    /// # Errors
    /// [`ApiProblem::NotFound`].
    pub fn find_pool(&self, name: &str) -> Result<&Pool, ApiProblem> {
        self.pool(name).ok_or_else(|| self.no_pool(name))
    }

    fn no_service(&self, name: &str) -> ApiProblem {
        ApiProblem::not_found(Kind::Service, name, self.services.iter().map(|s| &s.name))
    }

    fn no_pool(&self, name: &str) -> ApiProblem {
        ApiProblem::not_found(Kind::Pool, name, self.pools.iter().map(|p| &p.name))
    }
}

/// The backend of this identity within its service, or the problem that says which there are.
///
/// # Errors
/// [`ApiProblem::NotFound`].
pub fn find_backend(service: &Service, id: BackendId) -> Result<&Backend, ApiProblem> {
    service.backends.iter().find(|b| b.id() == id).ok_or_else(|| no_backend(service, id))
}

fn no_backend(service: &Service, id: BackendId) -> ApiProblem {
    ApiProblem::not_found(Kind::Backend, id, service.backends.iter().map(Backend::id))
}

/// Everything the API can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Add a service.
    CreateService(Service),
    /// Put another definition in the place of a service, backends included.
    ReplaceService(Service),
    /// Change some fields of a service (RFC 7396).
    PatchService {
        /// Its name.
        name: String,
        /// What changes.
        patch: Value,
    },
    /// Remove a service and its backends.
    DeleteService {
        /// Its name.
        name: String,
    },
    /// Add a backend to a service.
    CreateBackend {
        /// Name of the service.
        service: String,
        /// The new backend.
        backend: Backend,
    },
    /// Put another definition in the place of a backend.
    ReplaceBackend {
        /// Name of the service.
        service: String,
        /// The new definition; its identity names the old one.
        backend: Backend,
    },
    /// Change some fields of a backend (RFC 7396).
    PatchBackend {
        /// Name of the service.
        service: String,
        /// The backend.
        id: BackendId,
        /// What changes.
        patch: Value,
    },
    /// Set a backend's weight.
    SetWeight {
        /// Name of the service.
        service: String,
        /// The backend.
        id: BackendId,
        /// Its new weight.
        weight: u16,
    },
    /// Set what the operator wants a backend to do.
    SetBackendState {
        /// Name of the service.
        service: String,
        /// The backend.
        id: BackendId,
        /// Its new state.
        state: AdminState,
    },
    /// Remove a backend from a service.
    DeleteBackend {
        /// Name of the service.
        service: String,
        /// The backend.
        id: BackendId,
    },
    /// Add a pool.
    CreatePool(Pool),
    /// Put another definition in the place of a pool.
    ReplacePool(Pool),
    /// Change some fields of a pool (RFC 7396).
    PatchPool {
        /// Its name.
        name: String,
        /// What changes.
        patch: Value,
    },
    /// Let new conns use an address of a pool, or not.
    DrainAddress {
        /// Name of the pool.
        pool: String,
        /// The address.
        address: Ipv4Addr,
        /// Whether they shall not.
        drain: bool,
    },
    /// Make many resources be as they are given.
    Apply(Batch),
    /// Remove a pool that no service uses.
    DeletePool {
        /// Its name.
        name: String,
    },
}
