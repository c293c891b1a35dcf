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
    /// What the port has counted.
    pub fn counters(&self) -> PortCounters {
        without_leap(self.port.stats(), self.counted)
    }
}

/// Counters as they are now, or as they were before when they leapt: drivers make 64 bits of a
/// device's 32, and take one that was reset to 0 for one that has gone round.
fn without_leap(now: PortCounters, before: PortCounters) -> PortCounters {
    let leapt = |now: u64, before: u64| now.wrapping_sub(before) >= LEAP_PACKETS;
    if leapt(now.rx_packets, before.rx_packets) || leapt(now.tx_packets, before.tx_packets) {
        return before;
    }
    now
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

    /// Set up anew what was reset; call about once a second. No conn is lost: they are the workers'.
    pub fn mend_ports(&mut self, now_ms: u64) {
        for index in 0..self.ports.len() {
            let main = &mut self.ports[index];
            main.counted = main.counters();
            if main.port.fault() != Some(PortFault::Reset) {
                continue;
            }
            let name = &self.config.ports[index].name;
            let Some(pause) = self.orders.pause(self.workers.len(), PAUSED_WITHIN) else {
                tracing::warn!("port {name}: the workers do not pause, it is set up anew later");
                continue;
            };
            let result = main.port.set_up_anew(&pause, main.counted);
            drop(pause);
            match result {
                Ok(()) => {
                    main.failure = None;
                    self.events.add(
                        "port-reset",
                        format!("port {name}: {}; it was set up anew", PortFault::Reset),
                    );
                    self.resolver.port_up(now_ms, index as u16);
                }
                Err(error) => {
                    let text = error.to_string();
                    // It is tried each second: told once.
                    if main.failure.as_ref() != Some(&text) {
                        let message = format!(
                            "{}; it cannot be set up anew and is tried again: {text}",
                            PortFault::Reset
                        );
                        self.events.add("port-reset-failed", message);
                        main.failure = Some(text);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_leap_are_those_from_before() {
        let count = |rx_packets, tx_packets| PortCounters {
            rx_packets,
            tx_packets,
            rx_bytes: rx_packets * 60,
            ..PortCounters::default()
        };
        let before = count(1_000, 500);
        assert_eq!(without_leap(count(2_000, 500), before), count(2_000, 500));
        assert_eq!(without_leap(before, before), before);
        assert_eq!(without_leap(count(1 << 32, 500), before), before);
        assert_eq!(without_leap(count(1_000, 1 << 32), before), before);
        assert_eq!(without_leap(count(0, 0), before), before, "back to 0");
    }
}
