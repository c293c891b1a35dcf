//! Ports that rest, by whole packets, towards a backend that does with TIME_WAIT as Linux does.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use sluice_api::{AdminState, DropReason, Mode, Protocol, Snapshot};
use sluice_wire::Ipv4Frame;
use sluice_wire::tcp::TcpFlags;

use crate::burst::Meta;
use crate::flow::{Endpoint, FlowKey};
use crate::frame::{Frame, MemFrame};
use crate::ids::{InterfaceId, ServiceSlot, WorkerId};
use crate::table::conn::state::ConnState;
use crate::table::conn::wheel::SLOT_MS;
use crate::testkit::{self, *};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(0x12);
const FIN_ACK: TcpFlags = TcpFlags(0x11);
const RST: TcpFlags = TcpFlags::RST;

/// Of eight workers, ports of one of them.
const PORTS: u32 = 64_512 / 8;

/// Who closes first.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Client,
    Backend,
}

fn back(key: &FlowKey) -> FlowKey {
    FlowKey {
        src: key.dst,
        dst: key.src,
        src_port: key.dst_port,
        dst_port: key.src_port,
        protocol: key.protocol,
    }
}

/// Sequence number and flags.
fn tcp(frame: &MemFrame) -> (u32, TcpFlags) {
    let view = Ipv4Frame::parse(frame.bytes()).expect("a frame of ours");
    let l4 = &frame.bytes()[34..];
    assert_eq!(view.ip.protocol, 6);
    (u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]), TcpFlags(l4[13]))
}

/// A backend's TIME_WAITs, by the client's side of it: what it expects next (Linux,
/// `tcp_timewait_state_process`).
#[derive(Default)]
struct Backend {
    time_wait: HashMap<Endpoint, u32>,
    /// SYNs that it took for old ones.
    stale: u32,
}

impl Backend {
    fn receive(&mut self, frame: &MemFrame) {
        let (flow, sums_ok) = inspect(frame);
        assert!(sums_ok);
        let (seq, flags) = tcp(frame);
        let key = flow.source();
        let Some(next) = self.time_wait.get(&key).copied() else { return };
        if flags.contains(RST) && seq == next {
            self.time_wait.remove(&key);
        } else if flags == SYN {
            match (seq.wrapping_sub(next) as i32) > 0 {
                true => drop(self.time_wait.remove(&key)),
                false => self.stale += 1,
            }
        }
    }
}

struct Site {
    h: Harness,
    clients: u32,
    backend: Backend,
    resets: Vec<FlowKey>,
    random: Random,
}

impl Site {
    fn new(conns: u32) -> Self {
        let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
        let snapshot = snapshot(1, vec![service]);
        Site::of(snapshot, conns)
    }

    fn of(snapshot: Snapshot, conns: u32) -> Self {
        Site {
            h: Harness::worker(&snapshot, conns, WorkerId(0), 8),
            clients: 0,
            backend: Backend::default(),
            resets: Vec::new(),
            random: Random::from_env(),
        }
    }

    fn send(&mut self, port: InterfaceId, packet: Vec<u8>) -> Vec<MemFrame> {
        let out = self.h.receive_meta(Meta::received(port, true), [packet]);
        let frames: Vec<_> = out.transmitted.into_iter().map(|(_, frame)| frame).collect();
        if port == CLIENT_PORT {
            frames.iter().for_each(|frame| self.backend.receive(frame));
        }
        frames
    }

    /// A client's SYN; its flow as it arrives at the backend, and its first sequence number. A RST
    /// that goes ahead of it is noted.
    fn open(&mut self, client: &FlowKey) -> Option<(FlowKey, u32)> {
        let isn = self.random.next_u64() as u32;
        let mut frames = self.send(CLIENT_PORT, segment(PORT_MACS[0], client, SYN, (isn, 0), &[]));
        let syn = frames.pop()?;
        let (flow, _) = inspect(&syn);
        assert_eq!(tcp(&syn), (isn, SYN));
        if let Some(reset) = frames.pop() {
            assert_eq!(inspect(&reset).0, flow, "to the same place from the same port");
            assert_eq!(reset.bytes()[..14], syn.bytes()[..14], "on the same way");
            assert_eq!((reset.bytes().len(), tcp(&reset).1), (60, RST));
            self.resets.push(flow);
        }
        assert!(frames.is_empty());
        Some((flow, isn))
    }

    fn client(&mut self) -> FlowKey {
        self.clients += 1;
        flow(Protocol::Tcp, (Ipv4Addr::from_bits(0x6440_0000 + self.clients), 999), (VIP, 80))
    }

    /// A whole connection of a new client; its flow as it arrives at the backend.
    fn connection(&mut self, first: First) -> Option<FlowKey> {
        let client = self.client();
        let (flow, isn) = self.open(&client)?;
        self.play(&client, &flow, isn, first);
        Some(flow)
    }

    /// What follows a SYN, to the end.
    fn play(&mut self, client: &FlowKey, flow: &FlowKey, isn: u32, first: First) {
        let from_client = |flags, numbers| segment(PORT_MACS[0], client, flags, numbers, &[]);
        let from_backend = |flags, numbers| segment(PORT_MACS[1], &back(flow), flags, numbers, &[]);
        let (seq, start) = (isn.wrapping_add(1), self.random.next_u64() as u32);
        let ack = start.wrapping_add(1);
        let (seq_end, ack_end) = (seq.wrapping_add(1), ack.wrapping_add(1));
        let mut packets = vec![
            (BACKEND_PORT, from_backend(SYN_ACK, (start, seq))),
            (CLIENT_PORT, from_client(ACK, (seq, ack))),
        ];
        packets.extend(match first {
            First::Backend => [
                (BACKEND_PORT, from_backend(FIN_ACK, (ack, seq))),
                (CLIENT_PORT, from_client(FIN_ACK, (seq, ack_end))),
                (BACKEND_PORT, from_backend(ACK, (ack_end, seq_end))),
            ],
            First::Client => [
                (CLIENT_PORT, from_client(FIN_ACK, (seq, ack))),
                (BACKEND_PORT, from_backend(FIN_ACK, (ack, seq_end))),
                (CLIENT_PORT, from_client(ACK, (seq_end, ack_end))),
            ],
        });
        for (port, packet) in packets {
            assert_eq!(self.send(port, packet).len(), 1, "{:?}", self.h.all_drops());
        }
        if first == First::Backend {
            self.backend.time_wait.insert(flow.source(), seq_end);
        }
    }

    fn state(&self, client: &FlowKey) -> ConnState {
        let conns = self.h.pipeline.conns();
        conns.get(conns.find_key(client)).state()
    }

    /// Conns of backend and service, and those that rest.
    fn counted(&self) -> (u64, u64, u64) {
        let slot = self.h.slots.all_backends().next().unwrap().1;
        let c = &self.h.counters;
        (c.backend(slot).conns.get(), c.service(ServiceSlot(0)).conns.get(), c.resting.get())
    }
}

#[test]
fn ports_rest_while_others_are_free_and_then_the_longest_resting_is_used_again() {
    let mut site = Site::new(20_000);
    let first: Vec<_> = (0..PORTS).map(|_| site.connection(First::Backend).unwrap()).collect();
    assert_eq!(site.resets, []);
    assert_eq!(site.backend.time_wait.len() as u32, PORTS, "each port once");
    let again: Vec<_> = (0..2 * PORTS).map(|_| site.connection(First::Backend).unwrap()).collect();
    assert_eq!((&again[..PORTS as usize], &again[PORTS as usize..]), (&first[..], &first[..]));
    assert_eq!(site.resets, again, "a RST goes ahead of each");
    assert_eq!(site.backend.stale, 0, "the backend takes no SYN for an old one");
    assert_eq!(site.h.drops(DropReason::LocalPortsExhausted), 0);
    assert_eq!(site.counted(), (0, 0, u64::from(PORTS)));
}

#[test]
fn a_port_has_rested_after_time_wait() {
    let mut site = Site::new(20_000);
    (0..PORTS).for_each(|_| assert!(site.connection(First::Backend).is_some()));
    site.h.pass(60_000 + SLOT_MS);
    assert_eq!((site.h.pipeline.conns().len(), site.counted()), (0, (0, 0, 0)));
    site.backend.time_wait.clear();
    (0..PORTS).for_each(|_| assert!(site.connection(First::Backend).is_some()));
    assert_eq!((site.resets.len(), site.backend.stale), (0, 0));
}

#[test]
fn where_the_client_closes_first_the_port_is_free_after_ten_seconds() {
    let mut site = Site::new(20_000);
    (0..PORTS).for_each(|_| assert!(site.connection(First::Client).is_some()));
    assert_eq!(site.connection(First::Client), None, "all are in use");
    assert_eq!(site.h.drops(DropReason::LocalPortsExhausted), 1);
    site.h.pass(10_000 + SLOT_MS);
    assert!(site.connection(First::Client).is_some());
    assert_eq!(site.resets, []);
}

#[test]
fn resting_conns_keep_no_new_one_out() {
    let mut site = Site::new(1_024);
    for nth in 0..5_000 {
        assert!(site.connection(First::Backend).is_some(), "{nth}: {:?}", site.h.all_drops());
    }
    let (backend, service, resting) = site.counted();
    // As many as find room; those that count for limits are over.
    assert!((backend, service) == (0, 0) && resting >= 900, "{resting} rest");
    assert_eq!(site.h.all_drops(), []);
}

#[test]
fn a_client_that_comes_again_by_the_same_port_has_the_backends_word() {
    let mut site = Site::new(2_000);
    let client = site.client();
    let (flow, isn) = site.open(&client).unwrap();
    site.play(&client, &flow, isn, First::Backend);
    assert_eq!((site.state(&client), site.counted()), (ConnState::Resting, (0, 0, 1)));

    // What is sent once more changes nothing, nor does a SYN alone.
    let (again, isn) = site.open(&client).unwrap();
    assert_eq!((again, site.state(&client)), (flow, ConnState::Resting));
    site.play(&client, &flow, isn, First::Client);
    assert_eq!((site.state(&client), site.counted()), (ConnState::TimeWait, (1, 1, 0)));
    site.h.pass(10_000 + SLOT_MS);
    assert_eq!((site.h.pipeline.conns().len(), site.counted()), (0, (0, 0, 0)));
}

/// What a resting conn's client asks for anew is planned like any other, when the backend takes no
/// more: the table's memory of it is no way around a drain, a weight or a limit.
#[test]
fn a_client_that_comes_again_is_held_to_what_the_backend_takes() {
    let cases: [fn(&mut sluice_api::SnapshotService, usize); 3] = [
        |service, at| service.backends[at].state = AdminState::Drain,
        |service, at| service.backends[at].weight = 0,
        |service, at| service.backends[at].healthy = false,
    ];
    for (nth, change) in cases.into_iter().enumerate() {
        let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 2);
        let mut site = Site::of(snapshot(1, vec![service.clone()]), 2_000);
        let client = site.client();
        let (flow, isn) = site.open(&client).unwrap();
        site.play(&client, &flow, isn, First::Backend);
        assert_eq!(site.state(&client), ConnState::Resting);
        let at = service
            .backends
            .iter()
            .position(|b| b.address == Ipv4Addr::from_bits(flow.dst))
            .unwrap();
        change(&mut service, at);
        site.h.apply(&snapshot(2, vec![service]));
        let (again, _) = site.open(&client).unwrap();
        assert_ne!(again.dst, flow.dst, "case {nth}: another backend");
        assert_eq!(site.h.pipeline.conns().len(), 1);
    }
}

#[test]
fn the_reset_goes_by_what_a_resting_backend_has_acknowledged() {
    let mut site = Site::new(20_000);
    let client = site.client();
    let (flow, isn) = site.open(&client).unwrap();
    site.play(&client, &flow, isn, First::Backend);
    // It acknowledges once more, 100 bytes further, as Linux does for data that it still had to read;
    // and a number far away is no word of it.
    let next = site.backend.time_wait[&flow.source()].wrapping_add(100);
    for ack in [next, next.wrapping_add(1 << 24)] {
        let bytes = segment(PORT_MACS[1], &back(&flow), ACK, (7, ack), &[]);
        assert_eq!(site.send(BACKEND_PORT, bytes).len(), 1);
    }
    site.backend.time_wait.insert(flow.source(), next);
    (1..PORTS).for_each(|_| assert!(site.connection(First::Backend).is_some()));
    // Its port is the next to be used again: the RST is right, so that the SYN is not stale.
    assert_eq!(site.connection(First::Backend), Some(flow));
    assert_eq!((site.resets, site.backend.stale), (vec![flow], 0));
}

#[test]
fn forged_ends_do_not_shorten_a_rest() {
    let mut site = Site::new(2_000);
    let flow = site.connection(First::Backend).unwrap();
    let client = flow_of_client(site.clients);
    for numbers in [(1, 1), (0, 0), (0x7777_7777, 5)] {
        for flags in [RST, FIN_ACK, ACK, SYN_ACK] {
            site.send(CLIENT_PORT, segment(PORT_MACS[0], &client, flags, numbers, &[]));
            site.send(BACKEND_PORT, segment(PORT_MACS[1], &back(&flow), flags, numbers, &[]));
            assert_eq!(site.state(&client), ConnState::Resting, "{flags}");
        }
    }
}

fn flow_of_client(number: u32) -> FlowKey {
    flow(Protocol::Tcp, (Ipv4Addr::from_bits(0x6440_0000 + number), 999), (VIP, 80))
}
