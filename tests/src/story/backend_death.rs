//! Step 2: a backend is killed under load, is taken out in time, and comes back by itself.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use crate::helper::record::now_us;
use crate::lab::Lab;
use crate::lab::error::Result;
use crate::lab::load::{Kind, Load, Outcome};
use crate::lab::process::wait_until;
use crate::lab::topology::backend_address;
use crate::story::report::{Step, round};

/// The backend that dies, and its name.
const VICTIM: (u8, &str) = (2, "b2");
/// After this time no new connection may go to it: interval 500 ms, fall 2.
const TAKEN_OUT_AFTER: Duration = Duration::from_millis(1_500);
/// Requests per second to each service.
const RATE: u32 = 200;

/// Run the step.
pub fn run(lab: &mut Lab, step: &mut Step) -> Result<()> {
    let (number, name) = VICTIM;
    let last_event = lab.last_event()?;
    step.say(format!("{RATE} requests/s to each of web and web-dr …"));
    let loads = [start(lab, "web")?, start(lab, "web-dr")?];
    sleep(Duration::from_secs(2));

    step.say(format!("killing nginx of {name} with SIGKILL"));
    let killed = now_us();
    lab.servers[usize::from(number - 1)].nginx.kill();
    sleep(TAKEN_OUT_AFTER);
    let out = now_us();
    let created = conns_of_victim(lab)?;
    sleep(Duration::from_millis(2_500));
    let created_later = conns_of_victim(lab)?;

    step.say(format!("starting nginx of {name} again"));
    let restarting = now_us();
    lab.restart_nginx(number)?;
    let up = now_us();
    let back = wait_until(&format!("{name} serves again"), Duration::from_secs(10), || {
        Ok(first_served_after(&loads[0], restarting).max(first_served_after(&loads[1], restarting)))
    });
    sleep(Duration::from_secs(1));
    for event in lab.events_since(last_event)? {
        step.say(format!("  event {}: {}", event.kind, event.message));
    }

    let [web, dr] = loads.map(|load| load.stop(Duration::from_secs(10)));
    let times = Times { killed, out };
    judge(step, "web", &web?, &times);
    judge(step, "web-dr", &dr?, &times);
    step.expect(
        created == created_later,
        format!("conns made to {name} from 1.5 s after its death on: {created:?} is unchanged: {created_later:?}"),
    );
    let back_ms = (back?.saturating_sub(up)) / 1_000;
    step.figure("back_after_ms", back_ms);
    step.expect(true, format!("{name} serves both services again {back_ms} ms after its start"));
    lab.wait_healthy(Duration::from_secs(10))
}

struct Times {
    killed: u64,
    out: u64,
}

/// Failures are excused from the death until the backend must be out, never before or after.
fn judge(step: &mut Step, service: &str, outcome: &Outcome, times: &Times) {
    let failed = outcome.failed();
    // A request under way when the backend dies began before.
    let slack_us = 1_000_000;
    let excused = |start: u64| (times.killed.saturating_sub(slack_us)..times.out).contains(&start);
    let unexcused = failed.iter().filter(|record| !excused(record.start_us)).count();
    let last = failed.iter().map(|record| record.start_us).max().unwrap_or(times.killed);
    let last_ms = last.saturating_sub(times.killed) as f64 / 1_000.0;
    step.figure(format!("{service}_requests"), outcome.total());
    step.figure(format!("{service}_failed_before_taken_out"), failed.len() - unexcused);
    step.figure(format!("{service}_failed_after_1500_ms"), unexcused);
    step.figure(format!("{service}_last_failure_after_ms"), round(last_ms, 0));
    let mut claim = format!(
        "{service}: of {} requests, {} failed until the backend was out, the last {last_ms:.0} ms \
         after its death, and {unexcused} at another time",
        outcome.total(),
        failed.len() - unexcused,
    );
    if unexcused > 0 {
        claim.push_str(&format!("; errors: {:?}", outcome.errors()));
    }
    step.expect(unexcused == 0, claim);
    let between = outcome.done().filter(|record| record.ok()).filter(|record| {
        (times.killed..times.out).contains(&record.start_us)
            && record.backend.as_deref() != Some(VICTIM.1)
    });
    let served = between.count();
    step.expect(served > 0, format!("{service}: the others served {served} requests meanwhile"));
}

fn start(lab: &mut Lab, service: &str) -> Result<Load> {
    let mut spec = lab.load_spec(service, Kind::Page);
    (spec.rate, spec.concurrency) = (Some(RATE), 1_000);
    lab.start_load(&spec)
}

/// Start of the first request that began after `time_us` and that the victim served.
fn first_served_after(load: &Load, time_us: u64) -> Option<u64> {
    load.so_far()
        .iter()
        .filter(|record| record.ok() && record.backend.as_deref() == Some(VICTIM.1))
        .map(|record| record.start_us)
        .filter(|start| *start > time_us)
        .min()
}

/// Conns made to the victim so far, per service.
fn conns_of_victim(lab: &Lab) -> Result<BTreeMap<&'static str, u64>> {
    let address = backend_address(VICTIM.0).to_string();
    ["web", "web-dr"]
        .into_iter()
        .map(|service| {
            let created = lab.conns_created(service)?;
            Ok((service, created.get(&address).copied().unwrap_or(0)))
        })
        .collect()
}
