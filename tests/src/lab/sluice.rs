//! Sluice itself in the lab: its two configuration files, its two processes, its API.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{LabError, Result};
use super::process::Process;
use super::servers::ECHO_PORT;
use super::site::Site;
use super::topology::{
    BACKENDS, LB_LAN, LB_WAN, POOL_FIRST, VIP_ECHO, VIP_WEB, VIP_WEB_DR, Wire, backend_address,
};

/// How long the data plane may take to be ready.
pub const DATAPLANE_READY: Duration = Duration::from_secs(30);
/// How long control may take to be ready.
pub const CONTROL_READY: Duration = Duration::from_secs(10);

/// Weights of the backends of `web`, scheduled by Maglev.
pub const WEB_WEIGHTS: [u16; BACKENDS as usize] = [200, 100, 100];
/// Weights of the backends of `web-dr`, scheduled by weighted round robin.
pub const WEB_DR_WEIGHTS: [u16; BACKENDS as usize] = [5, 3, 2];
/// Weights of the backends of `echo`, scheduled by Maglev.
pub const ECHO_WEIGHTS: [u16; BACKENDS as usize] = [100, 100, 200];

/// Where the three programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `sluice-dataplane`.
    pub dataplane: PathBuf,
    /// `sluice-control`.
    pub control: PathBuf,
    /// `sluice`, the CLI.
    pub cli: PathBuf,
}

impl Binaries {
    /// The programs in `SLUICE_BIN_DIR`, or else in `default_dir`.
    pub fn in_dir(default_dir: &Path) -> Self {
        let dir = std::env::var_os("SLUICE_BIN_DIR").map_or(default_dir.to_owned(), PathBuf::from);
        Binaries {
            dataplane: dir.join("sluice-dataplane"),
            control: dir.join("sluice-control"),
            cli: dir.join("sluice"),
        }
    }

    /// An error that names the first program that is not there.
    pub fn check(&self) -> Result<()> {
        for path in [&self.dataplane, &self.control, &self.cli] {
            if !path.is_file() {
                return Err(LabError::Missing(format!(
                    "{} is not there: build it with `cargo build --release`, or name its \
                     directory in SLUICE_BIN_DIR",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// Start the data plane in the namespace `lb` and wait until it is READY. Taps must be plugged in
/// after that.
pub fn start_dataplane(site: &Site, binaries: &Binaries) -> Result<Process> {
    let mut process = spawn(site, "dataplane", &binaries.dataplane)?;
    process.wait_ready(DATAPLANE_READY)?;
    Ok(process)
}

/// Start control in the namespace `lb` and wait until it is READY.
pub fn start_control(site: &Site, binaries: &Binaries) -> Result<Process> {
    let mut process = spawn(site, "control", &binaries.control)?;
    process.wait_ready(CONTROL_READY)?;
    Ok(process)
}

/// End a process of Sluice with SIGTERM; it must end in time and with exit code 0.
pub fn stop(process: &mut Process) -> Result<ExitStatus> {
    process.terminate(Duration::from_secs(10))
}

fn spawn(site: &Site, name: &str, program: &Path) -> Result<Process> {
    let config = site.file(&format!("{name}.toml")).display().to_string();
    let program = program.display().to_string();
    Process::spawn(site, &site.netns("lb"), name, &[&program, "--config", &config])
}

/// Write both configuration files; none for a guest, which has them itself.
pub fn write_config(site: &Site, wire: Wire, worker_cpus: &[u16], api: &str) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = site.file(name);
        fs::write(&path, text).map_err(LabError::io(path.display().to_string()))
    };
    let devices = match wire {
        Wire::AfXdp => ["net_af_xdp0,iface=wan0", "net_af_xdp1,iface=lan0"],
        Wire::Tap => ["net_tap0,iface=wan0", "net_tap1,iface=lan0"],
        Wire::Guest => return Ok(()),
    };
    write("dataplane.toml", dataplane_toml(site, devices, worker_cpus))?;
    let (socket, state) = (site.file("dataplane.sock"), site.file("control.state.json"));
    write("control.toml", control_toml(api, &socket, &state))
}

fn dataplane_toml(site: &Site, [wan, lan]: [&str; 2], worker_cpus: &[u16]) -> String {
    let socket = site.file("dataplane.sock");
    let prefix = site.netns("lab");
    // More workers than the machine has CPUs.
    let share_cpus = (1..worker_cpus.len()).any(|n| worker_cpus[..n].contains(&worker_cpus[n]));
    format!(
        r#"[runtime]
main_cpu = 0
worker_cpus = {worker_cpus:?}
share_cpus = {share_cpus}
idle = "adaptive"
hugepages = false
memory_mb = 512
file_prefix = "{prefix}"
eal_args = ["--no-pci"]

[control]
socket = {socket:?}

[limits]
connections = 200_000

[[port]]
name = "wan"
device = "{wan}"
addresses = ["{LB_WAN}/24"]

[[port]]
name = "lan"
device = "{lan}"
addresses = ["{LB_LAN}/24"]
"#
    )
}

/// Control's file: where its API listens, where it finds the data plane, where it keeps its state; the
/// services `web` and `web-dr`.
pub fn control_toml(api: &str, socket: &Path, state: &Path) -> String {
    let pool = POOL_FIRST.octets();
    let pool: Vec<String> =
        (0..4).map(|i| format!("{}.{}.{}.{}", pool[0], pool[1], pool[2], pool[3] + i)).collect();
    format!(
        r#"[control]
api_listen = "{api}"
dataplane_socket = {socket:?}
state_file = {state:?}

[[pool]]
name = "lan"
addresses = {pool:?}

[[service]]
name = "web"
vip = "{VIP_WEB}"
port = 80
protocol = "tcp"
mode = "full-nat"
scheduler = "maglev"
hash_on = "5-tuple"
pool = "lan"
{HEALTH_CHECK}
{web}
[[service]]
name = "web-dr"
vip = "{VIP_WEB_DR}"
port = 80
protocol = "tcp"
mode = "dr"
scheduler = "wrr"
{HEALTH_CHECK}
{web_dr}"#,
        web = backends_toml(WEB_WEIGHTS),
        web_dr = backends_toml(WEB_DR_WEIGHTS),
    )
}

/// The health check of the HTTP services: out after two failures in a row, at most 1.3 s.
const HEALTH_CHECK: &str = r#"
[service.health_check]
kind = "http"
path = "/health"
interval_ms = 500
timeout_ms = 300
fall = 2
rise = 2
"#;

fn backends_toml(weights: [u16; BACKENDS as usize]) -> String {
    (1..=BACKENDS)
        .zip(weights)
        .map(|(number, weight)| {
            let address = backend_address(number);
            format!(
                "[[service.backend]]\naddress = \"{address}\"\nport = 80\nweight = {weight}\n\n"
            )
        })
        .collect()
}

/// The service `echo`, as it is made over the API.
pub fn echo_service() -> Value {
    let backends: Vec<Value> = (1..=BACKENDS)
        .zip(ECHO_WEIGHTS)
        .map(|(number, weight)| {
            json!({"address": backend_address(number), "port": ECHO_PORT, "weight": weight})
        })
        .collect();
    json!({
        "name": "echo", "vip": VIP_ECHO, "port": ECHO_PORT, "protocol": "udp",
        "mode": "full-nat", "scheduler": "maglev", "hash_on": "5-tuple", "pool": "lan",
        "health_check": {
            "kind": "tcp", "interval_ms": 500, "timeout_ms": 300, "rise": 2, "fall": 2,
        },
        "backends": backends,
    })
}
