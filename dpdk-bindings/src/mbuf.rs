//! Fields of an `rte_mbuf`, by the offsets that the C compiler gave at build time (`wrapper.h`).
//!
//! All functions want a pointer to a live mbuf that no other thread writes meanwhile; the setters
//! want the only owner.

use crate::{
    SLUICE_MBUF_BUF_ADDR, SLUICE_MBUF_BUF_LEN, SLUICE_MBUF_DATA_LEN, SLUICE_MBUF_DATA_OFF,
    SLUICE_MBUF_HASH_USR, SLUICE_MBUF_NB_SEGS, SLUICE_MBUF_OL_FLAGS, SLUICE_MBUF_PKT_LEN,
    SLUICE_MBUF_PORT, SLUICE_MBUF_REFCNT, rte_mbuf,
};

macro_rules! getters {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $offset:ident;)+) => {
        $(
            $(#[doc = $doc])+
            ///
            /// # Safety
            /// See the module.
            #[inline(always)]
            pub unsafe fn $name(mbuf: *const rte_mbuf) -> $type {
                // SAFETY: the caller vouches for a live mbuf; offset and type are those of C, so
                // the read is in bounds and aligned.
                unsafe { *mbuf.byte_add($offset as usize).cast::<$type>() }
            }
        )+
    };
}

macro_rules! setters {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $offset:ident;)+) => {
        $(
            $(#[doc = $doc])+
            ///
            /// # Safety
            /// See the module.
            #[inline(always)]
            pub unsafe fn $name(mbuf: *mut rte_mbuf, value: $type) {
                // SAFETY: as for the getters, and the caller is the only owner.
                unsafe { *mbuf.byte_add($offset as usize).cast::<$type>() = value }
            }
        )+
    };
}

getters! {
    /// Where the segment's buffer begins, headroom included.
    buf_addr: *mut u8 = SLUICE_MBUF_BUF_ADDR;
    /// Size of the segment's buffer in bytes, headroom included.
    buf_len: u16 = SLUICE_MBUF_BUF_LEN;
    /// Where the packet begins in the buffer, in bytes.
    data_off: u16 = SLUICE_MBUF_DATA_OFF;
    /// Bytes of the packet in this segment.
    data_len: u16 = SLUICE_MBUF_DATA_LEN;
    /// Bytes of the packet in all segments; only in the first one.
    pkt_len: u32 = SLUICE_MBUF_PKT_LEN;
    /// Number of segments; only in the first one.
    nb_segs: u16 = SLUICE_MBUF_NB_SEGS;
    /// DPDK's id of the port it came from; `SLUICE_PORT_INVALID` for none.
    port: u16 = SLUICE_MBUF_PORT;
    /// `RTE_MBUF_F_*`.
    ol_flags: u64 = SLUICE_MBUF_OL_FLAGS;
    /// How many owners it has.
    refcnt: u16 = SLUICE_MBUF_REFCNT;
    /// The application's 32 bits; they share their place with the RSS hash.
    hash_usr: u32 = SLUICE_MBUF_HASH_USR;
}

setters! {
    /// Set where the packet begins in the buffer, in bytes.
    set_data_off: u16 = SLUICE_MBUF_DATA_OFF;
    /// Set the bytes of the packet in this segment.
    set_data_len: u16 = SLUICE_MBUF_DATA_LEN;
    /// Set the bytes of the packet in all segments.
    set_pkt_len: u32 = SLUICE_MBUF_PKT_LEN;
    /// Set `RTE_MBUF_F_*`.
    set_ol_flags: u64 = SLUICE_MBUF_OL_FLAGS;
    /// Set the port it came from.
    set_port: u16 = SLUICE_MBUF_PORT;
    /// Set the application's 32 bits; the RSS hash is lost.
    set_hash_usr: u32 = SLUICE_MBUF_HASH_USR;
}

/// Where the packet begins: `rte_pktmbuf_mtod`.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn data(mbuf: *const rte_mbuf) -> *mut u8 {
    // SAFETY: data_off is within the buffer at buf_addr in any live mbuf.
    unsafe { buf_addr(mbuf).add(usize::from(data_off(mbuf))) }
}

/// How long the packet's part in this segment can become, in bytes: data and tailroom.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn data_room(mbuf: *const rte_mbuf) -> u16 {
    // SAFETY: as the caller vouches.
    unsafe { buf_len(mbuf).saturating_sub(data_off(mbuf)) }
}
