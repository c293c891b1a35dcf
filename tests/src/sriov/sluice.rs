//! Sluice in the guest: its configuration, its two processes.

use std::path::Path;
use std::time::Duration;

use super::guest::Guest;
use super::machine::{MGMT_GUEST, MGMT_MAC};
use super::nics::{Pair, interface};
use crate::lab::error::{LabError, Result};
use crate::lab::sluice::{Binaries, control_toml};
use crate::lab::topology::{LB_LAN, LB_WAN};

/// How long the data plane may take to start or to end: an emulated CPU is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the guest has Sluice's files.
const DIR: &str = "/run/sluice";

/// Where control's API listens.
pub fn api_listen() -> String {
    format!("{MGMT_GUEST}:9600")
}

/// How the data plane's start went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Whether it was READY.
    pub is_ready: bool,
    /// All that it printed.
    pub log: String,
}

/// The data plane's file for two VFs.
pub fn dataplane_toml(pair: &Pair, worker_cpus: &[u16]) -> String {
    let Pair { wan, lan, .. } = pair;
    format!(
        r#"[runtime]
main_cpu = 0
worker_cpus = {worker_cpus:?}
idle = "adaptive"
memory_mb = 512

[control]
socket = "{DIR}/dataplane.sock"

[limits]
connections = 100_000

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

/// Start the data plane with a file; it is READY or has ended when this returns.
///
/// # Errors
/// The guest does not answer, or the data plane is neither ready nor gone in time.
pub fn start_dataplane(guest: &mut Guest, binaries: &Binaries, toml: &str) -> Result<Start> {
    guest.expect(&format!("mkdir -p {DIR}; rm -f {DIR}/dataplane.*"))?;
    guest.write_file(&format!("{DIR}/dataplane.toml"), toml)?;
    let program = binaries.dataplane.display();
    let script = format!(
        "setsid bash -c '\"{program}\" --config {DIR}/dataplane.toml >{DIR}/dataplane.log 2>&1 & \
         echo $! >{DIR}/dataplane.pid; wait $!; echo $? >{DIR}/dataplane.code' >/dev/null 2>&1 &\n\
         until grep -q ^READY {DIR}/dataplane.log 2>/dev/null; do\n\
         [ ! -e {DIR}/dataplane.code ] || exit 1; sleep .1; done"
    );
    let output = guest.run(&script, PATIENCE)?;
    let log = dataplane_log(guest)?;
    match output.code {
        0 => Ok(Start { is_ready: true, log }),
        1 => Ok(Start { is_ready: false, log }),
        code => Err(LabError::Command {
            command: "sluice-dataplane in the guest".to_owned(),
            reason: format!("neither READY nor gone after {PATIENCE:?} ({code}); it said:\n{log}"),
        }),
    }
}

/// What the data plane has printed.
///
/// # Errors
/// The guest does not answer.
pub fn dataplane_log(guest: &mut Guest) -> Result<String> {
    guest.expect(&format!("cat {DIR}/dataplane.log"))
}

/// Wait until the data plane has ended by itself; its exit code.
///
/// # Errors
/// It has not `within` this time.
pub fn wait_dataplane(guest: &mut Guest, within: Duration) -> Result<i32> {
    let script =
        format!("until [ -s {DIR}/dataplane.code ]; do sleep .1; done; cat {DIR}/dataplane.code");
    let output = guest.run(&script, within)?;
    output.text.trim().parse().map_err(|_| LabError::Timeout {
        what: format!(
            "sluice-dataplane ended; it said:\n{}",
            dataplane_log(guest).unwrap_or_default()
        ),
        within,
    })
}

/// End the data plane with SIGTERM, if it runs; its exit code.
///
/// # Errors
/// It does not end.
pub fn stop_dataplane(guest: &mut Guest) -> Result<Option<i32>> {
    let script = format!(
        "[ -s {DIR}/dataplane.pid ] || exit 1\n\
         [ -s {DIR}/dataplane.code ] || kill -TERM $(cat {DIR}/dataplane.pid)"
    );
    if guest.run(&script, PATIENCE)?.code != 0 {
        return Ok(None);
    }
    wait_dataplane(guest, PATIENCE).map(Some)
}

/// Configure the interface for the API and start control, which stays until the guest ends.
///
/// # Errors
/// It is not READY in time.
pub fn start_control(guest: &mut Guest, binaries: &Binaries) -> Result<()> {
    let mgmt = interface(guest, MGMT_MAC)?;
    guest.expect(&format!(
        "mkdir -p {DIR}; ip link set lo up; ip addr add {MGMT_GUEST}/24 dev {mgmt} && ip link set {mgmt} up"
    ))?;
    let (socket, state) = (format!("{DIR}/dataplane.sock"), format!("{DIR}/state.json"));
    let toml = control_toml(&api_listen(), Path::new(&socket), Path::new(&state));
    guest.write_file(&format!("{DIR}/control.toml"), &toml)?;
    let program = binaries.control.display();
    let script = format!(
        "setsid \"{program}\" --config {DIR}/control.toml >{DIR}/control.log 2>&1 </dev/null &\n\
         for i in $(seq 300); do grep -q ^READY {DIR}/control.log 2>/dev/null && exit 0; sleep .1; \
         done; cat {DIR}/control.log; exit 1"
    );
    let output = guest.run(&script, PATIENCE)?;
    if output.code == 0 {
        return Ok(());
    }
    let command = "sluice-control in the guest".to_owned();
    Err(LabError::Command { command, reason: format!("it is not READY:\n{}", output.text) })
}

/// What a command of the CLI prints.
///
/// # Errors
/// It fails.
pub fn cli(guest: &mut Guest, binaries: &Binaries, args: &str) -> Result<String> {
    guest.expect(&format!("\"{}\" --api http://{} {args}", binaries.cli.display(), api_listen()))
}
