//! Sluice's data plane: poll-mode workers that forward, rewrite and count packets.
//!
//! [`worker`] polls a queue into a burst, the packet path (`sluice-path`) gives every packet its
//! verdict, `worker` sends them out. [`runtime`] starts all this and is the main thread; only [`dpdk`]
//! is unsafe.

pub mod args;
pub mod backoff;
pub mod config;
pub mod control_socket;
pub mod dpdk;
pub mod events;
pub mod kernel;
pub mod orders;
pub mod privileges;
pub mod runtime;
pub mod stdio;
pub mod worker;
