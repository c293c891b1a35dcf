//! `/metrics`: what Prometheus reads, with the words of the API: as OpenMetrics 1.0 where it is asked for
//! by `Accept`, else as text of version 0.0.4, which everything else reads.
//!
//! Everything is fetched once per scrape, and nothing is kept between two. Without the data plane
//! its own metrics are absent and `sluice_dataplane_up` is 0.

use std::fmt;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sluice_api::stats::{Stats, Traffic, WorkerStats};
use sluice_api::{DropReason, Service};

use super::{App, HttpProblem};
use crate::derived::ServiceState;
use crate::manager::{Manager, Writes};
use crate::model::State;
use crate::observed::{Health, Observation};
use crate::publish::Link;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answer a scrape.
pub async fn metrics(
    Shared(app): Shared<App>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let state = app.manager.state();
    let scrape = Scrape {
        health: state.services.iter().map(|s| app.manager.observe(s)).collect(),
        fares: state.services.iter().map(|s| app.manager.derive(&state, s).state).collect(),
        takes: takes_new_conns(&app.manager, &state),
        state,
        writes: app.manager.writes(),
        link: app.dataplane.link(),
        stats: app.dataplane.stats().await.ok(),
    };
    let mut registry = Registry::with_prefix("sluice");
    registry.register_collector(Box::new(scrape));
    let mut body = String::new();
    text::encode(&mut body, &registry).map_err(|e| HttpProblem::Internal(e.to_string()))?;
    if wants_open_metrics(&headers) {
        Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response())
    } else {
        Ok(([(header::CONTENT_TYPE, PLAIN)], plain(&body)).into_response())
    }
}

/// Whether a client prefers OpenMetrics to plain text, or names it and likes both as much (RFC 9110,
/// 12.5.1).
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT);
    let accepted = accepted.iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    let accepted = accepted.join(",");
    let (is_named, open_metrics) = quality(&accepted, "application", "openmetrics-text");
    let (_, text) = quality(&accepted, "text", "plain");
    open_metrics > text || (is_named && open_metrics > 0.0 && open_metrics == text)
}

/// How much a media type is liked, 0 to 1, by the range of `accepted` that fits it most closely, and
/// whether that is the type itself.
fn quality(accepted: &str, kind: &str, subtype: &str) -> (bool, f32) {
    let names = [format!("{kind}/{subtype}"), format!("{kind}/*"), "*/*".to_owned()];
    for (index, name) in names.iter().enumerate() {
        let ranges = accepted.split(',').map(|range| range.split(';').map(str::trim));
        let qualities = ranges.filter_map(|mut range| {
            range.next().filter(|range| range.eq_ignore_ascii_case(name))?;
            let mut weights = range.filter_map(|parameter| parameter.split_once('='));
            let weight = weights.find(|(name, _)| name.eq_ignore_ascii_case("q"));
            let Some((_, weight)) = weight else { return Some(1.0) };
            // What is no weight is no wish either.
            Some(weight.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0))
        });
        if let Some(best) = qualities.reduce(f32::max) {
            return (index == 0, best);
        }
    }
    (false, 0.0)
}

/// OpenMetrics as text of version 0.0.4, where a counter's name ends in `_total` everywhere.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its type comes next.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                text += &format!("# HELP {name}{total} {help}\n");
            }
            text += &format!("# TYPE {name}{total} {kind}\n");
        } else if line != "# EOF" {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// A value: a number of things, or a time.
#[derive(Clone, Copy)]
enum Sample {
    Count(u64),
    Seconds(f64),
}

fn takes_new_conns(manager: &Manager, state: &State) -> Vec<Vec<bool>> {
    let of = |service: &Service| {
        let backends = service.backends.iter();
        backends.map(|backend| manager.taking(service, backend).takes_new_conns).collect()
    };
    state.services.iter().map(of).collect()
}

/// All that one scrape shows.
#[derive(Debug)]
struct Scrape {
    state: Arc<State>,
    /// Per service, per backend, in the order of the state.
    health: Vec<Vec<Observation>>,
    /// Per service.
    fares: Vec<ServiceState>,
    /// Per service, per backend: whether it takes new conns.
    takes: Vec<Vec<bool>>,
    writes: Writes,
    link: Link,
    stats: Option<Stats>,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// The metrics of one scrape as they are written.
struct Output<'a>(DescriptorEncoder<'a>);

impl Output<'_> {
    /// One metric with a count per set of labels; nothing when there is none.
    fn family<'v>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, u64)>,
    ) -> fmt::Result {
        let counts = values.into_iter().map(|(labels, count)| (labels, Sample::Count(count)));
        self.samples(kind, name, help, counts)
    }

    /// One metric with a value per set of labels; nothing when there is none.
    fn samples<'v>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'v str, &'v str)>, Sample)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            let labels: Labels = &labels;
            one(kind, value, family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.single(MetricType::Gauge, name, help, value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.single(MetricType::Counter, name, help, value)
    }

    /// One metric with one value and no labels.
    fn single(&mut self, kind: MetricType, name: &str, help: &str, value: u64) -> fmt::Result {
        one(kind, Sample::Count(value), self.0.encode_descriptor(name, help, None, kind)?)
    }

    /// Traffic of many services or backends, metric by metric as the format wants it.
    fn traffic<'v>(&mut self, of: &str, all: &[(Vec<(&'v str, &'v str)>, Traffic)]) -> fmt::Result {
        let directed = |pick: fn(&Traffic) -> (u64, u64)| {
            all.iter().flat_map(move |(labels, traffic)| {
                let (inward, outward) = pick(traffic);
                [("in", inward), ("out", outward)].map(|(direction, value)| {
                    let mut labels = labels.clone();
                    labels.push(("direction", direction));
                    (labels, value)
                })
            })
        };
        let plain = |pick: fn(&Traffic) -> u64| {
            all.iter().map(move |(labels, traffic)| (labels.clone(), pick(traffic)))
        };
        self.family(
            MetricType::Counter,
            &format!("{of}_packets"),
            "Packets from clients (in) and towards them (out)",
            directed(|t| (t.packets_in, t.packets_out)),
        )?;
        self.family(
            MetricType::Counter,
            &format!("{of}_bytes"),
            "IP bytes from clients (in) and towards them (out)",
            directed(|t| (t.bytes_in, t.bytes_out)),
        )?;
        self.family(
            MetricType::Counter,
            &format!("{of}_conns_created"),
            "Conns made",
            plain(|t| t.conns_created),
        )?;
        self.family(MetricType::Gauge, &format!("{of}_conns"), "Conns now", plain(|t| t.conns))
    }
}

fn one(kind: MetricType, value: Sample, encoder: MetricEncoder) -> fmt::Result {
    match (kind, value) {
        (MetricType::Counter, Sample::Count(count)) => ConstCounter::new(count).encode(encoder),
        (MetricType::Counter, Sample::Seconds(time)) => ConstCounter::new(time).encode(encoder),
        (_, Sample::Count(count)) => {
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(encoder)
        }
        (_, Sample::Seconds(time)) => ConstGauge::new(time).encode(encoder),
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut output = Output(encoder);
        self.control(&mut output)?;
        match &self.stats {
            Some(stats) => dataplane(&mut output, stats),
            None => Ok(()),
        }
    }
}

impl Scrape {
    fn control(&self, output: &mut Output) -> fmt::Result {
        let ready = self.link.unready().is_none();
        let up = self.link.connected && self.stats.is_some();
        output.gauge("ready", "Whether changes reach packets", ready.into())?;
        output.gauge("dataplane_up", "Whether the data plane answers", up.into())?;
        output.gauge("state_version", "Version of the desired state", self.state.version)?;
        let lost = sluice_log::lost_lines();
        output.counter("log_lines_lost", "Lines of control's log that nobody took", lost)?;
        output.gauge(
            "state_write_failing",
            "Whether the last write of the state file failed",
            self.writes.failing.is_some().into(),
        )?;
        output.counter(
            "state_write_failures",
            "Writes of the state file that failed",
            self.writes.failures,
        )?;
        output.gauge(
            "generation_published",
            "Generation of the last snapshot published",
            self.link.published,
        )?;
        if let Some(status) = &self.link.status {
            output.gauge(
                "generation_applied",
                "Generation of the snapshot that all workers forward by",
                status.workers_generation,
            )?;
        }
        let ids: Vec<Vec<String>> = self
            .state
            .services
            .iter()
            .map(|s| s.backends.iter().map(|b| b.id().to_string()).collect())
            .collect();
        let backends = || {
            let services = self.state.services.iter().zip(&ids).zip(&self.health);
            services.flat_map(|((service, ids), health)| {
                service.backends.iter().zip(ids).zip(health).map(|((backend, id), observed)| {
                    let labels = vec![("service", service.name.as_str()), ("backend", id.as_str())];
                    (labels, backend, observed)
                })
            })
        };
        output.family(
            MetricType::Gauge,
            "backend_weight",
            "Configured weight",
            backends().map(|(labels, backend, _)| (labels, backend.weight.into())),
        )?;
        output.family(
            MetricType::Gauge,
            "backend_max_conns",
            "Most conns it may have; absent without a limit",
            backends()
                .filter_map(|(labels, backend, _)| Some((labels, backend.max_conns?.get().into()))),
        )?;
        output.family(
            MetricType::Gauge,
            "service_max_conns",
            "Most conns it may have; absent without a limit",
            self.state.services.iter().filter_map(|service| {
                let labels = vec![("service", service.name.as_str())];
                Some((labels, service.max_conns?.get().into()))
            }),
        )?;
        output.family(
            MetricType::Gauge,
            "backend_healthy",
            "1 when its checks pass, 0 when they fail or none has passed yet; absent when unchecked",
            backends()
                .filter(|(_, _, observed)| observed.health != Health::Unchecked)
                .map(|(labels, _, o)| (labels, (o.health == Health::Healthy).into())),
        )?;
        let takes = self.takes.iter().flatten();
        output.family(
            MetricType::Gauge,
            "backend_takes_new_conns",
            "1 when new conns may be given to it, 0 when not",
            backends().zip(takes).map(|((labels, ..), takes)| (labels, u64::from(*takes))),
        )?;
        output.family(
            MetricType::Gauge,
            "service_state",
            "1 for the state that it is in, 0 for the others",
            self.state.services.iter().zip(&self.fares).flat_map(|(service, fares)| {
                ServiceState::ALL.map(|state| {
                    let labels = vec![("service", service.name.as_str()), ("state", state.word())];
                    (labels, u64::from(state == *fares))
                })
            }),
        )
    }
}

fn dataplane(output: &mut Output, stats: &Stats) -> fmt::Result {
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
    fn the_format_is_the_one_asked_for() {
        let prefers = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, header::HeaderValue::from_static(value));
            }
            wants_open_metrics(&headers)
        };
        // As Prometheus 2.42 asks.
        assert!(prefers(&["application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"]));
        assert!(prefers(&["text/plain; q=0.5", "application/openmetrics-text"]));
        // Browsers, curl, and who cannot read OpenMetrics.
        for plain in ["text/html, */*;q=0.8", "*/*", "text/plain;version=0.0.4", ""] {
            assert!(!prefers(&[plain]), "{plain}");
        }
        assert!(!prefers(&[]));
        assert!(!prefers(&["application/openmetrics-text; q=0.2, text/plain"]));
        assert!(!prefers(&["application/openmetrics-text; q=0"]));
        // Ranges count where no closer one does, and what is no weight counts as 0.
        assert!(!prefers(&["text/*;q=0.3, application/openmetrics-text;q=0.2"]));
        assert!(!prefers(&["application/openmetrics-text;q=0.2, */*"]));
        assert!(prefers(&["*/*;q=0.9, application/openmetrics-text, text/plain;q=0.1"]));
        assert!(prefers(&["APPLICATION/*, text/plain;Q=0.5"]));
        assert!(!prefers(&["application/*, text/plain, application/openmetrics-text;q=0"]));
        for bad in ["abc", "2", "-1", "NaN", ""] {
            let accept = format!("text/plain;q=0.9, application/openmetrics-text;q={bad}");
            assert!(!prefers(&[accept.leak()]), "{bad}");
        }
    }

    #[test]
    fn counters_have_their_whole_name_in_plain_text() {
        let open = "# HELP a_b Help a_b.\n# TYPE a_b counter\na_b_total{x=\"y z\"} 3\n\
                    # HELP c Help.\n# TYPE c gauge\nc 1\n# EOF\n";
        let text = "# HELP a_b_total Help a_b.\n# TYPE a_b_total counter\n\
                    a_b_total{x=\"y z\"} 3\n# HELP c Help.\n# TYPE c gauge\nc 1\n";
        assert_eq!(plain(open), text);
    }

    #[test]
    fn a_table_of_a_pool_has_two_labels() {
        assert_eq!(table_labels("local_ports/lan"), [("table", "local_ports"), ("pool", "lan")]);
        assert_eq!(table_labels("conns"), [("table", "conns")]);
    }
}
