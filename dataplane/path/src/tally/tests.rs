use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use sluice_api::{Mode, Protocol, Scheduler, SnapshotService};
use sluice_wire::tcp::TcpFlags;

use super::{BACKENDS_PER_PASS, PASS_MS, Reading};
use crate::table::conn::wheel::SLOT_MS;
use crate::testkit::{PORT_MACS, Team, VIP, flow, packet, service, snapshot};

/// A service of this scheduler with so many backends, on a port of its own.
fn web(port: u16, scheduler: Scheduler, backends: u16) -> SnapshotService {
    let mut service = service(&format!("web{port}"), port, Protocol::Tcp, Mode::Dr, backends);
    service.scheduler = scheduler;
    service.timeouts.tcp_syn_received_ms = 100_000_000;
    service.timeouts.tcp_closed_ms = 1;
    service
}

fn limited(mut service: SnapshotService, limit: u32) -> SnapshotService {
    service.backends.iter_mut().for_each(|b| b.max_conns = NonZeroU32::new(limit));
    service
}

fn send(team: &mut Team, worker: usize, port: u16, client: u32, flags: TcpFlags) -> bool {
    let key = flow(Protocol::Tcp, (Ipv4Addr::from_bits(0x0b00_0000 + client), 1), (VIP, port));
    !team.give(worker, false, packet(PORT_MACS[0], &key, flags, b"")).transmitted.is_empty()
}

/// The readings that worker 1 has of a service's backends.
fn readings(team: &Team, service: &SnapshotService) -> Vec<Reading> {
    let slot = team.slots.service(&service.name).unwrap();
    let of = |b: &sluice_api::SnapshotBackend| team.slots.backend(&(slot, b.id())).unwrap();
    service.backends.iter().map(|b| team.workers[1].view.reading(of(b))).collect()
}

#[test]
fn every_backend_has_its_turn() {
    // One service larger than a pass, many small ones, and one that nobody needs to look at.
    let mut services = vec![web(1, Scheduler::Wlc, 700), web(2, Scheduler::Maglev, 700)];
    services.extend((3..40).map(|port| web(port, Scheduler::Wlc, 20)));
    let mut team = Team::new(&snapshot(1, services.clone()), 4_096, 2);
    let mut client = 0;
    for service in &services {
        for _ in 0..service.backends.len() {
            client += 1;
            assert!(send(&mut team, 0, service.port, client, TcpFlags::SYN));
        }
    }
    let looked_at: usize = 700 + 37 * 20;
    for _ in 0..looked_at.div_ceil(BACKENDS_PER_PASS) + 2 {
        team.pass();
    }
    for service in &services {
        // All is read, and of those that nobody asks for nothing.
        let slot = team.slots.service(&service.name).unwrap();
        let conns = |b: &sluice_api::SnapshotBackend| {
            let backend = team.slots.backend(&(slot, b.id())).unwrap();
            team.workers[0].counters.backend(backend).conns.get() as u32
        };
        let is_read = service.scheduler == Scheduler::Wlc;
        let of = |b| Reading { others: if is_read { conns(b) } else { 0 }, own: 0 };
        let expected: Vec<Reading> = service.backends.iter().map(of).collect();
        assert_eq!(service.backends.iter().map(conns).sum::<u32>() as usize, expected.len());
        assert_eq!(readings(&team, service), expected, "{}", service.name);
    }
}

/// Health checks may make a snapshot more often than all backends can be looked at.
#[test]
fn every_backend_has_its_turn_while_snapshots_come() {
    let services: Vec<_> = (1..60).map(|port| web(port, Scheduler::Wlc, 20)).collect();
    let mut team = Team::new(&snapshot(1, services.clone()), 4_096, 2);
    for client in 0..20 * 59 {
        assert!(send(&mut team, 0, 1 + (client % 59) as u16, client, TcpFlags::SYN));
    }
    for generation in 2..20 {
        team.apply(&snapshot(generation, services.clone()));
        team.pass();
    }
    for service in &services {
        let others: u32 = readings(&team, service).iter().map(|r| r.others).sum();
        assert_eq!(others, 20, "{}", service.name);
    }
}

#[test]
fn limits_of_many_backends_are_divided_anew_in_turn() {
    let service = limited(web(1, Scheduler::Wrr, 600), 2);
    let mut team = Team::new(&snapshot(1, vec![service]), 4_096, 2);
    // One each at first; worker 0 then gets the other ones, too.
    let mut made = 0;
    for client in 0..20_000 {
        made += u32::from(send(&mut team, 0, 1, client, TcpFlags::SYN));
        if client % 100 == 0 {
            team.pass();
        }
    }
    assert_eq!(made, 1_200);
}

#[test]
fn a_pass_is_made_every_10_ms_and_as_soon_as_limits_are_known() {
    let mut team = Team::new(&snapshot(1, vec![web(1, Scheduler::Wlc, 2)]), 1_024, 2);
    let service = web(1, Scheduler::Wlc, 2);
    let others = |team: &Team| readings(team, &service).iter().map(|r| r.others).sum::<u32>();
    team.workers.iter().for_each(|w| w.acknowledge());
    team.tally.round(1_000);
    assert!(send(&mut team, 0, 1, 1, TcpFlags::SYN));
    team.tally.round(1_000 + PASS_MS - 1);
    assert_eq!(others(&team), 0);
    team.tally.round(1_000 + PASS_MS);
    assert_eq!(others(&team), 1);

    // A limit on what runs: granted when all have heard of it, not before, and not 10 ms later.
    team.apply(&snapshot(2, vec![limited(web(1, Scheduler::Wlc, 2), 10)]));
    team.tally.round(1_011);
    assert!(!send(&mut team, 0, 1, 2, TcpFlags::SYN), "not all have heard of it");
    team.workers[0].acknowledge();
    team.tally.round(1_012);
    assert!(!send(&mut team, 0, 1, 3, TcpFlags::SYN), "not all have heard of it");
    team.workers[1].acknowledge();
    team.tally.round(1_013);
    assert!(send(&mut team, 0, 1, 4, TcpFlags::SYN));
}

#[test]
fn a_slot_that_is_used_again_starts_with_nothing() {
    let with = |generation, backend: usize| {
        let mut service = limited(web(1, Scheduler::Wlc, 3), 8);
        service.backends = vec![service.backends[backend].clone()];
        snapshot(generation, vec![service])
    };
    let mut team = Team::new(&with(1, 0), 1_024, 2);
    (0..4).for_each(|client| assert!(send(&mut team, 0, 1, client, TcpFlags::SYN)));
    team.pass();
    let slot_of = |team: &Team| team.slots.all_backends().next().unwrap().1;
    let slot = slot_of(&team);
    assert_eq!(team.workers[1].view.reading(slot), Reading { others: 4, own: 0 });

    // Another one while conns run on the first: it is new, and has its quotas at once.
    team.apply(&with(2, 1));
    assert!(send(&mut team, 1, 1, 10, TcpFlags::SYN));
    // The first comes back with its conns: nothing is granted before all have heard of it.
    team.apply(&with(3, 0));
    assert!(!send(&mut team, 1, 1, 11, TcpFlags::SYN));
    team.pass();
    assert!(send(&mut team, 1, 1, 12, TcpFlags::SYN));

    // All end; the slots are free, and the next owner starts with nothing.
    for (worker, client) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 10), (1, 12)] {
        send(&mut team, worker, 1, client, TcpFlags::RST);
    }
    team.pass_time(1 + SLOT_MS);
    team.pass();
    team.apply(&snapshot(4, vec![]));
    team.pass();
    team.apply(&with(5, 2));
    let slot = slot_of(&team);
    let view = &team.workers[1].view;
    assert_eq!((view.reading(slot), view.backend_quota(slot)), (Reading::default(), 4));
}
