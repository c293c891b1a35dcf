//! Virtual functions in the guest, made and bound as `docs/deploy.md` tells operators to.

use super::guest::Guest;
use super::machine::{IGB_MACS, VIRTIO_MACS, VIRTIO_PF_MAC};
use crate::lab::error::{LabError, Result};

/// MAC addresses that the igb PFs give their first VFs, of the wan and of the lan.
pub const IGB_VF_MACS: [&str; 2] = ["02:00:5e:00:0a:10", "02:00:5e:00:14:10"];

/// VFs of each igb PF: Sluice's and a spare one, which gets no MAC address.
const IGB_VFS: u8 = 2;

/// Two VFs that are Sluice's ports.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PCI address of the one towards clients.
    pub wan: String,
    /// PCI address of the one towards backends.
    pub lan: String,
    /// The MAC addresses that both are to have.
    pub macs: [&'static str; 2],
}

/// The NICs of the guest.
#[derive(Clone, Debug)]
pub struct Nics {
    /// The kernel's interfaces of the igb PFs, of the wan and of the lan.
    pub igb_interfaces: [String; 2],
    /// PCI addresses of the igb PFs.
    pub igb_pfs: [String; 2],
    /// The igb VFs that Sluice gets.
    pub igb: Pair,
    /// A VF of the igb PF towards clients that has no MAC address.
    pub igb_spare: String,
    /// The virtio-net VFs that Sluice gets.
    pub virtio: Pair,
}

impl Nics {
    /// Load the drivers; PFs up, VFs made, MAC addresses set, in this order. The VFs have no driver
    /// yet.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub fn make(guest: &mut Guest) -> Result<Self> {
        guest.expect(
            "for m in igb virtio_net vfio_iommu_type1 vfio-pci tun; do modprobe $m || exit 1; done",
        )?;
        let igb_interfaces = [interface(guest, IGB_MACS[0])?, interface(guest, IGB_MACS[1])?];
        let mut igb_pfs = [String::new(), String::new()];
        for ((name, pf), mac) in igb_interfaces.iter().zip(&mut igb_pfs).zip(IGB_VF_MACS) {
            let device = format!("/sys/class/net/{name}/device");
            guest.expect(&format!(
                "set -e\n\
                 ip link set {name} up\n\
                 echo 0 >{device}/sriov_drivers_autoprobe\n\
                 echo {IGB_VFS} >{device}/sriov_numvfs\n\
                 ip link set {name} vf 0 mac {mac}\n\
                 for i in $(seq 100); do [ \"$(cat /sys/class/net/{name}/carrier)\" = 1 ] && exit 0; sleep .1; done\n\
                 echo no carrier; exit 1"
            ))?;
            *pf = link_name(guest, &device)?;
        }
        let vf = |guest: &mut Guest, pf: &str, number: u8| {
            link_name(guest, &format!("/sys/bus/pci/devices/{pf}/virtfn{number}"))
        };
        let igb = Pair {
            wan: vf(guest, &igb_pfs[0], 0)?,
            lan: vf(guest, &igb_pfs[1], 0)?,
            macs: IGB_VF_MACS,
        };
        let igb_spare = vf(guest, &igb_pfs[0], 1)?;
        // The interface belongs to a virtio device, which belongs to the PCI device.
        let name = interface(guest, VIRTIO_PF_MAC)?;
        let virtio_pf = link_name(guest, &format!("/sys/class/net/{name}/device/.."))?;
        let device = format!("/sys/bus/pci/devices/{virtio_pf}");
        guest.expect(&format!(
            "echo 0 >{device}/sriov_drivers_autoprobe && echo 2 >{device}/sriov_numvfs"
        ))?;
        let virtio = Pair {
            wan: vf(guest, &virtio_pf, 0)?,
            lan: vf(guest, &virtio_pf, 1)?,
            macs: VIRTIO_MACS,
        };
        Ok(Nics { igb_interfaces, igb_pfs, igb, igb_spare, virtio })
    }
}

/// Give a device to a driver.
///
/// # Errors
/// Another driver has it afterwards, or none.
pub fn bind(guest: &mut Guest, address: &str, driver: &str) -> Result<()> {
    let device = format!("/sys/bus/pci/devices/{address}");
    guest
        .expect(&format!(
            "echo {driver} >{device}/driver_override\n\
             [ ! -e {device}/driver ] || echo {address} >{device}/driver/unbind\n\
             echo {address} >/sys/bus/pci/drivers_probe\n\
             [ \"$(basename \"$(readlink {device}/driver)\")\" = {driver} ]"
        ))
        .map(drop)
}

/// The interface that has a MAC address.
pub fn interface(guest: &mut Guest, mac: &str) -> Result<String> {
    let found = guest.expect(&format!("grep -l {mac} /sys/class/net/*/address || true"))?;
    found
        .lines()
        .next()
        .and_then(|path| path.split('/').nth(4))
        .map(str::to_owned)
        .ok_or_else(|| LabError::Missing(format!("the guest has no interface with MAC {mac}")))
}

/// What a link's target is called.
fn link_name(guest: &mut Guest, link: &str) -> Result<String> {
    let name = guest.expect(&format!("basename \"$(readlink -f {link})\""))?;
    Ok(name.trim().to_owned())
}
