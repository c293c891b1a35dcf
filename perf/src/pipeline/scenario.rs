//! The scenarios: which packets, in which order, over which conns.

use std::net::Ipv4Addr;

use sluice_api::{Mode, Protocol};
use sluice_dataplane::burst::BURST;
use sluice_dataplane::flow::FlowKey;
use sluice_dataplane::testkit::{self, BACKEND_PORT, CLIENT_PORT, PORT_MACS, Random, VIP};
use sluice_wire::headers::Ipv4Frame;
use sluice_wire::tcp::TcpFlags;

use super::bench::{Bench, SERVICE_PORT, Setup};
use super::measure::{Figures, Samples};
use super::report::Row;
use super::{Options, PerfError};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Established TCP conns in full-NAT, packets from clients.
    FullNatEstablished,
    /// The same, packets from clients and backends mixed.
    FullNatBothWays,
    /// Established TCP conns in DR.
    DrEstablished,
    /// A SYN of a new client each time: schedule, local port, insert.
    NewConnection,
    /// Packets for addresses that are not ours, beside a table of that many conns.
    NotOurs,
    /// SYNs of new clients while the conn table is full.
    SynFloodFullTable,
}

impl Scenario {
    const ALL: [Scenario; 6] = [
        Scenario::FullNatEstablished,
        Scenario::FullNatBothWays,
        Scenario::DrEstablished,
        Scenario::NewConnection,
        Scenario::NotOurs,
        Scenario::SynFloodFullTable,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Scenario::FullNatEstablished => "full-nat-established",
            Scenario::FullNatBothWays => "full-nat-both-ways",
            Scenario::DrEstablished => "dr-established",
            Scenario::NewConnection => "new-connection",
            Scenario::NotOurs => "not-ours",
            Scenario::SynFloodFullTable => "syn-flood-full-table",
        }
    }

    const fn flows(self) -> &'static [u32] {
        match self {
            Scenario::FullNatEstablished => &[1, 10_000, 1_000_000, 10_000_000],
            _ => &[1_000_000],
        }
    }
}

/// A row to measure.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// What.
    pub scenario: Scenario,
    /// Over how many flows.
    pub flows: u32,
}

/// The rows that the options ask for.
pub fn rows(options: &Options) -> Result<Vec<Wanted>, PerfError> {
    let name = options.only.clone().unwrap_or_default();
    let chosen: Vec<Scenario> =
        Scenario::ALL.into_iter().filter(|s| s.name().contains(&name)).collect();
    if chosen.is_empty() {
        let known = Scenario::ALL.map(Scenario::name).join(", ");
        return Err(PerfError::NoScenario { name, known });
    }
    Ok(chosen
        .into_iter()
        .flat_map(|s| s.flows().iter().map(move |flows| Wanted { scenario: s, flows: *flows }))
        .filter(|wanted| wanted.flows <= options.most_flows)
        .collect())
}

/// The number of a random flow.
fn below(random: &mut Random, flows: u32) -> u32 {
    random.below(flows as usize) as u32
}

/// Client number `i`: 16 million addresses of 100.64.0.0/10 and four L4 ports.
fn client(i: u32) -> FlowKey {
    let address = Ipv4Addr::from_bits(0x6440_0000 + (i & 0x003f_ffff));
    let port = 1_024 + (i >> 22) as u16;
    testkit::flow(Protocol::Tcp, (address, port), (VIP, SERVICE_PORT))
}

/// A frame whose flow and checksums can be changed quickly.
struct Template {
    bytes: Vec<u8>,
    key: FlowKey,
}

impl Template {
    fn new(port: u16, key: FlowKey, flags: TcpFlags) -> Self {
        Template { bytes: testkit::packet(PORT_MACS[port as usize], &key, flags, &[]), key }
    }

    /// The frame for another flow.
    fn with(&mut self, key: FlowKey) -> Vec<u8> {
        let old = self.key;
        if let Ok(view) = Ipv4Frame::parse_mut(&mut self.bytes) {
            use sluice_wire::checksum::Delta;
            let ip = Delta::between_u32(old.src, key.src).and(Delta::between_u32(old.dst, key.dst));
            let l4 = ip
                .and(Delta::between_u16(old.src_port, key.src_port))
                .and(Delta::between_u16(old.dst_port, key.dst_port));
            view.ip.rewrite_addresses(key.src, key.dst, ip);
            view.src_port.set(key.src_port);
            view.dst_port.set(key.dst_port);
            let sum = l4.apply(u16::from_be_bytes([self.bytes[50], self.bytes[51]]));
            self.bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        }
        self.key = key;
        self.bytes.clone()
    }
}

/// Measure a row.
pub fn measure(bench: &mut Bench, wanted: &Wanted) -> Row {
    let packets = bench.bursts * BURST;
    let floor = floor(bench, packets);
    let (cycles, setup) = match wanted.scenario {
        Scenario::FullNatEstablished => established(bench, Mode::FullNat, wanted.flows, packets),
        Scenario::DrEstablished => established(bench, Mode::Dr, wanted.flows, packets),
        Scenario::FullNatBothWays => both_ways(bench, wanted.flows, packets),
        Scenario::NewConnection => new_connections(bench, wanted.flows, packets),
        Scenario::NotOurs => not_ours(bench, wanted.flows, packets),
        Scenario::SynFloodFullTable => syn_flood(bench, wanted.flows, packets),
    };
    let figures = Samples::new(&cycles, BURST, bench.hz()).figures();
    let mut row = Row::new(wanted.scenario.name(), wanted.flows, figures, floor);
    let conns = setup.pipeline.conns();
    row.bytes_per_conn = Some((conns.bytes() as f64 / conns.capacity() as f64).round());
    row
}

fn floor(bench: &mut Bench, packets: usize) -> Figures {
    let frame = Template::new(CLIENT_PORT, client(1), TcpFlags::ACK).bytes;
    let cycles = bench.floor(packets, || (CLIENT_PORT, frame.clone()));
    Samples::new(&cycles, BURST, bench.hz()).figures()
}

/// Bring up `flows` conns from their SYN to established. In full-NAT the replies' flows come back.
fn bring_up(bench: &mut Bench, setup: &mut Setup, flows: u32) -> Vec<FlowKey> {
    send(bench, setup, CLIENT_PORT, TcpFlags::SYN, (0..flows).map(client));
    let replies: Vec<FlowKey> =
        (0..flows).filter_map(|i| setup.pipeline.reply_flow(&client(i))).collect();
    let syn_ack = TcpFlags::SYN.with(TcpFlags::ACK);
    send(bench, setup, BACKEND_PORT, syn_ack, replies.iter().copied());
    send(bench, setup, CLIENT_PORT, TcpFlags::ACK, (0..flows).map(client));
    assert_eq!(setup.pipeline.conns().len(), flows as usize, "all conns were made");
    replies
}

/// Send one packet of each flow; cycles of each burst.
fn send(
    bench: &mut Bench,
    setup: &mut Setup,
    port: u16,
    flags: TcpFlags,
    flows: impl ExactSizeIterator<Item = FlowKey>,
) -> Vec<u64> {
    let packets = flows.len();
    let mut template = Template::new(port, client(0), flags);
    let mut flows = flows;
    bench.run(setup, packets, || (port, template.with(flows.next().unwrap_or(client(0)))))
}

fn established(bench: &mut Bench, mode: Mode, flows: u32, packets: usize) -> (Vec<u64>, Setup) {
    let mut setup = bench.setup(mode, flows.max(1_024));
    bring_up(bench, &mut setup, flows);
    let mut random = Random(1);
    let order = (0..packets).map(|_| client(below(&mut random, flows)));
    let order: Vec<FlowKey> = order.collect();
    // Twice: the first time warms up.
    send(bench, &mut setup, CLIENT_PORT, TcpFlags::ACK, order[..packets / 4].iter().copied());
    let cycles = send(bench, &mut setup, CLIENT_PORT, TcpFlags::ACK, order.into_iter());
    (cycles, setup)
}

fn both_ways(bench: &mut Bench, flows: u32, packets: usize) -> (Vec<u64>, Setup) {
    let mut setup = bench.setup(Mode::FullNat, flows);
    let replies = bring_up(bench, &mut setup, flows);
    let mut random = Random(2);
    let mut from_client = Template::new(CLIENT_PORT, client(0), TcpFlags::ACK);
    let mut from_backend = Template::new(BACKEND_PORT, replies[0], TcpFlags::ACK);
    let cycles = bench.run(&mut setup, packets, || {
        let flow = below(&mut random, flows);
        match random.below(2) {
            0 => (CLIENT_PORT, from_client.with(client(flow))),
            _ => (BACKEND_PORT, from_backend.with(replies[flow as usize])),
        }
    });
    (cycles, setup)
}

/// Half of the flows exist already; the other half is new.
fn new_connections(bench: &mut Bench, flows: u32, packets: usize) -> (Vec<u64>, Setup) {
    let fresh = (packets as u32).min(flows / 2);
    let mut setup = bench.setup(Mode::FullNat, flows);
    let old = flows - fresh;
    send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, (0..old).map(client));
    let cycles = send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, (old..flows).map(client));
    assert_eq!(setup.pipeline.conns().len(), flows as usize, "all conns were made");
    (cycles, setup)
}

fn not_ours(bench: &mut Bench, flows: u32, packets: usize) -> (Vec<u64>, Setup) {
    let mut setup = bench.setup(Mode::FullNat, flows);
    send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, (0..flows).map(client));
    let mut random = Random(3);
    let mut template = Template::new(CLIENT_PORT, client(0), TcpFlags::ACK);
    let cycles = bench.run(&mut setup, packets, || {
        let key = FlowKey { dst: 0x0808_0808, ..client(below(&mut random, flows)) };
        (CLIENT_PORT, template.with(key))
    });
    (cycles, setup)
}

fn syn_flood(bench: &mut Bench, flows: u32, packets: usize) -> (Vec<u64>, Setup) {
    let mut setup = bench.setup(Mode::FullNat, flows);
    send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, (0..flows).map(client));
    assert_eq!(setup.pipeline.conns().len(), flows as usize, "the table is full");
    let attackers = (0..packets as u32).map(|i| client(flows + i));
    let cycles = send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, attackers);
    (cycles, setup)
}
