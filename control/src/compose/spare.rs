//! New conns for backends that can be reached.

use sluice_api::{AdminState, SnapshotBackend, SnapshotService};

use crate::derived::Surroundings;

/// Backends that the data plane cannot send to drain, so that others get the new conns. Where there are
/// no others, nothing is won by that: the first packet after their next hop is back shall be served.
/// Draining tells nothing of health: who reads the snapshot after a restart of control is not misled.
pub fn unreachable(service: &mut SnapshotService, around: &Surroundings) {
    let mode = service.mode;
    let is_lost = |backend: &SnapshotBackend| around.cut_off(mode, backend.address);
    if service.backends.iter().any(|b| b.takes_new_conns() && !is_lost(b)) {
        let lost = service.backends.iter_mut().filter(|b| b.takes_new_conns() && is_lost(b));
        lost.for_each(|backend| backend.state = AdminState::Drain);
    }
}
