//! Packets whose conn is wide, before any treatment is there.

use std::net::Ipv4Addr;

use sluice_api::{DropReason, Mode, Protocol};
use sluice_wire::tcp::TcpFlags;

use crate::flow::{FlowKey, Tuple, WideTuple};
use crate::table::conn::state::ConnState;
use crate::table::conn::{ConnRef, NewWideConn};
use crate::testkit::{self, *};

fn client(last: u8) -> FlowKey {
    flow(Protocol::Tcp, (Ipv4Addr::new(198, 51, 100, last), 5_000), (VIP, 80))
}

fn back(last: u8) -> FlowKey {
    let port = 2_000 + u16::from(last);
    flow(Protocol::Tcp, (Ipv4Addr::new(10, 0, 1, 1), 80), (LOCAL, port))
}

/// Make a wide conn of an IPv4 flow, accounted for as a stage would.
fn make_wide(h: &mut Harness, last: u8) -> ConnRef {
    let wide = |key: &FlowKey| WideTuple::from(&Tuple::from(key));
    let service = h.compiled.service(&client(last)).expect("the service is there");
    let (service_slot, backend_slot) = (service.slot, service.backends[0].slot);
    let new = NewWideConn {
        from_client: wide(&client(last)),
        from_backend: Some(wide(&back(last))),
        backend_address: Ipv4Addr::new(10, 0, 1, 1).into(),
        treatment: 1,
        service_slot,
        backend_slot,
        state: ConnState::Established,
        interface: CLIENT_PORT,
        seq: 1,
    };
    let conns = h.pipeline.conns_mut();
    let hash = conns.hash(&Tuple::from(&client(last)));
    let made = conns.insert_wide(&new, hash, h.now, &h.compiled.timeouts);
    h.counters.conns.add(1);
    h.counters.backend(backend_slot).conns.add(1);
    h.counters.service(service_slot).conns.add(1);
    made.expect("there is room")
}

fn web() -> Harness {
    let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
    Harness::new(&snapshot(1, vec![service]), 1_000)
}

fn packets(key: impl Fn(u8) -> FlowKey, flags: TcpFlags) -> impl Iterator<Item = Vec<u8>> {
    (0..8).map(move |last| packet(PORT_MACS[0], &key(last), flags, b"data"))
}

/// In both directions, beside packets of plain conns, which go on as ever.
#[test]
fn a_packet_of_a_wide_conn_ends_under_a_name_of_its_own() {
    let mut h = web();
    (0..8).step_by(2).for_each(|last| {
        make_wide(&mut h, last);
    });
    let out = h.receive(CLIENT_PORT, packets(client, TcpFlags::SYN));
    assert_eq!(out.transmitted.len(), 4, "the others made plain conns");
    assert_eq!(h.all_drops(), [(DropReason::NoTreatment, 4)]);
    let out = h.receive(CLIENT_PORT, packets(client, TcpFlags::ACK));
    assert_eq!(out.transmitted.len(), 4);
    let to_local = PORT_MACS[BACKEND_PORT.index()];
    let answers = (0..8).step_by(2).map(|last| packet(to_local, &back(last), TcpFlags::ACK, b""));
    assert!(h.receive(BACKEND_PORT, answers).transmitted.is_empty());
    assert_eq!(h.all_drops(), [(DropReason::NoTreatment, 12)]);
    assert_eq!((h.pipeline.conns().len(), h.pipeline.conns().wide_len()), (4, 4));
}

/// An ICMP error about one is sent to nobody.
#[test]
fn an_error_about_a_wide_conn_ends_likewise() {
    let mut h = web();
    make_wide(&mut h, 1);
    // What was sent to the client, quoted by a router on its way.
    let sent = FlowKey::from(&Tuple::from(&client(1)).reversed());
    let quoted = packet(PORT_MACS[0], &sent, TcpFlags::ACK, b"data");
    let mut message = [0; 8 + 40];
    message[..4].copy_from_slice(&[3, 1, 0, 0]);
    message[8..].copy_from_slice(&quoted[14..54]);
    let sum = sluice_wire::checksum::compute(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let router = Ipv4Addr::new(203, 0, 113, 1).to_bits();
    let key = FlowKey { src: router, dst: VIP.to_bits(), protocol: 1, ..FlowKey::default() };
    let out = h.receive(CLIENT_PORT, [ip_frame(PORT_MACS[0], &key, 64, &message)]);
    assert!(out.transmitted.is_empty());
    assert_eq!(h.all_drops(), [(DropReason::NoTreatment, 1)]);
}

/// It expires like any other, and nothing is left of it in the counters.
#[test]
fn a_wide_conn_expires_and_is_accounted_for() {
    let mut h = web();
    let conn = make_wide(&mut h, 1);
    assert!(conn.is_wide());
    h.pass(h.compiled.timeouts[0][ConnState::Established as usize] / 2);
    assert_eq!(h.pipeline.conns().wide_len(), 1);
    while !h.pipeline.conns().is_empty() {
        h.pass(60_000);
    }
    assert_eq!((h.counters.conns.get(), h.counters.conns_expired.get()), (0, 1));
    let left = h.counters.backends().iter().map(|backend| backend.conns.get()).sum::<u64>();
    assert_eq!(left, 0);
    // Its flow is free again.
    let out = h.receive(CLIENT_PORT, [packet(PORT_MACS[0], &client(1), TcpFlags::SYN, b"")]);
    assert_eq!((out.transmitted.len(), h.pipeline.conns().len()), (1, 1));
}
