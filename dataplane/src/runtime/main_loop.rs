//! The main thread's loop: a round at least every 2 ms.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use sluice_api::DropReason;
use sluice_wire::arp;
use sluice_wire::ether::MacAddr;

use super::announce::{Announcer, Batch};
use super::compiler::Compiler;
use super::exception::{ExceptionPort, Strangers};
use super::links::LinkWatch;
use super::mend::Probation;
use super::pulse::{self, News, Pulse};
use super::rounds::{Rounds, Step};
use super::steering::PortRss;
use super::thresholds::Thresholds;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::control_socket::{ControlSocket, Reply};
use crate::dpdk::{Clock, Eal, Mbuf, Mempool, Port, PortCounters, RingReceiver, RingSender};
use crate::events::EventLog;
use crate::kernel::Keeper;
use crate::orders::Orders;
use sluice_path::burst::BURST;
use sluice_path::counters::WorkerCounters;
use sluice_path::frame::Frame;
use sluice_path::host_flows::{HostFlows, KernelLane};
use sluice_path::ledger::Ledger;
use sluice_path::next_hop::NeighbourUpdate;
use sluice_path::pipeline::ToMain;
use sluice_path::resolver::{Action, Resolver};
use sluice_path::snapshot::Compiled;
use sluice_path::tally::{Adoption, Tally};

/// Frames of ours that wait for a worker to send them; more are dropped, and sent again by whoever
/// still wants them.
const MOST_WAITING: usize = 1_024;
/// News of next hops that wait for one worker: about 1 MiB.
const MOST_NEWS: usize = 65_536;
/// The kernel's frames may be so many of them, so that they never keep ARP from being sent: what is
/// more waits in the kernel.
const MOST_OF_KERNEL: usize = MOST_WAITING / 2;
/// How often links are looked at, in ms: a VF's may be down for a moment only when its PF is reset.
const LINK_CHECK_MS: u64 = 100;
/// How long workers may take to end.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);
/// How often counters and table fill are looked at, in ms.
const SLOW_CHECK_MS: u64 = 1_000;

/// A port and what belongs to it.
pub struct MainPort {
    /// The port.
    pub port: Port,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Whether its link was up when last looked at.
    pub link_up: bool,
    /// The way to the kernel.
    pub exception: Option<ExceptionPort>,
    /// What was found out about its RSS.
    pub rss: PortRss,
    /// What it had counted when it was last looked at and well.
    pub counted: PortCounters,
    /// Since it was set up anew, until it has received something.
    pub probation: Option<Probation>,
    /// Why it could not be set up anew, when an event has told so.
    pub failure: Option<String>,
}

/// The main thread's side of a worker.
pub struct WorkerHandle {
    /// The CPU it is pinned to.
    pub cpu: u16,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// Its thread.
    pub thread: JoinHandle<()>,
    /// What it gives to the kernel, by kind; the tag is the port.
    pub for_kernel: [RingReceiver; KernelLane::COUNT],
    /// Whole frames that it is to send; the tag is the port.
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

/// A snapshot on its way to the workers.
pub struct Adopting {
    /// What they will go by.
    pub compiled: Arc<Compiled>,
    /// Who has asked for it.
    pub reply: Reply,
    /// How far its limits are prepared.
    pub adoption: Adoption,
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
}

/// The main thread.
pub struct MainLoop {
    /// The file.
    pub config: Config,
    /// Ports, in the order of the file.
    pub ports: Vec<MainPort>,
    /// Workers, in order.
    pub workers: Vec<WorkerHandle>,
    /// What the workers are to do.
    pub orders: Arc<Orders>,
    /// What the workers say.
    pub messages: Arc<ArrayQueue<ToMain>>,
    /// The worker by which this thread sends, and the kernel.
    pub carrier: usize,
    /// What the host has asked for: what it sends is noted here.
    pub host_flows: Arc<HostFlows>,
    /// How much it takes of what it has not asked for.
    pub strangers: Strangers,
    /// Frames that wait for room in its ring.
    pub waiting: Vec<Mbuf>,
    /// Next hops.
    pub resolver: Resolver,
    /// What the workers forward by.
    pub compiled: Arc<ArcSwap<Compiled>>,
    /// Former ones that a worker may still hold: never freed on a worker.
    pub former: Vec<Arc<Compiled>>,
    /// Who compiles.
    pub compiler: Compiler,
    /// What was compiled, and is not known to everybody yet.
    pub adopting: Option<Adopting>,
    /// How many services and backends hold slots.
    pub slots_used: (usize, usize),
    /// Counters by service and backend.
    pub ledger: Ledger,
    /// Conns over all workers, and what each may make of them.
    pub tally: Tally,
    /// What this thread drops.
    pub counters: Arc<WorkerCounters>,
    /// What happened.
    pub events: EventLog,
    /// Tables that fill up.
    pub thresholds: Thresholds,
    /// What the networks around are told of our addresses.
    pub announcer: Announcer,
    /// Of that, what is on its way to the wire.
    pub batch: Batch,
    /// The kernel's side of the ports, which is kept as it should be.
    pub keeper: Option<Keeper>,
    /// Random per start.
    pub boot_id: u64,
    /// Memory that each worker's conn table takes, in bytes.
    pub conn_table_bytes: u64,
    /// Packets of ours and of the kernel.
    pub mempool: Mempool,
    /// The clock.
    pub clock: Clock,
    /// When this process started, by the clock, in ms.
    pub started_ms: u64,
    /// When the workers' rounds are looked at next, in ms.
    pub pulse_check_at_ms: u64,
    /// What the kernel says of ports that are its interfaces, and of their exception ports behind.
    pub links: LinkWatch,
    /// When links are looked at next, in ms.
    pub link_check_at_ms: u64,
    /// When counters and tables are looked at next, in ms.
    pub slow_check_at_ms: u64,
    /// The control socket.
    pub server: ControlSocket,
    /// What to do between rounds.
    pub backoff: Backoff,
    /// How long rounds take.
    pub rounds: Rounds,
    /// Dropped last: DPDK itself.
    pub _eal: Eal,
}

impl MainLoop {
    /// One round.
    pub fn round(&mut self) {
        let now_ms = self.clock.now_ns() / 1_000_000;
        self.step(Step::Messages);
        self.check_pulses(now_ms);
        let mut work = self.read_messages(now_ms);
        self.step(Step::Kernel);
        work += self.move_kernel_packets(now_ms);
        self.step(Step::NextHops);
        self.resolver.tick(now_ms);
        self.act();
        self.announce_due(now_ms);
        self.flush();
        self.step(Step::Control);
        work += self.answer_control();
        self.step(Step::Snapshot);
        work += self.take_news();
        self.free_former();
        self.step(Step::Tally);
        self.tally.round(now_ms);
        if now_ms >= self.link_check_at_ms {
            self.link_check_at_ms = now_ms + LINK_CHECK_MS;
            self.step(Step::Links);
            self.check_links(now_ms);
            self.hear_keeper();
        }
        if now_ms >= self.slow_check_at_ms {
            self.slow_check_at_ms = now_ms + SLOW_CHECK_MS;
            self.step(Step::Ports);
            self.mend_ports(now_ms);
            self.step(Step::Tables);
            self.slow_checks();
        }
        self.step(Step::Nap);
        self.backoff.after_round(work);
    }

    /// Note what is done next, and tell of a round that took long.
    fn step(&mut self, step: Step) {
        if let Some(message) = self.rounds.step(step) {
            self.events.add("main-thread-late", message);
        }
    }

    fn answer_control(&mut self) -> usize {
        let mut count = 0;
        while let Some(pending) = self.server.next() {
            let (request, reply) = pending.into_parts();
            self.handle(request, reply);
            count += 1;
        }
        count
    }

    fn read_messages(&mut self, now_ms: u64) -> usize {
        let mut count = 0;
        while let Some(message) = self.messages.pop() {
            count += 1;
            match message {
                ToMain::Want { port, address, purpose } => {
                    self.resolver.want(now_ms, port, address, purpose);
                }
                ToMain::Arp { port, sender, mac, is_reply, for_us, conflict } => {
                    if conflict {
                        self.claimed(now_ms, port, Ipv4Addr::from_bits(sender), mac);
                    } else {
                        self.let_go_of(port, sender, mac);
                        self.resolver.seen(now_ms, port, sender, mac, is_reply, for_us);
                    }
                }
            }
            // The resolver's time must not starve the rest of the round.
            if count == 1_024 {
                break;
            }
        }
        count
    }

    /// Somebody has an address: if we answer for it for the sake of conns only, it is theirs now.
    fn let_go_of(&mut self, port: u16, address: u32, mac: MacAddr) {
        if self.compiled.load().leaving.release(address) {
            let (address, port) =
                (Ipv4Addr::from_bits(address), &self.config.ports[port as usize].name);
            let message = format!(
                "{mac} on port {port} has {address}, which left the configuration: it is not \
                 answered for any more, what conns it has are lost"
            );
            self.events.add("address-released", message);
        }
    }

    /// Answer no more for addresses that left the configuration and whose last conn is gone.
    fn release_empty(&mut self) {
        let released = self.compiled.load().leaving.release_empty();
        let Some(first) = released.first() else { return };
        let others = match released.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!("{first}{others}: the last conn is gone, no longer answered for");
        self.events.add("address-released", message);
    }

    /// Do what the resolver asks for.
    fn act(&mut self) {
        let actions: Vec<Action> = self.resolver.take_actions().collect();
        for action in actions {
            match action {
                Action::Request { port, target, unicast_to } => {
                    self.send_arp_request(port, Ipv4Addr::from_bits(target), unicast_to);
                }
                Action::Publish(update) => {
                    self.workers.iter_mut().for_each(|w| w.tell(update));
                }
                Action::TellKernel { port, address, mac } => {
                    self.tell_kernel(port, Ipv4Addr::from_bits(address), mac);
                }
                Action::Event { kind, subject, message } => {
                    self.events.add_about(kind, &subject, message);
                }
            }
        }
    }

    fn send_arp_request(&mut self, port: u16, target: Ipv4Addr, unicast_to: Option<MacAddr>) {
        let mac = self.ports[port as usize].mac;
        // The sender's address is the one in the target's network: others may not answer it.
        let addresses = &self.config.ports[port as usize].addresses;
        let source = addresses
            .iter()
            .find(|a| a.network().contains(target))
            .or(addresses.first())
            .map(|a| a.address());
        let Some(source) = source else { return };
        let to = unicast_to.unwrap_or(MacAddr::BROADCAST);
        let frame = arp::build_arp(arp::OP_REQUEST, mac, source, MacAddr::ZERO, target, to);
        self.send_frame(port, &frame);
    }

    /// Queue a frame of ours for a port; whether there was room.
    pub fn send_frame(&mut self, port: u16, bytes: &[u8]) -> bool {
        let Some(mbuf) = self.arp_frame(port, bytes) else { return false };
        self.queue(mbuf, DropReason::ArpQueueFull)
    }

    fn arp_frame(&mut self, port: u16, bytes: &[u8]) -> Option<Mbuf> {
        let Some(mut mbuf) = self.mempool.alloc() else {
            self.counters.drop_count(DropReason::NoMbuf).add(1);
            return None;
        };
        mbuf.set_len(bytes.len()).expect("an ARP frame fits into any mbuf");
        mbuf.bytes_mut().copy_from_slice(bytes);
        mbuf.set_tag(u32::from(port));
        Some(mbuf)
    }

    /// The kernel behind a port is to know where a next hop is: it believes an announcement about one
    /// that it knows, as we do, and takes no notice of others.
    fn tell_kernel(&mut self, port: u16, address: Ipv4Addr, mac: MacAddr) {
        if self.ports[port as usize].exception.is_none() {
            return;
        }
        let Some(frame) = self.arp_frame(port, &arp::build_announcement(mac, address)) else {
            return;
        };
        let exception = &mut self.ports[port as usize].exception;
        if let Some(Err(reason)) = exception.as_mut().map(|to| to.push(frame)) {
            self.counters.drop_count(reason).add(1);
        }
    }

    /// Let a frame wait for a worker that sends it; `full` is why it dies when too many wait. Whether it
    /// lives.
    fn queue(&mut self, mbuf: Mbuf, full: DropReason) -> bool {
        let has_room = self.waiting.len() < MOST_WAITING;
        if has_room {
            self.waiting.push(mbuf);
        } else {
            self.counters.drop_count(full).add(1);
        }
        has_room
    }

    /// Packets to and from the kernel; how many.
    fn move_kernel_packets(&mut self, now_ms: u64) -> usize {
        let mut count = 0;
        let mut frames = Vec::with_capacity(BURST);
        let first = self.strangers.next_first(self.workers.len());
        let (before, from_first) = self.workers.split_at_mut(first);
        for worker in from_first.iter_mut().chain(before) {
            for (lane, ring) in worker.for_kernel.iter_mut().enumerate() {
                let by_strangers = lane == KernelLane::Unsolicited as usize;
                let most = if by_strangers { self.strangers.allowed(now_ms) } else { BURST };
                let received = ring.receive(&mut frames, most);
                count += received;
                if by_strangers {
                    self.strangers.came(received);
                }
                for frame in frames.drain(..) {
                    let exception = &mut self.ports[frame.tag() as usize].exception;
                    if let Some(Err(reason)) = exception.as_mut().map(|to| to.push(frame)) {
                        self.counters.drop_count(reason).add(1);
                    }
                }
            }
        }
        for port in 0..self.ports.len() {
            let Some(exception) = &mut self.ports[port].exception else { continue };
            exception.flush();
            if self.waiting.len() >= MOST_OF_KERNEL {
                continue;
            }
            count += exception.receive(&mut frames);
            for mut frame in frames.drain(..) {
                self.host_flows.note_sent(frame.bytes(), now_ms);
                frame.set_tag(port as u32);
                self.queue(frame, DropReason::ExceptionRingFull);
            }
        }
        count
    }

    fn flush(&mut self) {
        if !self.waiting.is_empty() {
            let carrier = &mut self.workers[self.carrier];
            carrier.frames_given += carrier.to_worker.send(&mut self.waiting) as u64;
        }
        for worker in &mut self.workers {
            while let Some(update) = worker.waiting.pop_front() {
                if let Err(update) = worker.updates.push(update) {
                    worker.waiting.push_front(update);
                    break;
                }
            }
        }
    }

    /// See whether all workers come round, and send by one that does. What waits in the ring of one
    /// that does not, at most [`RING`](super::start), leaves when it is back.
    fn check_pulses(&mut self, now_ms: u64) {
        // Not in every round: the workers write the counters, and would wait for their lines.
        if now_ms < self.pulse_check_at_ms {
            return;
        }
        self.pulse_check_at_ms = now_ms + 1;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let rounds = worker.counters.busy_polls.get() + worker.counters.idle_polls.get();
            let news = worker.pulse.look(rounds, now_ms);
            let who = || format!("worker {number} (CPU {})", worker.cpu);
            match news {
                Some(News::Stuck { untold }) => {
                    let more = match untold {
                        0 => String::new(),
                        count => format!(", and {count} more times since this was last told"),
                    };
                    let message = format!(
                        "{} has not come round for {} ms{more}: packets of its queues and conns wait, \
                         or are lost",
                        who(),
                        pulse::STUCK_MS
                    );
                    self.events.add("worker-stuck", message);
                }
                Some(News::Back { after_ms }) => {
                    let message = format!("{} comes round again, after {after_ms} ms", who());
                    self.events.add("worker-back", message);
                }
                None => {}
            }
        }
        let silent_ms = self.workers.iter().map(|worker| worker.pulse.silent_ms());
        self.carrier = pulse::carrier(self.carrier, silent_ms);
        self.resolver.doubt_silence(self.some_worker_is_stuck());
    }

    /// The longest time for which a worker has not come round, in ms.
    pub fn longest_silence_ms(&self) -> u64 {
        self.workers.iter().map(|worker| worker.pulse.silent_ms()).max().unwrap_or_default()
    }

    /// Whether a worker does not come round: what is not answered may have come to its queues.
    pub fn some_worker_is_stuck(&self) -> bool {
        self.workers.iter().any(|worker| worker.pulse.is_stuck())
    }

    fn check_links(&mut self, now_ms: u64) {
        for index in 0..self.ports.len() {
            let port = &mut self.ports[index];
            let up = self.links.state(index).is_up(&port.port);
            if up != port.link_up {
                port.link_up = up;
                let name = &self.config.ports[index].name;
                let (kind, word) = if up { ("link-up", "up") } else { ("link-down", "down") };
                self.events.add(kind, format!("port {name}: link is {word}"));
                if up {
                    self.link_is_back(now_ms, index);
                } else {
                    self.announcer.link_down(index as u16);
                }
            }
        }
    }

    /// Tell what the kernel's side of the ports has lost and got back.
    fn hear_keeper(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        while let Some(news) = keeper.news() {
            let (kind, subject, message) = news.told();
            self.events.add_about(kind, &subject, message);
        }
    }

    fn slow_checks(&mut self) {
        self.check_steering();
        let tables = self.tables();
        for (kind, message) in self.thresholds.check(&tables) {
            self.events.add(kind, message);
        }
        self.release_empty();
        self.events.tell_left_out();
    }

    /// Have former snapshots freed that no worker holds.
    fn free_former(&mut self) {
        for compiled in self.former.extract_if(.., |compiled| Arc::strong_count(compiled) == 1) {
            self.compiler.free(compiled);
        }
    }

    /// Lowest generation that any worker forwards by.
    pub fn workers_generation(&self) -> u64 {
        self.workers.iter().map(|w| w.counters.generation.get()).min().unwrap_or_default()
    }

    /// Wait for the workers to end. One that is stuck is left behind, and its ports with it: they
    /// end with the process.
    fn join_workers(&mut self) {
        let deadline = Instant::now() + STOPPED_WITHIN;
        let mut left = false;
        for (number, worker) in self.workers.drain(..).enumerate() {
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

    /// Stop the workers and the ports, and print what was done.
    pub fn stop(mut self) {
        self.rounds.end();
        self.orders.stop();
        let stats = self.stats();
        self.join_workers();
        for (port, stats) in self.ports.iter_mut().zip(&stats.ports) {
            if let Err(error) = port.port.stop() {
                eprintln!("{error}");
            }
            println!(
                "port {}: received {} packets, {} bytes; transmitted {} packets, {} bytes; missed {}",
                stats.name,
                stats.rx_packets,
                stats.rx_bytes,
                stats.tx_packets,
                stats.tx_bytes,
                stats.rx_missed
            );
        }
        let created: u64 = stats.workers.iter().map(|w| w.conns_created).sum();
        let dropped: u64 = stats.drops.values().sum();
        println!("conns made {created}; packets dropped {dropped}");
        for (reason, count) in &stats.drops {
            println!("  {reason} {count}");
        }
        println!("STOPPED");
    }
}
