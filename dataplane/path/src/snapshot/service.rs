//! A service as new conns need it: its backends, their weights, how one of them is picked, and the
//! local ports towards each.

use std::sync::Arc;

use sluice_api::{NoConn, Refusal, Shared, SnapshotBackend, SnapshotService};

use crate::family::V4;
use crate::flow::Endpoint;
use crate::ids::{BackendSlot, L4Port, ServiceSlot};
use crate::port_spaces::PortSpaces;
use crate::scheduler::Picker;
use crate::slots::Slots;
use crate::table::port_space::PortSpace;
use crate::treatment::Treatment;

/// A backend as a new conn needs it.
#[derive(Clone, Copy, Debug)]
pub struct CompiledBackend {
    /// Slot of its counters.
    pub slot: BackendSlot,
    /// Its address, in host order.
    pub address: u32,
    /// Its L4 port.
    pub port: L4Port,
    /// Whether it has a limit of conns, and with it a quota on each worker.
    pub is_limited: bool,
}

/// A service as a new conn needs it.
pub struct CompiledService {
    /// Slot of its timeouts and scheduler state.
    pub slot: ServiceSlot,
    /// How packets of its conns leave.
    pub treatment: Treatment,
    /// How a new conn chooses its backend.
    pub picker: Picker,
    /// Its backends.
    pub backends: Box<[CompiledBackend]>,
    /// Their weights for new conns: 0 for those that take none.
    pub weights: Box<[u16]>,
    /// Local addresses (full-NAT), in host order.
    pub local_addresses: Box<[u32]>,
    /// Local ports towards each of its backends (full-NAT).
    pub port_spaces: Box<[Arc<PortSpace>]>,
    /// Whether it has a limit of conns, and with it a quota on each worker.
    pub is_limited: bool,
    /// Whether it or any of its backends has one.
    pub has_limits: bool,
    /// What TCP segments without a conn are answered with.
    pub no_conn: NoConn,
    /// What new clients are answered with while no backend takes new conns.
    pub no_backend: Refusal,
    pub(super) source: Shared<SnapshotService>,
}

impl CompiledService {
    pub(super) fn new(
        service: &Shared<SnapshotService>,
        slots: &Slots,
        local_addresses: Box<[u32]>,
        port_spaces: &PortSpaces,
    ) -> Self {
        let slot = slots.service(&service.name).expect("slots were assigned for this snapshot");
        let space = |b: &SnapshotBackend| {
            let backend = Endpoint::of_valid(b.address, b.port, service.protocol);
            port_spaces.of_backend(backend, &local_addresses).cloned()
        };
        let treatment = Treatment::of(service.mode);
        let port_spaces = if treatment.sees_replies() {
            service.backends.iter().filter_map(space).collect()
        } else {
            Box::default()
        };
        let backends = service
            .backends
            .iter()
            .map(|b| CompiledBackend {
                slot: slots.backend(&(slot, b.id())).expect("slots were assigned"),
                address: V4::of_valid(b.address),
                port: L4Port(b.port),
                is_limited: b.max_conns.is_some(),
            })
            .collect();
        let weighted: Vec<_> = service
            .backends
            .iter()
            .map(|b| (b.id(), if b.takes_new_conns() { b.weight } else { 0 }))
            .collect();
        let weights: Box<[u16]> = weighted.iter().map(|(_, weight)| *weight).collect();
        CompiledService {
            slot,
            treatment,
            picker: Picker::build(service, &weighted),
            backends,
            weights,
            local_addresses,
            port_spaces,
            is_limited: service.max_conns.is_some(),
            has_limits: service.max_conns.is_some()
                || service.backends.iter().any(|b| b.max_conns.is_some()),
            no_conn: service.no_conn,
            no_backend: service.no_backend,
            source: service.clone(),
        }
    }

    /// What it was compiled from; its backends are in the same order.
    pub fn source(&self) -> &SnapshotService {
        &self.source
    }

    /// Whether the backend with this slot takes new conns.
    pub fn takes_new_conns(&self, backend_slot: BackendSlot) -> bool {
        self.backends.iter().zip(&self.weights).any(|(b, w)| b.slot == backend_slot && *w > 0)
    }
}
