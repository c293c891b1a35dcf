//! Safe wrappers over DPDK: the only unsafe code of the data plane.
//!
//! [`Eal`] starts DPDK once per process. From it come [`Mempool`]s, [`Port`]s with their queues, and
//! rings between threads. Ownership says what DPDK only documents: an [`Mbuf`] has one owner, a
//! [`RxQueue`] or [`TxQueue`] is polled by one thread, and nothing that DPDK keeps in its memory
//! outlives that memory.
#![allow(unsafe_code)]

mod capabilities;
mod clock;
mod eal;
mod fault;
mod lcore;
mod mbuf;
mod mempool;
mod messages;
mod pci;
mod port;
mod port_config;
mod port_setup;
mod queue;
mod ring;
mod rss;
mod signals;

pub use capabilities::{CapabilityError, limit_capabilities};
pub use clock::Clock;
pub use eal::{Eal, EalConfig, EalError, EalHandle};
pub use fault::PortFault;
pub use lcore::{Lcore, LcoreError};
pub use mbuf::{Mbuf, free_bulk};
pub use mempool::{Mempool, MempoolError};
pub use port::{Port, PortCounters};
pub use port_config::{OtherDriver, PortConfig, PortError, PortErrorCause, port_name};
pub use port_setup::RxCapabilities;
pub use queue::{RxQueue, TxQueue};
pub use ring::{RingError, RingReceiver, RingSender, spsc};
pub use rss::{NoRss, Rss};

/// DPDK's words for an error number (positive or negative).
fn strerror(errno: i32) -> String {
    // SAFETY: rte_strerror takes any number and returns a C string in thread-local or constant
    // memory, which is copied before the next call.
    unsafe {
        std::ffi::CStr::from_ptr(dpdk_sys::rte_strerror(errno.saturating_abs()))
            .to_string_lossy()
            .into_owned()
    }
}

/// DPDK's words for the error that this thread's last call left behind.
fn last_error() -> String {
    // SAFETY: reads a thread-local number.
    strerror(unsafe { dpdk_sys::sluice_errno() })
}
