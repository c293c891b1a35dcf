//! The packet path of one worker: bursts in, verdicts out. No I/O, no clock, no allocation.
//!
//! It runs over real mbufs in the worker and over plain memory in tests, simulation and fuzzers.

mod admit;
mod arp;
mod choose;
mod conn;
mod egress;
mod exception;
#[cfg(test)]
mod expiry_tests;
mod forward;
mod half_open;
mod icmp;
mod icmp_error;
#[cfg(test)]
mod layout;
mod next_hop;
mod parse;
#[cfg(test)]
mod port_tests;
mod rate_limit;
mod refuse;
mod relate;
mod resting;
mod rewrite;
mod steer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::DropReason;
use sluice_wire::ether::MacAddr;
use sluice_wire::flow_head::Station;
use sluice_wire::headers::Ipv4Frame;
use sluice_wire::ipv4::PROTO_TCP;
use sluice_wire::tcp::TcpFlags;

use crate::burst::{BURST, Burst, Class, Meta, Verdict};
use crate::counters::WorkerCounters;
use crate::flow::{FlowHasher, FlowKey, Tuple};
use crate::frame::Frame;
use crate::host_flows::{HostFlows, KernelLane};
use crate::leaving::Census;
use crate::memory::Pages;
use crate::resolver::{NeighbourState, NeighbourUpdate, Purpose};
use crate::scheduler::Wrr;
use crate::snapshot::Compiled;
use crate::table::conn::half_open::HalfOpen;
use crate::table::conn::resting::Resting;
use crate::table::conn::state::ConnState;
use crate::table::conn::{Conn, ConnTable};
use crate::table::local_port::OwnPorts;
use crate::table::neighbour::{EgressPort, Neighbours, NextHopRef};
use crate::table::route::RouteTable;
use crate::tally::WorkerView;
use crate::time::Millis;

use icmp_error::ErrorLimits;
use parse::Undecided;
use rate_limit::RateLimit;
use steer::Steer;

pub use steer::{FIRST_PACKETS, MOST_MIS_STEERED_PERCENT, Steering, Trust, WINDOW_PACKETS};

/// Packets that may wait for one next hop's MAC address.
pub const HELD_PER_NEIGHBOUR: usize = 64;
/// Packets that may wait for MAC addresses in one worker.
pub const HELD: usize = 512;
/// Conns looked at for expiry in one round of a worker, beside one for each that was made in it. It
/// bounds what a packet may wait for, about 2 us when all of their lines are in memory.
pub const EXPIRE_PER_ROUND: usize = 16;
/// The same while expiry is late by [`EXPIRE_LATE_MS`]: when many conns end at once, or each is looked
/// at several times.
pub const EXPIRE_PER_LATE_ROUND: usize = 64;
/// How late expiry may be, in ms, before it is given more time. Within a slot of the wheel all is due
/// at its end, and some ms to work it off are no lateness.
const EXPIRE_LATE_MS: Millis = 4;
/// Lines looked at in one round after timeouts were shortened, one after the other in memory: a
/// million in 8,000 rounds, without a nap between them.
const REARM_PER_ROUND: usize = 128;
/// Messages to the main thread that one burst may cause.
pub const OUTBOX: usize = 64;

/// A port as the pipeline knows it.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// Its first address: the source of ICMP errors that go out of it.
    pub address: Ipv4Addr,
    /// Directed broadcast addresses of its networks (RFC 919), in host order.
    pub broadcasts: Box<[u32]>,
    /// Whether the kernel can be reached through an exception port.
    pub has_exception: bool,
    /// Whether sources are believed only when they lie behind it.
    pub checks_source: bool,
}

/// What a worker tells the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToMain {
    /// A next hop is in use: resolve it, or confirm it.
    Want {
        /// Port behind which it is.
        port: u16,
        /// Its address, in host order.
        address: u32,
        /// For what.
        purpose: Purpose,
    },
    /// An ARP packet told where somebody is.
    Arp {
        /// Port it came in by.
        port: u16,
        /// Sender's address, in host order.
        sender: u32,
        /// Sender's MAC address.
        mac: MacAddr,
        /// Whether it is a reply.
        is_reply: bool,
        /// Whether it asks for, or answers to, one of our addresses.
        for_us: bool,
        /// Whether the sender claims an address of ours: never the MAC address of a port.
        conflict: bool,
    },
}

/// What a pipeline is made of, fixed at start-up.
#[derive(Clone)]
pub struct PipelineConfig {
    /// This worker's number.
    pub worker: u16,
    /// How many workers there are.
    pub workers: u16,
    /// How packets find the worker that owns their conn.
    pub steering: Steering,
    /// Conns of this worker.
    pub conns: u32,
    /// Next hops.
    pub neighbours: u16,
    /// Slots of services.
    pub service_slots: usize,
    /// Slots of backends.
    pub backend_slots: usize,
    /// Ports, in order.
    pub ports: Vec<PortInfo>,
    /// Routes.
    pub routes: Arc<RouteTable>,
    /// Seed of the flow hash, the same for all workers, random per start.
    pub seed: u64,
    /// What the host itself has asked for, hashed with the same seed.
    pub host_flows: Arc<HostFlows>,
    /// Whether TCP and UDP checksums are verified in software where the port did not.
    pub verify_l4_checksum: bool,
    /// Pages for the conn table.
    pub pages: Pages,
}

/// Takes the packets that leave the pipeline.
pub trait Sink<F> {
    /// Out of a port.
    fn transmit(&mut self, port: u16, frame: F);
    /// To another worker.
    fn hand_over(&mut self, worker: u16, in_port: u16, frame: F);
    /// To the kernel, by the exception port of a port; on the way there it takes a place of its kind.
    fn to_kernel(&mut self, port: u16, frame: F, lane: KernelLane);
    /// A buffer for a packet of our own; none when there is none to spare.
    #[inline]
    fn spare(&mut self) -> Option<F> {
        None
    }
    /// Out of a port, a whole burst.
    #[inline]
    fn transmit_all(&mut self, port: u16, frames: &mut Vec<F>) {
        for frame in frames.drain(..) {
            self.transmit(port, frame);
        }
    }
    /// Nowhere: their reasons have been counted.
    #[inline]
    fn discard(&mut self, frames: &mut Vec<F>) {
        frames.clear();
    }
}

/// Everything the stages work on but the packets.
pub struct Tables {
    conns: ConnTable,
    half_open: HalfOpen,
    resting: Resting,
    /// RSTs that go ahead of the burst's SYNs.
    resets: Vec<resting::Reset>,
    neighbours: Neighbours,
    own_ports: OwnPorts,
    /// By backend slot.
    last_hops: Box<[next_hop::LastHop]>,
    /// By service slot.
    wrr: Box<[Wrr]>,
    wlc_start: usize,
    /// [`Compiled::shortened`] that the conns' timers were last looked at for.
    rearmed_for: u64,
    /// By service slot.
    full: Box<[choose::Full]>,
    view: Arc<WorkerView>,
    workers: u16,
    hasher: FlowHasher,
    ports: Box<[PortInfo]>,
    /// By port: what sound packets to it have in common.
    stations: Box<[Station]>,
    routes: Arc<RouteTable>,
    counters: Arc<WorkerCounters>,
    steer: Steer,
    verify_l4_checksum: bool,
    host_flows: Arc<HostFlows>,
    outbox: Vec<ToMain>,
    plans: Box<admit::Plans>,
    error_limits: Box<ErrorLimits>,
    related_limit: RateLimit,
    arp_limits: Box<arp::MessageLimits>,
    strangers_limit: RateLimit,
    refusals: refuse::Limits,
    group_limit: RateLimit,
    /// Conns made when expiry was last called.
    created_before: u64,
    census: Census,
    worker: u16,
}

/// A packet that waits for a MAC address, as it came.
struct Held<F> {
    note: NextHopRef,
    in_port: u16,
    begins_conn: bool,
    frame: F,
}

/// The packet path of one worker.
pub struct Pipeline<F> {
    tables: Tables,
    held: VecDeque<Held<F>>,
    /// For those of them whose wait is over.
    released: Option<Box<Burst<F>>>,
    /// Those of a burst whose wait has come to nothing.
    given_up: Vec<Held<F>>,
    /// Packets of a burst that end here, to be given back together.
    dropped: Vec<F>,
}

impl<F: Frame> Pipeline<F> {
    /// A pipeline with all its memory taken; `counters` and `view` have the slots of `config`, and
    /// `counters` as many ports.
    pub fn new(
        config: PipelineConfig,
        counters: Arc<WorkerCounters>,
        view: Arc<WorkerView>,
        now: Millis,
    ) -> Self {
        let hasher = FlowHasher::new(config.seed);
        let egress: Vec<EgressPort> =
            config.ports.iter().map(|p| EgressPort { mac: p.mac, mtu: p.mtu }).collect();
        let whoami = (config.worker, config.workers);
        let steer = Steer::new(&config.steering, whoami, config.ports.len(), &counters);
        Pipeline {
            tables: Tables {
                conns: ConnTable::new(config.conns, hasher.clone(), now, config.pages),
                half_open: HalfOpen::new(config.conns),
                resting: Resting::new(config.conns),
                resets: Vec::with_capacity(BURST),
                rearmed_for: 0,
                neighbours: Neighbours::new(config.neighbours, &egress),
                own_ports: config.steering.owners.own_ports(config.worker),
                last_hops: vec![next_hop::LastHop::default(); config.backend_slots].into(),
                wrr: vec![Wrr::of_worker(config.worker, config.workers); config.service_slots]
                    .into(),
                wlc_start: config.worker as usize,
                full: vec![choose::Full::default(); config.service_slots].into(),
                view,
                workers: config.workers,
                hasher,
                stations: config.ports.iter().map(|p| p.mac.into()).collect(),
                ports: config.ports.into_boxed_slice(),
                routes: config.routes,
                counters,
                steer,
                verify_l4_checksum: config.verify_l4_checksum,
                host_flows: config.host_flows,
                outbox: Vec::with_capacity(OUTBOX),
                plans: Box::new(admit::NO_PLANS),
                error_limits: Box::new(ErrorLimits::new(config.seed, now)),
                related_limit: relate::limit(config.seed, now),
                arp_limits: Box::new(arp::MessageLimits::new(config.seed, now)),
                strangers_limit: next_hop::strangers_limit(config.seed, now),
                refusals: refuse::Limits::new(config.seed, now),
                group_limit: exception::group_limit(config.seed, now),
                created_before: 0,
                census: Census::default(),
                worker: config.worker,
            },
            held: VecDeque::with_capacity(HELD),
            released: Some(Box::default()),
            given_up: Vec::with_capacity(HELD),
            dropped: Vec::with_capacity(BURST),
        }
    }

    /// Give every packet of a burst its verdict, and hand all of them to `sink` or drop them. All
    /// come from one queue, or all from other workers.
    pub fn process(
        &mut self,
        burst: &mut Burst<F>,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
    ) {
        let counters = &self.tables.counters;
        counters.rx_packets.add(burst.len() as u64);
        if let Some(port) = burst.received_from() {
            counters.queue(port).rx_packets.add(burst.len() as u64);
        }
        self.run_stages(burst, config, now, sink, false);
    }

    #[inline(always)]
    fn run_stages(
        &mut self,
        burst: &mut Burst<F>,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
        have_waited: bool,
    ) {
        let t = &mut self.tables;
        let Undecided { flows, others } = parse::parse(burst, t, config);
        let flows = steer::steer(burst, flows, t, config);
        conn::lookup(burst, flows, t);
        let flows = forward::forward(burst, flows, t, config, now, have_waited);
        if !others.is_empty() {
            arp::answer(burst, others, t, config, now);
            icmp::answer(burst, others, t, config, now);
            exception::decide(burst, others, t, config, now);
        }
        if !flows.is_empty() {
            let flows = steer::claim(burst, flows, t, config);
            admit::plan(burst, flows, t, config, now);
            admit::admit(burst, flows, t, config, now);
            resting::make_room(t, config);
            if !t.resets.is_empty() {
                self.send_resets(sink);
            }
        }
        self.tables.conns.end_burst();
        self.dispatch(burst, config, now, sink);
    }

    #[inline(never)]
    fn dispatch(
        &mut self,
        burst: &mut Burst<F>,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
    ) {
        let counters = &self.tables.counters;
        if let Some(port) = burst.common_port() {
            counters.tx_packets.add(burst.len() as u64);
            sink.transmit_all(port, burst.frames_mut());
            return;
        }
        let mut transmitted = 0;
        for (frame, meta) in burst.drain() {
            match meta.verdict {
                Verdict::Transmit { port } => {
                    transmitted += 1;
                    sink.transmit(port, frame);
                }
                Verdict::Drop(reason) => {
                    counters.drop_count(reason).add(1);
                    self.dropped.push(frame);
                }
                Verdict::HandOver { worker } => {
                    counters.handed_over.add(1);
                    sink.hand_over(worker, meta.in_port, frame);
                }
                Verdict::Kernel { port } if self.tables.ports[port as usize].has_exception => {
                    counters.to_kernel.add(1);
                    sink.to_kernel(port, frame, kernel_lane(meta, &self.tables.host_flows, now));
                }
                Verdict::Kernel { .. } => {
                    counters.drop_count(DropReason::NoExceptionPort).add(1);
                }
                Verdict::Hold { .. } => {
                    let conn = self.tables.conns.get(meta.conn);
                    let note = conn.next_hops[meta.conn.direction()];
                    let (in_port, begins_conn) = (meta.in_port, meta.begins_conn);
                    let packet = Held { note, in_port, begins_conn, frame };
                    let ended = hold(&mut self.held, packet, &self.tables.neighbours);
                    self.given_up.extend(ended);
                }
                Verdict::Continue => unreachable!("the last stage decides about every packet"),
            }
        }
        counters.tx_packets.add(transmitted);
        sink.discard(&mut self.dropped);
        if !self.given_up.is_empty() {
            self.end_wait(config);
        }
    }

    /// Packets whose wait for a MAC address ends here, and with it the conns that were made for them.
    #[cold]
    fn end_wait(&mut self, config: &Compiled) {
        let t = &mut self.tables;
        for held in self.given_up.drain(..) {
            t.counters.drop_count(DropReason::NeighbourPending).add(1);
            let Ok(view) = Ipv4Frame::parse(held.frame.bytes()) else { continue };
            if !held.begins_conn {
                continue;
            }
            let mut meta = Meta::received(held.in_port, true);
            meta.tuple = Tuple::from(&FlowKey {
                src: view.ip.src_u32(),
                dst: view.ip.dst_u32(),
                src_port: view.src_port(),
                dst_port: view.dst_port(),
                protocol: view.ip.protocol,
            });
            meta.conn = t.conns.find(t.hasher.hash(&meta.tuple), &meta.tuple);
            if !meta.conn.is_none() && conn::is_new(t.conns.get(meta.conn)) {
                conn::unmake(&mut meta, t, config);
            }
        }
        t.conns.end_burst();
    }

    /// Take over what the main thread found out about a next hop. The packets that waited for it go
    /// through all stages again: what became of their conns meanwhile counts.
    pub fn update_neighbour(
        &mut self,
        update: &NeighbourUpdate,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
    ) {
        let t = &mut self.tables;
        // What waits for one that is forgotten ends first: to ask again at once would keep it out of
        // a full table, and others with it.
        let is_removed = update.state == NeighbourState::Removed;
        let state = if is_removed { NeighbourState::Failed } else { update.state };
        let Some(slot) = t.neighbours.update(&NeighbourUpdate { state, ..*update }, now) else {
            return;
        };
        let mut left = self.held.len();
        let Some(mut burst) = self.released.take() else { return };
        while left > 0 {
            let mut metas = [Meta::received(0, true); BURST];
            while left > 0 && burst.len() < BURST {
                left -= 1;
                let Some(held) = self.held.pop_front() else { break };
                if held.note.slot() != slot {
                    self.held.push_back(held);
                } else if self.tables.neighbours.current(held.note).is_some() {
                    let meta = &mut metas[burst.len()];
                    (meta.in_port, meta.begins_conn) = (held.in_port, held.begins_conn);
                    burst.frames_mut().push(held.frame);
                } else {
                    self.given_up.push(held);
                }
            }
            let mut metas = metas.into_iter();
            burst.received(|_| metas.next().unwrap_or(Meta::received(0, true)));
            self.run_stages(&mut burst, config, now, sink, true);
            self.end_wait(config);
        }
        self.released = Some(burst);
        let t = &mut self.tables;
        if is_removed {
            t.neighbours.update(update, now);
        }
        t.counters.neighbours.set(t.neighbours.len() as u64);
    }

    /// Remove conns that were idle for their timeout, as many as keep pace with those that are made:
    /// what a packet waits for that is bounded by the conns made since the last call. Whether more
    /// wait to be looked at: then there is no time for a nap. Call once a round.
    #[inline]
    pub fn keep_pace(&mut self, config: &Compiled, now: Millis) -> bool {
        let t = &mut self.tables;
        let created = t.counters.conns_created.get();
        let made = created.wrapping_sub(t.created_before) as usize;
        t.created_before = created;
        let is_late = t.conns.expiry_behind(now).is_some_and(|late| late >= EXPIRE_LATE_MS);
        let least = if is_late { EXPIRE_PER_LATE_ROUND } else { EXPIRE_PER_ROUND };
        self.expire(config, now, least + made);
        self.is_behind(now)
    }

    /// Remove conns that were idle for their timeout, looking at no more than `most`; after timeouts
    /// were shortened, also at conns that are armed for later.
    pub fn expire(&mut self, config: &Compiled, now: Millis, most: usize) {
        let Tables { conns, counters, own_ports, rearmed_for, .. } = &mut self.tables;
        if *rearmed_for != config.shortened {
            *rearmed_for = config.shortened;
            conns.begin_rearming();
        }
        if conns.is_rearming() {
            conns.rearm(&config.timeouts, REARM_PER_ROUND);
        }
        conns.expire(now, &config.timeouts, most, |conn| {
            forget(conn, counters, own_ports, config);
            counters.conns_expired.add(1);
        });
    }

    /// Whether there is more to be done about timeouts than the last [`expire`](Self::expire) did.
    pub fn is_behind(&self, now: Millis) -> bool {
        let conns = &self.tables.conns;
        conns.is_rearming() || conns.expiry_behind(now).is_some()
    }

    /// Count some conns of addresses that leave, if any does. Call once a round.
    #[inline]
    pub fn count_leaving(&mut self, config: &Compiled, now: Millis) {
        let Tables { conns, census, worker, .. } = &mut self.tables;
        census.step(&config.leaving, *worker, conns.lines_mut(), now);
    }

    /// Messages to the main thread since the last call.
    pub fn take_messages(&mut self) -> impl Iterator<Item = ToMain> {
        self.tables.outbox.drain(..)
    }

    /// The conns, to look at.
    pub fn conns(&self) -> &ConnTable {
        &self.tables.conns
    }

    /// The flow in which the backend answers a client's flow, when that has a full-NAT conn.
    pub fn reply_flow(&self, from_client: &FlowKey) -> Option<FlowKey> {
        let conns = &self.tables.conns;
        let conn = conns.find_key(from_client);
        (!conn.is_none() && conns.get(conn).is_full_nat()).then(|| conns.get(conn).from_backend())
    }

    /// Packets that wait for MAC addresses.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Reach next hops by these routes from now on. What is under way goes by them as well.
    #[inline(always)]
    pub fn go_by(&mut self, routes: &Arc<RouteTable>) {
        if !Arc::ptr_eq(&self.tables.routes, routes) {
            self.reroute(routes);
        }
    }

    #[cold]
    fn reroute(&mut self, routes: &Arc<RouteTable>) {
        self.tables.routes = Arc::clone(routes);
        self.tables.neighbours.reroute();
    }

    /// What this worker sees of the others.
    pub fn view(&self) -> &WorkerView {
        &self.tables.view
    }

    /// The counters.
    pub fn counters(&self) -> &WorkerCounters {
        &self.tables.counters
    }
}

/// The part of the way to the kernel that a packet takes. A SYN is never an answer: whoever sends many
/// of them on one flow keeps to the part of strangers.
#[cold]
fn kernel_lane(meta: &Meta, host_flows: &HostFlows, now: Millis) -> KernelLane {
    if matches!(meta.class, Class::Arp | Class::Group) {
        return KernelLane::Neighbours;
    }
    // Only TCP and UDP packets with ports have a hash.
    let has_hash = meta.tuple.ports != 0;
    let opens = meta.tuple.protocol == PROTO_TCP
        && meta.tcp_flags.contains(TcpFlags::SYN)
        && !meta.tcp_flags.contains(TcpFlags::ACK);
    if has_hash && !opens && host_flows.knows(meta.hash, u64::from(now)) {
        KernelLane::Answers
    } else {
        KernelLane::Unsolicited
    }
}

/// Let a packet wait, if there is room for it. Packets of strangers, of whom anybody can make any
/// number, make room for all others, the oldest first; so do those whose next hop was given up. The
/// packet that there is no room for.
fn hold<F>(
    held: &mut VecDeque<Held<F>>,
    packet: Held<F>,
    neighbours: &Neighbours,
) -> Option<Held<F>> {
    let waiting = held.iter().filter(|other| other.note == packet.note).count();
    if waiting >= HELD_PER_NEIGHBOUR || neighbours.current(packet.note).is_none() {
        return Some(packet);
    }
    if held.len() < HELD {
        held.push_back(packet);
        return None;
    }
    let Some(oldest) = held.iter().position(|other| neighbours.is_strangers(other.note)) else {
        return Some(packet);
    };
    let ended = held.remove(oldest);
    held.push_back(packet);
    ended
}

/// Account for a conn that is gone.
fn forget(conn: &Conn, counters: &WorkerCounters, own_ports: &OwnPorts, config: &Compiled) {
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

impl Tables {
    /// Whether it is the MAC address of one of our ports.
    #[inline(always)]
    fn is_own_mac(&self, mac: MacAddr) -> bool {
        self.stations.contains(&mac.into())
    }

    /// Tell the main thread something; false when there is no room for it in this burst.
    fn tell(&mut self, message: ToMain) -> bool {
        let room = self.outbox.len() < OUTBOX;
        if room {
            self.outbox.push(message);
        }
        room
    }
}
