//! Step 4: control is killed under load; forwarding goes on, and on its return nothing jumps.

use std::thread::sleep;
use std::time::Duration;

use sluice_api::stats::Stats;

use crate::lab::Lab;
use crate::lab::capture::ArpCapture;
use crate::lab::error::Result;
use crate::lab::topology::{POOL_FIRST, VIP_ECHO, VIP_WEB, VIP_WEB_DR};
use crate::story::all_services::AllServices;
use crate::story::report::Step;

/// Run the step.
pub fn run(lab: &mut Lab, step: &mut Step) -> Result<()> {
    let dead_for = Duration::from_secs(if step.quick { 4 } else { 10 });
    let desired = lab.desired_services()?;
    step.say("200 requests/s to each of web, web-dr and echo …");
    let loads = AllServices::start(lab, 200, 2_000)?;
    sleep(Duration::from_secs(1));
    let before = lab.stats()?;

    step.say(format!("killing sluice-control with SIGKILL, for {dead_for:?}"));
    if let Some(control) = &mut lab.control {
        control.kill();
    }
    // Whatever was under way before is not meant: only what its return brings about.
    let arp = ArpCapture::start(lab.site())?;
    sleep(dead_for);
    step.say("starting sluice-control again");
    lab.start_control()?;
    step.say("sluice-control is READY");
    // Long enough for whatever it does on return to show.
    sleep(Duration::from_secs(3));
    lab.wait_healthy(Duration::from_secs(10))?;
    let after = lab.stats()?;
    let outcomes = loads.stop()?;

    for (service, outcome) in &outcomes {
        step.expect_none_failed(service, outcome);
    }
    step.expect(
        after.boot_id == before.boot_id && after.generation >= before.generation,
        format!(
            "the data plane ran on: same start, generation {} then {}",
            before.generation, after.generation
        ),
    );
    let (created_before, created_after) = (conns_created(&before), conns_created(&after));
    step.figure("conns_created_before", created_before);
    step.figure("conns_created_after", created_after);
    step.expect(
        counters_went_on(&before, &after),
        format!("all counters went on: {created_before} conns made before, {created_after} after"),
    );
    step.expect(lab.desired_services()? == desired, "services are as they were, API-made ones too");
    let announced: Vec<String> = [VIP_WEB, VIP_WEB_DR, VIP_ECHO, POOL_FIRST]
        .into_iter()
        .flat_map(|address| arp.gratuitous(address))
        .collect();
    arp.stop()?;
    step.figure("gratuitous_arp_packets", announced.len());
    step.expect(
        announced.is_empty(),
        format!("{} gratuitous ARP packets for what was announced already", announced.len()),
    );
    Ok(())
}

fn conns_created(stats: &Stats) -> u64 {
    stats.services.iter().map(|service| service.traffic.conns_created).sum()
}

/// No service lost count, and each counted on.
fn counters_went_on(before: &Stats, after: &Stats) -> bool {
    before.services.iter().all(|old| {
        after.services.iter().any(|new| {
            new.name == old.name
                && new.traffic.packets_in > old.traffic.packets_in
                && new.traffic.conns_created > old.traffic.conns_created
                && new.traffic.packets_out >= old.traffic.packets_out
        })
    })
}
