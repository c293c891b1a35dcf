//! Steps: every request is answered, over VFs, by one worker and by several.

use std::time::Duration;

use serde_json::Value;
use sluice_api::DropReason;
use sluice_api::stats::Stats;

use super::Host;
use super::nics::Pair;
use crate::lab::Lab;
use crate::lab::capture::link_counters;
use crate::lab::error::Result;
use crate::lab::load::Kind;
use crate::lab::servers::name;
use crate::lab::topology::BACKENDS;
use crate::story::report::Step;

/// Requests to each service: enough for each of four queues to be trusted, which takes 1,000 packets.
const REQUESTS: u64 = 2_000;
/// How many requests are under way at once: an emulator has long round trips.
const CONCURRENCY: usize = 16;
/// Drops that tell of packets lost on their way.
const LOSSES: [DropReason; 4] = [
    DropReason::HandoverRingFull,
    DropReason::NoConn,
    DropReason::TxQueueFull,
    DropReason::L4BadChecksum,
];

/// One worker on igb VFs.
pub fn igb_one_worker(host: &mut Host, step: &mut Step) -> Result<()> {
    let pair = host.nics.igb.clone();
    run(host, step, &pair, &[1], "single-worker")
}

/// Two workers on igb VFs, which have two queues and no RSS of their own.
pub fn igb_two_workers(host: &mut Host, step: &mut Step) -> Result<()> {
    let pair = host.nics.igb.clone();
    run(host, step, &pair, &[1, 2], "handover")
}

/// Two workers on virtio-net VFs with RSS.
pub fn virtio_two_workers(host: &mut Host, step: &mut Step) -> Result<()> {
    let pair = host.nics.virtio.clone();
    run(host, step, &pair, &[1, 2], "rss")
}

/// Four workers on virtio-net VFs with RSS; one of them beside the main thread.
pub fn virtio_four_workers(host: &mut Host, step: &mut Step) -> Result<()> {
    let pair = host.nics.virtio.clone();
    run(host, step, &pair, &[0, 1, 2, 3], "rss")
}

fn run(host: &mut Host, step: &mut Step, pair: &Pair, cpus: &[u16], steering: &str) -> Result<()> {
    host.open_services(step, pair, cpus)?;
    let before = host.lab.stats()?;
    load(&mut host.lab, step, "web", Kind::Page)?;
    load_dr(&mut host.lab, step)?;
    load(&mut host.lab, step, "echo", Kind::Udp)?;
    let after = host.lab.stats()?;
    expect_no_losses(step, &before, &after);
    for port in host.lab.ports()? {
        expect_steering(step, &port, steering);
    }
    expect_handover(step, &before, &after, steering);
    host.show(step, "port show")?;
    host.show(step, "port show wan")?;
    host.show(step, "port show lan")?;
    host.show(step, "stats --drops")
}

fn load(lab: &mut Lab, step: &mut Step, service: &str, kind: Kind) -> Result<()> {
    let mut spec = lab.load_spec(service, kind);
    (spec.requests, spec.concurrency, spec.timeout_ms) = (Some(REQUESTS), CONCURRENCY, 10_000);
    let outcome = lab.start_load(&spec)?.finish(Duration::from_secs(90))?;
    step.expect_none_failed(service, &outcome);
    let backends = outcome.by_backend();
    step.expect(
        backends.len() == usize::from(BACKENDS),
        format!("{service}: all backends were asked: {backends:?}"),
    );
    Ok(())
}

/// As [`load`], and no reply comes through Sluice.
fn load_dr(lab: &mut Lab, step: &mut Step) -> Result<()> {
    let direct = |lab: &Lab| -> Result<u64> {
        let count = |number| link_counters(&lab.site().netns(&name(number)), "direct0");
        (1..=BACKENDS).map(|number| Ok(count(number)?.tx_packets)).sum()
    };
    let (before, sent_before) = (lab.service_stats("web-dr")?.traffic, direct(lab)?);
    load(lab, step, "web-dr", Kind::Page)?;
    let (after, sent) = (lab.service_stats("web-dr")?.traffic, direct(lab)? - sent_before);
    let (to_backends, to_clients) =
        (after.packets_in - before.packets_in, after.packets_out - before.packets_out);
    step.expect(
        to_backends >= 3 * REQUESTS && to_clients == 0 && sent >= 3 * REQUESTS,
        format!(
            "web-dr: Sluice forwarded {to_backends} packets to backends and {to_clients} to clients; \
             backends sent {sent} directly"
        ),
    );
    Ok(())
}

fn expect_no_losses(step: &mut Step, before: &Stats, after: &Stats) {
    let dropped = |stats: &Stats, reason: &str| stats.drops.get(reason).copied().unwrap_or(0);
    let lost: Vec<(&str, u64)> = LOSSES
        .into_iter()
        .map(DropReason::name)
        .map(|reason| (reason, dropped(after, reason) - dropped(before, reason)))
        .filter(|(_, count)| *count > 0)
        .collect();
    step.expect(lost.is_empty(), format!("no packet was lost on its way: {lost:?}"));
    step.figure("drops", &after.drops);
}

fn expect_steering(step: &mut Step, port: &Value, wanted: &str) {
    let name = port["name"].as_str().unwrap_or("?");
    let counters = &port["counters"];
    let received: Vec<u64> = counters["queues"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|queue| queue["rx_packets"].as_u64().unwrap_or(0))
        .collect();
    step.figure(format!("{name}_rx_packets_per_queue"), &received);
    step.figure(format!("{name}_mis_steered"), &counters["mis_steered"]);
    let (steering, reason) = (&port["steering"], &port["steering_reason"]);
    step.expect(
        steering == wanted,
        format!("port {name}: steering is {steering}, {reason}; expected {wanted}"),
    );
    if wanted == "rss" {
        let verified = reason.as_str().is_some_and(|reason| reason.contains("by all queues"));
        step.expect(
            verified && counters["mis_steered"] == 0 && received.iter().all(|count| *count >= 1_000),
            format!(
                "port {name}: verified by all queues, {} packets mis-steered, received per queue {received:?}",
                counters["mis_steered"]
            ),
        );
    }
}

fn expect_handover(step: &mut Step, before: &Stats, after: &Stats, steering: &str) {
    let handed_over: Vec<u64> = after
        .workers
        .iter()
        .zip(&before.workers)
        .map(|(new, old)| new.handed_over - old.handed_over)
        .collect();
    let conns: Vec<u64> = after
        .workers
        .iter()
        .zip(&before.workers)
        .map(|(new, old)| new.conns_created - old.conns_created)
        .collect();
    step.figure("handed_over_per_worker", &handed_over);
    step.figure("conns_created_per_worker", &conns);
    let total: u64 = handed_over.iter().sum();
    step.expect(
        (total == 0) == (steering != "handover"),
        format!("packets handed over by each worker: {handed_over:?}"),
    );
    step.expect(
        conns.iter().all(|count| *count >= REQUESTS / 4),
        format!("each worker made conns: {conns:?}"),
    );
}
