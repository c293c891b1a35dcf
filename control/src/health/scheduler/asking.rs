//! A check about to be made.

use std::sync::Arc;
use std::time::Duration;

use sluice_api::BackendId;
use sluice_api::service::HealthCheck;

use crate::health::kernel::Kernel;
use crate::health::probe::{Outcome, probe};
use crate::health::way::{Via, Ways};

/// A check about to be made.
pub(super) struct Asking {
    pub(super) kernel: Kernel,
    pub(super) ways: Arc<Ways>,
    pub(super) last: Via,
    pub(super) backend: BackendId,
    pub(super) check: HealthCheck,
    pub(super) deadline: Duration,
}

impl Asking {
    /// Ask if that can be done. By what way, and what came of it.
    pub(super) async fn ask(self) -> (Option<Via>, Outcome) {
        let Asking { kernel, ways, last, backend, check, deadline } = self;
        let way = kernel.way(backend.address).await;
        let via = match ways.admit(&last, &way) {
            Ok(via) => via,
            Err(reason) => return (None, Outcome::Unable(reason)),
        };
        let mut outcome = probe(backend, &check, deadline).await;
        if matches!(outcome, Outcome::Silent(_)) && kernel.way(backend.address).await != way {
            outcome = Outcome::Unable("no answer, but this host's route has changed".to_owned());
        }
        (Some(via), outcome)
    }
}
