//! What the kernel knows of ports that are virtual functions, before DPDK has them: whether their
//! physical function has given them a MAC address.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;

use futures_util::StreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage, VfInfo};
use sluice_wire::ether::MacAddr;

/// A virtual function, as its physical function numbers it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Vf {
    /// The kernel's interface of its PF.
    pf: String,
    /// Its number.
    number: u32,
}

/// Warnings about ports (name, PCI address) that are VFs without a MAC address. What cannot be found
/// out is no warning.
pub fn warnings_without_mac<'p>(ports: impl Iterator<Item = (&'p str, String)>) -> Vec<String> {
    let vfs = ports.filter_map(|(port, address)| Some((port, find(Path::new("/"), &address)?)));
    vfs.filter(|(_, vf)| mac(vf).is_some_and(|mac| mac == MacAddr::ZERO))
        .map(|(port, Vf { pf, number })| {
            format!(
                "port {port}: its PF has given it no MAC address, so its driver makes one up, which \
                 nobody knows and which changes: set one before Sluice starts, with `ip link set {pf} \
                 vf {number} mac ADDRESS`"
            )
        })
        .collect()
}

/// The VF at a PCI address, if it is one and the kernel has its PF. `root` is the root directory, `/`.
fn find(root: &Path, address: &str) -> Option<Vf> {
    let pf = root.join("sys/bus/pci/devices").join(address).join("physfn");
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<PathBuf>>()
    };
    let number = names(&pf).into_iter().find_map(|entry| {
        let number = entry.file_name()?.to_str()?.strip_prefix("virtfn")?.parse().ok()?;
        (fs::read_link(&entry).ok()?.file_name()? == address).then_some(number)
    })?;
    let interface = names(&pf.join("net")).into_iter().next()?;
    Some(Vf { pf: interface.file_name()?.to_str()?.to_owned(), number })
}

/// The VF's MAC address as its PF has it.
fn mac(vf: &Vf) -> Option<MacAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().ok()?;
    let link = runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().ok()?;
        let connection = tokio::spawn(connection);
        let request = handle.link().get().match_name(vf.pf.clone());
        let request = request.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::Vf]);
        let link = pin!(request.execute()).next().await;
        connection.abort();
        link?.ok()
    })?;
    mac_in(&link, vf.number)
}

fn mac_in(link: &LinkMessage, number: u32) -> Option<MacAddr> {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::VfInfoList(list) => Some(list.iter().flat_map(|vf| &vf.0)),
        _ => None,
    });
    infos.flatten().find_map(|info| match info {
        VfInfo::Mac(mac) if mac.vf_id == number => Some(MacAddr(*mac.mac.first_chunk()?)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::{LinkVfInfo, VfInfoMac};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_vf_is_found_by_its_address() {
        let root = std::env::temp_dir().join(format!("sluice-vf-{}", std::process::id()));
        let devices = root.join("sys/bus/pci/devices");
        let pf = devices.join("0000:01:00.0");
        fs::create_dir_all(pf.join("net/ens1f0")).unwrap();
        for (number, address) in [(0, "0000:01:10.0"), (11, "0000:01:12.6")] {
            fs::create_dir_all(devices.join(address)).unwrap();
            symlink("../0000:01:00.0", devices.join(address).join("physfn")).unwrap();
            symlink(format!("../{address}"), pf.join(format!("virtfn{number}"))).unwrap();
        }
        let vf = |number| Some(Vf { pf: "ens1f0".to_owned(), number });
        assert_eq!(find(&root, "0000:01:10.0"), vf(0));
        assert_eq!(find(&root, "0000:01:12.6"), vf(11));
        assert_eq!(find(&root, "0000:01:00.0"), None, "the PF itself");
        assert_eq!(find(&root, "net_tap0"), None);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn its_mac_address_is_the_one_of_its_number() {
        let mut link = LinkMessage::default();
        assert_eq!(mac_in(&link, 0), None);
        let mac =
            |number, bytes: [u8; 6]| LinkVfInfo(vec![VfInfo::Mac(VfInfoMac::new(number, &bytes))]);
        let list = vec![mac(0, [2, 0, 0, 0, 0, 1]), mac(1, [0; 6])];
        link.attributes.push(LinkAttribute::VfInfoList(list));
        assert_eq!(mac_in(&link, 0), Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(mac_in(&link, 1), Some(MacAddr::ZERO));
        assert_eq!(mac_in(&link, 2), None);
    }
}
