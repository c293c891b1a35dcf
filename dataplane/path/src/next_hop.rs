//! Next hops, and what workers and the main thread say to each other about them.

use crate::ids::InterfaceId;
use std::net::Ipv4Addr;

use sluice_wire::ether::MacAddr;

/// Where to send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The interface that it is behind.
    pub interface: InterfaceId,
    /// Whose MAC address the frame gets, in host order: the gateway, or the destination itself
    /// when its network is connected.
    pub address: u32,
}

impl NextHop {
    /// Its address.
    pub const fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address)
    }
}

/// For what a worker wants a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Packets to a backend, or by a gateway.
    Site,
    /// Packets of a conn to which both sides have agreed.
    Client,
    /// An answer to somebody of whom there was a first packet and no more.
    Stranger {
        /// The MAC address that it came from, where that is known.
        came_from: Option<MacAddr>,
    },
}

impl Purpose {
    /// The MAC address to ask first.
    pub fn came_from(self) -> Option<MacAddr> {
        match self {
            Purpose::Stranger { came_from } => came_from.filter(|mac| mac.is_station()),
            Purpose::Site | Purpose::Client => None,
        }
    }
}

/// News of a next hop for the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourUpdate {
    /// Which one.
    pub hop: NextHop,
    /// What is known of it now.
    pub state: NeighbourState,
}

/// What workers know of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Packets can go to this MAC address.
    Reachable(MacAddr),
    /// It does not answer.
    Failed,
    /// It is forgotten: a worker that still uses it has to ask again.
    Removed,
}
