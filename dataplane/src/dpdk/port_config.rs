//! How to open a port, and why it may fail.

use sluice_wire::ether::MacAddr;

/// How to open a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name, for messages.
    pub name: String,
    /// DPDK device string (`net_tap0,iface=tap0`) or PCI address, with device arguments behind a
    /// comma where wanted.
    pub device: String,
    /// Receive queues, and as many transmit queues: 1 or more.
    pub queues: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Receive descriptors per queue; the device's limits and steps are applied.
    pub rx_descriptors: u16,
    /// Transmit descriptors per queue; the device's limits and steps are applied.
    pub tx_descriptors: u16,
    /// Also take frames for other MAC addresses.
    pub promiscuous: bool,
    /// The RSS key that it is to have with several queues, where it lets us choose: of this as many
    /// bytes as it wants.
    pub rss_key: Box<[u8]>,
}

/// Why a port could not be opened or closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port} ({device}): {cause}{}", said(messages))]
pub struct PortError {
    /// [`PortConfig::name`].
    pub port: String,
    /// [`PortConfig::device`].
    pub device: String,
    /// What was wrong.
    pub cause: Box<PortErrorCause>,
    /// What DPDK and the driver logged about it, line by line.
    pub messages: Vec<String>,
}

fn said(messages: &[String]) -> String {
    if messages.is_empty() {
        String::new()
    } else {
        format!("; DPDK says: {}", messages.join("; "))
    }
}

/// What was wrong with a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortErrorCause {
    /// Neither a device string nor a PCI address.
    #[error(
        "expected a PCI address such as 0000:03:00.0, or a DPDK device string whose name begins with net_"
    )]
    BadDevice,
    /// There is no such device, or its driver could not take it.
    #[error(
        "DPDK cannot open the device: {reason} (a PCI device must be bound to vfio-pci or have a \
         driver that shares it)"
    )]
    NotFound {
        /// DPDK's words.
        reason: String,
    },
    /// The kernel knows no PCI device at this address.
    #[error("there is no such PCI device: expected one that `lspci -D` lists")]
    NoSuchDevice,
    /// A driver of the kernel has the PCI device, or none.
    #[error(transparent)]
    OtherDriver(Box<OtherDriver>),
    /// A device without an address of its own, as a VF that its PF gave none.
    #[error(
        "its MAC address is {mac}: expected that of one station; set one for a VF, with \
         `ip link set PF vf N mac ADDRESS`, before Sluice starts"
    )]
    Mac {
        /// What the device says.
        mac: MacAddr,
    },
    /// More queues than the device has, or none.
    #[error(
        "queues = {wanted}: expected 1 to {most}, which its driver {driver} has here (each CPU in \
         runtime.worker_cpus takes one)"
    )]
    Queues {
        /// Asked for.
        wanted: u16,
        /// What it has.
        most: u16,
        /// Name of the driver.
        driver: String,
    },
    /// The device cannot have this MTU.
    #[error("mtu = {wanted}: expected {least} to {most}, which its driver {driver} has here")]
    Mtu {
        /// Asked for.
        wanted: u16,
        /// The lowest it can have.
        least: u16,
        /// The highest it can have.
        most: u16,
        /// Name of the driver.
        driver: String,
    },
    /// A frame would not fit into one mbuf.
    #[error(
        "mtu = {wanted}: its frames of {frame_bytes} bytes do not fit into mbufs of {mbuf_bytes}"
    )]
    MbufTooSmall {
        /// Asked for.
        wanted: u16,
        /// The largest frame.
        frame_bytes: u32,
        /// What an mbuf holds.
        mbuf_bytes: u16,
    },
    /// DPDK refused a step.
    #[error("DPDK cannot {step}: {reason}")]
    Dpdk {
        /// What was tried.
        step: &'static str,
        /// DPDK's words.
        reason: String,
    },
    /// Queues of the port are still owned by somebody who may poll them.
    #[error("its queues are still in use")]
    QueuesInUse,
}

/// A PCI device that DPDK cannot have, because of the driver that has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.what(), self.mend())]
pub struct OtherDriver {
    /// The driver's name; absent when no driver has the device.
    pub driver: Option<String>,
    /// Interfaces of the kernel that it is, separated by commas.
    pub interfaces: String,
    /// The device's address.
    pub address: String,
}

impl OtherDriver {
    fn what(&self) -> String {
        let OtherDriver { driver, interfaces, .. } = self;
        match driver {
            None => "no driver has the device".to_owned(),
            Some(driver) if interfaces.is_empty() => {
                format!("the kernel's driver {driver} has the device")
            }
            Some(driver) => format!(
                "the kernel's driver {driver} has the device (interface {interfaces}, which will vanish)"
            ),
        }
    }

    fn mend(&self) -> String {
        let address = &self.address;
        format!(
            "bind it to vfio-pci, with `driverctl set-override {address} vfio-pci`, or `echo \
             vfio-pci > /sys/bus/pci/devices/{address}/driver_override`, unbind and probe it again"
        )
    }
}

/// Whether a port can go by this MAC address: that of one station. Virtual wires do without.
pub(super) fn check_mac(device: &str, mac: [u8; 6]) -> Result<(), PortErrorCause> {
    let of_one_station = mac[0] & 1 == 0 && mac != [0; 6];
    if of_one_station || is_vdev(device) {
        return Ok(());
    }
    Err(PortErrorCause::Mac { mac: MacAddr(mac) })
}

/// The device's name within a device string: what stands before the first comma.
pub(super) fn device_name(device: &str) -> &str {
    device.split_once(',').map_or(device, |(name, _)| name)
}

/// Whether it is a DPDK device string: one whose name begins with `net_`.
pub(super) fn is_vdev(device: &str) -> bool {
    let name = device_name(device);
    name.len() > 4
        && name.starts_with("net_")
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
}

/// Whether it is a PCI address: `0000:03:00.0`, or `03:00.0` in domain 0.
pub(super) fn is_pci_address(name: &str) -> bool {
    let hex = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit())
    };
    let Some((bus_part, function)) = name.rsplit_once('.') else { return false };
    let mut parts = bus_part.rsplit(':');
    let (Some(slot), Some(bus)) = (parts.next(), parts.next()) else { return false };
    let domain = parts.next();
    parts.next().is_none()
        && hex(function, 1)
        && slot.len() == 2
        && hex(slot, 2)
        && bus.len() == 2
        && hex(bus, 2)
        && domain.is_none_or(|domain| hex(domain, 8))
}

/// The name under which DPDK knows the device's port.
pub fn port_name(device: &str) -> String {
    let name = device_name(device);
    if is_pci_address(name) && name.bytes().filter(|c| *c == b':').count() == 1 {
        return format!("0000:{}", name.to_ascii_lowercase());
    }
    if is_pci_address(name) { name.to_ascii_lowercase() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        for device in ["net_tap0", "net_af_xdp0,iface=l0", "net_memif-1,role=client"] {
            assert!(is_vdev(device) && !is_pci_address(device_name(device)), "{device}");
        }
        for device in ["0000:03:00.0", "03:00.1", "10000:ff:1f.7", "0000:03:00.0,arg=1"] {
            assert!(is_pci_address(device_name(device)) && !is_vdev(device), "{device}");
        }
        for device in
            ["", "eth0", "net_", "3:0.0", "0000:03:00", "03:00.x", "a:0000:03:00.0", ":03:00.0"]
        {
            assert!(!is_pci_address(device_name(device)) && !is_vdev(device), "{device}");
        }
        assert_eq!(port_name("03:0A.0,x=1"), "0000:03:0a.0");
        assert_eq!(port_name("0000:03:00.0"), "0000:03:00.0");
        assert_eq!(port_name("net_tap0,iface=Tap0"), "net_tap0");
    }

    #[test]
    fn errors_name_port_device_and_reason() {
        let error = PortError {
            port: "lan".to_owned(),
            device: "net_tap0".to_owned(),
            cause: Box::new(PortErrorCause::Queues {
                wanted: 9,
                most: 1,
                driver: "net_tap".to_owned(),
            }),
            messages: Vec::new(),
        };
        let text = "port lan (net_tap0): queues = 9: expected 1 to 1, which its driver net_tap has here \
             (each CPU in runtime.worker_cpus takes one)";
        assert_eq!(error.to_string(), text);
        let messages = vec!["tap: no".to_owned(), "EAL: no".to_owned()];
        let error = PortError { messages, ..error };
        assert_eq!(error.to_string(), format!("{text}; DPDK says: tap: no; EAL: no"));
    }

    #[test]
    fn a_device_has_the_address_of_one_station() {
        assert_eq!(check_mac("0000:03:00.0", [2, 0, 0, 0, 0, 1]), Ok(()));
        let error = check_mac("0000:03:00.0", [0; 6]).unwrap_err().to_string();
        assert!(error.starts_with("its MAC address is 00:00:00:00:00:00: expected"), "{error}");
        assert!(error.contains("vf N mac"), "{error}");
        assert!(check_mac("0000:03:00.0", [0xff; 6]).is_err());
        // DPDK's rings have no address at all.
        assert_eq!(check_mac("net_ring0", [0; 6]), Ok(()));
    }
}
