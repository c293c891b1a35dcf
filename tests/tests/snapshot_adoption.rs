//! What a new snapshot leaves to the main thread, by the clock: each piece must fit into a round of 3 ms.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_api::{Mode, Protocol, Scheduler, Snapshot};
use sluice_path::counters::WorkerCounters;
use sluice_path::family::V4;
use sluice_path::ledger::Ledger;
use sluice_path::slots::{self, Slots};
use sluice_path::snapshot::Compiled;
use sluice_path::tally::{Tally, WorkerView};
use sluice_path::testkit;

/// What a round of the main thread may take.
const ROUND: Duration = Duration::from_millis(3);
/// Backends adopted in a round, as `runtime/forwarding.rs` has it.
const PER_ROUND: usize = 2_048;

/// How the services of a snapshot are.
#[derive(Clone, Copy, Debug)]
struct Size {
    services: u16,
    backends: u16,
    maglev_slots: u32,
    /// Whether all that can be limited is, and is counted over all workers: the most there is to do.
    limited: bool,
}

fn snapshot(size: Size) -> Snapshot {
    let service = |number: u16| {
        let name = format!("s{number}");
        let mut service = testkit::service(&name, 80, Protocol::Tcp, Mode::Dr, size.backends);
        service.vip = Ipv4Addr::from_bits(0xc612_0000 + u32::from(number)).into();
        service.maglev_slots = size.maglev_slots;
        service.scheduler = if size.limited { Scheduler::Wlc } else { Scheduler::Maglev };
        if size.limited {
            service.max_conns = NonZeroU32::new(100_000);
            service.backends.iter_mut().for_each(|b| b.max_conns = NonZeroU32::new(10_000));
        }
        service
    };
    testkit::snapshot(1, (0..size.services).map(service).collect())
}

/// The main thread's state, with two workers.
struct Main {
    slots: Slots,
    compiled: Arc<Compiled>,
    tally: Tally,
    ledger: Ledger,
    announced: Vec<Ipv4Addr>,
}

impl Main {
    fn new(size: Size) -> Main {
        let (services, backends) =
            (u32::from(size.services), u32::from(size.services) * u32::from(size.backends));
        let service_slots = slots::service_slots(services) as usize;
        let backend_slots = slots::backend_slots(backends) as usize;
        let counters = || Arc::new(WorkerCounters::new(service_slots, backend_slots, 0));
        let view = || Arc::new(WorkerView::new(service_slots, backend_slots));
        let (counters, views) = (vec![counters(), counters()], vec![view(), view()]);
        Main {
            slots: Slots::new(services, backends),
            compiled: Arc::new(testkit::nothing_compiled()),
            tally: Tally::new(views, counters.clone(), service_slots, backend_slots),
            ledger: Ledger::new(counters, Arc::new(WorkerCounters::new(0, 0, 0))),
            announced: Vec::new(),
        }
    }

    /// Apply a snapshot; how long the compiler took, and the longest round of the main thread.
    fn apply(&mut self, snapshot: &Snapshot) -> (Duration, Duration) {
        let start = Instant::now();
        self.slots.assign(snapshot).unwrap();
        let compiled = Arc::new(Compiled::new(snapshot, &self.slots, &[], &self.compiled));
        let compiler = start.elapsed();
        let mut longest = Duration::ZERO;
        let mut start = Instant::now();
        let mut adoption = self.tally.begin(&compiled);
        while !self.tally.go_on(&mut adoption, &compiled, PER_ROUND) {
            longest = longest.max(start.elapsed());
            start = Instant::now();
        }
        self.ledger.adopt(&compiled);
        self.announced.retain(|address| compiled.is_announced(*address));
        let former = std::mem::replace(&mut self.compiled, compiled);
        longest = longest.max(start.elapsed());
        // The compiler frees it.
        drop(former);
        self.announced = snapshot
            .services
            .iter()
            .map(|service| Ipv4Addr::from_bits(V4::of_valid(service.vip)))
            .collect();
        (compiler, longest)
    }
}

#[test]
fn no_round_of_the_main_thread_takes_longer_than_3_ms() {
    let small =
        |services, backends, limited| Size { services, backends, maglev_slots: 251, limited };
    let sizes = [
        Size { services: 100, backends: 3, maglev_slots: 655_373, limited: false },
        small(1_000, 16, false),
        small(1_000, 16, true),
        small(10_000, 10, false),
        small(10_000, 10, true),
    ];
    for size in sizes {
        let mut main = Main::new(size);
        let mut snapshot = snapshot(size);
        let (first_compiler, first) = main.apply(&snapshot);
        // A host that all services have a backend on.
        snapshot.services.iter_mut().for_each(|service| service.backends[1].healthy = false);
        snapshot.generation = 2;
        let (host_compiler, host) = main.apply(&snapshot);
        assert_eq!(main.compiled.changes(), usize::from(size.services));
        // And again and again one backend of one service. The machine may have other things to do in
        // one of these moments, and not in all.
        let mut one = (Duration::MAX, Duration::MAX);
        for generation in 3..8 {
            let backend = &mut snapshot.services[7].backends[2];
            backend.healthy = !backend.healthy;
            snapshot.generation = generation;
            let (compiler, longest) = main.apply(&snapshot);
            assert_eq!(main.compiled.changes(), 1);
            one = (one.0.min(compiler), one.1.min(longest));
        }
        println!(
            "{size:?}: compiler, and longest round of main: first {first_compiler:?}, {first:?}; a host \
             fails {host_compiler:?}, {host:?}; one backend fails {:?}, {:?}",
            one.0, one.1
        );
        assert!(one.1 < ROUND, "{size:?}: {:?}", one.1);
        // Once each: with room for a machine that is busy otherwise.
        assert!(first < 10 * ROUND && host < 10 * ROUND, "{size:?}: {first:?} {host:?}");
    }
}
