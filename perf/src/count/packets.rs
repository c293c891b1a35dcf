//! Whole packets through the whole pipeline, burst by burst.

use sluice_api::Mode;
use sluice_dataplane::burst::{BURST, Burst, Meta};
use sluice_dataplane::flow::FlowKey;
use sluice_dataplane::pipeline::ToMain;
use sluice_dataplane::resolver::{NeighbourState, NeighbourUpdate};
use sluice_dataplane::table::wheel::SLOT_MS;
use sluice_dataplane::testkit::{self, BACKEND_PORT, CLIENT_PORT, Random};
use sluice_wire::tcp::TcpFlags;

use super::buffer::{Buffer, Lane};
use super::inside::counted;
use crate::setup::Setup;
use crate::traffic::{Template, below, client};
use sluice_dataplane::pipeline::EXPIRE_PER_ROUND;

/// Conns in the table: their lines are many times the simulated cache.
const FLOWS: u32 = 8_192;
/// Conns that there is room for.
const ROOM: u32 = FLOWS / 4 * 5;
/// Packets that are counted.
const PACKETS: u32 = 2_048;

type Scenario = (&'static str, &'static str, fn() -> u64);

/// Names, what an operation is, and how to run each.
pub const SCENARIOS: &[Scenario] = &[
    ("full-nat-from-client", "packet", full_nat_from_client),
    ("full-nat-from-backend", "packet", full_nat_from_backend),
    ("full-nat-one-flow", "packet", full_nat_one_flow),
    ("dr-established", "packet", dr_established),
    ("new-connection", "packet", new_connection),
    ("not-ours", "packet", not_ours),
    ("syn-flood-full-table", "packet", syn_flood_full_table),
    ("expiry", "conn", expiry),
];

struct Runner {
    setup: Setup<Buffer>,
    burst: Burst<Buffer>,
    lane: Lane,
}

impl Runner {
    fn new(mode: Mode, conns: u32) -> Self {
        let lane = Lane(Vec::with_capacity(2 * BURST));
        Runner { setup: Setup::one_service(mode, conns), burst: Burst::default(), lane }
    }

    /// Send a packet of each flow; counted or not.
    fn send(
        &mut self,
        port: u16,
        flags: TcpFlags,
        flows: impl IntoIterator<Item = FlowKey>,
        count: bool,
    ) -> u64 {
        let mut template = Template::new(port, client(0), flags);
        let mut buffers = Buffer::all(flows.into_iter().map(|key| template.with(key)));
        let packets = buffers.len() as u64;
        while !buffers.is_empty() {
            let count_here = buffers.len().min(BURST);
            self.burst.frames_mut().extend(buffers.drain(..count_here));
            let Runner { setup, burst, lane } = self;
            let mut run = || {
                burst.received(|_| Meta::received(port, false));
                setup.pipeline.process(burst, &setup.compiled, setup.now, lane);
            };
            if count {
                counted(&mut run)
            } else {
                run()
            }
            self.answer_wants();
        }
        packets
    }

    fn answer_wants(&mut self) {
        self.lane.0.clear();
        let Setup { pipeline, .. } = &mut self.setup;
        let messages: Vec<ToMain> = pipeline.take_messages().collect();
        for message in messages {
            if let ToMain::Want { port, address } = message {
                let state = NeighbourState::Reachable(testkit::PEER_MAC);
                let update = NeighbourUpdate { port, address, state };
                pipeline.update_neighbour(&update, &mut self.lane);
            }
        }
        self.lane.0.clear();
    }

    /// Established conns; the flows of their replies, in full-NAT.
    fn bring_up(&mut self, flows: u32) -> Vec<FlowKey> {
        self.send(CLIENT_PORT, TcpFlags::SYN, (0..flows).map(client), false);
        let reply = |i| self.setup.pipeline.reply_flow(&client(i));
        let replies: Vec<FlowKey> = (0..flows).filter_map(reply).collect();
        let syn_ack = TcpFlags::SYN.with(TcpFlags::ACK);
        self.send(BACKEND_PORT, syn_ack, replies.iter().copied(), false);
        self.send(CLIENT_PORT, TcpFlags::ACK, (0..flows).map(client), false);
        assert_eq!(self.setup.pipeline.conns().len(), flows as usize, "all conns were made");
        replies
    }

    fn dropped(&self) -> u64 {
        self.setup.pipeline.counters().dropped()
    }
}

fn order(seed: u64, flows: u32) -> impl Iterator<Item = u32> {
    let mut random = Random(seed);
    (0..PACKETS).map(move |_| below(&mut random, flows))
}

fn from_client(mode: Mode, flows: u32) -> u64 {
    let mut runner = Runner::new(mode, ROOM);
    runner.bring_up(flows);
    let packets = runner.send(CLIENT_PORT, TcpFlags::ACK, order(1, flows).map(client), true);
    assert_eq!(runner.dropped(), 0, "all were forwarded");
    packets
}

fn full_nat_from_client() -> u64 {
    from_client(Mode::FullNat, FLOWS)
}

fn full_nat_one_flow() -> u64 {
    from_client(Mode::FullNat, 1)
}

fn dr_established() -> u64 {
    from_client(Mode::Dr, FLOWS)
}

fn full_nat_from_backend() -> u64 {
    let mut runner = Runner::new(Mode::FullNat, ROOM);
    let replies = runner.bring_up(FLOWS);
    let flows = order(2, FLOWS).map(|i| replies[i as usize]);
    let packets = runner.send(BACKEND_PORT, TcpFlags::ACK, flows, true);
    assert_eq!(runner.dropped(), 0, "all were forwarded");
    packets
}

fn new_connection() -> u64 {
    let mut runner = Runner::new(Mode::FullNat, ROOM);
    let old = FLOWS - PACKETS;
    runner.send(CLIENT_PORT, TcpFlags::SYN, (0..old).map(client), false);
    let packets = runner.send(CLIENT_PORT, TcpFlags::SYN, (old..FLOWS).map(client), true);
    assert_eq!(runner.setup.pipeline.conns().len(), FLOWS as usize, "all conns were made");
    packets
}

fn not_ours() -> u64 {
    let mut runner = Runner::new(Mode::FullNat, ROOM);
    runner.send(CLIENT_PORT, TcpFlags::SYN, (0..FLOWS).map(client), false);
    let flows = order(3, FLOWS).map(|i| FlowKey { dst: 0x0808_0808, ..client(i) });
    let packets = runner.send(CLIENT_PORT, TcpFlags::ACK, flows, true);
    assert_eq!(runner.dropped(), packets, "all were dropped");
    packets
}

fn syn_flood_full_table() -> u64 {
    let mut runner = Runner::new(Mode::FullNat, FLOWS);
    // A few more than there is room for: whichever of them found none, the table is full.
    let full = FLOWS + 1_024;
    runner.send(CLIENT_PORT, TcpFlags::SYN, (0..full).map(client), false);
    let before = runner.dropped();
    let attackers = (full..full + PACKETS).map(client);
    let packets = runner.send(CLIENT_PORT, TcpFlags::SYN, attackers, true);
    assert_eq!(runner.dropped() - before, packets, "all were dropped");
    packets
}

/// Idle conns that the wheel finds, in the worker's small steps.
fn expiry() -> u64 {
    let mut runner = Runner::new(Mode::FullNat, ROOM);
    runner.send(CLIENT_PORT, TcpFlags::SYN, (0..FLOWS).map(client), false);
    let timeouts = runner.setup.snapshot.services[0].timeouts;
    let Setup { pipeline, compiled, now, .. } = &mut runner.setup;
    *now += timeouts.tcp_syn_sent_ms + SLOT_MS;
    for _ in 0..PACKETS as usize / EXPIRE_PER_ROUND {
        counted(&mut || pipeline.expire(compiled, *now, EXPIRE_PER_ROUND));
    }
    let expired = FLOWS as usize - pipeline.conns().len();
    assert_eq!(expired, PACKETS as usize, "each step found conns that were due");
    expired as u64
}
