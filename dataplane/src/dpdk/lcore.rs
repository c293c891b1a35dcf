//! Worker threads: pinned to a CPU and known to DPDK, so that they have mempool caches.

use std::marker::PhantomData;

use super::{EalHandle, last_error};

/// Why a thread could not become a worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LcoreError {
    /// The thread cannot run on this CPU.
    #[error("cannot pin a worker to CPU {cpu}: it does not exist, or this process may not use it")]
    Pin {
        /// The CPU.
        cpu: u16,
    },
    /// DPDK has no room for another thread.
    #[error("DPDK cannot register the worker on CPU {cpu}: {reason}")]
    Register {
        /// The CPU.
        cpu: u16,
        /// DPDK's words.
        reason: String,
    },
}

/// This thread is pinned and registered with DPDK; dropping it, on the same thread, unregisters.
pub struct Lcore {
    id: u32,
    _eal: EalHandle,
    _stays_on_its_thread: PhantomData<*mut ()>,
}

impl Lcore {
    /// Pin the calling thread to `cpu` and register it with DPDK.
    ///
    /// Mempools then serve it from a cache of its own, without touching other threads' cache lines.
    ///
    /// # Errors
    /// [`LcoreError`]. The thread may stay pinned after [`LcoreError::Register`].
    pub fn register(eal: &EalHandle, cpu: u16) -> Result<Lcore, LcoreError> {
        // Beyond the kernel's CPU set, core_affinity would abort the process.
        let possible = libc::c_int::from(cpu) < libc::CPU_SETSIZE;
        if !possible
            || !core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(cpu) })
        {
            return Err(LcoreError::Pin { cpu });
        }
        // SAFETY: the handle says that EAL runs.
        if unsafe { dpdk_sys::rte_thread_register() } != 0 {
            return Err(LcoreError::Register { cpu, reason: last_error() });
        }
        // SAFETY: reads a thread-local number.
        let id = unsafe { dpdk_sys::sluice_lcore_id() };
        Ok(Lcore { id, _eal: eal.clone(), _stays_on_its_thread: PhantomData })
    }

    /// DPDK's number of this thread.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // SAFETY: this thread registered itself, and Lcore cannot leave it.
        unsafe { dpdk_sys::rte_thread_unregister() }
    }
}
