//! An MTU that a start takes is one that works: real frames of that size through the real process, with
//! exception ports. Needs root.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sluice_tests::lab::command::{run, run_in};
use tempfile::TempDir;

/// A data plane with one port on a veth pair, and a peer in another namespace.
struct Wire {
    name: String,
    dir: TempDir,
    process: Option<Child>,
}

impl Wire {
    fn start(name: &str, device: &str, mtu: u16) -> Self {
        let mut wire =
            Wire { name: format!("sluice-{name}"), dir: TempDir::new().unwrap(), process: None };
        let (lb, peer) = (wire.netns("lb"), wire.netns("peer"));
        wire.remove();
        for netns in [&lb, &peer] {
            run(&["ip", "netns", "add", netns]).unwrap();
            run_in(netns, &["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]).unwrap();
            run_in(netns, &["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"]).unwrap();
        }
        let one = "numtxqueues 1 numrxqueues 1";
        let add = format!(
            "ip -n {lb} link add l0 mtu {mtu} {one} type veth peer name p0 mtu {mtu} netns {peer} {one}"
        );
        run(&add.split(' ').collect::<Vec<_>>()).unwrap();
        for (netns, link) in [(&lb, "l0"), (&peer, "p0")] {
            let off =
                ["ethtool", "-K", link, "tx", "off", "gso", "off", "tso", "off", "gro", "off"];
            run_in(netns, &off).unwrap();
            run(&["ip", "-n", netns, "link", "set", link, "up"]).unwrap();
        }
        run(&["ip", "-n", &peer, "addr", "add", "10.95.0.2/24", "dev", "p0"]).unwrap();
        let socket = wire.file("dataplane.sock");
        let text = format!(
            "[runtime]\nmain_cpu = 0\nworker_cpus = [1]\nhugepages = false\nmemory_mb = 256\n\
             file_prefix = \"{}\"\neal_args = [\"--no-pci\"]\n\
             [control]\nsocket = {socket:?}\n[limits]\nconnections = 2048\n\
             [[port]]\nname = \"one\"\ndevice = \"{device}\"\naddresses = [\"10.95.0.1/24\"]\n\
             mtu = {mtu}\n",
            wire.name
        );
        fs::write(wire.file("dataplane.toml"), text).unwrap();
        let log = fs::File::create(wire.file("log")).unwrap();
        let process = Command::new("ip")
            .args(["netns", "exec", &lb])
            .arg(common::binaries().dataplane)
            .arg("--config")
            .arg(wire.file("dataplane.toml"))
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        wire.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !wire.said().lines().any(|line| line == "READY") {
            let ended = wire.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{}", wire.said());
            sleep(Duration::from_millis(20));
        }
        wire
    }

    fn netns(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Ping the port's address, which a worker answers, with IP packets of so many bytes.
    fn ping(&self, ip_bytes: u16) -> Result<String, String> {
        let payload = (ip_bytes - 28).to_string();
        let argv = ["ping", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", &payload];
        let argv = [&argv[..], &["10.95.0.1"]].concat();
        run_in(&self.netns("peer"), &argv).map_err(|error| error.to_string())
    }

    fn remove(&self) {
        for role in ["lb", "peer"] {
            // What is not there is no error.
            let _ = run(&["ip", "netns", "del", &self.netns(role)]);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = run(&["kill", "-TERM", &process.id().to_string()]);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        self.remove();
    }
}

/// The largest MTU of an AF_XDP port, as `--check` tells.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn af_xdp_receives_what_its_mtu_says() {
    let wire = Wire::start("jumbo-xdp", "net_af_xdp0,iface=l0", 3_434);
    for bytes in [1_500, 2_802, 2_803, 3_000, 3_434] {
        wire.ping(bytes).unwrap_or_else(|error| panic!("{bytes}: {error}\n{}", wire.said()));
    }
}

/// The host's own packets are of 1,500 bytes; larger ones for it are dropped and hold up nothing.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn an_mtu_of_9000_works_with_exception_ports() {
    let wire = Wire::start("jumbo-pcap", "net_pcap0,iface=l0", 9_000);
    let (lb, peer) = (wire.netns("lb"), wire.netns("peer"));
    for bytes in [1_500, 1_505, 4_096, 8_999, 9_000] {
        wire.ping(bytes).unwrap_or_else(|error| panic!("{bytes}: {error}\n{}", wire.said()));
    }
    let link = run(&["ip", "-n", &lb, "link", "show", "dev", "sl-one"]).unwrap();
    assert!(link.contains("mtu 1500"), "{link}");
    // A flood of what the kernel's side cannot take, then the host asks and is answered.
    let send = "for n in $(seq 200); do head -c 4000 /dev/zero > /dev/udp/10.95.0.1/9; done";
    run_in(&peer, &["bash", "-c", send]).unwrap();
    run_in(&lb, &["ping", "-c", "2", "-i", "0.2", "-W", "1", "10.95.0.2"]).unwrap();
    let send = "head -c 1400 /dev/zero > /dev/udp/10.95.0.1/9";
    run_in(&peer, &["bash", "-c", send]).unwrap();
    sleep(Duration::from_millis(200));
    run(&["kill", "-TERM", &wire.process.as_ref().unwrap().id().to_string()]).unwrap();
    sleep(Duration::from_secs(1));
    let said = wire.said();
    assert!(said.contains("mtu_exceeded 200"), "{said}");
}
