//! Find the conn of each packet, and note what the packet does to it.

use sluice_wire::ipv4::PROTO_TCP;

use super::{Tables, forget};
use crate::burst::{Burst, Mask, Meta};
use crate::snapshot::Compiled;
use crate::table::conn::Conn;
use crate::table::conn_index::ConnRef;
use crate::table::conn_state::ConnState;
use crate::table::wheel::Millis;

/// The stage: match tags in the buckets that `parse` asked for, and ask for the conns' lines.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn lookup<F>(burst: &mut Burst<F>, flows: Mask, t: &Tables) {
    burst.each_meta(flows, |meta| meta.conn = t.conns.candidate(meta.hash));
}

/// Confirm a packet's conn and advance its state; false when it has none, or none any more.
pub fn track(meta: &mut Meta, t: &mut Tables, config: &Compiled, now: Millis) -> bool {
    let conn = t.conns.confirm(meta.conn, meta.hash, &meta.tuple);
    meta.conn = conn;
    if conn.is_none() {
        return false;
    }
    let from_backend = conn.is_from_backend();
    let line = t.conns.get(conn);
    let mut fins = line.fins();
    let state = if meta.tuple.protocol == PROTO_TCP {
        if meta.tcp_flags.is_open() && !from_backend && starts_over(t, config, conn) {
            remove(meta, t, config);
            return false;
        }
        line.state().after_tcp(&mut fins, meta.tcp_flags, from_backend)
    } else {
        // A UDP flow has no end that could be waited for: as long as its client sends, it would
        // stay on a backend that is gone.
        if !from_backend && config.is_gone(line.backend_slot()) {
            remove(meta, t, config);
            return false;
        }
        line.state().after_udp(from_backend)
    };
    t.conns.touch(conn, state, fins, now, &config.timeouts);
    true
}

/// Whether a packet of a conn leaves its state as it is, whatever it is: any but the first and the
/// last ones.
#[inline(always)]
pub fn is_quiet(line: &Conn, meta: &Meta, config: &Compiled) -> bool {
    match line.state() {
        ConnState::Established => meta.tcp_flags.is_quiet(),
        ConnState::UdpOneWay if meta.conn.is_from_backend() => false,
        ConnState::UdpOneWay | ConnState::UdpTwoWay => {
            meta.conn.is_from_backend() || !config.is_gone(line.backend_slot())
        }
        _ => false,
    }
}

#[cold]
fn remove(meta: &mut Meta, t: &mut Tables, config: &Compiled) {
    t.conns.remove(meta.conn);
    forget(t.conns.get(meta.conn), &t.counters, &t.own_ports, config);
    meta.conn = ConnRef::NONE;
}

/// Whether a client's SYN makes its old conn a new one: the old one is closing, or its backend
/// never answered and takes no new conns any more.
#[cold]
fn starts_over(t: &Tables, config: &Compiled, conn: ConnRef) -> bool {
    let line = t.conns.get(conn);
    match line.state() {
        ConnState::SynSent => config
            .service(&line.from_client())
            .is_none_or(|service| !service.takes_new_conns(line.backend_slot())),
        state => state.may_reopen(),
    }
}
