//! A packet buffer of DPDK's, with one owner.

use std::ptr::NonNull;
use std::slice;

use dpdk_sys::{mbuf as field, rte_mbuf};

use sluice_path::frame::{ChecksumStatus, Frame, NoRoom, TooShort};
use sluice_path::ids::InterfaceId;

/// A packet in one of DPDK's buffers. Dropping it gives the buffer back to its mempool.
///
/// As large as a pointer, and a `Vec<Mbuf>` is an array of mbuf pointers for DPDK.
#[repr(transparent)]
#[derive(Debug)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf has one owner, and mempools take it back from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Take over an mbuf.
    ///
    /// # Safety
    /// It is live, and the caller is its only owner and gives it up.
    #[inline]
    pub(super) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Mbuf {
        Mbuf(mbuf)
    }

    #[inline]
    pub(super) fn raw(&self) -> *mut rte_mbuf {
        self.0.as_ptr()
    }

    /// DPDK's number of the port it was received on; `u16::MAX` when it was allocated here.
    #[inline]
    pub fn port(&self) -> u16 {
        // SAFETY: we own a live mbuf.
        unsafe { field::port(self.raw()) }
    }

    /// What the driver said of it: DPDK's `RTE_MBUF_F_RX_*`.
    #[inline]
    pub fn ol_flags(&self) -> u64 {
        // SAFETY: we own a live mbuf.
        unsafe { field::ol_flags(self.raw()) }
    }

    /// Whether [`Frame::bytes`] is the whole packet. Always so for packets of [`super::RxQueue`].
    #[inline]
    pub fn is_single_segment(&self) -> bool {
        // SAFETY: we own a live mbuf.
        unsafe { field::nb_segs(self.raw()) == 1 }
    }

    /// A number for the next owner: it travels with the packet over a ring. It shares its place with
    /// the NIC's RSS hash (`mbuf.hash.usr`), so before [`Mbuf::set_tag`] it is anything.
    #[inline]
    pub fn tag(&self) -> u32 {
        // SAFETY: we own a live mbuf.
        unsafe { field::hash_usr(self.raw()) }
    }

    /// See [`Mbuf::tag`]. Transmitting ignores it.
    #[inline]
    pub fn set_tag(&mut self, tag: u32) {
        // SAFETY: we own a live mbuf.
        unsafe { field::set_hash_usr(self.raw(), tag) }
    }

    /// The interface that the [tag](Mbuf::tag) of a packet between two of our threads names.
    #[inline]
    pub fn interface(&self) -> InterfaceId {
        InterfaceId(self.tag() as u16)
    }

    /// Name the interface that the packet came in by, or is to leave by.
    #[inline]
    pub fn set_interface(&mut self, interface: InterfaceId) {
        self.set_tag(u32::from(interface.0));
    }

    /// Say that a NIC has found both checksums right, as one with checksum offload does: for benches
    /// and generators, whose packets no NIC has seen.
    #[inline]
    pub fn mark_checksums_good(&mut self) {
        let good =
            dpdk_sys::SLUICE_MBUF_F_RX_IP_CKSUM_GOOD | dpdk_sys::SLUICE_MBUF_F_RX_L4_CKSUM_GOOD;
        // SAFETY: we own a live mbuf.
        unsafe { field::set_ol_flags(self.raw(), good) }
    }

    /// Copy all segments into the first one. Whether there was room for it.
    #[cold]
    pub(super) fn linearize(&mut self) -> bool {
        // SAFETY: we own a live mbuf with its segments.
        unsafe { dpdk_sys::sluice_pktmbuf_linearize(self.raw()) == 0 }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own a live mbuf, and nobody uses it after this.
        unsafe { dpdk_sys::sluice_pktmbuf_free(self.raw()) }
    }
}

/// Give many packets back to their mempools at once: cheaper than dropping each.
#[inline]
pub fn free_bulk(mbufs: &mut Vec<Mbuf>) {
    let mut left = mbufs.len();
    let mut next = mbufs.as_mut_ptr().cast::<*mut rte_mbuf>();
    // SAFETY: the vector gives its mbufs up before DPDK takes them; Mbuf is a pointer.
    unsafe {
        mbufs.set_len(0);
        while left > 0 {
            let count = u32::try_from(left).unwrap_or(u32::MAX);
            dpdk_sys::rte_pktmbuf_free_bulk(next, count);
            next = next.add(count as usize);
            left -= count as usize;
        }
    }
}

/// Take `count` mbufs off the front without freeing them, as somebody else owns them now.
///
/// # Safety
/// `count` is at most the vector's length.
#[inline]
pub(super) unsafe fn forget_front(mbufs: &mut Vec<Mbuf>, count: usize) {
    let rest = mbufs.len() - count;
    // SAFETY: both ranges are within the vector; the front was given up, the rest moves there once.
    unsafe {
        mbufs.set_len(0);
        let front = mbufs.as_mut_ptr();
        if rest > 0 && count > 0 {
            std::ptr::copy(front.add(count), front, rest);
        }
        mbufs.set_len(rest);
    }
}

/// One of the two checksum verdicts in `ol_flags`. DPDK's fourth state, `NONE`, says that the sender
/// left the checksum unfinished: software that looks will find it wrong.
#[inline]
fn status(flags: u64, mask: u64, good: u64, bad: u64) -> ChecksumStatus {
    let flags = flags & mask;
    if flags == good {
        ChecksumStatus::Good
    } else if flags == bad {
        ChecksumStatus::Bad
    } else {
        ChecksumStatus::Unknown
    }
}

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: we own a live mbuf, whose first data_len bytes from its data on are the packet's.
        unsafe {
            let mbuf = self.raw();
            slice::from_raw_parts(field::data(mbuf), usize::from(field::data_len(mbuf)))
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in bytes, and we are the only owner.
        unsafe {
            let mbuf = self.raw();
            slice::from_raw_parts_mut(field::data(mbuf), usize::from(field::data_len(mbuf)))
        }
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        let mbuf = self.raw();
        // SAFETY: we own a live mbuf; the new length is within its buffer.
        unsafe {
            let room = field::data_room(mbuf);
            match u16::try_from(len) {
                Ok(len) if len <= room && self.is_single_segment() => {
                    field::set_data_len(mbuf, len);
                    field::set_pkt_len(mbuf, u32::from(len));
                    Ok(())
                }
                _ => Err(NoRoom),
            }
        }
    }

    #[inline]
    fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        let mbuf = self.raw();
        // SAFETY: we own a live mbuf; the packet begins no earlier than its buffer, and its length,
        // which grows by as much, stays within it.
        unsafe {
            let (start, data) = (field::data_off(mbuf), field::data_len(mbuf));
            let len = u16::try_from(len).ok().filter(|len| *len <= start).ok_or(NoRoom)?;
            field::set_data_off(mbuf, start - len);
            field::set_data_len(mbuf, data + len);
            field::set_pkt_len(mbuf, field::pkt_len(mbuf) + u32::from(len));
        }
        Ok(())
    }

    #[inline]
    fn strip(&mut self, len: usize) -> Result<(), TooShort> {
        let mbuf = self.raw();
        // SAFETY: we own a live mbuf; the packet begins no later than it ended.
        unsafe {
            let (start, data) = (field::data_off(mbuf), field::data_len(mbuf));
            let len = u16::try_from(len).ok().filter(|len| *len <= data).ok_or(TooShort)?;
            field::set_data_off(mbuf, start + len);
            field::set_data_len(mbuf, data - len);
            field::set_pkt_len(mbuf, field::pkt_len(mbuf) - u32::from(len));
        }
        Ok(())
    }

    #[inline]
    fn ip_checksum(&self) -> ChecksumStatus {
        status(
            self.ol_flags(),
            dpdk_sys::SLUICE_MBUF_F_RX_IP_CKSUM_MASK,
            dpdk_sys::SLUICE_MBUF_F_RX_IP_CKSUM_GOOD,
            dpdk_sys::SLUICE_MBUF_F_RX_IP_CKSUM_BAD,
        )
    }

    #[inline]
    fn l4_checksum(&self) -> ChecksumStatus {
        status(
            self.ol_flags(),
            dpdk_sys::SLUICE_MBUF_F_RX_L4_CKSUM_MASK,
            dpdk_sys::SLUICE_MBUF_F_RX_L4_CKSUM_GOOD,
            dpdk_sys::SLUICE_MBUF_F_RX_L4_CKSUM_BAD,
        )
    }

    #[inline(always)]
    fn checksums_are_good(&self) -> bool {
        const MASK: u64 =
            dpdk_sys::SLUICE_MBUF_F_RX_IP_CKSUM_MASK | dpdk_sys::SLUICE_MBUF_F_RX_L4_CKSUM_MASK;
        const GOOD: u64 =
            dpdk_sys::SLUICE_MBUF_F_RX_IP_CKSUM_GOOD | dpdk_sys::SLUICE_MBUF_F_RX_L4_CKSUM_GOOD;
        self.ol_flags() & MASK == GOOD
    }

    #[inline]
    fn prefetch(&self) {
        // SAFETY: we own a live mbuf.
        dpdk_sys::prefetch(unsafe { field::data(self.raw()) });
    }
}
