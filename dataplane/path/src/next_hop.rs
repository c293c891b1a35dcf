//! Next hops, and what workers and the main thread say to each other about them.

use crate::family::{Family, V4};
use crate::ids::InterfaceId;
use sluice_wire::ether::MacAddr;

/// Where to send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop<F: Family = V4> {
    /// The interface that it is behind.
    pub interface: InterfaceId,
    /// Whose MAC address the frame gets, in host order: the gateway, or the destination itself
    /// when its network is connected.
    pub address: F::Address,
}

impl<F: Family> NextHop<F> {
    /// Its address.
    pub fn ip(self) -> F::Ip {
        F::ip(self.address)
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
pub struct NeighbourUpdate<F: Family = V4> {
    /// Which one.
    pub hop: NextHop<F>,
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
