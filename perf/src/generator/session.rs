//! One generator on its ports: finds its next hop, opens connections, runs the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sluice_dataplane::dpdk::{Clock, Eal};
use sluice_wire::arp;
use sluice_wire::ether::MacAddr;

use super::GenError;
use super::connections::{ConnectionCounts, Connections};
use super::counts::Counts;
use super::handler::{ClientTcp, Handler};
use super::link::{BURST, Link};
use super::opener::Opener;
use super::order::Slot;
use super::outcome::{Interval, Latency, Outcome};
use super::pacer::Pacer;
use super::plan::{Plan, Traffic};
use super::probe::ProbeCounts;
use super::sender::Sender;
use super::template::{Kind, Target, Template};

/// Between two ARP requests for the next hop.
const ARP_EVERY: Duration = Duration::from_millis(200);
/// Longest that the next hop may take to answer.
const ARP_WITHIN: Duration = Duration::from_secs(3);
/// Without an answer for so long, handshakes are tried again.
const OPEN_RETRY: Duration = Duration::from_millis(20);
/// A connection that comes and goes fails when it is not through after this time.
const CONNECTION_WITHIN: Duration = Duration::from_secs(2);

/// A generator, ready to send.
pub struct Session {
    plan: Plan,
    client: Link,
    server: Option<Link>,
    handler: Handler,
    sender: Sender,
    target: Target,
    hz: u64,
    stop: Arc<AtomicBool>,
}

impl Session {
    /// Open the ports of a plan; [`Session::connect`] comes next. `name` is unique in this process.
    /// Once `stop` is set, everything ends as soon as it can.
    ///
    /// # Errors
    /// There is no such device, or no memory.
    pub fn open(
        eal: &Eal,
        clock: Clock,
        name: &str,
        plan: &Plan,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, GenError> {
        let pool = Link::zeroed_pool(eal, name)?;
        let other = plan.server.as_ref().and_then(|server| server.device.as_ref());
        let behind = (true, other.is_none());
        let client = Link::open(eal, &format!("{name}-client"), &plan.device, behind)?;
        let server = match other {
            Some(device) => {
                Some(Link::open(eal, &format!("{name}-server"), device, (false, true))?)
            }
            None => None,
        };
        let target = Target {
            next_hop: plan.gateway_mac.unwrap_or(MacAddr::ZERO),
            own: client.mac,
            address: *plan.target.ip(),
            port: plan.target.port(),
        };
        Ok(Session {
            handler: Handler::new(plan, clock.hz()),
            // Made anew once the next hop is known.
            sender: Sender::new(plan, &target, pool),
            plan: plan.clone(),
            client,
            server,
            target,
            hz: clock.hz(),
            stop,
        })
    }

    /// Wait until the links are up, and find the next hop.
    ///
    /// # Errors
    /// No link, no answer to ARP, or a rate that is a share of a line of unknown speed.
    pub fn connect(&mut self) -> Result<(), GenError> {
        for link in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            link.wait_up(|| self.stop.load(Relaxed))?;
        }
        // The rate must make sense before anything is sent.
        self.rate_pps()?;
        self.resolve()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn cycles(&self, duration: Duration) -> u64 {
        (duration.as_secs_f64() * self.hz as f64) as u64
    }

    /// Ask for the next hop until it answers.
    fn resolve(&mut self) -> Result<(), GenError> {
        let start = dpdk_sys::rdtsc();
        let (every, within) = (self.cycles(ARP_EVERY), self.cycles(ARP_WITHIN));
        let mut ask_at = 0;
        while self.handler.next_hop.is_none() {
            let elapsed = dpdk_sys::rdtsc() - start;
            if self.is_stopped() {
                return Err(GenError::Interrupted);
            }
            if elapsed > within {
                return Err(GenError::Unresolved {
                    address: self.plan.gateway,
                    device: self.client.device().to_owned(),
                    seconds: ARP_WITHIN.as_secs(),
                });
            }
            if elapsed >= ask_at {
                ask_at = elapsed + every;
                self.ask();
            }
            self.poll();
        }
        self.target.next_hop = self.handler.next_hop.unwrap_or_default();
        let pool = self.sender.pool().clone();
        self.sender = Sender::new(&self.plan, &self.target, pool);
        Ok(())
    }

    fn ask(&mut self) {
        let (mac, from) = (self.client.mac, self.plan.flows.first_address());
        let (zero, all) = (MacAddr::ZERO, MacAddr::BROADCAST);
        let frame = arp::build_arp(arp::OP_REQUEST, mac, from, zero, self.plan.gateway, all);
        // The device may be full: the next request comes soon.
        self.client.send(self.sender.pool(), &frame);
    }

    /// Take what came in by all ports.
    #[inline]
    fn poll(&mut self) -> usize {
        let mut got = self.client.poll(&mut self.handler);
        if let Some(server) = &mut self.server {
            got += server.poll(&mut self.handler);
        }
        got
    }

    /// MAC address of the next hop.
    pub fn next_hop(&self) -> MacAddr {
        self.target.next_hop
    }

    /// Device and driver of each port.
    pub fn devices(&self) -> Vec<String> {
        [Some(&self.client), self.server.as_ref()]
            .into_iter()
            .flatten()
            .map(Link::describe)
            .collect()
    }

    /// The plan's rate in packets per second; none for as fast as it goes.
    ///
    /// # Errors
    /// A share of a line of unknown speed.
    pub fn rate_pps(&self) -> Result<Option<f64>, GenError> {
        let speed = self.client.port.link_speed_mbps();
        self.plan.rate.pps(&self.plan.sizes, speed, self.client.device())
    }

    /// Packets per second that fill the line; none when its speed is unknown.
    pub fn line_pps(&self) -> Option<f64> {
        self.client.port.link_speed_mbps().map(|mbps| self.plan.sizes.line_rate_pps(mbps))
    }

    /// Open the connections of all flows, where the plan has such. How many are open, and how long
    /// it took.
    ///
    /// # Errors
    /// Some are not open in time.
    pub fn open_connections(&mut self) -> Result<Option<(u32, Duration)>, GenError> {
        if self.plan.traffic != Traffic::Established {
            return Ok(None);
        }
        let syn = Template::new(Kind::TcpSyn, &self.target, 64);
        self.handler.tcp = ClientTcp::Opening(Opener::new(self.plan.flows.len()));
        let start = dpdk_sys::rdtsc();
        let (within, retry) = (self.cycles(self.plan.open_within), self.cycles(OPEN_RETRY));
        let (mut last_open, mut progress_at) = (0, start);
        let (open, elapsed) = loop {
            let now = dpdk_sys::rdtsc();
            let ClientTcp::Opening(opener) = &mut self.handler.tcp else {
                unreachable!("set above")
            };
            let open = opener.open();
            if opener.is_done() || now - start > within || self.stop.load(Relaxed) {
                break (open, Duration::from_secs_f64((now - start) as f64 / self.hz as f64));
            }
            if open > last_open {
                (last_open, progress_at) = (open, now);
            } else if now - progress_at > retry {
                opener.retry();
                progress_at = now;
            }
            while !self.sender.is_full()
                && let Some(flow) = opener.next()
            {
                let slot = slot_of(&self.plan, flow);
                if !self.sender.push(&syn, slot, (super::template::CLIENT_ISN, 0), None) {
                    break;
                }
            }
            self.sender.flush_uncounted(&mut self.client.tx);
            self.poll();
        };
        self.drain(Duration::from_millis(50));
        self.handler.tcp = ClientTcp::Passive;
        let flows = self.plan.flows.len();
        if open < flows {
            let seconds = self.plan.open_within.as_secs();
            return Err(GenError::NotOpened { opened: open, flows, seconds });
        }
        Ok(Some((open, elapsed)))
    }

    /// Go on with another plan on the same ports, which must be those of the first: other flows,
    /// sizes or rates.
    pub fn replan(&mut self, plan: &Plan) {
        let next_hop = self.handler.next_hop;
        self.handler = Handler::new(plan, self.hz);
        self.handler.next_hop = next_hop;
        self.plan = plan.clone();
        self.sender = Sender::new(plan, &self.target, self.sender.pool().clone());
    }

    /// Keep taking what comes in for a while.
    pub fn drain(&mut self, duration: Duration) {
        let end = dpdk_sys::rdtsc() + self.cycles(duration);
        while dpdk_sys::rdtsc() < end {
            self.poll();
        }
    }

    /// Run the load at a rate in packets per second (none: as fast as it goes), for a time. Each
    /// second's figures go to `progress`.
    pub fn run(
        &mut self,
        rate: Option<f64>,
        duration: Duration,
        progress: &mut dyn FnMut(&Interval),
    ) -> Outcome {
        self.handler.probes.restart();
        let before = self.handler.counts;
        let connections_before = self.start_connections();
        let start = dpdk_sys::rdtsc();
        let end = start + self.cycles(duration);
        let second = self.cycles(Duration::from_secs(1));
        let mut pacer = Pacer::new(start, rate.map(|r| r / self.packets_per_turn()), self.hz);
        let mut intervals = Vec::new();
        let mut last = (start, before);
        loop {
            let now = dpdk_sys::rdtsc();
            if now >= end || self.is_stopped() {
                break;
            }
            if now - last.0 >= second {
                let interval = self.interval(start, last.0, now, &last.1);
                progress(&interval);
                intervals.push(interval);
                last = (now, self.handler.counts);
            }
            self.send(&mut pacer, now);
            self.poll();
        }
        let stopped = dpdk_sys::rdtsc();
        if stopped - last.0 >= second / 10 || intervals.is_empty() {
            let interval = self.interval(start, last.0, stopped, &last.1);
            progress(&interval);
            intervals.push(interval);
        }
        let at_stop = self.handler.counts.since(&before);
        self.sender.discard(&mut self.handler);
        self.settle(&before);
        let counts = self.handler.counts.since(&before);
        let seconds = (stopped - start) as f64 / self.hz as f64;
        Outcome {
            seconds,
            asked_pps: rate,
            sent_pps: at_stop.sent as f64 / seconds,
            received_pps: at_stop.received as f64 / seconds,
            counts,
            late: pacer.late(),
            refused: at_stop.refused(),
            loss: self.loss(&counts),
            probes: self.probe_counts(),
            latency: Latency::of(self.handler.probes.latency()),
            histogram: Latency::buckets(self.handler.probes.latency()),
            intervals,
            connections: self.end_connections(connections_before, seconds),
            interrupted: self.is_stopped(),
        }
    }

    fn probe_counts(&self) -> ProbeCounts {
        self.handler.probes.counts()
    }

    fn loss(&self, counts: &Counts) -> f64 {
        if self.plan.traffic.is_connections() {
            let probes = self.probe_counts();
            return probes.lost() as f64 / probes.sent.max(1) as f64;
        }
        counts.loss()
    }

    /// Wait until all that was sent has come back, or for as long as the plan says.
    fn settle(&mut self, before: &Counts) {
        let end = dpdk_sys::rdtsc() + self.cycles(self.plan.settle);
        loop {
            let now = dpdk_sys::rdtsc();
            let counts = self.handler.counts.since(before);
            let through = match &self.handler.tcp {
                ClientTcp::Connections(connections) => connections.under_way() == 0,
                _ => counts.received >= counts.sent,
            };
            if through || now >= end {
                return;
            }
            self.send_segments(now);
            self.poll();
        }
    }

    fn interval(&mut self, start: u64, from: u64, now: u64, before: &Counts) -> Interval {
        let counts = self.handler.counts.since(before);
        let seconds = (now - from) as f64 / self.hz as f64;
        let latency = self.handler.probes.take_interval();
        Interval {
            at_seconds: (now - start) as f64 / self.hz as f64,
            sent_pps: counts.sent as f64 / seconds,
            received_pps: counts.received as f64 / seconds,
            p50_ns: latency.map(|l| l.0),
            p99_ns: latency.map(|l| l.1),
        }
    }

    #[inline(always)]
    fn send(&mut self, pacer: &mut Pacer, now: u64) {
        if let ClientTcp::Connections(_) = self.handler.tcp {
            return self.send_connections(pacer, now);
        }
        if !self.sender.is_waiting() {
            let due = pacer.take(now, BURST);
            if due == 0 {
                return;
            }
            self.sender.build(due, now, &mut self.handler);
        }
        self.sender.flush(&mut self.client.tx, &mut self.handler);
    }

    /// Packets that a client sends for one thing that the pacer counts.
    fn packets_per_turn(&self) -> f64 {
        match self.plan.traffic {
            // SYN, ACK, data, FIN, ACK.
            Traffic::Connections { data_packets } => f64::from(data_packets) + 4.0,
            _ => 1.0,
        }
    }

    fn start_connections(&mut self) -> ConnectionCounts {
        let Traffic::Connections { data_packets } = self.plan.traffic else {
            return ConnectionCounts::default();
        };
        if !matches!(self.handler.tcp, ClientTcp::Connections(_)) {
            let data_bytes = self
                .sender
                .templates()
                .iter()
                .map(|t| (t.len() - Kind::TcpData.payload_offset()) as u32)
                .collect();
            let timeout = self.cycles(CONNECTION_WITHIN);
            let flows = self.plan.flows.len();
            let connections = Connections::new(flows, data_packets, data_bytes, timeout);
            self.handler.tcp = ClientTcp::Connections(Box::new(connections));
        }
        match &mut self.handler.tcp {
            ClientTcp::Connections(connections) => connections.counts,
            _ => ConnectionCounts::default(),
        }
    }

    fn end_connections(
        &self,
        before: ConnectionCounts,
        seconds: f64,
    ) -> Option<super::outcome::ConnectionOutcome> {
        match &self.handler.tcp {
            ClientTcp::Connections(connections) => Some(super::outcome::ConnectionOutcome::new(
                &connections.counts,
                &before,
                seconds,
                &connections.handshake,
                self.hz,
            )),
            _ => None,
        }
    }

    fn send_connections(&mut self, pacer: &mut Pacer, now: u64) {
        let ClientTcp::Connections(connections) = &mut self.handler.tcp else { return };
        connections.expire(now);
        if connections.has_room() && !self.sender.is_waiting() {
            for _ in 0..pacer.take(now, BURST / 4) {
                let slot = self.sender.next_slot();
                let client = super::flows::Client { address: slot.address, port: slot.port };
                if let Some(flow) = self.plan.flows.index(client) {
                    connections.start(flow, now);
                }
            }
        }
        self.send_segments(now);
    }

    /// Send the segments of connections that are due.
    fn send_segments(&mut self, now: u64) {
        let ClientTcp::Connections(connections) = &mut self.handler.tcp else { return };
        while !self.sender.is_full()
            && let Some(segment) = connections.next_to_send()
        {
            let slot = slot_of(&self.plan, segment.flow);
            let numbers = (segment.seq, segment.ack);
            if segment.kind == Kind::TcpData {
                let size = usize::from(self.sender.next_size());
                let template = self.sender.templates()[size].clone();
                let probe = self
                    .sender
                    .is_probe_next()
                    .then(|| self.handler.probes.send(segment.flow, now));
                self.sender.push(&template, slot, numbers, probe);
                connections.sent_data(segment.flow, size);
            } else {
                let template = Template::new(segment.kind, &self.target, 64);
                self.sender.push(&template, slot, numbers, None);
            }
        }
        self.sender.flush(&mut self.client.tx, &mut self.handler);
    }
}

fn slot_of(plan: &Plan, flow: u32) -> Slot {
    let client = plan.flows.client(flow);
    Slot { address: client.address, port: client.port, template: 0 }
}
