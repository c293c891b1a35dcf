use std::sync::Arc;

use super::*;
use crate::family::Family;
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::testkit::{self, *};
use sluice_api::{DropReason, Mode, Protocol, Snapshot};
use sluice_wire::arp;
use sluice_wire::ether::MacAddr;
use sluice_wire::tcp::TcpFlags;

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
/// The second address of the pool.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 2);

fn web() -> Snapshot {
    let mut snapshot =
        snapshot(1, vec![testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1)]);
    snapshot.pools[0].addresses.push(OTHER.into());
    snapshot
}

/// The same without any service or pool.
fn nothing(generation: u64) -> Snapshot {
    Snapshot { generation, ..Snapshot::default() }
}

fn client(port: u16) -> FlowKey {
    flow(Protocol::Tcp, (Ipv4Addr::new(198, 51, 100, 7), port), (VIP, 80))
}

/// A client's packet; the local address that it leaves from.
#[track_caller]
fn send(h: &mut Harness, port: u16, flags: TcpFlags) -> Ipv4Addr {
    let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &client(port), flags, b"")]);
    assert_eq!(out.transmitted.len(), 1, "{:?}", h.all_drops());
    Ipv4Addr::from_bits(inspect(&out.transmitted[0].1).0.src)
}

/// Whether an ARP request for an address is answered.
fn is_answered(h: &mut Harness, sender: Ipv4Addr, target: Ipv4Addr) -> bool {
    let request = arp::build_request(PEER_MAC, sender, target).to_vec();
    let out = h.receive(CLIENT_PORT, [request]);
    out.transmitted.first().is_some_and(|(_, frame)| {
        let reply = arp::parse(&frame.bytes()[14..]).unwrap();
        (reply.op(), reply.sender_ip(), reply.sender_mac) == (2, target, PORT_MACS[0])
    })
}

fn is_pinged(h: &mut Harness, target: Ipv4Addr) -> bool {
    let key =
        FlowKey { src: HOST.to_bits(), dst: target.to_bits(), protocol: 1, ..FlowKey::default() };
    let ping = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    !h.receive(CLIENT_PORT, [ip_frame(PORT_MACS[0], &key, 9, &ping)]).transmitted.is_empty()
}

/// Let a worker count all its conns.
fn count(h: &mut Harness) {
    h.now += PAUSE_MS;
    for _ in 0..h.pipeline.conns().capacity().div_ceil(CONNS_PER_ROUND) {
        h.pipeline.count_leaving(&h.compiled, h.now);
    }
}

fn conns(h: &Harness) -> Vec<(Ipv4Addr, Option<u64>)> {
    let of = |l: &LeavingStats| (V4::ip(V4::of_valid(l.address)), l.conns);
    h.compiled.leaving.stats().iter().map(of).collect()
}

#[test]
fn what_left_the_configuration_is_answered_for_until_its_last_conn_is_gone() {
    let mut h = Harness::new(&web(), 1_000);
    let used = [send(&mut h, 1, TcpFlags::SYN), send(&mut h, 2, TcpFlags::SYN)];
    h.apply(&nothing(2));
    assert_eq!(conns(&h), [(LOCAL, None), (OTHER, None), (VIP, None)], "nobody has counted");
    assert_eq!(h.compiled.leaving.release_empty(), [] as [Ipv4Addr; 0]);
    count(&mut h);
    let of = |address| used.iter().filter(|used| **used == address).count() as u64;
    let expected = [(LOCAL, Some(of(LOCAL))), (OTHER, Some(of(OTHER))), (VIP, Some(2))];
    assert_eq!(conns(&h), expected);
    h.compiled.leaving.release_empty();
    for address in [used[0], used[1], VIP] {
        assert!(is_answered(&mut h, HOST, address) && is_pinged(&mut h, address), "{address}");
    }
    send(&mut h, 1, TcpFlags::ACK);
    // Who comes anew finds nobody, and no answer: the address is somebody else's to have.
    let syn = packet(PORT_MACS[0], &client(3), TcpFlags::SYN, b"");
    assert!(h.receive(CLIENT_PORT, [syn]).transmitted.is_empty());
    assert_eq!(h.drops(DropReason::NotForUs), 1);

    h.pass(11_000);
    assert!(h.pipeline.conns().is_empty());
    assert!(is_answered(&mut h, HOST, VIP), "the main thread does not know yet");
    count(&mut h);
    let mut released = h.compiled.leaving.release_empty();
    released.retain(|address| *address == VIP || used.contains(address));
    assert_eq!(released.last(), Some(&VIP));
    for address in [LOCAL, OTHER, VIP] {
        assert!(!is_answered(&mut h, HOST, address) && !is_pinged(&mut h, address), "{address}");
    }
    assert_eq!(conns(&h), []);
    // Released for good, also by later snapshots, until it is configured again.
    h.apply(&nothing(3));
    assert!(!is_answered(&mut h, HOST, VIP));
    h.apply(&Snapshot { generation: 4, ..web() });
    assert!(is_answered(&mut h, HOST, VIP) && conns(&h).is_empty());
}

#[test]
fn a_drained_address_keeps_its_conns_and_gets_no_new_ones() {
    let mut h = Harness::new(&web(), 1_000);
    let used: Vec<Ipv4Addr> = (1..=64).map(|port| send(&mut h, port, TcpFlags::SYN)).collect();
    let on_local = used.iter().filter(|address| **address == LOCAL).count();
    assert!(on_local > 0 && on_local < 64, "both addresses are in use");

    let mut drained = Snapshot { generation: 2, ..web() };
    drained.pools[0].drained = vec![LOCAL.into()];
    h.apply(&drained);
    for port in 65..=128 {
        assert_eq!(send(&mut h, port, TcpFlags::SYN), OTHER);
    }
    for (port, address) in (1..=64).zip(&used) {
        assert_eq!(send(&mut h, port, TcpFlags::ACK), *address, "conns stay where they are");
    }
    count(&mut h);
    assert_eq!(conns(&h), [(LOCAL, Some(on_local as u64))]);
    let stats = &h.compiled.leaving.stats()[0];
    assert_eq!((stats.kind.as_str(), stats.state.as_str()), ("local", "drained"));
    assert!(is_answered(&mut h, HOST, LOCAL));

    // It is still ours when it is empty, and takes conns again when it is told to.
    h.pass(11_000);
    count(&mut h);
    assert_eq!(conns(&h), [(LOCAL, Some(0))]);
    assert_eq!(h.compiled.leaving.release_empty(), [] as [Ipv4Addr; 0]);
    assert!(is_answered(&mut h, HOST, LOCAL));
    h.apply(&Snapshot { generation: 3, ..web() });
    let again: Vec<Ipv4Addr> = (1..=64).map(|port| send(&mut h, port, TcpFlags::SYN)).collect();
    assert!(again.contains(&LOCAL) && again.contains(&OTHER));
}

#[test]
fn all_workers_count_before_an_address_is_released() {
    let with = web();
    let mut workers: Vec<Harness> =
        (0..2).map(|w| Harness::worker(&with, 1_000, WorkerId(w), 2)).collect();
    let made = (1..=50).filter(|port| {
        let syn = packet(PORT_MACS[0], &client(*port), TcpFlags::SYN, b"");
        workers.iter_mut().any(|w| !w.receive(CLIENT_PORT, [syn.clone()]).transmitted.is_empty())
    });
    assert_eq!(made.count(), 50);
    workers.iter_mut().for_each(|worker| worker.apply(&nothing(2)));
    let leaving = Arc::clone(&workers[0].compiled.leaving);
    workers[1].compiled.leaving = Arc::clone(&leaving);
    let vip = |leaving: &Leaving| leaving.stats().last().unwrap().conns;

    count(&mut workers[0]);
    assert_eq!(vip(&leaving), None);
    count(&mut workers[1]);
    assert_eq!(vip(&leaving), Some(50));
    // One is empty, the other is not.
    workers[0].pass(11_000);
    workers.iter_mut().for_each(count);
    assert_eq!(vip(&leaving), Some(workers[1].pipeline.conns().len() as u64));
    assert!(!leaving.release_empty().contains(&VIP));
    workers[1].pass(11_000);
    count(&mut workers[1]);
    assert!(leaving.release_empty().contains(&VIP));
}

#[test]
fn an_address_is_not_fought_for() {
    let mut h = Harness::new(&web(), 1_000);
    send(&mut h, 1, TcpFlags::SYN);
    h.apply(&nothing(2));
    // RFC 5227: who probes for it finds it free.
    assert!(!is_answered(&mut h, Ipv4Addr::UNSPECIFIED, VIP));
    assert!(is_answered(&mut h, HOST, VIP));
    // Then it says that it has it, and the main thread hears of that.
    h.messages.clear();
    let theirs = MacAddr([2, 0, 0, 0, 7, 7]);
    h.receive(CLIENT_PORT, [arp::build_announcement(theirs, VIP).to_vec()]);
    assert!(matches!(
        h.messages[..],
        [crate::pipeline::ToMain::Arp { sender, mac, conflict: false, .. }]
            if sender.address == VIP.to_bits() && mac == theirs
    ));
    assert!(h.compiled.leaving.release(VIP.to_bits()));
    assert!(!h.compiled.leaving.release(VIP.to_bits()), "once");
    assert!(!is_answered(&mut h, HOST, VIP));

    // A backend that gets an address which was in a pool is somebody else as well.
    let mut snapshot = Snapshot { generation: 3, ..web() };
    snapshot.pools[0].addresses = vec![LOCAL.into()];
    snapshot.services[0].backends[0].address = OTHER.into();
    h.apply(&snapshot);
    assert!(is_answered(&mut h, HOST, LOCAL) && !is_answered(&mut h, HOST, OTHER));
}

/// Health changes make a snapshot each: what is counted goes on over them.
#[test]
fn snapshots_in_between_do_not_begin_a_count_anew() {
    let mut h = Harness::new(&web(), 1_000);
    send(&mut h, 1, TcpFlags::SYN);
    for generation in 2..30 {
        h.apply(&nothing(generation));
        h.pipeline.count_leaving(&h.compiled, h.now);
    }
    assert_eq!(conns(&h).last(), Some(&(VIP, Some(1))), "1,000 conns, 64 at a time");
}
