//! Step: what cannot work is refused at start, each in its own words. Only a device shows it.

use super::Host;
use super::nics::{Pair, bind};
use super::sluice::{Start, dataplane_toml, start_dataplane, stop_dataplane};
use crate::lab::error::Result;
use crate::story::report::Step;

/// Run the step.
pub fn run(host: &mut Host, step: &mut Step) -> Result<()> {
    let igb = host.nics.igb.clone();
    let spare = host.nics.igb_spare.clone();

    bind(&mut host.machine.guest, &igb.lan, "vfio-pci")?;
    expect(
        host,
        step,
        "a VF that no driver has",
        &igb,
        &[1],
        &["port wan", &igb.wan, "no driver has the device", "vfio-pci"],
    )?;
    host.machine.guest.expect("modprobe igbvf")?;
    bind(&mut host.machine.guest, &igb.wan, "igbvf")?;
    expect(
        host,
        step,
        "a VF that the kernel has",
        &igb,
        &[1],
        &[
            "port wan",
            &igb.wan,
            "the kernel's driver igbvf has the device (interface eth",
            "vfio-pci",
        ],
    )?;
    bind(&mut host.machine.guest, &igb.wan, "vfio-pci")?;
    expect(
        host,
        step,
        "more workers than queues",
        &igb,
        &[0, 1, 2, 3],
        &["port wan", &igb.wan, "queues = 4: expected 1 to 2", "net_e1000_igb_vf"],
    )?;
    bind(&mut host.machine.guest, &host.nics.virtio.wan.clone(), "vfio-pci")?;
    let absent = Pair { wan: "0000:01:1f.7".to_owned(), ..igb.clone() };
    expect(
        host,
        step,
        "a VF that is not there",
        &absent,
        &[1],
        &["port[wan].device is \"0000:01:1f.7\"", "a PCI device of this host"],
    )?;

    bind(&mut host.machine.guest, &spare, "vfio-pci")?;
    let nameless = Pair { wan: spare, ..igb.clone() };
    let start = start(host, &nameless, &[1])?;
    step.expect(
        start.is_ready && start.log.contains("its PF has given it no MAC address"),
        format!("a VF without a MAC address: {}", warnings(&start)),
    );

    host.machine.set_link("pf-wan", false)?;
    let start = self::start(host, &igb, &[1])?;
    step.expect(
        start.is_ready && start.log.contains("port wan: its link is down"),
        format!("a VF without a link: {}", warnings(&start)),
    );
    host.machine.set_link("pf-wan", true)?;
    Ok(())
}

/// Start the data plane, end it if it runs.
fn start(host: &mut Host, pair: &Pair, worker_cpus: &[u16]) -> Result<Start> {
    let binaries = host.lab.binaries().clone();
    let guest = &mut host.machine.guest;
    let start = start_dataplane(guest, &binaries, &dataplane_toml(pair, worker_cpus))?;
    stop_dataplane(guest)?;
    Ok(start)
}

/// The data plane does not start and says all of these words.
fn expect(
    host: &mut Host,
    step: &mut Step,
    what: &str,
    pair: &Pair,
    worker_cpus: &[u16],
    words: &[&str],
) -> Result<()> {
    let start = start(host, pair, worker_cpus)?;
    let error = start.log.lines().last().unwrap_or_default();
    let missing: Vec<&&str> = words.iter().filter(|word| !error.contains(**word)).collect();
    step.expect(
        !start.is_ready && missing.is_empty(),
        if missing.is_empty() {
            format!("{what}: {error}")
        } else {
            format!("{what}: expected {missing:?} in:\n{}", start.log)
        },
    );
    Ok(())
}

/// What a start has warned of.
fn warnings(start: &Start) -> String {
    let lines: Vec<&str> = start.log.lines().filter(|line| line.contains("WARN")).collect();
    if lines.is_empty() { format!("no warning in:\n{}", start.log) } else { lines.join("\n") }
}
