//! Ports whose device does not go on as it was: one that is taken away ends the process, one that was
//! reset is set up anew, while all workers pause.

use std::time::Duration;

use super::RunError;
use super::main_loop::{MainLoop, MainPort};
use crate::dpdk::{PortCounters, PortFault};

/// How long workers may take to pause: a round, or a nap.
const PAUSED_WITHIN: Duration = Duration::from_millis(500);

/// More packets than any port takes from one look at it to the next.
const LEAP_PACKETS: u64 = 1 << 31;

impl MainPort {
    /// What the port has counted; as it was when it was last well, once the counters have leapt.
    pub fn counters(&self) -> PortCounters {
        let now = self.port.stats();
        if has_leapt(&now, &self.counted) { self.counted } else { now }
    }

    fn note_counters(&mut self) {
        let now = self.port.stats();
        if has_leapt(&now, &self.counted) {
            self.port.suspect_reset();
        } else {
            self.counted = now;
        }
    }
}

/// Whether counters did what only a reset does: drivers make 64 bits of a device's 32, and take one
/// that was set back to 0 for one that has gone round.
fn has_leapt(now: &PortCounters, before: &PortCounters) -> bool {
    let leapt = |now: u64, before: u64| now.wrapping_sub(before) >= LEAP_PACKETS;
    leapt(now.rx_packets, before.rx_packets) || leapt(now.tx_packets, before.tx_packets)
}

impl MainLoop {
    /// The first port that cannot go on.
    pub fn lost_port(&self) -> Option<RunError> {
        self.ports.iter().zip(&self.config.ports).find_map(|(main, config)| {
            let fault = main.port.fault().filter(|fault| *fault != PortFault::Reset)?;
            let (port, device) = (config.name.clone(), config.device.clone());
            Some(RunError::Port { port, device, fault })
        })
    }

    /// Set up anew what was reset; call about once a second, not at once: a PF needs a moment. No conn is lost: they are the workers'.
    pub fn mend_ports(&mut self, now_ms: u64) {
        for index in 0..self.ports.len() {
            let received: u64 = self.queues(index as u16).iter().map(|q| q.rx_packets).sum();
            let main = &mut self.ports[index];
            main.note_counters();
            let is_reset = main.port.fault() == Some(PortFault::Reset);
            if main.probation.as_ref().is_some_and(|p| received > p.received) && !is_reset {
                main.probation = None;
            }
            let again = main.probation.as_ref().is_some_and(|p| now_ms >= p.again_at_ms);
            // Without a link the PF may be down, and then it does not answer its VFs.
            if (is_reset || again) && main.port.link_up() {
                self.set_up_anew(index, now_ms, received);
            }
        }
    }

    fn set_up_anew(&mut self, index: usize, now_ms: u64, received: u64) {
        let (main, name) = (&mut self.ports[index], &self.config.ports[index].name);
        let Some(pause) = self.orders.pause(self.workers.len(), PAUSED_WITHIN) else {
            tracing::warn!("port {name}: the workers do not pause, it is set up anew later");
            return;
        };
        let result = main.port.set_up_anew(&pause, main.counted);
        drop(pause);
        let reset = PortFault::Reset;
        let is_first = main.probation.is_none();
        main.probation = Probation::after(main.probation.as_ref(), now_ms, received);
        match result {
            Ok(()) => {
                main.failure = None;
                if is_first {
                    self.events
                        .add("port-reset", format!("port {name}: {reset}; it was set up anew"));
                }
                self.resolver.port_up(now_ms, index as u16);
            }
            Err(error) => {
                let text = error.to_string();
                // It is tried each second: told once.
                if main.failure.as_ref() != Some(&text) {
                    let message =
                        format!("{reset}; it cannot be set up anew and is tried again: {text}");
                    self.events.add("port-reset-failed", message);
                    main.failure = Some(text);
                }
            }
        }
    }
}

/// A port that was set up anew is not believed to live until it has received something: a driver does
/// not tell when its PF did not answer, or was reset once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probation {
    /// Packets that its workers had received from it by then.
    received: u64,
    /// How long it has, in ms.
    patience_ms: u64,
    /// When it is set up anew again.
    again_at_ms: u64,
}

impl Probation {
    /// The first time that a port has, in ms; doubled each time.
    const FIRST_MS: u64 = 2_000;
    /// The longest time, in ms. Then it is left alone: it may well be a silent one.
    const LONGEST_MS: u64 = 64_000;

    fn after(former: Option<&Probation>, now_ms: u64, received: u64) -> Option<Probation> {
        let patience_ms = former.map_or(Self::FIRST_MS, |p| 2 * p.patience_ms);
        let probation = Probation { received, patience_ms, again_at_ms: now_ms + patience_ms };
        (patience_ms <= Self::LONGEST_MS).then_some(probation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_are_set_back_are_noticed() {
        let count = |rx_packets, tx_packets| PortCounters {
            rx_packets,
            tx_packets,
            rx_bytes: rx_packets * 60,
            ..PortCounters::default()
        };
        let before = count(1_000, 500);
        assert!(!has_leapt(&count(2_000, 500), &before));
        assert!(!has_leapt(&before, &before));
        assert!(has_leapt(&count(1 << 32, 500), &before));
        assert!(has_leapt(&count(1_000, 1 << 32), &before));
        assert!(has_leapt(&count(0, 0), &before), "back to 0");
    }

    #[test]
    fn a_port_that_stays_silent_is_tried_less_and_less_often() {
        let first = Probation::after(None, 10_000, 7).unwrap();
        assert_eq!(first, Probation { received: 7, patience_ms: 2_000, again_at_ms: 12_000 });
        let again = |p: &Probation| Probation::after(Some(p), p.again_at_ms, 7);
        let all: Vec<u64> =
            std::iter::successors(Some(first), again).map(|p| p.again_at_ms).collect();
        assert_eq!(all, [12_000, 16_000, 24_000, 40_000, 72_000, 136_000]);
    }
}
