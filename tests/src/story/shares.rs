//! Which share of the requests each backend got, against its weight.

use std::collections::{BTreeMap, BTreeSet};

use crate::helper::record::Record;
use crate::lab::load::{Outcome, count};
use crate::lab::servers::name;
use crate::story::report::{Step, round};

/// How far a backend's share over many source ports may be from its weight, in percentage points.
const MAGLEV_TOLERANCE: f64 = 5.0;

/// Maglev: over the first 2,000 different source ports, each backend's share is near its weight.
pub fn expect_maglev(step: &mut Step, service: &str, outcome: &Outcome, weights: &[u16]) {
    let mut ports = BTreeSet::new();
    let mut records: Vec<&Record> = outcome.done().collect();
    records.sort_by_key(|record| record.start_us);
    let chosen: Vec<&Record> =
        records.into_iter().filter(|record| ports.insert(record.source_port)).take(2_000).collect();
    let counts = count(chosen.iter().copied());
    let mut worst: f64 = 0.0;
    let mut shares = BTreeMap::new();
    for (backend, wanted) in wanted_shares(weights) {
        let got = counts.get(&backend).copied().unwrap_or(0) as f64 / chosen.len().max(1) as f64;
        worst = worst.max((got - wanted).abs() * 100.0);
        shares.insert(backend, round(got * 100.0, 2));
    }
    let claim = format!(
        "{service}: shares over {} source ports are {} of weights {weights:?}: off by at most \
         {worst:.1} points, {MAGLEV_TOLERANCE} are allowed",
        chosen.len(),
        written(&shares, "%"),
    );
    step.figure(format!("{service}_share_percent"), &shares);
    step.figure(format!("{service}_share_off_by_points"), round(worst, 2));
    step.expect(worst <= MAGLEV_TOLERANCE && chosen.len() == 2_000, claim);
}

/// Weighted round robin: each backend got exactly its share. Each worker goes round by itself, so
/// with several of them, each may be in the middle of its round.
pub fn expect_exact(
    step: &mut Step,
    service: &str,
    outcome: &Outcome,
    weights: &[u16],
    workers: usize,
) {
    let round: u16 = weights.iter().sum();
    let slack = if workers == 1 { 0.0 } else { f64::from(round) * workers as f64 };
    let counts = outcome.by_backend();
    let total = outcome.total() as f64;
    let exact = wanted_shares(weights).all(|(backend, wanted)| {
        let got = counts.get(&backend).copied().unwrap_or(0);
        (got as f64 - wanted * total).abs() < slack + 0.5
    });
    let claim =
        format!("{service}: exactly by weights {weights:?}: {}", written(&counts, " requests"));
    step.figure(format!("{service}_requests_by_backend"), &counts);
    step.expect(exact, claim);
}

fn wanted_shares(weights: &[u16]) -> impl Iterator<Item = (String, f64)> {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    (1_u8..).zip(weights).map(move |(number, weight)| (name(number), f64::from(*weight) / sum))
}

fn written<V: std::fmt::Display>(map: &BTreeMap<String, V>, unit: &str) -> String {
    let parts: Vec<String> =
        map.iter().map(|(backend, value)| format!("{backend} {value}{unit}")).collect();
    parts.join(", ")
}
