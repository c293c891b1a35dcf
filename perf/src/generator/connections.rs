//! Connections that come and go: handshake, data, FIN, each step when the last one was answered.
//!
//! A lost packet is not sent again: the connection has failed then, and is counted so.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use serde::Serialize;
use sluice_wire::tcp::TcpFlags;

use super::packet::Segment;
use super::probe::histogram;
use super::template::{CLIENT_ISN, Kind};

/// Most connections under way at a time.
pub const MOST_UNDER_WAY: u32 = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    SynSent,
    Open,
    FinSent,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    state: State,
    /// Grows with every use of the flow: tells an old timer from a new one.
    use_number: u32,
    data_left: u32,
    /// Our next byte, and the one that the server sends next.
    seq: u32,
    ack: u32,
    since: u64,
}

/// A segment to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSend {
    /// The flow.
    pub flow: u32,
    /// What.
    pub kind: Kind,
    /// Number of its first byte.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
}

/// What became of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConnectionCounts {
    /// SYN sent.
    pub started: u64,
    /// Handshake complete.
    pub established: u64,
    /// Closed by both sides.
    pub completed: u64,
    /// Not answered in time.
    pub timed_out: u64,
    /// Reset by the other side.
    pub reset: u64,
    /// Not started because the flow's last connection was still there.
    pub busy: u64,
}

/// All connections of a run.
pub struct Connections {
    all: Vec<Connection>,
    data_packets: u32,
    data_bytes: Vec<u32>,
    timeout: u64,
    timers: VecDeque<(u64, u32, u32)>,
    under_way: u32,
    to_send: VecDeque<ToSend>,
    /// What became of them.
    pub counts: ConnectionCounts,
    /// From SYN to SYN-ACK, in cycles.
    pub handshake: Histogram<u64>,
}

impl Connections {
    /// For so many flows; each sends `data_packets` packets with data and then closes. A step that
    /// is not answered within `timeout` cycles fails it. `data_bytes` are the possible sizes of a
    /// packet's data.
    pub fn new(flows: u32, data_packets: u32, data_bytes: Vec<u32>, timeout: u64) -> Self {
        let idle = Connection {
            state: State::Idle,
            use_number: 0,
            data_left: 0,
            seq: 0,
            ack: 0,
            since: 0,
        };
        Connections {
            all: vec![idle; flows as usize],
            data_packets,
            data_bytes,
            timeout,
            timers: VecDeque::new(),
            under_way: 0,
            to_send: VecDeque::new(),
            counts: ConnectionCounts::default(),
            handshake: histogram(),
        }
    }

    /// Whether there is room for another one.
    pub fn has_room(&self) -> bool {
        self.under_way < MOST_UNDER_WAY
    }

    /// How many are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Begin a connection of `flow`, unless its last one is still there.
    pub fn start(&mut self, flow: u32, cycles: u64) {
        let Some(connection) = self.all.get_mut(flow as usize) else { return };
        if connection.state != State::Idle {
            self.counts.busy += 1;
            return;
        }
        *connection = Connection {
            state: State::SynSent,
            use_number: connection.use_number.wrapping_add(1),
            data_left: self.data_packets,
            seq: CLIENT_ISN,
            ack: 0,
            since: cycles,
        };
        self.timers.push_back((cycles.wrapping_add(self.timeout), flow, connection.use_number));
        self.under_way += 1;
        self.counts.started += 1;
        self.to_send.push_back(ToSend { flow, kind: Kind::TcpSyn, seq: CLIENT_ISN, ack: 0 });
    }

    /// The next segment to send, if any.
    pub fn next_to_send(&mut self) -> Option<ToSend> {
        self.to_send.pop_front()
    }

    /// The data of a segment of this size is on its way.
    pub fn sent_data(&mut self, flow: u32, template: usize) {
        let bytes = self.data_bytes.get(template).copied().unwrap_or_default();
        if let Some(connection) = self.all.get_mut(flow as usize) {
            connection.seq = connection.seq.wrapping_add(bytes);
        }
    }

    /// The server sent a segment.
    pub fn received(&mut self, flow: u32, segment: &Segment, cycles: u64) {
        let Some(connection) = self.all.get_mut(flow as usize) else { return };
        if connection.state == State::Idle {
            return;
        }
        if segment.flags.contains(TcpFlags::RST) {
            connection.state = State::Idle;
            self.under_way -= 1;
            self.counts.reset += 1;
            return;
        }
        let syn = segment.flags.contains(TcpFlags::SYN);
        match connection.state {
            State::SynSent if syn => {
                connection.state = State::Open;
                connection.seq = segment.ack;
                connection.ack = segment.end();
                self.counts.established += 1;
                self.handshake.saturating_record(cycles.saturating_sub(connection.since).max(1));
                self.push(flow, Kind::TcpAck);
                self.go_on(flow);
            }
            // Answers come one at a time; an old one again is no news.
            State::Open if !syn && segment.data_bytes > 0 && segment.seq == connection.ack => {
                connection.ack = segment.end();
                self.go_on(flow);
            }
            State::FinSent if segment.flags.contains(TcpFlags::FIN) => {
                connection.seq = segment.ack;
                connection.ack = segment.end();
                connection.state = State::Idle;
                self.under_way -= 1;
                self.counts.completed += 1;
                self.push(flow, Kind::TcpAck);
            }
            _ => {}
        }
    }

    /// Send data, or FIN when all of it was sent.
    fn go_on(&mut self, flow: u32) {
        let connection = &mut self.all[flow as usize];
        if connection.data_left > 0 {
            connection.data_left -= 1;
            self.push(flow, Kind::TcpData);
        } else {
            connection.state = State::FinSent;
            self.push(flow, Kind::TcpFin);
        }
    }

    fn push(&mut self, flow: u32, kind: Kind) {
        let Connection { seq, ack, .. } = self.all[flow as usize];
        self.to_send.push_back(ToSend { flow, kind, seq, ack });
    }

    /// Give up those that were not answered in time.
    pub fn expire(&mut self, cycles: u64) {
        while let Some((due, flow, use_number)) = self.timers.front().copied() {
            if due > cycles {
                return;
            }
            self.timers.pop_front();
            let connection = &mut self.all[flow as usize];
            if connection.state != State::Idle && connection.use_number == use_number {
                connection.state = State::Idle;
                self.under_way -= 1;
                self.counts.timed_out += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::SERVER_ISN;
    use super::*;

    /// What a server answers, as in `packet::answer`.
    fn answer(sent: &ToSend, data_bytes: u32) -> Option<Segment> {
        let psh_ack = TcpFlags::ACK.with(TcpFlags::PSH);
        let (flags, seq, len, data) = match sent.kind {
            Kind::TcpSyn => (TcpFlags::SYN.with(TcpFlags::ACK), SERVER_ISN, 1, 0),
            Kind::TcpData => (psh_ack, sent.ack, data_bytes, data_bytes),
            Kind::TcpFin => (TcpFlags::FIN.with(TcpFlags::ACK), sent.ack, 1, 0),
            _ => return None,
        };
        Some(Segment { flags, seq, ack: sent.seq.wrapping_add(len), data_bytes: data })
    }

    fn play(connections: &mut Connections, flow: u32) -> Vec<ToSend> {
        let mut all = Vec::new();
        while let Some(sent) = connections.next_to_send() {
            if sent.kind == Kind::TcpData {
                connections.sent_data(flow, 0);
            }
            if let Some(segment) = answer(&sent, 6) {
                connections.received(flow, &segment, 30);
                // Twice: duplicates change nothing.
                connections.received(flow, &segment, 40);
            }
            all.push(sent);
        }
        all
    }

    #[test]
    fn a_connection_goes_by_the_book() {
        for data_packets in [0, 1, 3] {
            let mut connections = Connections::new(4, data_packets, vec![6], 1_000);
            connections.start(2, 10);
            let sent = play(&mut connections, 2);
            let kinds: Vec<Kind> = sent.iter().map(|s| s.kind).collect();
            let data = vec![Kind::TcpData; data_packets as usize];
            let expected =
                [&[Kind::TcpSyn, Kind::TcpAck][..], &data, &[Kind::TcpFin, Kind::TcpAck]].concat();
            assert_eq!(kinds, expected);
            let last = sent.last().unwrap();
            assert_eq!(last.seq, CLIENT_ISN + 2 + 6 * data_packets);
            assert_eq!(last.ack, SERVER_ISN + 2 + 6 * data_packets);
            let counts = connections.counts;
            assert_eq!((counts.started, counts.established, counts.completed), (1, 1, 1));
            assert_eq!((connections.under_way(), connections.handshake.max()), (0, 20));
            connections.expire(5_000);
            assert_eq!(connections.counts.timed_out, 0);
            connections.start(2, 6_000);
            assert_eq!(play(&mut connections, 2).len(), expected.len(), "the flow is used again");
        }
    }

    #[test]
    fn loss_and_reset_fail_it() {
        let mut connections = Connections::new(4, 1, vec![6], 1_000);
        connections.start(0, 0);
        connections.start(0, 1);
        connections.start(1, 2);
        assert_eq!((connections.counts.busy, connections.under_way()), (1, 2));
        let reset = Segment { flags: TcpFlags::RST, seq: 0, ack: 0, data_bytes: 0 };
        connections.received(1, &reset, 5);
        connections.received(1, &reset, 5);
        connections.received(3, &reset, 5);
        connections.received(99, &reset, 5);
        connections.expire(999);
        assert_eq!((connections.counts.reset, connections.counts.timed_out), (1, 0));
        connections.expire(1_000);
        assert_eq!((connections.counts.timed_out, connections.under_way()), (1, 0));
        connections.start(0, 1_001);
        connections.expire(1_500);
        assert_eq!(connections.under_way(), 1, "an old timer does not end a new connection");
    }

    #[test]
    fn there_is_a_limit() {
        let mut connections = Connections::new(MOST_UNDER_WAY + 10, 1, vec![6], 1_000);
        (0..MOST_UNDER_WAY).for_each(|flow| {
            assert!(connections.has_room());
            connections.start(flow, 0);
        });
        assert!(!connections.has_room());
    }
}
