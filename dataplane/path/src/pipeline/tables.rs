//! What a pipeline holds, and how it is made.

use std::collections::VecDeque;
use std::sync::Arc;

use sluice_wire::ether::MacAddr;
use sluice_wire::flow_head::Station;

use super::held::{HELD, Held};
use super::icmp_error::ErrorLimits;
use super::rate_limit::RateLimit;
use super::steer::Steer;
use super::{
    InterfaceInfo, OUTBOX, PipelineConfig, ToMain, admit, arp, choose, exception, next_hop, refuse,
    relate, resting,
};
use crate::burst::{BURST, Burst};
use crate::counters::WorkerCounters;
use crate::flow::{FlowHasher, FlowKey};
use crate::frame::Frame;
use crate::host_flows::HostFlows;
use crate::ids::WorkerId;
use crate::scheduler::Wrr;
use crate::snapshot::leaving::Census;
use crate::table::conn::ConnTable;
use crate::table::conn::half_open::HalfOpen;
use crate::table::conn::resting::Resting;
use crate::table::local_port::OwnPorts;
use crate::table::neighbour::{Egress, Neighbours};
use crate::table::route::RouteTable;
use crate::tally::WorkerView;
use crate::time::Millis;

/// The packet path of one worker.
pub struct Pipeline<F> {
    pub(super) tables: Tables,
    pub(super) held: VecDeque<Held<F>>,
    /// For those of them whose wait is over.
    pub(super) released: Option<Box<Burst<F>>>,
    /// Those of a burst whose wait has come to nothing.
    pub(super) given_up: Vec<Held<F>>,
    /// Packets of a burst that end here, to be given back together.
    pub(super) dropped: Vec<F>,
}

/// Everything the stages work on but the packets.
pub struct Tables {
    pub(super) conns: ConnTable,
    pub(super) half_open: HalfOpen,
    pub(super) resting: Resting,
    /// RSTs that go ahead of the burst's SYNs.
    pub(super) resets: Vec<resting::Reset>,
    pub(super) neighbours: Neighbours,
    pub(super) own_ports: OwnPorts,
    /// By backend slot.
    pub(super) last_hops: Box<[next_hop::LastHop]>,
    /// By service slot.
    pub(super) wrr: Box<[Wrr]>,
    pub(super) wlc_start: usize,
    /// [`Compiled::shortened`] that the conns' timers were last looked at for.
    pub(super) rearmed_for: u64,
    /// By service slot.
    pub(super) full: Box<[choose::Full]>,
    pub(super) view: Arc<WorkerView>,
    pub(super) workers: u16,
    pub(super) hasher: FlowHasher,
    pub(super) interfaces: Box<[InterfaceInfo]>,
    /// By interface: what sound packets to it have in common.
    pub(super) stations: Box<[Station]>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) steer: Steer,
    pub(super) verify_l4_checksum: bool,
    pub(super) host_flows: Arc<HostFlows>,
    pub(super) outbox: Vec<ToMain>,
    pub(super) plans: Box<admit::Plans>,
    pub(super) error_limits: Box<ErrorLimits>,
    pub(super) related_limit: RateLimit,
    pub(super) arp_limits: Box<arp::MessageLimits>,
    pub(super) strangers_limit: RateLimit,
    pub(super) refusals: refuse::Limits,
    pub(super) group_limit: RateLimit,
    /// Conns made when expiry was last called.
    pub(super) created_before: u64,
    pub(super) census: Census,
    pub(super) worker: WorkerId,
}

impl Tables {
    /// Whether it is the MAC address of one of our ports.
    #[inline(always)]
    pub(super) fn is_own_mac(&self, mac: MacAddr) -> bool {
        self.stations.contains(&mac.into())
    }

    /// Tell the main thread something; false when there is no room for it in this burst.
    pub(super) fn tell(&mut self, message: ToMain) -> bool {
        let room = self.outbox.len() < OUTBOX;
        if room {
            self.outbox.push(message);
        }
        room
    }
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
        let egress: Vec<Egress> =
            config.interfaces.iter().map(|p| Egress { mac: p.mac, mtu: p.mtu }).collect();
        let whoami = (config.worker, config.workers);
        let steer = Steer::new(&config.steering, whoami, config.interfaces.len(), &counters);
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
                wlc_start: config.worker.index(),
                full: vec![choose::Full::default(); config.service_slots].into(),
                view,
                workers: config.workers,
                hasher,
                stations: config.interfaces.iter().map(|p| p.mac.into()).collect(),
                interfaces: config.interfaces.into_boxed_slice(),
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
