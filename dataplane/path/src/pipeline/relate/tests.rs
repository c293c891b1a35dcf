//! Errors about conns, compared with the ones that their receivers would get without Sluice, built
//! anew byte by byte.

use std::net::Ipv4Addr;

use sluice_api::{DropReason, Mode, Protocol};
use sluice_wire::checksum;
use sluice_wire::ether::MacAddr;
use sluice_wire::icmp;
use sluice_wire::tcp::TcpFlags;

use super::Related;
use crate::burst::Meta;
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::ids::{Direction, InterfaceId, WorkerId};
use crate::pipeline::steer::Steering;
use crate::table::owner::Owners;
use crate::testkit::{self, *};

/// Routers: one towards the clients, one towards the backends.
const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(10, 0, 0, 254)];
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Kinds that are sent on: type, code, rest of the header.
const KINDS: [(u8, u8, [u8; 4]); 8] = [
    (3, 0, [0; 4]),
    (3, 1, [0; 4]),
    (3, 3, [0; 4]),
    (3, 4, [0, 0, 0x02, 0x40]),
    (3, 13, [0; 4]),
    (11, 0, [0; 4]),
    (11, 1, [0; 4]),
    (12, 0, [9, 0, 0, 0]),
];

/// A conn that both sides have used, and what each of them last sent and got.
struct Site {
    h: Harness,
    /// By side, the client's first: the IPv4 packet that it sent as it left, and as it arrived.
    sent: [Vec<u8>; 2],
    arrived: [Vec<u8>; 2],
}

fn ip_packet(frame: &[u8]) -> Vec<u8> {
    let len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    frame[14..14 + len].to_vec()
}

fn client_flow(protocol: Protocol) -> FlowKey {
    flow(protocol, (CLIENT, 5_000), (VIP, 53))
}

fn back(key: &FlowKey) -> FlowKey {
    let (src, dst) = (key.dst, key.src);
    FlowKey { src, dst, src_port: key.dst_port, dst_port: key.src_port, ..*key }
}

impl Site {
    fn new(protocol: Protocol, mode: Mode) -> Site {
        let service = testkit::service("dns", 53, protocol, mode, 1);
        let mut h = Harness::new(&snapshot(1, vec![service]), 100);
        let client = client_flow(protocol);
        let data = [0xa5; 601];
        let pass = |h: &mut Harness, port: InterfaceId, key: &FlowKey, flags| {
            let bytes = packet(PORT_MACS[port.index()], key, flags, &data);
            let out = h.receive(port, [bytes.clone()]);
            (ip_packet(&bytes), out.transmitted[0].1.clone())
        };
        let (sent, frame) = pass(&mut h, CLIENT_PORT, &client, TcpFlags::SYN);
        let (to_backend, arrived) = (inspect(&frame).0, ip_packet(frame.bytes()));
        if mode == Mode::Dr {
            // The backend answers past Sluice: what it sends is what the client gets.
            let reply = ip_packet(&packet(
                mac_of(CLIENT_PORT, GATEWAY),
                &back(&client),
                TcpFlags(0x12),
                &data,
            ));
            return Site { h, sent: [sent, reply.clone()], arrived: [arrived, reply] };
        }
        let (reply, frame) = pass(&mut h, BACKEND_PORT, &back(&to_backend), TcpFlags(0x12));
        let at_client = ip_packet(frame.bytes());
        // Established, and by the established path.
        let (sent, frame) = pass(&mut h, CLIENT_PORT, &client, TcpFlags::ACK);
        let arrived = ip_packet(frame.bytes());
        Site { h, sent: [sent, reply], arrived: [arrived, at_client] }
    }

    fn drop_of(&mut self, port: InterfaceId, frame: Vec<u8>) -> Option<DropReason> {
        let before = self.h.all_drops();
        let out = self.h.receive(port, [frame]);
        assert!(out.to_kernel.is_empty() && out.handed_over.is_empty());
        let after = self.h.all_drops();
        let dropped =
            after.into_iter().find(|drop| !before.contains(drop)).map(|(reason, _)| reason);
        assert_eq!(out.transmitted.is_empty(), dropped.is_some());
        dropped
    }
}

/// An IPv4 packet whose TTL has run down to so much on its way.
fn with_ttl(packet: &[u8], ttl: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[8] = ttl;
    let header_len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum::compute(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The same with eight bytes of options.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[0] = 0x47;
    packet.splice(20..20, [1, 1, 1, 1, 1, 1, 1, 0]);
    let len = u16::from_be_bytes([packet[2], packet[3]]) + 8;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    with_ttl(&packet, 61)
}

/// A frame with an error about a packet, of which `quoted` bytes are quoted.
fn error(
    to: MacAddr,
    (src, dst): (Ipv4Addr, Ipv4Addr),
    (icmp_type, code, rest): (u8, u8, [u8; 4]),
    about: &[u8],
    quoted: usize,
) -> Vec<u8> {
    let mut message = vec![icmp_type, code, 0, 0];
    message.extend(rest);
    message.extend(&about[..quoted.min(about.len())]);
    icmp::fill_checksum(&mut message);
    let key = FlowKey { protocol: 1, ..flow(Protocol::Tcp, (src, 0), (dst, 0)) };
    ip_frame(to, &key, 64, &message)
}

/// The frame as it leaves: one hop further, between other stations.
fn one_hop_on(frame: &[u8], from: MacAddr) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[6..12].copy_from_slice(&from.0);
    let ttl = frame[22] - 1;
    let ip = with_ttl(&frame[14..34], ttl);
    frame[14..34].copy_from_slice(&ip);
    frame
}

#[test]
fn senders_get_errors_about_what_they_sent_whatever_the_kind_the_side_and_the_mode() {
    let mut passed = 0;
    for mode in [Mode::FullNat, Mode::Dr] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // Which side's packet went no further: the client's (in full-NAT), or the backend's.
            let sides = if mode == Mode::Dr { 1..2 } else { 0..2 };
            for side in sides {
                let mut site = Site::new(protocol, mode);
                let conn = site.h.pipeline.conns().find_key(&client_flow(protocol));
                let line = |site: &Site| format!("{:?}", site.h.pipeline.conns().get(conn));
                let before = line(&site);
                for (index, kind) in KINDS.into_iter().enumerate() {
                    for optioned in [false, true] {
                        // Without TCP's checksum, with it, and as much as there is.
                        let header = 20 + 8 * usize::from(optioned);
                        for quoted in [header + 8, header + 16, header + 18, 128, 548, 9_999] {
                            // The conn's rate is another test's.
                            site.h.now += 50;
                            let sent = with_ttl(&site.sent[side], 61);
                            let arrived = with_ttl(&site.arrived[side], 61);
                            let (sent, arrived) = match optioned {
                                true => (with_options(&sent), with_options(&arrived)),
                                false => (sent, arrived),
                            };
                            let (port, ours) = [(BACKEND_PORT, LOCAL), (CLIENT_PORT, VIP)][side];
                            // From a router on the way, or from the receiver itself.
                            let far = [BACKEND, CLIENT][side];
                            let from = if index % 2 == 0 { ROUTERS[1 - side] } else { far };
                            let bytes = error(
                                PORT_MACS[port.index()],
                                (from, ours),
                                kind,
                                &arrived,
                                quoted,
                            );
                            let mut out = site.h.receive(port, [bytes.clone()]);
                            assert_eq!(out.transmitted.len(), 1, "{:?}", site.h.all_drops());
                            let (left_by, frame) = out.transmitted.remove(0);
                            let (to_port, to_mac, addresses) = match (mode, side) {
                                (Mode::Dr, _) => {
                                    (BACKEND_PORT, mac_of(BACKEND_PORT, BACKEND), (from, VIP))
                                }
                                (_, 0) => {
                                    (CLIENT_PORT, mac_of(CLIENT_PORT, GATEWAY), (VIP, CLIENT))
                                }
                                (_, _) => {
                                    (BACKEND_PORT, mac_of(BACKEND_PORT, BACKEND), (LOCAL, BACKEND))
                                }
                            };
                            let expected = error(to_mac, addresses, kind, &sent, quoted);
                            let expected = one_hop_on(&expected, PORT_MACS[to_port.index()]);
                            assert_eq!(left_by, to_port);
                            assert_eq!(
                                frame.into_bytes(),
                                expected,
                                "{mode:?} {protocol:?} {side} {kind:?} {quoted} {optioned}"
                            );
                            passed += 1;
                        }
                    }
                }
                assert_eq!(line(&site), before, "nothing of the conn has changed");
            }
        }
    }
    assert_eq!(passed, 6 * 8 * 2 * 6);
}

#[test]
fn an_error_is_no_sign_of_life_and_counts_as_no_traffic() {
    let mut site = Site::new(Protocol::Udp, Mode::FullNat);
    let slot = site.h.slots.all_backends().next().unwrap().1;
    let before = site.h.counters.backend(slot).read();
    let quoted = site.arrived[0].clone();
    let mut lived = 0;
    while site.h.pipeline.conns().len() == 1 {
        let bytes = error(PORT_MACS[1], (BACKEND, LOCAL), KINDS[2], &quoted, 28);
        assert_eq!(site.h.receive(BACKEND_PORT, [bytes]).transmitted.len(), 1);
        site.h.pass(1_000);
        lived += 1;
        assert!(lived <= 200, "it never ends");
    }
    assert!(
        (120..123).contains(&lived),
        "a UDP flow of both sides is forgotten after 120 s: {lived}"
    );
    assert_eq!(site.h.counters.backend(slot).read().packets_in, before.packets_in);
    assert_eq!(site.h.counters.backend(slot).read().packets_out, before.packets_out);
    let bytes = error(PORT_MACS[1], (BACKEND, LOCAL), KINDS[2], &quoted, 28);
    assert_eq!(site.drop_of(BACKEND_PORT, bytes), Some(DropReason::IcmpNoConn));
}

#[test]
fn what_cannot_be_true_does_nothing_under_a_name_of_its_own() {
    use DropReason::*;
    let mut site = Site::new(Protocol::Tcp, Mode::FullNat);
    let conn = site.h.pipeline.conns().find_key(&client_flow(Protocol::Tcp));
    let before = format!("{:?}", site.h.pipeline.conns().get(conn));
    let arrived = site.arrived[1].clone();
    let mtu = |mtu: u16| (3, 4, [0, 0, (mtu >> 8) as u8, mtu as u8]);
    let about = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = arrived.clone();
        change(&mut packet);
        packet
    };
    let port_unreachable = (3, 3, [0; 4]);
    let other_client = about(&|p| p[19] += 1);
    let other_port = about(&|p| p[23] += 1);
    let other_protocol = about(&|p| p[9] = 17);
    let not_ours = about(&|p| p[15] += 1);
    let later_fragment = about(&|p| p[7] = 1);
    let first_fragment = about(&|p| p[6] = 0x20);
    let ping = about(&|p| (p[9], p[20]) = (1, 0));
    let an_error = about(&|p| (p[9], p[20]) = (1, 3));
    let version_6 = about(&|p| p[0] = 0x65);
    let no_l4 = about(&|p| p[2..4].copy_from_slice(&[0, 27]));
    let len = arrived.len() as u16;
    let cases = [
        // What is wrong is one thing at a time: this is right.
        (None, port_unreachable, &arrived, 28),
        (None, port_unreachable, &first_fragment, 28),
        (None, mtu(576), &arrived, 28),
        (None, mtu(len - 1), &arrived, 28),
        (Some(IcmpBadMtu), mtu(575), &arrived, 28),
        (Some(IcmpBadMtu), mtu(68), &arrived, 28),
        (Some(IcmpBadMtu), mtu(0), &arrived, 28),
        (Some(IcmpBadMtu), mtu(len), &arrived, 28),
        (Some(IcmpBadMtu), mtu(1_500), &arrived, 28),
        (Some(IcmpRedirect), (5, 1, [10, 0, 0, 66]), &arrived, 28),
        (Some(IcmpSourceQuench), (4, 0, [0; 4]), &arrived, 28),
        (Some(IcmpIgnored), (3, 16, [0; 4]), &arrived, 28),
        (Some(IcmpIgnored), (11, 2, [0; 4]), &arrived, 28),
        (Some(IcmpIgnored), (12, 3, [0; 4]), &arrived, 28),
        (Some(IcmpNoConn), port_unreachable, &other_client, 28),
        (Some(IcmpNoConn), port_unreachable, &other_port, 28),
        (Some(IcmpNoConn), port_unreachable, &other_protocol, 28),
        (Some(IcmpBadQuote), port_unreachable, &not_ours, 28),
        (Some(IcmpBadQuote), port_unreachable, &later_fragment, 28),
        (Some(IcmpBadQuote), port_unreachable, &version_6, 28),
        (Some(IcmpBadQuote), port_unreachable, &no_l4, 28),
        (Some(IcmpBadQuote), port_unreachable, &arrived, 27),
        (Some(IcmpBadQuote), port_unreachable, &arrived, 19),
        (Some(IcmpBadQuote), port_unreachable, &arrived, 0),
        (Some(IcmpIgnored), port_unreachable, &ping, 28),
        (Some(IcmpIgnored), port_unreachable, &an_error, 28),
    ];
    for (index, (reason, kind, packet, quoted)) in cases.into_iter().enumerate() {
        site.h.now += 50;
        let bytes = error(PORT_MACS[0], (ROUTERS[0], VIP), kind, packet, quoted);
        assert_eq!(site.drop_of(CLIENT_PORT, bytes), reason, "case {index}");
    }
    // Of a checksum that is wrong, of a source that cannot be, of an outer TTL that ends here.
    let right = error(PORT_MACS[0], (ROUTERS[0], VIP), port_unreachable, &arrived, 28);
    let mut damaged = right.clone();
    damaged[60] ^= 1;
    assert_eq!(site.drop_of(CLIENT_PORT, damaged), Some(IcmpInvalid));
    let ours = error(PORT_MACS[0], (LOCAL, VIP), port_unreachable, &arrived, 28);
    assert_eq!(site.drop_of(CLIENT_PORT, ours), Some(MartianSource));
    let dying = [&right[..14], &with_ttl(&right[14..34], 1), &right[34..]].concat();
    assert_eq!(site.drop_of(CLIENT_PORT, dying), Some(TtlExceeded));
    assert_eq!(format!("{:?}", site.h.pipeline.conns().get(conn)), before);
}

#[test]
fn checksums_that_are_wrong_in_the_quote_stay_as_wrong() {
    let mut site = Site::new(Protocol::Tcp, Mode::FullNat);
    let mut arrived = site.arrived[1].clone();
    let mut sent = site.sent[1].clone();
    // As routers quote that count TTL down and leave the sum, and senders with offload.
    for (packet, sums) in [(&mut arrived, [10, 36]), (&mut sent, [10, 36])] {
        for at in sums {
            let sum = u16::from_be_bytes([packet[at], packet[at + 1]]);
            let wrong = checksum::update_u16(sum, 0x1234, 0x4321);
            packet[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        }
        packet[8] = 61;
    }
    // What Sluice's own hop did to the sum is in one of them only.
    let sum = u16::from_be_bytes([sent[10], sent[11]]);
    let hop = checksum::update_u16(sum, 0x4006, 0x3f06);
    sent[10..12].copy_from_slice(&hop.to_be_bytes());
    let bytes = error(PORT_MACS[0], (ROUTERS[0], VIP), KINDS[2], &arrived, 548);
    let out = site.h.receive(CLIENT_PORT, [bytes]);
    let expected = error(mac_of(BACKEND_PORT, BACKEND), (LOCAL, BACKEND), KINDS[2], &sent, 548);
    assert_eq!(out.transmitted[0].1.bytes(), one_hop_on(&expected, PORT_MACS[1]));
}

#[test]
fn a_udp_checksum_that_is_absent_stays_absent_in_the_quote() {
    let mut site = Site::new(Protocol::Udp, Mode::FullNat);
    let mut arrived = site.arrived[0].clone();
    arrived[26..28].fill(0);
    let bytes = error(PORT_MACS[1], (BACKEND, LOCAL), KINDS[2], &arrived, 28);
    let out = site.h.receive(BACKEND_PORT, [bytes]);
    assert_eq!(out.transmitted[0].1.bytes()[42 + 26..42 + 28], [0, 0]);
}

#[test]
fn errors_have_a_rate_per_conn_and_go_on_after_a_pause() {
    let service = testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 1);
    let mut h = Harness::new(&snapshot(1, vec![service]), 100);
    let arrived: Vec<Vec<u8>> = (1..=2)
        .map(|port| {
            let key = flow(Protocol::Udp, (CLIENT, port), (VIP, 53));
            let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &key, TcpFlags::NONE, b"?")]);
            ip_packet(out.transmitted[0].1.bytes())
        })
        .collect();
    let about = |conn: usize| error(PORT_MACS[1], (BACKEND, LOCAL), KINDS[2], &arrived[conn], 28);
    let sent_on = |h: &mut Harness, conn: usize| {
        h.receive(BACKEND_PORT, vec![about(conn); 200]).transmitted.len()
    };
    assert_eq!((sent_on(&mut h, 0), sent_on(&mut h, 1)), (20, 20));
    assert_eq!(h.drops(DropReason::IcmpRateLimit), 360);
    h.now += 500;
    assert_eq!(sent_on(&mut h, 0), 10);
}

#[test]
fn errors_to_a_ports_own_address_are_the_kernels() {
    let mut site = Site::new(Protocol::Tcp, Mode::FullNat);
    let own = Ipv4Addr::new(10, 0, 0, 1);
    let check = flow(Protocol::Tcp, (own, 40_000), (BACKEND, 53));
    let check = ip_packet(&packet(mac_of(BACKEND_PORT, BACKEND), &check, TcpFlags::SYN, b""));
    for kind in KINDS.into_iter().chain([(5, 1, [0; 4]), (4, 0, [0; 4])]) {
        let bytes = error(PORT_MACS[1], (BACKEND, own), kind, &check, 28);
        let out = site.h.receive(BACKEND_PORT, [bytes.clone()]);
        assert_eq!(out.to_kernel.len(), 1);
        assert_eq!(out.to_kernel[0].1.bytes(), bytes, "untouched");
    }
}

#[test]
fn errors_wait_for_a_next_hop_like_packets() {
    let service = testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 1);
    let mut h = Harness::new(&snapshot(1, vec![service]), 100);
    let client = client_flow(Protocol::Udp);
    let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &client, TcpFlags::NONE, b"?")]);
    let arrived = ip_packet(out.transmitted[0].1.bytes());
    // Nothing has gone to the client yet: its next hop is asked for.
    h.resolves = false;
    let bytes = error(PORT_MACS[1], (BACKEND, LOCAL), KINDS[2], &arrived, 28);
    assert!(h.receive(BACKEND_PORT, [bytes]).transmitted.is_empty());
    assert_eq!((h.pipeline.held(), h.all_drops()), (1, vec![]));
    assert_eq!(h.messages.len(), 1);
}

/// No NIC spreads by what is quoted: whichever worker gets an error, the conn's owner sends it on.
#[test]
fn errors_come_to_the_worker_that_has_the_conn() {
    let service = testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 2);
    let snap = snapshot(1, vec![service]);
    for by_nic in [false, true] {
        let owners = Owners::Arithmetic { workers: 3 };
        let steering = Steering { owners, by_nic: vec![by_nic; 2].into() };
        let worker = |w| Harness::steered(&snap, 1_000, (w, 3), steering.clone());
        let mut workers: Vec<Harness> = WorkerId::first(3).map(worker).collect();
        let mut moved = 0;
        for port in 1..=60 {
            let key = flow(Protocol::Udp, (CLIENT, port), (VIP, 53));
            let query = packet(PORT_MACS[0], &key, TcpFlags::NONE, b"?");
            let asked: Vec<Out> =
                workers.iter_mut().map(|w| w.receive(CLIENT_PORT, [query.clone()])).collect();
            let owner = asked.iter().position(|out| !out.transmitted.is_empty()).unwrap();
            let arrived = ip_packet(asked[owner].transmitted[0].1.bytes());
            let reply = ip_packet(&packet(PORT_MACS[0], &back(&key), TcpFlags::NONE, b"!"));
            let backend = Ipv4Addr::from(<[u8; 4]>::try_from(&arrived[16..20]).unwrap());
            for (interface, from, to, about) in
                [(BACKEND_PORT, backend, LOCAL, &arrived), (CLIENT_PORT, CLIENT, VIP, &reply)]
            {
                let mac = PORT_MACS[interface.index()];
                let bytes = error(mac, (from, to), KINDS[2], about, 28);
                for w in 0..3 {
                    let mis_steered = workers[w].counters.queue(interface.port()).mis_steered.get();
                    let mut out = workers[w].receive(interface, [bytes.clone()]);
                    if w != owner {
                        let (next, tag, frame) = out.handed_over.remove(0);
                        assert_eq!((next.index(), tag), (owner, interface));
                        let meta = Meta::received(tag, true);
                        out = workers[owner].receive_meta(meta, [frame.into_bytes()]);
                        moved += 1;
                    }
                    let sent_on = out.transmitted.len();
                    assert_eq!(sent_on, 1, "{w} {owner} {:?}", workers[owner].all_drops());
                    let now = workers[w].counters.queue(interface.port()).mis_steered.get();
                    assert_eq!(now, mis_steered, "that is not the NIC's fault");
                }
            }
        }
        assert_eq!(moved, 240);
    }
}

#[test]
fn any_bytes_are_judged_without_harm() {
    let mut random = Random::from_env();
    let mut sound = 0;
    for _ in 0..100_000 {
        let site = [198, 51, 100, random.next_u64() as u8];
        let key = flow(Protocol::Tcp, (VIP, 53), (site.into(), 5_000));
        let about = ip_packet(&packet(mac_of(CLIENT_PORT, GATEWAY), &key, TcpFlags::ACK, &[7; 40]));
        let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &about].concat();
        message.truncate(random.below(message.len() + 1));
        for _ in 0..random.below(4) {
            if !message.is_empty() {
                let at = random.below(message.len());
                message[at] = random.next_u64() as u8;
            }
        }
        if let Ok(Related { header_len, l4_len, .. }) = super::judge(&message, VIP.to_bits()) {
            assert!(l4_len >= 8 && 8 + header_len + l4_len <= message.len());
            sound += 1;
        }
    }
    assert!(sound > 10_000, "{sound}");
}

/// RFC 5927, 4.1: who does not see a conn has to guess what is under way in it.
#[test]
fn a_quoted_sequence_number_must_be_one_that_is_under_way() {
    const NEAR: [u32; 4] = [0, 0x2_0000, 0x3f_0000, 0x3f_0000_u32.wrapping_neg()];
    const FAR: [u32; 4] = [0x42_0000, 0x42_0000_u32.wrapping_neg(), 0x1000_0000, 0x8000_0000];
    let (client_seq, backend_seq) = (0xffff_f000_u32, 0x7fff_f000_u32);
    for mode in [Mode::FullNat, Mode::Dr] {
        let service = testkit::service("web", 80, Protocol::Tcp, mode, 1);
        let mut h = Harness::new(&snapshot(1, vec![service]), 100);
        let client = flow(Protocol::Tcp, (CLIENT, 5_000), (VIP, 80));
        let mut pass = |port: InterfaceId, key: &FlowKey, flags, numbers, data: &[u8]| {
            let mac = PORT_MACS[port.index()];
            let out = h.receive(port, [segment(mac, key, flags, numbers, data)]);
            inspect(&out.transmitted[0].1).0
        };
        let (syn, syn_ack) = (TcpFlags::SYN, TcpFlags(0x12));
        let to_backend = pass(CLIENT_PORT, &client, syn, (client_seq, 0), b"");
        let next = (client_seq.wrapping_add(1), backend_seq.wrapping_add(1));
        if mode == Mode::FullNat {
            pass(BACKEND_PORT, &back(&to_backend), syn_ack, (backend_seq, next.0), b"");
        }
        pass(CLIENT_PORT, &client, TcpFlags::ACK, next, b"");
        pass(CLIENT_PORT, &client, TcpFlags::ACK, next, b"GET");
        let conn = h.pipeline.conns().find_key(&client);
        let before = format!("{:?}", h.pipeline.conns().get(conn));

        let to_client = (CLIENT_PORT, back(&client), backend_seq, (ROUTERS[0], VIP));
        let at_backend = (BACKEND_PORT, to_backend, client_seq, (ROUTERS[1], LOCAL));
        let sides = if mode == Mode::Dr { vec![to_client] } else { vec![to_client, at_backend] };
        for (port, quoted, last, addresses) in sides {
            let mac = PORT_MACS[port.index()];
            let sent_on = |h: &mut Harness, seq: u32| {
                h.now += 50;
                let about = segment(mac, &quoted, TcpFlags::ACK, (seq, 1), b"data");
                let bytes = error(mac, addresses, KINDS[2], &ip_packet(&about), 28);
                h.receive(port, [bytes]).transmitted.len() == 1
            };
            for by in NEAR {
                assert!(sent_on(&mut h, last.wrapping_add(by)), "{mode:?} {port} {by:x}");
            }
            let dropped = h.drops(DropReason::IcmpBadSequence);
            for by in FAR {
                assert!(!sent_on(&mut h, last.wrapping_add(by)), "{mode:?} {port} {by:x}");
            }
            assert_eq!(h.drops(DropReason::IcmpBadSequence), dropped + 4);
            // A guess is right once in 508 times.
            let line = h.pipeline.conns().get(conn);
            let direction =
                if port == CLIENT_PORT { Direction::FromBackend } else { Direction::FromClient };
            let right = |upper: &u32| super::is_under_way(line, direction, upper << 16);
            assert_eq!((0..=0xffff_u32).filter(right).count(), 129);
        }
        assert_eq!(format!("{:?}", h.pipeline.conns().get(conn)), before);
    }
}
