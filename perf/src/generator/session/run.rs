//! A run of the load at one rate: send, take what comes back, and say what that showed.

use std::time::Duration;

use super::Session;
use crate::generator::counts::Counts;
use crate::generator::handler::ClientTcp;
use crate::generator::link::BURST;
use crate::generator::outcome::{Interval, Latency, Outcome};
use crate::generator::pacer::Pacer;
use crate::generator::probe::ProbeCounts;

impl Session {
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
}
