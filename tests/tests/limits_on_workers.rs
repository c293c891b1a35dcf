//! `max_conns` over 1, 2, 4 and 8 workers that decide alone: never exceeded, reached soon, and given
//! to whoever asks.
//!
//! The seed is fixed; `SLUICE_SEED=N` tries another, and a failure prints it.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use sluice_api::{DropReason, Mode, Protocol, Scheduler, Snapshot, SnapshotService};
use sluice_path::flow::FlowKey;
use sluice_path::table::conn::wheel::SLOT_MS;
use sluice_path::testkit::{self, BACKEND_PORT, PORT_MACS, Random, Team, VIP, flow, packet};
use sluice_wire::tcp::TcpFlags;

const WORKERS: [u16; 4] = [1, 2, 4, 8];
const SCHEDULERS: [Scheduler; 4] =
    [Scheduler::Maglev, Scheduler::Wrr, Scheduler::Wlc, Scheduler::SourceHash];

/// A service with these limits: its own, and its backends'; 0 is none.
fn service(scheduler: Scheduler, limit: u32, backends: &[u32]) -> SnapshotService {
    let count = backends.len() as u16;
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::Dr, count);
    service.scheduler = scheduler;
    service.max_conns = NonZeroU32::new(limit);
    service.timeouts.tcp_syn_received_ms = 500_000_000;
    service.timeouts.tcp_closed_ms = 1;
    let limits = backends.iter().map(|limit| NonZeroU32::new(*limit));
    service.backends.iter_mut().zip(limits).for_each(|(b, limit)| b.max_conns = limit);
    service
}

fn snapshot(generation: u64, service: SnapshotService) -> Snapshot {
    testkit::snapshot(generation, vec![service])
}

fn client(number: u32) -> FlowKey {
    flow(Protocol::Tcp, (Ipv4Addr::from_bits(0x0b00_0000 + number), 1_000), (VIP, 80))
}

/// Whether a client's SYN made a conn.
fn open(team: &mut Team, worker: usize, number: u32) -> bool {
    let syn = packet(PORT_MACS[0], &client(number), TcpFlags::SYN, b"");
    // A refusal may be answered, to where it came from.
    team.give(worker, false, syn).transmitted.iter().any(|(port, _)| *port == BACKEND_PORT)
}

/// Complete the handshake of a conn in DR by sending data: half-open ones give way to new ones.
fn establish(team: &mut Team, worker: usize, number: u32) {
    team.give(worker, false, packet(PORT_MACS[0], &client(number), TcpFlags::ACK, b"data"));
}

fn close(team: &mut Team, worker: usize, number: u32) {
    team.give(worker, false, packet(PORT_MACS[0], &client(number), TcpFlags::RST, b""));
    team.workers[worker].pass(1 + SLOT_MS);
}

fn drops(team: &Team, reason: DropReason) -> u64 {
    team.workers.iter().map(|worker| worker.drops(reason)).sum()
}

/// What is in force: while a change is on its way, the higher of both.
struct InForce {
    now: Vec<u64>,
    next: Vec<u64>,
}

impl InForce {
    fn new(service: &SnapshotService) -> Self {
        let of = |limit: Option<NonZeroU32>| limit.map_or(u64::MAX, |limit| limit.get().into());
        let limits = std::iter::once(service.max_conns);
        let limits = limits.chain(service.backends.iter().map(|b| b.max_conns)).map(of);
        let limits: Vec<u64> = limits.collect();
        InForce { now: limits.clone(), next: limits }
    }

    fn change(&mut self, service: &SnapshotService) {
        self.next = InForce::new(service).next;
        self.now.iter_mut().zip(&self.next).for_each(|(now, next)| *now = (*now).max(*next));
    }

    fn check(&mut self, team: &Team, before: &[u64], what: &str) {
        for (index, (after, before)) in counts(team).into_iter().zip(before).enumerate() {
            let limit = self.now[index];
            assert!(after <= *before || *before < limit, "{what}: {before} of {limit} at {index}");
        }
    }

    fn settle(&mut self, team: &Team) {
        if team.is_settled() {
            self.now.clone_from(&self.next);
        }
    }
}

/// Conns of the service, then of its backends.
fn counts(team: &Team) -> Vec<u64> {
    let (all, backends) = team.conns(0);
    assert_eq!(all, backends.iter().sum::<u64>(), "backends add up to their service");
    std::iter::once(all).chain(backends).collect()
}

/// Conns come and go on workers that hear late of everything; limits are set, raised, lowered and
/// taken away, and backends drained. No conn is ever made when there are as many as allowed.
#[test]
fn no_limit_is_ever_exceeded() {
    let mut random = Random::from_env();
    let (mut made, mut refused) = (0, 0);
    for round in 0..32 {
        let workers = WORKERS[round % 4];
        let scheduler = SCHEDULERS[round / 4 % 4];
        let random_limits = |random: &mut Random| {
            let mut one = |most: usize| match random.below(4) {
                0 => 0,
                _ => 1 + random.below(most) as u32,
            };
            let all = one(120);
            let backends: Vec<u32> = (0..4).map(|_| one(40)).collect();
            (all, backends)
        };
        let (all, backends) = random_limits(&mut random);
        let first = service(scheduler, all, &backends);
        let mut in_force = InForce::new(&first);
        let mut team = Team::new(&snapshot(1, first), 1_024, workers);
        let mut conns: Vec<(usize, u32)> = Vec::new();
        let (mut generation, mut skewed_to) = (1, 0);
        for number in 0..2_500u32 {
            let worker = match random.below(3) {
                0 => random.below(usize::from(workers)),
                _ => skewed_to,
            };
            match random.below(100) {
                0..=59 => {
                    let before = counts(&team);
                    if open(&mut team, worker, number) {
                        conns.push((worker, number));
                        made += 1;
                    } else {
                        refused += 1;
                    }
                    let what = format!("{scheduler}, {workers} workers, {number}");
                    in_force.check(&team, &before, &what);
                }
                60..=79 if !conns.is_empty() => {
                    let (worker, number) = conns.swap_remove(random.below(conns.len()));
                    close(&mut team, worker, number);
                }
                80..=87 => team.adopt(worker),
                88..=93 => {
                    // What a worker acknowledges it has gone by for a round.
                    team.workers[worker].acknowledge();
                }
                94..=97 => {
                    team.tally.pass();
                    skewed_to = random.below(usize::from(workers));
                }
                98 if random.below(4) == 0 => {
                    generation += 1;
                    let (all, backends) = random_limits(&mut random);
                    let mut next = service(scheduler, all, &backends);
                    let drained = random.below(8);
                    if let Some(backend) = next.backends.get_mut(drained) {
                        backend.weight = 0;
                    }
                    in_force.change(&next);
                    team.publish(&snapshot(generation, next));
                }
                _ => {}
            }
            in_force.settle(&team);
        }
    }
    println!("{made} made, {refused} refused");
    assert!(made > 10_000 && refused > 1_000, "{made} made, {refused} refused");
}

/// A load that meets one worker only, and one that meets all: how many passes until the limit is
/// reached, and how many conns are refused on the way although there is room.
#[test]
fn the_limit_is_reached_within_some_passes() {
    let mut random = Random::from_env();
    for workers in WORKERS {
        for skewed in [false, true] {
            for (what, first) in [
                ("service", service(Scheduler::Wrr, 200, &[0, 0])),
                ("backends", service(Scheduler::Wrr, 0, &[100, 100])),
            ] {
                let mut team = Team::new(&snapshot(1, first), 1_024, workers);
                let (mut passes, mut number, mut refused) = (0, 0, 0);
                while counts(&team)[0] < 200 {
                    // 20 conns between two passes: 2,000 a second.
                    for _ in 0..20 {
                        let worker = if skewed { 0 } else { random.below(usize::from(workers)) };
                        number += 1;
                        refused += u32::from(!open(&mut team, worker, number));
                        if counts(&team)[0] == 200 {
                            break;
                        }
                    }
                    team.pass();
                    passes += 1;
                    assert!(passes < 60, "{what}, {workers} workers: {:?}", counts(&team));
                }
                println!(
                    "{what}, {workers} workers, {}: {passes} passes (10 without quotas), {refused} refused",
                    if skewed { "one of them" } else { "all of them" }
                );
                // Full now: refused by name, and nobody loses a conn.
                assert!(!open(&mut team, 0, 1_000_000));
                let reason = match what {
                    "service" => DropReason::ServiceLimit,
                    _ => DropReason::BackendLimit,
                };
                assert!(drops(&team, reason) > 0 && counts(&team)[0] == 200);
            }
        }
    }
}

/// The last conn, which only one worker may make at a time, is offered to all in turn.
#[test]
fn the_last_conn_comes_to_every_worker() {
    for workers in WORKERS {
        let first = service(Scheduler::Maglev, 1, &[0]);
        let mut team = Team::new(&snapshot(1, first), 1_024, workers);
        let mut most = 0;
        for worker in 0..usize::from(workers) {
            let mut passes = 0;
            while !open(&mut team, worker, 7) {
                team.pass();
                passes += 1;
            }
            most = most.max(passes);
            assert!(passes <= 2 * workers + 2, "{workers} workers: {passes} passes");
            close(&mut team, worker, 7);
            assert_eq!(counts(&team)[0], 0);
            team.pass();
        }
        println!("{workers} workers: the last conn after at most {most} passes");
    }
}

/// What a full backend cannot take goes to the others, by weight, and only a service whose backends
/// are all full refuses.
#[test]
fn a_full_backend_is_passed_over() {
    for scheduler in SCHEDULERS {
        for workers in WORKERS {
            let mut first = service(scheduler, 0, &[16, 0, 0, 0]);
            first.backends[3].weight = 0;
            let mut team = Team::new(&snapshot(1, first), 4_096, workers);
            for number in 0..1_600 {
                let worker = number as usize % usize::from(workers);
                assert!(open(&mut team, worker, number), "{scheduler}");
                if number % 16 == 0 {
                    team.pass();
                }
            }
            let conns = counts(&team);
            assert_eq!((conns[1], conns[4]), (16, 0), "{scheduler}: {conns:?}");
            assert!(conns[2].abs_diff(conns[3]) < 160, "{scheduler}: {conns:?}");
            assert_eq!(drops(&team, DropReason::BackendLimit), 0);
        }
    }
}

/// By hash, a client that finds its backend full goes to the same other one, whoever asks.
#[test]
fn hashes_pass_over_a_full_backend_alike_on_every_worker() {
    for scheduler in [Scheduler::Maglev, Scheduler::SourceHash] {
        let mut team = Team::new(&snapshot(1, service(scheduler, 0, &[8, 0, 0, 0])), 4_096, 8);
        for number in 0..200 {
            (0..8).for_each(|worker| assert!(open(&mut team, worker, 10_000 + number)));
        }
        assert_eq!(counts(&team)[1], 8, "one on each");
        for number in 0..100 {
            let before = counts(&team);
            (0..8).for_each(|worker| assert!(open(&mut team, worker, number)));
            let grown = counts(&team).iter().zip(before).filter(|(a, b)| **a == b + 8).count();
            assert_eq!(grown, 2, "the service, and one backend");
        }
    }
}

/// 300 backends of which one has room: it is found, though it is not among the next choices.
#[test]
fn the_only_backend_with_room_is_found() {
    for scheduler in SCHEDULERS {
        let mut limits = [1; 300];
        limits[170] = 0;
        let mut team = Team::new(&snapshot(1, service(scheduler, 0, &limits)), 4_096, 1);
        (0..2_000).for_each(|number| assert!(open(&mut team, 0, number), "{scheduler}"));
        let conns = counts(&team);
        assert!(conns[171] >= 1_700, "{scheduler}: {conns:?}");
        assert!(conns[1..].iter().enumerate().all(|(b, c)| b == 170 || *c <= 1), "{scheduler}");
    }
}

/// A refused client finds room as soon as there is some: a conn has ended, a backend has come, a
/// limit is higher or gone.
#[test]
fn room_that_comes_is_seen() {
    for scheduler in SCHEDULERS {
        for workers in WORKERS {
            let last = usize::from(workers) - 1;
            let mut team = Team::new(&snapshot(1, service(scheduler, 0, &[4, 4])), 1_024, workers);
            // Opens until it is refused for good; the clients that were let in.
            let fill = |team: &mut Team, from: u32| {
                let mut numbers = Vec::new();
                for number in from..from + 400 {
                    if open(team, last, number) {
                        numbers.push(number);
                    } else {
                        team.pass();
                    }
                }
                numbers
            };
            let made = fill(&mut team, 0);
            assert_eq!(made.len(), 8, "{scheduler}, {workers} workers");
            assert!(!open(&mut team, last, 900));

            close(&mut team, last, made[0]);
            assert!(open(&mut team, last, 901), "{scheduler}: a conn has ended");
            assert!(!open(&mut team, last, 902));

            team.apply(&snapshot(2, service(scheduler, 0, &[4, 4, 4])));
            assert_eq!(fill(&mut team, 1_000).len(), 4, "a backend has come");
            team.apply(&snapshot(3, service(scheduler, 0, &[4, 9, 4])));
            assert_eq!(fill(&mut team, 2_000).len(), 5, "a limit is higher");
            assert!(!open(&mut team, last, 903));
            team.apply(&snapshot(4, service(scheduler, 0, &[4, 0, 4])));
            assert!(open(&mut team, last, 904), "{scheduler}: a limit is gone");
            // A service whose backends take no new conns at all says so.
            let mut none = service(scheduler, 0, &[1, 1, 1]);
            none.backends.iter_mut().for_each(|b| b.weight = 0);
            team.apply(&snapshot(5, none));
            let before = drops(&team, DropReason::NoBackend);
            assert!(!open(&mut team, last, 905));
            assert_eq!(drops(&team, DropReason::NoBackend), before + 1);
        }
    }
}

/// A limit below what there is cuts nothing; one on something that runs is in force as soon as every
/// worker has heard of it.
#[test]
fn a_lower_limit_only_stops_new_conns() {
    for workers in WORKERS {
        let mut team = Team::new(&snapshot(1, service(Scheduler::Wrr, 0, &[0])), 1_024, workers);
        let owner = |number: u32| number as usize % usize::from(workers);
        for number in 0..100 {
            assert!(open(&mut team, owner(number), number));
            establish(&mut team, owner(number), number);
        }
        team.apply(&snapshot(2, service(Scheduler::Wrr, 40, &[0])));
        for number in 0..100 {
            team.pass();
            assert_eq!(counts(&team)[0], 100 - u64::from(number));
            let may = 100 - number < 40;
            let asked = 1_000 + number;
            let made = (0..usize::from(workers)).any(|worker| open(&mut team, worker, asked));
            assert!(!made || may, "{workers} workers, {number}");
            if made {
                break;
            }
            close(&mut team, owner(number), number);
            assert!(number < 70, "new conns come again below the limit");
        }
        // On a live service it takes a pass, and no longer.
        let mut team = Team::new(&snapshot(1, service(Scheduler::Wrr, 0, &[0])), 1_024, workers);
        assert!(open(&mut team, 0, 0));
        team.apply(&snapshot(2, service(Scheduler::Wrr, 1_000, &[500])));
        team.pass();
        (0..usize::from(workers)).for_each(|w| assert!(open(&mut team, w, 1 + w as u32)));
    }
}
