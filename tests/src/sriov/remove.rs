//! Steps: a VF is taken away while requests run over it. The kernel waits until Sluice lets it go.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Host;
use super::nics::Pair;
use super::sluice::{dataplane_log, wait_dataplane};
use crate::lab::error::Result;
use crate::lab::load::Kind;
use crate::story::report::{Step, round};

/// How long the data plane may hold a VF that is to go.
const GONE: Duration = Duration::from_secs(20);

/// A virtio-net VF is unbound from vfio-pci.
pub fn virtio(host: &mut Host, step: &mut Step) -> Result<()> {
    let pair = host.nics.virtio.clone();
    let address = &pair.lan;
    let take = format!("echo {address} >/sys/bus/pci/devices/{address}/driver/unbind");
    run(host, step, &pair, "lan", address, &take)
}

/// All VFs of an igb PF are removed.
pub fn igb(host: &mut Host, step: &mut Step) -> Result<()> {
    let pair = host.nics.igb.clone();
    let take = format!("echo 0 >/sys/bus/pci/devices/{}/sriov_numvfs", host.nics.igb_pfs[0]);
    run(host, step, &pair, "wan", &pair.wan, &take)
}

fn run(
    host: &mut Host,
    step: &mut Step,
    pair: &Pair,
    port: &str,
    address: &str,
    take: &str,
) -> Result<()> {
    host.open_services(step, pair, &[1, 2])?;
    let mut spec = host.lab.load_spec("web", Kind::Page);
    (spec.rate, spec.concurrency, spec.timeout_ms) = (Some(50), 500, 1_000);
    let load = host.lab.start_load(&spec)?;
    sleep(Duration::from_secs(2));
    step.say(format!("# {take}"));
    let start = Instant::now();
    host.machine.guest.expect(&format!("({take}; echo $? >/run/taken) >/dev/null 2>&1 &"))?;
    let code = wait_dataplane(&mut host.machine.guest, GONE)?;
    let seconds = round(start.elapsed().as_secs_f64(), 1);
    drop(load);
    let log = dataplane_log(&mut host.machine.guest)?;
    let error = log.lines().find(|line| line.contains("taken away")).unwrap_or(&log);
    step.figure("exit_code", code);
    step.figure("seconds_until_exit", seconds);
    step.expect(
        code == 1 && error.contains(&format!("port {port}")) && error.contains(address),
        format!("the data plane ended after {seconds} s with exit code {code}: {error}"),
    );
    step.expect(
        log.contains("STOPPED") && !log.contains("panicked"),
        "it stopped in order, with its ports and workers",
    );
    let taken = host.machine.guest.expect(
        "for i in $(seq 100); do [ -s /run/taken ] && break; sleep .1; done; cat /run/taken; rm -f /run/taken",
    )?;
    step.expect(taken.trim() == "0", format!("then the kernel has the device: {}", taken.trim()));
    Ok(())
}
