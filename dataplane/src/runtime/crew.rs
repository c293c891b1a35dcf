//! The workers, as the main thread sees them: whether they come round, what they say, what they are told
//! and given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use sluice_api::stats::{QueueStats, WorkerStats, WorkerStatus};

use super::pulse::{self, News, Pulse, Stall};
use crate::dpdk::{Mbuf, RingReceiver, RingSender};
use crate::events::EventLog;
use crate::orders::{Orders, Pause};
use sluice_path::counters::WorkerCounters;
use sluice_path::host_flows::KernelLane;
use sluice_path::ids::{PortId, WorkerId};
use sluice_path::ledger;
use sluice_path::next_hop::NeighbourUpdate;
use sluice_path::pipeline::{ToMain, Trust};

/// News of next hops that wait for one worker: about 1 MiB.
const MOST_NEWS: usize = 65_536;
/// How long workers may take to end.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);
/// How long they may take to pause: a round, or a nap.
const PAUSED_WITHIN: Duration = Duration::from_millis(500);

/// The main thread's side of a worker.
pub struct WorkerHandle {
    /// The CPU it is pinned to.
    pub cpu: u16,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// Its thread.
    pub thread: JoinHandle<()>,
    /// What it gives to the kernel, by kind, with the interface that it is for.
    pub for_kernel: [RingReceiver; KernelLane::COUNT],
    /// Whole frames that it is to send, with the interface that they leave by.
    pub to_worker: RingSender,
    /// How many it was given.
    pub frames_given: u64,
    /// News of next hops, and those that did not fit in.
    pub updates: Arc<ArrayQueue<NeighbourUpdate>>,
    /// News that wait for room.
    pub waiting: VecDeque<NeighbourUpdate>,
    /// Whether it comes round.
    pub pulse: Pulse,
}

impl WorkerHandle {
    /// Have it told of a next hop. One that does not come round for long loses the oldest news: it
    /// asks again for what it uses, and is told what is known then.
    fn tell(&mut self, update: NeighbourUpdate) {
        if self.waiting.len() == MOST_NEWS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(update);
    }

    fn flush(&mut self) {
        while let Some(update) = self.waiting.pop_front() {
            if let Err(update) = self.updates.push(update) {
                self.waiting.push_front(update);
                break;
            }
        }
    }

    fn stats(&self, worker: WorkerId, now_ms: u64) -> WorkerStats {
        let c = &self.counters;
        WorkerStats {
            worker: worker.0,
            rx_packets: c.rx_packets.get(),
            tx_packets: c.tx_packets.get(),
            handed_over: c.handed_over.get(),
            to_kernel: c.to_kernel.get(),
            dropped: c.dropped(),
            resets_sent: c.resets_sent.get(),
            unreachables_sent: c.unreachables_sent.get(),
            conns: c.conns.get(),
            conns_created: c.conns_created.get(),
            conns_expired: c.conns_expired.get(),
            busy_polls: c.busy_polls.get(),
            idle_polls: c.idle_polls.get(),
            stuck_ms: self.pulse.stuck_ms(now_ms),
            stalls: self.pulse.stalls(),
            stalled_ms: self.pulse.stalled_ms(now_ms),
            drops: ledger::drops(std::iter::once(c.as_ref())),
        }
    }
}

/// All workers, in order; there is at least one.
pub struct Crew {
    workers: Vec<WorkerHandle>,
    /// What they are to do.
    orders: Arc<Orders>,
    /// What they say.
    messages: Arc<ArrayQueue<ToMain>>,
    /// The one by which this thread and the kernel send.
    carrier: WorkerId,
    /// When their rounds are looked at next, in ms.
    look_at_ms: u64,
}

impl Crew {
    /// Of workers that are well at this time, in ms.
    pub fn new(
        mut workers: Vec<WorkerHandle>,
        orders: Arc<Orders>,
        messages: Arc<ArrayQueue<ToMain>>,
        now_ms: u64,
    ) -> Self {
        workers.iter_mut().for_each(|worker| worker.pulse = Pulse::new(now_ms));
        Crew { workers, orders, messages, carrier: WorkerId(0), look_at_ms: 0 }
    }

    /// In order.
    pub fn workers(&self) -> &[WorkerHandle] {
        &self.workers
    }

    /// One of them.
    pub fn worker(&self, worker: WorkerId) -> &WorkerHandle {
        &self.workers[worker.index()]
    }

    /// In order, each with its number.
    fn numbered(&self) -> impl Iterator<Item = (WorkerId, &WorkerHandle)> {
        (0..).map(WorkerId).zip(&self.workers)
    }

    /// All, from this one on.
    pub fn from(&mut self, first: WorkerId) -> impl Iterator<Item = &mut WorkerHandle> {
        let (before, from_first) = self.workers.split_at_mut(first.index());
        from_first.iter_mut().chain(before)
    }

    /// The one that sends.
    pub fn carrier(&self) -> &WorkerHandle {
        self.worker(self.carrier)
    }

    /// Its number.
    pub fn carrier_number(&self) -> WorkerId {
        self.carrier
    }

    /// Give frames to the one that sends; those that it has no room for stay.
    pub fn give(&mut self, frames: &mut Vec<Mbuf>) {
        let carrier = &mut self.workers[self.carrier.index()];
        carrier.frames_given += carrier.to_worker.send(frames) as u64;
    }

    /// Have all told of a next hop.
    pub fn tell(&mut self, update: NeighbourUpdate) {
        self.workers.iter_mut().for_each(|worker| worker.tell(update));
    }

    /// Tell what waits, as far as there is room.
    pub fn flush(&mut self) {
        self.workers.iter_mut().for_each(WorkerHandle::flush);
    }

    /// The next thing that one says.
    pub fn message(&self) -> Option<ToMain> {
        self.messages.pop()
    }

    /// See whether all come round, and send by one that does. What waits in the ring of one that does
    /// not leaves when it is back.
    pub fn look(&mut self, now_ms: u64, events: &mut EventLog) {
        // Not in every round: the workers write the counters, and would wait for their lines.
        if now_ms < self.look_at_ms {
            return;
        }
        self.look_at_ms = now_ms + 1;
        for (number, worker) in (0..).map(WorkerId).zip(&mut self.workers) {
            let rounds = worker.counters.busy_polls.get() + worker.counters.idle_polls.get();
            if let Some(news) = worker.pulse.look(rounds, now_ms) {
                let (kind, message) = in_words(news, number, worker.cpu);
                events.add(kind, message);
            }
        }
        let silent_ms = self.workers.iter().map(|worker| worker.pulse.silent_ms());
        self.carrier = pulse::carrier(self.carrier, silent_ms);
    }

    /// The longest time for which one has not come round, in ms.
    pub fn longest_silence_ms(&self) -> u64 {
        self.workers.iter().map(|worker| worker.pulse.silent_ms()).max().unwrap_or_default()
    }

    /// Whether one does not come round: what is not answered may have come to its queues.
    pub fn some_is_stuck(&self) -> bool {
        self.workers.iter().any(|worker| worker.pulse.is_stuck())
    }

    /// The last stall of each that had one.
    pub fn stalls(&self) -> impl Iterator<Item = Stall> {
        self.workers.iter().filter_map(|worker| worker.pulse.last_stall())
    }

    /// Lowest generation that any of them forwards by.
    pub fn generation(&self) -> u64 {
        self.workers.iter().map(|w| w.counters.generation.get()).min().unwrap_or_default()
    }

    /// A sum over all.
    pub fn sum(&self, read: fn(&WorkerCounters) -> u64) -> u64 {
        self.workers.iter().map(|worker| read(&worker.counters)).sum()
    }

    /// As control is told.
    pub fn statuses(&self, now_ms: u64) -> Vec<WorkerStatus> {
        let status = |(worker, handle): (WorkerId, &WorkerHandle)| WorkerStatus {
            worker: worker.0,
            cpu: handle.cpu,
            generation: handle.counters.generation.get(),
            stuck_ms: handle.pulse.stuck_ms(now_ms),
        };
        self.numbered().map(status).collect()
    }

    /// Their counters.
    pub fn stats(&self, now_ms: u64) -> Vec<WorkerStats> {
        self.numbered().map(|(number, worker)| worker.stats(number, now_ms)).collect()
    }

    /// Counters of a port's queues.
    pub fn queues(&self, port: PortId) -> Vec<QueueStats> {
        // A worker polls the queue of its number.
        let stats = |(queue, worker): (WorkerId, &WorkerHandle)| {
            let counters = worker.counters.queue(port);
            QueueStats {
                queue: queue.0,
                rx_packets: counters.rx_packets.get(),
                mis_steered: counters.mis_steered.get(),
            }
        };
        self.numbered().map(stats).collect()
    }

    /// Packets that they have received from a port.
    pub fn received(&self, port: PortId) -> u64 {
        self.workers.iter().map(|worker| worker.counters.queue(port).rx_packets.get()).sum()
    }

    /// How far each trusts a port's NIC.
    pub fn trusts(&self, port: PortId) -> Vec<Trust> {
        let trust = |worker: &WorkerHandle| worker.counters.queue(port).trust.get();
        self.workers.iter().map(|worker| Trust::from_gauge(trust(worker))).collect()
    }

    /// Have all pause; none when one does not. [`forgive`](Self::forgive) them afterwards.
    pub fn pause(&self) -> Option<Pause<'_>> {
        self.orders.pause(self.workers.len(), PAUSED_WITHIN)
    }

    /// They paused until this time, in ms: that was no stall.
    pub fn forgive(&mut self, now_ms: u64) {
        self.workers.iter_mut().for_each(|worker| worker.pulse.forgive(now_ms));
    }

    /// Have all end. What they have counted until then is not lost.
    pub fn stop(&self) {
        self.orders.stop();
    }

    /// Wait for all to end. One that is stuck is left behind, and its ports with it: they end with the
    /// process.
    pub fn join(&mut self) {
        let deadline = Instant::now() + STOPPED_WITHIN;
        let mut left = false;
        for (number, worker) in (0..).map(WorkerId).zip(self.workers.drain(..)) {
            while !worker.thread.is_finished() && Instant::now() < deadline {
                sleep(Duration::from_millis(1));
            }
            if worker.thread.is_finished() {
                // A worker that panicked has ended the process already.
                let _ = worker.thread.join();
            } else {
                left = true;
                eprintln!("worker {number} does not end, its ports are not closed in order");
            }
        }
        if left {
            crate::stdio::flush();
            std::process::exit(1);
        }
    }
}

/// An event about a worker.
fn in_words(news: News, number: WorkerId, cpu: u16) -> (&'static str, String) {
    let who = format!("worker {number} (CPU {cpu})");
    match news {
        News::Stuck { untold } => {
            let more = match untold {
                0 => String::new(),
                count => format!(", and {count} more times since this was last told"),
            };
            let message = format!(
                "{who} has not come round for {} ms{more}: packets of its queues and conns wait, or are \
                 lost",
                pulse::STUCK_MS
            );
            ("worker-stuck", message)
        }
        News::Back { after_ms } => {
            ("worker-back", format!("{who} comes round again, after {after_ms} ms"))
        }
    }
}
