//! Looking at the wire: ARP as the client sees it, and packets that an interface has counted.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use super::command::run;
use super::error::{LabError, Result};
use super::process::{Process, wait_until};
use super::site::Site;

/// Records the ARP that reaches the client.
#[derive(Debug)]
pub struct ArpCapture {
    tcpdump: Process,
}

impl ArpCapture {
    /// Begin to record.
    pub fn start(site: &Site) -> Result<Self> {
        let argv = ["tcpdump", "-l", "-n", "-e", "-tt", "-i", "wan", "arp"];
        let tcpdump = Process::spawn(site, &site.netns("client"), "arp", &argv)?;
        wait_until("tcpdump listens", Duration::from_secs(5), || {
            Ok(tcpdump.output().contains("listening on").then_some(()))
        })?;
        Ok(ArpCapture { tcpdump })
    }

    /// The gratuitous ARP packets for an address that came so far, as tcpdump prints them: a
    /// request for it that it sends itself (RFC 5227, 3), or a reply that nobody asked for.
    pub fn gratuitous(&self, address: Ipv4Addr) -> Vec<String> {
        gratuitous(&self.tcpdump.output(), address)
    }

    /// Stop recording; all that came.
    pub fn stop(mut self) -> Result<String> {
        // tcpdump prints what it still holds when it is told to end.
        self.tcpdump.terminate(Duration::from_secs(3))?;
        Ok(self.tcpdump.output())
    }
}

fn gratuitous(output: &str, address: Ipv4Addr) -> Vec<String> {
    let request = format!("who-has {address} tell {address},");
    let request_with_mac = format!("who-has {address} (ff:ff:ff:ff:ff:ff) tell {address},");
    let announcement = format!("Announcement {address},");
    let broadcast_reply = format!("Reply {address} is-at");
    output
        .lines()
        .filter(|line| {
            line.contains(&request)
                || line.contains(&request_with_mac)
                || line.contains(&announcement)
                || (line.contains("> ff:ff:ff:ff:ff:ff") && line.contains(&broadcast_reply))
        })
        .map(str::to_owned)
        .collect()
}

/// Packets that an interface has received and sent since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Received.
    pub rx_packets: u64,
    /// Sent.
    pub tx_packets: u64,
}

/// The counters of an interface in a namespace.
pub fn link_counters(netns: &str, device: &str) -> Result<LinkCounters> {
    let json = run(&["ip", "-n", netns, "-s", "-j", "link", "show", "dev", device])?;
    let value: Value = serde_json::from_str(&json).map_err(|error| LabError::Command {
        command: format!("ip -s -j link show dev {device}"),
        reason: error.to_string(),
    })?;
    let stats = &value[0]["stats64"];
    let packets = |direction: &str| stats[direction]["packets"].as_u64().unwrap_or(0);
    Ok(LinkCounters { rx_packets: packets("rx"), tx_packets: packets("tx") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gratuitous_arp_is_told_from_ordinary_arp() {
        let output = "\
1.0 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 42: Request who-has 10.10.0.100 tell 10.10.0.100, length 28
1.1 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 42: Announcement 10.10.0.100, length 28
1.2 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 42: Reply 10.10.0.100 is-at 02:00:00:00:00:01, length 28
1.3 02:00:00:00:00:02 > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 42: Request who-has 10.10.0.100 tell 10.10.0.10, length 28
1.4 02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype ARP (0x0806), length 42: Reply 10.10.0.100 is-at 02:00:00:00:00:01, length 28";
        assert_eq!(gratuitous(output, Ipv4Addr::new(10, 10, 0, 100)).len(), 3);
        assert!(gratuitous(output, Ipv4Addr::new(10, 10, 0, 10)).is_empty());
    }
}
