//! What fuzzers run over the packet path, each a function of bytes that panics where something is
//! wrong. `dataplane/path/fuzz/` hands them to libFuzzer; `tests/corpus.rs` replays what that found.

use std::net::Ipv4Addr;

use sluice_api::{AdminState, Mode, Protocol, SnapshotService};
use sluice_wire::arp;
use sluice_wire::flow_head::FlowHead;
use sluice_wire::headers::Ipv4Frame;
use sluice_wire::tcp::TcpFlags;
use sluice_wire::{checksum, icmp, ipv4, tcp, udp};

use super::{
    BACKEND_PORT, CLIENT_PORT, Harness, Out, PORT_MACS, VIP, flow, ip_frame, is_reachable, segment,
    snapshot,
};
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::ids::InterfaceId;
use crate::next_hop::{NeighbourState, NeighbourUpdate, NextHop};
use crate::pipeline::ToMain;

/// A target: it panics where something is wrong.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 3] =
    [("parsers", parsers), ("frames", frames), ("conversation", conversation)];

/// Most steps of a conversation: what is longer finds nothing new and takes time.
const STEPS: usize = 256;

/// Every parser of `sluice-wire`, with what callers rely on: what it says lies within the bytes.
pub fn parsers(data: &[u8]) {
    if let Ok((header, len)) = ipv4::parse(data) {
        assert!((20..=data.len()).contains(&len) && usize::from(header.total_len()) <= data.len());
    }
    if let Ok((_, len)) = tcp::parse(data) {
        assert!((20..=data.len()).contains(&len));
    }
    if let Ok((_, len)) = udp::parse(data) {
        assert!((8..=data.len()).contains(&len));
    }
    if let Ok(quote) = icmp::quote(data) {
        assert!(quote.l4.len() >= 8 && quote.header_len >= 20);
    }
    if let Ok(header) = icmp::parse(data)
        && header.is_echo_request()
    {
        let mut reply = data.to_vec();
        icmp::make_echo_reply(&mut reply);
        assert_eq!(checksum::compute(&reply), 0);
    }
    if let Ok(packet) = arp::parse(data) {
        let reply = arp::build_reply(packet, PORT_MACS[0]);
        assert!(arp::parse(&reply[14..]).is_ok());
    }
    // Both take a frame's head as it lies; who asks further has found it sound.
    let (head, frame) = (FlowHead::of(data), Ipv4Frame::parse(data));
    if let (Some(head), Ok(frame)) = (head, frame)
        && frame.is_plain_ipv4()
    {
        assert_eq!(head.protocol(), frame.ip.protocol);
    }
}

/// The bytes of an input, one after the other; zeros when they are used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u32 {
        self.bytes(4).iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// Two services in full-NAT, one in DR, with the backends of which two bits each say how they are.
fn services(states: u16) -> Vec<SnapshotService> {
    let mut services = vec![
        super::service("web", 80, Protocol::Tcp, Mode::FullNat, 2),
        super::service("dns", 53, Protocol::Udp, Mode::FullNat, 2),
        super::service("web-dr", 8080, Protocol::Tcp, Mode::Dr, 2),
    ];
    let backends = services.iter_mut().flat_map(|service| &mut service.backends);
    for (nth, backend) in backends.enumerate() {
        match states >> (2 * nth) & 3 {
            1 => backend.state = AdminState::Drain,
            2 => backend.healthy = false,
            3 => backend.weight = 0,
            _ => {}
        }
    }
    services
}

fn client(number: u8) -> FlowKey {
    let port = [80, 80, 53, 8080][usize::from(number & 3)];
    let protocol = if port == 53 { Protocol::Udp } else { Protocol::Tcp };
    let source = (Ipv4Addr::new(198, 51, 100, 1 + (number >> 2 & 3)), 1 + u16::from(number >> 4));
    flow(protocol, source, (VIP, port))
}

/// A frame with the checksum of its IPv4 header put right, so that more than that is looked at.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 34 {
        bytes[24..26].fill(0);
        let sum = checksum::compute(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// What leaves is well formed, by the port that it says, and to no group.
fn check_out(out: &Out) {
    for (port, frame) in &out.transmitted {
        let bytes = frame.bytes();
        assert!(bytes.len() >= 42, "{bytes:02x?}");
        assert_eq!(bytes[6..12], PORT_MACS[port.index()].0, "from the port's own address");
        if bytes[12..14] == [8, 0] {
            assert_eq!(bytes[0] & 1, 0, "to one station");
            assert!(ipv4::checksum_is_valid(&bytes[14..34]), "{bytes:02x?}");
        }
    }
}

/// Every line of the table counts for its backend, as a conn or as one that rests.
fn check_counts(h: &Harness) {
    let slots = h.slots.all_backends();
    let counted: u64 = slots
        .map(|(_, slot)| h.counters.backend(slot))
        .map(|backend| backend.conns.get() + backend.resting.get())
        .sum();
    assert_eq!(counted, u64::from(h.pipeline.conns().len() as u32));
}

/// One frame, as it is and with its header's checksum put right, by either port: it has one fate, and
/// leaves well formed if it does.
pub fn frames(data: &[u8]) {
    let mut h = Harness::new(&snapshot(1, services(0)), 64);
    for bytes in [data.to_vec(), mended(data)] {
        for port in [CLIENT_PORT, BACKEND_PORT] {
            let out = h.receive(port, [bytes.clone()]);
            check_out(&out);
            assert!(out.transmitted.len() + out.to_kernel.len() <= 1, "one fate");
            check_counts(&h);
        }
    }
}

/// A conversation of clients, backends, neighbours and an operator, to its end: no conn, port or held
/// packet is left behind.
pub fn conversation(data: &[u8]) {
    let mut input = Input(data);
    let mut h = Harness::new(&snapshot(1, services(0)), 64);
    for generation in 2..2 + STEPS as u64 {
        if input.0.is_empty() {
            break;
        }
        check_out(&step(&mut input, &mut h, generation));
        check_counts(&h);
    }
    // Whom nobody has asked for meanwhile does not answer.
    for message in std::mem::take(&mut h.messages) {
        if let ToMain::Want { hop, .. } = message {
            let update = NeighbourUpdate { hop, state: NeighbourState::Failed };
            h.update_neighbour(&update, &mut Out::default());
        }
    }
    // Longer than any timeout, in steps that no wheel skips.
    for _ in 0..120 {
        h.pass(10_000);
    }
    assert_eq!(h.pipeline.conns().len(), 0, "every conn ends");
    check_counts(&h);
    assert_eq!(
        (h.pipeline.held(), h.counters.resting.get()),
        (0, 0),
        "nothing waits, nothing rests"
    );
}

fn step(input: &mut Input, h: &mut Harness, generation: u64) -> Out {
    match input.byte() % 8 {
        0 | 1 => {
            let bytes = from(&client(input.byte()), 0, input);
            h.receive(CLIENT_PORT, [bytes])
        }
        2 | 3 => {
            let answer = h.pipeline.reply_flow(&client(input.byte()));
            let bytes = answer.map(|flow| from(&flow, 1, input));
            h.receive(BACKEND_PORT, bytes)
        }
        4 => {
            let port = u16::from(input.byte() & 1);
            let len = usize::from(input.byte());
            h.receive(InterfaceId(port), [mended(input.bytes(len))])
        }
        5 => {
            h.pass(input.number() >> 12);
            Out::default()
        }
        6 => {
            h.apply(&snapshot(generation, services(input.number() as u16 & 0xfff)));
            Out::default()
        }
        _ => neighbour(input, h),
    }
}

/// A packet of a flow, with flags and numbers of the input; a quarter of them ICMP errors about it.
fn from(flow: &FlowKey, port: usize, input: &mut Input) -> Vec<u8> {
    let (kind, flags) = (input.byte(), TcpFlags(input.byte()));
    let numbers = (input.number(), input.number());
    let data = input.bytes(usize::from(kind & 15));
    if kind < 192 {
        return segment(PORT_MACS[port], flow, flags, numbers, data);
    }
    // Of what went the other way.
    let quoted = segment(PORT_MACS[port], &back(flow), flags, numbers, &[]);
    let mut message =
        [&[if kind & 1 == 0 { 3 } else { 11 }, flags.0, 0, 0, 0, 0, 5, 0], &quoted[14..]].concat();
    icmp::fill_checksum(&mut message);
    let error = FlowKey { protocol: 1, ..*flow };
    ip_frame(PORT_MACS[port], &error, 64, &message)
}

fn back(flow: &FlowKey) -> FlowKey {
    FlowKey {
        src: flow.dst,
        dst: flow.src,
        src_port: flow.dst_port,
        dst_port: flow.src_port,
        ..*flow
    }
}

/// Next hops are asked for from now on, or not; one answers, moves or fails.
fn neighbour(input: &mut Input, h: &mut Harness) -> Out {
    let what = input.byte();
    h.resolves = what & 1 == 0;
    let (interface, address) = match what >> 1 & 3 {
        0 => (BACKEND_PORT, Ipv4Addr::new(10, 0, 1, 1)),
        1 => (BACKEND_PORT, Ipv4Addr::new(10, 0, 1, 2)),
        _ => (CLIENT_PORT, super::GATEWAY),
    };
    let state = match what >> 3 & 3 {
        0 => NeighbourState::Failed,
        1 => NeighbourState::Reachable(super::PEER_MAC),
        _ => is_reachable(interface, address).state,
    };
    let mut out = Out::default();
    let update = NeighbourUpdate { hop: NextHop { interface, address: address.to_bits() }, state };
    h.update_neighbour(&update, &mut out);
    out
}
