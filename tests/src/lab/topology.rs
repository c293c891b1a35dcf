//! The lab's wires.
//!
//! ```text
//!   client ── wan ──┬── switch wan ── wan0 ▒ Sluice ▒ lan0 ── switch lan ──┬── lan0  b1, b2, b3
//!   10.10.0.10      │   10.10.0.1  (namespace lb)  10.20.0.1               │   10.20.0.11 … 13
//!                   └──────────── direct0, the way of DR replies ──────────┘   10.10.0.11 … 13
//! ```
//!
//! Each party has a namespace; both switches are bridges in the namespace `net`. The far ends of
//! Sluice's ports have checksum and segmentation offload switched off: packets of an AF_XDP port
//! or a tap must be complete as they are.

use std::net::Ipv4Addr;

use super::command::{run, run_in};
use super::error::Result;
use super::site::{self, Site};

/// Client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 10);
/// Sluice's address towards clients.
pub const LB_WAN: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// Sluice's address towards backends.
pub const LB_LAN: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// VIP of the service `web`.
pub const VIP_WEB: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 100);
/// VIP of the service `web-dr`; every backend holds it on `lo`.
pub const VIP_WEB_DR: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 101);
/// VIP of the service `echo`.
pub const VIP_ECHO: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 102);
/// Client's address in the backends' network, for the reference measurement over a bare wire.
pub const CLIENT_ON_LAN: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);
/// First of the four local addresses that full-NAT takes.
pub const POOL_FIRST: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 200);
/// How many backends there are.
pub const BACKENDS: u8 = 3;

/// Address of backend `number`, from 1.
pub fn backend_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, 10 + number)
}

/// How Sluice's ports are wired to the switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// AF_XDP on one end of a veth pair, whose other end is in the switch. One queue.
    AfXdp,
    /// A tap that DPDK makes when the data plane starts, with a queue for each worker; its kernel
    /// end goes into the switch.
    Tap,
    /// Into a virtual machine, in which Sluice runs: whoever makes the machine lays these wires
    /// (`sriov/machine.rs`), and starts Sluice in it.
    Guest,
}

/// Make all namespaces and wires of a lab.
pub fn build(site: &Site, wire: Wire) -> Result<()> {
    site.base_netns().iter().try_for_each(|netns| add_netns(netns))?;
    for switch in ["wan", "lan"] {
        add_switch(&site.netns("net"), switch)?;
    }
    build_client(site)?;
    if wire == Wire::AfXdp {
        for switch in ["wan", "lan"] {
            add_link(site, "lb", &format!("{switch}0"), switch)?;
        }
    }
    (1..=BACKENDS).try_for_each(|number| build_backend(site, number))
}

/// Lay a way through a router to somebody far away:
///
/// ```text
///   switch ── near ─ router ─ beyond ── uplink  far
///           .254/24        .1/24, MTU     .10/24, MTU 1500
/// ```
///
/// What is sent to `far` passes a link with another MTU than any of the lab's; nobody but the router
/// knows.
pub fn build_far(site: &Site, switch: &str, near: Ipv4Addr, beyond: Far) -> Result<()> {
    let (router, far) = (site.netns("router"), site.netns("far"));
    [&router, &far].iter().try_for_each(|netns| add_netns(netns))?;
    add_link(site, "router", "near", switch)?;
    add_address(&router, near, 24, "near")?;
    add_veth((&router, "beyond"), (&far, "uplink"))?;
    add_address(&router, beyond.gateway(), 24, "beyond")?;
    add_address(&far, beyond.host(), 24, "uplink")?;
    for (netns, device) in [(&router, "beyond"), (&far, "uplink")] {
        run(&["ip", "-n", netns, "link", "set", device, "up"])?;
    }
    run(&["ip", "-n", &router, "link", "set", "beyond", "mtu", &beyond.mtu.to_string()])?;
    let gateway = beyond.gateway().to_string();
    run(&["ip", "-n", &far, "route", "add", "default", "via", &gateway])?;
    sysctl(&router, &["net.ipv4.ip_forward=1"])
}

/// A network behind a router.
#[derive(Clone, Copy, Debug)]
pub struct Far {
    /// The network, of prefix length 24.
    pub network: Ipv4Addr,
    /// Largest IP packet that the router sends into it, in bytes.
    pub mtu: u16,
}

impl Far {
    /// The router's address in it.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// The address of who is there.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 10)
    }
}

fn add_netns(netns: &str) -> Result<()> {
    let _permission = site::making();
    run(&["ip", "netns", "add", netns])?;
    let no_ipv6 = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"];
    sysctl(netns, &no_ipv6)?;
    run(&["ip", "-n", netns, "link", "set", "lo", "up"]).map(drop)
}

/// Put the kernel ends of the data plane's taps into the switches. They appear when it starts and
/// go when it ends, so this follows each start.
pub fn plug_taps(site: &Site) -> Result<()> {
    let (lb, net) = (site.netns("lb"), site.netns("net"));
    // The kernel end has the MAC address of DPDK's end. A bridge takes frames for an address of one
    // of its own interfaces to be for itself, so the kernel end gets another one.
    for (switch, mac) in [("wan", "02:00:00:00:0a:01"), ("lan", "02:00:00:00:14:01")] {
        let device = format!("{switch}0");
        let _permission = site::making();
        run(&["ip", "-n", &lb, "link", "set", &device, "netns", &net])?;
        run(&["ip", "-n", &net, "link", "set", &device, "address", mac])?;
        run(&["ip", "-n", &net, "link", "set", &device, "master", switch, "up"])?;
    }
    Ok(())
}

/// Name of the interface of a switch (`wan` or `lan`) that leads to Sluice.
pub fn switch_port(wire: Wire, switch: &str) -> String {
    match wire {
        Wire::AfXdp => format!("lb-{switch}0"),
        Wire::Tap | Wire::Guest => format!("{switch}0"),
    }
}

fn build_client(site: &Site) -> Result<()> {
    let client = site.netns("client");
    add_link(site, "client", "wan", "wan")?;
    add_address(&client, CLIENT, 24, "wan")?;
    // The load takes source ports from 10000 up; everything else stays below.
    sysctl(&client, &["net.ipv4.ip_local_port_range=2000 9999", "net.ipv4.tcp_tw_reuse=1"])
}

fn build_backend(site: &Site, number: u8) -> Result<()> {
    let role = format!("b{number}");
    let netns = site.netns(&role);
    // The VIP on lo must neither be answered for nor asked with (RFC 826 has no such notion: this
    // is how a Linux real server behind direct routing is set up). Before any link is up.
    sysctl(
        &netns,
        &[
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.core.somaxconn=4096",
        ],
    )?;
    add_link(site, &role, "lan0", "lan")?;
    add_address(&netns, backend_address(number), 24, "lan0")?;
    add_link(site, &role, "direct0", "wan")?;
    add_address(&netns, Ipv4Addr::new(10, 10, 0, 10 + number), 24, "direct0")?;
    add_address(&netns, VIP_WEB_DR, 32, "lo")
}

fn add_switch(net: &str, name: &str) -> Result<()> {
    run(&["ip", "-n", net, "link", "add", name, "type", "bridge", "stp_state", "0"])?;
    run(&["ip", "-n", net, "link", "set", name, "type", "bridge", "mcast_snooping", "0"])?;
    run(&["ip", "-n", net, "link", "set", name, "up"]).map(drop)
}

/// A veth pair with one queue between a namespace and a switch.
fn add_link(site: &Site, role: &str, device: &str, switch: &str) -> Result<()> {
    let (netns, net) = (site.netns(role), site.netns("net"));
    let peer = format!("{role}-{device}");
    add_veth((&netns, device), (&net, &peer))?;
    run(&["ip", "-n", &net, "link", "set", &peer, "master", switch, "up"])?;
    run(&["ip", "-n", &netns, "link", "set", device, "up"]).map(drop)
}

/// A veth pair with one queue and without offloads.
fn add_veth((netns, device): (&str, &str), (far_netns, far_device): (&str, &str)) -> Result<()> {
    let one_queue = ["numtxqueues", "1", "numrxqueues", "1"];
    let mut add = vec!["ip", "-n", netns, "link", "add", device];
    add.extend(one_queue);
    add.extend(["type", "veth", "peer", "name", far_device, "netns", far_netns]);
    add.extend(one_queue);
    run(&add)?;
    for (netns, device) in [(netns, device), (far_netns, far_device)] {
        let offloads = ["tx", "off", "gso", "off", "tso", "off", "gro", "off"];
        let mut ethtool = vec!["ethtool", "-K", device];
        ethtool.extend(offloads);
        run_in(netns, &ethtool)?;
    }
    Ok(())
}

/// Give an interface an address.
pub fn add_address(netns: &str, address: Ipv4Addr, prefix: u8, device: &str) -> Result<()> {
    let address = format!("{address}/{prefix}");
    run(&["ip", "-n", netns, "addr", "add", &address, "dev", device]).map(drop)
}

fn sysctl(netns: &str, settings: &[&str]) -> Result<()> {
    let mut argv = vec!["sysctl", "-qw"];
    argv.extend(settings);
    run_in(netns, &argv).map(drop)
}
