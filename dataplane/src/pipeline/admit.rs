//! New conns: find the service, choose a backend, get a local port, remember it all.
//!
//! Enters: packets without a conn. Leaves: packets on their new conn's way, or the reason why there
//! is none; what is for one of the ports' own addresses goes to the kernel.
//!
//! In two passes, as a new conn touches lines that nobody has asked for yet: its own, and the index's
//! bucket for the return flow. The first pass decides everything that can be decided without them.

use sluice_api::{DropReason, Mode};
use sluice_wire::ipv4::PROTO_TCP;

use super::forward::forward_one;
use super::parse::is_martian;
use super::{Tables, conn};
use crate::burst::{BURST, Burst, Mask, Meta, Verdict};
use crate::flow::{FlowKey, Tuple};
use crate::frame::Frame;
use crate::scheduler::{pick_least_connections, source_hash};
use crate::snapshot::{Address, Compiled, CompiledBackend, CompiledService, Picker};
use crate::table::conn::{InsertError, NewConn};
use crate::table::conn_index::ConnRef;
use crate::table::conn_state::ConnState;
use crate::table::local_port::LocalPort;
use crate::table::wheel::Millis;

/// What is to become of each packet of a burst that has no conn.
pub type Plans = [Result<NewConn, Verdict>; BURST];

/// Before anything is planned.
pub const NO_PLANS: Plans = [Err(Verdict::Continue); BURST];

/// The first pass: service, backend and local port; all of them accounted for.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn plan<F>(burst: &mut Burst<F>, flows: Mask, t: &mut Tables, config: &Compiled) {
    let mut planned = 0;
    burst.each(flows, |index, _, meta| {
        let plan = plan_one(t, config, meta, planned);
        if let Ok(new) = &plan {
            t.conns.prefetch_new(new, planned);
            planned += 1;
        }
        t.plans[index] = plan;
    });
}

/// The second pass: make the conns that were planned, and forward their packets.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn admit<F: Frame>(
    burst: &mut Burst<F>,
    flows: Mask,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) {
    // Packets of one new flow may stand in one burst: the second finds the first one's conn. Of
    // each conn made, six bits of the hash say that there may be such a packet.
    let mut made = 0_u64;
    burst.each(flows, |index, frame, meta| {
        let plan = t.plans[index];
        let bit = 1 << (meta.hash >> 20 & 63);
        let has_conn = made & bit != 0 && {
            meta.conn = t.conns.find(meta.hash, &meta.tuple);
            conn::track(meta, t, config, now)
        };
        meta.verdict = match plan {
            Ok(new) if has_conn => {
                forget_plan(t, &new);
                forward_one(frame, meta, t, now)
            }
            Err(_) if has_conn => forward_one(frame, meta, t, now),
            Ok(new) => match insert(t, config, new, meta.hash, now) {
                Ok(conn) => {
                    made |= bit;
                    meta.conn = conn;
                    t.counters.conns.add(1);
                    t.counters.conns_created.add(1);
                    t.counters.backend(new.backend_slot).conns_created.add(1);
                    forward_one(frame, meta, t, now)
                }
                Err(reason) => {
                    forget_plan(t, &new);
                    Verdict::Drop(reason)
                }
            },
            Err(verdict) => verdict,
        };
    });
}

/// Decide about a packet's new conn; `planned` conns will be made before it.
#[inline(always)]
fn plan_one(
    t: &mut Tables,
    config: &Compiled,
    meta: &Meta,
    planned: usize,
) -> Result<NewConn, Verdict> {
    let key = meta.key();
    check_possible(&key).map_err(Verdict::Drop)?;
    let Some(service) = config.service(&key) else { return Err(no_service(config, meta)) };
    check_source(config, &meta.tuple).map_err(Verdict::Drop)?;
    let state = if key.protocol == PROTO_TCP {
        if !meta.tcp_flags.is_open() {
            return Err(Verdict::Drop(DropReason::NoConn));
        }
        ConnState::first_tcp(service.mode == Mode::FullNat)
    } else {
        ConnState::UdpOneWay
    };
    if t.conns.free() <= planned {
        return Err(Verdict::Drop(DropReason::ConnTableFull));
    }
    let backend = pick(t, service, &key).ok_or(Verdict::Drop(DropReason::NoBackend))?;
    let from_backend = match service.mode {
        Mode::FullNat => {
            let addresses = &service.local_addresses;
            let cursor = &mut t.cursors[backend.slot as usize];
            let local = cursor.allocate(&t.own_ports, addresses.len(), Some);
            let local = local.map_err(|_| Verdict::Drop(DropReason::LocalPortsExhausted))?;
            Some(return_flow(&backend, addresses, local, key.protocol))
        }
        Mode::Dr => None,
    };
    t.counters.backend(backend.slot).conns.add(1);
    Ok(NewConn {
        from_client: key,
        from_backend,
        backend_address: backend.address,
        service_slot: service.slot,
        backend_slot: backend.slot,
        state,
    })
}

/// The flow in which a backend answers.
fn return_flow(
    backend: &CompiledBackend,
    local_addresses: &[u32],
    local: LocalPort,
    protocol: u8,
) -> FlowKey {
    FlowKey {
        src: backend.address,
        dst: local_addresses[local.address as usize],
        src_port: backend.port,
        dst_port: local.port,
        protocol,
    }
}

/// A conn that was planned is not made.
fn forget_plan(t: &mut Tables, new: &NewConn) {
    t.counters.backend(new.backend_slot).conns.subtract(1);
    if new.from_backend.is_some() {
        t.cursors[new.backend_slot as usize].release();
    }
}

/// Make a conn as it was planned, or with the next local port that is free towards its backend:
/// the index itself says.
#[inline(always)]
fn insert(
    t: &mut Tables,
    config: &Compiled,
    new: NewConn,
    hash: u64,
    now: Millis,
) -> Result<ConnRef, DropReason> {
    match t.conns.insert(&new, hash, now, &config.timeouts) {
        Ok(conn) => Ok(conn),
        Err(InsertError::Full) => Err(DropReason::ConnTableFull),
        Err(InsertError::ReturnFlowTaken) => insert_elsewhere(t, config, new, hash, now),
    }
}

#[cold]
fn insert_elsewhere(
    t: &mut Tables,
    config: &Compiled,
    mut new: NewConn,
    hash: u64,
    now: Millis,
) -> Result<ConnRef, DropReason> {
    let backend = new.from_backend.map(|flow| CompiledBackend {
        slot: new.backend_slot,
        address: flow.src,
        port: flow.src_port,
    });
    let (Some(service), Some(backend)) = (config.service(&new.from_client), backend) else {
        return Err(DropReason::LocalPortsExhausted);
    };
    let (addresses, conns) = (&service.local_addresses, &mut t.conns);
    let cursor = &mut t.cursors[new.backend_slot as usize];
    // The plan's port stays accounted for: this search finds the one that takes its place.
    cursor.release();
    let found = cursor.allocate(&t.own_ports, addresses.len(), |local| {
        new.from_backend = Some(return_flow(&backend, addresses, local, new.from_client.protocol));
        match conns.insert(&new, hash, now, &config.timeouts) {
            Err(InsertError::ReturnFlowTaken) => None,
            outcome => Some(outcome),
        }
    });
    match found {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(_)) => Err(DropReason::ConnTableFull),
        Err(_) => {
            cursor.keep();
            Err(DropReason::LocalPortsExhausted)
        }
    }
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
fn check_source(config: &Compiled, tuple: &Tuple) -> Result<(), DropReason> {
    let back = tuple.reversed();
    if *tuple == back {
        return Err(DropReason::LandAttack);
    }
    match config.may_be_ours(back.addresses) && config.address(FlowKey::from(&back).dst).is_some() {
        true => Err(DropReason::MartianSource),
        false => Ok(()),
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
