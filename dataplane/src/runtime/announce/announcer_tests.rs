//! What is announced, when, and what counts as announced.

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const WAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LAN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const EVERY_MS: u64 = 60_000;
const NONE: [Ipv4Addr; 0] = [];

/// Two ports; their own addresses have been announced by 0.
fn announcer(every_ms: u64) -> Announcer {
    let ports = ["192.0.2.1/24", "10.0.0.1/16"].map(|a| (vec![a.parse().unwrap()], true));
    let mut announcer = Announcer::new(ports.into(), every_ms, 0);
    let own = [announcement(InterfaceId(0), WAN), announcement(InterfaceId(1), LAN)];
    assert_eq!(all_due(&mut announcer, 0), if every_ms > 0 { &own[..] } else { &[] });
    announcer
}

fn announcement(interface: InterfaceId, address: Ipv4Addr) -> ArpFrame {
    ArpFrame { interface, address, says: Says::Announcement }
}

fn probe(interface: InterfaceId, address: Ipv4Addr) -> ArpFrame {
    ArpFrame { says: Says::Probe, ..announcement(interface, address) }
}

/// All that is to be sent; it leaves.
fn all_due(announcer: &mut Announcer, now_ms: u64) -> Vec<ArpFrame> {
    let mut all = Vec::new();
    while let Some(frame) = announcer.due(now_ms) {
        announcer.left(now_ms, frame);
        all.push(frame);
    }
    all
}

fn announced(announcer: &Announcer) -> Vec<Ipv4Addr> {
    announcer.announced().collect()
}

/// What is sent, and when, with a look every 2 ms.
fn run(announcer: &mut Announcer, from_ms: u64, to_ms: u64) -> Vec<(u64, ArpFrame)> {
    let mut sent = Vec::new();
    for now_ms in (from_ms..to_ms).step_by(2) {
        sent.extend(all_due(announcer, now_ms).into_iter().map(|frame| (now_ms, frame)));
    }
    sent
}

#[test]
fn an_address_is_probed_for_announced_three_times_and_repeated_on_its_ports() {
    let mut announcer = announcer(EVERY_MS);
    announcer.announce(1_000, VIP);
    let mut sent = run(&mut announcer, 1_000, 3_000);
    assert_eq!(announced(&announcer), NONE, "twice is not three times");
    sent.extend(run(&mut announcer, 3_000, 3_002));
    assert_eq!(announced(&announcer), [VIP]);
    sent.extend(run(&mut announcer, 3_002, 663_002));
    let vip: Vec<_> = sent.iter().filter(|(_, frame)| frame.address == VIP).collect();
    let probes: Vec<u64> =
        vip.iter().filter(|(_, f)| *f == probe(InterfaceId(0), VIP)).map(|(at, _)| *at).collect();
    let announcements: Vec<u64> = vip
        .iter()
        .filter(|(_, f)| *f == announcement(InterfaceId(0), VIP))
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(probes, [1_000, 183_000, 483_000]);
    let repeated = (0..=11).map(|n| 3_000 + n * 60_000);
    assert_eq!(announcements, [1_000, 2_000].into_iter().chain(repeated).collect::<Vec<_>>());
    assert_eq!(vip.len(), probes.len() + announcements.len(), "on its own port only");
    // Each port says something, also the one that has no VIP.
    let lan: Vec<u64> =
        sent.iter().filter(|(_, f)| f.interface == InterfaceId(1)).map(|(at, _)| *at).collect();
    assert_eq!(lan, (1..=11).map(|n| n * 60_000).collect::<Vec<_>>());
}

#[test]
fn an_address_of_no_network_is_announced_everywhere_until_it_is_gone() {
    let elsewhere = Ipv4Addr::new(203, 0, 113, 1);
    let mut announcer = announcer(EVERY_MS);
    announcer.announce(0, elsewhere);
    announcer.announce(0, VIP);
    let frames = all_due(&mut announcer, 0);
    assert_eq!(frames.iter().filter(|f| f.address == elsewhere).count(), 4);
    announcer.link_up(100, InterfaceId(0));
    announcer.retain(|address| address != elsewhere);
    let later = run(&mut announcer, 100, 200_000);
    assert_eq!(announced(&announcer), [VIP]);
    assert!(later.iter().all(|(_, f)| f.address != elsewhere));
    assert!(later.iter().any(|(_, f)| f.address == VIP));
    announcer.retain(|_| false);
    assert_eq!(announced(&announcer), NONE);
}

#[test]
fn without_an_interval_nothing_is_repeated() {
    let mut announcer = announcer(0);
    announcer.announce(0, VIP);
    assert_eq!(run(&mut announcer, 0, 10_000_000).len(), 4, "a probe and three announcements");
    announcer.announce(10_000_000, VIP);
    assert_eq!(all_due(&mut announcer, 10_000_000), [], "that was done");
}

#[test]
fn a_frame_that_has_not_left_is_sent_again_and_does_not_count() {
    let mut announcer = announcer(0);
    announcer.announce(0, VIP);
    let (mut lost, mut sent) = (0, Vec::new());
    for now_ms in (0..10_000).step_by(2) {
        while let Some(frame) = announcer.due(now_ms) {
            // Every other one is lost.
            if lost <= sent.len() {
                lost += 1;
                announcer.lost(frame);
                break;
            }
            assert_eq!(announced(&announcer), NONE);
            announcer.left(now_ms, frame);
            sent.push(frame);
        }
    }
    assert_eq!(announced(&announcer), [VIP]);
    assert_eq!(sent.iter().filter(|frame| **frame == announcement(InterfaceId(0), VIP)).count(), 3);
    assert_eq!((sent.contains(&probe(InterfaceId(0), VIP)), sent.len(), lost), (true, 4, 4));
}

#[test]
fn a_port_without_a_link_is_not_waited_for_and_says_all_once_it_has_one() {
    let elsewhere = Ipv4Addr::new(203, 0, 113, 1);
    let mut announcer = announcer(EVERY_MS);
    announcer.link_down(InterfaceId(0));
    announcer.announce(0, VIP);
    announcer.announce(0, elsewhere);
    let sent = run(&mut announcer, 0, 10_000);
    assert!(sent.iter().all(|(_, frame)| frame.interface == InterfaceId(1)), "{sent:?}");
    assert_eq!(announced(&announcer), [elsewhere], "the VIP's only port has said nothing");
    announcer.link_up(10_000, InterfaceId(0));
    let sent = run(&mut announcer, 10_000, 20_000);
    let count = |frame| sent.iter().filter(|(_, f)| *f == frame).count();
    assert_eq!(
        [VIP, elsewhere, WAN].map(|address| count(announcement(InterfaceId(0), address))),
        [3, 3, 3]
    );
    assert_eq!(announced(&announcer), [VIP, elsewhere]);
    // One that goes down while an address is being announced is not waited for either.
    let third = Ipv4Addr::new(203, 0, 113, 2);
    announcer.announce(20_000, third);
    run(&mut announcer, 20_000, 21_500);
    announcer.link_down(InterfaceId(0));
    run(&mut announcer, 21_500, 23_000);
    assert_eq!(announced(&announcer), [VIP, elsewhere, third]);
}

#[test]
fn a_link_that_comes_up_hears_all_of_its_addresses_three_times() {
    let mut announcer = announcer(EVERY_MS);
    announcer.announce(0, VIP);
    run(&mut announcer, 0, 10_000);
    announcer.link_up(10_000, InterfaceId(0));
    assert_eq!(announced(&announcer), [VIP], "that it was is still true");
    let sent = run(&mut announcer, 10_000, 59_000);
    let at =
        |ms| [(ms, announcement(InterfaceId(0), WAN)), (ms, announcement(InterfaceId(0), VIP))];
    let mut expected = [at(10_000), at(11_000), at(12_000)].concat();
    // Its sixth announcement.
    expected.insert(5, (12_000, probe(InterfaceId(0), VIP)));
    assert_eq!(sent, expected);
    let sent = run(&mut announcer, 59_000, 72_002);
    assert_eq!(
        sent,
        [vec![(60_000, announcement(InterfaceId(1), LAN))], at(72_000).to_vec()].concat()
    );
}

/// As 2,283 VIPs of which 510 never left, and more.
#[test]
fn ten_thousand_vips_leave_three_times_within_ten_seconds_and_hold_up_no_defence() {
    let mut announcer = announcer(EVERY_MS);
    let vips: Vec<Ipv4Addr> = (0..10_000).map(|n| Ipv4Addr::from_bits(0x0a00_1000 + n)).collect();
    vips.iter().for_each(|vip| announcer.announce(0, *vip));
    let mut sent = run(&mut announcer, 0, 2_000);
    assert_eq!(announced(&announcer), NONE);
    assert!(announcer.claimed(2_000, InterfaceId(1), vips[7_000]));
    sent.extend(run(&mut announcer, 2_000, 9_000));
    let defence =
        sent.iter().find(|(at, f)| *at >= 2_000 && *f == announcement(InterfaceId(1), vips[7_000]));
    assert!(defence.unwrap().0 <= 2_002, "{defence:?}");
    assert_eq!(announced(&announcer), vips, "all within 9 s");
    sent.extend(run(&mut announcer, 9_000, 120_000));
    for start in (0..120_000).step_by(100) {
        let window = sent.iter().filter(|(at, _)| (start..start + 100).contains(at)).count();
        let most = if start < 9_000 { 64 + 600 } else { 64 + 64 + 700 };
        assert!(window <= most, "{start}: {window}");
    }
    let of = |says, from_ms, to_ms| {
        let mut count: HashMap<Ipv4Addr, usize> = HashMap::new();
        let in_time = |(at, f): &&(u64, ArpFrame)| (from_ms..to_ms).contains(at) && f.says == says;
        for (_, frame) in sent.iter().filter(in_time).filter(|(_, f)| vips.contains(&f.address)) {
            *count.entry(frame.address).or_default() += 1;
        }
        count
    };
    assert_eq!(of(Says::Probe, 0, 9_000).len(), 10_000);
    let first = of(Says::Announcement, 0, 9_000);
    let claimed = first[&vips[7_000]];
    assert!(first.len() == 10_000 && claimed == 4 && first.values().all(|n| *n == 3 || *n == 4));
    let again = of(Says::Announcement, 9_000, 80_000);
    assert!(again.len() == 10_000 && again.values().all(|n| *n == 1), "once a minute");
}

#[test]
fn a_claim_is_answered_at_once_and_at_most_every_ten_seconds() {
    let mut announcer = announcer(EVERY_MS);
    announcer.announce(0, VIP);
    run(&mut announcer, 0, 5_000);
    let mut sent = Vec::new();
    for now_ms in 5_000..45_000 {
        // On two ports: it is answered for on both.
        for port in [0, 1].map(InterfaceId) {
            announcer.claimed(now_ms, port, VIP);
        }
        sent.extend(all_due(&mut announcer, now_ms).into_iter().map(|f| (now_ms, f)));
    }
    for port in [0, 1].map(InterfaceId) {
        let at: Vec<u64> =
            sent.iter().filter(|(_, f)| f.interface == port).map(|(at, _)| *at).collect();
        assert_eq!(at, [5_000, 15_000, 25_000, 35_000], "port {port}");
    }
    assert!(announcer.claimed(50_000, InterfaceId(0), WAN), "a port's own address, on its port");
    assert!(!announcer.claimed(50_000, InterfaceId(1), WAN), "and nowhere else");
    let unannounced = Ipv4Addr::new(192, 0, 2, 7);
    assert!(
        announcer.claimed(50_000, InterfaceId(0), unannounced),
        "a VIP that control has not announced"
    );
    assert!(!announcer.claimed(50_001, InterfaceId(0), unannounced));
}
