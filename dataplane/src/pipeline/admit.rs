//! New conns: find the service, choose a backend, get a local port, remember it all.
//!
//! Enters: packets without a conn. Leaves: packets on their new conn's way, or the reason why there
//! is none; what is for one of the ports' own addresses goes to the kernel.

use sluice_api::{DropReason, Mode};
use sluice_wire::ipv4::PROTO_TCP;

use super::forward::forward_one;
use super::parse::is_martian;
use super::{Tables, conn};
use crate::burst::{Burst, Mask, Meta, Verdict};
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::scheduler::{pick_least_connections, source_hash};
use crate::snapshot::{Address, Compiled, CompiledBackend, CompiledService, Picker};
use crate::table::conn::{InsertError, NewConn};
use crate::table::conn_index::ConnRef;
use crate::table::conn_state::ConnState;
use crate::table::wheel::Millis;

/// The stage.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn admit<F: Frame>(
    burst: &mut Burst<F>,
    flows: Mask,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) {
    // Packets of one new flow may stand in one burst: the second finds the first one's conn.
    let mut made = false;
    burst.filter(flows, |frame, meta| {
        let earlier = made && {
            meta.conn = t.conns.find(meta.hash, &meta.tuple);
            conn::track(meta, t, config, now)
        };
        meta.verdict = match admit_one(t, config, meta, earlier, now) {
            Ok(conn) => {
                made = true;
                meta.conn = conn;
                forward_one(frame, meta, t, now)
            }
            Err(verdict) => verdict,
        };
        true
    });
}

fn admit_one(
    t: &mut Tables,
    config: &Compiled,
    meta: &Meta,
    has_conn: bool,
    now: Millis,
) -> Result<ConnRef, Verdict> {
    if has_conn {
        return Ok(meta.conn);
    }
    let key = meta.key();
    check_possible(&key).map_err(Verdict::Drop)?;
    let Some(service) = config.service(&key) else { return Err(no_service(config, meta)) };
    check_source(config, &key).map_err(Verdict::Drop)?;
    let state = if meta.tuple.protocol == PROTO_TCP {
        if !meta.tcp_flags.is_open() {
            return Err(Verdict::Drop(DropReason::NoConn));
        }
        ConnState::first_tcp(service.mode == Mode::FullNat)
    } else {
        ConnState::UdpOneWay
    };
    let backend = pick(t, service, &key).ok_or(Verdict::Drop(DropReason::NoBackend))?;
    let new = NewConn {
        from_client: key,
        from_backend: None,
        backend_address: backend.address,
        service_slot: service.slot,
        backend_slot: backend.slot,
        state,
    };
    let conn = match service.mode {
        Mode::FullNat => insert_full_nat(t, config, service, &backend, new, meta.hash, now),
        Mode::Dr => t.conns.insert(&new, meta.hash, now, &config.timeouts).map_err(reason),
    }
    .map_err(Verdict::Drop)?;
    t.counters.conns.add(1);
    t.counters.conns_created.add(1);
    let counters = t.counters.backend(backend.slot);
    counters.conns.add(1);
    counters.conns_created.add(1);
    Ok(conn)
}

/// A flow that nobody can have, and that has no conn for that reason, was not looked at for it
/// before now.
fn check_possible(key: &FlowKey) -> Result<(), DropReason> {
    if is_martian(key.src) {
        return Err(DropReason::MartianSource);
    }
    // RFC 768: port 0 says that no reply is expected; RFC 6335, 6: it is reserved in TCP and UDP.
    if key.src_port == 0 || key.dst_port == 0 {
        return Err(DropReason::L4PortZero);
    }
    Ok(())
}

/// What becomes of a packet that no service takes.
fn no_service(config: &Compiled, meta: &Meta) -> Verdict {
    match config.address(meta.key().dst) {
        Some(Address::Port(_)) => Verdict::Kernel { port: meta.in_port },
        Some(Address::Vip) => Verdict::Drop(DropReason::NoService),
        Some(Address::Local) => Verdict::Drop(DropReason::NoConn),
        None => Verdict::Drop(DropReason::NotForUs),
    }
}

/// A client cannot have an address of ours (RFC 1812, 5.3.7).
fn check_source(config: &Compiled, key: &FlowKey) -> Result<(), DropReason> {
    if key.src == key.dst && key.src_port == key.dst_port {
        return Err(DropReason::LandAttack);
    }
    match config.address(key.src) {
        Some(_) => Err(DropReason::MartianSource),
        None => Ok(()),
    }
}

fn pick(t: &mut Tables, service: &CompiledService, key: &FlowKey) -> Option<CompiledBackend> {
    let weights = &service.weights;
    let index = match &service.picker {
        Picker::Maglev(table, hash_on) => {
            usize::from(table.lookup(CompiledService::maglev_hash(*hash_on, key))?)
        }
        Picker::Wrr(table) => usize::from(t.wrr[service.slot as usize].pick(table)?),
        Picker::Wlc => {
            t.wlc_start = t.wlc_start.wrapping_add(1);
            let conns = |i: usize| t.counters.backend(service.backends[i].slot).conns.get() as u32;
            pick_least_connections(weights, conns, t.wlc_start)?
        }
        Picker::SourceHash(table) => usize::from(table.lookup(source_hash(key.src))?),
    };
    service.backends.get(index).copied()
}

/// Insert with the first local port that is free towards this backend: the index itself says.
fn insert_full_nat(
    t: &mut Tables,
    config: &Compiled,
    service: &CompiledService,
    backend: &CompiledBackend,
    mut new: NewConn,
    hash: u64,
    now: Millis,
) -> Result<ConnRef, DropReason> {
    let conns = &mut t.conns;
    let attempt = t.cursors[backend.slot as usize].allocate(
        &t.own_ports,
        service.local_addresses.len(),
        |local| {
            new.from_backend = Some(FlowKey {
                src: backend.address,
                dst: service.local_addresses[local.address as usize],
                src_port: backend.port,
                dst_port: local.port,
                protocol: new.from_client.protocol,
            });
            match conns.insert(&new, hash, now, &config.timeouts) {
                Ok(conn) => Some(Ok(conn)),
                Err(InsertError::ReturnFlowTaken) => None,
                Err(InsertError::Full) => Some(Err(InsertError::Full)),
            }
        },
    );
    match attempt {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(full)) => {
            t.cursors[backend.slot as usize].release();
            Err(reason(full))
        }
        Err(_) => Err(DropReason::LocalPortsExhausted),
    }
}

fn reason(error: InsertError) -> DropReason {
    match error {
        InsertError::Full => DropReason::ConnTableFull,
        InsertError::ReturnFlowTaken => DropReason::LocalPortsExhausted,
    }
}
