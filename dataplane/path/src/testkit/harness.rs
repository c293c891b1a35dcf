//! A pipeline with everything around it that a worker and the main thread are.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::{DropReason, Snapshot};

use super::{
    PORT_MACS, assert_valid, interfaces, is_reachable, own_addresses, routes, test_limits,
};
use crate::burst::{BURST, Burst, Meta};
use crate::counters::WorkerCounters;
use crate::frame::MemFrame;
use crate::host_flows::{HostFlows, KernelLane};
use crate::ids::{InterfaceId, WorkerId};
use crate::memory::Pages;
use crate::next_hop::NeighbourUpdate;
use crate::pipeline::{Pipeline, PipelineConfig, Sink, Steering, ToMain};
use crate::slots::{self, Slots};
use crate::snapshot::Compiled;
use crate::table::route::RouteTable;
use crate::tally::WorkerView;
use crate::time::Millis;

/// Wide conns that a pipeline here has room for.
const WIDE_CONNS: u32 = 64;

/// What left a pipeline.
#[derive(Debug, Default)]
pub struct Out {
    /// Interface and packet.
    pub transmitted: Vec<(InterfaceId, MemFrame)>,
    /// Worker, interface it came in by, and packet.
    pub handed_over: Vec<(WorkerId, InterfaceId, MemFrame)>,
    /// Interface and packet.
    pub to_kernel: Vec<(InterfaceId, MemFrame)>,
    /// The part of the way to the kernel that each of them takes.
    pub kernel_lanes: Vec<KernelLane>,
}

impl Sink<MemFrame> for Out {
    fn transmit(&mut self, interface: InterfaceId, frame: MemFrame) {
        self.transmitted.push((interface, frame));
    }
    fn hand_over(&mut self, worker: WorkerId, interface: InterfaceId, frame: MemFrame) {
        self.handed_over.push((worker, interface, frame));
    }
    fn to_kernel(&mut self, interface: InterfaceId, frame: MemFrame, lane: KernelLane) {
        self.to_kernel.push((interface, frame));
        self.kernel_lanes.push(lane);
    }
    fn spare(&mut self) -> Option<MemFrame> {
        Some(MemFrame::new(&[]))
    }
}

/// A pipeline with everything around it.
pub struct Harness {
    /// The pipeline.
    pub pipeline: Pipeline<MemFrame>,
    /// What it forwards by.
    pub compiled: Compiled,
    /// Slots of services and backends.
    pub slots: Slots,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// What it sees of the other workers: nothing, unless a test has a tally over several.
    pub view: Arc<WorkerView>,
    /// What the host has asked for: nothing, unless a test notes it.
    pub host_flows: Arc<HostFlows>,
    /// The time; tests set it.
    pub now: Millis,
    /// Whether next hops are found when they are asked for, each by [its own MAC](mac_of).
    pub resolves: bool,
    /// Messages to the main thread other than wants that were answered.
    pub messages: Vec<ToMain>,
    burst: Burst<MemFrame>,
}

impl Harness {
    /// One worker with room for `conns`, forwarding by a snapshot.
    pub fn new(snapshot: &Snapshot, conns: u32) -> Self {
        Self::worker(snapshot, conns, WorkerId(0), 1)
    }

    /// Worker number `worker` of `workers`, with handover.
    pub fn worker(snapshot: &Snapshot, conns: u32, worker: WorkerId, workers: u16) -> Self {
        Self::steered(snapshot, conns, (worker, workers), Steering::by_handover(workers))
    }

    /// Worker number so of so many, with this steering.
    pub fn steered(
        snapshot: &Snapshot,
        conns: u32,
        (worker, workers): (WorkerId, u16),
        steering: Steering,
    ) -> Self {
        let limits = test_limits();
        let backend_slots = slots::backend_slots(limits.backends) as usize;
        let service_slots = slots::service_slots(limits.services) as usize;
        let counters = Arc::new(WorkerCounters::new(service_slots, backend_slots, PORT_MACS.len()));
        let view = Arc::new(WorkerView::new(service_slots, backend_slots));
        let interfaces = interfaces();
        let own_ports = steering.owners.all_own_ports(workers);
        let host_flows = Arc::new(HostFlows::new(7));
        let pipeline_config = PipelineConfig {
            worker,
            workers,
            steering,
            conns,
            wide_conns: WIDE_CONNS,
            neighbours: 1_024,
            service_slots,
            backend_slots,
            interfaces,
            routes: routes(),
            seed: 7,
            host_flows: Arc::clone(&host_flows),
            verify_l4_checksum: true,
            pages: Pages::Transparent,
        };
        let mut harness = Harness {
            pipeline: Pipeline::new(
                pipeline_config,
                Arc::clone(&counters),
                Arc::clone(&view),
                1_000,
            ),
            compiled: Compiled::empty(&own_addresses(), own_ports, 7, routes()),
            slots: Slots::new(limits.services, limits.backends),
            counters,
            view,
            host_flows,
            now: 1_000,
            resolves: true,
            messages: Vec::new(),
            burst: Burst::default(),
        };
        harness.apply(snapshot);
        harness
    }

    /// Forward by another snapshot, which must be valid.
    pub fn apply(&mut self, snapshot: &Snapshot) {
        assert_valid(snapshot);
        self.slots.assign(snapshot).expect("there is room for the test's services");
        let own = own_addresses();
        self.compiled = Compiled::new(snapshot, &self.slots, &own, &self.compiled);
    }

    /// Reach next hops by other routes, as at the beginning of a round.
    pub fn reroute(&mut self, routes: Arc<RouteTable>) {
        let own = own_addresses();
        self.compiled = Compiled::rerouted(&self.compiled, &self.slots, &own, routes);
        self.pipeline.go_by(&self.compiled.routes);
    }

    /// Let packets come in by an interface; what left.
    pub fn receive(
        &mut self,
        interface: InterfaceId,
        packets: impl IntoIterator<Item = Vec<u8>>,
    ) -> Out {
        self.receive_meta(Meta::received(interface, false), packets)
    }

    /// Let packets come in with what is known of them; what left.
    pub fn receive_meta(&mut self, meta: Meta, packets: impl IntoIterator<Item = Vec<u8>>) -> Out {
        let mut out = Out::default();
        let mut packets = packets.into_iter().peekable();
        while packets.peek().is_some() {
            let frames = packets.by_ref().take(BURST).map(|bytes| MemFrame::new(&bytes));
            self.burst.frames_mut().extend(frames);
            self.burst.received(|_| meta);
            self.pipeline.process(&mut self.burst, &self.compiled, self.now, &mut out);
            self.answer_wants(&mut out);
        }
        out
    }

    /// Tell the pipeline where the next hops are that it asks for.
    fn answer_wants(&mut self, out: &mut Out) {
        let messages: Vec<ToMain> = self.pipeline.take_messages().collect();
        for message in messages {
            match message {
                ToMain::Want { hop, .. } if self.resolves => {
                    let update = is_reachable(hop.interface, Ipv4Addr::from_bits(hop.address));
                    self.update_neighbour(&update, out);
                }
                message => self.messages.push(message),
            }
        }
    }

    /// Tell the pipeline what the main thread found out about a next hop.
    pub fn update_neighbour(&mut self, update: &NeighbourUpdate, out: &mut Out) {
        self.pipeline.update_neighbour(update, &self.compiled, self.now, out);
    }

    /// Tell the main thread what this worker goes by, as at the end of each round.
    pub fn acknowledge(&self) {
        self.counters.generation.publish(self.compiled.generation);
        self.counters.view_epoch.publish(self.view.epoch());
    }

    /// Let time pass, and conns expire.
    pub fn pass(&mut self, ms: u32) {
        self.now = self.now.wrapping_add(ms);
        self.pipeline.expire(&self.compiled, self.now, usize::MAX);
    }

    /// Packets dropped for a reason so far.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters.drop_count(reason).get()
    }

    /// Reasons for which packets were dropped so far, with their counts.
    pub fn all_drops(&self) -> Vec<(DropReason, u64)> {
        let count = |reason: &DropReason| (*reason, self.drops(*reason));
        DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}
