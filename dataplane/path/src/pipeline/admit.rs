//! New conns: find the service, choose a backend, get a local port, remember it all.
//!
//! Enters: packets without a conn. Leaves: packets on their new conn's way, or the reason why there
//! is none; what is for one of the ports' own addresses goes to the kernel.
//!
//! In two passes, as a new conn touches lines that nobody has asked for yet: its own, and the index's
//! bucket for the return flow. The first pass decides everything that can be decided without them.

use sluice_api::{DropReason, Mode};
use sluice_wire::flow_head::FlowHead;
use sluice_wire::ipv4::PROTO_TCP;

use super::choose::choose;
use super::forward::{begin_conn, forward_one, forward_tracked};
use super::parse::{check_sender, is_martian};
use super::{Tables, half_open, next_hop, refuse, resting};
use crate::burst::{BURST, Burst, Class, Mask, Meta, Verdict};
use crate::flow::{FlowKey, Tuple};
use crate::frame::Frame;
use crate::snapshot::{Address, Compiled, CompiledService};
use crate::table::conn::ConnRef;
use crate::table::conn::state::ConnState;
use crate::table::conn::{InsertError, NewConn};
use crate::time::Millis;

/// What is to become of a packet that has no conn.
#[derive(Clone, Copy)]
pub enum Plan {
    /// This conn is made for it.
    Make(NewConn),
    /// It ends here.
    Refuse(Verdict),
    /// A packet before it in the burst seems to be of the same flow: look again after that.
    LookAgain,
}

/// A plan for each packet of a burst.
pub type Plans = [Plan; BURST];

/// Before anything is planned.
pub const NO_PLANS: Plans = [Plan::LookAgain; BURST];

/// Flows that were seen in a burst: a bit each of 1,024, by hash. Two flows share one in a few of a
/// hundred bursts, and one of them is then planned late.
#[derive(Default)]
struct Seen([u64; 16]);

impl Seen {
    /// Whether such a flow was seen before; now it was.
    #[inline(always)]
    fn insert(&mut self, hash: u64) -> bool {
        let word = &mut self.0[(hash >> 26) as usize % 16];
        let bit = 1 << (hash >> 20 & 63);
        let was_seen = *word & bit != 0;
        *word |= bit;
        was_seen
    }
}

/// The first pass: service, backend and local port; all of them accounted for.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn plan<F: Frame>(
    burst: &mut Burst<F>,
    flows: Mask,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) {
    let mut planned = 0;
    let mut seen = Seen::default();
    burst.each(flows, |index, frame, meta| {
        t.plans[index] = if seen.insert(meta.hash) {
            Plan::LookAgain
        } else {
            let plan = plan_one(frame, t, config, meta, planned, now);
            if let Plan::Make(new) = &plan {
                t.conns.prefetch_new(new, planned);
                planned += 1;
            }
            plan
        };
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
    burst.each(flows, |index, frame, meta| {
        let mut plan = t.plans[index];
        if let Plan::LookAgain = plan {
            meta.conn = t.conns.find(meta.hash, &meta.tuple);
            if forward_tracked(frame, meta, t, config, now) {
                return;
            }
            plan = plan_late(frame, t, config, meta, now);
        }
        let made = match plan {
            Plan::Make(new) => make(t, config, &new, meta.hash, now),
            Plan::Refuse(verdict) => Err(verdict),
            Plan::LookAgain => unreachable!("a plan is made for each packet"),
        };
        match made {
            Ok(conn) => {
                meta.conn = conn;
                // While the frame tells where it came from.
                if t.conns.get(conn).is_full_nat() {
                    next_hop::greet(frame, meta, t, now);
                }
                meta.begins_conn = true;
                let fate = forward_one(frame, meta, t, now);
                resting::precede(frame, meta, t);
                begin_conn(meta, t, config, fate);
            }
            Err(Verdict::Drop(reason)) => {
                meta.verdict = refuse::refuse(frame, meta, t, config, now, reason);
            }
            Err(verdict) => meta.verdict = verdict,
        }
    });
}

/// Make a conn that was planned.
#[inline(always)]
fn make(
    t: &mut Tables,
    config: &Compiled,
    new: &NewConn,
    hash: u64,
    now: Millis,
) -> Result<ConnRef, Verdict> {
    match insert(t, config, new, hash, now) {
        Ok(conn) => {
            next_hop::note(t, conn, new);
            t.counters.conns.add(1);
            if new.state.is_half_open() {
                t.half_open.push(conn, new.service_slot);
            }
            Ok(conn)
        }
        Err(reason) => {
            t.counters.backend(new.backend_slot).conns.subtract(1);
            t.counters.service(new.service_slot).conns.subtract(1);
            Err(Verdict::Drop(reason))
        }
    }
}

/// Decide about a packet without a conn, when so many conns will be made before it.
#[inline(always)]
fn plan_one<F: Frame>(
    frame: &F,
    t: &mut Tables,
    config: &Compiled,
    meta: &Meta,
    planned: usize,
    now: Millis,
) -> Plan {
    let checked = check_sender(frame, Class::Flow, meta, t).map_err(Verdict::Drop);
    match checked.and_then(|()| plan_conn(frame, t, config, meta, planned, now)) {
        Ok(new) => Plan::Make(new),
        Err(verdict) => Plan::Refuse(verdict),
    }
}

/// The same in the second pass, where it is rare.
#[cold]
#[inline(never)]
fn plan_late<F: Frame>(
    frame: &F,
    t: &mut Tables,
    config: &Compiled,
    meta: &Meta,
    now: Millis,
) -> Plan {
    plan_one(frame, t, config, meta, 0, now)
}

#[inline(always)]
fn plan_conn<F: Frame>(
    frame: &F,
    t: &mut Tables,
    config: &Compiled,
    meta: &Meta,
    planned: usize,
    now: Millis,
) -> Result<NewConn, Verdict> {
    let key = meta.key();
    check_possible(&key).map_err(Verdict::Drop)?;
    let Some(service) = config.service(&key) else { return Err(no_service(config, meta)) };
    check_source(config, &meta.tuple).map_err(Verdict::Drop)?;
    check_port(t, meta, key.src).map_err(Verdict::Drop)?;
    let state = if key.protocol == PROTO_TCP {
        if !meta.tcp_flags.is_open() {
            return Err(Verdict::Drop(DropReason::NoConn));
        }
        ConnState::first_tcp(service.mode == Mode::FullNat)
    } else {
        ConnState::UdpOneWay
    };
    if t.conns.free() <= planned {
        // Its place can be had when the burst is over: the next one finds room.
        half_open::give_way(t, config, None, None, now);
        return Err(Verdict::Drop(DropReason::ConnTableFull));
    }
    let index = match choose(t, config, service, &key) {
        Err(reason @ (DropReason::ServiceLimit | DropReason::BackendLimit))
            if half_open::give_way(t, config, Some(service.slot), None, now) =>
        {
            choose(t, config, service, &key).map_err(|_| reason)
        }
        chosen => chosen,
    };
    let index = index.map_err(Verdict::Drop)?;
    let Some(backend) = service.backends.get(index) else {
        return Err(Verdict::Drop(DropReason::NoBackend));
    };
    let from_backend = match service.mode {
        Mode::FullNat => Some(local_flow(t, config, service, index, now)?),
        Mode::Dr => None,
    };
    t.counters.backend(backend.slot).conns.add(1);
    t.counters.service(service.slot).conns.add(1);
    Ok(NewConn {
        from_client: key,
        from_backend,
        backend_address: backend.address,
        service_slot: service.slot,
        backend_slot: backend.slot,
        state,
        interface: meta.interface,
        seq: FlowHead::of(frame.bytes()).map_or(0, FlowHead::seq),
    })
}

/// The flow in which a backend will answer a new conn: with a local port that is free towards it, if
/// need be the one that has rested for longest, or that of the oldest of its half-open conns.
#[inline(always)]
fn local_flow(
    t: &mut Tables,
    config: &Compiled,
    service: &CompiledService,
    index: usize,
    now: Millis,
) -> Result<FlowKey, Verdict> {
    let (space, backend) = (&service.port_spaces[index], service.backends[index].slot);
    let flow = match space.reserve(&t.own_ports) {
        Err(_) if resting::give_way(t, config, space) => space.reserve(&t.own_ports),
        Err(_) if half_open::give_way(t, config, Some(service.slot), Some(backend), now) => {
            space.reserve(&t.own_ports)
        }
        flow => flow,
    };
    flow.map_err(|_| Verdict::Drop(DropReason::LocalPortsExhausted))
}

/// Make a conn as it was planned, or with the next local port that is free towards its backend:
/// the index itself says. Where it cannot be made, its port is given back.
#[inline(always)]
fn insert(
    t: &mut Tables,
    config: &Compiled,
    new: &NewConn,
    hash: u64,
    now: Millis,
) -> Result<ConnRef, DropReason> {
    match t.conns.insert(new, hash, now, &config.timeouts) {
        Ok(conn) => Ok(conn),
        Err(error) => insert_elsewhere(t, config, *new, hash, now, error),
    }
}

#[cold]
#[inline(never)]
fn insert_elsewhere(
    t: &mut Tables,
    config: &Compiled,
    mut new: NewConn,
    hash: u64,
    now: Millis,
    error: InsertError,
) -> Result<ConnRef, DropReason> {
    let Some(mut flow) = new.from_backend else { return Err(DropReason::ConnTableFull) };
    let (spaces, conns) = (&config.port_spaces, &mut t.conns);
    spaces.release(&t.own_ports, &flow);
    let (InsertError::ReturnFlowTaken, Some((space, _))) = (error, spaces.of_flow(&flow)) else {
        return Err(DropReason::ConnTableFull);
    };
    let found = space.find(&t.own_ports, |candidate| {
        flow = candidate;
        new.from_backend = Some(candidate);
        match conns.insert(&new, hash, now, &config.timeouts) {
            Err(InsertError::ReturnFlowTaken) => None,
            outcome => Some(outcome),
        }
    });
    match found {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(_)) => {
            spaces.release(&t.own_ports, &flow);
            Err(DropReason::ConnTableFull)
        }
        Err(_) => Err(DropReason::LocalPortsExhausted),
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

/// An address of a network behind another port cannot be a client behind this one (RFC 3704).
fn check_port(t: &Tables, meta: &Meta, source: u32) -> Result<(), DropReason> {
    let is_elsewhere = t.routes.connected_interface(source).is_some_and(|of| of != meta.interface);
    match is_elsewhere && t.interfaces[meta.interface.index()].checks_source {
        true => Err(DropReason::WrongPort),
        false => Ok(()),
    }
}

/// What becomes of a packet that no service takes.
fn no_service(config: &Compiled, meta: &Meta) -> Verdict {
    if let Err(reason) = check_source(config, &meta.tuple) {
        return Verdict::Drop(reason);
    }
    match config.address(meta.key().dst) {
        Some(Address::Own(_)) => Verdict::Kernel { interface: meta.interface },
        Some(Address::Vip) => Verdict::Drop(DropReason::NoService),
        Some(Address::Local) => Verdict::Drop(match meta.tuple.protocol {
            PROTO_TCP if meta.tcp_flags.is_open() => DropReason::SynToLocal,
            PROTO_TCP => DropReason::NoConn,
            _ => DropReason::UdpNoConn,
        }),
        None => Verdict::Drop(DropReason::NotForUs),
    }
}

/// Nobody but us can have an address of ours (RFC 1812, 5.3.7).
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
