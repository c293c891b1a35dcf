//! Devices of ports that are not there: what DPDK would refuse at start, known before by looking at this
//! host. A device that another process holds is not looked at: `--check` is run beside a data plane that
//! forwards.

use std::fs;
use std::path::Path;

use sluice_api::Problem;

use super::{Config, Port, VerifyL4Checksum};

/// Drivers of DPDK (22.11 to 24.11) for devices that a device string makes.
const DRIVERS: [&str; 22] = [
    "eth_af_packet",
    "eth_bond",
    "eth_null",
    "eth_pcap",
    "eth_ring",
    "eth_vhost",
    "net_af_packet",
    "net_af_xdp",
    "net_bonding",
    "net_bond",
    "net_failsafe",
    "net_kni",
    "net_memif",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_softnic",
    "net_tap",
    "net_tun",
    "net_vdev_netvsc",
    "net_vhost",
    "net_virtio_user",
];
/// Those of them that use an interface of the kernel, by the argument `iface`.
const OF_INTERFACES: [&str; 3] = ["net_af_xdp", "net_af_packet", "eth_af_packet"];
/// Those that verify no TCP and UDP checksum of what they receive.
const UNVERIFIED: [&str; 9] = [
    "net_af_xdp",
    "net_af_packet",
    "eth_af_packet",
    "net_memif",
    "net_null",
    "net_pcap",
    "eth_pcap",
    "net_ring",
    "eth_ring",
];

/// What is wrong with a device.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// It never names one: what would be accepted.
    Words(String),
    /// This host does not have it now, and may have it later: what would be accepted.
    NotThere(String),
}

impl Wrong {
    fn expected(self) -> String {
        match self {
            Wrong::Words(expected) | Wrong::NotThere(expected) => expected,
        }
    }
}

/// A problem, with the value as it stands in the file, and whether the file is to blame for it.
pub(super) struct Found {
    pub value: String,
    pub problem: Problem,
    pub is_files: bool,
}

/// Devices that this host, whose files are below `root`, does not have. With a driver of one's own among DPDK's arguments (`-d`), unknown ones are not told.
pub(super) fn problems(ports: &[Port], eal_args: &[String], root: &Path) -> Vec<Found> {
    let has_own_drivers = eal_args.iter().any(|argument| argument.starts_with("-d"));
    let wrong = |port: &Port| {
        let wrong = wrong_with(&port.device, has_own_drivers, root)?;
        let is_files = matches!(wrong, Wrong::Words(_));
        let field = format!("port[{}].device", port.name);
        let problem = Problem::new(&field, format!("{:?}", port.device), wrong.expected());
        Some(Found { value: port.device.clone(), problem, is_files })
    };
    ports.iter().filter_map(wrong).collect()
}

fn wrong_with(device: &str, has_own_drivers: bool, root: &Path) -> Option<Wrong> {
    let name = device.split(',').next().unwrap_or_default();
    if let Some(address) = pci_address(name) {
        let known = root.join("sys/bus/pci/devices");
        // Without PCI there is nothing to look at, and DPDK will say so.
        let is_missing = known.is_dir() && !known.join(&address).exists();
        return is_missing.then(|| {
            Wrong::NotThere(format!("the address of a PCI device of this host, as `lspci -D` names them: {address} is none"))
        });
    }
    let interfaces = root.join("sys/class/net");
    let Some(driver) = driver_of(name) else {
        let is_interface = !name.is_empty() && interfaces.join(name).exists();
        return match (is_interface, has_own_drivers) {
            (true, _) => Some(Wrong::Words(format!(
                "a DPDK device: {name} is an interface of the kernel, which DPDK uses as \
                 \"net_af_xdp0,iface={name}\", or takes over by its PCI address"
            ))),
            (false, true) => None,
            (false, false) => Some(Wrong::Words(
                "a PCI address, as \"0000:03:00.0\", or a device string that begins with a driver of \
                 DPDK, as \"net_af_xdp0,iface=eth0\", \"net_tap0\" or \"net_memif0\""
                    .to_owned(),
            )),
        };
    };
    if !OF_INTERFACES.contains(&driver) {
        return None;
    }
    match device.split(',').skip(1).find_map(|argument| argument.strip_prefix("iface=")) {
        None | Some("") => Some(Wrong::Words(format!(
            "the interface of the kernel that {driver} is to use, as \"{name},iface=eth0\""
        ))),
        Some(interface) if interfaces.is_dir() && !interfaces.join(interface).exists() => {
            Some(Wrong::NotThere(format!(
                "an interface of this host, {}: {interface} is none",
                named(&interfaces)
            )))
        }
        Some(_) => None,
    }
}

/// The interfaces that there are, in words that follow a comma.
fn named(interfaces: &Path) -> String {
    const MOST: usize = 8;
    let Ok(all) = fs::read_dir(interfaces) else { return "of which none is known".to_owned() };
    let names = all.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name != "lo").collect();
    names.sort();
    match names.len() {
        0 => "which has none but lo".to_owned(),
        1..=MOST => format!("which has {}", names.join(", ")),
        more => format!("which has {} and {} more", names[..MOST].join(", "), more - MOST),
    }
}

/// The driver that a device string names: it is what is before the number or word that sets the device
/// apart.
fn driver_of(name: &str) -> Option<&'static str> {
    let sets_apart = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_lowercase());
    let is_it = |driver: &&&str| name.strip_prefix(**driver).is_some_and(sets_apart);
    DRIVERS.iter().filter(is_it).max_by_key(|driver| driver.len()).copied()
}

/// A PCI address with its domain.
fn pci_address(name: &str) -> Option<String> {
    let shape = |pattern: &str| {
        name.len() == pattern.len()
            && name.bytes().zip(pattern.bytes()).all(|(c, p)| match p {
                b'x' => c.is_ascii_hexdigit(),
                other => c == other,
            })
    };
    let name = || name.to_ascii_lowercase();
    if shape("xxxx:xx:xx.x") {
        Some(name())
    } else {
        shape("xx:xx.x").then(|| format!("0000:{}", name()))
    }
}

/// Of ports that leave checksums to their device, which has none to do it.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    if config.runtime.verify_l4_checksum != VerifyL4Checksum::Port {
        return Vec::new();
    }
    let unverified = |port: &&Port| {
        let name = port.device.split(',').next().unwrap_or_default();
        driver_of(name).is_some_and(|driver| UNVERIFIED.contains(&driver))
    };
    config.ports.iter().filter(unverified).map(|port| unverified_warning(&port.name)).collect()
}

/// What is told of a port that does not verify what it is left to.
pub fn unverified_warning(port: &str) -> String {
    format!(
        "port {port}: runtime.verify_l4_checksum is \"port\", and its driver verifies no TCP and UDP \
         checksums: broken packets are forwarded, and die uncounted at their receiver; \"always\" has \
         the workers verify them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A host with two interfaces and a PCI device.
    fn host() -> TempDir {
        let root = TempDir::new().unwrap();
        for path in
            ["class/net/lo", "class/net/eth0", "class/net/l0", "bus/pci/devices/0000:03:00.0"]
        {
            fs::create_dir_all(root.path().join("sys").join(path)).unwrap();
        }
        root
    }

    #[test]
    fn what_is_there_is_fine() {
        let root = host();
        for device in [
            "net_af_xdp0,iface=l0",
            "net_af_xdp_lan,queue_count=2,iface=eth0",
            "0000:03:00.0",
            "03:00.0",
            "0000:03:00.0,representor=0",
            "net_tap0,iface=new0",
            "net_memif0,role=client",
            "net_virtio_user0,path=/dev/vhost-net",
            "net_null0",
            "eth_pcap0,iface=eth0",
        ] {
            assert_eq!(wrong_with(device, false, root.path()), None, "{device}");
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let root = host();
        let wrong = |device: &str| wrong_with(device, false, root.path()).unwrap().expected();
        let expected = "a DPDK device: eth0 is an interface of the kernel, which DPDK uses as \
                        \"net_af_xdp0,iface=eth0\", or takes over by its PCI address";
        assert_eq!(wrong("eth0"), expected);
        assert!(
            wrong("eth1").starts_with("a PCI address, as \"0000:03:00.0\", or a device string")
        );
        for unknown in ["net_afxdp0,iface=eth0", "net_mlx5", "net_taproot0", "0000:3:0.0", "lan"] {
            assert!(wrong(unknown).starts_with("a PCI address"), "{unknown}");
        }
        assert_eq!(
            wrong("net_af_xdp0"),
            "the interface of the kernel that net_af_xdp is to use, as \"net_af_xdp0,iface=eth0\""
        );
        assert!(wrong("net_af_packet0,iface=").contains("that net_af_packet is to use"));
        assert_eq!(
            wrong("net_af_xdp0,iface=eth1"),
            "an interface of this host, which has eth0, l0: eth1 is none"
        );
        assert!(wrong("0000:04:00.0").ends_with("0000:04:00.0 is none"));
        assert!(wrong("04:00.0").ends_with("0000:04:00.0 is none"));
        let not_there = |device: &str| {
            matches!(wrong_with(device, false, root.path()), Some(Wrong::NotThere(_)))
        };
        assert!(not_there("0000:04:00.0") && not_there("net_af_xdp0,iface=eth1"), "yet");
        assert!(!not_there("eth0") && !not_there("net_af_xdp0") && !not_there("net_mlx5"));
        assert_eq!(wrong_with("net_mine0", true, root.path()), None, "a driver of one's own");
    }

    #[test]
    fn checksums_that_nobody_verifies_are_told() {
        let file = |verify: &str| {
            let text = format!(
                "[runtime]\nverify_l4_checksum = \"{verify}\"\nworker_cpus = [0]\n\
                 [[port]]\nname = \"lan\"\ndevice = \"net_af_xdp0,iface=l0\"\naddresses = [\"10.0.0.1/24\"]\n\
                 [[port]]\nname = \"wan\"\ndevice = \"0000:03:00.0\"\naddresses = [\"10.0.1.1/24\"]\n"
            );
            Config::parse(&text, &[0]).unwrap()
        };
        assert_eq!(file("always").warnings(), [] as [String; 0]);
        let warnings = file("port").warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("port lan: runtime.verify_l4_checksum is \"port\""));
        assert!(file("port").summary().contains("warning      port lan: "));
    }
}
