//! What the operator and the kernel are told of next hops.

use std::net::Ipv4Addr;

use sluice_wire::ether::MacAddr;

use super::entry::{Entry, Rank, State};
use super::{Action, Resolver};

/// A next hop for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that it is behind.
    pub interface: InterfaceId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC address, when packets can go there.
    pub mac: Option<MacAddr>,
    /// `incomplete`, `reachable`, `probing` or `failed`.
    pub state: &'static str,
    /// Time since it was last confirmed, or since it was first wanted if it never was, in ms.
    pub age_ms: u64,
}
use crate::ids::InterfaceId;
use crate::next_hop::NextHop;

impl Resolver {
    /// All next hops, in order of address.
    pub fn status(&self, now_ms: u64) -> Vec<Neighbour> {
        let mut neighbours: Vec<Neighbour> = self
            .entries
            .iter()
            .map(|(hop, entry)| Neighbour {
                interface: hop.interface,
                address: hop.ip(),
                mac: entry.mac(),
                state: match entry.state {
                    State::Incomplete { .. } => "incomplete",
                    State::Reachable { .. } => "reachable",
                    State::Probing { .. } => "probing",
                    State::Failed { .. } => "failed",
                },
                age_ms: now_ms.saturating_sub(entry.confirmed_ms),
            })
            .collect();
        neighbours.sort_unstable_by_key(|n| (n.address, n.interface));
        neighbours
    }

    /// It may know where this was before; of strangers there may be any number.
    pub(super) fn tell_kernel(&mut self, key: NextHop, mac: MacAddr) {
        if self.entries.get(&key).is_some_and(|entry| entry.rank > Rank::Stranger) {
            self.actions.push(Action::TellKernel { hop: key, mac });
        }
    }

    pub(super) fn moved(&mut self, key: NextHop, from: MacAddr, to: MacAddr) {
        let subject = self.name(key);
        let message = format!("{subject} moved from {from} to {to}");
        self.actions.push(Action::Event { kind: "neighbour-moved", subject, message });
    }

    pub(super) fn table_full(&mut self, key: NextHop) {
        let message = format!(
            "no room for {}: all {} entries are in use; raise limits.neighbours",
            self.name(key),
            self.capacity
        );
        let subject = "neighbours".to_owned();
        self.actions.push(Action::Event { kind: "neighbour-table-full", subject, message });
    }

    /// Some of the addresses that are known to have a MAC address behind an interface.
    pub fn addresses_of(&self, interface: InterfaceId, mac: MacAddr) -> Vec<Ipv4Addr> {
        let has_it = |(hop, entry): &(&NextHop, &Entry)| {
            hop.interface == interface && entry.mac() == Some(mac)
        };
        let known = self.entries.iter().filter(has_it);
        known.map(|(hop, _)| hop.ip()).take(4).collect()
    }

    /// As `10.0.0.7 on lan`.
    pub(super) fn name(&self, hop: NextHop) -> String {
        let address = hop.ip();
        match self.names.get(hop.interface.index()) {
            Some(name) => format!("{address} on {name}"),
            None => format!("{address} on interface {}", hop.interface),
        }
    }
}
