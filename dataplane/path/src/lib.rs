//! Sluice's packet path: what a packet meets between a receive and a transmit queue, and what the
//! main thread decides about it. No DPDK, no I/O, no clock: time is passed in, so all of it runs under
//! tests, simulation, fuzzers and benches on any machine.
//!
//! Read it along a packet's way: a [`burst`] goes through the stages of [`pipeline`], which gives every
//! packet its verdict from the tables in [`table`] and the [`snapshot`]. Only [`memory`] and
//! [`intrinsics`] are unsafe.

pub mod burst;
pub mod counters;
pub mod family;
pub mod flow;
pub mod frame;
pub mod host_flows;
pub mod ids;
pub mod intrinsics;
pub mod ledger;
pub mod memory;
pub mod network;
pub mod next_hop;
pub mod pipeline;
pub mod port_spaces;
pub mod resolver;
pub mod scheduler;
pub mod slots;
pub mod snapshot;
pub mod table;
pub mod tally;
pub mod testkit;
pub mod time;
pub mod treatment;
pub mod verdict;
