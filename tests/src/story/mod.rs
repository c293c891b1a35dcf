//! The story: what a newcomer watches, and the end-to-end test of everything together. Six steps
//! over one lab, each with figures and with claims that must hold.

mod all_services;
mod backend_death;
mod control_death;
mod dataplane_death;
mod drain;
pub mod machine;
pub mod report;
mod serve;
mod shares;
mod throughput;

use std::time::{Duration, Instant};

use crate::lab::error::Result;
use crate::lab::sluice::{self, Binaries};
use crate::lab::{Lab, LabOptions};
use report::{Narrator, Step, StepReport, Summary, round};

type Run = fn(&mut Lab, &mut Step) -> Result<()>;

const STEPS: [(&str, Run); 6] = [
    ("every request is answered, by the right backend, on the right way", serve::run),
    ("a backend dies under load and comes back by itself", backend_death::run),
    ("a backend is drained: downloads finish, new requests go elsewhere", drain::run),
    ("control dies under load, and nobody notices", control_death::run),
    ("the data plane dies and is back at once", dataplane_death::run),
    ("requests per second, beside a plain wire", throughput::run),
];

/// How the story is told.
#[derive(Clone, Debug, Default)]
pub struct StoryOptions {
    /// Print nothing while it goes.
    pub silent: bool,
    /// Fewer requests, shorter measurements.
    pub quick: bool,
    /// Only these steps, from 1; all when empty.
    pub only: Vec<u8>,
}

/// Build the lab, play the steps. The lab is given back as well, for whoever wants to keep it.
///
/// # Errors
/// The lab could not be built or Sluice did not start. What goes wrong later is in the summary.
pub fn play(
    options: &StoryOptions,
    lab_options: LabOptions,
    binaries: Binaries,
) -> Result<(Summary, Lab)> {
    let start = Instant::now();
    let narrator = Narrator::new(options.silent);
    let mut lab = open(&narrator, lab_options, binaries)?;
    let mut steps = Vec::new();
    for (number, (name, run)) in (1_u8..).zip(STEPS) {
        if options.only.is_empty() || options.only.contains(&number) {
            steps.push(play_step(&narrator, &mut lab, number, name, run, options.quick));
        }
    }
    let summary = Summary {
        passed: !steps.is_empty() && steps.iter().all(|step: &StepReport| step.passed),
        steps,
        versions: machine::versions(lab.binaries()),
        machine: machine::machine(),
        seconds: round(start.elapsed().as_secs_f64(), 1),
    };
    Ok((summary, lab))
}

fn play_step(
    narrator: &Narrator,
    lab: &mut Lab,
    number: u8,
    name: &'static str,
    run: Run,
    quick: bool,
) -> StepReport {
    let mut step = Step::begin(narrator, number, name, quick);
    if let Err(error) = run(lab, &mut step) {
        step.expect(false, error.to_string());
    }
    for (what, process) in
        [("sluice-dataplane", &mut lab.dataplane), ("sluice-control", &mut lab.control)]
    {
        if let Some(process) = process
            && !process.is_running()
        {
            let claim = format!("{what} ended by itself; it said:\n{}", process.log_tail(20));
            step.expect(false, claim);
        }
    }
    step.end()
}

/// The lab with Sluice running and all backends healthy.
fn open(narrator: &Narrator, options: LabOptions, binaries: Binaries) -> Result<Lab> {
    narrator.headline("The lab");
    narrator.say("making namespaces, wires, nginx and echo servers");
    let mut lab = Lab::build(options, binaries)?;
    narrator
        .say("starting sluice-dataplane and sluice-control, with web (full-NAT) and web-dr (DR)");
    narrator.say(format!("then POST /api/v1/services {}", sluice::echo_service()));
    lab.open_services(Duration::from_secs(20))?;
    narrator.say("both are READY, all backends are healthy");
    Ok(lab)
}
