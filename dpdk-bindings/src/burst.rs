//! The calls of the packet path, in Rust over DPDK's exported table of driver entry points.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::{
    rte_eth_call_rx_callbacks, rte_eth_call_tx_callbacks, rte_eth_fp_ops, rte_ethdev_qdata,
    rte_mbuf,
};

/// The queue's callback list, which capture tools hang themselves into; usually null.
///
/// # Safety
/// `queue` is a queue of a configured port whose data this is.
#[inline(always)]
unsafe fn callback(data: &rte_ethdev_qdata, queue: u16) -> *mut c_void {
    // SAFETY: clbk points to one pointer per possible queue, as the caller vouches for the queue.
    // DPDK writes it atomically from other threads, so it is read so; relaxed, as in C.
    unsafe { AtomicPtr::from_ptr(data.clbk.add(usize::from(queue))).load(Ordering::Relaxed) }
}

/// Receive at most `count` packets: `rte_eth_rx_burst`. Returns how many mbufs were written.
///
/// # Safety
/// `port` and `queue` are a receive queue that was set up, no other thread uses it now, and `mbufs`
/// has room for `count` pointers.
#[inline(always)]
pub unsafe fn rx_burst(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, count: u16) -> u16 {
    // SAFETY: the caller vouches for the port and the queue, so both indices are in bounds and the
    // entry point is set (DPDK puts dummies there while a port is stopped).
    unsafe {
        let ops = &*(&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        let queue_data = *ops.rxq.data.add(usize::from(queue));
        let Some(receive) = ops.rx_pkt_burst else { return 0 };
        let received = receive(queue_data, mbufs, count);
        let callback = callback(&ops.rxq, queue);
        if callback.is_null() {
            received
        } else {
            rte_eth_call_rx_callbacks(port, queue, mbufs, received, count, callback)
        }
    }
}

/// Send at most `count` packets: `rte_eth_tx_burst`. Returns how many, from the front, the driver
/// took over; the others still belong to the caller.
///
/// # Safety
/// `port` and `queue` are a transmit queue that was set up, no other thread uses it now, and `mbufs`
/// holds `count` mbufs that the caller owns.
#[inline(always)]
pub unsafe fn tx_burst(port: u16, queue: u16, mbufs: *mut *mut rte_mbuf, count: u16) -> u16 {
    // SAFETY: as in rx_burst.
    unsafe {
        let ops = &*(&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        let queue_data = *ops.txq.data.add(usize::from(queue));
        let Some(send) = ops.tx_pkt_burst else { return 0 };
        let callback = callback(&ops.txq, queue);
        let count = if callback.is_null() {
            count
        } else {
            rte_eth_call_tx_callbacks(port, queue, mbufs, count, callback)
        };
        send(queue_data, mbufs, count)
    }
}

/// Start loading the cache line at `address` into all cache levels. Any address is allowed: a hint
/// never faults.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch does not access memory architecturally.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: prfm is a hint and does not access memory architecturally.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// The CPU's cycle counter: `rte_rdtsc`, not ordered with other instructions.
#[inline(always)]
pub fn rdtsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: rdtsc is part of x86-64; Linux leaves it enabled for user space.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: reads a counter, has no preconditions.
    unsafe {
        crate::sluice_rdtsc()
    }
}
