//! A worker: one core, its own queues, its own tables, one loop.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use crossbeam_queue::ArrayQueue;
use sluice_api::DropReason;

use crate::backoff::Backoff;
use crate::dpdk::{Clock, Mbuf, Mempool, RingReceiver, RingSender, RxQueue, TxQueue, free_bulk};
use crate::orders::Orders;
use sluice_path::burst::{BURST, Burst, Meta};
use sluice_path::counters::WorkerCounters;
use sluice_path::host_flows::KernelLane;
use sluice_path::ids::{InterfaceId, PortId, WorkerId};
use sluice_path::next_hop::NeighbourUpdate;
use sluice_path::pipeline::{Pipeline, PipelineConfig, Sink, ToMain};
use sluice_path::snapshot::Compiled;
use sluice_path::tally::WorkerView;
use sluice_path::time::Millis;

/// Neighbour updates taken in one round.
const UPDATES_PER_ROUND: usize = 64;

/// A ring or transmit queue with the packets that are to go there in one burst.
struct Lane<Q> {
    to: Q,
    waiting: Vec<Mbuf>,
    /// Why a packet dies that it has no room for.
    full: DropReason,
}

/// Where a lane's packets go.
trait Outlet {
    /// Send from the front, take out what was sent, leave the rest.
    fn send(&mut self, from: &mut Vec<Mbuf>) -> usize;
}

impl Outlet for TxQueue {
    fn send(&mut self, from: &mut Vec<Mbuf>) -> usize {
        self.burst(from)
    }
}

impl Outlet for RingSender {
    fn send(&mut self, from: &mut Vec<Mbuf>) -> usize {
        RingSender::send(self, from)
    }
}

impl<Q: Outlet> Lane<Q> {
    fn new(to: Q, full: DropReason) -> Self {
        Lane { to, waiting: Vec::with_capacity(2 * BURST), full }
    }

    #[inline(always)]
    fn push(&mut self, frame: Mbuf, counters: &WorkerCounters) {
        self.waiting.push(frame);
        if self.waiting.len() >= BURST {
            self.flush(counters);
        }
    }

    /// Send what waits. What finds no room is dropped and counted, never waited for.
    #[inline(always)]
    fn flush(&mut self, counters: &WorkerCounters) {
        if self.waiting.is_empty() {
            return;
        }
        self.to.send(&mut self.waiting);
        if !self.waiting.is_empty() {
            counters.drop_count(self.full).add(self.waiting.len() as u64);
            free_bulk(&mut self.waiting);
        }
    }
}

/// Everything that leaves a worker.
struct Lanes {
    counters: Arc<WorkerCounters>,
    /// By port.
    ports: Vec<Lane<TxQueue>>,
    /// By worker; none to itself.
    workers: Vec<Option<Lane<RingSender>>>,
    /// By kind.
    kernel: [Lane<RingSender>; KernelLane::COUNT],
    mempool: Mempool,
}

impl Lanes {
    fn flush_ports(&mut self) {
        let Lanes { counters, ports, .. } = self;
        ports.iter_mut().for_each(|lane| lane.flush(counters));
    }

    fn flush(&mut self) {
        self.flush_ports();
        let Lanes { counters, workers, kernel, .. } = self;
        workers.iter_mut().flatten().for_each(|lane| lane.flush(counters));
        kernel.iter_mut().for_each(|lane| lane.flush(counters));
    }
}

impl Sink<Mbuf> for Lanes {
    #[inline(always)]
    fn transmit(&mut self, interface: InterfaceId, frame: Mbuf) {
        self.ports[interface.port().index()].push(frame, &self.counters);
    }

    fn hand_over(&mut self, worker: WorkerId, interface: InterfaceId, mut frame: Mbuf) {
        frame.set_interface(interface);
        if let Some(lane) = &mut self.workers[worker.index()] {
            lane.push(frame, &self.counters);
        }
    }

    fn to_kernel(&mut self, interface: InterfaceId, mut frame: Mbuf, lane: KernelLane) {
        frame.set_interface(interface);
        self.kernel[lane as usize].push(frame, &self.counters);
    }

    fn spare(&mut self) -> Option<Mbuf> {
        self.mempool.alloc()
    }

    #[inline(always)]
    fn transmit_all(&mut self, interface: InterfaceId, frames: &mut Vec<Mbuf>) {
        let lane = &mut self.ports[interface.port().index()];
        lane.waiting.append(frames);
        if lane.waiting.len() >= BURST {
            lane.flush(&self.counters);
        }
    }

    #[inline(always)]
    fn discard(&mut self, frames: &mut Vec<Mbuf>) {
        free_bulk(frames);
    }
}

/// What a worker is made of.
pub struct WorkerParts {
    /// What its packet path is made of.
    pub pipeline: PipelineConfig,
    /// Its receive queues, by port.
    pub rx: Vec<RxQueue>,
    /// Its transmit queues, by port.
    pub tx: Vec<TxQueue>,
    /// Rings on which other workers hand packets over, with the interface they came in by.
    pub from_workers: Vec<RingReceiver>,
    /// Rings to the other workers, by number; none to itself.
    pub to_workers: Vec<Option<RingSender>>,
    /// Whole frames from the main thread, which sends by one worker at a time, with the
    /// interface they leave by.
    pub from_main: RingReceiver,
    /// Packets for the kernel, by [`KernelLane`], with the interface whose exception port they go to.
    pub to_main: [RingSender; KernelLane::COUNT],
    /// Messages to the main thread.
    pub messages: Arc<ArrayQueue<ToMain>>,
    /// What the main thread finds out about next hops.
    pub updates: Arc<ArrayQueue<NeighbourUpdate>>,
    /// Where buffers for packets of its own come from.
    pub mempool: Mempool,
    /// The snapshot to forward by.
    pub config: Arc<ArcSwap<Compiled>>,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// What it sees of the other workers.
    pub view: Arc<WorkerView>,
    /// The clock.
    pub clock: Clock,
    /// What it does when there is nothing to do.
    pub backoff: Backoff,
    /// What it is to do.
    pub orders: Arc<Orders>,
}

/// A worker, ready to run.
pub struct Worker {
    pipeline: Pipeline<Mbuf>,
    rx: Vec<RxQueue>,
    lanes: Lanes,
    from_workers: Vec<RingReceiver>,
    from_main: RingReceiver,
    from_main_frames: Vec<Mbuf>,
    messages: Arc<ArrayQueue<ToMain>>,
    updates: Arc<ArrayQueue<NeighbourUpdate>>,
    config: Cache<Arc<ArcSwap<Compiled>>, Arc<Compiled>>,
    clock: Clock,
    backoff: Backoff,
    orders: Arc<Orders>,
}

impl Worker {
    /// A worker from its parts. Its tables are taken here: call it on the worker's own thread.
    pub fn new(parts: WorkerParts) -> Self {
        let now = now_ms(&parts.clock);
        let pipeline = Pipeline::new(parts.pipeline, Arc::clone(&parts.counters), parts.view, now);
        let [neighbours, answers, unsolicited] = parts.to_main;
        let kernel = [
            Lane::new(neighbours, DropReason::ExceptionRingFull),
            Lane::new(answers, DropReason::ExceptionRingFull),
            Lane::new(unsolicited, DropReason::ExceptionUnsolicited),
        ];
        let lanes = Lanes {
            counters: parts.counters,
            ports: parts.tx.into_iter().map(|q| Lane::new(q, DropReason::TxQueueFull)).collect(),
            workers: parts
                .to_workers
                .into_iter()
                .map(|ring| ring.map(|r| Lane::new(r, DropReason::HandoverRingFull)))
                .collect(),
            kernel,
            mempool: parts.mempool,
        };
        Worker {
            pipeline,
            rx: parts.rx,
            lanes,
            from_workers: parts.from_workers,
            from_main: parts.from_main,
            from_main_frames: Vec::with_capacity(BURST),
            messages: parts.messages,
            updates: parts.updates,
            config: Cache::new(parts.config),
            clock: parts.clock,
            backoff: parts.backoff,
            orders: parts.orders,
        }
    }

    /// Memory that its conn table takes, in bytes.
    pub fn table_bytes(&self) -> u64 {
        self.pipeline.conns().bytes() as u64
    }

    /// Forward until told to stop.
    pub fn run(&mut self) {
        let mut burst = Burst::default();
        while self.orders.go_on() {
            let done = self.round(&mut burst);
            let counters = &self.lanes.counters;
            (if done.packets > 0 { &counters.busy_polls } else { &counters.idle_polls }).add(1);
            self.backoff.after_round(done.packets + usize::from(done.is_behind));
        }
    }

    /// One round over everything that may bring work.
    fn round(&mut self, burst: &mut Burst<Mbuf>) -> Done {
        let now = now_ms(&self.clock);
        let Worker { pipeline, rx, lanes, from_workers, config, updates, messages, .. } = self;
        let config: &Compiled = config.load();
        pipeline.go_by(&config.routes);
        let view_epoch = pipeline.view().epoch();
        let mut packets = 0;
        for (port, queue) in rx.iter_mut().enumerate() {
            let interface = InterfaceId::of(PortId(port as u16));
            packets += queue.burst(burst.frames_mut(), BURST);
            burst.received(|_| Meta::received(interface, false));
            pipeline.process(burst, config, now, lanes);
        }
        for ring in from_workers {
            packets += ring.receive(burst.frames_mut(), BURST);
            burst.received(|frame| Meta::received(frame.interface(), true));
            pipeline.process(burst, config, now, lanes);
        }
        packets += send_for_main(&mut self.from_main, &mut self.from_main_frames, lanes);
        for update in std::iter::from_fn(|| updates.pop()).take(UPDATES_PER_ROUND) {
            pipeline.update_neighbour(&update, config, now, lanes);
        }
        let is_behind = pipeline.keep_pace(config, now);
        pipeline.count_leaving(config, now);
        lanes.flush();
        for message in pipeline.take_messages() {
            // When the queue is full the message is lost: whoever sent it will say it again.
            let _ = messages.push(message);
        }
        // The queues drop these themselves.
        let too_long = rx.iter().map(RxQueue::multi_segment_drops).sum();
        lanes.counters.drop_count(DropReason::FrameTooLong).set(too_long);
        lanes.counters.generation.publish(config.generation);
        // Last: whoever sees it sees all that this round made by these quotas and those before.
        lanes.counters.view_epoch.publish(view_epoch);
        Done { packets, is_behind }
    }
}

/// What a round did.
struct Done {
    /// Packets that it brought.
    packets: usize,
    /// Whether conns wait to be looked at for their timeouts.
    is_behind: bool,
}

/// Send the frames that the main thread or the kernel made; how many. The main thread learns whether
/// all of them have left.
fn send_for_main(ring: &mut RingReceiver, frames: &mut Vec<Mbuf>, lanes: &mut Lanes) -> usize {
    let count = ring.receive(frames, BURST);
    if count == 0 {
        return 0;
    }
    // What waits for the ports goes first: what is lost after it is of these.
    lanes.flush_ports();
    let lost_before = lanes.counters.drop_count(DropReason::TxQueueFull).get();
    for frame in frames.drain(..) {
        let interface = frame.interface();
        lanes.counters.tx_packets.add(1);
        lanes.transmit(interface, frame);
    }
    lanes.flush_ports();
    let counters = &lanes.counters;
    let lost = counters.drop_count(DropReason::TxQueueFull).get() - lost_before;
    counters.main_frames_lost.add(lost);
    counters.main_frames.publish(counters.main_frames.get() + count as u64);
    count
}

/// The time that the tables work with.
pub fn now_ms(clock: &Clock) -> Millis {
    (clock.now_ns() / 1_000_000) as Millis
}
