//! Receive and transmit queues of a port: one thread polls each.

use std::sync::Arc;

use dpdk_sys::rte_mbuf;

use super::Mbuf;
use super::mbuf::forget_front;
use super::port_setup::Inner;

/// A receive queue. It keeps its port open.
pub struct RxQueue {
    port: u16,
    queue: u16,
    multi_segment_drops: u64,
    _inner: Arc<Inner>,
}

/// A transmit queue. It keeps its port open.
pub struct TxQueue {
    port: u16,
    queue: u16,
    _inner: Arc<Inner>,
}

impl RxQueue {
    pub(super) fn new(inner: Arc<Inner>, queue: u16) -> RxQueue {
        RxQueue { port: inner.id, queue, multi_segment_drops: 0, _inner: inner }
    }

    /// Append at most `most` packets that were received, without growing `into` beyond its capacity.
    /// Returns how many.
    ///
    /// All are in one segment: others are copied together, or dropped and counted when they are
    /// larger than an mbuf.
    #[inline]
    pub fn burst(&mut self, into: &mut Vec<Mbuf>, most: usize) -> usize {
        let before = into.len();
        let room = most.min(into.capacity() - before);
        let count = u16::try_from(room).unwrap_or(u16::MAX);
        if count == 0 {
            return 0;
        }
        // SAFETY: the port is open and the queue set up as long as we live; we are its only poller,
        // as we are borrowed mutably. There is room for count pointers behind the vector's end, Mbuf
        // is a pointer, and what the driver returns has no other owner.
        let got = unsafe {
            let end = into.as_mut_ptr().add(before).cast::<*mut rte_mbuf>();
            let got = usize::from(dpdk_sys::rx_burst(self.port, self.queue, end, count));
            into.set_len(before + got);
            got
        };
        let mut single = true;
        for mbuf in &into[before..] {
            single &= mbuf.is_single_segment();
        }
        if single { got } else { self.join_segments(into, before) }
    }

    #[cold]
    fn join_segments(&mut self, into: &mut Vec<Mbuf>, before: usize) -> usize {
        let mut index = before;
        while index < into.len() {
            if into[index].is_single_segment() || into[index].linearize() {
                index += 1;
            } else {
                into.remove(index);
                self.multi_segment_drops += 1;
            }
        }
        into.len() - before
    }

    /// Packets dropped because they were larger than an mbuf, since the port was opened.
    pub fn multi_segment_drops(&self) -> u64 {
        self.multi_segment_drops
    }

    /// DPDK's number of its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its number within the port.
    pub fn queue(&self) -> u16 {
        self.queue
    }
}

impl TxQueue {
    pub(super) fn new(inner: Arc<Inner>, queue: u16) -> TxQueue {
        TxQueue { port: inner.id, queue, _inner: inner }
    }

    /// Transmit as many as the device takes, from the front of `from`; the others stay there, in
    /// order. Returns how many were taken.
    #[inline]
    pub fn burst(&mut self, from: &mut Vec<Mbuf>) -> usize {
        let count = u16::try_from(from.len()).unwrap_or(u16::MAX);
        // SAFETY: the port is open and the queue set up as long as we live, and only we use it. Mbuf
        // is a pointer; the mbufs that the driver took over are removed without being dropped.
        unsafe {
            let mbufs = from.as_mut_ptr().cast::<*mut rte_mbuf>();
            let sent = usize::from(dpdk_sys::tx_burst(self.port, self.queue, mbufs, count));
            forget_front(from, sent);
            sent
        }
    }

    /// DPDK's number of its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its number within the port.
    pub fn queue(&self) -> u16 {
        self.queue
    }
}
