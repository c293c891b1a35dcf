use std::net::Ipv4Addr;

use super::*;
use crate::flow::FlowKey;
use crate::ids::{InterfaceId, L4Port, WorkerId};
use crate::testkit::{self, *};
use sluice_api::{Mode, Protocol, Snapshot};

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const ACK: TcpFlags = TcpFlags::ACK;
const SYN: TcpFlags = TcpFlags::SYN;
const FIN: TcpFlags = TcpFlags::FIN;
const RST: TcpFlags = TcpFlags::RST;

fn web(mode: Mode) -> Snapshot {
    snapshot(1, vec![testkit::service("web", 80, Protocol::Tcp, mode, 1)])
}

fn client() -> FlowKey {
    flow(Protocol::Tcp, (CLIENT, 5_000), (VIP, 80))
}

fn stray_of_a_backend(protocol: Protocol) -> FlowKey {
    flow(protocol, (BACKEND, 80), (LOCAL, 5_000))
}

/// A TCP frame with these numbers.
fn segment(
    port: InterfaceId,
    key: &FlowKey,
    seq: u32,
    ack: u32,
    flags: TcpFlags,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = packet(PORT_MACS[port.index()], key, flags, payload);
    let end = 34 + 20 + payload.len();
    frame[38..42].copy_from_slice(&seq.to_be_bytes());
    frame[42..46].copy_from_slice(&ack.to_be_bytes());
    frame[50..52].fill(0);
    let sum = checksum::compute_l4_v4(key.src, key.dst, PROTO_TCP, &frame[34..end]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// What answers one packet; it counts as dropped for one reason.
#[track_caller]
fn answer(
    h: &mut Harness,
    port: InterfaceId,
    bytes: Vec<u8>,
    reason: DropReason,
) -> Option<Vec<u8>> {
    let before = h.drops(reason);
    let mut out = h.receive(port, [bytes]);
    assert_eq!(h.drops(reason), before + 1, "{:?}", h.all_drops());
    assert!(out.to_kernel.is_empty() && out.transmitted.len() <= 1);
    let (to, frame) = out.transmitted.pop()?;
    assert_eq!(to, port, "it goes back to where the packet came from");
    assert!(inspect(&frame).1, "its checksums are right");
    Some(frame.bytes().to_vec())
}

/// What a RST says: sequence number, acknowledgment number, flags.
fn numbers(frame: &[u8]) -> (u32, u32, u8) {
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    assert_eq!(frame[23], PROTO_TCP);
    (word(38), word(42), frame[47])
}

/// Type and code of an ICMP error.
fn icmp(frame: Option<Vec<u8>>) -> Option<(u8, u8)> {
    frame.map(|frame| (frame[23], frame[34], frame[35])).map(|(protocol, kind, code)| {
        assert_eq!(protocol, 1);
        (kind, code)
    })
}

#[test]
fn a_segment_with_ack_is_reset_by_its_own_acknowledgment_number() {
    let mut h = Harness::new(&web(Mode::FullNat), 100);
    let bytes = segment(CLIENT_PORT, &client(), 0x0102_0304, 0xa1b2_c3d4, ACK, b"GET /");
    let rst = answer(&mut h, CLIENT_PORT, bytes, DropReason::NoConn).unwrap();
    #[rustfmt::skip]
    let expected = [
        // Back to the peer's MAC address, from the port's.
        2, 0, 0, 0, 1, 1,  2, 0, 0, 0, 0, 1,  8, 0,
        0x45, 0, 0, 40,  0, 0, 0x40, 0,  64, 6, 0x4e, 0x31,
        192, 0, 2, 100,  198, 51, 100, 7,
        0, 80, 0x13, 0x88,
        0xa1, 0xb2, 0xc3, 0xd4,  0, 0, 0, 0,
        0x50, 0x04, 0, 0,  0x49, 0xe2, 0, 0,
        0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(rst, expected);
    assert_eq!((h.counters.resets_sent.get(), h.counters.unreachables_sent.get()), (1, 0));
}

#[test]
fn a_segment_without_ack_is_reset_by_what_it_takes_of_the_sequence() {
    let mut h = Harness::new(&web(Mode::FullNat), 100);
    let mut ask = |flags, payload: &[u8]| {
        let bytes = segment(CLIENT_PORT, &client(), 0xffff_fffe, 7, flags, payload);
        numbers(&answer(&mut h, CLIENT_PORT, bytes, DropReason::NoConn).unwrap())
    };
    assert_eq!(ask(FIN, b"data"), (0, 3, 0x14), "four bytes and a FIN, over the end");
    assert_eq!(ask(FIN, b""), (0, 0xffff_ffff, 0x14));
    // With ACK, length and flags do not matter.
    assert_eq!(ask(FIN | ACK, b"data"), (7, 0, 4));
    assert_eq!(ask(SYN | ACK, b""), (7, 0, 4));
}

#[test]
fn what_backends_send_to_local_addresses_without_a_conn() {
    use DropReason::{NoConn, SynToLocal, UdpNoConn};
    let mut h = Harness::new(&web(Mode::FullNat), 100);
    let tcp = stray_of_a_backend(Protocol::Tcp);
    let bytes = segment(BACKEND_PORT, &tcp, 9, 0x0f00_0001, SYN | ACK, b"");
    let rst = answer(&mut h, BACKEND_PORT, bytes, NoConn).unwrap();
    assert_eq!(numbers(&rst), (0x0f00_0001, 0, 4));
    assert_eq!(rst[..14], [PEER_MAC.0, PORT_MACS[1].0, [8, 0, 0, 0, 0, 0]].concat()[..14]);
    assert_eq!(rst[26..38], [10, 0, 255, 1, 10, 0, 1, 1, 0x13, 0x88, 0, 80]);

    let bytes = segment(BACKEND_PORT, &tcp, 9, 0, SYN, b"");
    let rst = answer(&mut h, BACKEND_PORT, bytes, SynToLocal).unwrap();
    assert_eq!(numbers(&rst), (0, 10, 0x14));

    let udp = packet(PORT_MACS[1], &stray_of_a_backend(Protocol::Udp), TcpFlags::NONE, b"late");
    assert_eq!(answer(&mut h, BACKEND_PORT, udp, UdpNoConn), None);
    assert_eq!(h.counters.resets_sent.get(), 2);
}

#[test]
fn a_local_address_resets_when_a_service_of_its_pool_does() {
    let mut quiet = testkit::service("quiet", 81, Protocol::Tcp, Mode::FullNat, 1);
    quiet.no_conn = NoConn::Drop;
    let udp = testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 1);
    let dr = testkit::service("dr", 82, Protocol::Tcp, Mode::Dr, 1);
    let mut services = vec![quiet, udp, dr];
    let mut h = Harness::new(&snapshot(1, services.clone()), 100);
    let stray = || segment(BACKEND_PORT, &stray_of_a_backend(Protocol::Tcp), 1, 2, ACK, b"");
    assert_eq!(answer(&mut h, BACKEND_PORT, stray(), DropReason::NoConn), None);

    services[0].no_conn = NoConn::Reset;
    h.apply(&snapshot(2, services));
    assert!(answer(&mut h, BACKEND_PORT, stray(), DropReason::NoConn).is_some());
}

#[test]
fn a_service_chooses_whether_it_resets_and_dr_does_not_unless_told() {
    for (mode, no_conn, resets) in [
        (Mode::FullNat, None, true),
        (Mode::FullNat, Some(NoConn::Drop), false),
        (Mode::Dr, None, false),
        (Mode::Dr, Some(NoConn::Reset), true),
    ] {
        let mut snapshot = web(mode);
        snapshot.services[0].no_conn = no_conn.unwrap_or(NoConn::of_mode(mode));
        let mut h = Harness::new(&snapshot, 100);
        let bytes = segment(CLIENT_PORT, &client(), 1, 2, ACK, b"");
        let answer = answer(&mut h, CLIENT_PORT, bytes, DropReason::NoConn);
        assert_eq!(answer.is_some(), resets, "{mode} {no_conn:?}");
    }
}

#[test]
fn clients_of_a_service_without_backends_are_told_as_it_says() {
    use Refusal::{Drop, Reset, Unreachable};
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for refusal in [Reset, Unreachable, Drop] {
            let mut service = testkit::service("web", 80, protocol, Mode::FullNat, 1);
            service.backends[0].healthy = false;
            service.no_backend = refusal;
            let mut h = Harness::new(&snapshot(1, vec![service]), 100);
            let key = FlowKey { protocol: protocol.number(), ..client() };
            let bytes = match protocol {
                Protocol::Tcp => segment(CLIENT_PORT, &key, 0x100, 0, SYN, b""),
                Protocol::Udp => packet(PORT_MACS[0], &key, TcpFlags::NONE, b"query"),
            };
            let answer = answer(&mut h, CLIENT_PORT, bytes, DropReason::NoBackend);
            match (protocol, refusal) {
                (_, Drop) => assert_eq!(answer, None),
                (Protocol::Tcp, Reset) => assert_eq!(numbers(&answer.unwrap()), (0, 0x101, 0x14)),
                (Protocol::Tcp, Unreachable) => assert_eq!(icmp(answer), Some((3, 1)), "host"),
                (Protocol::Udp, _) => assert_eq!(icmp(answer), Some((3, 3)), "port"),
            }
        }
    }
}

#[test]
fn clients_of_no_service_are_told_as_the_snapshot_says() {
    use Refusal::{Drop, Reset, Unreachable};
    let tcp = FlowKey { dst_port: L4Port(81), ..client() };
    let syn = segment(CLIENT_PORT, &tcp, 0x100, 0, SYN, b"");
    let udp = FlowKey { protocol: Protocol::Udp.number(), ..client() };
    let udp = packet(PORT_MACS[0], &udp, TcpFlags::NONE, b"query");
    for refusal in [Reset, Unreachable, Drop] {
        let mut h = Harness::new(&Snapshot { no_service: refusal, ..web(Mode::Dr) }, 100);
        let mut ask =
            |bytes: &Vec<u8>| answer(&mut h, CLIENT_PORT, bytes.clone(), DropReason::NoService);
        match refusal {
            Reset => {
                assert_eq!(numbers(&ask(&syn).unwrap()), (0, 0x101, 0x14));
                let error = ask(&udp).unwrap();
                #[rustfmt::skip]
                let expected = [
                    2, 0, 0, 0, 1, 1,  2, 0, 0, 0, 0, 1,  8, 0,
                    // As from the host that the packet was for: 20 + 8 + 33 bytes.
                    0x45, 0xc0, 0, 61,  0, 0, 0, 0,  64, 1, 0x8d, 0x61,
                    192, 0, 2, 100,  198, 51, 100, 7,
                    3, 3,
                ];
                assert_eq!(error[..36], expected);
                assert_eq!(error[42..75], udp[14..47], "it quotes the packet as it came");
            }
            Unreachable => {
                assert_eq!(icmp(ask(&syn)), Some((3, 3)));
                assert_eq!(icmp(ask(&udp)), Some((3, 3)));
            }
            Drop => assert_eq!((ask(&syn), ask(&udp)), (None, None)),
        }
    }
}

#[test]
fn a_reset_is_never_answered() {
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    service.backends[0].healthy = false;
    for no_service in [Refusal::Reset, Refusal::Unreachable] {
        let snapshot = Snapshot { no_service, ..snapshot(1, vec![service.clone()]) };
        let mut h = Harness::new(&snapshot, 100);
        for flags in [RST, RST | ACK] {
            let to_none = FlowKey { dst_port: L4Port(81), ..client() };
            for (port, key, reason) in [
                (CLIENT_PORT, client(), DropReason::NoConn),
                (CLIENT_PORT, to_none, DropReason::NoService),
                (BACKEND_PORT, stray_of_a_backend(Protocol::Tcp), DropReason::NoConn),
            ] {
                let bytes = segment(port, &key, 1, 2, flags, b"");
                assert_eq!(answer(&mut h, port, bytes, reason), None, "{reason:?}");
            }
        }
    }
}

#[test]
fn nobody_with_an_address_of_ours_is_answered() {
    let mut h = Harness::new(&web(Mode::FullNat), 100);
    for src in [VIP, LOCAL, Ipv4Addr::new(10, 0, 0, 1)] {
        let key = flow(Protocol::Tcp, (src, 5_000), (VIP, 81));
        let bytes = segment(CLIENT_PORT, &key, 1, 2, ACK, b"");
        assert_eq!(answer(&mut h, CLIENT_PORT, bytes, DropReason::MartianSource), None, "{src}");
    }
}

#[test]
fn answers_are_limited_to_a_rate_and_resets_apart_from_icmp() {
    let snapshot = Snapshot { no_service: Refusal::Unreachable, ..web(Mode::FullNat) };
    let mut h = Harness::new(&snapshot, 100);
    let many = |clients: u32, key: FlowKey, flags| -> Vec<Vec<u8>> {
        let from = |n| FlowKey { src: key.src + n % clients, ..key };
        (0..3_000).map(|n| segment(CLIENT_PORT, &from(n), 1, 2, flags, b"")).collect()
    };
    let to_none = FlowKey { dst_port: L4Port(81), ..client() };
    let mut sent = |ms: u32, clients: u32| {
        h.now += ms;
        [many(clients, to_none, SYN), many(clients, client(), ACK)]
            .map(|packets| h.receive(CLIENT_PORT, packets).transmitted.len())
    };
    assert_eq!(sent(0, 1), [50, 500], "one client");
    assert_eq!(sent(0, 1), [0, 0]);
    assert_eq!(sent(0, 100), [150, 500], "and others with it");
    assert_eq!(sent(10, 100), [10, 100]);
    assert_eq!(sent(10_000, 100), [200, 1_000]);
    assert_eq!(h.drops(DropReason::NoConn), 15_000, "all of them count as dropped");
}

/// Only the owner of a flow knows whether it has a conn: while workers adopt a snapshot, or where
/// they disagree for another reason, a packet may end at another one.
#[test]
fn only_the_owner_of_a_flow_answers() {
    let snapshot = web(Mode::FullNat);
    for p in 1..=100 {
        let from_client = FlowKey { src_port: L4Port(p), ..client() };
        let from_backend =
            FlowKey { dst_port: L4Port(2_000 + p), ..stray_of_a_backend(Protocol::Tcp) };
        for (port, key) in [(CLIENT_PORT, from_client), (BACKEND_PORT, from_backend)] {
            let bytes = segment(port, &key, 1, 2, ACK, b"");
            let answers = [0, 1].map(|number| {
                let mut worker = Harness::worker(&snapshot, 100, WorkerId(number), 2);
                // Both are told that it is theirs, as a worker with another snapshot would.
                let meta = Meta::received(port, true);
                let out = worker.receive_meta(meta, [bytes.clone()]);
                assert_eq!(worker.drops(DropReason::NoConn), 1);
                out.transmitted.len()
            });
            let owner = Harness::worker(&snapshot, 100, WorkerId(0), 2).receive(port, [bytes]);
            let owner = owner.handed_over.first().map_or(0, |(worker, ..)| worker.index());
            assert_eq!(answers[owner], 1);
            assert_eq!(answers[1 - owner], 0);
        }
    }
}

#[test]
fn nothing_is_reset_while_conns_may_still_arrive() {
    let mut h = Harness::new(&web(Mode::FullNat), 100);
    h.compiled.conns_may_arrive = true;
    let stray = || segment(CLIENT_PORT, &client(), 1, 2, ACK, b"");
    assert_eq!(answer(&mut h, CLIENT_PORT, stray(), DropReason::NoConn), None);
    h.compiled.conns_may_arrive = false;
    assert!(answer(&mut h, CLIENT_PORT, stray(), DropReason::NoConn).is_some());
}

/// The packets of a conn that runs are never answered, whatever happens to its service.
#[test]
fn a_conn_of_a_service_that_is_gone_goes_on() {
    let with = web(Mode::FullNat);
    let mut h = Harness::new(&with, 100);
    let out = h.receive(CLIENT_PORT, [segment(CLIENT_PORT, &client(), 1, 0, SYN, b"")]);
    assert_eq!(inspect(&out.transmitted[0].1).0.dst, BACKEND.to_bits());
    let mut without = with;
    (without.generation, without.services) = (2, vec![]);
    h.apply(&without);
    let out = h.receive(CLIENT_PORT, [segment(CLIENT_PORT, &client(), 2, 1, ACK, b"")]);
    assert_eq!(inspect(&out.transmitted[0].1).0.dst, BACKEND.to_bits());
    assert_eq!((h.counters.resets_sent.get(), h.all_drops()), (0, vec![]));
}
