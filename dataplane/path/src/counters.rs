//! Counters of a worker: plain adds on memory that only this worker writes; the main thread reads
//! them when somebody asks. No read-modify-write, no lock, no shared writable line (design,
//! invariant 1).

use crate::ids::{BackendSlot, PortId, ServiceSlot};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use sluice_api::DropReason;
use sluice_api::stats::Traffic;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Add to it. Only the owning worker may call this: it is a load and a store, not one
    /// indivisible step.
    #[inline(always)]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Take from it: gauges only, owning worker only.
    #[inline(always)]
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// Set it: gauges only, owning worker only.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Set it, such that who [observes](Self::observe) it sees all that was counted before: gauges
    /// only, owning worker only.
    #[inline(always)]
    pub fn publish(&self, value: u64) {
        self.0.store(value, Release);
    }

    /// A value that was [published](Self::publish), from any thread.
    #[inline(always)]
    pub fn observe(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Its value, from any thread.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters of services in a cache line: as many beside others keep any two workers' apart.
const PADDING: usize = 4;

/// Traffic in one direction.
#[derive(Debug, Default)]
pub struct Forwarded {
    /// Packets.
    pub packets: Counter,
    /// Bytes: IP total length.
    pub bytes: Counter,
}

impl Forwarded {
    /// Count a packet of so many bytes.
    #[inline(always)]
    pub fn add(&self, bytes: u16) {
        self.packets.add(1);
        self.bytes.add(u64::from(bytes));
    }
}

/// Traffic of one backend on one worker: one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct BackendCounters {
    /// From clients, and towards clients: by `ConnRef::direction`.
    pub forwarded: [Forwarded; 2],
    /// Conns made.
    pub conns_created: Counter,
    /// Conns now (gauge).
    pub conns: Counter,
    /// How often the worker's part of the backend's limit had no room for a new conn.
    pub refused: Counter,
    /// Conns that rest now (gauge): they are not among those above, and still refer to the slot.
    pub resting: Counter,
}

impl BackendCounters {
    /// What they stand at.
    pub fn read(&self) -> Traffic {
        let [from_clients, to_clients] = &self.forwarded;
        Traffic {
            packets_in: from_clients.packets.get(),
            bytes_in: from_clients.bytes.get(),
            packets_out: to_clients.packets.get(),
            bytes_out: to_clients.bytes.get(),
            conns_created: self.conns_created.get(),
            conns: self.conns.get(),
        }
    }
}

/// What one worker counts of a service as a whole, when a conn is made or ends.
#[derive(Debug, Default)]
pub struct ServiceCounters {
    /// Conns now (gauge).
    pub conns: Counter,
    /// New conns that the worker's part of the service's limit had no room for.
    pub refused: Counter,
}

/// What one worker received by one port: one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct QueueCounters {
    /// Packets received from the queue.
    pub rx_packets: Counter,
    /// Packets that RSS, as the port says it does it, would have led to another queue.
    pub mis_steered: Counter,
    /// What the worker thinks of the port's RSS (gauge): a [`Trust`](crate::pipeline::Trust).
    pub trust: Counter,
}

/// All counters of one worker. Aligned so that no other worker's data shares a line with them.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// Packets received from ports and from other workers.
    pub rx_packets: Counter,
    /// Packets given to ports.
    pub tx_packets: Counter,
    /// Packets handed over to another worker.
    pub handed_over: Counter,
    /// Packets given to the kernel.
    pub to_kernel: Counter,
    /// Conns made.
    pub conns_created: Counter,
    /// Conns that ended.
    pub conns_expired: Counter,
    /// Of them, half-open ones that gave way to new conns.
    pub half_open_evicted: Counter,
    /// Conns that are over, whose ports rest (gauge; part of `conns`).
    pub resting: Counter,
    /// Conns now (gauge).
    pub conns: Counter,
    /// Next hops known (gauge).
    pub neighbours: Counter,
    /// Poll rounds with packets.
    pub busy_polls: Counter,
    /// Poll rounds without.
    pub idle_polls: Counter,
    /// RSTs sent to who has no conn or finds nobody.
    pub resets_sent: Counter,
    /// ICMP destination unreachables sent to who finds nobody.
    pub unreachables_sent: Counter,
    /// Generation of the snapshot in use (gauge, published): what the main thread waits for.
    pub generation: Counter,
    /// Epoch of its view that the worker went by in all of its last round (gauge, published).
    pub view_epoch: Counter,
    /// Frames of the main thread that it has taken (published).
    pub main_frames: Counter,
    /// Of these, those that the port had no room for: counted before.
    pub main_frames_lost: Counter,
    drops: [Counter; DropReason::COUNT],
    queues: Box<[QueueCounters]>,
    /// By service slot, with a line of nothing on either side.
    services: Box<[ServiceCounters]>,
    backends: Box<[BackendCounters]>,
}

impl WorkerCounters {
    /// Counters for this many service slots, backend slots and ports.
    pub fn new(service_slots: usize, backend_slots: usize, ports: usize) -> Self {
        WorkerCounters {
            rx_packets: Counter::default(),
            tx_packets: Counter::default(),
            handed_over: Counter::default(),
            to_kernel: Counter::default(),
            resets_sent: Counter::default(),
            unreachables_sent: Counter::default(),
            conns_created: Counter::default(),
            conns_expired: Counter::default(),
            half_open_evicted: Counter::default(),
            resting: Counter::default(),
            conns: Counter::default(),
            neighbours: Counter::default(),
            busy_polls: Counter::default(),
            idle_polls: Counter::default(),
            generation: Counter::default(),
            view_epoch: Counter::default(),
            main_frames: Counter::default(),
            main_frames_lost: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            queues: (0..ports).map(|_| QueueCounters::default()).collect(),
            services: (0..service_slots + 2 * PADDING)
                .map(|_| ServiceCounters::default())
                .collect(),
            backends: (0..backend_slots).map(|_| BackendCounters::default()).collect(),
        }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.services)
            + size_of_val(&*self.backends)
            + size_of_val(&*self.queues)
    }

    /// Packets dropped for a reason.
    #[inline(always)]
    pub fn drop_count(&self, reason: DropReason) -> &Counter {
        &self.drops[reason as usize]
    }

    /// Counters of the worker's queue of a port.
    #[inline(always)]
    pub fn queue(&self, port: PortId) -> &QueueCounters {
        &self.queues[port.index()]
    }

    /// Counters of a service slot.
    #[inline(always)]
    pub fn service(&self, slot: ServiceSlot) -> &ServiceCounters {
        &self.services[slot.index() + PADDING]
    }

    /// Counters of all service slots.
    #[inline(always)]
    pub fn services(&self) -> &[ServiceCounters] {
        &self.services[PADDING..self.services.len() - PADDING]
    }

    /// Counters of a backend slot.
    #[inline(always)]
    pub fn backend(&self, slot: BackendSlot) -> &BackendCounters {
        &self.backends[slot.index()]
    }

    /// Counters of all backend slots.
    #[inline(always)]
    pub fn backends(&self) -> &[BackendCounters] {
        &self.backends
    }

    /// Packets dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }
}
