//! Local ports by whole packets: none is refused while one is free.

use std::net::Ipv4Addr;

use sluice_api::{DropReason, Mode, Pool, Protocol, Snapshot, SnapshotService, Timeouts};
use sluice_wire::tcp::TcpFlags;

use crate::burst::{BURST, Meta};
use crate::flow::FlowKey;
use crate::ids::WorkerId;
use crate::table::conn::wheel::SLOT_MS;
use crate::table::local_port::OwnPorts;
use crate::testkit::{self, *};

/// Idle timeout of conns that no backend answers.
const SHORT_MS: u32 = 100;

/// A UDP service: a conn is short until its backend answers, then it lasts for long.
fn dns() -> SnapshotService {
    SnapshotService {
        timeouts: Timeouts {
            udp_one_way_ms: SHORT_MS,
            udp_two_way_ms: 604_800_000,
            ..Timeouts::default()
        },
        ..testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 1)
    }
}

fn in_pool(generation: u64, service: SnapshotService, pool: &str) -> Snapshot {
    let mut snapshot = testkit::snapshot(generation, vec![service]);
    let spare = Pool::new("spare", vec![Ipv4Addr::new(10, 0, 255, 9).into()]);
    snapshot.pools.push(spare);
    snapshot.services.iter_mut().for_each(|s| s.pool = Some(pool.to_owned()));
    snapshot
}

/// One worker, and clients that never come twice.
struct Site {
    h: Harness,
    clients: u32,
}

impl Site {
    fn new(worker: u16, workers: u16) -> Self {
        let h = Harness::worker(&in_pool(1, dns(), "lan"), 100_000, WorkerId(worker), workers);
        Site { h, clients: 0 }
    }

    /// So many new conns, a burst at a time; the return flows of those that were made.
    fn make(&mut self, count: usize) -> Vec<FlowKey> {
        let mut made = Vec::new();
        for start in (0..count).step_by(BURST) {
            let packets: Vec<_> = (start..count.min(start + BURST))
                .map(|_| {
                    self.clients += 1;
                    let address = Ipv4Addr::from_bits(0x6440_0000 + self.clients);
                    let key = flow(Protocol::Udp, (address, 999), (VIP, 53));
                    packet(PORT_MACS[0], &key, TcpFlags::NONE, b"?")
                })
                .collect();
            // As its own: which worker a client's packets come to is another matter.
            let out = self.h.receive_meta(Meta::received(CLIENT_PORT, true), packets);
            made.extend(out.transmitted.iter().map(|(_, frame)| {
                let (to, _) = inspect(frame);
                let (src_port, dst_port) = (to.dst_port, to.src_port);
                FlowKey { src: to.dst, dst: to.src, src_port, dst_port, ..to }
            }));
        }
        made
    }

    /// Backends answer: these conns last.
    fn keep(&mut self, conns: &[FlowKey]) {
        let answers = conns.iter().map(|c| packet(PORT_MACS[1], c, TcpFlags::NONE, b"!"));
        let out = self.h.receive_meta(Meta::received(BACKEND_PORT, true), answers);
        assert_eq!(out.transmitted.len(), conns.len());
    }

    /// Let the short ones end.
    fn end_short(&mut self) {
        self.h.pass(SHORT_MS + SLOT_MS);
    }

    fn refused(&self) -> u64 {
        self.h.drops(DropReason::LocalPortsExhausted)
    }

    /// Short conns, all ports that are left over and over, some at once: none is refused.
    fn use_all_ports(&mut self, long: usize, rounds: usize) {
        let left = <OwnPorts>::by_modulo(WorkerId(0), 1).capacity(1) as usize - long;
        let at_once = left.min(1_000);
        let mut made = 0;
        while made < rounds * left {
            assert_eq!(self.make(at_once).len(), at_once, "{made} made, {long} last");
            self.end_short();
            made += at_once;
        }
        assert_eq!(self.refused(), 0, "of {made}, {long} last");
    }
}

#[test]
fn ports_in_use_for_long_hide_none_that_is_free() {
    // Made together, so in a row: 0.5 %, 46 % and 98 % of 64,512.
    for long in [300, 29_675, 63_222] {
        let mut site = Site::new(0, 1);
        let conns = site.make(long);
        site.keep(&conns);
        site.use_all_ports(long, 2);
    }
}

#[test]
fn scattered_ports_in_use_hide_none_that_is_free() {
    let mut site = Site::new(0, 1);
    let conns = site.make(64_512);
    let mut random = Random::from_env();
    let long: Vec<_> = conns.into_iter().filter(|_| random.below(50) != 0).collect();
    site.keep(&long);
    site.end_short();
    site.use_all_ports(long.len(), 3);
}

#[test]
fn of_three_workers_none_refuses_at_a_quarter_of_use() {
    for worker in 0..3 {
        let mut site = Site::new(worker, 3);
        let conns = site.make(21_504 / 4);
        site.keep(&conns);
        assert!(conns.iter().all(|conn| conn.dst_port.0 % 3 == worker));
        for _ in 0..6 {
            assert_eq!(site.make(10_000).len(), 10_000);
            site.end_short();
        }
        assert_eq!(site.refused(), 0);
    }
}

#[test]
fn conns_of_a_former_pool_count_for_nothing_in_the_new_one_and_again_in_their_own() {
    let mut site = Site::new(0, 1);
    let conns = site.make(64_512);
    site.keep(&conns);
    assert_eq!(site.make(1), []);
    site.h.apply(&in_pool(2, dns(), "spare"));
    assert_eq!(site.make(1_000).len(), 1_000);

    // Back in the first pool, which is as full as before; until some end.
    site.h.apply(&in_pool(3, dns(), "lan"));
    assert_eq!(site.make(1), []);
    let mut other = dns();
    other.timeouts.udp_two_way_ms = 1;
    site.h.apply(&in_pool(4, other, "lan"));
    site.h.pass(1_000);
    site.h.apply(&in_pool(5, dns(), "lan"));
    site.end_short();
    let left = site.h.pipeline.conns().len();
    assert_eq!(site.make(64_512).len(), 64_512 - left);
}

#[test]
fn a_service_that_went_and_comes_back_finds_what_its_old_conns_left() {
    let mut site = Site::new(0, 1);
    let conns = site.make(64_000);
    site.keep(&conns);
    let mut nothing = in_pool(2, dns(), "lan");
    nothing.services.clear();
    site.h.apply(&nothing);
    site.h.apply(&in_pool(3, dns(), "lan"));
    assert_eq!(site.make(1_000).len(), 512);
    // Its pool gets another address, and loses it with all conns on the first one going on.
    site.end_short();
    let mut wider = in_pool(4, dns(), "lan");
    wider.pools[0].addresses.push(Ipv4Addr::new(10, 0, 255, 2).into());
    site.h.apply(&wider);
    assert_eq!(site.make(10_000).len(), 10_000);
    site.end_short();
    site.h.apply(&in_pool(5, dns(), "lan"));
    assert_eq!(site.make(1_000).len(), 512);
    assert_eq!(site.make(10), []);
}

#[test]
fn a_conn_whose_first_packet_ends_here_gives_its_port_back() {
    let mut site = Site::new(0, 1);
    for nth in 0..70_000 {
        let address = Ipv4Addr::from_bits(0x6450_0000 + nth);
        let key = flow(Protocol::Udp, (address, 999), (VIP, 53));
        let whole = packet(PORT_MACS[0], &key, TcpFlags::NONE, b"?");
        let dying = ip_frame(PORT_MACS[0], &key, 1, &whole[34..43]);
        site.h.receive_meta(Meta::received(CLIENT_PORT, true), [dying]);
    }
    assert!(site.h.pipeline.conns().is_empty());
    assert_eq!((site.make(64_512).len(), site.refused()), (64_512, 0));
}
