//! `sluice host …`

use std::net::IpAddr;
use std::time::Duration;

use clap::Subcommand;

use super::value::{address, span};

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// All backends at an address, in whichever services, with their conns.
    Show {
        /// The host's address.
        #[arg(value_parser = address)]
        address: IpAddr,
    },
    /// Give a host no new conns in any service; those that it has go on.
    ///
    /// One change for all its backends. Refused when a service would be left without a backend that
    /// takes new conns, unless --force is given.
    Drain {
        /// The host's address.
        #[arg(value_parser = address)]
        address: IpAddr,
        /// Also when services are left without a backend for new conns.
        #[arg(long)]
        force: bool,
        /// Wait for so long until it has no conns left, telling how many there are.
        #[arg(long, value_name = "TIME", value_parser = span)]
        deadline: Option<Duration>,
    },
    /// Give a host that drains new conns again, in all services.
    Up {
        /// The host's address.
        #[arg(value_parser = address)]
        address: IpAddr,
    },
}
