//! Expiry keeps pace with admission.

use std::net::Ipv4Addr;

use sluice_api::{DropReason, Mode, Protocol, Snapshot, Timeouts};
use sluice_wire::tcp::TcpFlags;

use super::EXPIRE_PER_LATE_ROUND;
use crate::burst::BURST;
use crate::table::conn::wheel::SLOT_MS;
use crate::testkit::{self, *};

/// A service whose conns that nobody answers last for so long, with enough local ports for all.
fn web(timeout_ms: u32) -> Snapshot {
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 8);
    service.timeouts = Timeouts { tcp_syn_sent_ms: timeout_ms, ..Timeouts::default() };
    snapshot(1, vec![service])
}

fn syn(number: u32) -> Vec<u8> {
    let client = Ipv4Addr::from_bits(0x0b00_0000 + number / 50_000);
    let key = flow(Protocol::Tcp, (client, (number % 50_000) as u16 + 1), (VIP, 80));
    packet(PORT_MACS[0], &key, TcpFlags::SYN, b"")
}

/// As fast as a worker can admit, 32 in each burst, the table holds what lives at a time and not more:
/// with half the pace it was full.
#[test]
fn a_table_holds_what_lives_at_a_time_under_any_rate() {
    const TIMEOUT_MS: u32 = 200;
    /// Bursts in a ms: 320,000 conns a second.
    const BURSTS_PER_MS: u32 = 10;
    const LIVE: u32 = TIMEOUT_MS * BURSTS_PER_MS * BURST as u32;
    // What becomes due within a slot of the wheel waits for its end, and some ms for its turn.
    const LATE: u32 = (SLOT_MS + 16) * BURSTS_PER_MS * BURST as u32;
    let mut h = Harness::new(&web(TIMEOUT_MS), LIVE + LATE);
    let (mut number, mut most_late) = (0, 0);
    for _ in 0..1_500 {
        for _ in 0..BURSTS_PER_MS {
            let packets = (number..number + BURST as u32).map(syn);
            number += BURST as u32;
            h.receive(CLIENT_PORT, packets);
            h.pipeline.keep_pace(&h.compiled, h.now);
        }
        h.now += 1;
        most_late = most_late.max(h.pipeline.conns().expiry_behind(h.now).unwrap_or_default());
    }
    assert_eq!(h.drops(DropReason::ConnTableFull), 0, "{} conns", h.pipeline.conns().len());
    assert_eq!(h.all_drops(), []);
    println!("at most {most_late} ms behind the end of a slot");
    assert!(most_late <= 64, "{most_late} ms");
}

/// 162,036 conns that end at once, on a worker that has nothing else to do: it does not nap before
/// they are gone.
#[test]
fn an_idle_worker_is_behind_until_all_that_is_due_is_gone() {
    const CONNS: u32 = 162_036;
    const TIMEOUT_MS: u32 = 1_000;
    let mut h = Harness::new(&web(TIMEOUT_MS), CONNS);
    h.receive(CLIENT_PORT, (0..CONNS).map(syn));
    assert!(!h.pipeline.keep_pace(&h.compiled, h.now));
    assert_eq!(h.pipeline.conns().len(), CONNS as usize, "{:?}", h.all_drops());
    // Whatever comes to an idle worker's mind first, some ms late.
    h.now += TIMEOUT_MS + 2 * SLOT_MS;
    let mut rounds = 0;
    while h.pipeline.keep_pace(&h.compiled, h.now) {
        rounds += 1;
        assert!(!h.pipeline.conns().is_empty());
    }
    assert!(h.pipeline.conns().is_empty());
    assert!(rounds <= CONNS as usize / EXPIRE_PER_LATE_ROUND, "{rounds} rounds");
    assert!(!h.pipeline.keep_pace(&h.compiled, h.now), "and then it may nap");
}

/// What a round looks at is bounded by what it admitted.
#[test]
fn a_rounds_expiry_is_bounded() {
    let mut h = Harness::new(&web(1_000), 20_000);
    h.receive(CLIENT_PORT, (0..10_000).map(syn));
    h.pipeline.keep_pace(&h.compiled, h.now);
    let looked_at = |h: &mut Harness, new: std::ops::Range<u32>| {
        let before = h.counters.conns_expired.get();
        h.receive(CLIENT_PORT, new.map(syn));
        h.pipeline.keep_pace(&h.compiled, h.now);
        h.counters.conns_expired.get() - before
    };
    // The end of the slot in which all are due.
    h.now = (h.now + 1_000).next_multiple_of(SLOT_MS);
    let before_it = h.now - SLOT_MS;
    h.pipeline.expire(&h.compiled, before_it, usize::MAX);
    assert_eq!(h.pipeline.conns().len(), 10_000);
    assert_eq!(looked_at(&mut h, 0..0), 16, "in time");
    assert_eq!(looked_at(&mut h, 20_000..20_032), 16 + 32);
    h.now += 4;
    assert_eq!(looked_at(&mut h, 0..0), 64, "late");
    assert_eq!(looked_at(&mut h, 30_000..30_032), 64 + 32);
}
