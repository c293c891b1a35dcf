//! The stages together, on real packet bytes.

mod evidence;

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::{AdminState, DropReason, Mode, Protocol, Refusal, Scheduler, Snapshot};
use sluice_wire::arp;
use sluice_wire::ether::MacAddr;
use sluice_wire::tcp::TcpFlags;

use crate::burst::Meta;
use crate::flow::FlowKey;
use crate::frame::{Frame, MemFrame};
use crate::ids::{InterfaceId, L4Port, WorkerId};
use crate::next_hop::{NeighbourState, NeighbourUpdate, NextHop, Purpose};
use crate::pipeline::{HELD_PER_NEIGHBOUR, ToMain};
use crate::resolver::{Action, Resolver};
use crate::table::local_port::OwnPorts;
use crate::table::route::{Route, RouteTable};
use crate::testkit::{self, *};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(0x12);
const FIN_ACK: TcpFlags = TcpFlags(0x11);
const RST: TcpFlags = TcpFlags::RST;

fn web(mode: Mode, backends: u16) -> Harness {
    let service = testkit::service("web", 80, Protocol::Tcp, mode, backends);
    Harness::new(&snapshot(1, vec![service]), 1_000)
}

fn client(port: u16) -> FlowKey {
    flow(Protocol::Tcp, (Ipv4Addr::new(198, 51, 100, 7), port), (VIP, 80))
}

fn back(forward: &FlowKey) -> FlowKey {
    FlowKey {
        src: forward.dst,
        dst: forward.src,
        src_port: forward.dst_port,
        dst_port: forward.src_port,
        ..*forward
    }
}

/// A next hop behind an interface.
fn at(interface: InterfaceId, address: Ipv4Addr) -> NextHop {
    NextHop { interface, address: address.to_bits() }
}

/// Send one packet of a client; the one packet that leaves, with its port.
fn one(
    harness: &mut Harness,
    port: InterfaceId,
    key: &FlowKey,
    flags: TcpFlags,
) -> (InterfaceId, MemFrame) {
    let bytes = packet(PORT_MACS[port.index()], key, flags, b"data");
    let mut out = harness.receive(port, [bytes]);
    assert_eq!(out.transmitted.len(), 1, "{:?}", harness.all_drops());
    out.transmitted.remove(0)
}

#[test]
fn full_nat_rewrites_both_ways_with_right_checksums() {
    let mut h = web(Mode::FullNat, 1);
    let (port, frame) = one(&mut h, CLIENT_PORT, &client(5_000), SYN);
    let (to_backend, sums_ok) = inspect(&frame);
    assert_eq!(port, BACKEND_PORT);
    assert!(sums_ok);
    assert_eq!(Ipv4Addr::from_bits(to_backend.src), LOCAL);
    assert_eq!(Ipv4Addr::from_bits(to_backend.dst), Ipv4Addr::new(10, 0, 1, 1));
    assert_eq!(to_backend.dst_port, L4Port(80));
    assert_eq!(frame.bytes()[..6], mac_of(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, 1)).0);
    assert_eq!(frame.bytes()[6..12], PORT_MACS[1].0);
    assert_eq!(frame.bytes()[22], 63, "TTL is one less");

    let (port, frame) = one(&mut h, BACKEND_PORT, &back(&to_backend), SYN_ACK);
    assert_eq!(frame.bytes()[..6], mac_of(CLIENT_PORT, GATEWAY).0);
    let (to_client, sums_ok) = inspect(&frame);
    assert_eq!((port, to_client, sums_ok), (CLIENT_PORT, back(&client(5_000)), true));

    // And again over the established path.
    let (_, frame) = one(&mut h, CLIENT_PORT, &client(5_000), ACK);
    assert_eq!(inspect(&frame), (to_backend, true));
    let traffic = h.counters.backend(h.slots.all_backends().next().unwrap().1).read();
    assert_eq!((traffic.packets_in, traffic.packets_out, traffic.conns), (2, 1, 1));
    assert_eq!(traffic.bytes_in, 2 * 44);
}

#[test]
fn dr_changes_nothing_but_macs_and_ttl() {
    let mut h = web(Mode::Dr, 1);
    let sent = packet(PORT_MACS[0], &client(5_000), SYN, b"data");
    let mut out = h.receive(CLIENT_PORT, [sent.clone()]);
    let (port, frame) = out.transmitted.remove(0);
    assert_eq!(port, BACKEND_PORT);
    assert_eq!(inspect(&frame), (client(5_000), true));
    let mut expected = sent;
    expected[..12].copy_from_slice(&frame.bytes()[..12]);
    expected[22] = 63;
    expected[24..26].copy_from_slice(&frame.bytes()[24..26]);
    assert_eq!(frame.bytes(), expected);
    one(&mut h, CLIENT_PORT, &client(5_000), ACK);
    assert_eq!(h.pipeline.conns().len(), 1);
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let service = testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 1);
    let mut h = Harness::new(&snapshot(1, vec![service]), 100);
    let key = flow(Protocol::Udp, (Ipv4Addr::new(198, 51, 100, 7), 999), (VIP, 53));
    let mut bytes = packet(PORT_MACS[0], &key, TcpFlags::NONE, b"query");
    bytes[40..42].fill(0);
    let out = h.receive(CLIENT_PORT, [bytes]);
    assert_eq!(out.transmitted[0].1.bytes()[40..42], [0, 0]);
    let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &key, TcpFlags::NONE, b"query")]);
    assert!(inspect(&out.transmitted[0].1).1);
    assert_ne!(out.transmitted[0].1.bytes()[40..42], [0, 0]);
}

#[test]
fn two_packets_of_a_new_flow_in_one_burst_make_one_conn() {
    let service = testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 3);
    let mut h = Harness::new(&snapshot(1, vec![service]), 100);
    let key = flow(Protocol::Udp, (Ipv4Addr::new(198, 51, 100, 7), 999), (VIP, 53));
    let bytes = packet(PORT_MACS[0], &key, TcpFlags::NONE, b"query");
    let out = h.receive(CLIENT_PORT, vec![bytes; 20]);
    let flows: Vec<_> = out.transmitted.iter().map(|(_, f)| inspect(f).0).collect();
    assert_eq!(flows.len(), 20);
    assert!(flows.iter().all(|f| *f == flows[0]));
    assert_eq!(h.pipeline.conns().len(), 1);
}

#[test]
fn a_burst_of_new_flows_each_twice_is_shared_out_and_accounted_for() {
    for scheduler in [Scheduler::Maglev, Scheduler::Wrr, Scheduler::Wlc, Scheduler::SourceHash] {
        let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 4);
        service.scheduler = scheduler;
        let mut h = Harness::new(&snapshot(1, vec![service]), 1_000);
        let syns = (0..32).map(|i| packet(PORT_MACS[0], &client(5_000 + i / 2), SYN, b""));
        // The first packet is held for its next hop, which is known from then on.
        one(&mut h, CLIENT_PORT, &client(4_999), SYN);
        h.pass(60_000);
        let out = h.receive(CLIENT_PORT, syns);
        assert_eq!(out.transmitted.len(), 32, "{scheduler:?} {:?}", h.all_drops());
        let conns = |h: &Harness| -> Vec<u64> {
            h.counters.backends().iter().map(|b| b.read().conns).filter(|n| *n > 0).collect()
        };
        assert_eq!(conns(&h).iter().sum::<u64>(), 16, "{scheduler:?}");
        if scheduler == Scheduler::Wlc {
            assert_eq!(conns(&h), [4; 4], "a conn that is planned counts for the next plan");
        }
        for pair in out.transmitted.chunks(2) {
            assert_eq!(inspect(&pair[0].1), inspect(&pair[1].1), "both took the same way");
        }
        h.pass(60_000);
        assert_eq!((conns(&h), h.pipeline.conns().len()), (vec![], 0));
    }
}

#[test]
fn wrr_shares_follow_the_weights_exactly() {
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 3);
    for (backend, weight) in service.backends.iter_mut().zip([1, 2, 3]) {
        backend.weight = weight;
    }
    let mut h = Harness::new(&snapshot(1, vec![service]), 1_000);
    let syns = (1..=600).map(|p| packet(PORT_MACS[0], &client(p), SYN, &[]));
    let out = h.receive(CLIENT_PORT, syns);
    let mut shares = [0; 3];
    for (_, frame) in &out.transmitted {
        shares[(inspect(frame).0.dst & 3) as usize - 1] += 1;
    }
    assert_eq!(shares, [100, 200, 300]);
}

#[test]
fn every_scheduler_keeps_conns_where_they_are_whatever_happens_to_weights() {
    for scheduler in [Scheduler::Maglev, Scheduler::Wrr, Scheduler::Wlc, Scheduler::SourceHash] {
        let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 4);
        service.scheduler = scheduler;
        let mut h = Harness::new(&snapshot(1, vec![service.clone()]), 1_000);
        let before: Vec<_> =
            (1..100).map(|p| inspect(&one(&mut h, CLIENT_PORT, &client(p), SYN).1).0).collect();
        // One is drained, one unhealthy, one has weight 0, one is gone.
        service.backends.remove(0);
        service.backends[0].state = AdminState::Drain;
        service.backends[1].healthy = false;
        service.backends[2].weight = 0;
        h.apply(&snapshot(2, vec![service.clone()]));
        for (p, key) in (1..100).zip(&before) {
            let (_, frame) = one(&mut h, CLIENT_PORT, &client(p), ACK);
            assert_eq!(inspect(&frame).0, *key, "{scheduler}");
        }
        let syn = packet(PORT_MACS[0], &client(9_999), SYN, &[]);
        let refused = h.receive(CLIENT_PORT, [syn]).transmitted;
        assert!(refused.iter().all(|(port, _)| *port == CLIENT_PORT), "nothing but an answer");
        assert_eq!(h.drops(DropReason::NoBackend), 1, "{scheduler}");
    }
}

#[test]
fn a_conn_closes_by_fin_and_by_rst_and_its_timeouts_follow_its_state() {
    let mut h = web(Mode::FullNat, 1);
    let (_, frame) = one(&mut h, CLIENT_PORT, &client(1), SYN);
    let to_backend = inspect(&frame).0;
    one(&mut h, BACKEND_PORT, &back(&to_backend), SYN_ACK);
    one(&mut h, CLIENT_PORT, &client(1), ACK);
    h.pass(800_000);
    assert_eq!(h.pipeline.conns().len(), 1, "established lasts 900 s");
    one(&mut h, CLIENT_PORT, &client(1), FIN_ACK);
    one(&mut h, BACKEND_PORT, &back(&to_backend), FIN_ACK);
    one(&mut h, CLIENT_PORT, &client(1), ACK);
    h.pass(9_900);
    assert_eq!(h.pipeline.conns().len(), 1, "time-wait lasts 10 s");
    h.pass(200);
    assert_eq!(h.pipeline.conns().len(), 0, "and a wheel slot at most");

    one(&mut h, CLIENT_PORT, &client(2), SYN);
    one(&mut h, CLIENT_PORT, &client(2), RST);
    h.pass(2_100);
    assert_eq!(h.pipeline.conns().len(), 0, "a reset conn lasts 2 s");
    let slot = h.slots.all_backends().next().unwrap().1;
    let traffic = h.counters.backend(slot).read();
    assert_eq!((traffic.conns, traffic.conns_created), (0, 2));
}

#[test]
fn a_new_syn_on_a_closing_conn_makes_a_new_conn() {
    let mut h = web(Mode::FullNat, 2);
    let (_, first) = one(&mut h, CLIENT_PORT, &client(1), SYN);
    one(&mut h, CLIENT_PORT, &client(1), RST);
    let first = inspect(&first).0;
    // A late copy of the SYN is not a new one.
    let (_, copy) = one(&mut h, CLIENT_PORT, &client(1), SYN);
    assert_eq!(inspect(&copy).0, first);
    // A new one is planned anew when the RST was its end's: nothing came for a second.
    h.pass(900);
    let syn = segment(PORT_MACS[0], &client(1), SYN, (0x5eed_0000, 0), &[]);
    let second = inspect(&h.receive(CLIENT_PORT, [syn.clone()]).transmitted[0].1).0;
    assert_ne!((first.dst, first.src_port), (second.dst, second.src_port));
    assert_eq!(h.pipeline.conns().len(), 1);
    let third = inspect(&h.receive(CLIENT_PORT, [syn]).transmitted[0].1).0;
    assert_eq!(third, second, "nor is one that is sent again");
}

#[test]
fn a_syn_to_a_backend_that_died_before_answering_goes_elsewhere() {
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 2);
    let mut h = Harness::new(&snapshot(1, vec![service.clone()]), 100);
    let (_, frame) = one(&mut h, CLIENT_PORT, &client(1), SYN);
    let dead = inspect(&frame).0.dst;
    let index = usize::from(dead & 0xff == 2);
    service.backends[index].healthy = false;
    h.apply(&snapshot(2, vec![service]));
    let (_, frame) = one(&mut h, CLIENT_PORT, &client(1), SYN);
    assert_ne!(inspect(&frame).0.dst, dead);
}

#[test]
fn a_udp_flow_leaves_a_backend_that_is_gone_but_not_one_that_drains() {
    let mut service = testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 2);
    let mut h = Harness::new(&snapshot(1, vec![service.clone()]), 100);
    let key = flow(Protocol::Udp, (Ipv4Addr::new(198, 51, 100, 7), 999), (VIP, 53));
    let backend_of = |h: &mut Harness| {
        let (_, frame) = one(h, CLIENT_PORT, &key, TcpFlags::NONE);
        inspect(&frame).0.dst
    };
    let first = backend_of(&mut h);
    let index = usize::from(first & 0xff == 2);
    service.backends[index].state = AdminState::Drain;
    h.apply(&snapshot(2, vec![service.clone()]));
    assert_eq!(backend_of(&mut h), first, "a drained backend keeps its flows");

    service.backends[index].state = AdminState::Up;
    service.backends[index].healthy = false;
    h.apply(&snapshot(3, vec![service.clone()]));
    let second = backend_of(&mut h);
    assert_ne!(second, first, "a dead one does not");
    assert_eq!(h.pipeline.conns().len(), 1);

    service.backends.remove(1 - index);
    service.backends[0].healthy = true;
    h.apply(&snapshot(4, vec![service]));
    assert_eq!(backend_of(&mut h), first, "nor does a removed one");
    assert_eq!(h.pipeline.conns().len(), 1);
}

#[test]
fn a_full_table_refuses_new_conns_and_keeps_old_ones() {
    let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    let mut h = Harness::new(&snapshot(1, vec![service]), 1_024);
    let syns = (1..=2_000).map(|p| packet(PORT_MACS[0], &client(p), SYN, &[]));
    assert_eq!(h.receive(CLIENT_PORT, syns).transmitted.len(), 1_024);
    assert_eq!(h.drops(DropReason::ConnTableFull), 976);
    for p in 1..=1_024 {
        one(&mut h, CLIENT_PORT, &client(p), ACK);
    }
    h.pass(2_000_000);
    assert!(h.pipeline.conns().is_empty());
    one(&mut h, CLIENT_PORT, &client(3_000), SYN);
}

#[test]
fn one_clients_conns_to_one_backend_use_every_local_port_then_are_refused() {
    let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    let mut h = Harness::new(&snapshot(1, vec![service]), 100_000);
    let syns = (1..=65_535).map(|p| packet(PORT_MACS[0], &client(p), SYN, &[]));
    let out = h.receive(CLIENT_PORT, syns);
    let ports: std::collections::HashSet<L4Port> =
        out.transmitted.iter().map(|(_, f)| inspect(f).0.src_port).collect();
    let all = <OwnPorts>::by_modulo(WorkerId(0), 1).capacity(1);
    assert_eq!((ports.len() as u32, out.transmitted.len() as u32), (all, all));
    assert_eq!(h.drops(DropReason::LocalPortsExhausted), u64::from(65_535 - all));
    one(&mut h, CLIENT_PORT, &client(1), ACK);
}

#[test]
fn packets_wait_for_a_next_hop_within_bounds_and_leave_in_order() {
    let mut h = web(Mode::FullNat, 1);
    h.resolves = false;
    let count = HELD_PER_NEIGHBOUR as u16 + 4;
    let syns = (1..=count).map(|p| packet(PORT_MACS[0], &client(p), SYN, &[]));
    assert!(h.receive(CLIENT_PORT, syns).transmitted.is_empty());
    assert_eq!(h.drops(DropReason::NeighbourPending), 4);
    let backend = Ipv4Addr::new(10, 0, 1, 1);
    let purpose = Purpose::Site;
    let want = ToMain::Want { hop: at(BACKEND_PORT, backend), purpose };
    assert_eq!(h.messages, [want]);

    let mut out = Out::default();
    let update = is_reachable(BACKEND_PORT, backend);
    h.update_neighbour(&update, &mut out);
    assert_eq!(out.transmitted.len(), HELD_PER_NEIGHBOUR);
    let mac = mac_of(BACKEND_PORT, backend).0;
    assert!(out.transmitted.iter().all(|(p, f)| *p == BACKEND_PORT && f.bytes()[..6] == mac));

    // It dies: packets are dropped under their own reason, and go again when it is back.
    let failed = NeighbourUpdate { state: NeighbourState::Failed, ..update };
    h.update_neighbour(&failed, &mut out);
    let ack = || packet(PORT_MACS[0], &client(1), ACK, &[]);
    assert!(h.receive(CLIENT_PORT, [ack()]).transmitted.is_empty());
    assert_eq!(h.drops(DropReason::NeighbourUnreachable), 1);
    h.update_neighbour(&update, &mut out);
    assert_eq!(h.receive(CLIENT_PORT, [ack()]).transmitted.len(), 1);
}

/// The main thread's news of a backend's next hop.
fn news_of(h: &mut Harness, backend: u8, state: NeighbourState) {
    let hop = at(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, backend));
    let update = NeighbourUpdate { hop, state };
    h.update_neighbour(&update, &mut Out::default());
}

/// Every packet leaves for the MAC address of its own backend, however the next hop of the first
/// slot fares.
#[test]
fn a_next_hop_that_fails_concerns_no_other() {
    for state in [NeighbourState::Failed, NeighbourState::Removed] {
        for mode in [Mode::FullNat, Mode::Dr] {
            let mut h = web(mode, 3);
            let mac = |n| mac_of(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, n)).0;
            // The first conn is the first backend's, which has the first slot from then on.
            let (_, frame) = one(&mut h, CLIENT_PORT, &client(1), SYN);
            assert_eq!(frame.bytes()[..6], mac(1));
            h.resolves = false;
            news_of(&mut h, 1, state);
            let syns = (2..=61).map(|p| packet(PORT_MACS[0], &client(p), SYN, &[]));
            assert!(h.receive(CLIENT_PORT, syns).transmitted.is_empty(), "{state:?} {mode}");
            let wants: Vec<u32> = h
                .messages
                .iter()
                .filter_map(|message| match message {
                    ToMain::Want { hop, .. } => Some(hop.address & 0xff),
                    _ => None,
                })
                .collect();
            assert!(wants.contains(&2) && wants.contains(&3), "all are asked for: {wants:?}");
            // The two others answer: what waited for each leaves to it, and new conns work.
            let mut out = Out::default();
            for n in [2, 3] {
                let update = is_reachable(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, n));
                h.update_neighbour(&update, &mut out);
            }
            let syns = (62..=121).map(|p| packet(PORT_MACS[0], &client(p), SYN, &[]));
            let more = h.receive(CLIENT_PORT, syns);
            let left: Vec<[u8; 6]> = (out.transmitted.iter().chain(&more.transmitted))
                .map(|(_, f)| *f.bytes().first_chunk().unwrap())
                .collect();
            let to = |n| left.iter().filter(|macs| **macs == mac(n)).count();
            assert_eq!((left.len(), to(2), to(3)), (80, 40, 40), "{state:?} {mode}");
        }
    }
}

/// The times of a slot that was given up long ago look like ones to come.
#[test]
fn conns_work_25_days_after_the_first_slot_was_given_up() {
    for days in [1, 24, 25, 40, 50] {
        let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 2);
        let mut h = Harness::new(&snapshot(1, vec![service.clone()]), 1_000);
        let (_, frame) = one(&mut h, CLIENT_PORT, &client(1), SYN);
        assert_eq!(frame.bytes()[..6], mac_of(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, 1)).0);
        service.backends[0].healthy = false;
        h.apply(&snapshot(2, vec![service]));
        news_of(&mut h, 1, NeighbourState::Removed);
        (0..days).for_each(|_| h.pass(86_400_000));
        let (_, frame) = one(&mut h, CLIENT_PORT, &client(2), SYN);
        assert_eq!(frame.bytes()[..6], mac_of(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, 2)).0);
        let to_backend = inspect(&frame).0;
        let (_, frame) = one(&mut h, BACKEND_PORT, &back(&to_backend), SYN_ACK);
        assert_eq!(frame.bytes()[..6], mac_of(CLIENT_PORT, GATEWAY).0, "{days} days");
    }
}

fn real_mac(address: u32) -> MacAddr {
    mac_of(BACKEND_PORT, Ipv4Addr::from_bits(address))
}

fn is_backend(address: u32) -> bool {
    (0x0a00_0101..=0x0a00_011e).contains(&address)
}

fn is_client(address: u32) -> bool {
    (0x0a00_c800..0x0a00_c864).contains(&address)
}

/// 5,000 SYNs a second of sources that are nobody, in a connected network: a real client's next hop is
/// known by the time the backend answers, and so is that of a backend that gets its first conn.
#[test]
fn spoofed_neighbours_hide_no_client_and_no_backend() {
    let services = [1, 30].map(|backends| {
        let port = 80 + backends;
        testkit::service(&format!("web-{port}"), port, Protocol::Tcp, Mode::FullNat, backends)
    });
    let mut h = Harness::new(&snapshot(1, services.into()), 100_000);
    h.resolves = false;
    let mut resolver = Resolver::new(1_024);
    let mut random = Random::from_env();
    // Clients are in the backends' network, which is large enough.
    let syn = |from: u32, mac: MacAddr, port: u16| {
        let key = flow(Protocol::Tcp, (Ipv4Addr::from_bits(from), 5_000), (VIP, port));
        let mut bytes = packet(PORT_MACS[1], &key, SYN, &[]);
        bytes[6..12].copy_from_slice(&mac.0);
        bytes
    };
    let (mut answers, mut came, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    for ms in 0..4_000u32 {
        let mut frames: Vec<Vec<u8>> = std::mem::take(&mut answers);
        for _ in 0..5 {
            let nobody = 0x0a00_4000 | random.below(0x4000) as u32;
            frames.push(syn(nobody, PEER_MAC, 81));
        }
        // 30 clients, and with each a backend that was not seen before.
        if ms >= 1_000 && ms % 100 == 0 {
            let client = 0x0a00_c800 + ms / 100;
            frames.push(syn(client, real_mac(client), 110));
            came.push((client, h.now));
        }
        let mut out = h.receive(BACKEND_PORT, frames);
        for message in std::mem::take(&mut h.messages) {
            if let ToMain::Want { hop, purpose } = message {
                resolver.want(u64::from(h.now), hop, purpose);
            }
        }
        resolver.tick(u64::from(h.now));
        let mut actions: Vec<Action> = resolver.take_actions().collect();
        // Whoever is somebody answers within the same ms.
        for action in actions.clone() {
            if let Action::Request { target, unicast_to } = action
                && (is_backend(target.address) || is_client(target.address))
                && unicast_to.is_none_or(|mac| mac == real_mac(target.address))
            {
                resolver.seen(u64::from(h.now), target, real_mac(target.address), true, true);
            }
        }
        actions.extend(resolver.take_actions());
        for action in actions {
            if let Action::Publish(update) = action {
                h.pipeline.update_neighbour(&update, &h.compiled, h.now, &mut out);
            }
        }
        for (_, frame) in &out.transmitted {
            let key = inspect(frame).0;
            assert_eq!(frame.bytes()[..6], real_mac(key.dst).0, "{:x}", key.dst);
            if is_backend(key.dst) {
                answers.push(packet(PORT_MACS[1], &back(&key), SYN_ACK, &[]));
            } else {
                answered.push((key.dst, h.now));
            }
        }
        h.pass(1);
    }
    assert_eq!((came.len(), answered.len()), (30, 30), "{:?}", h.all_drops());
    for ((client, at), (same, answered_at)) in came.into_iter().zip(answered) {
        assert!(client == same && answered_at - at <= 2, "{client:x}: {} ms", answered_at - at);
    }
    let wants = h.counters.neighbours.get();
    assert!(wants <= 1_024, "{wants}");
}

#[test]
fn a_moved_mac_address_is_used_at_once() {
    let mut h = web(Mode::FullNat, 1);
    one(&mut h, CLIENT_PORT, &client(1), SYN);
    let moved = MacAddr([2, 0, 0, 0, 9, 9]);
    let hop = at(BACKEND_PORT, Ipv4Addr::new(10, 0, 1, 1));
    let update = NeighbourUpdate { hop, state: NeighbourState::Reachable(moved) };
    h.update_neighbour(&update, &mut Out::default());
    let (_, frame) = one(&mut h, CLIENT_PORT, &client(1), ACK);
    assert_eq!(frame.bytes()[..6], moved.0);
}

#[test]
fn arp_is_answered_for_vips_local_addresses_and_own_addresses_only() {
    let mut h = web(Mode::FullNat, 1);
    let sender = Ipv4Addr::new(192, 0, 2, 9);
    let ask = |target| arp::build_request(PEER_MAC, sender, target).to_vec();
    for target in [VIP, LOCAL, Ipv4Addr::new(192, 0, 2, 1)] {
        let out = h.receive(CLIENT_PORT, [ask(target)]);
        let reply = arp::parse(&out.transmitted[0].1.bytes()[14..]).unwrap();
        assert_eq!((reply.op(), reply.sender_mac), (arp::OP_REPLY, PORT_MACS[0]));
        assert_eq!((reply.sender_ip(), reply.target_ip()), (target, sender));
    }
    // The other port's address is not answered for here, nor anybody else's.
    let others = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(192, 0, 2, 77)];
    let out = h.receive(CLIENT_PORT, others.map(ask));
    assert!(out.transmitted.is_empty());
    assert_eq!(h.drops(DropReason::ArpNotForUs), 2);

    // A reply to us goes on to the kernel, which may have asked; the main thread hears of it.
    let own = Ipv4Addr::new(192, 0, 2, 1);
    let reply = arp::build_arp(arp::OP_REPLY, PEER_MAC, sender, PORT_MACS[0], own, PORT_MACS[0]);
    let out = h.receive(CLIENT_PORT, [reply.to_vec()]);
    assert_eq!(out.to_kernel.len(), 1);
    assert!(matches!(h.messages.last(), Some(ToMain::Arp { is_reply: true, for_us: true, .. })));
}

/// ARP that nobody can have sent is neither answered nor believed, whatever it asks for.
#[test]
fn arp_of_impossible_senders_is_dropped_by_name() {
    let [real, own] = [Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(192, 0, 2, 1)];
    let nobody: [Ipv4Addr; 9] = [
        [0, 0, 0, 1].into(),
        [127, 0, 0, 1].into(),
        [224, 0, 0, 1].into(),
        [240, 0, 0, 1].into(),
        [255, 255, 255, 255].into(),
        [192, 0, 2, 0].into(),
        [192, 0, 2, 255].into(),
        [10, 0, 0, 0].into(),
        [10, 0, 255, 255].into(),
    ];
    let mut cases: Vec<(DropReason, MacAddr, Ipv4Addr)> =
        nobody.map(|ip| (DropReason::ArpBadSender, PEER_MAC, ip)).into();
    cases.extend([
        (DropReason::ArpBadSender, MacAddr([3, 0, 0, 0, 0, 9]), real),
        (DropReason::ArpBadSender, MacAddr::BROADCAST, real),
        (DropReason::ArpBadSender, MacAddr::ZERO, real),
        (DropReason::OwnMac, PORT_MACS[0], real),
        // Our own announcement, sent back by a loop; the other port's in the same network.
        (DropReason::OwnMac, PORT_MACS[0], VIP),
        (DropReason::OwnMac, PORT_MACS[1], VIP),
    ]);
    for (reason, mac, sender) in cases {
        for op in [arp::OP_REQUEST, arp::OP_REPLY] {
            for target in [VIP, own, sender, real] {
                let mut h = web(Mode::FullNat, 1);
                let mut frame =
                    arp::build_arp(op, mac, sender, PORT_MACS[0], target, PORT_MACS[0]).to_vec();
                frame[6..12].copy_from_slice(&PEER_MAC.0);
                let out = h.receive(CLIENT_PORT, [frame]);
                assert_eq!(h.all_drops(), [(reason, 1)], "{mac} {sender} {op} {target}");
                assert!(out.transmitted.is_empty() && out.to_kernel.is_empty());
                assert_eq!(h.messages, []);
            }
        }
    }
    // A probe (RFC 5227, 2.1.1) has no sender's address, and is answered.
    let mut h = web(Mode::FullNat, 1);
    let probe = arp::build_request(PEER_MAC, Ipv4Addr::UNSPECIFIED, VIP);
    assert_eq!(h.receive(CLIENT_PORT, [probe.to_vec()]).transmitted.len(), 1);
}

#[test]
fn whoever_claims_an_address_of_ours_is_told_of_within_bounds() {
    let thief = MacAddr([2, 0, 0, 0, 7, 7]);
    let stranger = Ipv4Addr::new(192, 0, 2, 77);
    let claim = |op, target| arp::build_arp(op, thief, VIP, MacAddr::ZERO, target, PORT_MACS[0]);
    // Announcements, a probe's answer, and a backend's question for a gateway that is not us.
    let claims = [
        claim(arp::OP_REQUEST, VIP),
        claim(arp::OP_REPLY, VIP),
        claim(arp::OP_REPLY, Ipv4Addr::UNSPECIFIED),
        claim(arp::OP_REQUEST, stranger),
    ];
    for frame in claims {
        let mut h = web(Mode::FullNat, 1);
        h.receive(CLIENT_PORT, [frame.to_vec()]);
        assert_eq!(h.all_drops(), [(DropReason::ArpConflict, 1)]);
        let sender = VIP.to_bits();
        assert!(matches!(
            h.messages[..],
            [ToMain::Arp { conflict: true, mac, sender: s, .. }] if mac == thief && s.address == sender
        ));
    }
    let mut h = web(Mode::FullNat, 1);
    h.receive(CLIENT_PORT, (0..51_350).map(|_| claim(arp::OP_REQUEST, VIP).to_vec()));
    assert_eq!(h.drops(DropReason::ArpConflict), 51_350, "each is counted");
    assert_eq!(h.messages.len(), 2, "two are told");
    // Meanwhile others are heard.
    let own = Ipv4Addr::new(192, 0, 2, 1);
    let reply = arp::build_arp(arp::OP_REPLY, PEER_MAC, GATEWAY, PORT_MACS[0], own, PORT_MACS[0]);
    h.receive(CLIENT_PORT, [reply.to_vec()]);
    assert!(matches!(h.messages[2], ToMain::Arp { conflict: false, is_reply: true, .. }));
}

/// A packet that an address of a whole network, or our own MAC address, has sent makes no conn, is
/// not answered and does not reach the kernel.
#[test]
fn packets_of_impossible_senders_are_dropped_by_name() {
    let own = Ipv4Addr::new(192, 0, 2, 1);
    let ping = |from: Ipv4Addr, to: Ipv4Addr| {
        let (src, dst) = (from.to_bits(), to.to_bits());
        let key = FlowKey { src, dst, protocol: 1, ..FlowKey::default() };
        ip_frame(PORT_MACS[0], &key, 9, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])
    };
    let all = |from: Ipv4Addr| {
        let to = |dst, port| flow(Protocol::Tcp, (from, 5_000), (dst, port));
        [
            packet(PORT_MACS[0], &to(VIP, 80), SYN, &[]),
            packet(PORT_MACS[0], &to(VIP, 80), ACK, &[]),
            packet(PORT_MACS[0], &to(own, 22), SYN, &[]),
            ip_frame(PORT_MACS[0], &FlowKey { protocol: 47, ..to(own, 0) }, 9, &[0; 30]),
            ping(from, VIP),
        ]
    };
    let networks = [[192, 0, 2, 0], [192, 0, 2, 255], [10, 0, 0, 0], [10, 0, 255, 255]];
    let mut cases = Vec::new();
    for from in networks.map(Ipv4Addr::from) {
        cases.extend(all(from).map(|bytes| (DropReason::BroadcastSource, bytes)));
    }
    for mac in PORT_MACS {
        for mut bytes in all(Ipv4Addr::new(192, 0, 2, 9)) {
            bytes[6..12].copy_from_slice(&mac.0);
            cases.push((DropReason::OwnMac, bytes));
        }
    }
    for (index, (reason, bytes)) in cases.into_iter().enumerate() {
        let mut h = web(Mode::FullNat, 1);
        let out = h.receive(CLIENT_PORT, [bytes]);
        assert_eq!(h.all_drops(), [(reason, 1)], "case {index}");
        assert!(out.transmitted.is_empty() && out.to_kernel.is_empty(), "case {index}");
        assert!(h.pipeline.conns().is_empty());
    }
}

#[test]
fn without_an_exception_port_nothing_is_for_the_kernel() {
    let mut h = web(Mode::FullNat, 1);
    h.pipeline.shared.interfaces.all_mut().iter_mut().for_each(|i| i.has_exception = false);
    let (sender, own) = (Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(192, 0, 2, 1));
    let ssh = flow(Protocol::Tcp, (sender, 5_000), (own, 22));
    // An answer to our own question is no loss; what only the kernel could take is.
    let reply = arp::build_arp(arp::OP_REPLY, PEER_MAC, sender, PORT_MACS[0], own, PORT_MACS[0]);
    let ssh = packet(PORT_MACS[0], &ssh, TcpFlags::SYN, b"");
    let out = h.receive(CLIENT_PORT, [reply.to_vec(), ssh]);
    assert!(out.to_kernel.is_empty() && out.transmitted.is_empty());
    assert_eq!(h.all_drops(), [(DropReason::ArpConsumed, 1), (DropReason::NoExceptionPort, 1)],);
}

#[test]
fn pings_are_answered_and_other_traffic_to_own_addresses_goes_to_the_kernel() {
    let mut h = web(Mode::FullNat, 1);
    let from = Ipv4Addr::new(192, 0, 2, 9);
    let ping = |to: Ipv4Addr| {
        let key =
            FlowKey { src: from.to_bits(), dst: to.to_bits(), protocol: 1, ..FlowKey::default() };
        let mut message = vec![8, 0, 0, 0, 0, 1, 0, 1, b'h', b'i'];
        let sum = sluice_wire::checksum::compute(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        ip_frame(PORT_MACS[0], &key, 3, &message)
    };
    for to in [VIP, Ipv4Addr::new(192, 0, 2, 1)] {
        let out = h.receive(CLIENT_PORT, [ping(to)]);
        let bytes = out.transmitted[0].1.bytes();
        assert_eq!((bytes[34], bytes[22]), (0, 64), "an echo reply with a fresh TTL");
        let (key, sums_ok) = inspect(&out.transmitted[0].1);
        assert_eq!((key.src, key.dst, sums_ok), (to.to_bits(), from.to_bits(), true));
    }
    let ssh = flow(Protocol::Tcp, (from, 999), (Ipv4Addr::new(192, 0, 2, 1), 22));
    let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &ssh, SYN, &[])]);
    assert_eq!(out.to_kernel.len(), 1);
    assert_eq!(out.to_kernel[0].1.bytes()[22], 64, "untouched");
}

/// At a SIGHUP: conns that run go by the new routes as new ones do, without another ARP for those who are
/// known.
#[test]
fn other_routes_lead_running_conns_too() {
    let mut h = web(Mode::FullNat, 1);
    let key = client(1);
    let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &key, SYN, &[])]);
    let to_backend = inspect(&out.transmitted[0].1).0;
    let back = back(&to_backend);
    let answer = |h: &mut Harness, flags| {
        let out = h.receive(BACKEND_PORT, [packet(PORT_MACS[1], &back, flags, &[])]);
        out.transmitted[0].1.bytes()[..6].to_vec()
    };
    assert_eq!(answer(&mut h, SYN_ACK), mac_of(CLIENT_PORT, GATEWAY).0);
    let other = Ipv4Addr::new(192, 0, 2, 253);
    let networks = [
        (CLIENT_PORT, "192.0.2.0/24".parse().unwrap()),
        (BACKEND_PORT, "10.0.0.0/16".parse().unwrap()),
    ];
    let route =
        Route { destination: "0.0.0.0/0".parse().unwrap(), via: other, interface: CLIENT_PORT };
    let routes = RouteTable::new(networks, &[route]);
    h.reroute(Arc::new(routes));
    assert_eq!(answer(&mut h, SYN_ACK), mac_of(CLIENT_PORT, other).0);
    // The backend's next hop is another's no less: it is looked up, found, and not asked for.
    h.resolves = false;
    let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &key, ACK, &[])]);
    assert_eq!(inspect(&out.transmitted[0].1).0, to_backend);
    // No way leads back any more.
    h.reroute(Arc::new(RouteTable::new(networks, &[])));
    let out = h.receive(BACKEND_PORT, [packet(PORT_MACS[1], &back, ACK, &[])]);
    assert!(out.transmitted.is_empty());
    assert_eq!(h.drops(DropReason::NoRoute), 1);
}

#[test]
fn ttl_runs_out_and_large_packets_are_told_to_the_sender() {
    let mut h = web(Mode::FullNat, 1);
    one(&mut h, CLIENT_PORT, &client(1), SYN);
    let mut dying = packet(PORT_MACS[0], &client(1), ACK, &[]);
    dying[22] = 1;
    let sum = sluice_wire::checksum::update_u16(
        u16::from_be_bytes([dying[24], dying[25]]),
        0x4006,
        0x0106,
    );
    dying[24..26].copy_from_slice(&sum.to_be_bytes());
    let out = h.receive(CLIENT_PORT, [dying.clone()]);
    let (port, frame) = &out.transmitted[0];
    let bytes = frame.bytes();
    assert_eq!((*port, bytes[34], bytes[35]), (CLIENT_PORT, 11, 0));
    let (key, sums_ok) = inspect(frame);
    assert!(sums_ok);
    assert_eq!(Ipv4Addr::from_bits(key.src), Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(key.dst, client(1).src);
    assert_eq!(bytes[42..62], dying[14..34], "it quotes the packet as it came");
    assert_eq!(h.drops(DropReason::TtlExceeded), 1);

    let large = packet(PORT_MACS[0], &client(1), ACK, &[0; 1_480]);
    let out = h.receive(CLIENT_PORT, [large]);
    let bytes = out.transmitted[0].1.bytes();
    assert_eq!((bytes[34], bytes[35], &bytes[40..42]), (3, 4, &[5, 220][..]), "MTU 1500");
    assert_eq!(h.drops(DropReason::MtuExceeded), 1);

    // Without DF a router would fragment it: "fragmentation needed and DF set" is not true of it.
    let mut fragmentable = packet(PORT_MACS[0], &client(1), ACK, &[0; 1_480]);
    fragmentable[20..22].fill(0);
    let sum = sluice_wire::checksum::update_u16(
        u16::from_be_bytes([fragmentable[24], fragmentable[25]]),
        0x4000,
        0,
    );
    fragmentable[24..26].copy_from_slice(&sum.to_be_bytes());
    let out = h.receive(CLIENT_PORT, [fragmentable]);
    assert!(out.transmitted.is_empty());
    assert_eq!((h.drops(DropReason::WouldFragment), h.drops(DropReason::MtuExceeded)), (1, 1));
}

/// Each bad frame dies under its own reason, and nothing leaves.
/// Frames that are a good one with something changed, and what they are dropped for.
fn changed_frames() -> Vec<(DropReason, Vec<u8>)> {
    use DropReason::*;
    let good = packet(PORT_MACS[0], &client(1), SYN, b"data");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let resum = |bytes: &mut Vec<u8>, header: usize| {
        bytes[24..26].fill(0);
        let sum = sluice_wire::checksum::compute(&bytes[14..14 + header]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    };
    let resummed = |change: &dyn Fn(&mut Vec<u8>)| {
        with(&|bytes| {
            change(bytes);
            resum(bytes, 20);
        })
    };
    let arp = with(&|b| b[12..14].copy_from_slice(&[8, 6]));
    let options = with(&|b| {
        b[14] = 0x46;
        resum(b, 24);
    });
    let from = |address: [u8; 4]| resummed(&|b| b[26..30].copy_from_slice(&address));
    vec![
        (EtherTruncated, good[..13].to_vec()),
        (Ipv4Truncated, good[..30].to_vec()),
        (Ipv4Truncated, good[..50].to_vec()),
        (ArpTruncated, arp[..41].to_vec()),
        (ArpInvalid, arp),
        (NotOurMac, with(&|b| b[5] = 99)),
        (BadSourceMac, with(&|b| b[6] = 1)),
        (VlanTagged, with(&|b| b[12..14].copy_from_slice(&[0x81, 0]))),
        (UnknownEthertype, with(&|b| b[12..14].copy_from_slice(&[0x86, 0xdd]))),
        (NotForUs, with(&|b| b[..6].fill(0xff))),
        (Ipv4BadHeader, with(&|b| b[14] = 0x65)),
        (Ipv4BadHeader, with(&|b| b[14] = 0x44)),
        (Ipv4Truncated, with(&|b| b[16..18].copy_from_slice(&[0xff, 0xff]))),
        (Ipv4BadLength, with(&|b| b[16..18].copy_from_slice(&[0, 19]))),
        (Ipv4BadChecksum, with(&|b| b[25] ^= 1)),
        (Ipv4Options, options),
        (Fragment, resummed(&|b| b[20] = 0x20)),
        (Fragment, resummed(&|b| b[21] = 0x08)),
        (MartianSource, from([127, 0, 0, 1])),
        (MartianSource, from([0, 1, 2, 3])),
        (MartianSource, from([224, 0, 0, 1])),
        (MartianSource, from([255, 255, 255, 255])),
        (L4BadLength, with(&|b| b[46] = 0x40)),
        (L4BadLength, with(&|b| b[46] = 0xf0)),
        (L4BadChecksum, with(&|b| b[55] ^= 1)),
    ]
}

/// Frames whose headers are sound, and what they are dropped for.
fn unwanted_frames() -> Vec<(DropReason, Vec<u8>)> {
    use DropReason::*;
    let land = flow(Protocol::Tcp, (VIP, 80), (VIP, 80));
    let from_vip = flow(Protocol::Tcp, (VIP, 81), (VIP, 80));
    let not_ours =
        flow(Protocol::Tcp, (Ipv4Addr::new(198, 51, 100, 7), 1), (Ipv4Addr::new(8, 8, 8, 8), 80));
    let no_service = FlowKey { dst_port: L4Port(81), ..client(1) };
    let gre = FlowKey { protocol: 47, ..client(1) };
    vec![
        (MartianSource, packet(PORT_MACS[0], &from_vip, SYN, &[])),
        (LandAttack, packet(PORT_MACS[0], &land, SYN, &[])),
        (UnknownProtocol, ip_frame(PORT_MACS[0], &gre, 9, &[0; 30])),
        (L4Truncated, ip_frame(PORT_MACS[0], &client(1), 9, &[0; 19])),
        (L4Truncated, ip_frame(PORT_MACS[0], &client(1), 9, &[])),
        (TcpBadFlags, packet(PORT_MACS[0], &client(1), TcpFlags::NONE, &[])),
        (TcpBadFlags, packet(PORT_MACS[0], &client(1), TcpFlags(3), &[])),
        (L4PortZero, packet(PORT_MACS[0], &client(0), SYN, &[])),
        (NotForUs, packet(PORT_MACS[0], &not_ours, SYN, &[])),
        (NoService, packet(PORT_MACS[0], &no_service, SYN, &[])),
        (NoConn, packet(PORT_MACS[0], &client(1), ACK, &[])),
        (
            IcmpInvalid,
            ip_frame(PORT_MACS[0], &FlowKey { protocol: 1, ..client(1) }, 9, &[8, 0, 0, 0]),
        ),
        (
            IcmpIgnored,
            ip_frame(
                PORT_MACS[0],
                &FlowKey { protocol: 1, ..client(1) },
                9,
                &[13, 0, 0xf2, 0xff, 0, 0, 0, 0],
            ),
        ),
    ]
}

#[test]
fn bad_frames_have_names() {
    // Which of them are answered is another matter: `refuse`.
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    service.no_conn = sluice_api::NoConn::Drop;
    let quiet = Snapshot { no_service: Refusal::Drop, ..snapshot(1, vec![service]) };
    for (index, (reason, bytes)) in
        changed_frames().into_iter().chain(unwanted_frames()).enumerate()
    {
        let mut h = Harness::new(&quiet, 1_000);
        let out = h.receive(CLIENT_PORT, [bytes]);
        assert_eq!(h.all_drops(), [(reason, 1)], "case {index}");
        assert!(out.transmitted.is_empty() && out.to_kernel.is_empty(), "case {index}");
    }
}

#[test]
fn two_workers_hand_over_so_that_both_directions_meet() {
    let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    let snap = snapshot(1, vec![service]);
    let mut workers: Vec<Harness> =
        (0..2).map(|w| Harness::worker(&snap, 10_000, WorkerId(w), 2)).collect();
    let mut moved = 0;
    for p in 1..=500 {
        let bytes = packet(PORT_MACS[0], &client(p), SYN, &[]);
        // Whichever worker gets it, the same one owns it.
        let first: Vec<Out> =
            workers.iter_mut().map(|w| w.receive(CLIENT_PORT, [bytes.clone()])).collect();
        let owner = usize::from(first[1].handed_over.is_empty());
        assert_eq!(first[owner].transmitted.len(), 1);
        assert_eq!(first[1 - owner].handed_over[0].0.index(), owner);
        let key = inspect(&first[owner].transmitted[0].1).0;
        assert_eq!(usize::from(key.src_port.0 % 2), owner);
        moved += 1 - owner;

        let reply = packet(PORT_MACS[1], &back(&key), SYN_ACK, &[]);
        let out = workers[1 - owner].receive(BACKEND_PORT, [reply]);
        let (to, interface, frame) = &out.handed_over[0];
        assert_eq!((to.index(), *interface), (owner, BACKEND_PORT));
        let meta = Meta::received(*interface, true);
        let out = workers[owner].receive_meta(meta, [frame.clone().into_bytes()]);
        assert_eq!(inspect(&out.transmitted[0].1), (back(&client(p)), true));
    }
    assert!((150..350).contains(&moved), "flows spread over both workers: {moved}");
}

#[test]
fn conns_of_a_vip_and_a_pool_that_are_gone_are_still_steered_to_their_owner() {
    let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    let with = snapshot(1, vec![service]);
    let mut without = snapshot(2, vec![]);
    without.pools.clear();
    let mut workers: Vec<Harness> =
        (0..2).map(|w| Harness::worker(&with, 1_000, WorkerId(w), 2)).collect();
    let mut moved = 0;
    for p in 1..=50 {
        let syn = packet(PORT_MACS[0], &client(p), SYN, &[]);
        let first: Vec<Out> =
            workers.iter_mut().map(|w| w.receive(CLIENT_PORT, [syn.clone()])).collect();
        let owner = usize::from(first[1].handed_over.is_empty());
        let to_backend = inspect(&first[owner].transmitted[0].1).0;
        workers.iter_mut().for_each(|w| w.apply(&without));
        for (port, key, flags) in
            [(BACKEND_PORT, back(&to_backend), SYN_ACK), (CLIENT_PORT, client(p), ACK)]
        {
            let bytes = packet(PORT_MACS[port.index()], &key, flags, &[]);
            let out = workers[1 - owner].receive(port, [bytes.clone()]);
            assert_eq!(out.handed_over[0].0.index(), owner, "{:?}", workers[1 - owner].all_drops());
            let out = workers[owner].receive_meta(Meta::received(port, true), [bytes]);
            assert_eq!(out.transmitted.len(), 1, "{:?}", workers[owner].all_drops());
            moved += 1;
        }
        workers.iter_mut().for_each(|w| w.apply(&with));
    }
    assert_eq!(moved, 100);
}
