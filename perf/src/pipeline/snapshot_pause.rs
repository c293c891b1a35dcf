//! What adopting a snapshot costs the worker that forwards meanwhile.
//!
//! Another thread, on another CPU, does what the data plane's main thread and its compiler do: it
//! compiles a snapshot of 10,000 services with 10 backends each, publishes it in one pointer, keeps
//! the former one until the worker has let go of it, and frees it. Every weight changes each time, so
//! nothing is shared with the former one. The worker takes the newest at the start of each round,
//! exactly as `worker.rs` does, and forwards: established flows, and conns that are opened (which reads
//! the new services) and reset.
//!
//! A pause is the longest round among the 32 that follow an adoption, with the adopting one. The
//! same is taken beside it of as many windows of 32 rounds while the other thread compiles, and
//! while it sleeps: that is what the machine itself does to a worker, and a pause no longer than
//! that says nothing about adoption. Windows in which the kernel took the CPU for another program
//! are left out and counted: a worker has its CPU to itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use serde::Serialize;
use sluice_api::Snapshot;
use sluice_path::burst::BURST;
use sluice_path::ids::InterfaceId;
use sluice_path::slots::Slots;
use sluice_path::snapshot::Compiled;
use sluice_path::testkit::{CLIENT_PORT, Random};
use sluice_wire::tcp::TcpFlags;

use super::Options;
use super::bench::{Bench, Setup, Traffic};
use super::goal::{self, Goal};
use super::report::{Row, round};
use super::scenario::{Rounds, bring_up};
use super::services::{BACKENDS, SERVICES, flow, many};
use crate::traffic::{Template, below};
use sluice_path::pipeline::EXPIRE_PER_ROUND;

/// Established flows.
pub const FLOWS: u32 = 100_000;
/// Clients that open and reset conns.
const OPENERS: u32 = 10_000;
/// Rounds of a window: those in which what the new snapshot's lines cost would show.
const WINDOW: u32 = 32;

/// What the other thread does.
const SLEEPS: u8 = 0;
const WORKS: u8 = 1;
/// How long it sleeps after each adoption.
const REST: Duration = Duration::from_millis(5);

/// Longest rounds of windows of 32 rounds, in us.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pauses {
    /// Windows.
    pub windows: usize,
    /// The longest round of all.
    pub longest_us: f64,
    /// The median of the windows' longest rounds.
    pub median_us: f64,
}

/// What adoption did to a worker, and what the machine does anyway.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SnapshotPause {
    /// Services of each snapshot.
    pub services: u32,
    /// Backends of each service.
    pub backends: u16,
    /// With an adoption in the first round of the window.
    pub with_adoption: Pauses,
    /// Noise floor: none adopted, while the other thread compiles or frees.
    pub while_compiling: Pauses,
    /// Noise floor: none adopted, while the other thread sleeps.
    pub while_idle: Pauses,
    /// Windows that were left out, as the kernel ran another program in them.
    pub preempted_windows: usize,
    /// How long compiling a snapshot took on the other thread, median, in ms.
    pub compile_ms: f64,
}

/// Established flows in random order; every eighth packet opens a conn, or resets it.
struct Forwarding {
    random: Random,
    ack: Template,
    syn: Template,
    rst: Template,
    packets: u32,
}

impl Traffic for Forwarding {
    const EXPIRE: usize = EXPIRE_PER_ROUND;

    fn next(&mut self) -> (InterfaceId, Vec<u8>) {
        self.packets = self.packets.wrapping_add(1);
        let turn = self.packets / 8;
        let bytes = match self.packets % 8 {
            0 if turn.is_multiple_of(2) => self.syn.with(flow(FLOWS + turn / 2 % OPENERS)),
            0 => self.rst.with(flow(FLOWS + turn / 2 % OPENERS)),
            _ => self.ack.with(flow(below(&mut self.random, FLOWS))),
        };
        (CLIENT_PORT, bytes)
    }
}

/// What both threads share.
struct Shared {
    compiled: Arc<ArcSwap<Compiled>>,
    /// The generation that the worker forwards by.
    adopted: AtomicU64,
    doing: AtomicU8,
    over: AtomicBool,
}

/// The other thread's part; how long compiling took each time, in ms.
fn publish(
    shared: &Shared,
    mut snapshot: Snapshot,
    mut slots: Slots,
    own: &[(std::net::Ipv4Addr, InterfaceId)],
    adoptions: u32,
) -> Vec<f64> {
    let mut compile_ms = Vec::new();
    for _ in 0..adoptions {
        thread::sleep(REST);
        shared.doing.store(WORKS, SeqCst);
        snapshot.generation += 1;
        for service in &mut snapshot.services {
            for (i, backend) in service.backends.iter_mut().enumerate() {
                backend.weight = 1 + ((snapshot.generation + i as u64) % 3) as u16;
            }
        }
        let former = shared.compiled.load_full();
        let start = Instant::now();
        slots.assign(&snapshot).expect("the same services have their slots");
        let compiled = Compiled::new(&snapshot, &slots, own, &former);
        compile_ms.push(start.elapsed().as_secs_f64() * 1e3);
        shared.compiled.store(Arc::new(compiled));
        while shared.adopted.load(SeqCst) < snapshot.generation || Arc::strong_count(&former) > 1 {
            thread::sleep(Duration::from_millis(1));
        }
        drop(former);
        shared.doing.store(SLEEPS, SeqCst);
    }
    shared.over.store(true, SeqCst);
    compile_ms
}

/// How often the kernel took the CPU from this thread.
fn preemptions() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("nonvoluntary_ctxt_switches"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

/// The longest rounds of windows, in cycles.
#[derive(Default)]
struct Windows {
    longest: Vec<u64>,
    current: u64,
    rounds: u32,
    preemptions: Option<u64>,
    preempted: usize,
}

impl Windows {
    /// A round of a window; windows beyond `most` are not kept.
    fn add(&mut self, cycles: u64, most: usize) {
        self.current = self.current.max(cycles);
        self.rounds += 1;
        if self.rounds == WINDOW {
            if self.preemptions != preemptions() {
                self.preempted += 1;
            } else if self.longest.len() < most {
                self.longest.push(self.current);
            }
            self.restart();
        }
    }

    fn restart(&mut self) {
        (self.current, self.rounds, self.preemptions) = (0, 0, preemptions());
    }

    fn pauses(&mut self, hz: u64) -> Pauses {
        self.longest.sort_unstable();
        let us = |cycles: Option<&u64>| {
            round(cycles.copied().unwrap_or_default() as f64 * 1e6 / hz as f64)
        };
        Pauses {
            windows: self.longest.len(),
            longest_us: us(self.longest.last()),
            median_us: us(self.longest.get(self.longest.len() / 2)),
        }
    }
}

/// Measure it.
pub fn measure(bench: &mut Bench, options: &Options) -> Row {
    let mut setup = Setup::new(many(), (FLOWS + OPENERS) * 5 / 4);
    bring_up(bench, &mut setup, &(0..FLOWS).map(flow).collect::<Vec<_>>());
    let template = |flags| Template::new(CLIENT_PORT, flow(0), flags);
    let mut traffic = Forwarding {
        random: Random(4),
        ack: template(TcpFlags::ACK),
        syn: template(TcpFlags::SYN),
        rst: template(TcpFlags::RST),
        packets: 0,
    };
    let mut rounds = Rounds::default();
    bench.run(&mut setup, bench.packets, &mut traffic); // the warm-up
    rounds.floor(bench);
    let shared = Shared {
        compiled: Arc::new(ArcSwap::new(Arc::clone(&setup.compiled))),
        adopted: AtomicU64::new(setup.compiled.generation),
        doing: AtomicU8::new(SLEEPS),
        over: AtomicBool::new(false),
    };
    let (snapshot, slots) =
        (setup.snapshot.clone(), std::mem::replace(&mut setup.slots, Slots::new(1, 1)));
    let (own, adoptions) = (setup.own.clone(), options.adoptions);
    // The worker's own thread is bound to its CPU: what it starts must leave that.
    let (windows, compile_ms, cycles) = thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            if let Some(cpu) = options.other_cpu {
                core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
            }
            publish(&shared, snapshot, slots, &own, adoptions)
        });
        let (windows, cycles) = forward(bench, &mut setup, &mut traffic, &shared, adoptions);
        (windows, publisher.join().expect("the publisher ends"), cycles)
    });
    rounds.cycles.push(cycles);
    let mut row = rounds.row(bench, &setup);
    row.bytes_per_conn = None;
    let [mut idle, mut compiling, mut adopting] = windows;
    let hz = bench.hz();
    let mut compile_ms = compile_ms;
    compile_ms.sort_by(f64::total_cmp);
    let pause = SnapshotPause {
        services: SERVICES,
        backends: BACKENDS,
        with_adoption: adopting.pauses(hz),
        while_compiling: compiling.pauses(hz),
        while_idle: idle.pauses(hz),
        preempted_windows: adopting.preempted + compiling.preempted + idle.preempted,
        compile_ms: round(compile_ms[compile_ms.len() / 2]),
    };
    let longest = pause.with_adoption.longest_us;
    row.goal = Some(Goal::at_most("snapshot_pause_us", goal::SNAPSHOT_PAUSE_US, longest));
    row.snapshot_pause = Some(pause);
    row
}

/// The worker's part: windows while the other thread sleeps, while it works, and after an adoption.
fn forward(
    bench: &mut Bench,
    setup: &mut Setup,
    traffic: &mut Forwarding,
    shared: &Shared,
    adoptions: u32,
) -> ([Windows; 3], Vec<u64>) {
    let mut cache = Cache::new(Arc::clone(&shared.compiled));
    let [mut idle, mut compiling, mut adopting] =
        [(); 3].map(|()| Windows { preemptions: preemptions(), ..Windows::default() });
    let mut all = Vec::new();
    let mut in_window = 0;
    let most = adoptions as usize;
    while !shared.over.load(SeqCst) || in_window > 0 {
        let before = setup.compiled.generation;
        let doing = shared.doing.load(SeqCst);
        let cycles = bench.worker_round(setup, traffic, |setup| {
            // A new one is another pointer: the copy of it that the bench needs costs two counts.
            let newest = cache.load();
            if newest.generation != setup.compiled.generation {
                setup.compiled = Arc::clone(newest);
            }
            setup.pipeline.counters().generation.set(newest.generation);
        });
        shared.adopted.store(setup.compiled.generation, SeqCst);
        if !bench.is_preempted(cycles) && all.len() < bench.packets / BURST * bench.rounds {
            all.push(cycles);
        }
        if setup.compiled.generation != before {
            in_window = WINDOW;
            adopting.restart();
            // Counted from before the round that adopts.
            adopting.preemptions = compiling.preemptions;
        }
        if in_window > 0 {
            in_window -= 1;
            adopting.add(cycles, most);
            if in_window == 0 {
                idle.restart();
                compiling.restart();
            }
        } else if doing != shared.doing.load(SeqCst) {
            idle.restart();
            compiling.restart();
        } else if doing == WORKS {
            compiling.add(cycles, most);
        } else {
            idle.add(cycles, most);
        }
    }
    ([idle, compiling, adopting], all)
}
