//! The way to the kernel and back: each port has a kernel interface beside it (a tap), which takes
//! what is for the host itself and sends what the host sends.

use sluice_api::DropReason;

use crate::dpdk::{Mbuf, Port, RxQueue, TxQueue};
use sluice_path::burst::BURST;
use sluice_path::frame::Frame;
use sluice_path::ids::WorkerId;

/// What the host takes of packets that it has not asked for, in packets per second over all workers:
/// well below what keeps the main thread busy, and more than anybody needs to log in.
pub const STRANGERS_PER_SECOND: u64 = 10_000;
/// Of these so many at once: what comes in the longest round that there should be.
const STRANGERS_AT_ONCE: u64 = 64;

const ETHERNET_HEADER: usize = 14;

/// Paces what the host has not asked for, and lets workers take turns. What is not allowed waits in the
/// workers' rings; they drop what these have no room for.
#[derive(Debug, Default)]
pub struct Strangers {
    tokens: u64,
    filled_ms: u64,
    first: WorkerId,
}

impl Strangers {
    /// How many packets may come now, at most a burst.
    pub fn allowed(&mut self, now_ms: u64) -> usize {
        let passed_ms = now_ms.saturating_sub(self.filled_ms);
        let new = passed_ms.saturating_mul(STRANGERS_PER_SECOND / 1_000);
        self.filled_ms = self.filled_ms.max(now_ms);
        self.tokens = self.tokens.saturating_add(new).min(STRANGERS_AT_ONCE);
        (self.tokens as usize).min(BURST)
    }

    /// So many came.
    pub fn came(&mut self, count: usize) {
        self.tokens = self.tokens.saturating_sub(count as u64);
    }

    /// The worker, of so many, whose turn it is to be first.
    pub fn next_first(&mut self, workers: usize) -> WorkerId {
        let next = self.first.index() + 1;
        self.first = if next < workers { WorkerId(next as u16) } else { WorkerId(0) };
        self.first
    }
}

/// The exception port of one port.
pub struct ExceptionPort {
    rx: RxQueue,
    tx: TxQueue,
    to_kernel: Vec<Mbuf>,
    /// The longest frame that the tap takes, in bytes. It does not go on behind a longer one.
    longest: usize,
    /// Keeps the device open; dropped last.
    port: Port,
}

impl ExceptionPort {
    /// From an open tap with one queue.
    pub fn new(port: Port, rx: RxQueue, tx: TxQueue) -> Self {
        let longest = ETHERNET_HEADER + usize::from(port.mtu());
        ExceptionPort { rx, tx, to_kernel: Vec::with_capacity(BURST), longest, port }
    }

    /// Its device.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Queue a packet for the kernel.
    ///
    /// # Errors
    /// Why it is gone instead. A kernel that does not take its packets loses them, as behind any NIC.
    pub fn push(&mut self, frame: Mbuf) -> Result<(), DropReason> {
        if frame.bytes().len() > self.longest {
            return Err(DropReason::MtuExceeded);
        }
        if self.to_kernel.len() == BURST {
            self.flush();
        }
        if self.to_kernel.len() == BURST {
            return Err(DropReason::ExceptionRingFull);
        }
        self.to_kernel.push(frame);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_come_at_their_pace_whatever_waits() {
        let mut strangers = Strangers::default();
        let (mut came, mut first) = (0, 0);
        // Ten rounds each ms for a second; more always waits.
        for tenth_ms in 0..10_000 {
            let now = strangers.allowed(5_000 + tenth_ms / 10);
            strangers.came(now);
            came += now;
            first = first.max(now);
        }
        assert!((9_900..=10_064).contains(&came), "{came}");
        assert_eq!(first, BURST, "those that the quiet time before allows");
        assert_eq!(strangers.allowed(0), 0, "time that goes back brings nothing");
        let turns: Vec<WorkerId> = (0..4).map(|_| strangers.next_first(3)).collect();
        assert_eq!(turns, [1, 2, 0, 1].map(WorkerId));
    }
}
