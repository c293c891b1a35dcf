//! Several workers behind simulated NICs: honest ones, those that lie, and those without RSS.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sluice_api::{DropReason, Mode, Protocol, Snapshot};
use sluice_wire::tcp::TcpFlags;

use super::{FIRST_PACKETS, Steering, Trust};
use crate::burst::Meta;
use crate::flow::{FlowKey, Tuple};
use crate::frame::MemFrame;
use crate::ids::InterfaceId;
use crate::ids::WorkerId;
use crate::table::owner::Owners;
use crate::table::spread::Spread;
use crate::table::toeplitz::tests::real_keys;
use crate::table::toeplitz::{Reta, RssKey};
use crate::testkit::{
    self, BACKEND_PORT, CLIENT_PORT, Harness, PORT_MACS, Random, VIP, flow, inspect, packet,
};

const SYN_ACK: TcpFlags = TcpFlags(0x12);

/// How a NIC chooses the queue of a packet.
#[derive(Clone)]
enum Nic {
    /// As it says.
    Rss(Arc<Spread>),
    /// Any, packet by packet.
    Random,
    /// The first.
    OneQueue,
}

/// Workers behind two NICs.
struct Site {
    workers: Vec<Harness>,
    nics: [Nic; 2],
    random: Random,
    handed_over: u64,
}

fn spread(key: &RssKey, entries: usize, workers: u16) -> Arc<Spread> {
    Arc::new(Spread::new(key, &Reta::even(entries, workers), workers).unwrap())
}

fn services() -> Snapshot {
    let mut snapshot = testkit::snapshot(
        1,
        vec![
            testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 3),
            testkit::service("dns", 53, Protocol::Udp, Mode::FullNat, 3),
            testkit::service("direct", 81, Protocol::Tcp, Mode::Dr, 3),
        ],
    );
    let more = (2..=4).map(|last| IpAddr::from([10, 0, 255, last]));
    snapshot.pools[0].addresses.extend(more);
    snapshot
}

/// A client's flow number so to a service.
fn client(protocol: Protocol, port: u16, number: u32) -> FlowKey {
    let address = Ipv4Addr::new(198, 51, 100, (number / 10_000) as u8);
    flow(protocol, (address, 1 + (number % 10_000) as u16), (VIP, port))
}

fn reply(key: &FlowKey) -> FlowKey {
    FlowKey::from(&Tuple::from(key).reversed())
}

/// The other one of the two.
fn other(side: InterfaceId) -> InterfaceId {
    InterfaceId(1 - side.0)
}

impl Site {
    /// Workers of which `claims` says what the ports say about themselves.
    fn new(workers: u16, rule: Option<&Arc<Spread>>, claims: [bool; 2], nics: [Nic; 2]) -> Site {
        let owners = match rule {
            Some(spread) => Owners::Rss(Arc::clone(spread)),
            None => Owners::Arithmetic { workers },
        };
        let steering = Steering { owners, by_nic: claims.into() };
        let harness = |w| Harness::steered(&services(), 20_000, (w, workers), steering.clone());
        let workers = WorkerId::first(workers).map(harness).collect();
        Site { workers, nics, random: Random::from_env(), handed_over: 0 }
    }

    /// A packet comes in; what leaves, by whichever worker. Nothing is lost on the way.
    fn receive(&mut self, port: InterfaceId, key: &FlowKey, flags: TcpFlags) -> FlowKey {
        let queue = match &self.nics[port.index()] {
            Nic::Rss(spread) => usize::from(spread.queue(&Tuple::from(key))),
            Nic::Random => self.random.below(self.workers.len()),
            Nic::OneQueue => 0,
        };
        let bytes = packet(PORT_MACS[port.index()], key, flags, b"data");
        let mut out = self.workers[queue].receive(port, [bytes]);
        if let Some((worker, interface, frame)) = out.handed_over.pop() {
            self.handed_over += 1;
            assert_ne!(worker.index(), queue);
            let meta = Meta::received(interface, true);
            out = self.workers[worker.index()].receive_meta(meta, [frame.into_bytes()]);
        }
        let drops: Vec<_> = self.workers.iter().map(Harness::all_drops).collect();
        assert_eq!(out.transmitted.len(), 1, "{key:?} {flags:?} {drops:?}");
        let (to, frame): (InterfaceId, MemFrame) = out.transmitted.remove(0);
        assert_eq!(to, other(port));
        let (key, is_sound) = inspect(&frame);
        assert!(is_sound);
        key
    }

    /// A new conn in both directions; how its backend sees it.
    fn connect(&mut self, number: u32) -> FlowKey {
        let (protocol, port) = [(Protocol::Tcp, 80), (Protocol::Udp, 53)][number as usize % 2];
        let key = client(protocol, port, number);
        let at_backend = self.receive(CLIENT_PORT, &key, TcpFlags::SYN);
        assert_eq!(self.receive(BACKEND_PORT, &reply(&at_backend), SYN_ACK), reply(&key));
        assert_eq!(self.receive(CLIENT_PORT, &key, TcpFlags::ACK), at_backend);
        at_backend
    }

    /// A packet in each direction of conns that there are.
    fn go_on(&mut self, conns: &[(u32, FlowKey)]) {
        for (number, at_backend) in conns {
            let (protocol, port) = [(Protocol::Tcp, 80), (Protocol::Udp, 53)][*number as usize % 2];
            let key = client(protocol, port, *number);
            assert_eq!(self.receive(CLIENT_PORT, &key, TcpFlags::ACK), *at_backend);
            assert_eq!(self.receive(BACKEND_PORT, &reply(at_backend), TcpFlags::ACK), reply(&key));
        }
    }

    fn connect_all(&mut self, numbers: std::ops::Range<u32>) -> Vec<(u32, FlowKey)> {
        numbers.map(|number| (number, self.connect(number))).collect()
    }

    fn mis_steered(&self, port: InterfaceId) -> u64 {
        self.workers.iter().map(|w| w.counters.queue(port.port()).mis_steered.get()).sum()
    }

    fn trusts(&self, port: InterfaceId) -> Vec<Trust> {
        let gauge = |w: &Harness| Trust::from_gauge(w.counters.queue(port.port()).trust.get());
        self.workers.iter().map(gauge).collect()
    }

    fn assert_nothing_lost(&self) {
        for worker in &self.workers {
            assert_eq!(worker.all_drops(), []);
        }
    }
}

#[test]
fn honest_nics_bring_every_packet_to_its_owner() {
    for (name, key) in real_keys() {
        for (workers, entries) in [(2, 64), (3, 128), (4, 128), (8, 512)] {
            let rule = spread(&key, entries, workers);
            let nics = [Nic::Rss(Arc::clone(&rule)), Nic::Rss(Arc::clone(&rule))];
            let mut site = Site::new(workers, Some(&rule), [true, true], nics);
            let conns = site.connect_all(0..u32::from(workers) * 1_000);
            site.go_on(&conns);
            site.assert_nothing_lost();
            assert_eq!(site.handed_over, 0, "{name}");
            assert_eq!(
                [site.mis_steered(CLIENT_PORT), site.mis_steered(BACKEND_PORT)],
                [0, 0],
                "{name}"
            );
            // The symmetric key spreads clients that are so much alike less evenly.
            let least = if name.starts_with("symmetric") { 1 } else { 500 };
            for (worker, h) in site.workers.iter().enumerate() {
                let conns = h.counters.conns.get();
                assert!(conns >= least, "{name}: {conns} of worker {worker} of {workers}");
                for port in [CLIENT_PORT, BACKEND_PORT] {
                    let looked_at = h.counters.queue(port.port()).rx_packets.get();
                    let enough = looked_at >= FIRST_PACKETS;
                    let expected = if enough { Trust::Trusted } else { Trust::Checking };
                    assert_eq!(site.trusts(port)[worker], expected, "{name} {looked_at}");
                }
            }
        }
    }
}

#[test]
fn tables_of_any_length_agree_where_they_spread_alike() {
    let key = RssKey::generate(5);
    let (small, large) = (spread(&key, 64, 4), spread(&key, 512, 4));
    let nics = [Nic::Rss(large), Nic::Rss(Arc::clone(&small))];
    let mut site = Site::new(4, Some(&small), [true, true], nics);
    site.connect_all(0..4_000);
    assert_eq!(
        (site.handed_over, site.mis_steered(CLIENT_PORT) + site.mis_steered(BACKEND_PORT)),
        (0, 0)
    );
}

/// What a NIC without any sense does costs handovers, and no conn: neither those that were made
/// before it was found out, nor those that come.
#[test]
fn a_nic_that_lies_is_found_out_and_no_conn_is_lost() {
    for workers in [2, 4, 8] {
        for nic in
            [Nic::Random, Nic::OneQueue, Nic::Rss(spread(&RssKey::generate(9), 128, workers))]
        {
            let rule = spread(&RssKey::generate(6), 128, workers);
            let nics = [Nic::Rss(Arc::clone(&rule)), nic];
            let mut site = Site::new(workers, Some(&rule), [true, true], nics);
            let conns = site.connect_all(0..u32::from(workers) * 1_000);
            site.go_on(&conns);
            site.assert_nothing_lost();
            assert!(site.mis_steered(BACKEND_PORT) > 1_000);
            assert_eq!(site.mis_steered(CLIENT_PORT), 0);
            let lost = site.trusts(BACKEND_PORT).iter().filter(|t| **t == Trust::Lost).count();
            assert!(lost > 0 && !site.trusts(BACKEND_PORT).contains(&Trust::Trusted));
            assert!(site.trusts(CLIENT_PORT).iter().all(|t| *t == Trust::Trusted));
        }
    }
}

#[test]
fn a_nic_that_is_found_out_late_loses_no_conn_either() {
    let workers = 4;
    let rule = spread(&RssKey::generate(7), 128, workers);
    let honest = Nic::Rss(Arc::clone(&rule));
    let mut site = Site::new(workers, Some(&rule), [true, true], [honest.clone(), honest]);
    let conns = site.connect_all(0..6_000);
    assert!(site.trusts(BACKEND_PORT).iter().all(|t| *t == Trust::Trusted));
    // Somebody gives both another key.
    let other = Nic::Rss(spread(&RssKey::generate(8), 128, workers));
    site.nics = [other.clone(), other];
    site.go_on(&conns);
    site.connect_all(6_000..12_000);
    site.go_on(&conns);
    site.assert_nothing_lost();
    for port in [CLIENT_PORT, BACKEND_PORT] {
        assert!(site.trusts(port).contains(&Trust::Lost), "{:?}", site.trusts(port));
    }
}

#[test]
fn a_few_mis_steered_packets_are_counted_and_forgiven() {
    let workers = 2;
    let rule = spread(&RssKey::generate(7), 128, workers);
    let honest = Nic::Rss(Arc::clone(&rule));
    let mut site = Site::new(workers, Some(&rule), [true, true], [honest.clone(), honest.clone()]);
    let conns = site.connect_all(0..3_000);
    site.nics[1] = Nic::Random;
    site.go_on(&conns[..500]);
    site.nics[1] = honest;
    site.go_on(&conns);
    let wrong = site.mis_steered(BACKEND_PORT);
    assert!((150..350).contains(&wrong) && wrong == site.handed_over, "{wrong}");
    assert!(site.trusts(BACKEND_PORT).iter().all(|t| *t == Trust::Trusted));
}

#[test]
fn a_port_with_rss_and_one_without_work_together() {
    for workers in [2, 4, 8] {
        for rss_port in [CLIENT_PORT, BACKEND_PORT] {
            let rule = spread(&RssKey::generate(6), 128, workers);
            let mut nics = [Nic::Random, Nic::Random];
            let mut claims = [false, false];
            nics[rss_port.index()] = Nic::Rss(Arc::clone(&rule));
            claims[rss_port.index()] = true;
            let mut site = Site::new(workers, Some(&rule), claims, nics);
            let conns = site.connect_all(0..u32::from(workers) * 1_200);
            let before = site.handed_over;
            site.go_on(&conns[..1_000]);
            site.assert_nothing_lost();
            assert_eq!(site.mis_steered(CLIENT_PORT) + site.mis_steered(BACKEND_PORT), 0);
            assert!(site.trusts(rss_port).iter().all(|t| *t == Trust::Trusted));
            assert!(site.trusts(other(rss_port)).iter().all(|t| *t == Trust::None));
            // Half of the packets come by the other port, and all but one in so many go over.
            let expected = 1_000 * u64::from(workers - 1) / u64::from(workers);
            assert!((site.handed_over - before).abs_diff(expected) < 100);
        }
    }
}

#[test]
fn without_rss_everything_is_handed_over_as_before() {
    for workers in [2, 4, 8] {
        let mut site = Site::new(workers, None, [false, false], [Nic::Random, Nic::OneQueue]);
        let conns = site.connect_all(0..2_000);
        site.go_on(&conns);
        site.assert_nothing_lost();
        assert!(
            site.handed_over > 2_000
                && site.mis_steered(CLIENT_PORT) + site.mis_steered(BACKEND_PORT) == 0
        );
    }
}

#[test]
fn one_worker_never_looks() {
    let nics = [Nic::OneQueue, Nic::OneQueue];
    let mut site = Site::new(1, None, [true, true], nics);
    site.connect_all(0..500);
    assert_eq!(site.trusts(CLIENT_PORT), [Trust::None]);
}

/// Packets for the host itself say nothing about the NIC: any queue will do for them.
#[test]
fn packets_for_the_host_prove_nothing() {
    let rule = spread(&RssKey::generate(7), 128, 2);
    let mut site = Site::new(2, Some(&rule), [true, true], [Nic::OneQueue, Nic::OneQueue]);
    let ssh = flow(Protocol::Tcp, (Ipv4Addr::new(198, 51, 100, 1), 5), ([192, 0, 2, 1].into(), 22));
    let bytes = packet(PORT_MACS[0], &ssh, TcpFlags::ACK, b"");
    let sent = 2 * FIRST_PACKETS as usize;
    let out = site.workers[0].receive(CLIENT_PORT, vec![bytes; sent]);
    assert_eq!(out.to_kernel.len(), sent);
    assert_eq!(site.trusts(CLIENT_PORT), [Trust::Checking; 2]);
}

/// A packet to which nobody has a conn is refused by its owner, wherever it comes in, and an attacker
/// who sends such packets cannot make an honest NIC look like a liar.
#[test]
fn packets_without_a_conn_die_where_they_belong() {
    let workers = 4;
    let rule = spread(&RssKey::generate(7), 128, workers);
    let honest = Nic::Rss(Arc::clone(&rule));
    let mut site = Site::new(workers, Some(&rule), [true, true], [honest.clone(), honest]);
    site.connect_all(0..4_000);
    for number in 0..2 * FIRST_PACKETS as u32 {
        let local = flow(Protocol::Tcp, (Ipv4Addr::new(10, 0, 1, 1), 80), (testkit::LOCAL, 1_000));
        let key = FlowKey { src: local.src + number, ..local };
        let queue = usize::from(rule.queue(&Tuple::from(&key)));
        let bytes = packet(PORT_MACS[1], &key, TcpFlags::ACK, b"");
        let out = site.workers[queue].receive(BACKEND_PORT, [bytes]);
        assert!(out.handed_over.is_empty());
        assert_eq!(out.transmitted.len(), 1, "its owner answers");
    }
    let no_conn: u64 = site.workers.iter().map(|w| w.drops(DropReason::NoConn)).sum();
    assert_eq!((no_conn, site.mis_steered(BACKEND_PORT)), (2 * FIRST_PACKETS, 0));
}
