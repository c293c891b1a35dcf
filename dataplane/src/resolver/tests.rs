//! Every transition, by what goes in and what comes out.

use proptest::prelude::*;

use super::*;
use crate::table::neighbour::{EgressPort, Neighbours};
use crate::table::route::NextHop;

const A: u32 = 0x0a00_0005;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 6]);
const PORT: u16 = 0;

fn resolver() -> Resolver {
    Resolver::new(64).with_port_names(["lan".to_owned()])
}

fn actions(resolver: &mut Resolver) -> Vec<Action> {
    resolver.take_actions().collect()
}

fn broadcast(target: u32) -> Action {
    Action::Request { port: PORT, target, unicast_to: None }
}

fn unicast(target: u32, to: MacAddr) -> Action {
    Action::Request { port: PORT, target, unicast_to: Some(to) }
}

fn publish(address: u32, state: NeighbourState) -> Action {
    Action::Publish(NeighbourUpdate { port: PORT, address, state })
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
    resolver.want(0, PORT, A);
    resolver.seen(0, PORT, A, MAC, true, true);
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
    resolver.want(1_000, PORT, A);
    assert_eq!(actions(&mut resolver), [broadcast(A)], "at once");
    assert_eq!(state(&resolver), ("incomplete", None));
    resolver.want(1_200, PORT, A);
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
        resolver.want(now_ms, PORT, A);
        resolver.tick(now_ms);
        for action in actions(&mut resolver) {
            match action {
                Action::Request { .. } => requests += 1,
                Action::Event { .. } => events += 1,
                Action::Publish(update) => assert_eq!(update.state, NeighbourState::Failed),
            }
        }
    }
    assert_eq!((requests, events), (30, 1));
}

/// While a worker is stuck, answers may lie in its queues.
#[test]
fn a_known_host_is_not_given_up_while_answers_may_be_lost() {
    let mut resolver = known();
    resolver.want(REACHABLE_MS, PORT, A);
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
    resolver.want(0, PORT, A);
    run(&mut resolver, 0, 3_000);
    resolver.want(3_999, PORT, A);
    assert_eq!(actions(&mut resolver), [publish(A, NeighbourState::Failed)]);
    resolver.want(4_000, PORT, A);
    assert_eq!(actions(&mut resolver), [broadcast(A)]);
    resolver.seen(4_001, PORT, A, MAC, true, true);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    assert_eq!(run(&mut resolver, 4_100, 20_000), [], "no request is left over");
}

/// What was verified and then fails is asked for as any other: with a worker that has packets for it
/// all the time, anew a second after it was given up, and so again every 4 s.
#[test]
fn a_verified_host_that_fails_is_asked_for_again_after_a_second() {
    let egress = EgressPort { mac: MacAddr([2, 0, 0, 0, 0, 1]), mtu: 1_500 };
    for first_packet_ms in [0, 1, 499, 500, 2_600, 4_999] {
        let (mut resolver, mut table) = (resolver(), Neighbours::new(4, &[egress]));
        let (mut failed_ms, mut requests) = (None, Vec::new());
        for now_ms in 0..60_000u64 {
            let now = now_ms as u32;
            if now_ms == 0 || (now_ms >= first_packet_ms && now_ms % 10 == first_packet_ms % 10) {
                let note = table.slot_of(NextHop { port: PORT, address: A }, now).unwrap();
                if table.should_ask(table.current(note).unwrap(), now) {
                    resolver.want(now_ms, PORT, A);
                }
            }
            // It answers once and never again.
            if now_ms == 2 {
                resolver.seen(now_ms, PORT, A, MAC, true, true);
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
    resolver.want(29_999, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)], "another worker may not know it yet");
    assert_eq!(run(&mut resolver, 30_000, 40_000), [], "nobody wants it, nobody asks");
    assert_eq!(state(&resolver), ("reachable", Some(MAC)));
    assert_eq!(resolver.status(40_000)[0].age_ms, 40_000);
}

#[test]
fn a_want_after_that_probes_and_keeps_it_usable() {
    let mut resolver = known();
    resolver.want(30_000, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
    resolver.want(30_500, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)], "usable meanwhile, not asked again");
    assert_eq!(state(&resolver), ("probing", Some(MAC)));
    resolver.seen(30_600, PORT, A, MAC, true, true);
    assert_eq!(actions(&mut resolver), [], "confirmed: no news");
    assert_eq!(state(&resolver), ("reachable", Some(MAC)));
    resolver.want(60_599, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    resolver.want(60_600, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
}

#[test]
fn probing_goes_from_unicast_to_broadcast_to_failed() {
    let mut resolver = known();
    resolver.want(30_000, PORT, A);
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
    resolver.want(30_000, PORT, A);
    run(&mut resolver, 30_100, 33_500);
    resolver.seen(33_600, PORT, A, OTHER, true, true);
    let message = "10.0.0.5 on lan moved from 02:00:00:00:00:05 to 02:00:00:00:00:06";
    let moved = event("neighbour-moved", message);
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER), moved]);
    resolver.want(60_000, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER)], "fresh: it was our request");
}

#[test]
fn a_gratuitous_arp_moves_a_known_host_and_the_next_want_verifies() {
    let mut resolver = known();
    resolver.seen(5_000, PORT, A, OTHER, false, false);
    let out = actions(&mut resolver);
    assert_eq!(out.len(), 2);
    assert_eq!(out[0], reachable(A, OTHER));
    assert!(matches!(&out[1], Action::Event { kind: "neighbour-moved", .. }));
    assert_eq!(resolver.status(6_000)[0].age_ms, 6_000, "told, not confirmed");
    resolver.want(6_000, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER), unicast(A, OTHER)]);
}

#[test]
fn an_unasked_reply_with_another_mac_is_verified_too() {
    let mut resolver = known();
    resolver.seen(5_000, PORT, A, OTHER, true, true);
    assert_eq!(actions(&mut resolver)[0], reachable(A, OTHER));
    resolver.want(6_000, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, OTHER), unicast(A, OTHER)]);
}

#[test]
fn a_request_for_us_refreshes_and_one_for_others_does_not() {
    let mut resolver = known();
    resolver.seen(20_000, PORT, A, MAC, false, true);
    resolver.want(49_999, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);

    let mut resolver = known();
    resolver.seen(20_000, PORT, A, MAC, false, false);
    resolver.want(30_000, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
}

#[test]
fn a_failed_host_that_speaks_up_is_usable_at_once() {
    let mut resolver = resolver();
    resolver.want(0, PORT, A);
    run(&mut resolver, 0, 3_000);
    resolver.seen(3_100, PORT, A, MAC, false, false);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    resolver.want(3_200, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
    // It fails again: that is news.
    let out = run(&mut resolver, 3_300, 20_000);
    assert!(matches!(&out.last().unwrap().1, Action::Event { kind: "neighbour-failed", .. }));
}

#[test]
fn strangers_probes_and_impossible_senders_change_nothing() {
    let mut resolver = known();
    for address in 0x0a00_0100..0x0a00_1000 {
        resolver.seen(10, PORT, address, MAC, true, true);
    }
    resolver.seen(10, PORT, 0, OTHER, false, true);
    resolver.seen(10, PORT, A, MacAddr([3, 0, 0, 0, 0, 1]), true, true);
    resolver.seen(10, PORT, A, MacAddr::BROADCAST, true, true);
    resolver.seen(10, PORT, A, MacAddr::ZERO, true, true);
    resolver.seen(10, PORT + 1, A, OTHER, true, true);
    assert_eq!(actions(&mut resolver), []);
    assert_eq!(state(&resolver), ("reachable", Some(MAC)));
}

#[test]
fn an_entry_that_nobody_wants_is_removed_after_ten_minutes() {
    let mut resolver = known();
    resolver.want(20_000, PORT, A);
    actions(&mut resolver);
    // Staying in touch with us is not being wanted.
    resolver.seen(500_000, PORT, A, MAC, false, true);
    resolver.tick(619_999);
    assert_eq!(actions(&mut resolver), []);
    resolver.tick(620_000);
    assert_eq!(actions(&mut resolver), [publish(A, NeighbourState::Removed)]);
    assert!(resolver.is_empty() && resolver.status(620_000).is_empty());

    resolver.want(700_000, PORT, A);
    run(&mut resolver, 700_000, 710_000);
    assert_eq!(state(&resolver), ("failed", None));
    resolver.tick(1_300_000);
    assert_eq!(actions(&mut resolver), [publish(A, NeighbourState::Removed)], "failed ones too");
}

#[test]
fn a_port_that_comes_up_makes_its_next_hops_be_verified() {
    let mut resolver = known();
    resolver.port_up(1_000, PORT + 1);
    resolver.want(1_000, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC)]);
    resolver.port_up(1_000, PORT);
    resolver.want(1_001, PORT, A);
    assert_eq!(actions(&mut resolver), [reachable(A, MAC), unicast(A, MAC)]);
}

#[test]
fn a_full_table_gives_up_the_longest_unused_entry_and_else_refuses() {
    let mut resolver = Resolver::new(2).with_port_names(["lan".to_owned()]);
    for address in [1, 2] {
        resolver.want(u64::from(address), PORT, address);
        resolver.seen(10, PORT, address, MAC, true, true);
    }
    actions(&mut resolver);
    resolver.want(20_000, PORT, 3);
    resolver.want(20_001, PORT, 4);
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

    resolver.want(25_000, PORT, 1);
    actions(&mut resolver);
    resolver.want(30_002, PORT, 3);
    assert_eq!(
        actions(&mut resolver),
        [publish(2, NeighbourState::Removed), broadcast(3)],
        "2 is unused for 30 s"
    );
    run(&mut resolver, 30_100, 34_000);
    resolver.want(34_000, PORT, 1);
    actions(&mut resolver);
    resolver.want(34_001, PORT, 4);
    assert_eq!(
        actions(&mut resolver),
        [publish(3, NeighbourState::Removed), broadcast(4)],
        "3 has failed"
    );
    resolver.want(34_002, PORT, 5);
    assert_eq!(actions(&mut resolver), [publish(5, NeighbourState::Removed), full(5)]);
}

#[test]
fn requests_have_a_rate_and_those_that_wait_are_served_in_turn() {
    let mut resolver = Resolver::new(5_000);
    for address in 1..=3_000 {
        resolver.want(0, PORT, address);
    }
    let burst = actions(&mut resolver).len() as u64;
    assert_eq!(burst, REQUEST_BURST);
    let mut at: Vec<(u64, u32)> = Vec::new();
    for now_ms in (10..=20_000).step_by(10) {
        resolver.tick(now_ms);
        for action in resolver.take_actions() {
            if let Action::Request { target, .. } = action {
                at.push((now_ms, target));
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
        resolver.want(0, PORT, address);
    }
    actions(&mut resolver);
    for address in 101..=200 {
        resolver.seen(0, PORT, address, MAC, false, true);
    }
    actions(&mut resolver);
    resolver.tick(500);
    assert_eq!(actions(&mut resolver), [], "nothing waits any more");
}

#[derive(Clone, Debug)]
enum Step {
    Want(u16, u32),
    Seen(u16, u32, u8, bool, bool),
    Up(u16),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u16..2, 0u32..12).prop_map(|(port, address)| Step::Want(port, address)),
        3 => (0u16..2, 0u32..12, 0u8..4, any::<bool>(), any::<bool>())
            .prop_map(|(port, a, mac, reply, for_us)| Step::Seen(port, a, mac, reply, for_us)),
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
        let mut worker: HashMap<Key, NeighbourState> = HashMap::new();
        for step in steps {
            match step {
                Step::Want(port, address) => resolver.want(now_ms, port, address),
                Step::Seen(port, address, mac, is_reply, for_us) => {
                    let mac = MacAddr([2 * (mac & 1), 0, 0, 0, 0, mac]);
                    resolver.seen(now_ms, port, address, mac, is_reply, for_us);
                }
                Step::Up(port) => resolver.port_up(now_ms, port),
                Step::Pass(ms) => now_ms += ms,
            }
            resolver.tick(now_ms);
            for action in resolver.take_actions() {
                if let Action::Publish(update) = action {
                    worker.insert((update.port, update.address), update.state);
                }
            }
            prop_assert!(resolver.len() <= resolver.capacity());
            prop_assert_eq!(resolver.by_use.len(), resolver.len());
            let failed = resolver.entries.values().filter(|entry| entry.is_failed()).count();
            prop_assert_eq!(resolver.failed.len(), failed);
            let due = resolver.entries.values().filter(|entry| entry.due_ms.is_some()).count();
            prop_assert_eq!(resolver.deadlines.len(), due);
            for (key, entry) in &resolver.entries {
                prop_assert!(entry.due_ms.is_some() != entry.waiting, "{:?}", entry);
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
        prop_assert!(resolver.waiting.is_empty());
    }
}
