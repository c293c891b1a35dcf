//! What a worker tells the main thread.

use sluice_wire::ether::MacAddr;

use crate::next_hop::Purpose;

/// Messages to the main thread that one burst may cause.
pub const OUTBOX: usize = 64;

/// What a worker tells the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToMain {
    /// A next hop is in use: resolve it, or confirm it.
    Want {
        /// Port behind which it is.
        port: u16,
        /// Its address, in host order.
        address: u32,
        /// For what.
        purpose: Purpose,
    },
    /// An ARP packet told where somebody is.
    Arp {
        /// Port it came in by.
        port: u16,
        /// Sender's address, in host order.
        sender: u32,
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
