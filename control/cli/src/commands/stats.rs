//! `sluice stats`: the data plane's counters, once or again and again with rates.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_api::DropReason;
use sluice_api::stats::{PortStats, ServiceStats, Stats, TableUsage, Traffic, WorkerStats};

use crate::Context;
use crate::args::StatsArgs;
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, duration, integer};

/// What is printed of one reading of the counters.
enum Reading {
    All(Stats),
    One(ServiceStats),
}

pub(super) async fn run(context: &Context, args: StatsArgs) -> Result<(), CliError> {
    let mut previous: Option<(Instant, Reading)> = None;
    let mut printed = 0;
    loop {
        match read(context, &args).await {
            Ok((body, reading)) => {
                let read_at = Instant::now();
                if context.output.json {
                    let output = context.output;
                    if args.watch.is_some() { output.line(&body) } else { output.value(&body) }?;
                } else {
                    let before = previous.as_ref().map(|(at, before)| Before {
                        elapsed: read_at - *at,
                        traffic: traffic_of(before),
                    });
                    if args.watch.is_some() {
                        context.output.clear()?;
                    }
                    let rates = args.watch.map(|_| before);
                    context.output.text(&render(&args, &reading, rates.as_ref()))?;
                }
                previous = Some((read_at, reading));
            }
            // A watch outlives a restart of control or of the data plane; a first print must work.
            Err(error) if previous.is_some() && is_passing(&error) => {
                error.report(context.output.json);
            }
            Err(error) => return Err(error),
        }
        printed += 1;
        match args.watch {
            Some(seconds) if args.count.is_none_or(|count| printed < count) => {
                tokio::time::sleep(Duration::from_secs(seconds.into())).await;
                if !context.output.json {
                    context.output.text("\n")?;
                }
            }
            _ => return Ok(()),
        }
    }
}

fn is_passing(error: &CliError) -> bool {
    match error {
        CliError::Unreachable { .. } => true,
        CliError::Refused(refusal) => refusal.status >= 500,
        _ => false,
    }
}

async fn read(context: &Context, args: &StatsArgs) -> Result<(Value, Reading), CliError> {
    let path = match &args.service {
        Some(service) => path(&["stats", "services", service]),
        None => "/stats".to_owned(),
    };
    let body = context.client.get(&path).await?.body;
    let numbers = with_numbers(body.clone());
    let reading = if args.service.is_some() {
        serde_json::from_value(numbers).map(Reading::One)
    } else {
        serde_json::from_value(numbers).map(Reading::All)
    };
    let reading = reading.map_err(|error| CliError::Answer {
        request: format!("GET {path}"),
        reason: error.to_string(),
    })?;
    Ok((body, reading))
}

/// Statistics whose numbers are numbers again: the API sends those beyond 2^53 as strings.
fn with_numbers(value: Value) -> Value {
    match value {
        Value::String(text) => match text.parse::<u64>() {
            Ok(number) if number >= 1 << 53 => Value::from(number),
            _ => Value::String(text),
        },
        Value::Array(items) => items.into_iter().map(with_numbers).collect(),
        Value::Object(fields) => {
            let number = |(name, value): (String, Value)| {
                // A service may be called anything.
                let value = if name == "name" { value } else { with_numbers(value) };
                (name, value)
            };
            Value::Object(fields.into_iter().map(number).collect())
        }
        other => other,
    }
}

/// Which row of the traffic table: a service, and a backend within it.
type Row = (String, Option<String>);

/// The reading before, to tell rates.
struct Before {
    elapsed: Duration,
    traffic: HashMap<Row, Traffic>,
}

fn services(reading: &Reading) -> &[ServiceStats] {
    match reading {
        Reading::All(stats) => &stats.services,
        Reading::One(service) => std::slice::from_ref(service),
    }
}

/// What has traffic, with its `max_conns`.
fn rows(services: &[ServiceStats]) -> impl Iterator<Item = (Row, &Traffic, Option<NonZeroU32>)> {
    services.iter().flat_map(|service| {
        let of_backends = service.backends.iter().map(|backend| {
            let id = format!("{}:{}", backend.address, backend.port);
            ((service.name.clone(), Some(id)), &backend.traffic, backend.max_conns)
        });
        let of_service = ((service.name.clone(), None), &service.traffic, service.max_conns);
        std::iter::once(of_service).chain(of_backends)
    })
}

fn traffic_of(reading: &Reading) -> HashMap<Row, Traffic> {
    rows(services(reading)).map(|(row, traffic, _)| (row, *traffic)).collect()
}

/// `rates` is absent for a single print; the reading before is absent for the first of many.
fn render(args: &StatsArgs, reading: &Reading, rates: Option<&Option<Before>>) -> String {
    let Reading::All(stats) = reading else { return traffic(services(reading), rates) };
    let mut parts = Vec::new();
    if args.workers {
        parts.push(workers(&stats.workers));
    }
    if args.ports {
        parts.push(ports(&stats.ports));
    }
    if args.tables {
        parts.push(tables(&stats.tables));
    }
    if args.drops {
        parts.push(drops(stats));
    }
    if parts.is_empty() {
        let uptime = duration(stats.uptime_ms);
        parts.push(format!("data plane up for {uptime}, generation {}", stats.generation));
        parts.push(traffic(&stats.services, rates));
    }
    parts.join("\n\n")
}

fn traffic(services: &[ServiceStats], rates: Option<&Option<Before>>) -> String {
    let mut columns = vec!["SERVICE", "BACKEND", ">CONNS"];
    let has_limits = rows(services).any(|(.., max_conns)| max_conns.is_some());
    if has_limits {
        columns.push(">MAX CONNS");
    }
    columns.extend(if rates.is_some() {
        [">CONNS/s", ">PACKETS IN/s", ">BYTES IN/s", ">PACKETS OUT/s", ">BYTES OUT/s"]
    } else {
        [">CREATED", ">PACKETS IN", ">BYTES IN", ">PACKETS OUT", ">BYTES OUT"]
    });
    let mut table = Table::new(&columns);
    for (row, now, max_conns) in rows(services) {
        let counters =
            |t: &Traffic| [t.conns_created, t.packets_in, t.bytes_in, t.packets_out, t.bytes_out];
        let mut cells = match &row {
            (_, Some(backend)) => vec![String::new(), backend.clone()],
            (service, None) => vec![service.clone(), String::new()],
        };
        cells.push(integer(now.conns));
        if has_limits {
            cells.push(max_conns.map_or("-".to_owned(), |limit| integer(limit.get().into())));
        }
        match rates {
            None => cells.extend(counters(now).map(integer)),
            Some(before) => {
                let known = before.as_ref().and_then(|b| Some((b.elapsed, b.traffic.get(&row)?)));
                let old = known.map(|(elapsed, old)| (elapsed, counters(old)));
                for (index, value) in counters(now).into_iter().enumerate() {
                    cells.push(old.map_or("-".to_owned(), |(elapsed, old)| {
                        per_second(old[index], value, elapsed)
                    }));
                }
            }
        }
        table.row(cells);
    }
    table.render("There are no services in the data plane.")
}

/// Growth per second; `-` when the counter went back, as after a restart of the data plane.
fn per_second(old: u64, new: u64, elapsed: Duration) -> String {
    match new.checked_sub(old) {
        Some(growth) => integer((growth as f64 / elapsed.as_secs_f64().max(0.001)).round() as u64),
        None => "-".to_owned(),
    }
}

fn workers(workers: &[WorkerStats]) -> String {
    let mut table = Table::new(&[
        ">WORKER",
        ">RX",
        ">TX",
        ">HANDED OVER",
        ">TO KERNEL",
        ">DROPPED",
        ">RESETS SENT",
        ">UNREACHABLES SENT",
        ">CONNS",
        ">CREATED",
        ">EXPIRED",
        ">BUSY POLLS",
        ">IDLE POLLS",
    ]);
    for w in workers {
        let counters = [
            w.rx_packets,
            w.tx_packets,
            w.handed_over,
            w.to_kernel,
            w.dropped,
            w.resets_sent,
            w.unreachables_sent,
            w.conns,
            w.conns_created,
            w.conns_expired,
            w.busy_polls,
            w.idle_polls,
        ];
        table.row(std::iter::once(w.worker.to_string()).chain(counters.map(integer)).collect());
    }
    table.render("There are no workers.")
}

fn ports(ports: &[PortStats]) -> String {
    let mut table = Table::new(&[
        "PORT",
        ">RX PACKETS",
        ">RX BYTES",
        ">TX PACKETS",
        ">TX BYTES",
        ">RX MISSED",
        ">RX ERRORS",
        ">RX NO MBUF",
        ">TX ERRORS",
    ]);
    for p in ports {
        let counters = [
            p.rx_packets,
            p.rx_bytes,
            p.tx_packets,
            p.tx_bytes,
            p.rx_missed,
            p.rx_errors,
            p.rx_no_mbuf,
            p.tx_errors,
        ];
        table.row(std::iter::once(p.name.clone()).chain(counters.map(integer)).collect());
    }
    table.render("There are no ports.")
}

fn tables(tables: &[TableUsage]) -> String {
    let mut table = Table::new(&["TABLE", ">USED", ">CAPACITY", ">FULL", ">BYTES"]);
    for t in tables {
        let percent = 100.0 * t.used as f64 / t.capacity.max(1) as f64;
        table.row(vec![
            t.table.clone(),
            integer(t.used),
            integer(t.capacity),
            format!("{percent:.1} %"),
            integer(t.bytes),
        ]);
    }
    table.render("There are no tables.")
}

/// Reasons that happened, most frequent first, with what they mean.
fn drops(stats: &Stats) -> String {
    let mut table = Table::new(&["REASON", ">PACKETS", "MEANING"]);
    let mut drops: Vec<(&String, u64)> = stats.drops.iter().map(|(r, n)| (r, *n)).collect();
    drops.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    for (name, packets) in drops {
        let reason = DropReason::ALL.iter().find(|reason| reason.name() == name);
        // A data plane of another version may know more.
        let meaning = reason.map_or("(unknown to this version)", |reason| reason.meaning());
        table.row(vec![name.clone(), integer(packets), meaning.to_owned()]);
    }
    table.render("No packet was dropped.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_survive_restarts_of_counters() {
        let second = Duration::from_secs(1);
        assert_eq!(per_second(100, 3_100, 2 * second), "1,500");
        assert_eq!(per_second(100, 99, second), "-");
        assert_eq!(per_second(0, 0, Duration::ZERO), "0");
    }

    #[test]
    fn drops_tell_what_they_mean_most_frequent_first() {
        let drops = [("no_conn".to_owned(), 3), ("land_attack".to_owned(), 1_234)];
        let mut stats = Stats { drops: drops.into_iter().collect(), ..Stats::default() };
        stats.drops.insert("from_the_future".to_owned(), 2);
        let text = super::drops(&stats);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("land_attack") && lines[1].contains("1,234"), "{text}");
        assert!(lines[2].ends_with(DropReason::NoConn.meaning()), "{text}");
        assert!(lines[3].contains("unknown"), "{text}");
        assert_eq!(super::drops(&Stats::default()), "No packet was dropped.");
    }
}
