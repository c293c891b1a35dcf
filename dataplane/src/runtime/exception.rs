//! The way to the kernel and back: each port has a kernel interface beside it (a tap), which takes
//! what is for the host itself and sends what the host sends.

use crate::burst::BURST;
use crate::dpdk::{Mbuf, Port, RxQueue, TxQueue};

/// The exception port of one port.
pub struct ExceptionPort {
    rx: RxQueue,
    tx: TxQueue,
    to_kernel: Vec<Mbuf>,
    /// Keeps the device open; dropped last.
    _port: Port,
}

impl ExceptionPort {
    /// From an open tap with one queue.
    pub fn new(port: Port, rx: RxQueue, tx: TxQueue) -> Self {
        ExceptionPort { rx, tx, to_kernel: Vec::with_capacity(BURST), _port: port }
    }

    /// Queue a packet for the kernel; `false` when it had no room and the packet is gone.
    pub fn push(&mut self, frame: Mbuf) -> bool {
        if self.to_kernel.len() == BURST {
            self.flush();
        }
        let room = self.to_kernel.len() < BURST;
        if room {
            self.to_kernel.push(frame);
        }
        room
    }

    /// Give the kernel what is queued; what it does not take waits for the next round.
    pub fn flush(&mut self) {
        if !self.to_kernel.is_empty() {
            self.tx.burst(&mut self.to_kernel);
        }
    }

    /// Append at most a burst of what the kernel has sent.
    pub fn receive(&mut self, into: &mut Vec<Mbuf>) -> usize {
        self.rx.burst(into, BURST)
    }
}
