//! `sluice backend …`

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use sluice_api::BackendId;

use super::value::{Limit, limit, limit_or_none};

#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// All backends of a service, with their health.
    List {
        /// Name of the service.
        service: String,
    },
    /// Add a backend to a service.
    Add {
        #[command(flatten)]
        at: BackendAt,
        /// Its share relative to the service's other backends.
        #[arg(long)]
        weight: Option<u16>,
        /// Most conns at a time, over all workers.
        #[arg(long, value_name = "N", value_parser = limit)]
        max_conns: Option<NonZeroU32>,
        /// The zone it stands in.
        #[arg(long)]
        zone: Option<String>,
        /// What it is to do at first.
        #[arg(long, value_parser = ["up", "drain", "down"])]
        state: Option<String>,
    },
    /// Remove a backend from a service. Drain it first to let its conns finish.
    Remove {
        #[command(flatten)]
        at: BackendAt,
    },
    /// Set a backend's weight; 0 takes no new conns.
    Weight {
        #[command(flatten)]
        at: BackendAt,
        /// The new weight.
        weight: u16,
    },
    /// Set how many conns a backend may have at a time; new ones beyond go to other backends.
    MaxConns {
        #[command(flatten)]
        at: BackendAt,
        /// The new limit, or `none`.
        #[arg(value_name = "N|none", value_parser = limit_or_none)]
        max_conns: Limit,
    },
    /// Let a backend keep its conns, but give it no new ones.
    Drain {
        #[command(flatten)]
        at: BackendAt,
    },
    /// Let a backend take new conns while it is healthy.
    Up {
        #[command(flatten)]
        at: BackendAt,
    },
    /// Take a backend out of service: no new conns, no health checks.
    Down {
        #[command(flatten)]
        at: BackendAt,
    },
}

/// Names a backend.
#[derive(Debug, Args)]
pub(crate) struct BackendAt {
    /// Name of the service.
    pub(crate) service: String,
    /// The backend, as 10.0.0.1:80.
    #[arg(value_name = "ADDR:PORT")]
    pub(crate) backend: BackendId,
}
