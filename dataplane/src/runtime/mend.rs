//! Ports whose device does not go on as it was: one that is taken away ends the process, one that was
//! reset is set up anew, while all workers pause.

use std::time::Duration;

use super::RunError;
use super::links::KernelLink;
use super::main_loop::{MainLoop, MainPort};
use crate::dpdk::{PortCounters, PortFault};

/// How long workers may take to pause: a round, or a nap.
const PAUSED_WITHIN: Duration = Duration::from_millis(500);

/// More packets than any port takes from one look at it to the next.
const LEAP_PACKETS: u64 = 1 << 31;

impl MainPort {
    /// What the port has counted; as it was when it was last well, once the counters were set back.
    pub fn counters(&self) -> PortCounters {
        let now = self.port.stats();
        if self.was_set_back(&now) { self.counted } else { now }
    }

    fn note_counters(&mut self) {
        let now = self.port.stats();
        if self.was_set_back(&now) {
            self.port.note_reset();
        } else {
            self.counted = now;
        }
    }

    /// Whether the counters did what only the reset of a VF does.
    fn was_set_back(&self, now: &PortCounters) -> bool {
        self.port.is_vf() && has_leapt(now, &self.counted)
    }
}

/// Drivers make 64 bits of a device's 32, and take one that was set back to 0 for one that has gone
/// round.
fn has_leapt(now: &PortCounters, before: &PortCounters) -> bool {
    let leapt = |now: u64, before: u64| now.wrapping_sub(before) >= LEAP_PACKETS;
    leapt(now.rx_packets, before.rx_packets) || leapt(now.tx_packets, before.tx_packets)
}

impl MainLoop {
    /// The first port that cannot go on.
    pub fn lost_port(&self) -> Option<RunError> {
        let is_gone = |number| self.links.state(number) == KernelLink::Gone;
        (0..).zip(self.ports.iter().zip(&self.config.ports)).find_map(|(index, (main, config))| {
            let fault = main.port.fault().filter(|fault| *fault != PortFault::Reset);
            let fault = fault.or(is_gone(index).then_some(PortFault::InterfaceGone));
            let (fault, device) = match (fault, &config.exception) {
                (Some(fault), _) => (fault, config.device.clone()),
                (None, Some(interface)) if is_gone(self.ports.len() + index) => {
                    (PortFault::InterfaceGone, format!("exception port {interface}"))
                }
                _ => return None,
            };
            Some(RunError::Port { port: config.name.clone(), device, fault })
        })
    }

    /// A port's link has come back. A VF may have lost all its settings with it, which some drivers do
    /// not notice: it has some time to receive something.
    pub fn link_is_back(&mut self, now_ms: u64, index: usize) {
        if self.ports[index].port.is_vf() {
            let received = self.received(index);
            self.ports[index].probation = Probation::begin(now_ms, received);
        }
        self.resolver.port_up(now_ms, index as u16);
        self.announcer.link_up(now_ms, index as u16);
    }

    /// Set up anew what was reset, and what receives nothing although it ought to. Call about once a
    /// second: a PF needs a moment. No conn is lost by it: they are the workers'.
    pub fn mend_ports(&mut self, now_ms: u64) {
        for index in 0..self.ports.len() {
            let received = self.received(index);
            let main = &mut self.ports[index];
            main.note_counters();
            let is_reset = main.port.fault() == Some(PortFault::Reset);
            if main.probation.as_ref().is_some_and(|p| received > p.received) && !is_reset {
                main.probation = None;
            }
            let is_silent = main.probation.as_ref().is_some_and(|p| now_ms >= p.until_ms);
            // Without a link the PF may be down, and then it does not answer its VFs.
            if (is_reset || is_silent) && main.port.link_up() {
                let why = if is_reset {
                    "its PF was reset"
                } else {
                    "it has received nothing since its link came back"
                };
                self.set_up_anew(index, now_ms, received, why);
            }
        }
    }

    /// Packets that the workers have received from a port.
    fn received(&self, index: usize) -> u64 {
        self.queues(index as u16).iter().map(|queue| queue.rx_packets).sum()
    }

    fn set_up_anew(&mut self, index: usize, now_ms: u64, received: u64, why: &str) {
        let name = &self.config.ports[index].name;
        if self.some_worker_is_stuck() {
            let message = format!("port {name}: a worker is stuck, it is set up anew later");
            return self.events.add("port-reset-failed", message);
        }
        let main = &mut self.ports[index];
        let Some(pause) = self.orders.pause(self.workers.len(), PAUSED_WITHIN) else {
            let message = format!("port {name}: the workers do not pause, it is set up anew later");
            return self.events.add("port-reset-failed", message);
        };
        let result = main.port.set_up_anew(&pause, main.counted);
        drop(pause);
        let resumed_ms = self.clock.now_ns() / 1_000_000;
        self.workers.iter_mut().for_each(|worker| worker.pulse.forgive(resumed_ms));
        let former = main.probation.take();
        let is_first = former.as_ref().is_none_or(|p| p.tries == 0);
        main.probation = Probation::after(former.as_ref(), now_ms, received);
        match result {
            Ok(()) => {
                main.failure = None;
                // It may be tried several times: told once.
                if is_first {
                    self.events
                        .add("port-reset", format!("port {name}: {why}; it was set up anew"));
                }
                self.resolver.port_up(now_ms, index as u16);
                self.announcer.link_up(now_ms, index as u16);
            }
            Err(error) => {
                let text = error.to_string();
                if main.failure.as_ref() != Some(&text) {
                    let message = format!(
                        "port {name}: {why}; it cannot be set up anew, tried again: {text}"
                    );
                    self.events.add("port-reset-failed", message);
                    main.failure = Some(text);
                }
            }
        }
    }
}

/// A VF whose link has come back, or that was set up anew, is not believed to live until it has
/// received something: a driver does not tell when its PF did not answer, or was reset once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probation {
    /// Packets that its workers had received from it by then.
    received: u64,
    /// How often it was set up anew since its link came back.
    tries: usize,
    /// Until when it may be silent, in ms.
    until_ms: u64,
}

impl Probation {
    /// How long it may be silent, in ms, by the number of tries. Then it is left alone: all workers
    /// pause while a port is set up, and there may well be nobody who sends.
    const PATIENCE_MS: [u64; 4] = [2_000, 4_000, 8_000, 16_000];

    fn begin(now_ms: u64, received: u64) -> Option<Probation> {
        Self::new(0, now_ms, received)
    }

    fn after(former: Option<&Probation>, now_ms: u64, received: u64) -> Option<Probation> {
        Self::new(former.map_or(1, |p| p.tries + 1), now_ms, received)
    }

    fn new(tries: usize, now_ms: u64, received: u64) -> Option<Probation> {
        let patience_ms = Self::PATIENCE_MS.get(tries)?;
        Some(Probation { received, tries, until_ms: now_ms + patience_ms })
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
    fn a_port_that_stays_silent_is_set_up_four_times() {
        let first = Probation::begin(10_000, 7).unwrap();
        assert_eq!(first, Probation { received: 7, tries: 0, until_ms: 12_000 });
        let again = |p: &Probation| Probation::after(Some(p), p.until_ms, 7);
        let all: Vec<u64> = std::iter::successors(Some(first), again).map(|p| p.until_ms).collect();
        assert_eq!(all, [12_000, 16_000, 24_000, 40_000]);
        // One that was reset without a word of its link has been set up once already.
        assert_eq!(Probation::after(None, 0, 7).unwrap().tries, 1);
    }
}
