//! What the data plane counts.

use std::fmt;

use prometheus_client::metrics::MetricType;
use sluice_api::DropReason;
use sluice_api::stats::{Stats, WorkerStats};

use super::output::{Output, Sample};

pub(super) fn dataplane(output: &mut Output, stats: &Stats) -> fmt::Result {
    let drops = DropReason::ALL.iter().map(|reason| {
        let count = stats.drops.get(reason.name()).copied().unwrap_or_default();
        (vec![("reason", reason.name())], count)
    });
    output.family(MetricType::Counter, "drops", "Dropped packets by reason", drops)?;
    let sum = |pick: fn(&WorkerStats) -> u64| stats.workers.iter().map(pick).sum::<u64>();
    output.family(
        MetricType::Counter,
        "refusals",
        "Dropped packets that were answered, by the answer",
        [("reset", sum(|w| w.resets_sent)), ("unreachable", sum(|w| w.unreachables_sent))]
            .map(|(answer, count)| (vec![("answer", answer)], count)),
    )?;

    let services: Vec<_> =
        stats.services.iter().map(|s| (vec![("service", s.name.as_str())], s.traffic)).collect();
    output.traffic("service", &services)?;
    let ids: Vec<Vec<String>> = stats
        .services
        .iter()
        .map(|s| s.backends.iter().map(|b| format!("{}:{}", b.address, b.port)).collect())
        .collect();
    let backends: Vec<_> = stats
        .services
        .iter()
        .zip(&ids)
        .flat_map(|(service, ids)| {
            service.backends.iter().zip(ids).map(|(backend, id)| {
                let labels = vec![("service", service.name.as_str()), ("backend", id.as_str())];
                (labels, backend.traffic)
            })
        })
        .collect();
    output.traffic("backend", &backends)?;
    workers(output, stats)?;
    main_thread(output, stats)?;
    tables_and_ports(output, stats)
}

fn main_thread(output: &mut Output, stats: &Stats) -> fmt::Result {
    let main = &stats.main_thread;
    output.counter(
        "main_thread_late_rounds",
        "Rounds of the data plane's main thread that took 20 ms, or before which it woke so late",
        main.late_rounds,
    )?;
    let times = [("round", main.longest_round_us), ("wake-up", main.latest_wake_us)];
    output.samples(
        MetricType::Gauge,
        "main_thread_longest_seconds",
        "The longest round of the last 10 to 20 s, and how late it was woken at the worst",
        times.map(|(of, us)| (vec![("of", of)], Sample::Seconds(us as f64 / 1e6))),
    )
}

/// A table's name as labels: some tables there are once per pool.
fn table_labels(name: &str) -> Vec<(&str, &str)> {
    match name.split_once('/') {
        Some((table, pool)) => vec![("table", table), ("pool", pool)],
        None => vec![("table", name)],
    }
}

fn tables_and_ports(output: &mut Output, stats: &Stats) -> fmt::Result {
    output.family(
        MetricType::Counter,
        "pool_ports_reused",
        "Local ports used again while the backend held them in TIME_WAIT, as no other was free",
        stats.pools.iter().map(|p| (vec![("pool", p.name.as_str())], p.reused)),
    )?;
    let tables = |pick: fn(&sluice_api::stats::TableUsage) -> u64| {
        stats.tables.iter().map(move |t| (table_labels(&t.table), pick(t)))
    };
    output.family(MetricType::Gauge, "table_used", "Entries in use", tables(|t| t.used))?;
    output.family(
        MetricType::Gauge,
        "table_capacity",
        "Entries there are",
        tables(|t| t.capacity),
    )?;
    let ports = |pick: fn(&sluice_api::stats::PortStats) -> [(&'static str, u64); 2]| {
        stats.ports.iter().flat_map(move |port| {
            pick(port)
                .map(|(way, value)| (vec![("port", port.name.as_str()), ("direction", way)], value))
        })
    };
    output.family(
        MetricType::Counter,
        "port_packets",
        "Packets received (rx) and transmitted (tx)",
        ports(|p| [("rx", p.rx_packets), ("tx", p.tx_packets)]),
    )?;
    output.family(
        MetricType::Counter,
        "port_bytes",
        "Bytes received (rx) and transmitted (tx)",
        ports(|p| [("rx", p.rx_bytes), ("tx", p.tx_bytes)]),
    )?;
    output.family(
        MetricType::Counter,
        "port_errors",
        "Packets that could not be received (rx: no room, no mbuf, broken) or sent (tx)",
        ports(|p| [("rx", p.rx_missed + p.rx_errors + p.rx_no_mbuf), ("tx", p.tx_errors)]),
    )?;
    queues(output, stats)
}

fn workers(output: &mut Output, stats: &Stats) -> fmt::Result {
    let numbers: Vec<String> = stats.workers.iter().map(|w| w.worker.to_string()).collect();
    let numbers = numbers.as_slice();
    let workers = |pick: fn(&sluice_api::stats::WorkerStats) -> u64| {
        let workers = stats.workers.iter().zip(numbers);
        workers.map(move |(worker, number)| (vec![("worker", number.as_str())], pick(worker)))
    };
    output.family(
        MetricType::Gauge,
        "worker_stuck",
        "1 while the worker has not come round for 100 ms or more",
        workers(|w| (w.stuck_ms > 0).into()),
    )?;
    output.family(
        MetricType::Counter,
        "worker_stalls",
        "How often the worker has not come round for 100 ms or more",
        workers(|w| w.stalls),
    )?;
    output.samples(
        MetricType::Counter,
        "worker_stalled_seconds",
        "How long that was in all",
        workers(|w| w.stalled_ms).map(|(labels, ms)| (labels, Sample::Seconds(ms as f64 / 1e3))),
    )
}

fn queues(output: &mut Output, stats: &Stats) -> fmt::Result {
    let most = stats.ports.iter().map(|port| port.queues.len()).max().unwrap_or_default();
    let numbers: Vec<String> = (0..most).map(|queue| queue.to_string()).collect();
    let numbers = numbers.as_slice();
    let queues = |pick: fn(&sluice_api::stats::QueueStats) -> u64| {
        stats.ports.iter().flat_map(move |port| {
            port.queues.iter().zip(numbers).map(move |(queue, number)| {
                let labels = vec![("port", port.name.as_str()), ("queue", number.as_str())];
                (labels, pick(queue))
            })
        })
    };
    output.family(
        MetricType::Counter,
        "port_queue_rx_packets",
        "Packets received from a queue, by the worker with its number",
        queues(|q| q.rx_packets),
    )?;
    output.family(
        MetricType::Counter,
        "port_queue_mis_steered_packets",
        "Packets that came to another queue than the port's RSS key and table say",
        queues(|q| q.mis_steered),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_a_pool_has_two_labels() {
        assert_eq!(table_labels("local_ports/lan"), [("table", "local_ports"), ("pool", "lan")]);
        assert_eq!(table_labels("conns"), [("table", "conns")]);
    }
}
