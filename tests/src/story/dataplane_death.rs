//! Step 5: the data plane is killed and started again; nobody touches control.

use std::thread::sleep;
use std::time::Duration;

use crate::helper::record::{Record, now_us};
use crate::lab::Lab;
use crate::lab::capture::ArpCapture;
use crate::lab::error::Result;
use crate::lab::load::Outcome;
use crate::lab::topology::{VIP_ECHO, VIP_WEB, VIP_WEB_DR};
use crate::story::all_services::AllServices;
use crate::story::report::Step;

/// Service must be back this long after READY.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// Run the step.
pub fn run(lab: &mut Lab, step: &mut Step) -> Result<()> {
    step.say("100 requests/s to each of web, web-dr and echo …");
    let loads = AllServices::start(lab, 100, 1_000)?;
    let arp = ArpCapture::start(lab.site())?;
    sleep(Duration::from_secs(1));
    let killed = now_us();
    step.say("killing sluice-dataplane with SIGKILL");
    if let Some(dataplane) = &mut lab.dataplane {
        dataplane.kill();
    }
    sleep(Duration::from_secs(1));
    step.say("starting sluice-dataplane again");
    let started = now_us();
    lab.start_dataplane()?;
    let ready = now_us();
    step.say(format!("sluice-dataplane is READY after {} ms", (ready - started) / 1_000));
    step.figure("ready_after_ms", (ready - started) / 1_000);
    sleep(BACK_WITHIN + Duration::from_secs(3));
    let announced = [VIP_WEB, VIP_WEB_DR, VIP_ECHO].map(|address| arp.gratuitous(address).len());
    arp.stop()?;
    for (service, outcome) in loads.stop()? {
        judge(step, service, &outcome, killed, ready);
    }
    step.figure("gratuitous_arp_packets_per_vip", announced);
    step.expect(
        announced.iter().all(|packets| *packets > 0),
        format!("every VIP was announced again: {announced:?} gratuitous ARP packets"),
    );
    lab.wait_healthy(Duration::from_secs(10))
}

/// Before the death nothing fails; from some moment within [`BACK_WITHIN`] of READY on nothing
/// fails any more.
fn judge(step: &mut Step, service: &str, outcome: &Outcome, killed: u64, ready: u64) {
    // A request that was under way when the data plane died began up to its timeout before.
    let early = outcome.failed().iter().filter(|r| r.start_us + 1_000_000 < killed).count();
    let last_failed =
        outcome.failed().iter().map(|r| r.start_us).filter(|start| *start >= ready).max();
    let good_from = last_failed.unwrap_or(ready);
    let first_good =
        outcome.done().filter(|r| r.ok() && r.start_us > good_from).map(|r| r.start_us).min();
    let failed = outcome.failed().len();
    step.figure(format!("{service}_requests"), outcome.total());
    step.figure(format!("{service}_failed_during_the_outage"), failed);
    let Some(first_good) = first_good else {
        let after: Vec<&Record> = outcome.done().filter(|r| r.start_us >= ready).collect();
        let bad = after.iter().filter(|r| !r.ok()).count();
        let claim = format!(
            "{service}: it fails to the end: {bad} of {} requests after READY; {:?}",
            after.len(),
            outcome.errors()
        );
        step.expect(false, claim);
        return;
    };
    let back_ms = first_good.saturating_sub(ready) / 1_000;
    let good = outcome.done().filter(|r| r.ok() && r.start_us >= first_good).count();
    step.figure(format!("{service}_back_after_ms"), back_ms);
    step.expect(
        early == 0 && u128::from(back_ms) <= BACK_WITHIN.as_millis(),
        format!(
            "{service}: back {back_ms} ms after READY, {good} requests in a row were good from \
             then on; {failed} of {} failed during the outage, {early} before",
            outcome.total()
        ),
    );
}
