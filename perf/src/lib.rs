//! What `sluice-perf` and the criterion benches share: the pieces of the packet path.

pub mod pieces;
