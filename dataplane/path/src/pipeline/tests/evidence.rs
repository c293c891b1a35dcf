//! Belief needs evidence (design, invariant 11): who does not see a connection changes nothing of it,
//! and what Sluice does not send on does not count.

use super::*;
use crate::table::conn::state::ConnState;

/// Where clients and backends begin to count.
const CLIENT_ISN: u32 = 0x1234_5678;
const BACKEND_ISN: u32 = 0xfedc_0000;
/// Sequence numbers that are right for nobody.
const FAR: u32 = 0x5555_5555;

/// A connection as its two ends see it.
struct Connection {
    client: FlowKey,
    /// As it arrives at the backend.
    backend: FlowKey,
    seq: u32,
    ack: u32,
}

impl Connection {
    fn client_sends(&self, flags: TcpFlags, (seq, ack): (u32, u32), data: &[u8]) -> Vec<u8> {
        segment(PORT_MACS[0], &self.client, flags, (seq, ack), data)
    }

    fn backend_sends(&self, flags: TcpFlags, (seq, ack): (u32, u32), data: &[u8]) -> Vec<u8> {
        segment(PORT_MACS[1], &back(&self.backend), flags, (seq, ack), data)
    }

    fn state(&self, h: &Harness) -> ConnState {
        let conns = h.pipeline.conns();
        let conn = conns.find_key(&self.client);
        assert!(!conn.is_none(), "the conn is there");
        conns.get(conn).state()
    }

    /// That data still passes both ways, on the way it took before.
    fn works(&mut self, h: &mut Harness) {
        let there = self.client_sends(ACK, (self.seq, self.ack), b"more");
        self.seq = self.seq.wrapping_add(4);
        let back = self.backend_sends(ACK, (self.ack, self.seq), b"answer");
        self.ack = self.ack.wrapping_add(6);
        let there = h.receive(CLIENT_PORT, [there]).transmitted;
        let back = h.receive(BACKEND_PORT, [back]).transmitted;
        assert_eq!((there.len(), back.len()), (1, 1), "{:?}", h.all_drops());
        assert_eq!(inspect(&there[0].1), (self.backend, true));
        assert_eq!(inspect(&back[0].1), (super::back(&self.client), true));
    }
}

fn sent(h: &mut Harness, port: InterfaceId, bytes: Vec<u8>) -> FlowKey {
    let out = h.receive(port, [bytes]).transmitted;
    assert_eq!(out.len(), 1, "{:?}", h.all_drops());
    inspect(&out[0].1).0
}

/// A connection in full-NAT, its handshake done.
fn connect(h: &mut Harness, port: u16) -> Connection {
    let client = client(port);
    let syn = segment(PORT_MACS[0], &client, SYN, (CLIENT_ISN, 0), &[]);
    let backend = sent(h, CLIENT_PORT, syn);
    let (seq, ack) = (CLIENT_ISN.wrapping_add(1), BACKEND_ISN.wrapping_add(1));
    let mut connection = Connection { client, backend, seq, ack };
    sent(h, BACKEND_PORT, connection.backend_sends(SYN_ACK, (BACKEND_ISN, seq), &[]));
    sent(h, CLIENT_PORT, connection.client_sends(ACK, (seq, ack), &[]));
    connection.works(h);
    assert_eq!(connection.state(h), ConnState::Established);
    connection
}

#[test]
fn forged_ends_and_beginnings_change_nothing() {
    let mut h = web(Mode::FullNat, 2);
    let mut c = connect(&mut h, 1);
    for flags in [RST, RST | ACK, FIN_ACK, TcpFlags::FIN, SYN] {
        for (seq, ack) in [(FAR, FAR), (0, 0), (c.seq.wrapping_add(0x2_0000), FAR)] {
            let bytes = c.client_sends(flags, (seq, ack), &[]);
            assert_eq!(sent(&mut h, CLIENT_PORT, bytes), c.backend, "{flags}");
            if !flags.contains(SYN) {
                sent(&mut h, BACKEND_PORT, c.backend_sends(flags, (seq, ack), &[]));
            }
            assert_eq!(c.state(&h), ConnState::Established, "{flags} {seq:x}");
        }
    }
    h.pass(800_000);
    c.works(&mut h);
    // The same with a sequence number that the real one sends.
    let bytes = c.client_sends(RST, (c.seq, 0), &[]);
    sent(&mut h, CLIENT_PORT, bytes);
    assert_eq!(c.state(&h), ConnState::Closed);
}

/// A RST in one of 21,845 sequence numbers is believed: 14.4 bits.
#[test]
fn a_reset_must_be_right_in_14_bits() {
    let mut believed = 0;
    let mut h = web(Mode::FullNat, 1);
    let c = connect(&mut h, 1);
    for upper in 0..=0xffff_u32 {
        sent(&mut h, CLIENT_PORT, c.client_sends(RST, (upper << 16 | 0x777, 0), &[]));
        if c.state(&h) == ConnState::Closed {
            believed += 1;
            // The client goes on, so it was not its RST.
            sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (c.seq, c.ack), &[]));
            assert_eq!(c.state(&h), ConnState::Established);
        }
    }
    assert_eq!(believed, 3, "of 65,536");
}

#[test]
fn a_forged_ack_does_not_lead_the_note_to_where_a_forged_reset_is_believed() {
    let mut h = web(Mode::FullNat, 1);
    let mut c = connect(&mut h, 1);
    for step in 1..200_u32 {
        let seq = FAR.wrapping_add(step * 1_000);
        sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (seq, FAR), b"x"));
        sent(&mut h, CLIENT_PORT, c.client_sends(RST, (seq, 0), &[]));
        assert_eq!(c.state(&h), ConnState::Established);
    }
    c.works(&mut h);
}

/// 4 GiB in one direction and back around: the ends are believed all the way.
#[test]
fn a_conn_that_goes_around_the_sequence_space_ends_by_its_fin() {
    let mut h = web(Mode::FullNat, 1);
    let mut c = connect(&mut h, 1);
    for _ in 0..70_000 {
        c.ack = c.ack.wrapping_add(65_000);
        sent(&mut h, BACKEND_PORT, c.backend_sends(ACK, (c.ack, c.seq), b"data"));
    }
    sent(&mut h, BACKEND_PORT, c.backend_sends(FIN_ACK, (c.ack, c.seq), &[]));
    assert_eq!(c.state(&h), ConnState::FinWait);
    // A gap that never passed here: the acknowledgment bears witness.
    c.seq = c.seq.wrapping_add(0x0100_0000);
    sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (c.seq, c.ack), b"data"));
    sent(&mut h, CLIENT_PORT, c.client_sends(FIN_ACK, (c.seq, c.ack), &[]));
    assert_eq!(c.state(&h), ConnState::LastAck);
}

#[test]
fn a_syn_on_a_live_conn_starts_over_when_the_backend_agrees() {
    let mut h = web(Mode::FullNat, 2);
    let c = connect(&mut h, 1);
    h.pass(600_000);
    // The client was restarted and comes from the same port.
    let syn = c.client_sends(SYN, (FAR, 0), &[]);
    assert_eq!(sent(&mut h, CLIENT_PORT, syn.clone()), c.backend, "its backend's to judge");
    assert_eq!(c.state(&h), ConnState::Established);
    let (seq, ack) = (0x7000_0000, FAR.wrapping_add(1));
    sent(&mut h, BACKEND_PORT, c.backend_sends(SYN_ACK, (seq, ack), &[]));
    assert_eq!(c.state(&h), ConnState::SynReceived);
    sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (ack, seq + 1), &[]));
    assert_eq!(c.state(&h), ConnState::Established);

    // And where the backend does not: its challenge (RFC 5961, 4) has the client reset it.
    sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (0x2222_2222, 0), &[]));
    sent(&mut h, BACKEND_PORT, c.backend_sends(ACK, (seq + 1, ack), &[]));
    assert_eq!(c.state(&h), ConnState::Established);
    sent(&mut h, CLIENT_PORT, c.client_sends(RST, (ack, 0), &[]));
    assert_eq!(c.state(&h), ConnState::Closed);
    sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (0x2222_2222, 0), &[]));
    sent(&mut h, BACKEND_PORT, c.backend_sends(SYN_ACK, (0x8888_0000, 0x2222_2223), &[]));
    assert_eq!(c.state(&h), ConnState::SynReceived);
    sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (0x2222_2223, 0x8888_0001), &[]));
    assert_eq!(c.state(&h), ConnState::Established);
    assert_eq!(h.pipeline.conns().len(), 1);
}

/// Who guessed a RST right takes no conn away by a SYN right behind it: its ends go on. One whose ends
/// are silent is planned anew.
#[test]
fn a_guessed_reset_and_a_syn_behind_it_take_no_conn_away() {
    let mut h = web(Mode::FullNat, 2);
    let mut c = connect(&mut h, 1);
    sent(&mut h, CLIENT_PORT, c.client_sends(RST, (c.seq, 0), &[]));
    assert_eq!(c.state(&h), ConnState::Closed);
    assert_eq!(sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (FAR, 0), &[])), c.backend);
    // The backend, which took neither, says so (RFC 5961, 4).
    sent(&mut h, BACKEND_PORT, c.backend_sends(ACK, (c.ack, c.seq), &[]));
    c.works(&mut h);
    assert_eq!(c.state(&h), ConnState::Established);

    sent(&mut h, CLIENT_PORT, c.client_sends(RST, (c.seq, 0), &[]));
    h.pass(1_000);
    assert_ne!(sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (FAR, 0), &[])), c.backend);
    assert_eq!(c.state(&h), ConnState::SynSent);
}

#[test]
fn a_syn_keeps_no_established_conn_alive() {
    let mut h = web(Mode::FullNat, 1);
    let c = connect(&mut h, 1);
    for _ in 0..100 {
        h.pass(9_100);
        let syn = c.client_sends(SYN, (FAR, 0), &[]);
        h.receive(CLIENT_PORT, [syn]);
    }
    assert_ne!(c.state(&h), ConnState::Established, "900 s after its last packet it was gone");
}

#[test]
fn a_late_copy_of_the_first_syn_leaves_a_half_closed_conn_alone() {
    let mut h = web(Mode::FullNat, 2);
    let mut c = connect(&mut h, 1);
    sent(&mut h, CLIENT_PORT, c.client_sends(FIN_ACK, (c.seq, c.ack), &[]));
    for seq in [CLIENT_ISN, FAR] {
        assert_eq!(sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (seq, 0), &[])), c.backend);
        assert_eq!(c.state(&h), ConnState::FinWait);
    }
    c.works(&mut h);
    sent(&mut h, BACKEND_PORT, c.backend_sends(FIN_ACK, (c.ack, c.seq), &[]));
    sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (c.seq, c.ack + 1), &[]));
    assert_eq!(c.state(&h), ConnState::TimeWait);
    assert_eq!(sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (CLIENT_ISN, 0), &[])), c.backend);
    assert_eq!(c.state(&h), ConnState::TimeWait);
    // One with a number of its own is a new connection.
    let next = sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (FAR, 0), &[]));
    assert_ne!(next, c.backend);
}

#[test]
fn in_dr_fin_and_reset_must_be_right_too() {
    let mut h = web(Mode::Dr, 2);
    let start = |h: &mut Harness| {
        let syn = segment(PORT_MACS[0], &client(1), SYN, (CLIENT_ISN, 0), &[]);
        let (_, frame) = h.receive(CLIENT_PORT, [syn]).transmitted.remove(0);
        let seq = CLIENT_ISN + 1;
        let c = Connection { client: client(1), backend: client(1), seq, ack: BACKEND_ISN + 1 };
        sent(h, CLIENT_PORT, c.client_sends(ACK, (c.seq, c.ack), b"GET /"));
        assert_eq!(c.state(h), ConnState::Established);
        (c, frame.bytes()[..6].to_vec())
    };
    let (c, mac) = start(&mut h);
    for flags in [RST, FIN_ACK, SYN] {
        sent(&mut h, CLIENT_PORT, c.client_sends(flags, (FAR, FAR), &[]));
        assert_eq!(c.state(&h), ConnState::Established, "{flags}");
    }
    // After the client's own FIN a new SYN of it is a new connection; a copy of the old one is not.
    sent(&mut h, CLIENT_PORT, c.client_sends(FIN_ACK, (c.seq, c.ack), &[]));
    let to = |h: &mut Harness, seq| {
        let syn = c.client_sends(SYN, (seq, 0), &[]);
        h.receive(CLIENT_PORT, [syn]).transmitted.remove(0).1.bytes()[..6].to_vec()
    };
    assert_eq!(to(&mut h, CLIENT_ISN), mac);
    assert_eq!(c.state(&h), ConnState::FinWait);
    assert_ne!(to(&mut h, FAR), mac);
    assert_eq!(c.state(&h), ConnState::SynReceived);
}

/// What holds an entry in DR for long is a client that was answered.
#[test]
fn in_dr_a_syn_and_an_ack_hold_an_entry_for_seconds() {
    let mut h = web(Mode::Dr, 2);
    let c = Connection {
        client: client(1),
        backend: client(1),
        seq: CLIENT_ISN + 1,
        ack: BACKEND_ISN + 1,
    };
    let syn = c.client_sends(SYN, (CLIENT_ISN, 0), &[]);
    sent(&mut h, CLIENT_PORT, syn);
    for _ in 0..3 {
        sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (c.seq, c.ack), &[]));
    }
    assert_eq!(c.state(&h), ConnState::SynReceived);
    h.pass(31_000);
    assert!(h.pipeline.conns().is_empty());
}

/// A client in DR that begins again before anybody answered counts by its last number, and who does
/// not see the handshake does not complete it.
#[test]
fn in_dr_a_handshake_counts_by_the_clients_last_number() {
    let mut h = web(Mode::Dr, 2);
    let seq = FAR.wrapping_add(1);
    let c = Connection { client: client(1), backend: client(1), seq, ack: BACKEND_ISN + 1 };
    for isn in [CLIENT_ISN, FAR] {
        sent(&mut h, CLIENT_PORT, c.client_sends(SYN, (isn, 0), &[]));
        assert_eq!(c.state(&h), ConnState::SynReceived);
    }
    let old = CLIENT_ISN + 1;
    for (flags, data) in [(ACK, &b"data"[..]), (ACK, &[]), (RST, &[]), (FIN_ACK, &[])] {
        sent(&mut h, CLIENT_PORT, c.client_sends(flags, (old, c.ack), data));
        assert_eq!(c.state(&h), ConnState::SynReceived, "{flags} of the first number");
    }
    // The same acknowledgment twice shows nobody who answers; one of more does.
    for (ack, expected) in [
        (c.ack, ConnState::SynReceived),
        (c.ack, ConnState::SynReceived),
        (c.ack + 10, ConnState::Established),
    ] {
        sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (seq, ack), &[]));
        assert_eq!(c.state(&h), expected);
    }
}

fn with_ttl(mut bytes: Vec<u8>, ttl: u8) -> Vec<u8> {
    bytes[22] = ttl;
    bytes[24..26].fill(0);
    let sum = sluice_wire::checksum::compute(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn a_syn_that_goes_no_further_starts_nothing_over() {
    let mut h = web(Mode::FullNat, 2);
    let c = connect(&mut h, 1);
    sent(&mut h, CLIENT_PORT, c.client_sends(FIN_ACK, (c.seq, c.ack), &[]));
    sent(&mut h, BACKEND_PORT, c.backend_sends(FIN_ACK, (c.ack, c.seq + 1), &[]));
    sent(&mut h, CLIENT_PORT, c.client_sends(ACK, (c.seq + 1, c.ack + 1), &[]));
    assert_eq!(c.state(&h), ConnState::TimeWait);
    let syn = c.client_sends(SYN, (FAR, 0), &[]);
    h.receive(CLIENT_PORT, [with_ttl(syn.clone(), 1)]);
    assert_eq!(c.state(&h), ConnState::TimeWait);
    sent(&mut h, CLIENT_PORT, syn);
    assert_eq!(c.state(&h), ConnState::SynSent);
}

#[test]
fn what_is_not_sent_on_makes_no_conn_and_changes_none() {
    let mut h = web(Mode::FullNat, 1);
    let slot = h.slots.all_backends().next().unwrap().1;
    let syn = segment(PORT_MACS[0], &client(9), SYN, (CLIENT_ISN, 0), &[]);
    h.receive(CLIENT_PORT, [with_ttl(syn, 1)]);
    assert!(h.pipeline.conns().is_empty());
    let traffic = h.counters.backend(slot).read();
    assert_eq!((traffic.conns, traffic.conns_created, traffic.packets_in), (0, 0, 0));
    assert_eq!((h.counters.conns.get(), h.counters.conns_created.get()), (0, 0));

    let c = connect(&mut h, 1);
    let before = h.counters.backend(slot).read();
    for bytes in [
        with_ttl(c.client_sends(RST, (c.seq, 0), &[]), 1),
        with_ttl(c.client_sends(FIN_ACK, (c.seq, c.ack), &[]), 1),
        c.client_sends(FIN_ACK, (c.seq, c.ack), &[0; 1_480]),
    ] {
        h.receive(CLIENT_PORT, [bytes]);
        assert_eq!(c.state(&h), ConnState::Established);
    }
    assert_eq!(h.counters.backend(slot).read(), before);
    // Nor do they keep it alive.
    h.pass(899_000);
    h.receive(CLIENT_PORT, [with_ttl(c.client_sends(ACK, (c.seq, c.ack), &[]), 1)]);
    h.pass(2_000);
    assert!(h.pipeline.conns().is_empty());
}

#[test]
fn what_waits_for_a_next_hop_counts_when_it_leaves() {
    let mut h = web(Mode::FullNat, 1);
    h.resolves = false;
    let slot = h.slots.all_backends().next().unwrap().1;
    let syn = |port| segment(PORT_MACS[0], &client(port), SYN, (CLIENT_ISN, 0), &[]);
    h.receive(CLIENT_PORT, (1..=10).map(syn));
    let traffic = h.counters.backend(slot).read();
    assert_eq!((traffic.conns, traffic.conns_created, traffic.packets_in), (10, 0, 0));
    assert_eq!(h.counters.tx_packets.get(), 0);

    let backend = Ipv4Addr::new(10, 0, 1, 1);
    let mut out = Out::default();
    let found = is_reachable(BACKEND_PORT, backend);
    h.update_neighbour(&found, &mut out);
    assert_eq!(out.transmitted.len(), 10);
    assert!(out.transmitted.iter().all(|(_, frame)| inspect(frame).1));
    let traffic = h.counters.backend(slot).read();
    assert_eq!((traffic.conns, traffic.conns_created, traffic.packets_in), (10, 10, 10));
    assert_eq!(h.counters.tx_packets.get(), 10);

    // The backend's answers wait for the way to the client: the handshake goes on when they leave.
    let to_backend = inspect(&out.transmitted[0].1).0;
    let answer = (BACKEND_ISN, CLIENT_ISN + 1);
    let answer = segment(PORT_MACS[1], &back(&to_backend), SYN_ACK, answer, &[]);
    let state = |h: &Harness| {
        let conns = h.pipeline.conns();
        conns.get(conns.find_key(&client(to_client_port(h, &to_backend)))).state()
    };
    assert!(h.receive(BACKEND_PORT, [answer]).transmitted.is_empty());
    assert_eq!(state(&h), ConnState::SynSent);
    let mut out = Out::default();
    let gateway = is_reachable(CLIENT_PORT, Ipv4Addr::new(192, 0, 2, 254));
    h.update_neighbour(&gateway, &mut out);
    assert_eq!(out.transmitted.len(), 1);
    assert_eq!(state(&h), ConnState::SynReceived);
}

/// The client's port of the conn that a backend sees so.
fn to_client_port(h: &Harness, to_backend: &FlowKey) -> u16 {
    let is_it = |port: &u16| h.pipeline.reply_flow(&client(*port)) == Some(back(to_backend));
    (1..=10).find(is_it).expect("the conn is there")
}

#[test]
fn a_next_hop_that_fails_takes_back_the_conns_that_waited_for_it() {
    let mut h = web(Mode::FullNat, 1);
    h.resolves = false;
    let syn = |port| segment(PORT_MACS[0], &client(port), SYN, (CLIENT_ISN, 0), &[]);
    h.receive(CLIENT_PORT, (1..=HELD_PER_NEIGHBOUR as u16).map(syn));
    assert_eq!(h.pipeline.conns().len(), HELD_PER_NEIGHBOUR);
    let found = is_reachable(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, 1));
    let failed = NeighbourUpdate { state: NeighbourState::Failed, ..found };
    h.update_neighbour(&failed, &mut Out::default());
    assert!(h.pipeline.conns().is_empty() && h.pipeline.held() == 0);
    assert_eq!(h.drops(DropReason::NeighbourUnreachable), HELD_PER_NEIGHBOUR as u64);
    assert_eq!(h.counters.conns.get(), 0);
}

#[test]
fn a_source_from_behind_another_port_is_not_believed() {
    let mut h = web(Mode::FullNat, 1);
    let mut c = connect(&mut h, 1);
    // The backend's address, from the clients' side.
    for flags in [ACK, RST, SYN_ACK] {
        let forged = back(&c.backend);
        let bytes = segment(PORT_MACS[0], &forged, flags, (c.ack, c.seq), b"forged");
        assert!(h.receive(CLIENT_PORT, [bytes]).transmitted.is_empty(), "{flags}");
    }
    // The client's address, from the backends' side.
    let bytes = segment(PORT_MACS[1], &c.client, RST, (c.seq, 0), &[]);
    assert!(h.receive(BACKEND_PORT, [bytes]).transmitted.is_empty());
    // A client with a backend's address.
    let key = flow(Protocol::Tcp, (Ipv4Addr::new(10, 0, 1, 1), 5_000), (VIP, 80));
    let bytes = segment(PORT_MACS[0], &key, SYN, (1, 0), &[]);
    assert!(h.receive(CLIENT_PORT, [bytes]).transmitted.is_empty());
    assert_eq!(h.all_drops(), [(DropReason::WrongPort, 5)]);
    assert_eq!(c.state(&h), ConnState::Established);
    c.works(&mut h);

    // Where it is switched off, all ports are believed.
    h.pipeline.shared.interfaces.all_mut().iter_mut().for_each(|port| port.checks_source = false);
    let bytes = segment(PORT_MACS[0], &back(&c.backend), ACK, (c.ack, c.seq), b"asymmetric");
    assert_eq!(sent(&mut h, CLIENT_PORT, bytes), back(&c.client));
}

/// A client that comes by another port than its route says is heard by the port that it began with.
#[test]
fn a_client_may_come_by_another_port_than_its_route() {
    let mut h = web(Mode::FullNat, 1);
    let syn = segment(PORT_MACS[1], &client(1), SYN, (CLIENT_ISN, 0), &[]);
    let backend = sent(&mut h, BACKEND_PORT, syn);
    let ack = segment(PORT_MACS[1], &client(1), SYN, (CLIENT_ISN, 0), &[]);
    assert_eq!(sent(&mut h, BACKEND_PORT, ack), backend);
    // It is routed anew, to where its route leads.
    let ack = segment(PORT_MACS[0], &client(1), SYN, (CLIENT_ISN, 0), &[]);
    assert_eq!(sent(&mut h, CLIENT_PORT, ack), backend);
}

#[test]
fn a_clients_new_syn_leaves_a_backend_that_is_gone() {
    for mode in [Mode::FullNat, Mode::Dr] {
        for is_removed in [false, true] {
            let mut service = testkit::service("web", 80, Protocol::Tcp, mode, 2);
            let mut h = Harness::new(&snapshot(1, vec![service.clone()]), 100);
            let syn = |seq| segment(PORT_MACS[0], &client(1), SYN, (seq, 0), &[]);
            let backend_of = |h: &mut Harness, seq| {
                let (_, frame) = h.receive(CLIENT_PORT, [syn(seq)]).transmitted.remove(0);
                frame.bytes()[..6].to_vec()
            };
            let first = backend_of(&mut h, CLIENT_ISN);
            let (seq, ack) = (CLIENT_ISN + 1, BACKEND_ISN + 1);
            if let Some(answer) = h.pipeline.reply_flow(&client(1)) {
                let bytes = segment(PORT_MACS[1], &answer, SYN_ACK, (BACKEND_ISN, seq), &[]);
                h.receive(BACKEND_PORT, [bytes]);
            }
            let data = segment(PORT_MACS[0], &client(1), ACK, (seq, ack), b"data");
            h.receive(CLIENT_PORT, [data]);
            let mac = |b: &u8| mac_of(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, *b)).0;
            let gone = (1..=2).find(|b| mac(b)[..] == first);
            let gone = usize::from(gone.expect("it is one of the two")) - 1;
            if is_removed {
                service.backends.remove(gone);
            } else {
                service.backends[gone].healthy = false;
            }
            h.apply(&snapshot(2, vec![service]));
            // At once it might be forged; a second later, when nothing else came, it is planned anew.
            assert_eq!(backend_of(&mut h, FAR), first, "{mode:?}");
            h.pass(1_000);
            assert_ne!(backend_of(&mut h, FAR), first, "{mode:?} {is_removed}");
            assert_eq!(h.pipeline.conns().len(), 1);
        }
    }
}

#[test]
fn a_timeout_that_is_shortened_counts_for_conns_that_run() {
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    let mut h = Harness::new(&snapshot(1, vec![service.clone()]), 1_000);
    for port in 1..=100 {
        connect(&mut h, port);
    }
    h.pass(70_000);
    service.timeouts.tcp_established_ms = 500;
    h.apply(&snapshot(2, vec![service]));
    for _ in 0..1_000 / 128 + 1 {
        h.pass(1);
    }
    h.pass(64);
    assert_eq!(h.pipeline.conns().len(), 0);
}

/// With a limit of 200, a flood of SYNs that nobody completes keeps no honest client out.
#[test]
fn half_open_conns_give_way_to_new_ones_the_oldest_first() {
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 2);
    service.max_conns = std::num::NonZeroU32::new(200);
    let mut team = Team::new(&snapshot(1, vec![service]), 10_000, 1);
    for _ in 0..4 {
        team.pass();
    }
    let syn = |port, address| {
        let key = flow(Protocol::Tcp, (address, port), (VIP, 80));
        (key, segment(PORT_MACS[0], &key, SYN, (CLIENT_ISN, 0), &[]))
    };
    let (mut served, mut asked) = (0, 0);
    for second in 0..60_u16 {
        for attack in 0..50 {
            let address = Ipv4Addr::new(203, 0, (113 + second / 4) as u8, (attack + 1) as u8);
            team.give(0, false, syn(1_000 + second, address).1);
        }
        let (_, syn) = syn(2_000 + second, Ipv4Addr::new(198, 51, 100, 7));
        let out = team.give(0, false, syn);
        asked += 1;
        if let Some((_, frame)) = out.transmitted.first() {
            served += 1;
            let to_backend = inspect(frame).0;
            let answer = (BACKEND_ISN, CLIENT_ISN + 1);
            let answer = segment(PORT_MACS[1], &back(&to_backend), SYN_ACK, answer, &[]);
            assert_eq!(team.give(0, true, answer).transmitted.len(), 1);
            let ack = (CLIENT_ISN + 1, BACKEND_ISN + 1);
            let ack = segment(PORT_MACS[0], &honest(second), ACK, ack, &[]);
            assert_eq!(team.give(0, false, ack).transmitted.len(), 1);
        }
        team.pass_time(1_000);
        team.pass();
    }
    assert_eq!(served, asked, "{:?}", team.workers[0].all_drops());
    let (conns, _) = team.conns(0);
    assert!(conns <= 200, "the limit holds: {conns}");
    // Established conns give way to nobody.
    let established = |port| !team.workers[0].pipeline.conns().find_key(&port).is_none();
    for second in 0..60 {
        assert!(established(honest(second)), "{second}");
    }
}

fn honest(second: u16) -> FlowKey {
    flow(Protocol::Tcp, (Ipv4Addr::new(198, 51, 100, 7), 2_000 + second), (VIP, 80))
}
