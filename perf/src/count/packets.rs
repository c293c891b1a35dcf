//! Whole packets through the whole pipeline, burst by burst.

use sluice_api::Mode;
use sluice_path::flow::FlowKey;
use sluice_path::pipeline::EXPIRE_PER_ROUND;
use sluice_path::table::conn::wheel::SLOT_MS;
use sluice_path::testkit::{BACKEND_PORT, CLIENT_PORT, Random};
use sluice_wire::tcp::TcpFlags;

use super::inside::counted;
use super::runner::Runner;
use super::workers;
use crate::setup::Setup;
use crate::traffic::{below, client};

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
    ("full-nat-beside-wide", "packet", full_nat_beside_wide),
    ("dr-established", "packet", dr_established),
    ("new-connection", "packet", new_connection),
    ("not-ours", "packet", not_ours),
    ("syn-flood-full-table", "packet", syn_flood_full_table),
    ("expiry", "conn", expiry),
    ("rss-established-1-worker", "packet", || workers::rss_established(1)),
    ("rss-established-2-workers", "packet", || workers::rss_established(2)),
    ("rss-established-4-workers", "packet", || workers::rss_established(4)),
    ("rss-established-8-workers", "packet", || workers::rss_established(8)),
    ("rss-new-1-worker", "packet", || workers::rss_new(1)),
    ("rss-new-2-workers", "packet", || workers::rss_new(2)),
    ("rss-new-4-workers", "packet", || workers::rss_new(4)),
    ("rss-new-8-workers", "packet", || workers::rss_new(8)),
    ("handover-2-workers", "packet", || workers::handover(2)),
    ("handover-4-workers", "packet", || workers::handover(4)),
    ("handover-8-workers", "packet", || workers::handover(8)),
];

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

/// With as many wide conns in the index beside: they are to cost the others nothing.
fn full_nat_beside_wide() -> u64 {
    let mut runner = Runner::beside_wide(Mode::FullNat, ROOM, FLOWS);
    runner.bring_up(FLOWS);
    let packets = runner.send(CLIENT_PORT, TcpFlags::ACK, order(1, FLOWS).map(client), true);
    assert_eq!(runner.dropped(), 0, "all were forwarded");
    assert_eq!(runner.setup.pipeline.conns().wide_len(), FLOWS as usize);
    packets
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
