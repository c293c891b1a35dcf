//! Step 1: every request over each service is answered, by the right backend, on the right way.

use std::time::Duration;

use crate::lab::capture::{LinkCounters, link_counters};
use crate::lab::error::Result;
use crate::lab::load::{Kind, Outcome};
use crate::lab::servers::name;
use crate::lab::sluice::{ECHO_WEIGHTS, WEB_DR_WEIGHTS, WEB_WEIGHTS};
use crate::lab::topology::BACKENDS;
use crate::lab::{Lab, vip};
use crate::story::report::{Step, round};
use crate::story::shares;

/// Run the step.
pub fn run(lab: &mut Lab, step: &mut Step) -> Result<()> {
    let web = load(lab, step, "web", Kind::Page)?;
    shares::expect_maglev(step, "web", &web, &WEB_WEIGHTS);

    let before = DrCounters::read(lab)?;
    let dr = load(lab, step, "web-dr", Kind::Page)?;
    shares::expect_exact(step, "web-dr", &dr, &WEB_DR_WEIGHTS, lab.workers());
    expect_direct_replies(step, &before, &DrCounters::read(lab)?, dr.total() as u64);

    let echo = load(lab, step, "echo", Kind::Udp)?;
    shares::expect_maglev(step, "echo", &echo, &ECHO_WEIGHTS);
    Ok(())
}

fn load(lab: &mut Lab, step: &mut Step, service: &str, kind: Kind) -> Result<Outcome> {
    let mut spec = lab.load_spec(service, kind);
    let requests = if step.quick { 2_000 } else { 10_000 };
    spec.requests = Some(requests);
    step.say(format!(
        "{requests} requests to {service} at {}, each from its own source port …",
        vip(service)
    ));
    let outcome = lab.start_load(&spec)?.finish(Duration::from_secs(120))?;
    step.expect_none_failed(service, &outcome);
    let (median, p99) = outcome.latency_ms();
    step.figure(format!("{service}_latency_median_ms"), round(median, 2));
    step.figure(format!("{service}_latency_p99_ms"), round(p99, 2));
    Ok(outcome)
}

/// What passed where, of the service in direct routing.
struct DrCounters {
    /// Packets from clients that Sluice forwarded.
    sluice_in: u64,
    /// Packets towards clients that Sluice forwarded.
    sluice_out: u64,
    /// Packets that Sluice's port towards the clients has sent.
    wan_tx: u64,
    /// Packets that the backends sent on their direct way to the client.
    direct_tx: u64,
    /// Packets that the backends sent towards Sluice.
    lan_tx: u64,
}

impl DrCounters {
    fn read(lab: &Lab) -> Result<Self> {
        let traffic = lab.service_stats("web-dr")?.traffic;
        let sum = |device: &str| -> Result<u64> {
            (1..=BACKENDS)
                .map(|number| link_counters(&lab.site().netns(&name(number)), device))
                .map(|counters| counters.map(|LinkCounters { tx_packets, .. }| tx_packets))
                .sum()
        };
        let (direct_tx, lan_tx) = (sum("direct0")?, sum("lan0")?);
        // What comes out of the far end of Sluice's port, as the switch counts it.
        let wan_tx = link_counters(&lab.site().netns("net"), &lab.switch_port("wan"))?.rx_packets;
        let (sluice_in, sluice_out) = (traffic.packets_in, traffic.packets_out);
        Ok(DrCounters { sluice_in, sluice_out, wan_tx, direct_tx, lan_tx })
    }
}

fn expect_direct_replies(step: &mut Step, before: &DrCounters, after: &DrCounters, requests: u64) {
    let forwarded = after.sluice_in - before.sluice_in;
    let returned = after.sluice_out - before.sluice_out;
    let direct = after.direct_tx - before.direct_tx;
    let (wan, lan) = (after.wan_tx - before.wan_tx, after.lan_tx - before.lan_tx);
    step.figure("web-dr_packets_through_sluice_to_backends", forwarded);
    step.figure("web-dr_packets_through_sluice_to_clients", returned);
    step.figure("web-dr_packets_from_backends_directly_to_clients", direct);
    // A request takes at least three packets each way; ARP and health checks are far fewer.
    step.expect(
        forwarded >= 3 * requests && returned == 0,
        format!("web-dr: Sluice forwarded {forwarded} packets to backends, {returned} to clients"),
    );
    step.expect(
        direct >= 3 * requests && wan < requests / 4 && lan < requests / 4,
        format!(
            "web-dr: backends sent {direct} packets directly to the client and {lan} towards \
             Sluice, which sent {wan} towards the client"
        ),
    );
}
