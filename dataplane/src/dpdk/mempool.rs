//! Pools of mbufs, sized at start-up.

use std::ffi::CString;
use std::ptr::NonNull;

use dpdk_sys::rte_mempool;

use super::{Eal, EalHandle, Mbuf, last_error};

/// A mempool could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "mempool {name} of {mbufs} mbufs ({memory_mb} MB): {reason}; it takes its memory from memory_mb \
     (or hugepages), of which there may be too little"
)]
pub struct MempoolError {
    /// Its name.
    pub name: String,
    /// How many mbufs were wanted.
    pub mbufs: u32,
    /// About how much memory that is, in MiB.
    pub memory_mb: u64,
    /// DPDK's words.
    pub reason: String,
}

/// A pool of mbufs. A handle: clones are the same pool, which lives until EAL is cleaned up.
#[derive(Clone)]
pub struct Mempool {
    pool: NonNull<rte_mempool>,
    mbufs: u32,
    data_room: u16,
    _eal: EalHandle,
}

// SAFETY: mempools are made for many producers and consumers; the cache that a call uses is that of
// the calling thread.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

/// What stands before each mbuf in a pool.
const OBJECT_HEADER_BYTES: u64 = 64;

impl Mempool {
    /// About how much memory a pool takes, in bytes.
    pub fn memory_bytes_for(mbufs: u32, data_room: u16) -> u64 {
        let headroom = u64::from(dpdk_sys::SLUICE_PKTMBUF_HEADROOM);
        let buffer = (headroom + u64::from(data_room)).next_multiple_of(64);
        u64::from(mbufs) * (OBJECT_HEADER_BYTES + u64::from(dpdk_sys::SLUICE_MBUF_SIZE) + buffer)
    }

    /// Make a pool of `mbufs` buffers, best one less than a power of two.
    ///
    /// - `name`: unique in this process, at most 25 characters.
    /// - `cache`: mbufs that each registered thread keeps for itself: 0 to 512, at most two thirds of
    ///   `mbufs`.
    /// - `data_room`: bytes of packet per mbuf, without the headroom (128 bytes) that comes on top.
    /// - `socket`: NUMA node, or none for any.
    ///
    /// # Errors
    /// [`MempoolError`], mostly for lack of memory.
    pub fn create(
        eal: &Eal,
        name: &str,
        mbufs: u32,
        cache: u32,
        data_room: u16,
        socket: Option<u16>,
    ) -> Result<Mempool, MempoolError> {
        let error = |reason: String| MempoolError {
            name: name.to_owned(),
            mbufs,
            memory_mb: Self::memory_bytes_for(mbufs, data_room).div_ceil(1 << 20),
            reason,
        };
        let c_name = CString::new(name).map_err(|_| error("name with a NUL byte".to_owned()))?;
        let room = u32::from(data_room) + dpdk_sys::SLUICE_PKTMBUF_HEADROOM;
        let room = u16::try_from(room).map_err(|_| error(format!("data room of {data_room}")))?;
        let socket = socket.map_or(dpdk_sys::SLUICE_SOCKET_ID_ANY, i32::from);
        // Only hardware that is given physical addresses needs each mbuf within one page.
        let packed = i32::from(!eal.shared().has_pci_device);
        // SAFETY: EAL runs, the name is a C string that DPDK copies.
        let pool = unsafe {
            dpdk_sys::sluice_pktmbuf_pool_create(
                c_name.as_ptr(),
                mbufs,
                cache,
                room,
                socket,
                packed,
            )
        };
        let pool = NonNull::new(pool).ok_or_else(|| error(last_error()))?;
        eal.shared().keep_pool(pool);
        Ok(Mempool { pool, mbufs, data_room, _eal: eal.handle() })
    }

    pub(super) fn raw(&self) -> *mut rte_mempool {
        self.pool.as_ptr()
    }

    /// An empty mbuf, or none when the pool is exhausted.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is live; what it gives has no other owner.
        unsafe {
            NonNull::new(dpdk_sys::sluice_pktmbuf_alloc(self.raw())).map(|m| Mbuf::from_raw(m))
        }
    }

    /// Append `count` empty mbufs, or none at all when the pool has not so many. Whether it did.
    #[inline]
    pub fn alloc_bulk(&self, into: &mut Vec<Mbuf>, count: usize) -> bool {
        let Ok(wanted) = u32::try_from(count) else { return false };
        into.reserve(count);
        // SAFETY: there is room for count pointers behind the vector's end, Mbuf is a pointer, and
        // on success all of them were written and have no other owner.
        unsafe {
            let end = into.as_mut_ptr().add(into.len()).cast();
            let done = dpdk_sys::sluice_pktmbuf_alloc_bulk(self.raw(), end, wanted) == 0;
            if done {
                into.set_len(into.len() + count);
            }
            done
        }
    }

    /// How many mbufs it has.
    pub fn size(&self) -> u32 {
        self.mbufs
    }

    /// How many mbufs are out, be it with drivers or with us. Walks all caches: for statistics.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is live.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw()) }
    }

    /// Bytes of packet that an mbuf can hold.
    pub fn data_room(&self) -> u16 {
        self.data_room
    }

    /// About how much memory it takes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        Self::memory_bytes_for(self.mbufs, self.data_room)
    }
}
