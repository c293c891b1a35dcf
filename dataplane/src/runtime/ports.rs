//! Ports: whether their links are up, what they have counted, and those whose device does not go on as it
//! was. One that is taken away ends the process, one that was reset is set up anew, while all workers
//! pause.

use sluice_api::stats::{PortStats, PortStatus};
use sluice_wire::ether::MacAddr;

use super::crew::Crew;
use super::links::{KernelLink, LinkWatch};
use super::probation::Probation;
use super::steering::PortRss;
use crate::config;
use crate::dpdk::{Port, PortCounters, PortError, PortFault};
use crate::events::EventLog;
use sluice_path::ids::PortId;

/// More packets than any port takes from one look at it to the next.
const LEAP_PACKETS: u64 = 1 << 31;

/// A port and what is known of it.
pub struct MainPort {
    port: Port,
    /// Whether its link was up when last looked at.
    link_up: bool,
    /// What was found out about its RSS.
    rss: PortRss,
    /// What it had counted when it was last looked at and well.
    counted: PortCounters,
    /// Since it was set up anew, until it has received something.
    probation: Option<Probation>,
    /// Why it could not be set up anew, when an event has told so.
    failure: Option<String>,
}

impl MainPort {
    /// An open one.
    pub fn new(port: Port, rss: PortRss, link_up: bool) -> Self {
        MainPort {
            port,
            link_up,
            rss,
            counted: PortCounters::default(),
            probation: None,
            failure: None,
        }
    }

    /// The device.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Its MAC address.
    pub fn mac(&self) -> MacAddr {
        MacAddr(self.port.mac())
    }

    /// Whether its link was up when last looked at.
    pub fn link_up(&self) -> bool {
        self.link_up
    }

    /// What the port has counted; as it was when it was last well, once the counters were set back.
    fn counters(&self) -> PortCounters {
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

    /// Why it is to be set up anew now, if it is. So many packets have been received from it.
    fn ails(&mut self, now_ms: u64, received: u64) -> Option<&'static str> {
        self.note_counters();
        let is_reset = self.port.fault() == Some(PortFault::Reset);
        if self.probation.as_ref().is_some_and(|p| received > p.received) && !is_reset {
            self.probation = None;
        }
        let is_silent = self.probation.as_ref().is_some_and(|p| now_ms >= p.until_ms);
        // Without a link the PF may be down, and then it does not answer its VFs.
        if !(is_reset || is_silent) || !self.port.link_up() {
            return None;
        }
        let silent = "it has received nothing since its link came back";
        Some(if is_reset { "its PF was reset" } else { silent })
    }

    /// It was tried to set it up anew, for this reason; what is to be told.
    fn was_set_up(
        &mut self,
        result: Result<(), PortError>,
        why: &str,
        is_first: bool,
    ) -> Option<(&'static str, String)> {
        let name = self.port.name();
        let Err(error) = result else {
            self.failure = None;
            // It may be tried several times: told once.
            return is_first
                .then(|| ("port-reset", format!("port {name}: {why}; it was set up anew")));
        };
        let text = error.to_string();
        if self.failure.as_ref() == Some(&text) {
            return None;
        }
        let message = format!("port {name}: {why}; it cannot be set up anew, tried again: {text}");
        self.failure = Some(text);
        Some(("port-reset-failed", message))
    }

    fn stats(&self, crew: &Crew, port: PortId) -> PortStats {
        let c = self.counters();
        let queues = crew.queues(port);
        PortStats {
            name: self.port.name().to_owned(),
            rx_packets: c.rx_packets,
            rx_bytes: c.rx_bytes,
            tx_packets: c.tx_packets,
            tx_bytes: c.tx_bytes,
            rx_missed: c.rx_missed,
            rx_errors: c.rx_errors,
            rx_no_mbuf: c.rx_no_mbuf,
            tx_errors: c.tx_errors,
            mis_steered: queues.iter().map(|q| q.mis_steered).sum(),
            queues,
        }
    }

    fn status(&self, config: &config::Port, crew: &Crew, port: PortId) -> PortStatus {
        let capabilities = self.port.rx_capabilities();
        let (steering, steering_reason) = self.rss.in_words(&crew.trusts(port));
        PortStatus {
            name: config.name.clone(),
            device: config.device.clone(),
            driver: self.port.driver().to_owned(),
            mac: self.mac().to_string(),
            addresses: config.addresses.iter().map(ToString::to_string).collect(),
            queues: crew.workers().len() as u16,
            max_queues: capabilities.max_queues,
            mtu: self.port.mtu(),
            max_mtu: capabilities.max_mtu,
            ip_checksum_offload: capabilities.ip_checksum,
            l4_checksum_offload: capabilities.l4_checksum,
            link_up: self.link_up,
            exception: config.exception.clone(),
            steering: steering.to_owned(),
            steering_reason,
            rss_key_bytes: self.rss.key_bytes,
            rss_table_entries: self.rss.table_entries,
        }
    }
}

/// Drivers make 64 bits of a device's 32, and take one that was set back to 0 for one that has gone
/// round.
fn has_leapt(now: &PortCounters, before: &PortCounters) -> bool {
    let leapt = |now: u64, before: u64| now.wrapping_sub(before) >= LEAP_PACKETS;
    leapt(now.rx_packets, before.rx_packets) || leapt(now.tx_packets, before.tx_packets)
}

/// A port that cannot go on.
pub struct Lost {
    /// Which.
    pub port: PortId,
    /// Whether it is the interface of its exception port that is gone.
    pub is_exception: bool,
    /// What has become of it.
    pub fault: PortFault,
}

/// A link that came up, or went down.
#[derive(Clone, Copy, Debug)]
pub struct LinkChange {
    /// Of which port.
    pub port: PortId,
    /// Whether it is up now.
    pub is_up: bool,
}

/// The numbers of ports, in order.
fn numbered() -> impl Iterator<Item = PortId> {
    (0..).map(PortId)
}

/// All ports, in the order of the file.
pub struct Ports {
    ports: Vec<MainPort>,
    /// What the kernel says of ports that are its interfaces, and of their exception ports behind.
    links: LinkWatch,
}

impl Ports {
    /// Watched by `links`: the ports first, then their exception ports, in the same order.
    pub fn new(ports: Vec<MainPort>, links: LinkWatch) -> Self {
        Ports { ports, links }
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &MainPort> {
        self.ports.iter()
    }

    /// A port's MAC address.
    pub fn mac(&self, port: PortId) -> MacAddr {
        self.ports[port.index()].mac()
    }

    /// A port's name.
    pub fn name(&self, port: PortId) -> &str {
        self.ports[port.index()].port.name()
    }

    /// The first that cannot go on.
    pub fn lost(&self) -> Option<Lost> {
        let is_gone = |number| self.links.state(number) == KernelLink::Gone;
        (0..).zip(&self.ports).find_map(|(number, main)| {
            let port = PortId(number as u16);
            let fault = main.port.fault().filter(|fault| *fault != PortFault::Reset);
            let fault = fault.or(is_gone(number).then_some(PortFault::InterfaceGone));
            if let Some(fault) = fault {
                return Some(Lost { port, is_exception: false, fault });
            }
            let is_exception = is_gone(self.ports.len() + number);
            is_exception.then_some(Lost { port, is_exception, fault: PortFault::InterfaceGone })
        })
    }

    /// Look at all links, and tell of those that have changed.
    pub fn look_at_links(
        &mut self,
        now_ms: u64,
        crew: &Crew,
        events: &mut EventLog,
    ) -> Vec<LinkChange> {
        let mut changes = Vec::new();
        for (port, main) in numbered().zip(&mut self.ports) {
            let is_up = self.links.state(port.index()).is_up(&main.port);
            if is_up == main.link_up {
                continue;
            }
            main.link_up = is_up;
            let (kind, word) = if is_up { ("link-up", "up") } else { ("link-down", "down") };
            events.add(kind, format!("port {}: link is {word}", main.port.name()));
            // A VF may have lost all its settings with its link, which some drivers do not notice: it
            // has some time to receive something.
            if is_up && main.port.is_vf() {
                main.probation = Probation::begin(now_ms, crew.received(port));
            }
            changes.push(LinkChange { port, is_up });
        }
        changes
    }

    /// Set up anew what was reset, and what receives nothing although it ought to; those that were. Call
    /// about once a second: a PF needs a moment. No conn is lost by it: they are the workers'. `clock`
    /// gives the time in ms.
    pub fn mend(
        &mut self,
        crew: &mut Crew,
        events: &mut EventLog,
        clock: impl Fn() -> u64,
    ) -> Vec<LinkChange> {
        let mut mended = Vec::new();
        for (port, main) in numbered().zip(&mut self.ports) {
            let (now_ms, received) = (clock(), crew.received(port));
            let Some(why) = main.ails(now_ms, received) else { continue };
            let later = |reason: &str| {
                let name = main.port.name();
                ("port-reset-failed", format!("port {name}: {reason}, it is set up anew later"))
            };
            if crew.some_is_stuck() {
                let (kind, message) = later("a worker is stuck");
                events.add(kind, message);
                continue;
            }
            let Some(pause) = crew.pause() else {
                let (kind, message) = later("the workers do not pause");
                events.add(kind, message);
                continue;
            };
            let result = main.port.set_up_anew(&pause, main.counted);
            drop(pause);
            crew.forgive(clock());
            let former = main.probation.take();
            let is_first = former.as_ref().is_none_or(|p| p.tries == 0);
            main.probation = Probation::after(former.as_ref(), now_ms, received);
            if result.is_ok() {
                mended.push(LinkChange { port, is_up: true });
            }
            if let Some((kind, message)) = main.was_set_up(result, why, is_first) {
                events.add(kind, message);
            }
        }
        mended
    }

    /// Tell of ports whose packets came to wrong queues; call about once a second.
    pub fn look_at_steering(&mut self, crew: &Crew, events: &mut EventLog) {
        for (port, main) in numbered().zip(&mut self.ports) {
            if main.rss.has_become_lost(&crew.trusts(port)) {
                let mis_steered = crew.queues(port).iter().map(|q| q.mis_steered).sum();
                let message = PortRss::loss_in_words(main.port.name(), mis_steered);
                events.add("steering-fallback", message);
            }
        }
    }

    /// As control is told; with what the file says of them.
    pub fn statuses(&self, config: &[config::Port], crew: &Crew) -> Vec<PortStatus> {
        numbered()
            .zip(self.ports.iter().zip(config))
            .map(|(port, (main, config))| main.status(config, crew, port))
            .collect()
    }

    /// Their counters.
    pub fn stats(&self, crew: &Crew) -> Vec<PortStats> {
        numbered().zip(&self.ports).map(|(port, main)| main.stats(crew, port)).collect()
    }

    /// Stop all.
    pub fn stop(&mut self) {
        for main in &mut self.ports {
            if let Err(error) = main.port.stop() {
                eprintln!("{error}");
            }
        }
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
}
