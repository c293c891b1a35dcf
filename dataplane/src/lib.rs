//! Sluice's data plane: poll-mode workers that forward, rewrite and count packets.
//!
//! Read it along a packet's way: `worker` polls a queue into a [`burst`], [`pipeline`] gives every
//! packet its verdict from the tables in [`table`] and the [`snapshot`], `worker` sends them out.
//! `runtime` starts all this and is the main thread; only `dpdk` and `intrinsics` are unsafe.

pub mod args;
pub mod backoff;
pub mod burst;
pub mod config;
pub mod control_socket;
pub mod counters;
pub mod dpdk;
pub mod events;
pub mod flow;
pub mod frame;
pub mod host_flows;
pub mod intrinsics;
pub mod kernel;
pub mod leaving;
pub mod ledger;
pub mod orders;
pub mod pipeline;
pub mod port_spaces;
pub mod privileges;
pub mod resolver;
pub mod runtime;
pub mod scheduler;
pub mod slots;
pub mod snapshot;
pub mod table;
pub mod tally;
pub mod testkit;
pub mod worker;
