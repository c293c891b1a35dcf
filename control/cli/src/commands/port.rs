//! `sluice port show`: what the data plane's ports are, how their packets find the worker that owns
//! them, and what their queues received.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Context;
use crate::args::PortCommand;
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, field, integer, items};

pub(super) async fn run(context: &Context, command: PortCommand) -> Result<(), CliError> {
    let PortCommand::Show { name, rates } = command;
    let path = match &name {
        Some(name) => path(&["ports", name]),
        None => "/ports".to_owned(),
    };
    let mut answer = context.client.get(&path).await?.body;
    let mut before = None;
    if let Some(seconds) = rates {
        let read_at = Instant::now();
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        let old = std::mem::replace(&mut answer, context.client.get(&path).await?.body);
        before = Some((old, read_at.elapsed()));
    }
    context.output.answer(&answer, |answer| {
        let old = before.as_ref().map(|(old, elapsed)| (old, *elapsed));
        match &name {
            Some(_) => one(answer, old),
            None => all(answer, old),
        }
    })
}

/// A reading before, and how long ago.
type Before<'v> = Option<(&'v Value, Duration)>;

fn all(answer: &Value, before: Before) -> String {
    let rx = if before.is_some() { ">RX PACKETS/s" } else { ">RX PACKETS" };
    let tx = if before.is_some() { ">TX PACKETS/s" } else { ">TX PACKETS" };
    let columns = ["PORT", "DRIVER", "LINK", ">MTU", ">QUEUES", "STEERING", ">MIS-STEERED", rx, tx];
    let mut table = Table::new(&columns);
    for port in items(answer, "ports") {
        let counters = &port["counters"];
        let old = before.map(|(old, elapsed)| {
            let same = items(old, "ports").iter().find(|p| p["name"] == port["name"]);
            (same.map_or(&Value::Null, |p| &p["counters"]), elapsed)
        });
        table.row(vec![
            field(port, "name"),
            field(port, "driver"),
            link(port).to_owned(),
            field(port, "mtu"),
            field(port, "queues"),
            field(port, "steering"),
            count(counters, "mis_steered", None),
            count(counters, "rx_packets", old),
            count(counters, "tx_packets", old),
        ]);
    }
    table.render("The data plane has no ports.")
}

fn one(port: &Value, before: Before) -> String {
    let rss = match (port["rss_key_bytes"].as_u64(), port["rss_table_entries"].as_u64()) {
        (Some(key @ 1..), Some(table)) => format!("key of {key} bytes, table of {table} entries"),
        _ => "-".to_owned(),
    };
    let offload = |name: &str| if port[name] == true { "by the device" } else { "in software" };
    let facts = [
        ("port", field(port, "name")),
        ("device", field(port, "device")),
        ("driver", field(port, "driver")),
        ("mac", field(port, "mac")),
        ("addresses", field(port, "addresses")),
        ("link", link(port).to_owned()),
        ("mtu", format!("{} (at most {})", field(port, "mtu"), field(port, "max_mtu"))),
        ("queues", format!("{} (at most {})", field(port, "queues"), field(port, "max_queues"))),
        ("steering", format!("{}: {}", field(port, "steering"), field(port, "steering_reason"))),
        ("rss", rss),
        ("ip checksums", offload("ip_checksum_offload").to_owned()),
        ("l4 checksums", offload("l4_checksum_offload").to_owned()),
        ("kernel interface", field(port, "exception")),
    ];
    let facts = facts.map(|(name, value)| format!("{name:<16}  {value}")).join("\n");
    let counters = &port["counters"];
    let rx = if before.is_some() { ">RX PACKETS/s" } else { ">RX PACKETS" };
    let mut table = Table::new(&[">QUEUE", rx, ">MIS-STEERED"]);
    for queue in items(counters, "queues") {
        let old = before.map(|(old, elapsed)| {
            let queues = items(&old["counters"], "queues").iter();
            let same = queues.clone().find(|q| q["queue"] == queue["queue"]);
            (same.unwrap_or(&Value::Null), elapsed)
        });
        table.row(vec![
            field(queue, "queue"),
            count(queue, "rx_packets", old),
            count(queue, "mis_steered", None),
        ]);
    }
    let facts = facts.replace(|c: char| c.is_control() && c != '\n', " ");
    format!("{facts}\n\n{}", table.render("It has no queues."))
}

fn link(port: &Value) -> &'static str {
    if port["link_up"] == true { "up" } else { "down" }
}

/// A counter, or its growth per second; `-` when it went back, as after a restart.
fn count(counters: &Value, name: &str, before: Before) -> String {
    let Some(now) = counters[name].as_u64() else { return "-".to_owned() };
    let Some((old, elapsed)) = before else { return integer(now) };
    match old[name].as_u64().and_then(|old| now.checked_sub(old)) {
        Some(growth) => integer((growth as f64 / elapsed.as_secs_f64().max(0.001)).round() as u64),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn port() -> Value {
        json!({
            "name": "lan", "device": "0000:00:03.1", "driver": "net_virtio",
            "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1/24"], "queues": 2, "max_queues": 4,
            "mtu": 1_500, "max_mtu": 9_216, "link_up": true, "steering": "rss",
            "steering_reason": "verified", "rss_key_bytes": 40, "rss_table_entries": 128,
            "ip_checksum_offload": true, "l4_checksum_offload": false, "exception": null,
            "counters": {
                "rx_packets": 3_000, "tx_packets": 5, "mis_steered": 7,
                "queues": [
                    {"queue": 0, "rx_packets": 1_000, "mis_steered": 7},
                    {"queue": 1, "rx_packets": 2_000, "mis_steered": 0},
                ],
            },
        })
    }

    #[test]
    fn a_port_tells_how_packets_find_their_worker() {
        let text = one(&port(), None);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.contains(&"steering          rss: verified"), "{text}");
        assert!(
            lines.contains(&"rss               key of 40 bytes, table of 128 entries"),
            "{text}"
        );
        assert!(lines.contains(&"mtu               1500 (at most 9216)"), "{text}");
        assert!(lines.last().unwrap().split_whitespace().eq(["1", "2,000", "0"]), "{text}");
    }

    #[test]
    fn rates_are_per_queue_and_survive_a_restart() {
        let mut old = port();
        old["counters"]["queues"][0]["rx_packets"] = json!(0);
        old["counters"]["queues"][1]["rx_packets"] = json!(9_000);
        let text = one(&port(), Some((&old, Duration::from_secs(2))));
        let rows: Vec<Vec<&str>> =
            text.lines().rev().take(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows, [vec!["1", "-", "0"], vec!["0", "500", "7"]], "{text}");
    }

    #[test]
    fn all_ports_are_a_line_each() {
        let text = all(&json!({"ports": [port()]}), None);
        let last = text.lines().last().unwrap().split_whitespace();
        assert!(
            last.eq(["lan", "net_virtio", "up", "1500", "2", "rss", "7", "3,000", "5"]),
            "{text}"
        );
        assert_eq!(all(&json!({"ports": []}), None), "The data plane has no ports.");
    }
}
