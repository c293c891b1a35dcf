//! Rules over several fields of the file: what must be unique, what must not overlap, what must be
//! reachable. Fields that could not be read have been reported and are passed over here.

use sluice_path::ids::InterfaceId;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use super::file::{PortDraft, RouteDraft};
use super::report::Report;
use super::{Idle, InterfaceAddress, MAX_PORTS, Prefix, Route, Runtime, driver, joined};

/// Every CPU exists, no two workers share one unless that is asked for, and whoever shares one lets
/// go of it.
pub(super) fn check_cpus(report: &mut Report<'_>, runtime: &Runtime, online: &[u16]) {
    let exists = format!("a CPU that is online: {}", joined(online));
    if !online.contains(&runtime.main_cpu) {
        report.problem("runtime.main_cpu", runtime.main_cpu, &exists);
    }
    let mut seen = Vec::new();
    for cpu in &runtime.worker_cpus {
        if !online.contains(cpu) {
            report.problem("runtime.worker_cpus", cpu, &exists);
        }
        if seen.contains(cpu) && !runtime.share_cpus {
            let expected = "each CPU once; for a trial, share_cpus = true lets workers share one";
            report.problem("runtime.worker_cpus", format!("{cpu} twice"), expected);
        }
        seen.push(*cpu);
    }
    if runtime.idle == Idle::Busy && runtime.share_cpus {
        let expected = "false, as with idle = \"busy\" no worker lets go of its CPU";
        report.problem("runtime.share_cpus", true, expected);
    }
    if runtime.idle == Idle::Busy && seen.contains(&runtime.main_cpu) {
        let expected = "a CPU without a worker, as idle = \"busy\" leaves the main thread no time; \
                        or idle = \"adaptive\"";
        report.problem("runtime.main_cpu", runtime.main_cpu, expected);
    }
}

/// Every device has a queue for each worker, as far as that is known before it is opened.
pub(super) fn check_queues(report: &mut Report<'_>, runtime: &Runtime, ports: &[PortDraft]) {
    let workers = runtime.workers();
    for PortDraft { path, port } in ports {
        if let Some(expected) = driver::instead_of(&port.device, workers) {
            let shown = format!("{:?}", port.device);
            report.problem(&format!("{path}.device"), shown, &expected);
        }
    }
}

/// The first to hold each value, and who it was: reports a second one.
struct Unique<'p, T> {
    owners: HashMap<T, &'p str>,
}

impl<'p, T: Hash + Eq> Unique<'p, T> {
    fn new() -> Self {
        Unique { owners: HashMap::new() }
    }

    /// Whether the value is new; otherwise the field is reported with its holder.
    fn claim(
        &mut self,
        report: &mut Report<'_>,
        value: T,
        holder: &'p str,
        field: &str,
        shown: impl Display,
        what: &str,
    ) -> bool {
        match self.owners.get(&value) {
            Some(other) => {
                let expected = format!("{what}; {other} has it already");
                report.problem(field, shown, &expected);
                false
            }
            None => {
                self.owners.insert(value, holder);
                true
            }
        }
    }
}

/// The largest MTU of DPDK's taps, in bytes.
const TAP_MTU: u16 = 1_504;
/// The largest MTU beside an AF_XDP port, in bytes. Its buffers are at most a page of 4,096. DPDK makes
/// their number of cache lines odd: 63. Of these go 64 bytes for the pool, 128 for the mbuf, 128 for
/// its headroom, 256 for the kernel, 22 for Ethernet and VLAN headers.
pub(super) const AF_XDP_MTU: u16 = 63 * 64 - 64 - 128 - 128 - 256 - 22;

/// Names, devices, addresses and exception ports are unique, and networks belong to one port each.
pub(super) fn check_ports(report: &mut Report<'_>, ports: &[PortDraft]) {
    if !(1..=MAX_PORTS).contains(&ports.len()) {
        let value =
            if ports.is_empty() { "absent".into() } else { format!("{} ports", ports.len()) };
        report.problem("port", value, &format!("1 to {MAX_PORTS} [[port]] sections"));
    }
    let mut names = Unique::new();
    let mut devices = Unique::new();
    let mut exceptions = Unique::new();
    // An exception port is a new kernel interface: it cannot be one that a device already uses.
    let interfaces: HashMap<&str, &str> = ports
        .iter()
        .filter_map(|p| interface_of(&p.port.device).map(|name| (name, p.path.as_str())))
        .collect();
    for PortDraft { path, port } in ports {
        if !port.name.is_empty() {
            let (field, shown) = (format!("{path}.name"), format!("{:?}", port.name));
            let what = "a name that no other port has";
            names.claim(report, port.name.as_str(), path, &field, shown, what);
        }
        if !port.device.is_empty() {
            let (field, shown) = (format!("{path}.device"), format!("{:?}", port.device));
            let what = "a device that no other port has";
            devices.claim(report, device_id(&port.device), path, &field, shown, what);
        }
        if let Some(name) = port.exception.as_deref().filter(|name| !name.is_empty()) {
            let (field, shown) = (format!("{path}.exception"), format!("{name:?}"));
            let what = "an interface name that no other port has";
            if exceptions.claim(report, name, path, &field, &shown, what)
                && let Some(other) = interfaces.get(name)
            {
                let expected = format!("a name of its own; the device of {other} uses this one");
                report.problem(&field, shown, &expected);
            }
        }
    }
    check_mtus(report, ports);
    check_networks(report, ports);
}

/// What drivers are known to take, for an MTU that a start would refuse, or an AF_XDP port would not
/// receive.
fn check_mtus(report: &mut Report<'_>, ports: &[PortDraft]) {
    let af_xdp = ports.iter().find(|draft| draft.port.is_af_xdp());
    for PortDraft { path, port } in ports {
        let field = format!("{path}.mtu");
        if port.device.starts_with("net_tap") && port.mtu > TAP_MTU {
            let expected = format!("at most {TAP_MTU}, which a tap takes");
            report.problem(&field, port.mtu, &expected);
        } else if let Some(other) = af_xdp.filter(|_| port.mtu > AF_XDP_MTU) {
            let expected = format!(
                "at most {AF_XDP_MTU}, as all ports share packet buffers, and those of the AF_XDP \
                 device of {} are smaller than a page",
                other.path
            );
            report.problem(&field, port.mtu, &expected);
        }
    }
}

fn check_networks(report: &mut Report<'_>, ports: &[PortDraft]) {
    let mut addresses = Unique::new();
    let mut earlier: Vec<(&PortDraft, InterfaceAddress)> = Vec::new();
    for draft in ports {
        let field = format!("{}.addresses", draft.path);
        for address in &draft.port.addresses {
            let what = "each address once";
            let ip = address.address();
            if !addresses.claim(report, ip, draft.path.as_str(), &field, address, what) {
                continue;
            }
            let overlap = earlier.iter().find(|(other, theirs)| {
                other.path != draft.path && theirs.network().overlaps(address.network())
            });
            if let Some((other, theirs)) = overlap {
                let expected = format!(
                    "a network that overlaps with that of no other port; {} has {theirs}",
                    other.path
                );
                report.problem(&field, address, &expected);
            }
            earlier.push((draft, *address));
        }
    }
}

/// What DPDK tells a device by: a PCI address with its domain, or what is before the arguments.
fn device_id(device: &str) -> String {
    let name = device.split(',').next().unwrap_or_default().to_ascii_lowercase();
    let is_short_pci = name.len() == 7
        && name.bytes().enumerate().all(|(at, c)| match at {
            2 => c == b':',
            5 => c == b'.',
            _ => c.is_ascii_hexdigit(),
        });
    if is_short_pci { format!("0000:{name}") } else { name }
}

/// The kernel interface that a device string names.
fn interface_of(device: &str) -> Option<&str> {
    device.split(',').skip(1).find_map(|argument| argument.strip_prefix("iface="))
}

/// The routes whose gateway is a host in a port's network; the others are reported.
pub(super) fn check_routes(
    report: &mut Report<'_>,
    ports: &[PortDraft],
    drafts: &[RouteDraft],
) -> Vec<Route> {
    let networks: Vec<(InterfaceId, &PortDraft, Prefix)> = ports
        .iter()
        .zip((0..).map(InterfaceId))
        .flat_map(|(draft, interface)| {
            draft.port.addresses.iter().map(move |a| (interface, draft, a.network()))
        })
        .collect();
    let known: Vec<String> =
        networks.iter().map(|(_, draft, network)| format!("{network} on {}", draft.path)).collect();
    let mut destinations = Unique::new();
    for (_, draft, network) in &networks {
        destinations.owners.insert(*network, draft.path.as_str());
    }
    let mut routes = Vec::new();
    for RouteDraft { path, destination, via } in drafts {
        if let Some(destination) = destination {
            let field = format!("{path}.destination");
            let what = "a destination that no other route and no port's network has";
            destinations.claim(report, *destination, path, &field, destination, what);
        }
        // Without any network, that is what has been reported.
        let Some(via) = via.filter(|_| !networks.is_empty()) else { continue };
        let field = format!("{path}.via");
        let found = networks
            .iter()
            .filter(|(_, _, network)| network.has_host(via))
            .max_by_key(|(_, _, network)| network.prefix_len());
        let ours = ports
            .iter()
            .find(|draft| draft.port.addresses.iter().any(|address| address.address() == via));
        match (found, ours) {
            (_, Some(draft)) => {
                let expected = format!("the address of another host; {} has this one", draft.path);
                report.problem(&field, via, &expected);
            }
            (None, None) => {
                let expected = format!(
                    "a host in a port's network, as the route is unreachable otherwise: {}",
                    known.join(", ")
                );
                report.problem(&field, via, &expected);
            }
            (Some((interface, _, _)), None) => {
                if let Some(destination) = *destination {
                    routes.push(Route { destination, via, interface: *interface });
                }
            }
        }
    }
    routes
}
