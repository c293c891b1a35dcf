//! `sluice vip …`: the addresses that clients connect to.

use serde_json::Value;

use crate::Context;
use crate::args::VipCommand;
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, field, items};

pub(super) async fn run(context: &Context, command: VipCommand) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        VipCommand::List => output.answer(&client.get("/vips").await?.body, list),
        VipCommand::Show { address } => {
            let answer = client.get(&path(&["vips", &address.to_string()])).await?;
            output.answer(&answer.body, show)
        }
    }
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&["ADDRESS", "STATE", "ANNOUNCED", "SERVICES"]);
    for vip in items(answer, "vips") {
        let observed = &vip["observed"];
        table.row(vec![
            field(vip, "address"),
            field(observed, "state"),
            field(observed, "announced"),
            field(vip, "services"),
        ]);
    }
    table.render("There are no VIPs yet: a service brings its own.")
}

fn show(vip: &Value) -> String {
    let observed = &vip["observed"];
    let facts = [
        ("vip", field(vip, "address")),
        ("state", field(observed, "state")),
        ("reason", field(observed, "reason")),
        ("announced", field(observed, "announced")),
        ("services", field(vip, "services")),
    ];
    let facts = facts.map(|(name, value)| format!("{name:<9}  {value}")).join("\n");
    facts.replace(|c: char| c.is_control() && c != '\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_vip_shows_what_is_known_and_no_more() {
        let vip = json!({
            "address": "198.51.100.1", "services": ["web", "api"],
            "observed": {"state": "degraded", "reason": "service api is down", "announced": true},
        });
        let text = show(&vip);
        assert!(text.contains("\nreason     service api is down\nannounced  yes\n"), "{text}");
        assert!(text.ends_with("services   web, api"), "{text}");
        let row = |vip: Value| list(&json!({"vips": [vip]})).lines().nth(1).unwrap().to_owned();
        assert!(row(vip).split_whitespace().eq(["198.51.100.1", "degraded", "yes", "web,", "api"]));
        let quiet = json!({"address": "198.51.100.2", "services": ["web"],
                           "observed": {"state": "serving"}});
        assert!(row(quiet).split_whitespace().eq(["198.51.100.2", "serving", "-", "web"]));
    }
}
