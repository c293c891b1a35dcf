//! Next hops of backends, looked after without traffic.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::family::V4;

/// Backends' next hops on the one port, which has 10.0.0.0/24; others go by `GATEWAY`.
fn backends(addresses: impl IntoIterator<Item = u32>) -> Arc<BackendHops> {
    let network = "10.0.0.0/24".parse().unwrap();
    let route = crate::table::route::Route {
        destination: "172.16.0.0/12".parse().unwrap(),
        via: Ipv4Addr::from_bits(GATEWAY),
        interface: LAN,
    };
    let routes = crate::table::route::RouteTable::new([(LAN, network)], &[route]);
    Arc::new(BackendHops::new(addresses, &routes))
}

const GATEWAY: u32 = 0x0a00_00fe;
const FAR: [u32; 2] = [0xac10_0001, 0xac10_0002];

fn unreachable(resolver: &Resolver) -> Vec<(u32, Option<u32>)> {
    let (failed, hops) = resolver.unreachable();
    let all = hops.unreachable(&failed).into_iter();
    all.map(|b| (V4::of_valid(b.address), b.next_hop.map(V4::of_valid))).collect()
}

fn requests(out: &[(u64, Action)], target: u32) -> Vec<u64> {
    let asks = |action: &Action| matches!(action, Action::Request { target: of, .. } if of.address == target);
    out.iter().filter(|(_, action)| asks(action)).map(|(at, _)| *at).collect()
}

#[test]
fn a_backends_next_hop_is_known_to_be_dead_without_a_packet_and_asked_for_each_second() {
    let mut resolver = resolver();
    resolver.watch(1_000, backends([FAR[0], A, FAR[1], A]));
    assert_eq!((unreachable(&resolver), resolver.unreachable_changes()), (vec![], 0));
    let out = run(&mut resolver, 1_000, 3_900);
    assert_eq!(requests(&out, A), [1_000, 2_000, 3_000], "before anybody wants it");
    assert_eq!(requests(&out, GATEWAY), [1_000, 2_000, 3_000], "once for both behind it");
    assert_eq!(unreachable(&resolver), [], "a lost answer or two is no failure");
    resolver.seen(3_900, hop(A), MAC, true, true);
    let out = run(&mut resolver, 4_000, 20_000);
    assert_eq!(unreachable(&resolver), [(FAR[0], Some(GATEWAY)), (FAR[1], Some(GATEWAY))]);
    assert_eq!(resolver.unreachable_changes(), 1);
    assert_eq!(requests(&out, GATEWAY), (4..=20).map(|s| s * 1_000).collect::<Vec<_>>());
    let events = out.iter().filter(|(_, a)| matches!(a, Action::Event { .. })).count();
    assert_eq!(events, 1);
    // A worker that wants it is told at once, and changes nothing.
    resolver.want(20_100, hop(GATEWAY), SITE);
    assert_eq!(actions(&mut resolver), [publish(GATEWAY, NeighbourState::Failed)]);
    resolver.seen(20_200, hop(GATEWAY), OTHER, true, true);
    assert_eq!((unreachable(&resolver), resolver.unreachable_changes()), (vec![], 2));
    assert_eq!(actions(&mut resolver), [reachable(GATEWAY, OTHER)]);
}

#[test]
fn a_backend_that_dies_while_nobody_sends_to_it_is_found_out() {
    let mut resolver = resolver();
    resolver.watch(0, backends([A]));
    run(&mut resolver, 0, 0);
    resolver.seen(0, hop(A), MAC, true, true);
    let out = run(&mut resolver, 100, 41_000);
    let asked = requests(&out, A);
    assert_eq!(asked[0], 30_000, "confirmed when that is old, and not before");
    assert_eq!(unreachable(&resolver), [(A, Some(A))]);
    let failed = out.iter().position(|(_, a)| *a == publish(A, NeighbourState::Failed)).unwrap();
    assert_eq!(out[failed].0, 36_000, "three by unicast and three by broadcast");
}

#[test]
fn what_was_failed_before_it_was_a_backends_counts_and_what_is_none_any_more_does_not() {
    let mut resolver = resolver();
    resolver.want(0, hop(A), SITE);
    run(&mut resolver, 0, 10_000);
    assert_eq!((state(&resolver).0, unreachable(&resolver)), ("failed", vec![]));
    resolver.watch(10_100, backends([A]));
    let out = run(&mut resolver, 10_100, 12_000);
    assert_eq!(
        (requests(&out, A), unreachable(&resolver)),
        (vec![10_100, 11_100], vec![(A, Some(A))])
    );
    let changes = resolver.unreachable_changes();
    resolver.watch(12_050, backends([]));
    assert_eq!((unreachable(&resolver), resolver.unreachable_changes()), (vec![], changes + 1));
    assert_eq!(requests(&run(&mut resolver, 13_200, 700_000), A), Vec::<u64>::new());
    assert!(resolver.is_empty(), "and is forgotten");
}

#[test]
fn backends_without_a_route_are_told_and_their_change_too() {
    let nowhere = 0x0808_0808;
    let mut resolver = resolver();
    resolver.watch(0, backends([A, nowhere]));
    assert_eq!(
        (unreachable(&resolver), resolver.unreachable_changes()),
        (vec![(nowhere, None)], 1)
    );
    resolver.watch(0, backends([A, nowhere]));
    assert_eq!(resolver.unreachable_changes(), 1);
}

#[test]
fn nothing_is_held_against_a_backend_while_answers_may_be_lost() {
    let mut resolver = resolver();
    resolver.doubt_silence(true);
    resolver.watch(0, backends([A]));
    run(&mut resolver, 0, 8_000);
    assert_eq!(unreachable(&resolver), []);
    resolver.doubt_silence(false);
    run(&mut resolver, 8_100, 9_100);
    assert_eq!(unreachable(&resolver), [(A, Some(A))]);
}

/// A rack of them is dead: what packets wait for is asked for at once all the same, and all come at
/// their rate.
#[test]
fn many_dead_backends_hold_up_nobody() {
    let network = "10.0.0.0/16".parse().unwrap();
    let routes = crate::table::route::RouteTable::new([(LAN, network)], &[]);
    let all = (0..3_000).map(|n| 0x0a00_0100 + n);
    let mut resolver = Resolver::new(4_096);
    resolver.watch(0, Arc::new(BackendHops::new(all, &routes)));
    let mut sent = Vec::new();
    for now_ms in (0..20_000).step_by(2) {
        resolver.tick(now_ms);
        if now_ms % 100 == 50 {
            resolver.want(now_ms, hop(A + now_ms as u32 % 7 * 0x1_0000), SITE);
        }
        sent.extend(resolver.take_actions().map(|action| (now_ms, action)));
    }
    assert_eq!(requests(&sent, A)[0] % 100, 50, "in the round of its want");
    let all: Vec<u64> = sent
        .iter()
        .filter(|(_, a)| matches!(a, Action::Request { .. }))
        .map(|(at, _)| *at)
        .collect();
    assert!((9_000..=10_400).contains(&all.len()), "{} requests in 20 s", all.len());
    let most = (0..20).map(|s| all.iter().filter(|at| **at / 1_000 == s).count()).max();
    assert!(most <= Some(620), "{most:?} in a second");
    let free = resolver.capacity() - resolver.len();
    assert!(free >= resolver.capacity() / 4 - 7, "{free} places are left for others");
}

#[test]
fn a_wanted_one_does_not_wait_among_those_that_nobody_wants() {
    let network = "10.0.0.0/16".parse().unwrap();
    let routes = crate::table::route::RouteTable::new([(LAN, network)], &[]);
    let all = (0..600).map(|n| 0x0a00_0100 + n);
    let mut resolver = Resolver::new(1_024);
    resolver.watch(0, Arc::new(BackendHops::new(all, &routes)));
    for now_ms in [0, 2, 4] {
        resolver.tick(now_ms);
    }
    let last = 0x0a00_0100 + 599;
    let out: Vec<_> = actions(&mut resolver).into_iter().map(|action| (4, action)).collect();
    assert_eq!((out.len(), requests(&out, last)), (102, vec![]));
    resolver.want(4, hop(last), SITE);
    assert_eq!(actions(&mut resolver), [broadcast(last)]);
}

#[test]
fn snapshots_every_few_ms_with_the_same_backends_keep_nobody_from_its_turn() {
    let network = "10.0.0.0/16".parse().unwrap();
    let routes = crate::table::route::RouteTable::new([(LAN, network)], &[]);
    let last = 0x0a00_0100 + 2_999;
    let hops = Arc::new(BackendHops::new(0x0a00_0100..=last, &routes));
    let mut resolver = Resolver::new(8_192);
    let mut sent = Vec::new();
    for now_ms in (0..30_000).step_by(2) {
        resolver.watch(now_ms, Arc::clone(&hops));
        resolver.tick(now_ms);
        sent.extend(resolver.take_actions().map(|action| (now_ms, action)));
    }
    assert!(!requests(&sent, last).is_empty(), "the last one is asked for, too");
    assert!(unreachable(&resolver).len() > 1_000, "nobody answers");
    let changes = resolver.unreachable_changes();
    resolver.watch(30_000, hops);
    assert_eq!(resolver.unreachable_changes(), changes, "it is no news");
}
