//! Raw FFI to DPDK: what `sluice-dataplane`'s safe wrappers need of it, and no policy.
//!
//! - The `rte_*` functions and types are bound at build time over the installed libdpdk.
//! - `sluice_*` are C shims for DPDK's static inline functions (`shim.c`).
//! - [`rx_burst`], [`tx_burst`], [`prefetch`] and the [`mbuf`] accessors are native Rust, as they
//!   run per packet: an empty rx and tx pair takes 6.7 ns so, 9.1 ns through the shim. A test
//!   compares the two.

mod burst;
pub mod mbuf;
mod thash;

pub use bindings::*;
pub use burst::{prefetch, rdtsc, rx_burst, tx_burst};
pub use thash::soft_rss;

/// What bindgen made of `wrapper.h`.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
