//! `sluice pool …`

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::value::address;

/// Names an address of a pool.
#[derive(Debug, Args)]
pub(crate) struct PoolAddress {
    /// Name of the pool.
    pub(crate) name: String,
    /// The address.
    #[arg(value_parser = address)]
    pub(crate) address: IpAddr,
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
        #[arg(
            long = "address",
            value_name = "ADDRESS",
            required = true,
            value_delimiter = ',',
            value_parser = address
        )]
        addresses: Vec<IpAddr>,
    },
    /// Add addresses to a pool.
    AddAddress {
        /// Its name.
        name: String,
        /// The addresses.
        #[arg(required = true, value_delimiter = ',', value_parser = address)]
        addresses: Vec<IpAddr>,
    },
    /// Remove addresses from a pool.
    RemoveAddress {
        /// Its name.
        name: String,
        /// The addresses.
        #[arg(required = true, value_delimiter = ',', value_parser = address)]
        addresses: Vec<IpAddr>,
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
