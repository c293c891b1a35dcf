//! The workers: rings between them and from and to the main thread, queues of their own, and threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use sluice_path::counters::WorkerCounters;
use sluice_path::host_flows::KernelLane;
use sluice_path::ids::WorkerId;
use sluice_path::pipeline::PipelineConfig;
use sluice_path::snapshot::Compiled;
use sluice_path::tally::WorkerView;

use super::StartError;
use super::devices::Opened;
use crate::backoff::{Backoff, LONGEST_NAP};
use crate::config::Config;
use crate::dpdk::{
    Clock, Eal, Lcore, Mempool, Port, RingReceiver, RingSender, RxQueue, TxQueue, spsc,
};
use crate::orders::Orders;
use crate::runtime::crew::{Crew, WorkerHandle};
use crate::runtime::pulse::Pulse;
use crate::worker::{Worker, WorkerParts};

/// Mbufs that a ring between two threads holds.
pub const RING: u32 = 1_024;
/// Messages that wait between a worker and the main thread.
const MESSAGES: usize = 4_096;

/// What all workers have in common.
pub struct Common<'s> {
    /// DPDK.
    pub eal: &'s Eal,
    /// The file.
    pub config: &'s Config,
    /// What each worker's pipeline is made of, but for its number.
    pub pipeline: PipelineConfig,
    /// Where mbufs come from.
    pub mempool: &'s Mempool,
    /// The clock.
    pub clock: Clock,
    /// What they forward by.
    pub compiled: &'s Arc<ArcSwap<Compiled>>,
}

/// The workers that run, and what is known of them.
pub struct Hired {
    /// All of them.
    pub crew: Crew,
    /// What each knows of the others' conns.
    pub views: Vec<Arc<WorkerView>>,
    /// Memory that their conn tables take, in bytes.
    pub conn_table_bytes: u64,
}

/// Start all workers, each with its queues.
///
/// # Errors
/// There is no ring, or a CPU is not to be had.
pub fn hire(common: &Common, queues: Vec<WorkerQueues>) -> Result<Hired, StartError> {
    let cpus = &common.config.runtime.worker_cpus;
    let messages = Arc::new(ArrayQueue::new(MESSAGES));
    let orders = Arc::new(Orders::default());
    let rings = worker_rings(common.eal, common.config.runtime.workers())?;
    let (mut handles, mut views, mut conn_table_bytes) = (Vec::new(), Vec::new(), 0);
    let rings_and_queues = rings.into_iter().zip(queues).zip(cpus);
    for (worker, ((rings, queues), cpu)) in (0..).map(WorkerId).zip(rings_and_queues) {
        let (handle, view, bytes) =
            hire_one(common, worker, *cpu, (queues, rings), &messages, &orders)?;
        handles.push(handle);
        views.push(view);
        conn_table_bytes += bytes;
    }
    let now_ms = common.clock.now_ns() / 1_000_000;
    Ok(Hired { crew: Crew::new(handles, orders, messages, now_ms), views, conn_table_bytes })
}

fn hire_one(
    common: &Common,
    worker: WorkerId,
    cpu: u16,
    ((rx, tx), (to_workers, from_workers)): (WorkerQueues, WorkerRings),
    messages: &Arc<ArrayQueue<sluice_path::pipeline::ToMain>>,
    orders: &Arc<Orders>,
) -> Result<(WorkerHandle, Arc<WorkerView>, u64), StartError> {
    let PipelineConfig { service_slots, backend_slots, .. } = common.pipeline;
    let ports = common.config.ports.len();
    let counters = Arc::new(WorkerCounters::new(service_slots, backend_slots, ports));
    let view = Arc::new(WorkerView::new(service_slots, backend_slots));
    let updates = Arc::new(ArrayQueue::new(MESSAGES));
    let (to_main, for_kernel) = kernel_rings(common.eal, worker)?;
    let (to_worker, from_main) = spsc(common.eal, &format!("main-{worker}"), RING)?;
    let parts = WorkerParts {
        pipeline: PipelineConfig { worker, ..common.pipeline.clone() },
        rx,
        tx,
        from_workers,
        to_workers,
        from_main,
        to_main,
        messages: Arc::clone(messages),
        updates: Arc::clone(&updates),
        mempool: common.mempool.clone(),
        config: Arc::clone(common.compiled),
        counters: Arc::clone(&counters),
        view: Arc::clone(&view),
        clock: common.clock,
        backoff: Backoff::new(common.config.runtime.idle, LONGEST_NAP),
        orders: Arc::clone(orders),
    };
    let (thread, bytes) = spawn(common.eal, worker, cpu, parts)?;
    let handle = WorkerHandle {
        cpu,
        counters,
        thread,
        for_kernel,
        to_worker,
        frames_given: 0,
        updates,
        waiting: VecDeque::new(),
        pulse: Pulse::default(),
    };
    Ok((handle, view, bytes))
}

/// Rings of one worker: to the others by number, and from them.
type WorkerRings = (Vec<Option<RingSender>>, Vec<RingReceiver>);

/// A ring for each ordered pair of workers.
fn worker_rings(eal: &Eal, workers: u16) -> Result<Vec<WorkerRings>, StartError> {
    let mut rings: Vec<WorkerRings> =
        WorkerId::first(workers).map(|_| Default::default()).collect();
    for from in WorkerId::first(workers) {
        for to in WorkerId::first(workers) {
            if from == to {
                rings[from.index()].0.push(None);
                continue;
            }
            let (sender, receiver) = spsc(eal, &format!("handover-{from}-{to}"), RING)?;
            rings[from.index()].0.push(Some(sender));
            rings[to.index()].1.push(receiver);
        }
    }
    Ok(rings)
}

/// Rings from a worker to the main thread, for each kind of packet for the kernel.
type KernelRings = ([RingSender; KernelLane::COUNT], [RingReceiver; KernelLane::COUNT]);

fn kernel_rings(eal: &Eal, worker: WorkerId) -> Result<KernelRings, StartError> {
    let ring =
        |lane: KernelLane| spsc(eal, &format!("kernel-{worker}-{}", lane as u8), lane.size());
    let (neighbours, answers, unsolicited) =
        (ring(KernelLane::Neighbours)?, ring(KernelLane::Answers)?, ring(KernelLane::Unsolicited)?);
    Ok(([neighbours.0, answers.0, unsolicited.0], [neighbours.1, answers.1, unsolicited.1]))
}

/// Queues of one worker, by port.
pub type WorkerQueues = (Vec<RxQueue>, Vec<TxQueue>);

/// Give each of so many workers its queues.
pub fn split_queues(opened: Vec<Opened>, workers: u16) -> (Vec<Port>, Vec<WorkerQueues>) {
    let mut queues: Vec<WorkerQueues> =
        WorkerId::first(workers).map(|_| Default::default()).collect();
    let ports = opened
        .into_iter()
        .map(|opened| {
            for (queues, (rx, tx)) in queues.iter_mut().zip(opened.rx.into_iter().zip(opened.tx)) {
                queues.0.push(rx);
                queues.1.push(tx);
            }
            opened.port
        })
        .collect();
    (ports, queues)
}

/// Start a worker's thread: when this returns it has its CPU, and its tables, of so many bytes,
/// which it takes itself, so that they lie on its own NUMA node.
fn spawn(
    eal: &Eal,
    worker: WorkerId,
    cpu: u16,
    parts: WorkerParts,
) -> Result<(JoinHandle<()>, u64), StartError> {
    let eal = eal.handle();
    let (ready, is_ready) = sync_channel(1);
    let thread = Builder::new()
        .name(format!("worker-{worker}"))
        .spawn(move || match Lcore::register(&eal, cpu) {
            Ok(_lcore) => {
                let mut worker = Worker::new(parts);
                let _ = ready.send(Ok(worker.table_bytes()));
                worker.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        })
        .map_err(StartError::Thread)?;
    match is_ready.recv() {
        Ok(Err(source)) => Err(StartError::Worker { worker, cpu, source }),
        Ok(Ok(bytes)) => Ok((thread, bytes)),
        // Its thread is gone, and has said why.
        Err(_) => Ok((thread, 0)),
    }
}
