//! What a worker tells the main thread.

use sluice_wire::ether::MacAddr;

use crate::next_hop::{NextHop, Purpose};

/// Messages to the main thread that one burst may cause.
pub const OUTBOX: usize = 64;

/// What a worker tells the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToMain {
    /// A next hop is in use: resolve it, or confirm it.
    Want {
        /// Which one.
        hop: NextHop,
        /// For what.
        purpose: Purpose,
    },
    /// An ARP packet told where somebody is.
    Arp {
        /// Its sender, behind the interface that it came in by.
        sender: NextHop,
        /// Sender's MAC address.
        mac: MacAddr,
        /// Whether it is a reply.
        is_reply: bool,
        /// Whether it asks for, or answers to, one of our addresses.
        for_us: bool,
        /// Whether the sender claims an address of ours: never the MAC address of a port.
        conflict: bool,
    },
}
