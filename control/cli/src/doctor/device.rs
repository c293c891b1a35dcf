//! Devices: the IOMMU, vfio-pci, which driver has each port's device, and the interfaces and taps
//! of ports that are no PCI devices.

use super::finding::Finding;
use super::host::Host;
use super::wanted::Wanted;

/// Kernel drivers that share their device with DPDK instead of giving it away.
const SHARING: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];
/// Drivers that give a device to a program without an IOMMU's protection.
const UIO: [&str; 2] = ["igb_uio", "uio_pci_generic"];
const NOIOMMU: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

fn driver(host: &Host, address: &str) -> Option<String> {
    host.link(&format!("sys/bus/pci/devices/{address}/driver"))
}

/// Ports that need vfio-pci: PCI devices whose driver does not share them.
fn need_vfio(host: &Host, wanted: &Wanted) -> bool {
    wanted
        .pci()
        .any(|(_, address)| !driver(host, &address).is_some_and(|d| SHARING.contains(&d.as_str())))
}

/// Whether an IOMMU is on.
pub fn iommu(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "iommu";
    let Some(units) = host.names("sys/class/iommu") else {
        return Finding::unknown(CHECK, "/sys/class/iommu is not there: an old kernel, or no /sys");
    };
    if !units.is_empty() {
        return Finding::ok(CHECK, format!("on ({})", units.join(", ")));
    }
    if !need_vfio(host, wanted) {
        return Finding::ok(CHECK, "off, and no port of the file needs it");
    }
    if matches!(host.read(NOIOMMU).as_deref(), Some("Y" | "1")) {
        return Finding::warning(
            CHECK,
            "off; vfio-pci works without it (unsafe no-IOMMU mode), but a device may then write to \
             all of the host's memory",
            "switch it on in the firmware (VT-d, AMD-Vi), and kernel parameters intel_iommu=on iommu=pt",
        );
    }
    Finding::wrong(
        CHECK,
        "off: vfio-pci gives no device to a program without it",
        "switch it on in the firmware (VT-d, AMD-Vi), and kernel parameters intel_iommu=on iommu=pt; \
         in a virtual machine without one: echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
    )
}

/// Whether the kernel module vfio-pci is there.
pub fn vfio(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "vfio-pci";
    if host.has("sys/bus/pci/drivers/vfio-pci") {
        return Finding::ok(CHECK, "loaded");
    }
    if !need_vfio(host, wanted) {
        return Finding::ok(CHECK, "not loaded, and no port of the file needs it");
    }
    let release = host.read("proc/sys/kernel/osrelease").unwrap_or_default();
    let Some(modules) = host.read(&format!("lib/modules/{release}/modules.dep")) else {
        return Finding::wrong(
            CHECK,
            format!("not loaded; whether this kernel ({release}) has it cannot be told"),
            "modprobe vfio-pci",
        );
    };
    if modules.contains("/vfio-pci.ko") {
        return Finding::wrong(
            CHECK,
            "not loaded",
            "modprobe vfio-pci && echo vfio-pci > /etc/modules-load.d/vfio-pci.conf",
        );
    }
    Finding::wrong(
        CHECK,
        format!("this kernel ({release}) does not have it"),
        "install a kernel with CONFIG_VFIO_PCI (Debian's linux-image-amd64 has it)",
    )
}

/// Each port's device: is it there, and can DPDK take it?
pub fn ports(host: &Host, wanted: &Wanted) -> Vec<Finding> {
    let pci = wanted.pci().map(|(port, address)| pci_port(host, port, &address));
    let interfaces = wanted.interfaces().map(|(port, name)| interface(host, port, name));
    pci.chain(interfaces).collect()
}

fn pci_port(host: &Host, port: &str, address: &str) -> Finding {
    const CHECK: &str = "port-device";
    let device = format!("sys/bus/pci/devices/{address}");
    if !host.has("sys/bus/pci/devices") {
        return Finding::unknown(CHECK, format!("port {port}: this host shows no PCI bus in /sys"));
    }
    if !host.has(&device) {
        return Finding::wrong(
            CHECK,
            format!("port {port}: there is no PCI device {address}"),
            "lspci -D lists those there are; VFs: echo N > /sys/bus/pci/devices/PF/sriov_numvfs",
        );
    }
    let bind = format!(
        "driverctl set-override {address} vfio-pci   # or: echo vfio-pci > /{device}/driver_override; \
         echo {address} > /{device}/driver/unbind; echo {address} > /sys/bus/pci/drivers_probe"
    );
    match driver(host, address).as_deref() {
        Some("vfio-pci") => vfio_port(host, port, address, &device),
        Some(name) if SHARING.contains(&name) => Finding::ok(
            CHECK,
            format!("port {port}: {address} stays with {name}, which shares it with DPDK"),
        ),
        Some(name) if UIO.contains(&name) => Finding::warning(
            CHECK,
            format!(
                "port {port}: {address} is bound to {name}: no IOMMU protects the host's memory"
            ),
            bind,
        ),
        Some(name) => {
            let interfaces = host.names(&format!("{device}/net")).unwrap_or_default();
            let shown = if interfaces.is_empty() {
                String::new()
            } else {
                format!(" as {}, which vanishes when it is taken away", interfaces.join(", "))
            };
            Finding::wrong(
                CHECK,
                format!("port {port}: {address} belongs to the kernel's driver {name}{shown}"),
                bind,
            )
        }
        None => {
            Finding::wrong(CHECK, format!("port {port}: {address} is bound to no driver"), bind)
        }
    }
}

/// A device that vfio-pci has: the rest of its group, and the link of its PF.
fn vfio_port(host: &Host, port: &str, address: &str, device: &str) -> Finding {
    const CHECK: &str = "port-device";
    let group = host.names(&format!("{device}/iommu_group/devices")).unwrap_or_default();
    let foreign: Vec<String> = group
        .into_iter()
        .filter(|other| other != address)
        .filter_map(|other| {
            let name = driver(host, &other)?;
            let harmless = name.starts_with("vfio") || name == "pci-stub" || name == "pcieport";
            (!harmless).then(|| format!("{other} ({name})"))
        })
        .collect();
    if !foreign.is_empty() {
        return Finding::wrong(
            CHECK,
            format!(
                "port {port}: {address} shares its IOMMU group with devices that the kernel \
                 drives: {}",
                foreign.join(", ")
            ),
            "bind those to vfio-pci or to no driver, or use a slot with ACS, or a VF",
        );
    }
    let function = format!("{device}/physfn");
    if !host.has(&function) {
        return Finding::ok(CHECK, format!("port {port}: {address} is bound to vfio-pci"));
    }
    let pf = host.names(&format!("{function}/net")).and_then(|names| names.into_iter().next());
    let Some(pf) = pf else {
        return Finding::ok(
            CHECK,
            format!(
                "port {port}: {address} is a VF, bound to vfio-pci; its PF has no kernel \
                 interface, so its link and MAC address cannot be told"
            ),
        );
    };
    if host.read(&format!("{function}/net/{pf}/operstate")).as_deref() == Some("down") {
        return Finding::wrong(
            CHECK,
            format!("port {port}: {address} is a VF, and its PF {pf} is down: it gets no link"),
            format!("ip link set {pf} up   # and check its cable"),
        );
    }
    Finding::ok(
        CHECK,
        format!(
            "port {port}: {address} is a VF of {pf}, bound to vfio-pci (ip link show {pf} tells \
             its MAC address, trust and spoof check)"
        ),
    )
}

fn interface(host: &Host, port: &str, name: &str) -> Finding {
    const CHECK: &str = "port-device";
    let Some(state) = host.read(&format!("sys/class/net/{name}/operstate")) else {
        return Finding::wrong(
            CHECK,
            format!("port {port}: there is no interface {name} here"),
            "ip -br link lists those there are; run in the right network namespace",
        );
    };
    if state == "down" {
        return Finding::wrong(
            CHECK,
            format!("port {port}: interface {name} is down"),
            format!("ip link set {name} up"),
        );
    }
    Finding::ok(CHECK, format!("port {port}: interface {name} is {state}"))
}

/// Whether taps can be made: the exception ports are taps.
pub fn tap(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "tap";
    let asked = wanted.exception || wanted.ports.iter().any(|(_, d)| d.starts_with("net_tap"));
    if !asked {
        return Finding::ok(CHECK, "not needed (exception ports are off)");
    }
    if host.has("dev/net/tun") {
        return Finding::ok(CHECK, "/dev/net/tun is there");
    }
    Finding::wrong(
        CHECK,
        "/dev/net/tun is not there: no exception ports, so the host is not reached over its ports",
        "modprobe tun   # or exception.enabled = false",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::host::tests::made_up;
    use super::super::wanted::tests::wanted;
    use super::*;

    const PORT: &str = "[[port]]\nname = \"lan\"\ndevice = \"0000:03:00.0\"";
    const DEVICE: &str = "sys/bus/pci/devices/0000:03:00.0";

    fn look(files: &[(&str, &str)]) -> Finding {
        let (host, _root) = made_up(files);
        ports(&host, &wanted(PORT)).remove(0)
    }

    fn with(below: &str) -> String {
        format!("{DEVICE}/{below}")
    }

    #[test]
    fn the_iommu_is_on_off_or_not_needed() {
        let look = |files: &[(&str, &str)], text: &str| {
            let (host, _root) = made_up(files);
            iommu(&host, &wanted(text))
        };
        assert_eq!(look(&[("sys/class/iommu/dmar0/", "")], PORT).message, "on (dmar0)");
        let off = look(&[("sys/class/iommu/", "")], PORT);
        assert_eq!(off.state, State::Wrong);
        assert!(off.fix.unwrap().contains("intel_iommu=on"));
        let unsafe_mode = [("sys/class/iommu/", ""), (NOIOMMU, "Y\n")];
        assert_eq!(look(&unsafe_mode, PORT).state, State::Warning);
        assert_eq!(look(&[("sys/class/iommu/", "")], "").state, State::Ok);
        assert_eq!(look(&[], PORT).state, State::Unknown);
        let shared = [("sys/class/iommu/", ""), (&*with("driver"), "-> ../../drivers/mlx5_core")];
        assert_eq!(look(&shared, PORT).state, State::Ok);
    }

    #[test]
    fn vfio_is_loaded_or_the_command_loads_it() {
        let look = |files: &[(&str, &str)], text: &str| {
            let (host, _root) = made_up(files);
            vfio(&host, &wanted(text))
        };
        assert_eq!(look(&[("sys/bus/pci/drivers/vfio-pci/", "")], PORT).state, State::Ok);
        assert_eq!(look(&[], "").state, State::Ok);
        let release = ("proc/sys/kernel/osrelease", "6.1.0\n");
        let dep = "lib/modules/6.1.0/modules.dep";
        let has = (dep, "kernel/drivers/vfio/pci/vfio-pci.ko: kernel/x.ko\n");
        let found = look(&[release, has], PORT);
        assert!(found.fix.unwrap().starts_with("modprobe vfio-pci && echo vfio-pci"));
        let found = look(&[release, (dep, "kernel/x.ko:\n")], PORT);
        assert_eq!(found.message, "this kernel (6.1.0) does not have it");
        assert!(look(&[release], PORT).message.contains("cannot be told"));
    }

    #[test]
    fn a_port_that_the_kernel_has_is_named_with_its_interface() {
        let found = look(&[(&with("driver"), "-> ../../drivers/ixgbe"), (&with("net/eth2/"), "")]);
        assert_eq!(found.state, State::Wrong);
        assert_eq!(
            found.message,
            "port lan: 0000:03:00.0 belongs to the kernel's driver ixgbe as eth2, which vanishes \
             when it is taken away"
        );
        assert!(found.fix.unwrap().contains("driver_override"));
        assert!(look(&[(&with("vendor"), "0x8086")]).message.ends_with("bound to no driver"));
        let gone = look(&[("sys/bus/pci/devices/", "")]);
        assert_eq!(gone.message, "port lan: there is no PCI device 0000:03:00.0");
        assert_eq!(look(&[]).state, State::Unknown);
        assert_eq!(look(&[(&with("driver"), "-> ../../drivers/igb_uio")]).state, State::Warning);
        assert_eq!(look(&[(&with("driver"), "-> ../../drivers/mlx5_core")]).state, State::Ok);
    }

    #[test]
    fn a_port_on_vfio_has_its_group_and_its_pf_looked_at() {
        let bound = (&*with("driver"), "-> ../../drivers/vfio-pci");
        assert_eq!(look(&[bound]).message, "port lan: 0000:03:00.0 is bound to vfio-pci");
        let other = [
            bound,
            (&*with("iommu_group/devices/0000:03:00.1"), ""),
            ("sys/bus/pci/devices/0000:03:00.1/driver", "-> ../../drivers/nvme"),
        ];
        let found = look(&other);
        assert_eq!(found.state, State::Wrong);
        assert!(found.message.contains("0000:03:00.1 (nvme)"), "{found:?}");
        let vf = |state| look(&[bound, (&*with("physfn/net/eth0/operstate"), state)]);
        assert_eq!(vf("up\n").state, State::Ok);
        let down = vf("down\n");
        assert_eq!(down.state, State::Wrong);
        assert!(down.message.contains("its PF eth0 is down"), "{down:?}");
        assert!(look(&[bound, (&*with("physfn/vendor"), "")]).message.contains("cannot be told"));
    }

    #[test]
    fn interfaces_and_taps() {
        let xdp = "[[port]]\nname = \"wan\"\ndevice = \"net_af_xdp0,iface=eth1\"";
        let look = |files: &[(&str, &str)]| {
            let (host, _root) = made_up(files);
            (ports(&host, &wanted(xdp)).remove(0), tap(&host, &wanted(xdp)))
        };
        let (missing, no_tap) = look(&[]);
        assert_eq!(missing.message, "port wan: there is no interface eth1 here");
        assert_eq!(no_tap.state, State::Wrong);
        let (down, tap_there) =
            look(&[("sys/class/net/eth1/operstate", "down\n"), ("dev/net/tun", "")]);
        assert_eq!(down.fix.as_deref(), Some("ip link set eth1 up"));
        assert_eq!(tap_there.state, State::Ok);
        assert_eq!(look(&[("sys/class/net/eth1/operstate", "up\n")]).0.state, State::Ok);
        let (host, _root) = made_up(&[]);
        assert_eq!(tap(&host, &wanted("[exception]\nenabled = false")).state, State::Ok);
    }
}
