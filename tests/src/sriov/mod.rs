//! Sluice on SR-IOV virtual functions, without the hardware: a virtual machine whose emulated NICs
//! have VFs is the load balancer's host; clients and servers stand around it in the lab's namespaces.
//! `scripts/test-sriov` runs it. An emulated CPU is slow: what is shown is that it works, not how fast.

mod forward;
mod guest;
mod link;
mod machine;
mod nics;
mod refuse;
mod remove;
mod sluice;

use std::path::{self, Path, PathBuf};
use std::time::{Duration, Instant};

use crate::lab::api::Api;
use crate::lab::error::{LabError, Result};
use crate::lab::sluice::{Binaries, echo_service};
use crate::lab::{Lab, LabOptions};
use crate::story::machine::{machine, versions};
use crate::story::report::{Narrator, Step, StepReport, Summary, round};
use machine::Machine;
use nics::{Nics, Pair};

/// How long backends may take to be healthy: the health checks run in the guest, too.
const HEALTHY: Duration = Duration::from_secs(45);

/// What to run.
#[derive(Clone, Debug)]
pub struct SriovOptions {
    /// What `scripts/test-sriov` has prepared: QEMU, kernel, initramfs.
    pub image: PathBuf,
    /// Print nothing while it goes.
    pub silent: bool,
    /// Only these steps, from 1; all when empty.
    pub only: Vec<u8>,
}

/// The lab around the virtual machine, and what is in it.
#[derive(Debug)]
struct Host {
    lab: Lab,
    machine: Machine,
    nics: Nics,
    has_control: bool,
}

type Run = fn(&mut Host, &mut Step) -> Result<()>;

const STEPS: [(&str, Run); 8] = [
    ("what cannot work is refused, and named", refuse::run),
    ("igb VFs, one worker: full-NAT, DR, UDP", forward::igb_one_worker),
    ("igb VFs: links go down and come up again", link::run),
    ("igb VFs, two workers, without RSS: packets are handed over", forward::igb_two_workers),
    ("virtio-net VFs, two workers: RSS leads to the owner", forward::virtio_two_workers),
    ("virtio-net VFs, four workers: RSS leads to the owner", forward::virtio_four_workers),
    ("a virtio-net VF is taken away", remove::virtio),
    ("an igb VF is taken away", remove::igb),
];

/// Build the lab, boot the machine, run the steps.
///
/// # Errors
/// The lab could not be built or the machine did not boot. What goes wrong later is in the summary.
pub fn run(options: &SriovOptions, lab: LabOptions, binaries: Binaries) -> Result<Summary> {
    let start = Instant::now();
    let narrator = Narrator::new(options.silent);
    let mut host = open(&narrator, options, lab, binaries)?;
    let mut steps = Vec::new();
    for (number, (name, run)) in (1_u8..).zip(STEPS) {
        if options.only.is_empty() || options.only.contains(&number) {
            steps.push(run_step(&narrator, &mut host, number, name, run));
        }
    }
    let mut versions = versions(host.lab.binaries());
    versions
        .insert("guest kernel".to_owned(), host.machine.guest.expect("uname -r")?.trim().into());
    versions.insert("qemu".to_owned(), host.machine.version.clone());
    Ok(Summary {
        passed: !steps.is_empty() && steps.iter().all(|step: &StepReport| step.passed),
        steps,
        versions,
        machine: machine(),
        seconds: round(start.elapsed().as_secs_f64(), 1),
    })
}

fn open(
    narrator: &Narrator,
    options: &SriovOptions,
    lab: LabOptions,
    binaries: Binaries,
) -> Result<Host> {
    narrator.headline("The lab");
    narrator.say("making namespaces, wires, nginx and echo servers");
    let mut lab = Lab::build(lab, binaries)?;
    lab.api = Api::new(lab.site().netns("net"), &sluice::api_listen());
    narrator.say("booting Debian's kernel in QEMU, an emulated CPU");
    // All programs lie in one directory.
    let programs = lab.binaries().dataplane.parent().unwrap_or(Path::new("/"));
    let programs = path::absolute(programs).map_err(LabError::io("the programs"))?;
    let mut machine = Machine::boot(lab.site(), &options.image, &programs)?;
    narrator.say("it has booted; making VFs: PF up, VFs made, MAC addresses set");
    let nics = Nics::make(&mut machine.guest)?;
    narrator.say(format!(
        "igb VFs {} and {}, virtio-net VFs {} and {}",
        nics.igb.wan, nics.igb.lan, nics.virtio.wan, nics.virtio.lan
    ));
    Ok(Host { lab, machine, nics, has_control: false })
}

fn run_step(
    narrator: &Narrator,
    host: &mut Host,
    number: u8,
    name: &'static str,
    run: Run,
) -> StepReport {
    let mut step = Step::begin(narrator, number, name, false);
    if let Err(error) = run(host, &mut step) {
        let log = sluice::dataplane_log(&mut host.machine.guest).unwrap_or_default();
        let console = host.machine.console(10);
        step.expect(false, format!("{error}\nsluice-dataplane said:\n{log}\nconsole:\n{console}"));
    }
    match sluice::stop_dataplane(&mut host.machine.guest) {
        Ok(Some(code)) => step.say(format!("the data plane ended with exit code {code}")),
        Ok(None) => {}
        Err(error) => step.expect(false, error.to_string()),
    }
    step.end()
}

impl Host {
    /// Bind both VFs to vfio-pci, start Sluice on them with these workers, and wait until all backends
    /// are healthy. Control is started once and finds each data plane by itself.
    fn open_services(&mut self, step: &mut Step, pair: &Pair, worker_cpus: &[u16]) -> Result<()> {
        let guest = &mut self.machine.guest;
        nics::bind(guest, &pair.wan, "vfio-pci")?;
        nics::bind(guest, &pair.lan, "vfio-pci")?;
        let toml = sluice::dataplane_toml(pair, worker_cpus);
        let binaries = self.lab.binaries().clone();
        let start = sluice::start_dataplane(guest, &binaries, &toml)?;
        for line in start.log.lines() {
            step.say(format!("  | {line}"));
        }
        if !start.is_ready {
            return Err(LabError::Missing("the data plane did not start".to_owned()));
        }
        for (name, mac) in ["wan", "lan"].into_iter().zip(pair.macs) {
            let line = start.log.lines().find(|line| line.starts_with(&format!("port {name}: ")));
            let line = line.unwrap_or("no line about it");
            step.expect(
                line.contains(&format!("mac {mac}")) && line.contains("link up"),
                format!("port {name} has the MAC address {mac} and its link is up at start"),
            );
        }
        if !self.has_control {
            sluice::start_control(&mut self.machine.guest, &binaries)?;
            self.has_control = true;
        }
        if !self.lab.services()?.iter().any(|service| service["name"] == "echo") {
            self.lab.api.send("POST", "/api/v1/services", &echo_service())?;
        }
        self.lab.wait_healthy(HEALTHY)?;
        step.say("all backends are healthy");
        Ok(())
    }

    /// Show a command of the CLI, run in the guest, and note what it prints.
    fn show(&mut self, step: &mut Step, args: &str) -> Result<()> {
        let binaries = self.lab.binaries().clone();
        let text = sluice::cli(&mut self.machine.guest, &binaries, args)?;
        step.say(format!("$ sluice {args}"));
        text.lines().for_each(|line| step.say(format!("  | {line}")));
        step.figure(format!("sluice {args}"), text.lines().collect::<Vec<_>>());
        Ok(())
    }
}
