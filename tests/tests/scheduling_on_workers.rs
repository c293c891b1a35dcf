//! Schedulers of 1, 2, 4 and 8 workers that decide alone, beside one decider: how far the balance
//! over all of them may be off, for conns that come to the workers evenly or mostly to one.
//!
//! The seed is fixed; `SLUICE_SEED=N` tries another, and a failure prints it.

use std::net::Ipv4Addr;

use sluice_api::{Mode, Protocol, Scheduler, SnapshotService};
use sluice_path::ids::WorkerId;
use sluice_path::scheduler::{Wrr, WrrTable, pick_least_connections};
use sluice_path::tally::Reading;
use sluice_path::testkit::{self, PORT_MACS, Random, Team, VIP, flow, packet, snapshot};
use sluice_wire::tcp::TcpFlags;

const WORKERS: [u16; 4] = [1, 2, 4, 8];

/// How new conns come to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrivals {
    /// To any of them alike.
    Even,
    /// Nine of ten to the last one.
    Skewed,
    /// All to the last one.
    One,
}

const ARRIVALS: [Arrivals; 3] = [Arrivals::Even, Arrivals::Skewed, Arrivals::One];

impl Arrivals {
    fn worker(self, random: &mut Random, workers: u16) -> usize {
        let last = usize::from(workers) - 1;
        match self {
            Arrivals::Skewed if random.below(10) > 0 => last,
            Arrivals::One => last,
            _ => random.below(last + 1),
        }
    }
}

/// Workers that schedule by least connections over the same backends.
struct LeastConnections {
    weights: Vec<u16>,
    /// By worker and backend.
    own: Vec<Vec<u32>>,
    readings: Vec<Vec<Reading>>,
    starts: Vec<usize>,
}

impl LeastConnections {
    fn new(workers: u16, weights: &[u16]) -> Self {
        let workers = usize::from(workers);
        LeastConnections {
            own: vec![vec![0; weights.len()]; workers],
            readings: vec![vec![Reading::default(); weights.len()]; workers],
            starts: (0..workers).collect(),
            weights: weights.to_vec(),
        }
    }

    fn workers(&self) -> u16 {
        self.own.len() as u16
    }

    fn arrive(&mut self, worker: usize) -> usize {
        let (own, readings) = (&self.own[worker], &self.readings[worker]);
        let load = |b: usize| Some(readings[b].estimate(own[b], self.own.len() as u16));
        self.starts[worker] += 1;
        let (new, start) = (u64::from(self.workers()), self.starts[worker]);
        let backend = pick_least_connections(&self.weights, load, new, start).unwrap();
        self.own[worker][backend] += 1;
        backend
    }

    fn all(&self, backend: usize) -> u32 {
        self.own.iter().map(|own| own[backend]).sum()
    }

    /// What the main thread does for one backend.
    fn read(&mut self, backend: usize) {
        let all = self.all(backend);
        for (own, readings) in self.own.iter().zip(&mut self.readings) {
            readings[backend] = Reading { others: all - own[backend], own: own[backend] };
        }
    }

    fn read_all(&mut self) {
        (0..self.weights.len()).for_each(|backend| self.read(backend));
    }

    /// How many conns too many the worst pair has: the least x for which, for all a and b,
    /// conns(a) / weight(a) ≤ (conns(b) + x) / weight(b).
    fn distance(&self) -> f64 {
        let takers = (0..self.weights.len()).filter(|b| self.weights[*b] > 0);
        let per_weight = |b: usize| f64::from(self.all(b)) / f64::from(self.weights[b]);
        let most = takers.clone().map(per_weight).fold(0.0, f64::max);
        let behind = |b: usize| most * f64::from(self.weights[b]) - f64::from(self.all(b));
        takers.map(behind).fold(0.0, f64::max)
    }

    /// End a random conn, on a backend if one is named.
    fn end_one(&mut self, random: &mut Random, of: Option<usize>) {
        let backend = of.unwrap_or_else(|| random.below(self.weights.len()));
        let first = random.below(self.own.len());
        let has = |w: &usize| self.own[*w][backend] > 0;
        let mut order = (first..self.own.len()).chain(0..first);
        if let Some(worker) = order.find(has) {
            self.own[worker][backend] -= 1;
        }
    }
}

fn random_weights(random: &mut Random) -> Vec<u16> {
    let most = random.one_of(&[1, 3, 100, 65_535]);
    (0..2 + random.below(12)).map(|_| 1 + random.below(most) as u16).collect()
}

#[test]
fn least_connections_stay_within_n_conns() {
    let mut random = Random::from_env();
    let mut worst = [[0.0f64; 4]; 3];
    for _ in 0..40 {
        let weights = random_weights(&mut random);
        for (row, arrivals) in ARRIVALS.into_iter().enumerate() {
            for (column, workers) in WORKERS.into_iter().enumerate() {
                let mut scheduler = LeastConnections::new(workers, &weights);
                let between = 1 + random.below(300);
                for _ in 0..2_000 {
                    let worker = arrivals.worker(&mut random, workers);
                    scheduler.arrive(worker);
                    if random.below(between) == 0 {
                        scheduler.read_all();
                    }
                    let distance = scheduler.distance();
                    worst[row][column] = worst[row][column].max(distance);
                    assert!(
                        distance <= f64::from(workers) + 1e-6,
                        "{workers} workers, {arrivals:?}, weights {weights:?}: {distance}"
                    );
                }
            }
        }
    }
    println!("at most conns apart, by arrivals and workers {WORKERS:?}: {worst:.2?}");
}

/// The bound is no larger than it must be: N workers that know nothing of each other yet may all
/// give their first conn to one backend.
#[test]
fn n_conns_apart_do_happen() {
    for workers in WORKERS {
        let mut scheduler = LeastConnections::new(workers, &[1, 1]);
        scheduler.starts = vec![0; usize::from(workers)];
        (0..usize::from(workers)).for_each(|worker| _ = scheduler.arrive(worker));
        assert_eq!(scheduler.distance(), f64::from(workers));
    }
}

/// A backend comes back empty, weights change, conns end at random: the conns that come then bring
/// the balance back, on workers also that have made none of the conns that are out of balance.
#[test]
fn least_connections_come_back_to_within_n_conns() {
    let mut random = Random::from_env();
    let mut most_needed = 0.0f64;
    for round in 0..60 {
        let workers = WORKERS[round % 4];
        let arrivals = ARRIVALS[round % 3];
        let mut weights = random_weights(&mut random);
        let mut scheduler = LeastConnections::new(workers, &weights);
        for _ in 0..3_000 {
            let worker = random.below(usize::from(workers));
            scheduler.arrive(worker);
            if random.below(50) == 0 {
                scheduler.read_all();
            }
        }
        match round % 5 {
            0 => (0..3_000).for_each(|_| scheduler.end_one(&mut random, Some(0))),
            1 => {
                weights.iter_mut().for_each(|w| *w = 1 + random.below(100) as u16);
                scheduler.weights.clone_from(&weights);
            }
            2 => scheduler.own[0].fill(0),
            _ => (0..2_000).for_each(|_| scheduler.end_one(&mut random, None)),
        }
        scheduler.read_all();
        // As many as one decider needs to fill all the gaps.
        let conns: Vec<u32> = (0..weights.len()).map(|b| scheduler.all(b)).collect();
        let per_weight = |b: usize| f64::from(conns[b]) / f64::from(weights[b]);
        let most = (0..weights.len()).map(per_weight).fold(0.0, f64::max);
        let gap = |b: usize| most * f64::from(weights[b]) - f64::from(conns[b]);
        let gaps: f64 = (0..weights.len()).map(gap).sum();
        // A worker that makes more conns than the others thinks the gaps are filled before they are:
        // alone it fills an Nth of them from one reading to the next, 20 conns later.
        let n = f64::from(workers);
        let most = 2.0 * (gaps + n * weights.len() as f64) + 40.0 * n * (1.0 + gaps).ln();
        let mut needed = 0;
        while scheduler.distance() > f64::from(workers) + 1e-6 {
            let worker = arrivals.worker(&mut random, workers);
            scheduler.arrive(worker);
            needed += 1;
            let ratio = f64::from(needed) / most;
            assert!(ratio <= 1.0, "{workers} workers, {arrivals:?}: {needed} conns for {gaps}");
            most_needed = most_needed.max(ratio);
            if random.below(20) == 0 {
                scheduler.read_all();
            }
        }
    }
    println!("at most {most_needed:.2} of the conns allowed for it");
}

/// Why workers must know of each other: a worker whose own conns are even would never see that a
/// backend is empty, and would leave it behind for good.
#[test]
fn counting_own_conns_only_would_leave_a_backend_behind() {
    let run = |reads: bool| {
        let mut scheduler = LeastConnections::new(2, &[1, 1]);
        // Worker 1 has 100 conns on each; worker 0 had made 200, those on backend 0 have ended.
        scheduler.own = vec![vec![0, 200], vec![100, 100]];
        for _ in 0..400 {
            if reads {
                scheduler.read_all();
            }
            scheduler.arrive(1);
        }
        scheduler.distance()
    };
    assert_eq!(run(false), 200.0);
    assert!(run(true) <= 2.0);
}

/// Readings are not of one moment: each conn that is made meanwhile may be wrong by one.
#[test]
fn conns_made_during_a_reading_count_at_most_one_each() {
    let mut random = Random::from_env();
    let mut worst = [0.0f64; 4];
    for (column, workers) in WORKERS.into_iter().enumerate() {
        for meanwhile in [0, 1, 5, 20] {
            for arrivals in ARRIVALS {
                let mut scheduler = LeastConnections::new(workers, &[1; 10]);
                for _ in 0..300 {
                    for _ in 0..random.below(200) {
                        let worker = arrivals.worker(&mut random, workers);
                        scheduler.arrive(worker);
                    }
                    let mut left = meanwhile;
                    for backend in 0..10 {
                        while left > 0 && random.below(3) == 0 {
                            let worker = arrivals.worker(&mut random, workers);
                            scheduler.arrive(worker);
                            left -= 1;
                        }
                        scheduler.read(backend);
                    }
                    let beyond = scheduler.distance() - f64::from(workers);
                    worst[column] = worst[column].max(beyond / f64::from(meanwhile.max(1)));
                    let most = f64::from(workers) + f64::from(meanwhile);
                    assert!(scheduler.distance() <= most, "{workers} workers, {meanwhile}");
                }
            }
        }
    }
    println!("beyond N, per conn made during a reading, by workers {WORKERS:?}: {worst:.2?}");
}

/// Each backend has its due of all picks to within less than 2 N, from any moment on.
#[test]
fn round_robin_stays_within_two_per_worker() {
    let mut random = Random::from_env();
    let mut worst = [0.0f64; 4];
    let mut first = [0.0f64; 4];
    for _ in 0..60 {
        let weights = random_weights(&mut random);
        let table = WrrTable::build(&weights);
        let is_short = table.cycle() <= 4_096;
        let all: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        for arrivals in ARRIVALS {
            for (column, workers) in WORKERS.into_iter().enumerate() {
                let mut states: Vec<Wrr> = WorkerId::first(workers)
                    .map(|worker| Wrr::of_worker(worker, workers))
                    .collect();
                // From the start, and from some later moment on.
                for from_start in [true, false] {
                    let mut counts = vec![0u32; weights.len()];
                    for picked in 1..2_000 {
                        let worker = arrivals.worker(&mut random, workers);
                        counts[usize::from(states[worker].pick(&table).unwrap())] += 1;
                        let due = |w: u16| f64::from(picked) * f64::from(w) / all;
                        let off = counts.iter().zip(&weights);
                        let off = off.map(|(c, w)| (f64::from(*c) - due(*w)).abs());
                        let off = off.fold(0.0, f64::max);
                        let most = if is_short { 2.0 } else { 5.0 } * f64::from(workers);
                        assert!(off < most, "{workers} workers, {weights:?}: {off}");
                        let kept = if from_start { &mut first } else { &mut worst };
                        if is_short {
                            kept[column] = kept[column].max(off);
                        }
                    }
                    // Somewhere into the cycle, another place on each worker.
                    for state in &mut states {
                        (0..random.below(1_000)).for_each(|_| _ = state.pick(&table));
                    }
                }
            }
        }
    }
    println!("picks off, by workers {WORKERS:?}: from the start {first:.2?}, later {worst:.2?}");
}

/// Few conns on many workers do not all go to the first backends.
#[test]
fn round_robin_begins_everywhere() {
    for workers in WORKERS {
        let table = WrrTable::build(&[1; 24]);
        let mut counts = [0; 24];
        for worker in 0..workers {
            let mut state = Wrr::of_worker(WorkerId(worker), workers);
            for _ in 0..24 / workers {
                counts[usize::from(state.pick(&table).unwrap())] += 1;
            }
        }
        assert_eq!(counts, [1; 24], "{workers} workers");
    }
}

fn service(scheduler: Scheduler, weights: &[u16]) -> SnapshotService {
    let count = weights.len() as u16;
    let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::Dr, count);
    service.scheduler = scheduler;
    service.timeouts.tcp_syn_received_ms = 100_000_000;
    service.backends.iter_mut().zip(weights).for_each(|(b, weight)| b.weight = *weight);
    service
}

fn open(team: &mut Team, worker: usize, client: u32) {
    let from = (Ipv4Addr::from_bits(0x0b00_0000 + client), 1_000);
    let syn = packet(PORT_MACS[0], &flow(Protocol::Tcp, from, (VIP, 80)), TcpFlags::SYN, b"");
    let out = team.give(worker, false, syn);
    assert_eq!(out.transmitted.len(), 1, "{:?}", team.workers[worker].all_drops());
}

/// The same with real packet paths, and a tally that looks now and then.
#[test]
fn packet_paths_keep_the_bounds() {
    let mut random = Random::from_env();
    let weights = [100, 300, 100, 50, 250];
    for scheduler in [Scheduler::Wlc, Scheduler::Wrr] {
        for workers in WORKERS {
            for arrivals in ARRIVALS {
                let services = vec![service(scheduler, &weights)];
                let mut team = Team::new(&snapshot(1, services), 2_048, workers);
                let mut worst = 0.0f64;
                for client in 0..1_500 {
                    let worker = arrivals.worker(&mut random, workers);
                    open(&mut team, worker, client);
                    if random.below(100) == 0 {
                        team.pass();
                    }
                    let (_, conns) = team.conns(0);
                    let conns: Vec<f64> = conns.iter().map(|c| *c as f64).collect();
                    let off = match scheduler {
                        Scheduler::Wlc => {
                            let pairs = conns.iter().zip(&weights);
                            let most =
                                pairs.clone().map(|(c, w)| c / f64::from(*w)).fold(0.0, f64::max);
                            pairs.map(|(c, w)| most * f64::from(*w) - c).fold(0.0, f64::max)
                        }
                        _ => {
                            let due = |w: u16| f64::from(client + 1) * f64::from(w) / 800.0;
                            let pairs = conns.iter().zip(&weights);
                            pairs.map(|(c, w)| (c - due(*w)).abs()).fold(0.0, f64::max)
                        }
                    };
                    worst = worst.max(off);
                }
                let bound = if scheduler == Scheduler::Wlc { 1.0 } else { 2.0 };
                println!("{scheduler}, {workers} workers, {arrivals:?}: {worst:.2}");
                assert!(worst <= bound * f64::from(workers) + 1e-6, "{scheduler} {worst}");
            }
        }
    }
}

/// Maglev and source hash have no state: every worker says the same.
#[test]
fn hashes_choose_the_same_on_every_worker() {
    for scheduler in [Scheduler::Maglev, Scheduler::SourceHash] {
        for workers in WORKERS {
            let services = vec![service(scheduler, &[1, 2, 3, 4])];
            let mut team = Team::new(&snapshot(1, services), 1_024, workers);
            for client in 0..100 {
                let before = team.conns(0).1;
                (0..usize::from(workers)).for_each(|worker| open(&mut team, worker, client));
                let after = team.conns(0).1;
                let grown: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
                assert!(grown.contains(&u64::from(workers)), "{scheduler}: {grown:?}");
            }
        }
    }
}
