//! The virtual machine: QEMU's command line, the taps that lead into it, its monitor.
//!
//! ```text
//!   switch wan ─┬─ wan0 ──── igb PF 1, whose VFs become Sluice's port wan
//!               └─ wan-mq ── virtio-net VF 1, four queues with RSS
//!   switch lan ─┬─ lan0 ──── igb PF 2
//!               └─ lan-mq ── virtio-net VF 2
//!   mgmt ─────────────────── virtio-net, for control's API
//! ```

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guest::Guest;
use crate::lab::command::{run, run_in};
use crate::lab::error::{LabError, Result};
use crate::lab::process::Process;
use crate::lab::site::Site;
use crate::lab::topology::add_address;

/// CPUs of the guest: one for each worker there may be.
pub const CPUS: u16 = 4;
/// The host's address towards the guest.
const MGMT_HOST: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 1);
/// The guest's address, where control's API listens.
pub const MGMT_GUEST: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 2);
/// MAC address of the guest's interface for the API.
pub const MGMT_MAC: &str = "52:54:00:0c:00:01";
/// MAC addresses of the igb PFs, of the wan and of the lan.
pub const IGB_MACS: [&str; 2] = ["52:54:00:0a:00:01", "52:54:00:14:00:01"];
/// MAC addresses of the virtio-net VFs, of the wan and of the lan.
pub const VIRTIO_MACS: [&str; 2] = ["52:54:00:0a:00:11", "52:54:00:14:00:11"];
/// MAC address of the virtio-net PF.
pub const VIRTIO_PF_MAC: &str = "52:54:00:00:00:10";
/// How long the guest may take to boot.
const BOOT: Duration = Duration::from_secs(120);

/// The virtual machine. Dropping it kills QEMU.
#[derive(Debug)]
pub struct Machine {
    /// The way to run something in it.
    pub guest: Guest,
    /// QEMU's version, as it says it.
    pub version: String,
    qemu: Process,
    monitor: PathBuf,
}

impl Machine {
    /// Lay the taps, start QEMU from `image`, which `scripts/test-sriov` makes, and wait until the
    /// guest takes commands. It finds `image` and `programs`, both absolute, where they lie on the host.
    ///
    /// # Errors
    /// It does not boot; the error has the end of its console.
    pub fn boot(site: &Site, image: &Path, programs: &Path) -> Result<Self> {
        let net = site.netns("net");
        lay_taps(&net)?;
        let (command, monitor) = (site.file("guest.sock"), site.file("monitor.sock"));
        let argv = argv(image, programs, &command, &monitor);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let qemu = Process::spawn(site, &net, "qemu", &argv)?;
        let guest = Guest::connect(&command, BOOT).map_err(|error| LabError::NotReady {
            name: format!("the virtual machine ({error})"),
            within: BOOT,
            log: qemu.log().to_owned(),
            tail: qemu.log_tail(15),
        })?;
        let version = run(&[
            &qemu_argv(image).iter().map(String::as_str).collect::<Vec<_>>()[..],
            &["--version"],
        ]
        .concat())?;
        let version = version.lines().next().unwrap_or("unknown").to_owned();
        Ok(Machine { guest, version, qemu, monitor })
    }

    /// Pull the cable of a device (`pf-wan`, `pf-lan`, `vf-wan`, `vf-lan`), or plug it in.
    ///
    /// # Errors
    /// The monitor does not answer.
    pub fn set_link(&self, device: &str, up: bool) -> Result<()> {
        let what = || LabError::io("QEMU's monitor");
        let mut monitor = UnixStream::connect(&self.monitor).map_err(what())?;
        monitor.set_read_timeout(Some(Duration::from_secs(5))).map_err(what())?;
        read_to_prompt(&mut monitor).map_err(what())?;
        let state = if up { "on" } else { "off" };
        monitor.write_all(format!("set_link {device} {state}\n").as_bytes()).map_err(what())?;
        let answer = read_to_prompt(&mut monitor).map_err(what())?;
        if answer.contains("not found") {
            return Err(LabError::Missing(format!("QEMU has no device {device}: {answer}")));
        }
        Ok(())
    }

    /// The end of QEMU's and the guest's console.
    pub fn console(&self, lines: usize) -> String {
        self.qemu.log_tail(lines)
    }
}

fn read_to_prompt(monitor: &mut UnixStream) -> std::io::Result<String> {
    let (mut text, mut buffer) = (String::new(), [0; 4_096]);
    while !text.ends_with("(qemu) ") {
        match monitor.read(&mut buffer)? {
            0 => break,
            count => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
        }
    }
    Ok(text)
}

fn lay_taps(net: &str) -> Result<()> {
    for (tap, switch, is_multi_queue) in [
        ("wan0", Some("wan"), false),
        ("lan0", Some("lan"), false),
        ("wan-mq", Some("wan"), true),
        ("lan-mq", Some("lan"), true),
        ("mgmt", None, false),
    ] {
        let mut add = vec!["ip", "tuntap", "add", tap, "mode", "tap"];
        if is_multi_queue {
            add.push("multi_queue");
        }
        // In the namespace itself: QEMU opens the tap there.
        run_in(net, &add)?;
        if let Some(switch) = switch {
            run(&["ip", "-n", net, "link", "set", tap, "master", switch])?;
        }
        run(&["ip", "-n", net, "link", "set", tap, "up"])?;
    }
    add_address(net, MGMT_HOST, 24, "mgmt")
}

/// QEMU by its own loader and libraries: it comes from a newer Debian than the host may be.
fn qemu_argv(image: &Path) -> Vec<String> {
    let usr = format!("{}/qemu/usr", image.display());
    [
        &format!("{usr}/lib64/ld-linux-x86-64.so.2"),
        "--library-path",
        &format!("{usr}/lib/x86_64-linux-gnu"),
        &format!("{usr}/bin/qemu-system-x86_64"),
        "-L",
        &format!("{usr}/share/seabios"),
        "-L",
        &format!("{usr}/share/qemu"),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn argv(image: &Path, programs: &Path, command: &Path, monitor: &Path) -> Vec<String> {
    let image_path = image.display();
    let programs = programs.display();
    let (command, monitor) = (command.display(), monitor.display());
    let mut line = format!(
        "-M q35 -accel tcg,thread=multi -cpu Haswell,-tsc-deadline,-hle,-rtm,-invpcid,-pcid -smp {CPUS} -m 2560 \
         -nodefaults -no-user-config -display none -serial stdio -no-reboot \
         -monitor unix:{monitor},server=on,wait=off \
         -device intel-iommu,intremap=on \
         -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
         -chardev socket,id=command,path={command},server=on,wait=off \
         -device virtio-serial-pci -device virtserialport,chardev=command,name=command \
         -netdev tap,id=mgmt,ifname=mgmt,script=no,downscript=no \
         -device virtio-net-pci,netdev=mgmt,mac={MGMT_MAC},disable-legacy=on"
    );
    for (slot, tap, mac) in [(1, "wan", IGB_MACS[0]), (2, "lan", IGB_MACS[1])] {
        line.push_str(&format!(
            " -device pcie-root-port,id=port{slot},chassis={slot},slot={slot} \
             -netdev tap,id={tap},ifname={tap}0,script=no,downscript=no \
             -device igb,id=pf-{tap},bus=port{slot},netdev={tap},mac={mac}"
        ));
    }
    // Functions 1 and 2 are VFs of function 0, which leads nowhere.
    let virtio = "disable-legacy=on,iommu_platform=on,vectors=10,mq=on,rss=on,hash=on";
    line.push_str(
        " -device pcie-root-port,id=port3,chassis=3,slot=3 -netdev hubport,id=nowhere,hubid=0",
    );
    for (function, tap, mac) in [(1, "wan", VIRTIO_MACS[0]), (2, "lan", VIRTIO_MACS[1])] {
        line.push_str(&format!(
            " -netdev tap,id={tap}-mq,ifname={tap}-mq,queues=4,script=no,downscript=no,vhost=off \
             -device virtio-net-pci,id=vf-{tap},bus=port3,addr=0x0.{function:#x},netdev={tap}-mq,\
             mac={mac},sriov-pf=pf-virtio,{virtio}"
        ));
    }
    line.push_str(&format!(
        " -device virtio-net-pci,id=pf-virtio,bus=port3,addr=0x0.0x0,netdev=nowhere,\
         mac={VIRTIO_PF_MAC},{virtio}"
    ));
    let kernel_args = format!(
        "console=ttyS0 panic=-1 quiet intel_iommu=on iommu=pt hugepages=512 mitigations=off nopti \
         nokaslr audit=0 apparmor=0 net.ifnames=0 sluice.image={image_path} \
         sluice.programs={programs}"
    );
    let mut argv = qemu_argv(image);
    argv.extend(line.split_whitespace().map(str::to_owned));
    argv.extend(["-kernel".to_owned(), format!("{image_path}/vmlinuz")]);
    argv.extend(["-initrd".to_owned(), format!("{image_path}/initrd.gz")]);
    argv.extend(["-append".to_owned(), kernel_args]);
    argv
}
