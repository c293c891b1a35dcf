//! Connections that come and go, on the ports of a session.

use std::time::Duration;

use super::{Session, slot_of};
use crate::generator::connections::{ConnectionCounts, Connections};
use crate::generator::flows::Client;
use crate::generator::handler::ClientTcp;
use crate::generator::link::BURST;
use crate::generator::outcome::ConnectionOutcome;
use crate::generator::pacer::Pacer;
use crate::generator::plan::Traffic;
use crate::generator::template::{Kind, Template};

/// A connection that comes and goes fails when it is not through after this time.
const CONNECTION_WITHIN: Duration = Duration::from_secs(2);

impl Session {
    /// Packets that a client sends for one thing that the pacer counts.
    pub(super) fn packets_per_turn(&self) -> f64 {
        match self.plan.traffic {
            // SYN, ACK, data, FIN, ACK.
            Traffic::Connections { data_packets } => f64::from(data_packets) + 4.0,
            _ => 1.0,
        }
    }

    pub(super) fn start_connections(&mut self) -> ConnectionCounts {
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

    pub(super) fn end_connections(
        &self,
        before: ConnectionCounts,
        seconds: f64,
    ) -> Option<ConnectionOutcome> {
        match &self.handler.tcp {
            ClientTcp::Connections(connections) => Some(ConnectionOutcome::new(
                &connections.counts,
                &before,
                seconds,
                &connections.handshake,
                self.hz,
            )),
            _ => None,
        }
    }

    pub(super) fn send_connections(&mut self, pacer: &mut Pacer, now: u64) {
        let ClientTcp::Connections(connections) = &mut self.handler.tcp else { return };
        connections.expire(now);
        if connections.has_room() && !self.sender.is_waiting() {
            for _ in 0..pacer.take(now, BURST / 4) {
                let slot = self.sender.next_slot();
                let client = Client { address: slot.address, port: slot.port };
                if let Some(flow) = self.plan.flows.index(client) {
                    connections.start(flow, now);
                }
            }
        }
        self.send_segments(now);
    }

    /// Send the segments of connections that are due.
    pub(super) fn send_segments(&mut self, now: u64) {
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
