//! The data plane under the capabilities that its systemd unit leaves it: it starts, tells its
//! supervisor, gives up what it does not need, and takes its taps away at the end. Needs root.

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

const DATAPLANE: &str = r#"
[runtime]
worker_cpus = [0, 1]
hugepages = false
memory_mb = 256
file_prefix = "sluice-privileges"
[control]
socket = "DIR/dataplane.sock"
[limits]
connections = 2048
[[port]]
name = "prv"
device = "net_tap0,iface=sl-prv0"
addresses = ["10.92.0.1/24"]
"#;

/// What the unit names in CapabilityBoundingSet, as setpriv writes it.
fn bounding_set() -> String {
    let unit =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/debian/sluice.sluice-dataplane.service");
    let unit = fs::read_to_string(unit).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let names = line.split_whitespace().map(|name| format!(",+{}", name.to_lowercase()));
    format!("-all{}", names.collect::<String>().replace("cap_", ""))
}

#[test]
#[ignore = "needs root and the release build; scripts/test runs it"]
fn it_starts_under_its_units_capabilities_and_keeps_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sluice.toml");
    fs::write(&path, DATAPLANE.replace("DIR", dir.path().to_str().unwrap())).unwrap();
    let notify = dir.path().join("notify.sock");
    let supervisor = UnixDatagram::bind(&notify).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let child = Command::new("setpriv")
        .args(["--bounding-set", &bounding_set(), "--inh-caps", "-all", "--no-new-privs"])
        .arg(common::binaries().dataplane)
        .arg("--config")
        .arg(&path)
        .env("NOTIFY_SOCKET", &notify)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 256];
    let mut hear = || {
        let length = supervisor.recv(&mut said).map_err(|error| error.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&said[..length]).trim().to_owned())
    };
    let ready = hear();
    let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().flatten();
    let status: Vec<String> =
        threads.filter_map(|t| fs::read_to_string(t.path().join("status")).ok()).collect();
    let tap = fs::exists("/sys/class/net/sl-prv").unwrap();
    let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(ready.as_deref(), Ok("READY=1"), "{text}{log}");
    assert_eq!(hear().as_deref(), Ok("STOPPING=1"));
    assert!(tap && stopped.success(), "{text}{log}");
    // The main thread, two workers, and DPDK's own.
    assert!(status.len() >= 4, "{} threads", status.len());
    for status in status {
        for set in ["CapPrm:", "CapEff:"] {
            let bits = status.lines().find_map(|line| line.strip_prefix(set)).unwrap().trim();
            // CAP_NET_ADMIN is bit 12.
            assert_eq!(u64::from_str_radix(bits, 16).unwrap(), 1 << 12, "{set}\n{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    assert!(log.contains("capabilities kept: CAP_NET_ADMIN (to set its taps"), "{log}");
    assert!(output.status.success() && text.contains("STOPPED"), "{text}{log}");
    assert!(!log.contains("not permitted") && !log.contains("denied"), "{log}");
    for interface in ["sl-prv", "sl-prv0"] {
        assert!(!fs::exists(format!("/sys/class/net/{interface}")).unwrap(), "{interface} stayed");
    }
}
