//! `sluice pool …`

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};

/// Names an address of a pool.
#[derive(Debug, Args)]
pub(crate) struct PoolAddress {
    /// Name of the pool.
    pub(crate) name: String,
    /// The address.
    pub(crate) address: Ipv4Addr,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// All pools.
    List,
    /// One pool.
    Show {
        /// Its name.
        name: String,
    },
    /// Make a new pool.
    Create {
        /// Its name.
        name: String,
        /// A local address; may be repeated, or several separated by commas.
        #[arg(long = "address", value_name = "ADDRESS", required = true, value_delimiter = ',')]
        addresses: Vec<Ipv4Addr>,
    },
    /// Add addresses to a pool.
    AddAddress {
        /// Its name.
        name: String,
        /// The addresses.
        #[arg(required = true, value_delimiter = ',')]
        addresses: Vec<Ipv4Addr>,
    },
    /// Remove addresses from a pool.
    RemoveAddress {
        /// Its name.
        name: String,
        /// The addresses.
        #[arg(required = true, value_delimiter = ',')]
        addresses: Vec<Ipv4Addr>,
    },
    /// Let an address keep its conns, but give it no new ones.
    Drain {
        #[command(flatten)]
        at: PoolAddress,
    },
    /// Let new conns use an address again.
    Up {
        #[command(flatten)]
        at: PoolAddress,
    },
    /// Remove a pool that no service uses.
    Delete {
        /// Its name.
        name: String,
    },
}
