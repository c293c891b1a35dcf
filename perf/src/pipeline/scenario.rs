//! The scenarios: which packets, in which order, over which conns.

use sluice_api::Mode;
use sluice_path::burst::BURST;
use sluice_path::flow::FlowKey;
use sluice_path::ids::InterfaceId;
use sluice_path::memory::Pages;
use sluice_path::testkit::{BACKEND_PORT, CLIENT_PORT, Random};
use sluice_wire::tcp::TcpFlags;

use super::bench::{Bench, Setup, Traffic};
use super::goal::{self, Goal};
use super::measure::{Figures, Samples};
use super::memory_floor::{self, LINE_BYTES, MEMORY_FLOOR_BURSTS};
use super::report::{Row, round};
use super::{Options, PerfError, churn, expiry_sweep, snapshot_pause};
use crate::traffic::{Template, below, client};

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
    /// Whole lives of TCP conns in full-NAT, interleaved: see [`churn`](super::churn).
    Churn,
    /// Adopting snapshots while forwarding: see [`snapshot_pause`](super::snapshot_pause).
    SnapshotPause,
    /// Forwarding while idle conns expire: see [`expiry_sweep`](super::expiry_sweep).
    ExpirySweep,
}

impl Scenario {
    const ALL: [Scenario; 9] = [
        Scenario::FullNatEstablished,
        Scenario::FullNatBothWays,
        Scenario::DrEstablished,
        Scenario::NewConnection,
        Scenario::NotOurs,
        Scenario::SynFloodFullTable,
        Scenario::Churn,
        Scenario::SnapshotPause,
        Scenario::ExpirySweep,
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
            Scenario::Churn => "churn",
            Scenario::SnapshotPause => "snapshot-pause",
            Scenario::ExpirySweep => "expiry-sweep",
        }
    }

    const fn flows(self) -> &'static [u32] {
        match self {
            Scenario::FullNatEstablished => &[1, 10_000, 1_000_000, 10_000_000],
            Scenario::SnapshotPause => &[snapshot_pause::FLOWS],
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

/// The rows that the options ask for, and what they leave out, in words.
pub fn rows(options: &Options) -> Result<(Vec<Wanted>, Vec<String>), PerfError> {
    let name = options.only.clone().unwrap_or_default();
    if !Scenario::ALL.iter().any(|s| s.name().contains(&name)) {
        let known = Scenario::ALL.map(Scenario::name).join(", ");
        return Err(PerfError::NoScenario { name, known });
    }
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for scenario in Scenario::ALL {
        for &flows in scenario.flows() {
            if !scenario.name().contains(&name) {
                left_out.push(format!("{} with {flows} flows: not in --only", scenario.name()));
            } else if flows > options.most_flows {
                left_out.push(format!("{} with {flows} flows: --most-flows", scenario.name()));
            } else {
                rows.push(Wanted { scenario, flows });
            }
        }
    }
    Ok((rows, left_out))
}

/// Measure a row.
pub fn measure(bench: &mut Bench, wanted: &Wanted, options: &Options) -> Row {
    let flows = wanted.flows;
    bench.preempted = 0;
    let mut row = match wanted.scenario {
        Scenario::FullNatEstablished => established(bench, Mode::FullNat, flows),
        Scenario::DrEstablished => established(bench, Mode::Dr, flows),
        Scenario::FullNatBothWays => both_ways(bench, flows),
        Scenario::NewConnection => new_connections(bench, flows),
        Scenario::NotOurs => not_ours(bench, flows),
        Scenario::SynFloodFullTable => syn_flood(bench, flows),
        Scenario::Churn => churn::measure(bench, flows),
        Scenario::SnapshotPause => snapshot_pause::measure(bench, options),
        Scenario::ExpirySweep => expiry_sweep::measure(bench, flows),
    };
    row.scenario = wanted.scenario.name();
    row.flows = flows;
    row.preempted_bursts = bench.preempted;
    let goal_ns = goal::ns_per_packet(row.scenario, flows);
    row.goal_ns = goal_ns;
    row.goal = row.goal.or(goal_ns.map(|g| Goal::at_most("ns_per_packet", g, row.ns_per_packet)));
    row
}

/// Rounds of measuring: cycles of the bursts of each, and of the floor just before it.
#[derive(Default)]
pub struct Rounds {
    /// Of the scenario.
    pub cycles: Vec<Vec<u64>>,
    /// Of the floor.
    pub floor: Vec<u64>,
}

impl Rounds {
    /// The floor, before a round.
    pub fn floor(&mut self, bench: &mut Bench) {
        let frame = Template::new(CLIENT_PORT, client(1), TcpFlags::ACK);
        self.floor.extend(bench.floor(bench.packets, frame.bytes(), CLIENT_PORT));
    }

    fn memory_floor(bench: &Bench, setup: &Setup) -> Figures {
        let conns = setup.pipeline.conns();
        let sizes = (conns.index_bytes() / LINE_BYTES, conns.capacity());
        memory_floor::measure(sizes, MEMORY_FLOOR_BURSTS, Pages::Transparent, bench.hz())
    }

    /// The row that they make.
    pub fn row(&self, bench: &Bench, setup: &Setup) -> Row {
        let samples = |cycles: &[u64]| Samples::new(cycles, BURST, bench.hz()).figures();
        let all: Vec<u64> = self.cycles.concat();
        let mut row = Row::new(samples(&all), samples(&self.floor));
        row.round_medians = self.cycles.iter().map(|c| round(samples(c).median)).collect();
        row.memory_floor_ns = round(Self::memory_floor(bench, setup).median);
        let conns = setup.pipeline.conns();
        row.bytes_per_conn = Some((conns.bytes() as f64 / conns.capacity() as f64).round());
        row
    }
}

/// A warm-up, then rounds of `packets` packets each.
fn rounds(
    bench: &mut Bench,
    setup: &mut Setup,
    packets: usize,
    traffic: &mut impl Traffic,
) -> Rounds {
    let mut rounds = Rounds::default();
    bench.run(setup, packets, traffic);
    for _ in 0..bench.rounds {
        rounds.floor(bench);
        rounds.cycles.push(bench.run(setup, packets, traffic));
    }
    rounds
}

/// Bring up conns from their SYN to established. In full-NAT the replies' flows come back.
pub fn bring_up(bench: &mut Bench, setup: &mut Setup, flows: &[FlowKey]) -> Vec<FlowKey> {
    let before = setup.pipeline.conns().len();
    send(bench, setup, CLIENT_PORT, TcpFlags::SYN, flows.iter().copied());
    let replies: Vec<FlowKey> =
        flows.iter().filter_map(|key| setup.pipeline.reply_flow(key)).collect();
    let syn_ack = TcpFlags::SYN.with(TcpFlags::ACK);
    send(bench, setup, BACKEND_PORT, syn_ack, replies.iter().copied());
    send(bench, setup, CLIENT_PORT, TcpFlags::ACK, flows.iter().copied());
    assert_eq!(setup.pipeline.conns().len(), before + flows.len(), "all conns were made");
    replies
}

/// Send one packet of each flow.
pub fn send(
    bench: &mut Bench,
    setup: &mut Setup,
    port: InterfaceId,
    flags: TcpFlags,
    mut flows: impl ExactSizeIterator<Item = FlowKey>,
) {
    let packets = flows.len();
    let mut template = Template::new(port, client(0), flags);
    let mut next = || (port, template.with(flows.next().unwrap_or(client(0))));
    bench.run(setup, packets, &mut next);
}

/// The first clients.
pub fn clients(flows: u32) -> Vec<FlowKey> {
    (0..flows).map(client).collect()
}

fn established(bench: &mut Bench, mode: Mode, flows: u32) -> Row {
    let mut setup = Setup::one_service(mode, flows.max(1_024));
    bring_up(bench, &mut setup, &clients(flows));
    let mut random = Random(1);
    let mut template = Template::new(CLIENT_PORT, client(0), TcpFlags::ACK);
    let mut next = || (CLIENT_PORT, template.with(client(below(&mut random, flows))));
    let rounds = rounds(bench, &mut setup, bench.packets, &mut next);
    rounds.row(bench, &setup)
}

fn both_ways(bench: &mut Bench, flows: u32) -> Row {
    let mut setup = Setup::one_service(Mode::FullNat, flows);
    let replies = bring_up(bench, &mut setup, &clients(flows));
    let mut random = Random(2);
    let mut from_client = Template::new(CLIENT_PORT, client(0), TcpFlags::ACK);
    let mut from_backend = Template::new(BACKEND_PORT, replies[0], TcpFlags::ACK);
    let mut next = || {
        let flow = below(&mut random, flows);
        match random.below(2) {
            0 => (CLIENT_PORT, from_client.with(client(flow))),
            _ => (BACKEND_PORT, from_backend.with(replies[flow as usize])),
        }
    };
    let rounds = rounds(bench, &mut setup, bench.packets, &mut next);
    rounds.row(bench, &setup)
}

/// Half of the flows exist already; the other half is new.
fn new_connections(bench: &mut Bench, flows: u32) -> Row {
    let most = flows as usize / 2 / (bench.rounds + 1);
    let packets = bench.packets.min(most / BURST * BURST);
    let old = flows - (packets * (bench.rounds + 1)) as u32;
    let mut setup = Setup::one_service(Mode::FullNat, flows);
    send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, (0..old).map(client));
    let mut fresh = old..flows;
    let mut template = Template::new(CLIENT_PORT, client(0), TcpFlags::SYN);
    let mut next = || (CLIENT_PORT, template.with(client(fresh.next().unwrap_or_default())));
    let rounds = rounds(bench, &mut setup, packets, &mut next);
    assert_eq!(setup.pipeline.conns().len(), flows as usize, "all conns were made");
    rounds.row(bench, &setup)
}

fn not_ours(bench: &mut Bench, flows: u32) -> Row {
    let mut setup = Setup::one_service(Mode::FullNat, flows);
    send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, (0..flows).map(client));
    let mut random = Random(3);
    let mut template = Template::new(CLIENT_PORT, client(0), TcpFlags::ACK);
    let mut next = || {
        let key = FlowKey { dst: 0x0808_0808, ..client(below(&mut random, flows)) };
        (CLIENT_PORT, template.with(key))
    };
    let rounds = rounds(bench, &mut setup, bench.packets, &mut next);
    rounds.row(bench, &setup)
}

fn syn_flood(bench: &mut Bench, flows: u32) -> Row {
    let mut setup = Setup::one_service(Mode::FullNat, flows);
    send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, (0..flows).map(client));
    assert_eq!(setup.pipeline.conns().len(), flows as usize, "the table is full");
    let mut attacker = flows;
    let mut template = Template::new(CLIENT_PORT, client(0), TcpFlags::SYN);
    let mut next = || {
        attacker += 1;
        (CLIENT_PORT, template.with(client(attacker)))
    };
    let rounds = rounds(bench, &mut setup, bench.packets, &mut next);
    rounds.row(bench, &setup)
}
