//! The end of conns, and what they count for as long as they are there.

use super::shared::Shared;
use crate::burst::Meta;
use crate::counters::WorkerCounters;
use crate::snapshot::Compiled;
use crate::table::conn::state::ConnState;
use crate::table::conn::{ConnRef, Head, Line};
use crate::table::local_port::OwnPorts;

/// Whether a conn may be one whose first packet has not left: later ones have led it further.
pub fn is_new(line: &Head) -> bool {
    line.state().is_half_open() || line.state() == ConnState::UdpOneWay
}

impl Shared {
    /// Remove a packet's conn: the packet has none any more.
    #[cold]
    pub fn end_conn_of(&mut self, meta: &mut Meta, config: &Compiled) {
        self.end_conn(meta.conn, config);
        meta.conn = ConnRef::NONE;
    }

    /// Remove a conn.
    #[cold]
    pub fn end_conn(&mut self, conn: ConnRef, config: &Compiled) {
        self.take_back_conn(conn, config);
        self.counters.conns_expired.add(1);
    }

    /// The packet that was to begin a conn did not get through: as if it had not come.
    #[cold]
    pub fn take_back_conn(&mut self, conn: ConnRef, config: &Compiled) {
        // Before the line forgets its protocol.
        forget(self.conns.line(conn), &self.counters, &self.local_ports, config);
        self.conns.remove(conn);
    }

    /// A conn begins to rest, or rests no more. It counts as a conn only while it does not.
    #[cold]
    #[inline(never)]
    pub fn note_rest(&self, conn: ConnRef, rests: bool, config: &Compiled) {
        let (line, counters) = (self.conns.get(conn), &self.counters);
        let (spaces, flow) = (&config.port_spaces, line.from_backend());
        let backend = counters.backend(line.backend_slot());
        let service = counters.service(line.service_slot());
        if rests {
            spaces.rest(&self.local_ports, &flow);
            counters.resting.add(1);
            backend.resting.add(1);
            backend.conns.subtract(1);
            service.conns.subtract(1);
        } else {
            spaces.end_rest(&self.local_ports, &flow);
            counters.resting.subtract(1);
            backend.resting.subtract(1);
            backend.conns.add(1);
            service.conns.add(1);
        }
    }
}

/// Account for a conn that is gone.
#[inline(always)]
pub fn forget(
    line: Line<'_>,
    counters: &WorkerCounters,
    local_ports: &OwnPorts,
    config: &Compiled,
) {
    let (head, from_backend) = (line.head(), line.from_backend());
    let rests = head.state() == ConnState::Resting;
    counters.conns.subtract(1);
    if rests {
        counters.resting.subtract(1);
        counters.backend(head.backend_slot()).resting.subtract(1);
    } else {
        counters.backend(head.backend_slot()).conns.subtract(1);
        counters.service(head.service_slot()).conns.subtract(1);
    }
    let Some(flow) = from_backend else { return };
    if rests {
        config.port_spaces.end_rest(local_ports, &flow);
    }
    config.port_spaces.release(local_ports, &flow);
}
