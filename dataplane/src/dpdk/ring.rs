//! Bounded queues of mbufs between two threads, over DPDK's rings.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use dpdk_sys::{rte_mbuf, rte_ring};

use super::{Eal, EalHandle, Mbuf, last_error};

/// A ring could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ring {name} of {size} mbufs: {reason}")]
pub struct RingError {
    /// Its name.
    pub name: String,
    /// How many mbufs it was to hold.
    pub size: u32,
    /// DPDK's words.
    pub reason: String,
}

struct Ring {
    ring: NonNull<rte_ring>,
    _eal: EalHandle,
}

// SAFETY: the ring is made for one sending and one receiving thread, and RingSender and RingReceiver
// are the only ones that use it, each from one thread at a time.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut mbuf: *mut rte_mbuf = ptr::null_mut();
        // SAFETY: sender and receiver are gone, so we are the only user; what it holds is ours.
        unsafe {
            while dpdk_sys::sluice_ring_sc_dequeue_burst(self.ring.as_ptr(), &mut mbuf, 1) == 1 {
                dpdk_sys::sluice_pktmbuf_free(mbuf);
            }
            dpdk_sys::rte_ring_free(self.ring.as_ptr());
        }
    }
}

/// The sending end. What is still inside when both ends are gone goes back to its mempool.
pub struct RingSender(Arc<Ring>);

/// The receiving end.
pub struct RingReceiver(Arc<Ring>);

/// A queue of `size` mbufs between two threads. `name` is unique in this process, at most 28
/// characters.
///
/// # Errors
/// [`RingError`]: no memory, a name that is taken or too long, or `size` is 0 or above 2^30.
pub fn spsc(eal: &Eal, name: &str, size: u32) -> Result<(RingSender, RingReceiver), RingError> {
    let error = |reason: String| RingError { name: name.to_owned(), size, reason };
    if !(1..=1 << 30).contains(&size) {
        return Err(error("expected a size of 1 to 2^30".to_owned()));
    }
    let c_name = CString::new(name).map_err(|_| error("name with a NUL byte".to_owned()))?;
    // Without EXACT_SZ, DPDK wants a power of two and holds one less.
    let flags = dpdk_sys::SLUICE_RING_F_SP_ENQ
        | dpdk_sys::SLUICE_RING_F_SC_DEQ
        | dpdk_sys::SLUICE_RING_F_EXACT_SZ;
    let any = dpdk_sys::SLUICE_SOCKET_ID_ANY;
    // SAFETY: EAL runs, the name is a C string that DPDK copies.
    let ring = unsafe { dpdk_sys::rte_ring_create(c_name.as_ptr(), size, any, flags) };
    let ring = NonNull::new(ring).ok_or_else(|| error(last_error()))?;
    let ring = Arc::new(Ring { ring, _eal: eal.handle() });
    Ok((RingSender(ring.clone()), RingReceiver(ring)))
}

impl RingSender {
    /// Send as many as there is room for, from the front of `from`; the others stay there, in order.
    /// Returns how many were sent.
    #[inline]
    pub fn send(&mut self, from: &mut Vec<Mbuf>) -> usize {
        let count = u32::try_from(from.len()).unwrap_or(u32::MAX);
        // SAFETY: Mbuf is a pointer; this is the only sender, as it is borrowed mutably; the mbufs
        // that the ring took over are removed without being dropped.
        unsafe {
            let mbufs = from.as_ptr().cast::<*mut rte_mbuf>();
            let sent = dpdk_sys::sluice_ring_sp_enqueue_burst(self.0.ring.as_ptr(), mbufs, count);
            super::mbuf::forget_front(from, sent as usize);
            sent as usize
        }
    }
}

impl RingReceiver {
    /// Append at most `most` mbufs, without growing `into` beyond its capacity. Returns how many.
    #[inline]
    pub fn receive(&mut self, into: &mut Vec<Mbuf>, most: usize) -> usize {
        let room = most.min(into.capacity() - into.len());
        let count = u32::try_from(room).unwrap_or(u32::MAX);
        // SAFETY: there is room for count pointers behind the vector's end, Mbuf is a pointer, this
        // is the only receiver, and the ring gives up what it returns.
        unsafe {
            let end = into.as_mut_ptr().add(into.len()).cast();
            let got = dpdk_sys::sluice_ring_sc_dequeue_burst(self.0.ring.as_ptr(), end, count);
            into.set_len(into.len() + got as usize);
            got as usize
        }
    }
}
