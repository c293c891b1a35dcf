//! The end of conns, and what they count for as long as they are there.

use super::Tables;
use crate::burst::Meta;
use crate::counters::WorkerCounters;
use crate::snapshot::Compiled;
use crate::table::conn::state::ConnState;
use crate::table::conn::{Conn, ConnRef};
use crate::table::local_port::OwnPorts;

/// Remove a packet's conn: the packet has none any more.
#[cold]
pub fn remove(meta: &mut Meta, t: &mut Tables, config: &Compiled) {
    unmake(meta, t, config);
    t.counters.conns_expired.add(1);
}

/// Whether a conn may be one whose first packet has not left: later ones have led it further.
pub fn is_new(line: &Conn) -> bool {
    line.state().is_half_open() || line.state() == ConnState::UdpOneWay
}

/// A packet that was to begin a conn did not get through: as if it had not come.
#[cold]
pub fn unmake(meta: &mut Meta, t: &mut Tables, config: &Compiled) {
    // Before the line forgets its protocol.
    forget(t.conns.get(meta.conn), &t.counters, &t.own_ports, config);
    t.conns.remove(meta.conn);
    meta.conn = ConnRef::NONE;
}

/// Account for a conn that is gone.
pub fn forget(conn: &Conn, counters: &WorkerCounters, own_ports: &OwnPorts, config: &Compiled) {
    counters.conns.subtract(1);
    if conn.state() == ConnState::Resting {
        counters.resting.subtract(1);
        counters.backend(conn.backend_slot()).resting.subtract(1);
        config.port_spaces.end_rest(own_ports, &conn.from_backend());
    } else {
        counters.backend(conn.backend_slot()).conns.subtract(1);
        counters.service(conn.service_slot()).conns.subtract(1);
    }
    if conn.is_full_nat() {
        config.port_spaces.release(own_ports, &conn.from_backend());
    }
}

/// A conn begins to rest, or rests no more. It counts as a conn only while it does not.
#[cold]
#[inline(never)]
pub fn note_rest(t: &mut Tables, config: &Compiled, conn: ConnRef, rests: bool) {
    let line = t.conns.get(conn);
    let (spaces, flow) = (&config.port_spaces, line.from_backend());
    let backend = &t.counters.backend(line.backend_slot()).conns;
    let service = &t.counters.service(line.service_slot()).conns;
    if rests {
        spaces.rest(&t.own_ports, &flow);
        t.counters.resting.add(1);
        t.counters.backend(line.backend_slot()).resting.add(1);
        backend.subtract(1);
        service.subtract(1);
        t.resting.push(conn, &t.conns);
    } else {
        spaces.end_rest(&t.own_ports, &flow);
        t.counters.resting.subtract(1);
        t.counters.backend(line.backend_slot()).resting.subtract(1);
        backend.add(1);
        service.add(1);
    }
}
