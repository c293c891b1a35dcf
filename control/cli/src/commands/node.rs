//! `sluice node …`: the hosts that control knows of, which today is its own.

use serde_json::Value;

use crate::Context;
use crate::args::NodeCommand;
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, field, items};

pub(super) async fn run(context: &Context, command: NodeCommand) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        NodeCommand::List => output.answer(&client.get("/nodes").await?.body, list),
        NodeCommand::Show { name } => {
            output.answer(&client.get(&path(&["nodes", &name])).await?.body, show)
        }
    }
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&["NAME", "READY", "CONTROL", "DATA PLANE", ">WORKERS", "PORTS"]);
    for node in items(answer, "nodes") {
        let observed = &node["observed"];
        let dataplane = &observed["dataplane"];
        table.row(vec![
            field(node, "name"),
            field(observed, "ready"),
            field(&observed["control"], "version"),
            data_plane(dataplane),
            items(dataplane, "workers").len().to_string(),
            ports(dataplane),
        ]);
    }
    table.render("There are no nodes.")
}

fn show(node: &Value) -> String {
    let observed = &node["observed"];
    let dataplane = &observed["dataplane"];
    let facts = [
        ("node", field(node, "name")),
        ("ready", field(observed, "ready")),
        ("reason", field(observed, "reason")),
        ("control", field(&observed["control"], "version")),
        ("data plane", data_plane(dataplane)),
        ("generation", field(dataplane, "generation_applied")),
        ("ports", ports(dataplane)),
    ];
    let facts = facts.map(|(name, value)| format!("{name:<10}  {value}")).join("\n");
    let facts = facts.replace(|c: char| c.is_control() && c != '\n', " ");
    let mut table = Table::new(&[">WORKER", ">CPU", ">GENERATION", ">STUCK MS"]);
    for worker in items(dataplane, "workers") {
        let columns = ["worker", "cpu", "generation", "stuck_ms"];
        table.row(columns.map(|column| field(worker, column)).to_vec());
    }
    format!("{facts}\n\n{}", table.render("Nothing is known of workers."))
}

/// Its version, and whether it answers.
fn data_plane(dataplane: &Value) -> String {
    match (dataplane["version"].as_str(), dataplane["connected"] == true) {
        (Some(version), true) => version.to_owned(),
        (Some(version), false) => format!("{version}, away"),
        (None, _) => "away".to_owned(),
    }
}

fn ports(dataplane: &Value) -> String {
    let port = |port: &Value| {
        let link = if port["link_up"] == true { "up" } else { "down" };
        format!("{} {link}", field(port, "name"))
    };
    let ports: Vec<String> = items(dataplane, "ports").iter().map(port).collect();
    if ports.is_empty() { "-".to_owned() } else { ports.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_shows_what_its_data_plane_told() {
        let node = json!({
            "name": "lb1",
            "observed": {
                "ready": true, "control": {"version": "1.2.3"},
                "dataplane": {
                    "connected": true, "version": "1.2.4", "generation_applied": 7,
                    "workers": [{"worker": 0, "cpu": 3, "generation": 7, "stuck_ms": 0}],
                    "ports": [{"name": "wan", "addresses": ["192.0.2.1/24"], "link_up": true},
                              {"name": "lan", "addresses": [], "link_up": false}],
                },
            },
        });
        let text = list(&json!({"nodes": [node]}));
        let row = text.lines().nth(1).unwrap().split_whitespace();
        let expected = ["lb1", "yes", "1.2.3", "1.2.4", "1", "wan", "up,", "lan", "down"];
        assert!(row.eq(expected), "{text}");
        let text = show(&node);
        assert!(text.contains("\ngeneration  7\nports       wan up, lan down\n"), "{text}");
        assert!(text.lines().last().unwrap().split_whitespace().eq(["0", "3", "7", "0"]), "{text}");
    }

    #[test]
    fn of_a_data_plane_that_never_told_nothing_is_said() {
        let observed = json!({"ready": false, "reason": "dataplane unreachable: not there",
                              "control": {"version": "1.2.3"}, "dataplane": {"connected": false}});
        let text = show(&json!({"name": "lb1", "observed": observed}));
        assert!(text.contains("\ndata plane  away\ngeneration  -\nports       -\n"), "{text}");
        assert!(text.ends_with("Nothing is known of workers."), "{text}");
    }
}
