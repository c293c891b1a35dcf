//! The goals, to hold the figures against.

use serde::Serialize;

/// What is asked of a row, and what it gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Goal {
    /// Which figure: `ns_per_packet`, `conn_per_s`, `snapshot_pause_us`, `sweep_cost_us` or
    /// `bytes_per_conn`.
    pub figure: &'static str,
    /// The least or the most that it may be, in the figure's unit.
    pub goal: f64,
    /// What was measured, in the figure's unit.
    pub measured: f64,
    /// Whether that is good enough.
    pub met: bool,
}

impl Goal {
    /// A figure that is to be no more than `goal`.
    pub fn at_most(figure: &'static str, goal: f64, measured: f64) -> Self {
        Goal { figure, goal, measured, met: measured <= goal }
    }

    /// A figure that is to be no less than `goal`.
    pub fn at_least(figure: &'static str, goal: f64, measured: f64) -> Self {
        Goal { figure, goal, measured, met: measured >= goal }
    }
}

/// The most that a packet may cost in a row, in ns; rows that are asked something else have none.
pub fn ns_per_packet(scenario: &str, flows: u32) -> Option<f64> {
    Some(match (scenario, flows) {
        ("full-nat-established", ..=1) => 15.0,
        ("full-nat-established", ..=10_000) => 18.0,
        ("full-nat-established", ..=1_000_000) => 45.0,
        ("full-nat-established", _) => 60.0,
        ("full-nat-both-ways", _) => 50.0,
        ("dr-established", _) => 40.0,
        ("new-connection", _) => 150.0,
        ("not-ours", _) => 12.0,
        ("syn-flood-full-table", _) => 60.0,
        _ => return None,
    })
}

/// The least conns that a worker makes, serves and forgets, per second.
pub const CONN_PER_S: f64 = 3e6;
/// The longest that adopting a snapshot may hold a worker up, in us.
pub const SNAPSHOT_PAUSE_US: f64 = 20.0;
/// The most that an expiry sweep may add to the 99.9th percentile of a round, in us.
pub const SWEEP_COST_US: f64 = 2.0;
/// The most memory that a full-NAT conn may take, all in, in bytes.
pub const BYTES_PER_CONN: f64 = 160.0;
