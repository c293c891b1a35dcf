//! One end of a flow, as a service or a backend has it.

use std::net::IpAddr;

use sluice_api::Protocol;

use crate::family::V4;
use crate::ids::L4Port;

/// An address in host order, a port and a protocol: where a service or a backend takes conns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint<A = u32> {
    /// Address.
    pub address: A,
    /// L4 port.
    pub port: L4Port,
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
}

impl Endpoint {
    /// That of a service or a backend of a snapshot, which is [valid](V4::of_valid).
    pub fn of_valid(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        let address = V4::of_valid(address);
        Endpoint { address, port: L4Port(port), protocol: protocol.number() }
    }
}
