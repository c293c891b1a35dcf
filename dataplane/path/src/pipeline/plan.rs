//! New conns, the first pass: service, backend and local port, or why there is none.

use sluice_api::DropReason;
use sluice_wire::flow_head::FlowHead;
use sluice_wire::ipv4::PROTO_TCP;

use super::admit::Admit;
use super::half_open;
use super::parse::{check_sender, is_martian};
use super::shared::{Context, Shared};
use crate::burst::{Burst, Class, Mask, Meta, Verdict};
use crate::flow::{FlowKey, Tuple};
use crate::frame::Frame;
use crate::ids::L4Port;
use crate::snapshot::{Address, Compiled, CompiledService};
use crate::table::conn::NewConn;
use crate::table::conn::state::ConnState;

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

impl Admit {
    /// The first pass: service, backend and local port; all of them accounted for.
    // Never inlined: a stage is a symbol in profiles.
    #[inline(never)]
    pub fn plan<F: Frame>(
        &mut self,
        burst: &mut Burst<F>,
        flows: Mask,
        shared: &mut Shared,
        cx: Context,
    ) {
        let mut planned = 0;
        let mut seen = Seen::default();
        burst.each(flows, |index, frame, meta| {
            self.plans[index] = if seen.insert(meta.hash) {
                Plan::LookAgain
            } else {
                let plan = self.plan_one(frame, meta, planned, shared, cx);
                if let Plan::Make(new) = &plan {
                    shared.conns.prefetch_new(new, planned);
                    planned += 1;
                }
                plan
            };
        });
    }

    /// Decide about a packet without a conn, when so many conns will be made before it.
    #[inline(always)]
    fn plan_one<F: Frame>(
        &mut self,
        frame: &F,
        meta: &Meta,
        planned: usize,
        shared: &mut Shared,
        cx: Context,
    ) -> Plan {
        let checked = check_sender(frame, Class::Flow, meta, &shared.next_hops, &shared.interfaces)
            .map_err(Verdict::Drop);
        match checked.and_then(|()| self.plan_conn(frame, meta, planned, shared, cx)) {
            Ok(new) => Plan::Make(new),
            Err(verdict) => Plan::Refuse(verdict),
        }
    }

    /// The same in the second pass, where it is rare.
    #[cold]
    #[inline(never)]
    pub(super) fn plan_late<F: Frame>(
        &mut self,
        frame: &F,
        meta: &Meta,
        shared: &mut Shared,
        cx: Context,
    ) -> Plan {
        self.plan_one(frame, meta, 0, shared, cx)
    }

    #[inline(always)]
    fn plan_conn<F: Frame>(
        &mut self,
        frame: &F,
        meta: &Meta,
        planned: usize,
        shared: &mut Shared,
        cx: Context,
    ) -> Result<NewConn, Verdict> {
        let config = cx.config;
        let key = meta.key();
        check_possible(&key).map_err(Verdict::Drop)?;
        let Some(service) = config.service(&key) else { return Err(no_service(config, meta)) };
        check_source(config, &meta.tuple).map_err(Verdict::Drop)?;
        check_port(meta, key.src, shared).map_err(Verdict::Drop)?;
        let state = if key.protocol == PROTO_TCP {
            if !meta.tcp_flags.is_open() {
                return Err(Verdict::Drop(DropReason::NoConn));
            }
            ConnState::first_tcp(service.treatment.sees_replies())
        } else {
            ConnState::UdpOneWay
        };
        if shared.conns.free() <= planned {
            // Its place can be had when the burst is over: the next one finds room.
            half_open::give_way(&mut self.half_open, None, None, shared, cx);
            return Err(Verdict::Drop(DropReason::ConnTableFull));
        }
        let index = self.choose(service, &key, shared, cx);
        let index = index.map_err(Verdict::Drop)?;
        let Some(backend) = service.backends.get(index) else {
            return Err(Verdict::Drop(DropReason::NoBackend));
        };
        let from_backend = if service.treatment.sees_replies() {
            Some(self.local_flow(service, index, shared, cx)?)
        } else {
            None
        };
        shared.counters.backend(backend.slot).conns.add(1);
        shared.counters.service(service.slot).conns.add(1);
        Ok(NewConn {
            from_client: key,
            treatment: service.treatment,
            from_backend,
            backend_address: backend.address,
            service_slot: service.slot,
            backend_slot: backend.slot,
            state,
            interface: meta.interface,
            seq: FlowHead::of(frame.bytes()).map_or(0, FlowHead::seq),
        })
    }

    /// The place of a new conn's backend. When a limit is reached, the oldest half-open conn of the
    /// service gives way.
    #[inline(always)]
    fn choose(
        &mut self,
        service: &CompiledService,
        key: &FlowKey,
        shared: &mut Shared,
        cx: Context,
    ) -> Result<usize, DropReason> {
        match self.chooser.choose(service, key, &shared.counters, cx.config) {
            Err(reason @ (DropReason::ServiceLimit | DropReason::BackendLimit))
                if half_open::give_way(
                    &mut self.half_open,
                    Some(service.slot),
                    None,
                    shared,
                    cx,
                ) =>
            {
                let chosen = self.chooser.choose(service, key, &shared.counters, cx.config);
                chosen.map_err(|_| reason)
            }
            chosen => chosen,
        }
    }

    /// The flow in which a backend will answer a new conn: with a local port that is free towards it, if
    /// need be the one that has rested for longest, or that of the oldest of its half-open conns.
    #[inline(always)]
    fn local_flow(
        &mut self,
        service: &CompiledService,
        index: usize,
        shared: &mut Shared,
        cx: Context,
    ) -> Result<FlowKey, Verdict> {
        let (space, backend) = (&service.port_spaces[index], service.backends[index].slot);
        let (service, backend) = (Some(service.slot), Some(backend));
        let flow = match space.reserve(&shared.local_ports) {
            Err(_) if self.resets.give_way(space, shared, cx.config) => {
                space.reserve(&shared.local_ports)
            }
            Err(_) if half_open::give_way(&mut self.half_open, service, backend, shared, cx) => {
                space.reserve(&shared.local_ports)
            }
            flow => flow,
        };
        flow.map_err(|_| Verdict::Drop(DropReason::LocalPortsExhausted))
    }
}

/// A flow that nobody can have, and that has no conn for that reason, was not looked at for it
/// before now.
fn check_possible(key: &FlowKey) -> Result<(), DropReason> {
    if is_martian(key.src) {
        return Err(DropReason::MartianSource);
    }
    // RFC 768: port 0 says that no reply is expected; RFC 6335, 6: it is reserved in TCP and UDP.
    if key.src_port == L4Port::ZERO || key.dst_port == L4Port::ZERO {
        return Err(DropReason::L4PortZero);
    }
    Ok(())
}

/// An address of a network behind another port cannot be a client behind this one (RFC 3704).
fn check_port(meta: &Meta, source: u32, shared: &Shared) -> Result<(), DropReason> {
    let is_elsewhere =
        shared.next_hops.routes.connected_interface(source).is_some_and(|of| of != meta.interface);
    match is_elsewhere && shared.interfaces.get(meta.interface).checks_source {
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
