//! `/metrics` over a real socket: its words, its two formats, and what Prometheus's own linter says.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::{Api, FakeDataplane, Lab, WEB};
use sluice_api::stats::TableUsage;

const OPEN_METRICS: &str = "application/openmetrics-text";

async fn metrics(api: &Api, format: &str) -> String {
    let answer = api.raw("GET", "//metrics", &[("accept", format)], "").await;
    assert!(answer.header("content-type").starts_with(format), "{:?}", answer.headers);
    answer.ok(200).as_str().unwrap().to_owned()
}

fn tables() -> Vec<TableUsage> {
    let table = |table: &str, used| TableUsage {
        table: table.to_owned(),
        used,
        capacity: 1_000,
        bytes: 64_000,
    };
    vec![table("conns", 250), table("local_ports/local", 7)]
}

#[tokio::test]
async fn metrics_speak_the_words_of_the_api() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let alone = metrics(&api, OPEN_METRICS).await;
    assert!(alone.contains("sluice_dataplane_up 0\n") && alone.ends_with("# EOF\n"), "{alone}");

    let fake = FakeDataplane::start(&lab.socket());
    api.ready(200).await;
    fake.with(|m| m.tables = tables());
    let text = metrics(&api, OPEN_METRICS).await;
    for line in [
        "# TYPE sluice_drops counter",
        "sluice_drops_total{reason=\"no_backend\"} 3",
        "sluice_drops_total{reason=\"no_route\"} 0",
        "sluice_dataplane_up 1",
        "sluice_worker_stuck{worker=\"0\"} 0",
        "sluice_worker_stalls_total{worker=\"0\"} 3",
        "sluice_worker_stalled_seconds_total{worker=\"0\"} 4.567",
        "sluice_table_used{table=\"conns\"} 250",
        "sluice_table_used{table=\"local_ports\",pool=\"local\"} 7",
        "sluice_port_queue_rx_packets_total{port=\"wan\",queue=\"0\"} 9",
        "sluice_port_queue_mis_steered_packets_total{port=\"wan\",queue=\"0\"} 2",
        "sluice_backend_weight{service=\"web\",backend=\"10.0.0.2:8080\"} 50",
        "sluice_service_packets_total{service=\"web\",direction=\"in\"} 7",
        "sluice_backend_packets_total{service=\"web\",backend=\"10.0.0.1:8080\",direction=\"in\"} 7",
        "sluice_backend_conns{service=\"web\",backend=\"10.0.0.1:8080\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    // The same, for who reads no OpenMetrics.
    let plain = metrics(&api, "text/plain").await;
    assert!(plain.contains("# TYPE sluice_drops_total counter\n"), "{plain}");
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(values(&plain), values(&text));
    server.stop().await;
}

/// What `promtool check metrics` of Prometheus says, if that is installed; what of its rules are most
/// easily broken is checked in any case.
#[tokio::test]
async fn the_linter_of_prometheus_is_silent() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    fake.with(|m| m.tables = tables());
    let text = metrics(&api, "text/plain").await;
    server.stop().await;

    let mut families = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(!help.is_empty(), "{line}");
                assert!(!families.contains(&name.to_owned()), "{name} comes twice");
                families.push(name.to_owned());
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(families.last().unwrap(), name, "its help comes first");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                for unit in ["_milliseconds", "_microseconds", "_ms", "_us", "_percent"] {
                    let base = name.trim_end_matches("_total");
                    assert!(!base.ends_with(unit), "{line}: units are seconds, bytes, ratios");
                }
            }
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(families.last().unwrap(), name, "one family after the other");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
    assert!(families.len() > 20, "{families:?}");

    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let promtool = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else {
        return eprintln!("SKIPPED: no promtool here (Debian: apt install prometheus)");
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""));
}
