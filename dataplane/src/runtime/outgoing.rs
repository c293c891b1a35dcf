//! Frames that do not come from a port and leave by one: ours and those of the kernel. They wait here for
//! a worker that sends them, as this thread has no queue of its own.

use std::sync::Arc;

use sluice_api::DropReason;

use super::crew::Crew;
use crate::dpdk::{Mbuf, Mempool};
use sluice_path::counters::WorkerCounters;
use sluice_path::frame::Frame;
use sluice_path::ids::InterfaceId;

/// Frames of ours that wait for a worker to send them; more are dropped, and sent again by whoever
/// still wants them.
const MOST_WAITING: usize = 1_024;
/// The kernel's frames may be so many of them, so that they never keep ARP from being sent: what is
/// more waits in the kernel.
const MOST_OF_KERNEL: usize = MOST_WAITING / 2;

/// The frames that wait, and what they are made of.
pub struct Outgoing {
    mempool: Mempool,
    waiting: Vec<Mbuf>,
    /// What this thread drops.
    counters: Arc<WorkerCounters>,
}

impl Outgoing {
    /// Made of mbufs of this pool; what is dropped is counted there.
    pub fn new(mempool: Mempool, counters: Arc<WorkerCounters>) -> Self {
        Outgoing { mempool, waiting: Vec::with_capacity(MOST_WAITING), counters }
    }

    /// The pool of all packets.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the kernel may send more.
    pub fn has_room_for_kernel(&self) -> bool {
        self.waiting.len() < MOST_OF_KERNEL
    }

    /// Count a packet that ends here.
    pub fn dropped(&self, reason: DropReason) {
        self.counters.drop_count(reason).add(1);
    }

    /// A frame of ours, of these bytes, for an interface; none, and that is counted, without an mbuf.
    pub fn frame(&self, interface: InterfaceId, bytes: &[u8]) -> Option<Mbuf> {
        let Some(mut mbuf) = self.mempool.alloc() else {
            self.dropped(DropReason::NoMbuf);
            return None;
        };
        mbuf.set_len(bytes.len()).expect("an ARP frame fits into any mbuf");
        mbuf.bytes_mut().copy_from_slice(bytes);
        mbuf.set_interface(interface);
        Some(mbuf)
    }

    /// Have a frame of ours leave by an interface; whether there was room.
    pub fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        let Some(mbuf) = self.frame(interface, bytes) else { return false };
        self.queue(mbuf, DropReason::ArpQueueFull)
    }

    /// Let a frame wait, whose tag is its interface; `full` is why it dies when too many wait. Whether it
    /// lives.
    pub fn queue(&mut self, mbuf: Mbuf, full: DropReason) -> bool {
        let has_room = self.waiting.len() < MOST_WAITING;
        if has_room {
            self.waiting.push(mbuf);
        } else {
            self.dropped(full);
        }
        has_room
    }

    /// Give the worker that sends them what waits, as far as it has room.
    pub fn flush(&mut self, crew: &mut Crew) {
        if !self.waiting.is_empty() {
            crew.give(&mut self.waiting);
        }
    }
}
