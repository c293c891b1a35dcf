//! Step: links go down and come up again while requests run: the cable of a PF, and the PF itself.

use std::thread::sleep;
use std::time::Duration;

use super::Host;
use super::sluice::cli;
use crate::lab::error::Result;
use crate::lab::load::{Kind, Load};
use crate::lab::process::wait_until;
use crate::story::report::Step;

/// Downloads that are under way when a link goes down; each takes six seconds.
const DOWNLOADS: u64 = 4;
/// How long a link stays down.
const DOWN: Duration = Duration::from_secs(4);
/// How long it may take to be noticed: a VF may be silent for 2 s first.
const NOTICED: Duration = Duration::from_secs(15);

/// Run the step.
pub fn run(host: &mut Host, step: &mut Step) -> Result<()> {
    let pair = host.nics.igb.clone();
    host.open_services(step, &pair, &[1])?;
    // Its VF is well afterwards: nothing is set up anew while it receives.
    cycle(host, step, "the cable of the PF towards clients", true, |host, up| {
        host.machine.set_link("pf-wan", up)
    })?;
    let interface = host.nics.igb_interfaces[1].clone();
    // The emulated VF has a link again a moment later, although its PF is down.
    cycle(host, step, "the PF towards backends (ip link set … down)", false, |host, up| {
        let state = if up { "up" } else { "down" };
        host.machine.guest.expect(&format!("ip link set {interface} {state}")).map(drop)
    })
}

fn cycle(
    host: &mut Host,
    step: &mut Step,
    what: &str,
    link_shows: bool,
    mut set: impl FnMut(&mut Host, bool) -> Result<()>,
) -> Result<()> {
    step.say(format!("{what}: down under 50 requests/s, for {DOWN:?}"));
    let load = start(host)?;
    let mut spec = host.lab.load_spec("web", Kind::Big);
    (spec.requests, spec.concurrency, spec.timeout_ms) = (Some(DOWNLOADS), 8, 60_000);
    let downloads = host.lab.start_load(&spec)?;
    sleep(Duration::from_secs(2));
    let before = (host.lab.last_event()?, host.lab.stats()?.boot_id, load.so_far().len());
    set(host, false)?;
    if link_shows {
        wait_event(host, before.0, "link-down")?;
        let binaries = host.lab.binaries().clone();
        let shown = cli(&mut host.machine.guest, &binaries, "port show")?;
        step.expect(shown.contains(" down "), format!("{what}: `sluice port show` says:\n{shown}"));
    }
    sleep(DOWN);
    set(host, true)?;
    wait_event(host, before.0, if link_shows { "link-up" } else { "port-reset" })?;
    let events: Vec<String> = host
        .lab
        .events_since(before.0)?
        .into_iter()
        .filter(|event| event.kind.starts_with("link-") || event.kind.starts_with("port-"))
        .map(|event| format!("{}: {}", event.kind, event.message))
        .collect();
    step.figure(format!("events: {what}"), &events);
    step.say(format!("events: {events:?}"));
    host.lab.wait_healthy(super::HEALTHY)?;
    let during = load.stop(Duration::from_secs(20))?;
    step.say(format!("of {} requests meanwhile {} failed", during.total(), during.failed().len()));
    let downloads = downloads.finish(Duration::from_secs(70))?;
    step.expect(
        downloads.total() as u64 == DOWNLOADS && downloads.failed().is_empty(),
        format!(
            "{what}: {} downloads that were under way went on and ended well: {:?}",
            downloads.total(),
            downloads.errors()
        ),
    );
    let is_reset = host.lab.events_since(before.0)?.iter().any(|event| event.kind == "port-reset");
    step.expect(
        is_reset != link_shows,
        format!("{what}: the port was set up anew: {is_reset}, only where its PF was reset"),
    );
    let load = start(host)?;
    sleep(Duration::from_secs(4));
    let outcome = load.stop(Duration::from_secs(20))?;
    step.expect_none_failed("web", &outcome);
    let most = host.lab.ports()?.iter().filter_map(|p| p["counters"]["rx_packets"].as_u64()).max();
    step.expect(most < Some(1_000_000), format!("{what}: counters did not leap: {most:?}"));
    step.expect(
        before.2 > 0 && host.lab.stats()?.boot_id == before.1,
        format!("{what}: the data plane ran on"),
    );
    Ok(())
}

fn start(host: &mut Host) -> Result<Load> {
    let mut spec = host.lab.load_spec("web", Kind::Page);
    (spec.rate, spec.concurrency, spec.timeout_ms) = (Some(50), 500, 5_000);
    host.lab.start_load(&spec)
}

fn wait_event(host: &Host, since: u64, kind: &str) -> Result<()> {
    wait_until(&format!("there is an event {kind}"), NOTICED, || {
        let events = host.lab.events_since(since)?;
        Ok(events.iter().any(|event| event.kind == kind).then_some(()))
    })
}
