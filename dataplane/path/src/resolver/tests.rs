//! Every transition, by what goes in and what comes out.

mod watch;

use proptest::prelude::*;

use super::*;
use crate::next_hop::NextHop;
use crate::table::neighbour::{Egress, Neighbours};

const A: u32 = 0x0a00_0005;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 6]);
const LAN: InterfaceId = InterfaceId(0);
const WAN: InterfaceId = InterfaceId(1);
const SITE: Purpose = Purpose::Site;

fn hop(address: u32) -> NextHop {
    NextHop { interface: LAN, address }
}

fn resolver() -> Resolver {
    Resolver::new(64).with_interface_names(["lan".to_owned()])
}

fn actions(resolver: &mut Resolver) -> Vec<Action> {
    resolver.take_actions().collect()
}

fn broadcast(target: u32) -> Action {
    Action::Request { target: hop(target), unicast_to: None }
}

fn unicast(target: u32, to: MacAddr) -> Action {
    Action::Request { target: hop(target), unicast_to: Some(to) }
}

fn publish(address: u32, state: NeighbourState) -> Action {
    Action::Publish(NeighbourUpdate { hop: hop(address), state })
}

fn reachable(address: u32, mac: MacAddr) -> Action {
    publish(address, NeighbourState::Reachable(mac))
}

/// About A, which is `10.0.0.5 on lan`.
fn event(kind: &'static str, message: &str) -> Action {
    Action::Event { kind, subject: "10.0.0.5 on lan".to_owned(), message: message.to_owned() }
}

/// Tick every 100 ms up to and including a time; what came out, and when.
fn run(resolver: &mut Resolver, from_ms: u64, to_ms: u64) -> Vec<(u64, Action)> {
    let mut out = Vec::new();
    for now_ms in (from_ms..=to_ms).step_by(100) {
        resolver.tick(now_ms);
        out.extend(resolver.take_actions().map(|action| (now_ms, action)));
    }
    out
}

/// A table in which A was answered for at 0.
fn known() -> Resolver {
    let mut resolver = resolver();
    resolver.want(0, hop(A), SITE);
    resolver.seen(0, hop(A), MAC, true, true);
    assert_eq!(actions(&mut resolver), [broadcast(A), reachable(A, MAC)]);
    resolver
}

fn state(resolver: &Resolver) -> (&'static str, Option<MacAddr>) {
    let status = resolver.status(0);
    assert_eq!(status.len(), 1);
    (status[0].state, status[0].mac)
}

#[test]
fn an_address_is_asked_for_three_times_and_fails() {
    let mut resolver = resolver();
    resolver.want(1_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [broadcast(A)], "at once");
    assert_eq!(state(&resolver), ("incomplete", None));
    resolver.want(1_200, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [], "a second want changes nothing");
    let out = run(&mut resolver, 1_100, 20_000);
    assert_eq!(
        out,
        [
            (2_000, broadcast(A)),
            (3_000, broadcast(A)),
            (4_000, publish(A, NeighbourState::Failed)),
            (4_000, event("neighbour-failed", "10.0.0.5 on lan does not answer ARP")),
        ]
    );
    assert_eq!(state(&resolver), ("failed", None));
}

#[test]
fn a_dead_host_costs_three_requests_in_four_seconds_and_one_event() {
    let mut resolver = resolver();
    let mut requests = 0;
    let mut events = 0;
    for now_ms in (0..40_000).step_by(100) {
        resolver.want(now_ms, hop(A), SITE);
        resolver.tick(now_ms);
        for action in actions(&mut resolver) {
            match action {
                Action::Request { .. } => requests += 1,
                Action::Event { .. } => events += 1,
                Action::Publish(update) => assert_eq!(update.state, NeighbourState::Failed),
                Action::TellKernel { .. } => panic!("{action:?}"),
            }
        }
    }
    assert_eq!((requests, events), (30, 1));
}

/// While a worker is stuck, answers may lie in its queues.
#[test]
fn a_known_host_is_not_given_up_while_answers_may_be_lost() {
    let mut resolver = known();
    resolver.want(REACHABLE_MS, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
    let mut out = run(&mut resolver, 30_100, 34_500);
    assert_eq!(out.pop(), Some((34_000, broadcast(A))), "the fifth");
    resolver.doubt_silence(true);
    let out = run(&mut resolver, 34_600, 99_500);
    let each_second: Vec<_> = (35..=99).map(|s| (s * 1_000, broadcast(A))).collect();
    assert_eq!(out, each_second, "it is asked for all the same");
    assert_eq!(state(&resolver), ("probing", Some(MAC)));

    // From then on it has three tries, the last of before among them or not.
    resolver.doubt_silence(false);
    let out = run(&mut resolver, 99_600, 110_000);
    let failed = [
        (102_000, publish(A, NeighbourState::Failed)),
        (102_000, event("neighbour-failed", "10.0.0.5 on lan does not answer ARP")),
    ];
    assert_eq!(out[..2], [(100_000, broadcast(A)), (101_000, broadcast(A))]);
    assert_eq!(out[2..], failed);
}

#[test]
fn a_failed_address_is_not_asked_for_within_a_second_but_workers_are_told() {
    let mut resolver = resolver();
    resolver.want(0, hop(A), SITE);
    run(&mut resolver, 0, 3_000);
    resolver.want(3_999, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [publish(A, NeighbourState::Failed)]);
    resolver.want(4_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [broadcast(A)]);
    resolver.seen(4_001, hop(A), MAC, true, true);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    assert_eq!(run(&mut resolver, 4_100, 20_000), [], "no request is left over");
}

/// What was verified and then fails is asked for as any other: with a worker that has packets for it
/// all the time, anew a second after it was given up, and so again every 4 s.
#[test]
fn a_verified_host_that_fails_is_asked_for_again_after_a_second() {
    let egress = Egress { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1_500 };
    for first_packet_ms in [0, 1, 499, 500, 2_600, 4_999] {
        let (mut resolver, mut table) = (resolver(), Neighbours::new(4, &[egress]));
        let (mut failed_ms, mut requests) = (None, Vec::new());
        for now_ms in 0..60_000u64 {
            let now = now_ms as u32;
            if now_ms == 0 || (now_ms >= first_packet_ms && now_ms % 10 == first_packet_ms % 10) {
                let note =
                    table.slot_of(NextHop { interface: LAN, address: A }, SITE, now).unwrap();
                if table.should_ask(table.current(note).unwrap(), now) {
                    resolver.want(now_ms, hop(A), SITE);
                }
            }
            // It answers once and never again.
            if now_ms == 2 {
                resolver.seen(now_ms, hop(A), MAC, true, true);
            }
            resolver.tick(now_ms);
            for action in actions(&mut resolver) {
                match action {
                    Action::Publish(update) => {
                        table.update(&update, now);
                        if update.state == NeighbourState::Failed && failed_ms.is_none() {
                            failed_ms = Some(now_ms);
                        }
                    }
                    Action::Request { .. } if failed_ms.is_some() => requests.push(now_ms),
                    _ => {}
                }
            }
        }
        let failed_ms = failed_ms.expect("it fails");
        let after: Vec<u64> = requests.iter().map(|at_ms| at_ms - failed_ms).take(6).collect();
        assert_eq!(after, [1_000, 2_000, 3_000, 5_000, 6_000, 7_000], "{first_packet_ms}");
    }
}

#[test]
fn an_answer_counts_for_thirty_seconds_of_wants() {
    let mut resolver = known();
    resolver.want(29_999, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)], "another worker may not know it yet");
    assert_eq!(run(&mut resolver, 30_000, 40_000), [], "nobody wants it, nobody asks");
    assert_eq!(state(&resolver), ("reachable", Some(MAC)));
    assert_eq!(resolver.status(40_000)[0].age_ms, 40_000);
}

#[test]
fn a_want_after_that_probes_and_keeps_it_usable() {
    let mut resolver = known();
    resolver.want(30_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
    resolver.want(30_500, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)], "usable meanwhile, not asked again");
    assert_eq!(state(&resolver), ("probing", Some(MAC)));
    resolver.seen(30_600, hop(A), MAC, true, true);
    assert_eq!(actions(&mut resolver), [], "confirmed: no news");
    assert_eq!(state(&resolver), ("reachable", Some(MAC)));
    resolver.want(60_599, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    resolver.want(60_600, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
}

#[test]
fn probing_goes_from_unicast_to_broadcast_to_failed() {
    let mut resolver = known();
    resolver.want(30_000, hop(A), SITE);
    let mut out: Vec<Action> = actions(&mut resolver);
    out.extend(run(&mut resolver, 30_100, 50_000).into_iter().map(|(_, action)| action));
    assert_eq!(
        out,
        [
            reachable(A, MAC),
            unicast(A, MAC),
            unicast(A, MAC),
            unicast(A, MAC),
            broadcast(A),
            broadcast(A),
            broadcast(A),
            publish(A, NeighbourState::Failed),
            event("neighbour-failed", "10.0.0.5 on lan does not answer ARP"),
        ]
    );
}

#[test]
fn a_probe_that_another_mac_answers_is_a_move() {
    let mut resolver = known();
    resolver.want(30_000, hop(A), SITE);
    run(&mut resolver, 30_100, 33_500);
    resolver.seen(33_600, hop(A), OTHER, true, true);
    let message = "10.0.0.5 on lan moved from 02:00:00:00:00:05 to 02:00:00:00:00:06";
    let moved = event("neighbour-moved", message);
    let tell_kernel = Action::TellKernel { hop: hop(A), mac: OTHER };
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER), tell_kernel, moved]);
    resolver.want(60_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER)], "fresh: it was our request");
}

#[test]
fn a_gratuitous_arp_moves_a_known_host_and_the_next_want_verifies() {
    let mut resolver = known();
    resolver.seen(5_000, hop(A), OTHER, false, false);
    let out = actions(&mut resolver);
    assert_eq!(out.len(), 3);
    assert_eq!(out[0], reachable(A, OTHER));
    assert_eq!(out[1], Action::TellKernel { hop: hop(A), mac: OTHER });
    assert!(matches!(&out[2], Action::Event { kind: "neighbour-moved", .. }));
    assert_eq!(resolver.status(6_000)[0].age_ms, 6_000, "told, not confirmed");
    resolver.want(6_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER), unicast(A, OTHER)]);
}

#[test]
fn an_unasked_reply_with_another_mac_is_verified_too() {
    let mut resolver = known();
    resolver.seen(5_000, hop(A), OTHER, true, true);
    assert_eq!(actions(&mut resolver)[0], reachable(A, OTHER));
    resolver.want(6_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER), unicast(A, OTHER)]);
}

#[test]
fn a_request_for_us_refreshes_and_one_for_others_does_not() {
    let mut resolver = known();
    resolver.seen(20_000, hop(A), MAC, false, true);
    resolver.want(49_999, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);

    let mut resolver = known();
    resolver.seen(20_000, hop(A), MAC, false, false);
    resolver.want(30_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
}

#[test]
fn a_failed_host_that_speaks_up_is_usable_at_once() {
    let mut resolver = resolver();
    resolver.want(0, hop(A), SITE);
    run(&mut resolver, 0, 3_000);
    resolver.seen(3_100, hop(A), MAC, false, false);
    // The kernel may have known it, and does not hear what is not for us.
    let tell_kernel = Action::TellKernel { hop: hop(A), mac: MAC };
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), tell_kernel]);
    resolver.want(3_200, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
    // It fails again: that is news.
    let out = run(&mut resolver, 3_300, 20_000);
    assert!(matches!(&out.last().unwrap().1, Action::Event { kind: "neighbour-failed", .. }));
}

#[test]
fn strangers_probes_and_impossible_senders_change_nothing() {
    let mut resolver = known();
    for address in 0x0a00_0100..0x0a00_1000 {
        resolver.seen(10, hop(address), MAC, true, true);
    }
    resolver.seen(10, hop(0), OTHER, false, true);
    resolver.seen(10, hop(A), MacAddr([3, 0, 0, 0, 0, 1]), true, true);
    resolver.seen(10, hop(A), MacAddr::BROADCAST, true, true);
    resolver.seen(10, hop(A), MacAddr::ZERO, true, true);
    resolver.seen(10, NextHop { interface: WAN, address: A }, OTHER, true, true);
    assert_eq!(actions(&mut resolver), []);
    assert_eq!(state(&resolver), ("reachable", Some(MAC)));
}

#[test]
fn an_entry_that_nobody_wants_is_removed_after_ten_minutes() {
    let mut resolver = known();
    resolver.want(20_000, hop(A), SITE);
    actions(&mut resolver);
    // Staying in touch with us is not being wanted.
    resolver.seen(500_000, hop(A), MAC, false, true);
    resolver.tick(619_999);
    assert_eq!(actions(&mut resolver), []);
    resolver.tick(620_000);
    assert_eq!(actions(&mut resolver), [publish(A, NeighbourState::Removed)]);
    assert!(resolver.is_empty() && resolver.status(620_000).is_empty());

    resolver.want(700_000, hop(A), SITE);
    run(&mut resolver, 700_000, 710_000);
    assert_eq!(state(&resolver), ("failed", None));
    resolver.tick(1_300_000);
    assert_eq!(actions(&mut resolver), [publish(A, NeighbourState::Removed)], "failed ones too");
}

#[test]
fn a_port_that_comes_up_makes_its_next_hops_be_verified() {
    let mut resolver = known();
    resolver.link_up(1_000, WAN);
    resolver.want(1_000, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    resolver.link_up(1_000, LAN);
    resolver.want(1_001, hop(A), SITE);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
}

#[test]
fn a_full_table_gives_up_the_longest_unused_entry_and_else_refuses() {
    let mut resolver = Resolver::new(2).with_interface_names(["lan".to_owned()]);
    for address in [1, 2] {
        resolver.want(u64::from(address), hop(address), SITE);
        resolver.seen(10, hop(address), MAC, true, true);
    }
    actions(&mut resolver);
    resolver.want(20_000, hop(3), SITE);
    resolver.want(20_001, hop(4), SITE);
    let full = |address: u32| {
        let message = format!(
            "no room for 0.0.0.{address} on lan: all 2 entries are in use; raise limits.neighbours"
        );
        let subject = "neighbours".to_owned();
        Action::Event { kind: "neighbour-table-full", subject, message }
    };
    assert_eq!(
        actions(&mut resolver),
        [
            publish(3, NeighbourState::Removed),
            full(3),
            publish(4, NeighbourState::Removed),
            full(4),
        ]
    );
    assert_eq!((resolver.len(), resolver.capacity()), (2, 2));

    resolver.want(25_000, hop(1), SITE);
    actions(&mut resolver);
    resolver.want(30_002, hop(3), SITE);
    assert_eq!(
        actions(&mut resolver),
        [publish(2, NeighbourState::Removed), broadcast(3)],
        "2 is unused for 30 s"
    );
    run(&mut resolver, 30_100, 34_000);
    resolver.want(34_000, hop(1), SITE);
    actions(&mut resolver);
    resolver.want(34_001, hop(4), SITE);
    assert_eq!(
        actions(&mut resolver),
        [publish(3, NeighbourState::Removed), broadcast(4)],
        "3 has failed"
    );
    resolver.want(34_002, hop(5), SITE);
    assert_eq!(actions(&mut resolver), [publish(5, NeighbourState::Removed), full(5)]);
}

#[test]
fn requests_have_a_rate_and_those_that_wait_are_served_in_turn() {
    let mut resolver = Resolver::new(5_000);
    for address in 1..=3_000 {
        resolver.want(0, hop(address), SITE);
    }
    let burst = actions(&mut resolver).len() as u64;
    assert_eq!(burst, REQUEST_BURST);
    let mut at: Vec<(u64, u32)> = Vec::new();
    for now_ms in (10..=20_000).step_by(10) {
        resolver.tick(now_ms);
        for action in resolver.take_actions() {
            if let Action::Request { target, .. } = action {
                at.push((now_ms, target.address));
            }
        }
    }
    for second in 0..20 {
        let window =
            at.iter().filter(|(ms, _)| (second * 1_000..(second + 1) * 1_000).contains(ms));
        assert!(window.count() as u64 <= REQUESTS_PER_SECOND + REQUEST_BURST);
    }
    assert_eq!(at[0].1, 101, "first come, first served");
    assert_eq!(at.len() as u64 + burst, 9_000, "each gets its three tries");
    let status = resolver.status(20_000);
    assert!(status.iter().all(|n| n.state == "failed"));
    assert!(status.is_sorted_by_key(|n| n.address));
}

#[test]
fn an_answer_while_waiting_for_the_rate_saves_the_request() {
    let mut resolver = Resolver::new(1_000);
    for address in 1..=200 {
        resolver.want(0, hop(address), SITE);
    }
    actions(&mut resolver);
    for address in 101..=200 {
        resolver.seen(0, hop(address), MAC, false, true);
    }
    actions(&mut resolver);
    resolver.tick(500);
    assert_eq!(actions(&mut resolver), [], "nothing waits any more");
}

fn stranger(came_from: Option<MacAddr>) -> Purpose {
    Purpose::Stranger { came_from }
}

#[test]
fn a_stranger_is_asked_where_its_packet_came_from_then_by_broadcast() {
    let mut resolver = resolver();
    resolver.want(0, hop(A), stranger(Some(MAC)));
    assert_eq!(actions(&mut resolver), [unicast(A, MAC)]);
    let out = run(&mut resolver, 100, 20_000);
    assert_eq!(
        out,
        [(1_000, broadcast(A)), (2_000, broadcast(A)), (3_000, publish(A, NeighbourState::Failed)),],
        "and nobody is told: anybody can make strangers"
    );
    resolver.want(20_000, hop(A), stranger(Some(OTHER)));
    assert_eq!(actions(&mut resolver), [unicast(A, OTHER)]);
    // It answers from elsewhere: that counts.
    resolver.seen(20_001, hop(A), MAC, true, true);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    // A group or nobody cannot be asked.
    resolver.want(20_000, hop(A + 1), stranger(Some(MacAddr::BROADCAST)));
    assert_eq!(actions(&mut resolver), [broadcast(A + 1)]);
}

/// 5,000 strangers a second who are nobody, for 30 s: 30 clients that come meanwhile, two backends
/// that are asked for first then, and a client that has a conn are found at once; the network hears
/// no more broadcasts than before; what is in use stays.
#[test]
fn a_flood_of_strangers_hides_nobody() {
    const CAPACITY: usize = 4_096;
    let attacker = MacAddr([2, 0, 0, 0, 6, 6]);
    let mac_of = |address: u32| MacAddr([2, 1, 0, 0, (address >> 8) as u8, address as u8]);
    let mut resolver = Resolver::new(CAPACITY);
    // Backends and clients in use, as many as there is room for beside the strangers.
    let in_use: Vec<u32> = (1..=2_000).collect();
    for (index, address) in in_use.iter().enumerate() {
        let purpose = if index % 2 == 0 { Purpose::Site } else { Purpose::Client };
        resolver.want(0, hop(*address), purpose);
        resolver.seen(0, hop(*address), mac_of(*address), true, true);
    }
    let (mut broadcasts, mut found, mut removed) = (0u64, HashMap::new(), Vec::new());
    let mut wanted = HashMap::new();
    let mut next = 0x0a00_0000;
    actions(&mut resolver);
    for now_ms in 2_000..32_000u64 {
        for _ in 0..5 {
            next += 1;
            resolver.want(now_ms, hop(next), stranger(Some(attacker)));
        }
        if now_ms % 1_000 == 500 {
            // A client that comes, and a backend, neither seen before; and what is in use is used.
            let client = 100_000 + now_ms as u32;
            resolver.want(now_ms, hop(client), stranger(Some(mac_of(client))));
            resolver.want(now_ms, hop(client + 1), Purpose::Site);
            resolver.want(now_ms, hop(client + 2), Purpose::Client);
            (0..3).for_each(|n| _ = wanted.insert(client + n, now_ms));
        }
        if now_ms % 5_000 == 0 {
            for (index, address) in in_use.iter().enumerate() {
                let purpose = if index % 2 == 0 { Purpose::Site } else { Purpose::Client };
                resolver.want(now_ms, hop(*address), purpose);
            }
        }
        resolver.tick(now_ms);
        // Who is asked and is somebody answers within the next ms.
        for action in actions(&mut resolver) {
            match action {
                Action::Request { target, unicast_to } => {
                    broadcasts += u64::from(unicast_to.is_none());
                    let is_real =
                        wanted.contains_key(&target.address) || in_use.contains(&target.address);
                    if is_real && unicast_to.is_none_or(|mac| mac == mac_of(target.address)) {
                        resolver.seen(now_ms, target, mac_of(target.address), true, true);
                    }
                }
                Action::Publish(update) => match update.state {
                    NeighbourState::Reachable(_) => {
                        found.entry(update.hop.address).or_insert(now_ms);
                    }
                    NeighbourState::Removed => removed.push(update.hop.address),
                    NeighbourState::Failed => {}
                },
                Action::Event { .. } | Action::TellKernel { .. } => panic!("{action:?}"),
            }
        }
    }
    for (address, at_ms) in &wanted {
        let found_ms = found.get(address).map(|found| found - at_ms);
        assert!(found_ms.is_some_and(|after_ms| after_ms <= 2), "{address} {found_ms:?}");
    }
    assert_eq!(wanted.len(), 90);
    assert!(removed.iter().all(|address| *address >= 0x0a00_0000), "only strangers make room");
    let most = 30 * (STRANGERS.per_second + REQUESTS_PER_SECOND);
    assert!(broadcasts <= most, "{broadcasts}");
    assert!(resolver.len() <= CAPACITY);
    let strangers = resolver.by_use[Rank::Stranger as usize].len();
    assert_eq!(strangers, CAPACITY - 2_090, "they have what the others leave");
}

#[test]
fn a_full_table_makes_room_by_rank() {
    let mut resolver = Resolver::new(4);
    let mut want = |now_ms, address, purpose| {
        resolver.want(now_ms, hop(address), purpose);
        let all = actions(&mut resolver);
        let removed = all.iter().find_map(|action| match action {
            Action::Publish(update) if update.state == NeighbourState::Removed => {
                Some(update.hop.address)
            }
            _ => None,
        });
        let is_told = all.iter().any(|action| matches!(action, Action::Event { .. }));
        (removed, is_told)
    };
    assert_eq!(want(1, 1, stranger(None)), (None, false));
    assert_eq!(want(2, 2, stranger(None)), (None, false));
    assert_eq!(want(3, 3, stranger(None)), (Some(1), false), "strangers have half of it");
    assert_eq!(want(4, 10, Purpose::Client), (None, false));
    assert_eq!(want(5, 11, Purpose::Client), (None, false));
    assert_eq!(want(6, 12, Purpose::Client), (Some(2), false));
    assert_eq!(want(7, 20, Purpose::Site), (Some(3), false));
    assert_eq!(want(8, 4, stranger(None)), (Some(4), false), "not for a stranger");
    assert_eq!(want(9, 13, Purpose::Client), (Some(13), true), "nor for another client");
    assert_eq!(want(10, 21, Purpose::Site), (Some(10), false), "a backend is not kept out");
    assert_eq!(want(11, 11, Purpose::Site), (None, false), "a client that becomes a backend");
    assert_eq!(want(12, 22, Purpose::Site), (Some(12), false));
    assert_eq!(want(13, 23, Purpose::Site), (Some(23), true), "all in use");
}

#[derive(Clone, Debug)]
enum Step {
    Want(NextHop, Purpose),
    Seen(NextHop, u8, bool, bool),
    Up(u16),
    Pass(u64),
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![
        Just(Purpose::Site),
        Just(Purpose::Client),
        Just(Purpose::Stranger { came_from: None }),
        Just(Purpose::Stranger { came_from: Some(OTHER) }),
    ]
}

fn any_hop() -> impl Strategy<Value = NextHop> {
    (0u16..2, 0u32..12)
        .prop_map(|(number, address)| NextHop { interface: InterfaceId(number), address })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any_hop(), purpose()).prop_map(|(hop, purpose)| Step::Want(hop, purpose)),
        3 => (any_hop(), 0u8..4, any::<bool>(), any::<bool>())
            .prop_map(|(hop, mac, reply, for_us)| Step::Seen(hop, mac, reply, for_us)),
        1 => (0u16..2).prop_map(Step::Up),
        3 => prop_oneof![0u64..50, 500u64..5_000, 20_000u64..40_000, 500_000u64..700_000]
            .prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens, the table keeps its bound and its indices agree, a worker that follows the
    /// news knows exactly what the table knows, and the table comes to rest.
    #[test]
    fn any_history_leaves_a_consistent_table(steps in prop::collection::vec(step(), 1..200)) {
        let mut resolver = Resolver::new(8);
        let mut now_ms = 0;
        let mut worker: HashMap<NextHop, NeighbourState> = HashMap::new();
        for step in steps {
            match step {
                Step::Want(hop, purpose) => {
                    resolver.want(now_ms, hop, purpose);
                }
                Step::Seen(hop, mac, is_reply, for_us) => {
                    let mac = MacAddr([2 * (mac & 1), 0, 0, 0, 0, mac]);
                    resolver.seen(now_ms, hop, mac, is_reply, for_us);
                }
                Step::Up(port) => resolver.link_up(now_ms, InterfaceId(port)),
                Step::Pass(ms) => now_ms += ms,
            }
            resolver.tick(now_ms);
            for action in resolver.take_actions() {
                if let Action::Publish(update) = action {
                    worker.insert(update.hop, update.state);
                }
            }
            prop_assert!(resolver.len() <= resolver.capacity());
            let ranked: usize = resolver.by_use.iter().map(BTreeSet::len).sum();
            prop_assert_eq!(ranked, resolver.len());
            let strangers = resolver.by_use[Rank::Stranger as usize].len();
            prop_assert!(strangers <= resolver.strangers_share());
            let waiting = resolver.waiting.len() + resolver.waiting_strangers.len();
            let wait = resolver.entries.values().filter(|entry| entry.waiting.is_some()).count();
            prop_assert_eq!(waiting, wait);
            let failed = resolver.entries.values().filter(|entry| entry.is_failed()).count();
            prop_assert_eq!(resolver.failed.len(), failed);
            let due = resolver.entries.values().filter(|entry| entry.due_ms.is_some()).count();
            prop_assert_eq!(resolver.deadlines.len(), due);
            for (key, entry) in &resolver.entries {
                prop_assert!(entry.due_ms.is_some() != entry.waiting.is_some(), "{:?}", entry);
                if let Some(mac) = entry.mac() {
                    prop_assert_eq!(worker.get(key), Some(&NeighbourState::Reachable(mac)));
                }
            }
            for (key, state) in &worker {
                let usable = matches!(state, NeighbourState::Reachable(_));
                let known = resolver.entries.get(key).is_some_and(|e| e.mac().is_some());
                prop_assert_eq!(usable, known, "{:?}", key);
            }
        }
        for _ in 0..1_000 {
            now_ms += 1_000;
            resolver.tick(now_ms);
        }
        prop_assert!(resolver.is_empty() && resolver.deadlines.is_empty());
        prop_assert!(resolver.waiting.is_empty() && resolver.waiting_strangers.is_empty());
    }
}
