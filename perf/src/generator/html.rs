//! The result as one HTML page that needs nothing else: no script, no fonts, no network.

use super::outcome::Outcome;
use super::report::Report;
use super::search::Found;
use super::svg::{Plot, Scale, Series, escape, short};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;\
padding:0 1em;color:#222}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}\
table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;text-align:left}\
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto}\
svg text{font:12px system-ui,sans-serif;fill:#444}.grid{stroke:#ddd}.axis{stroke:#666;fill:none}\
pre{background:#f4f4f4;padding:1em;overflow:auto}\
@media(prefers-color-scheme:dark){body{background:#1b1b1b;color:#ddd}svg text{fill:#bbb}\
.grid{stroke:#333}pre{background:#262626}}";

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut body = vec![
        format!("<h1>{}</h1>", escape(&report.program)),
        format!(
            "<p>{} on {}, next hop {}.{}</p>",
            escape(&report.dpdk),
            escape(&report.devices.join(", ")),
            escape(&report.next_hop),
            if report.interrupted { " Interrupted: these are the results so far." } else { "" }
        ),
        format!("<pre>{}</pre>", escape(&report.for_people().join("\n"))),
    ];
    if let Some(outcome) = &report.outcome {
        body.push("<h2>Rate over time</h2>".to_owned());
        body.push(rate_over_time(outcome));
        body.push("<h2>Latency distribution</h2>".to_owned());
        body.push(if outcome.histogram.is_empty() {
            "<p>No probe came back.</p>".to_owned()
        } else {
            latency_distribution(outcome)
        });
    }
    body.push("<h2>Loss against rate</h2>".to_owned());
    body.push(match (&report.search, &report.outcome) {
        (Some(found), _) => loss_of_search(found),
        (None, Some(outcome)) => loss_against_rate(vec![(outcome.sent_pps, outcome.loss)]),
        (None, None) => String::new(),
    });
    body.push("<h2>Scenario</h2>".to_owned());
    let scenario = toml::to_string(&report.scenario).unwrap_or_default();
    body.push(format!("<pre>{}</pre>", escape(&scenario)));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title>\
         <style>{STYLE}</style></head><body>{}</body></html>\n",
        escape(&report.program),
        body.join("\n")
    )
}

fn rate_over_time(outcome: &Outcome) -> String {
    let points = |value: fn(&super::outcome::Interval) -> f64| {
        outcome.intervals.iter().map(|i| (i.at_seconds, value(i))).collect()
    };
    Plot {
        title: "Packets per second over time",
        x: ("s", Scale::Linear),
        y: "packets/s",
        series: vec![
            Series { name: "sent", points: points(|i| i.sent_pps) },
            Series { name: "received", points: points(|i| i.received_pps) },
        ],
        bars: false,
    }
    .svg()
}

fn latency_distribution(outcome: &Outcome) -> String {
    let total: u64 = outcome.histogram.iter().map(|bucket| bucket.probes).sum();
    let percent = |probes: u64| 100.0 * probes as f64 / total.max(1) as f64;
    let points = outcome
        .histogram
        .iter()
        .map(|bucket| (bucket.up_to_ns as f64 / 1e3, percent(bucket.probes)))
        .collect();
    Plot {
        title: "Share of probes by latency",
        x: ("latency in µs, up to", Scale::Log),
        y: "% of probes",
        series: vec![Series { name: "probes", points }],
        bars: true,
    }
    .svg()
}

fn loss_against_rate(mut points: Vec<(f64, f64)>) -> String {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let points = points.into_iter().map(|(pps, loss)| (pps, loss * 100.0)).collect();
    Plot {
        title: "Loss against rate",
        x: ("packets/s offered", Scale::Linear),
        y: "% lost",
        series: vec![Series { name: "loss", points }],
        bars: false,
    }
    .svg()
}

fn loss_of_search(found: &Found) -> String {
    let rows: Vec<String> = found
        .trials
        .iter()
        .map(|trial| {
            format!(
                "<tr><td class=n>{}</td><td class=n>{}</td><td class=n>{:.5}</td>\
                 <td class=n>{}</td><td>{}</td></tr>",
                short(trial.asked_pps),
                short(trial.offered_pps),
                trial.loss * 100.0,
                trial.p99_ns.map(|ns| format!("{:.1}", ns as f64 / 1e3)).unwrap_or_default(),
                if trial.passed { "passed" } else { "failed" }
            )
        })
        .collect();
    let points = found.trials.iter().map(|trial| (trial.offered_pps, trial.loss)).collect();
    format!(
        "{}<table><tr><th>asked/s<th>offered/s<th>loss %<th>p99 µs<th></tr>{}</table>",
        loss_against_rate(points),
        rows.join("")
    )
}

#[cfg(test)]
mod tests {
    use super::super::counts::Counts;
    use super::super::outcome::{Interval, Latency};
    use super::super::probe::{ProbeCounts, histogram};
    use super::super::scenario::Scenario;
    use super::super::search::Trial;
    use super::*;

    fn report() -> Report {
        let mut latencies = histogram();
        (1..=1_000).for_each(|i| latencies.record(i * 37).unwrap());
        let interval = |at| Interval {
            at_seconds: at,
            sent_pps: 1e6,
            received_pps: 9e5,
            p50_ns: None,
            p99_ns: None,
        };
        let outcome = Outcome {
            seconds: 2.0,
            asked_pps: Some(1e6),
            sent_pps: 1e6,
            received_pps: 9e5,
            loss: 0.1,
            counts: Counts { sent: 2_000_000, received: 1_800_000, ..Counts::default() },
            late: 7,
            refused: 0.5,
            probes: ProbeCounts { sent: 1_100, received: 1_000, ..ProbeCounts::default() },
            latency: Latency::of(&latencies),
            histogram: Latency::buckets(&latencies),
            intervals: vec![interval(1.0), interval(2.0)],
            connections: None,
            interrupted: false,
        };
        let mut scenario = Scenario::default();
        scenario.client.device = Some("net_null0,<script>".to_owned());
        Report {
            program: "sluice-perf gen 1".to_owned(),
            dpdk: "DPDK 22.11".to_owned(),
            devices: vec!["net_null0 (net_null)".to_owned()],
            next_hop: "02:00:00:00:00:01".to_owned(),
            line_pps: None,
            scenario,
            opened: None,
            outcome: Some(outcome),
            search: None,
            interrupted: true,
        }
    }

    #[test]
    fn the_page_stands_alone() {
        let page = page(&report());
        assert_eq!(page.matches("<svg").count(), 3);
        for forbidden in ["<script", "http://", "https://", "<link", "NaN", "@import"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains("net_null0,&lt;script&gt;"));
        assert!(page.contains("Interrupted") && page.contains("loss         10.000000 %"));
        assert!(page.contains("100 lost"), "{page}");
    }

    #[test]
    fn a_search_shows_its_trials_and_nothing_is_fine_too() {
        let trial = |pps: f64, loss, passed| Trial {
            asked_pps: pps,
            offered_pps: pps,
            loss,
            p50_ns: Some(900),
            p99_ns: Some(2_000),
            passed,
        };
        let trials = vec![trial(2e6, 0.5, false), trial(1e6, 0.0, true)];
        let found = Found { throughput_pps: 1e6, trials, complete: true };
        let page_of_search = page(&Report { search: Some(found), ..report() });
        assert_eq!(page_of_search.matches("<tr><td").count(), 2);
        let empty = page(&Report { outcome: None, ..report() });
        assert!(empty.contains("no run was without"));
    }
}
