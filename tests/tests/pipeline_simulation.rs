//! Hours of conns on a fake clock, beside a plain model: none is lost, none outlives its timeout by
//! more than a wheel slot, and no local port leaks.
//!
//! The seed is fixed; `SLUICE_SEED=N` tries another, and a failure prints it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use sluice_api::{DropReason, Mode, Protocol, SnapshotService, Timeouts};
use sluice_path::flow::FlowKey;
use sluice_path::ids::WorkerId;
use sluice_path::table::conn::state::{ConnState, Fins, Segment, StateTimeouts, state_timeouts};
use sluice_path::table::conn::wheel::SLOT_MS;
use sluice_path::table::local_port::OwnPorts;
use sluice_path::testkit::{
    self, BACKEND_PORT, CLIENT_PORT, Harness, PORT_MACS, Random, VIP, flow, packet, segment,
    snapshot,
};
use sluice_path::time::{Millis, at_or_after};
use sluice_wire::tcp::TcpFlags;

/// What the model knows of a conn.
struct Expected {
    state: ConnState,
    fins: Fins,
    last_seen: Millis,
    reply: FlowKey,
    /// The client's first sequence number; the backend's is always the same.
    isn: u32,
    /// Whether the backend's was seen.
    has_answered: bool,
}

/// The backends' first sequence number.
const BACKEND_ISN: u32 = 0xfedc_0000;
/// One that is nobody's, nor near it.
const FORGED: u32 = 0x8000_0000;

impl Expected {
    fn deadline(&self, timeouts: &StateTimeouts) -> Millis {
        self.last_seen.wrapping_add(timeouts[self.state as usize])
    }
}

struct Simulation {
    h: Harness,
    random: Random,
    timeouts: StateTimeouts,
    conns: HashMap<(u8, u16), Expected>,
}

fn service(name: &str, port: u16, protocol: Protocol) -> SnapshotService {
    let timeouts = Timeouts {
        tcp_syn_sent_ms: 3_000,
        tcp_syn_received_ms: 5_000,
        tcp_established_ms: 60_000,
        tcp_fin_wait_ms: 8_000,
        tcp_last_ack_ms: 4_000,
        tcp_time_wait_ms: 2_000,
        tcp_closed_ms: 500,
        udp_one_way_ms: 7_000,
        udp_two_way_ms: 30_000,
    };
    SnapshotService { timeouts, ..testkit::service(name, port, protocol, Mode::FullNat, 3) }
}

fn client(protocol: u8, port: u16) -> FlowKey {
    let address = Ipv4Addr::new(198, 51, 100, 7);
    match protocol {
        6 => flow(Protocol::Tcp, (address, port), (VIP, 80)),
        _ => flow(Protocol::Udp, (address, port), (VIP, 53)),
    }
}

/// A packet of a conn that the simulation knows, or does not.
struct Packet {
    /// Protocol and the client's port.
    id: (u8, u16),
    key: FlowKey,
    flags: TcpFlags,
    is_forged: bool,
    /// The sequence number of its SYN, and that of the one that is known.
    isn: u32,
    known_isn: u32,
}

impl Simulation {
    fn new(random: Random) -> Self {
        let services = vec![service("web", 80, Protocol::Tcp), service("dns", 53, Protocol::Udp)];
        let timeouts = state_timeouts(&services[0].timeouts);
        let mut h = Harness::new(&snapshot(1, services), 4_096);
        // The clock wraps within the simulation: 49 days in which nothing happens.
        (0..4).for_each(|_| h.pass(1_000_000_000));
        h.pass(u32::MAX - 600_000 - h.now);
        Simulation { h, random, timeouts, conns: HashMap::new() }
    }

    /// A packet of a client, or of the backend of a conn that there is.
    fn packet(&mut self) {
        let protocol = if self.random.below(3) == 0 { 17 } else { 6 };
        let id = (protocol, 1 + self.random.below(1_500) as u16);
        let from_backend = self.random.below(2) == 0;
        let flags = [
            TcpFlags::SYN,
            TcpFlags::SYN.with(TcpFlags::ACK),
            TcpFlags::ACK,
            TcpFlags::ACK,
            TcpFlags::FIN.with(TcpFlags::ACK),
            TcpFlags::RST,
        ][self.random.below(6)];
        let key = client(id.0, id.1);
        let is_forged = self.random.below(4) == 0;
        // Half of all SYNs begin another connection, the others are copies.
        let fresh = (1 + self.random.below(0x3fff) as u32 * 2) << 16;
        let known = self.conns.get(&id);
        let is_copy = known.is_some_and(|_| self.random.below(2) == 0);
        let known_isn = known.map_or(fresh, |conn| conn.isn);
        let isn = if flags.is_open() && !is_copy { fresh } else { known_isn };
        // Whether the conn has run out is only certain away from the deadline.
        let certain = known.is_none_or(|c| !at_or_after(self.h.now, c.deadline(&self.timeouts)));
        if !certain {
            return;
        }
        let packet = Packet { id, key, flags, is_forged, isn, known_isn };
        match (known.map(|conn| (conn.reply, conn.isn)), from_backend) {
            (None, true) => {}
            (Some((reply, isn)), true) => self.backend_sends(&packet, &reply, isn),
            (known, false) => self.client_sends(&packet, known.is_some()),
        }
    }

    fn backend_sends(&mut self, packet: &Packet, reply: &FlowKey, isn: u32) {
        let Packet { id, key, flags, known_isn, .. } = *packet;
        // A SYN-ACK with another number would be the backend's word for another SYN.
        let is_forged = packet.is_forged && !flags.contains(TcpFlags::SYN);
        let seq = if is_forged { FORGED } else { BACKEND_ISN };
        let ack = if is_forged { FORGED } else { isn + 1 };
        let bytes = segment(PORT_MACS[1], reply, flags, (seq, ack), b"reply");
        let out = self.h.receive(BACKEND_PORT, [bytes]);
        assert_eq!(out.transmitted.len(), 1, "a conn was lost: {:?}", self.h.all_drops());
        let back = testkit::inspect(&out.transmitted[0].1).0;
        assert_eq!((back.dst, back.dst_port), (key.src, key.src_port));
        self.touch(id, flags, true, is_forged, known_isn);
    }

    fn client_sends(&mut self, packet: &Packet, is_known: bool) {
        let Packet { id, key, flags, is_forged, isn, known_isn } = *packet;
        let opens = id.0 == 17 || flags.is_open();
        let expected = is_known || opens;
        let seq = match flags.is_open() {
            true => isn,
            false if is_forged => FORGED,
            false => isn + 1,
        };
        let ack = if is_forged { FORGED } else { BACKEND_ISN + 1 };
        let bytes = segment(PORT_MACS[0], &key, flags, (seq, ack), b"request");
        let out = self.h.receive(CLIENT_PORT, [bytes]);
        // What has no conn goes no further, but for an answer to where it came from.
        let goes_on = out.transmitted.iter().any(|(port, _)| *port == BACKEND_PORT);
        assert_eq!(goes_on, expected, "{:?}", self.h.all_drops());
        if !expected {
            return;
        }
        let starts_over = id.0 == 6
            && flags.is_open()
            && isn != known_isn
            && self.conns.get(&id).is_some_and(|c| c.state.may_reopen(c.fins, true));
        if starts_over || !self.conns.contains_key(&id) {
            let left = testkit::inspect(&out.transmitted[0].1).0;
            let reply = FlowKey {
                src: left.dst,
                dst: left.src,
                src_port: left.dst_port,
                dst_port: left.src_port,
                protocol: left.protocol,
            };
            let state = if id.0 == 6 { ConnState::SynSent } else { ConnState::UdpOneWay };
            let last_seen = self.h.now;
            let (fins, has_answered) = (Fins::NONE, false);
            let conn = Expected { state, fins, last_seen, reply, isn, has_answered };
            self.conns.insert(id, conn);
        } else {
            self.touch(id, flags, false, is_forged, isn);
        }
    }

    fn touch(
        &mut self,
        id: (u8, u16),
        flags: TcpFlags,
        from_backend: bool,
        is_forged: bool,
        isn: u32,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let opens = id.0 == 6 && flags.is_open() && !from_backend;
        if !opens || conn.state.is_half_open() {
            conn.last_seen = self.h.now;
        }
        if id.0 != 6 {
            conn.state = conn.state.after_udp(from_backend);
            return;
        }
        let knows_seq = conn.has_answered || !from_backend;
        let knows_ack = conn.has_answered || from_backend;
        let segment = Segment {
            flags,
            from_backend,
            seq_fits: knows_seq && if opens { isn == conn.isn } else { !is_forged },
            ack_fits: knows_ack && !is_forged && flags.contains(TcpFlags::ACK),
            has_data: true,
            acks_more: false,
        };
        conn.has_answered |= conn.state.agrees_to_start_over(conn.fins, &segment);
        conn.state = conn.state.after_tcp(&mut conn.fins, &segment, true);
    }

    /// Let time pass, and see that exactly those conns are gone that must be.
    fn pass(&mut self) {
        let ms = match self.random.below(20) {
            0 => self.random.below(20_000),
            _ => self.random.below(200),
        };
        self.h.pass(ms as u32);
        let now = self.h.now;
        let (h, timeouts) = (&self.h, &self.timeouts);
        self.conns.retain(|id, conn| {
            let deadline = conn.deadline(timeouts);
            let there = h.pipeline.reply_flow(&client(id.0, id.1)).is_some();
            if at_or_after(now, deadline.wrapping_add(SLOT_MS)) {
                assert!(!there, "{id:?} in {:?} outlived its timeout", conn.state);
            } else if !at_or_after(now, deadline) {
                assert!(there, "{id:?} in {:?} is gone before its time", conn.state);
            }
            there
        });
        assert_eq!(self.h.pipeline.conns().len(), self.conns.len(), "no conn but the model's");
        let counted = self.h.counters.conns.get();
        assert_eq!(counted as usize, self.conns.len(), "the gauge agrees");
    }
}

#[test]
fn no_conn_is_lost_and_none_outlives_its_timeout() {
    let mut simulation = Simulation::new(Random::from_env());
    let mut most = 0;
    for _ in 0..6_000 {
        for _ in 0..simulation.random.below(60) {
            simulation.packet();
        }
        simulation.pass();
        most = most.max(simulation.conns.len());
    }
    println!("at most {most} conns at once; {:?}", simulation.h.all_drops());
    assert!(most > 300, "the simulation has conns to lose: {most}");
    assert_eq!(simulation.h.drops(DropReason::LocalPortsExhausted), 0);

    // All of them end, and every port can be used again, each once.
    simulation.h.pass(61_000);
    assert!(simulation.h.pipeline.conns().is_empty());
    for slot in simulation.h.slots.all_backends().map(|(_, slot)| slot) {
        assert_eq!(simulation.h.counters.backend(slot).conns.get(), 0);
    }
}

#[test]
fn no_local_port_leaks() {
    let service = SnapshotService {
        timeouts: Timeouts { udp_one_way_ms: 1_000, ..Timeouts::default() },
        ..testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 1)
    };
    let mut h = Harness::new(&snapshot(1, vec![service]), 70_000);
    let all = <OwnPorts>::by_modulo(WorkerId(0), 1).capacity(1) as usize;
    for round in 0..3 {
        let sent =
            (1..=u16::MAX).map(|p| packet(PORT_MACS[0], &client(17, p), TcpFlags::NONE, b""));
        let out = h.receive(CLIENT_PORT, sent);
        assert_eq!(out.transmitted.len(), all, "round {round}");
        h.pass(1_000 + SLOT_MS);
        assert!(h.pipeline.conns().is_empty());
    }
}

/// The two ways back for a local port other than expiry: a conn that starts over, and a new conn
/// that got a port but found no room in the table.
#[test]
fn no_local_port_leaks_when_conns_start_over_or_find_no_room() {
    const CONNS: u16 = 20_000;
    let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    let mut h = Harness::new(&snapshot(1, vec![service]), u32::from(CONNS) + 64);
    let send = |h: &mut Harness, ports: std::ops::RangeInclusive<u16>, flags, seq| {
        let packets = ports.map(|p| segment(PORT_MACS[0], &client(6, p), flags, (seq, 0), b""));
        h.receive(CLIENT_PORT, packets).transmitted.len()
    };
    // 100,000 conns one after the other, of 64,512 ports.
    for round in 0..5 {
        let seq = round << 20;
        let made = send(&mut h, 1..=CONNS, TcpFlags::SYN, seq);
        assert_eq!(made, usize::from(CONNS), "round {round}: {:?}", h.all_drops());
        assert_eq!(send(&mut h, 1..=CONNS, TcpFlags::RST, seq), usize::from(CONNS));
        // A SYN right behind a RST would be its backend's to judge.
        h.pass(1_000);
    }
    send(&mut h, 30_000..=30_100, TcpFlags::SYN, 0);
    assert_eq!(h.pipeline.conns().len(), h.pipeline.conns().capacity(), "the table is full");
    let refused = h.drops(DropReason::ConnTableFull);
    for _ in 0..4 {
        assert_eq!(send(&mut h, 40_001..=60_000, TcpFlags::SYN, 0), 0);
    }
    assert_eq!(h.drops(DropReason::ConnTableFull) - refused, 80_000);
    assert_eq!(h.drops(DropReason::LocalPortsExhausted), 0);
    h.pass(900_000 + SLOT_MS);
    assert!(h.pipeline.conns().is_empty());
    assert_eq!(send(&mut h, 1..=CONNS, TcpFlags::SYN, 0), usize::from(CONNS));
}
