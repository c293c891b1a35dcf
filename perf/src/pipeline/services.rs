//! Many services, and flows spread over them.

use std::net::Ipv4Addr;

use sluice_api::{Mode, Protocol, SnapshotService};
use sluice_path::flow::FlowKey;
use sluice_path::testkit;

use crate::setup::SERVICE_PORT;
use crate::traffic::client;

/// Services of the scenarios with many.
pub const SERVICES: u32 = 10_000;
/// Backends of each.
pub const BACKENDS: u16 = 10;
/// Machines that the backends are on: as many next hops.
const MACHINES: u32 = 1_000;

fn vip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xc612_0000 + service)
}

/// 10,000 full-NAT services on VIPs of 198.18.0.0/15, Maglev with 251 slots.
pub fn many() -> Vec<SnapshotService> {
    (0..SERVICES)
        .map(|number| {
            let name = format!("web-{number}");
            let mut service =
                testkit::service(&name, SERVICE_PORT, Protocol::Tcp, Mode::FullNat, BACKENDS);
            service.vip = vip(number).into();
            service.scheduler = sluice_api::Scheduler::Maglev;
            for (i, backend) in service.backends.iter_mut().enumerate() {
                let machine = (number * u32::from(BACKENDS) + i as u32) % MACHINES;
                backend.address = Ipv4Addr::from_bits(0x0a00_1000 + machine).into();
            }
            service
        })
        .collect()
}

/// Flow number `i`: its client's, to the service whose turn it is.
pub fn flow(i: u32) -> FlowKey {
    FlowKey { dst: vip(i % SERVICES).to_bits(), ..client(i) }
}
