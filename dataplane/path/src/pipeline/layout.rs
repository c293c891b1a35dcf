//! What a worker writes shares no cache line with what another one does (design, invariant 1):
//! adding a worker takes nothing from the others.

use std::ops::Range;
use std::slice;
use std::sync::{Arc, Barrier, mpsc};

use sluice_api::{Mode, Protocol};

use super::Pipeline;
use crate::counters::{BackendCounters, QueueCounters, WorkerCounters};
use crate::frame::MemFrame;
use crate::ids::PortId;
use crate::ids::WorkerId;
use crate::testkit::{self, Harness, range_of};

/// Bytes that a core takes from the others when it writes one of them.
const LINE: usize = 64;

impl WorkerCounters {
    /// Where the worker writes, the main thread reads.
    fn written(&self) -> Vec<Range<usize>> {
        let queues = slice::from_ref(self.queue(PortId(0)));
        let services = range_of(self.services());
        let backends = range_of(self.backends());
        vec![range_of(slice::from_ref(self)), range_of(queues), services, backends]
    }
}

impl Pipeline<MemFrame> {
    /// Where everything lies that is written while packets are forwarded.
    fn written(&self) -> Vec<Range<usize>> {
        let mut all = self.shared.conns.written();
        all.extend(self.shared.counters.written());
        all.extend(self.shared.next_hops.written());
        all.extend(self.forward.written());
        all.extend(self.arp.written());
        all.extend(self.admit.written());
        all.extend([
            range_of(slice::from_ref(self)),
            self.steer.written(),
            self.icmp.written(),
            self.exception.written(),
            self.dispatch.written(),
            self.waiting.written(),
        ]);
        all
    }
}

#[test]
fn workers_share_no_line_that_one_of_them_writes() {
    const WORKERS: u16 = 8;
    let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 3);
    let snapshot = testkit::snapshot(1, vec![service]);
    let all_built = Arc::new(Barrier::new(usize::from(WORKERS)));
    let (sender, built) = mpsc::channel();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (sender, all_built) = (sender.clone(), Arc::clone(&all_built));
            let snapshot = &snapshot;
            // As in the process: each worker takes its memory on its own thread.
            scope.spawn(move || {
                let h = Box::new(Harness::worker(snapshot, 10_000, WorkerId(worker), WORKERS));
                let lines = h.pipeline.written().into_iter().filter(|range| !range.is_empty());
                let lines = lines.map(|r| (r.start / LINE, r.end.div_ceil(LINE), worker));
                let _ = sender.send(lines.collect::<Vec<_>>());
                all_built.wait();
            });
        }
    });
    drop(sender);
    let mut lines: Vec<(usize, usize, u16)> = built.iter().flatten().collect();
    lines.sort_unstable();
    assert!(lines.len() >= usize::from(WORKERS) * 15);
    for pair in lines.windows(2) {
        let ((_, end, one), (start, _, other)) = (pair[0], pair[1]);
        assert!(one == other || end <= start, "workers {one} and {other} share a line: {pair:x?}");
    }
}

#[test]
fn counters_begin_and_end_with_lines() {
    assert_eq!((align_of::<WorkerCounters>(), align_of::<BackendCounters>()), (128, LINE));
    assert_eq!((size_of::<BackendCounters>(), size_of::<QueueCounters>()), (LINE, LINE));
    assert_eq!(align_of::<QueueCounters>(), LINE);
}
