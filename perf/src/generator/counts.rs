//! Plain counters of a run.

use serde::Serialize;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets of the load that the device took.
    pub sent: u64,
    /// Bursts of the load that were offered to the device.
    pub bursts: u64,
    /// Bursts of which the device took only a part.
    pub bursts_refused: u64,
    /// Packets of the load that came back.
    pub received: u64,
    /// Packets that our servers answered.
    pub answered: u64,
    /// Packets whose checksum was wrong on return, among those that were verified.
    pub checksum_errors: u64,
    /// ARP packets received.
    pub arp: u64,
    /// TCP resets received by clients.
    pub resets: u64,
    /// Packets received that have nothing to do with the load.
    pub other: u64,
    /// Answers for which the device had no room.
    pub answers_dropped: u64,
    /// Times that no buffer was free for packets to send.
    pub no_buffers: u64,
}

impl Counts {
    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Counts) -> Counts {
        Counts {
            sent: self.sent - before.sent,
            bursts: self.bursts - before.bursts,
            bursts_refused: self.bursts_refused - before.bursts_refused,
            received: self.received - before.received,
            answered: self.answered - before.answered,
            checksum_errors: self.checksum_errors - before.checksum_errors,
            arp: self.arp - before.arp,
            resets: self.resets - before.resets,
            other: self.other - before.other,
            answers_dropped: self.answers_dropped - before.answers_dropped,
            no_buffers: self.no_buffers - before.no_buffers,
        }
    }

    /// Share of bursts for which the device had no room, 0 to 1. Near 0 at full rate, the generator
    /// itself is what limits the rate.
    pub fn refused(&self) -> f64 {
        self.bursts_refused as f64 / self.bursts.max(1) as f64
    }

    /// Share of the packets sent that did not come back, 0 to 1.
    pub fn loss(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => sent.saturating_sub(self.received) as f64 / sent as f64,
        }
    }
}
