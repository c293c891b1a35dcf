//! When a new conn finds no room, the oldest half-open one gives way: what a flood of SYNs has left
//! behind keeps nobody out (the fate of the oldest: RFC 4987, 3.4).

use super::{Tables, life};
use crate::burst::Meta;
use crate::ids::InterfaceId;
use crate::snapshot::Compiled;
use crate::table::conn::ConnRef;
use crate::time::Millis;

/// Remove the oldest half-open conn, of a service and towards a backend when these are given; false
/// when there is none that has been silent for long enough.
#[cold]
#[inline(never)]
pub fn give_way(
    t: &mut Tables,
    config: &Compiled,
    service: Option<u16>,
    backend: Option<u32>,
    now: Millis,
) -> bool {
    let Some(conn) = t.half_open.oldest(&t.conns, service, backend, now) else { return false };
    let mut meta = Meta::received(InterfaceId(0), false);
    meta.conn = conn;
    life::remove(&mut meta, t, config);
    t.counters.half_open_evicted.add(1);
    debug_assert_eq!(meta.conn, ConnRef::NONE);
    true
}
