//! What the stages share: five things. Each stage is given those that it works on, beside the state
//! that is its own.

use std::sync::Arc;

use sluice_wire::ether::MacAddr;
use sluice_wire::flow_head::Station;

use super::InterfaceInfo;
use super::next_hop::NextHops;
use crate::counters::WorkerCounters;
use crate::ids::InterfaceId;
use crate::snapshot::Compiled;
use crate::table::conn::ConnTable;
use crate::table::local_port::OwnPorts;
use crate::time::Millis;

/// What all packets of a burst are decided by.
#[derive(Clone, Copy)]
pub struct Context<'c> {
    /// The snapshot in force.
    pub config: &'c Compiled,
    /// The time.
    pub now: Millis,
}

/// The five things.
pub struct Shared {
    /// Conns.
    pub conns: ConnTable,
    /// Routes and neighbours, and what the main thread is to know of them.
    pub next_hops: NextHops,
    /// This worker's part of all local ports.
    pub local_ports: OwnPorts,
    /// What the worker counts.
    pub counters: Arc<WorkerCounters>,
    /// The interfaces.
    pub interfaces: Interfaces,
}

/// Where packets come in and leave.
pub struct Interfaces {
    all: Box<[InterfaceInfo]>,
    /// By interface: what sound packets to it have in common.
    stations: Box<[Station]>,
}

impl Interfaces {
    /// These, in order.
    pub fn new(all: Vec<InterfaceInfo>) -> Self {
        Interfaces { stations: all.iter().map(|i| i.mac.into()).collect(), all: all.into() }
    }

    /// What there is to know of one.
    #[inline(always)]
    pub fn get(&self, interface: InterfaceId) -> &InterfaceInfo {
        &self.all[interface.index()]
    }

    /// What sound packets to one have in common.
    #[inline(always)]
    pub fn station(&self, interface: InterfaceId) -> Station {
        self.stations[interface.index()]
    }

    /// Whether it is the MAC address of one of ours.
    #[inline(always)]
    pub fn is_own_mac(&self, mac: MacAddr) -> bool {
        self.stations.contains(&mac.into())
    }

    /// All of them, to change what they are.
    #[cfg(test)]
    pub fn all_mut(&mut self) -> &mut [InterfaceInfo] {
        &mut self.all
    }
}
