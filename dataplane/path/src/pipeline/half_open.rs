//! When a new conn finds no room, the oldest half-open one gives way: what a flood of SYNs has left
//! behind keeps nobody out (the fate of the oldest: RFC 4987, 3.4).

use super::shared::{Context, Shared};
use crate::ids::{BackendSlot, ServiceSlot};
use crate::table::conn::half_open::HalfOpen;

/// Remove the oldest half-open conn, of a service and towards a backend when these are given; false
/// when there is none that has been silent for long enough.
#[cold]
#[inline(never)]
pub fn give_way(
    half_open: &mut HalfOpen,
    service: Option<ServiceSlot>,
    backend: Option<BackendSlot>,
    shared: &mut Shared,
    cx: Context,
) -> bool {
    let oldest = half_open.oldest(&shared.conns, service, backend, cx.now);
    let Some(conn) = oldest else { return false };
    shared.end_conn(conn, cx.config);
    shared.counters.half_open_evicted.add(1);
    true
}
