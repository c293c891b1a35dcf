//! What an expiry sweep costs the packets that are forwarded meanwhile.
//!
//! 10,000 services have idle conns, which the wheel finds by the worker's own small steps after
//! each burst, while established flows are forwarded. Each measuring round is two: one in which
//! nothing is due, one in which every step of expiry finds as many due conns as it may take. What
//! is compared is the 99.9th percentile of a whole round (burst and expiry), as that is what a
//! packet waits for.
//!
//! The kernel's ticks hit long rounds more often than short ones and cost more than a sweep. So the
//! rounds in which nothing is due spin for as long as the sweep's steps take (the warm-up says how
//! long), and that time is taken off again: both are hit alike.

use serde::Serialize;
use sluice_path::burst::BURST;
use sluice_path::ids::InterfaceId;
use sluice_path::table::conn::wheel::SLOT_MS;
use sluice_path::testkit::{CLIENT_PORT, Random};
use sluice_wire::tcp::TcpFlags;

use super::bench::{Bench, Setup, Traffic};
use super::goal::{self, Goal};
use super::measure::{Figures, Samples};
use super::report::{Row, round};
use super::scenario::{Rounds, bring_up, send};
use super::services::{SERVICES, flow, many};
use crate::traffic::{Template, below};
use sluice_path::pipeline::EXPIRE_PER_ROUND;

/// Established flows.
const BUSY: u32 = 10_000;

/// What a sweep did to the rounds of a worker.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExpirySweep {
    /// Services with idle conns.
    pub services: u32,
    /// Idle conns that expired.
    pub expired: u64,
    /// Medians of a round, in us: without and with the sweep.
    pub median_us: [f64; 2],
    /// 99.9th percentiles of a round, in us: without (the noise floor) and with the sweep; each
    /// the median of the measuring rounds'.
    pub p999_us: [f64; 2],
    /// 99th percentiles of a round, in us, likewise: below what ticks reach.
    pub p99_us: [f64; 2],
    /// How far apart the 99.9th percentiles without the sweep lie among the rounds, in us: what
    /// the cost can be known to.
    pub noise_us: f64,
    /// By how much the sweep moves the 99.9th percentile, in us; or the median or the 99th, where it
    /// moves those more: what ticks do to the last may hide it, or be lucky.
    pub sweep_cost_us: f64,
}

struct Forwarding {
    random: Random,
    template: Template,
}

impl Traffic for Forwarding {
    const EXPIRE: usize = EXPIRE_PER_ROUND;

    fn next(&mut self) -> (InterfaceId, Vec<u8>) {
        (CLIENT_PORT, self.template.with(flow(below(&mut self.random, BUSY))))
    }
}

/// Measure it with `conns` idle conns.
pub fn measure(bench: &mut Bench, conns: u32) -> Row {
    let mut setup = Setup::new(many(), BUSY + conns);
    let busy: Vec<_> = (0..BUSY).map(flow).collect();
    bring_up(bench, &mut setup, &busy);
    let timeouts = setup.snapshot.services[0].timeouts;
    let mut traffic = Forwarding {
        random: Random(5),
        template: Template::new(CLIENT_PORT, flow(0), TcpFlags::ACK),
    };
    bench.run(&mut setup, bench.packets, &mut traffic); // the warm-up

    // A portion for each round and the warm-up, as many as its steps can take, each a second after
    // the former.
    let portions = bench.rounds as u32 + 1;
    let most = conns as usize / portions as usize / EXPIRE_PER_ROUND;
    let bursts = most.min(bench.packets / BURST);
    let portion = (bursts * EXPIRE_PER_ROUND) as u32;
    for i in 0..portions {
        let first = BUSY + i * portion;
        let flows = (first..first + portion).map(flow);
        send(bench, &mut setup, CLIENT_PORT, TcpFlags::SYN, flows);
        setup.now += 1_000;
    }
    let first_due = setup.now - portions * 1_000 + timeouts.tcp_syn_sent_ms;
    let expired = |setup: &Setup| setup.pipeline.counters().conns_expired.get();
    let before = expired(&setup);
    let (mut quiet, mut sweeping, mut pad) = (Vec::new(), Rounds::default(), 0);
    for i in 0..portions {
        // The busy flows that their old deadlines bring up are armed anew: not what is measured.
        setup.now = first_due + i * 1_000 - SLOT_MS;
        setup.pipeline.expire(&setup.compiled, setup.now, usize::MAX);
        send(bench, &mut setup, CLIENT_PORT, TcpFlags::ACK, busy.iter().copied());
        sweeping.floor(bench);
        let expired_before = expired(&setup);
        let quiet_round = spinning(bench, &mut setup, &mut traffic, bursts, pad);
        assert_eq!(expired(&setup), expired_before, "none was due");
        setup.now += 3 * SLOT_MS;
        let round = bench.run(&mut setup, bursts * BURST, &mut traffic);
        if i == 0 {
            pad = median(&round).saturating_sub(median(&quiet_round));
        } else {
            quiet.push(quiet_round);
            sweeping.cycles.push(round);
        }
    }
    let (expired, all) = (expired(&setup) - before, u64::from(portions * portion));
    assert!(expired > all * 9 / 10, "{expired} of {all} idle conns expired");

    let sweep = in_figures(bench, expired, &quiet, &sweeping.cycles);
    let mut row = sweeping.row(bench, &setup);
    row.bytes_per_conn = None;
    row.goal = Some(Goal::at_most("sweep_cost_us", goal::SWEEP_COST_US, sweep.sweep_cost_us));
    row.expiry_sweep = Some(sweep);
    row
}

/// What bursts took, in cycles, by rounds: with nothing due, and with conns that ended.
fn in_figures(
    bench: &Bench,
    expired: u64,
    quiet: &[Vec<u64>],
    sweeping: &[Vec<u64>],
) -> ExpirySweep {
    let us = |ns_per_packet: f64| round(ns_per_packet * BURST as f64 / 1e3);
    let figures = |rounds: &[Vec<u64>], of: fn(Figures) -> f64| {
        let figures = rounds.iter().map(|c| of(Samples::new(c, BURST, bench.hz()).figures()));
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        us(figures[figures.len() / 2])
    };
    let worst = |c: &Vec<u64>| us(Samples::new(c, BURST, bench.hz()).figures().p999);
    let quiet_p999: Vec<f64> = quiet.iter().map(worst).collect();
    let least = quiet_p999.iter().copied().fold(f64::INFINITY, f64::min);
    let noise_us = round(quiet_p999.iter().copied().fold(0.0, f64::max) - least);
    let both = |of| [figures(quiet, of), figures(sweeping, of)];
    let [median_us, p99_us, p999_us] = [both(|f| f.median), both(|f| f.p99), both(|f| f.p999)];
    let costs = [median_us, p99_us, p999_us].map(|[without, with]| with - without);
    ExpirySweep {
        services: SERVICES,
        expired,
        median_us,
        p999_us,
        p99_us,
        noise_us,
        sweep_cost_us: round(costs.into_iter().fold(f64::MIN, f64::max)),
    }
}

/// Bursts with nothing due, each of which spins for `pad` cycles that are taken off again.
fn spinning(
    bench: &mut Bench,
    setup: &mut Setup,
    traffic: &mut Forwarding,
    bursts: usize,
    pad: u64,
) -> Vec<u64> {
    let spin = |_: &mut Setup| {
        let end = dpdk_sys::rdtsc() + pad;
        while dpdk_sys::rdtsc() < end {}
    };
    let rounds = (0..bursts).filter_map(|_| {
        let cycles = bench.worker_round(setup, traffic, spin);
        (!bench.is_preempted(cycles)).then(|| cycles.saturating_sub(pad))
    });
    rounds.collect()
}

fn median(cycles: &[u64]) -> u64 {
    let mut sorted = cycles.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
