//! A PCI device as the kernel shows it: why DPDK cannot have it.

use std::fs;
use std::path::Path;

use super::port_config::{OtherDriver, PortErrorCause};

/// Drivers that keep their device and share it with DPDK.
const SHARING: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];
/// Drivers that give their device away.
const GIVING: [&str; 3] = ["vfio-pci", "igb_uio", "uio_pci_generic"];

/// What is wrong with the device at this address (`0000:03:00.0`), when the kernel tells. `root` is
/// the root directory, `/`.
pub(super) fn refusal(root: &Path, address: &str) -> Option<PortErrorCause> {
    let devices = root.join("sys/bus/pci/devices");
    let device = devices.join(address);
    if !device.exists() {
        // Without a PCI bus in /sys there is nothing to tell.
        return devices.exists().then_some(PortErrorCause::NoSuchDevice);
    }
    let link = fs::read_link(device.join("driver")).ok();
    let driver = link.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    match driver.as_deref() {
        Some(name) if SHARING.contains(&name) || GIVING.contains(&name) => None,
        driver => {
            let entries = fs::read_dir(device.join("net")).into_iter().flatten().flatten();
            let interfaces: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            Some(PortErrorCause::OtherDriver(Box::new(OtherDriver {
                driver: driver.map(str::to_owned),
                interfaces: interfaces.join(", "),
                address: address.to_owned(),
            })))
        }
    }
}

/// Whether the device at this address is a virtual function. `root` is the root directory, `/`.
pub(super) fn is_vf(root: &Path, address: &str) -> bool {
    root.join("sys/bus/pci/devices").join(address).join("physfn").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A host with a PCI device and this driver, and an interface of it.
    fn look(driver: Option<&str>, test: &str) -> Option<PortErrorCause> {
        let root = std::env::temp_dir().join(format!("sluice-pci-{}-{test}", std::process::id()));
        let device = root.join("sys/bus/pci/devices/0000:03:00.0");
        fs::create_dir_all(device.join("net/eth2")).unwrap();
        assert!(!is_vf(&root, "0000:03:00.0"));
        fs::create_dir_all(device.join("physfn")).unwrap();
        assert!(is_vf(&root, "0000:03:00.0"));
        if let Some(driver) = driver {
            symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
        }
        let found = refusal(&root, "0000:03:00.0");
        assert_eq!(refusal(&root, "0000:04:00.0"), Some(PortErrorCause::NoSuchDevice));
        fs::remove_dir_all(&root).unwrap();
        found
    }

    #[test]
    fn devices_that_the_kernel_has_are_told_from_those_that_dpdk_can_have() {
        assert_eq!(look(Some("vfio-pci"), "vfio"), None);
        assert_eq!(look(Some("mlx5_core"), "mlx5"), None);
        let text = look(Some("ixgbe"), "ixgbe").unwrap().to_string();
        assert!(
            text.starts_with("the kernel's driver ixgbe has the device (interface eth2, "),
            "{text}"
        );
        assert!(text.contains("driver_override") && text.contains("0000:03:00.0"), "{text}");
        let text = look(None, "none").unwrap().to_string();
        assert!(text.starts_with("no driver has the device"), "{text}");
        assert_eq!(refusal(Path::new("/nonexistent"), "0000:03:00.0"), None);
    }
}
