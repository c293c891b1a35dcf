//! `sluice pool …`

use std::net::IpAddr;

use hyper::Method;
use serde_json::{Value, json};

use crate::Context;
use crate::args::{PoolAddress, PoolCommand};
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, field, items};

/// How often a change of a pool's addresses is tried anew when somebody else changed the state
/// between reading and writing.
const ATTEMPTS: u32 = 5;

pub(super) async fn run(context: &Context, command: PoolCommand) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        PoolCommand::List => {
            let answer = client.get("/pools").await?;
            output.answer(&answer.body, list)
        }
        PoolCommand::Show { name } => {
            let answer = client.get(&path(&["pools", &name])).await?;
            // Without the data plane there is a pool all the same, and nothing is known of conns.
            let stats = client.get("/stats").await.map_or(Value::Null, |stats| stats.body);
            output.answer(&answer.body, |pool| show(pool, &stats))
        }
        PoolCommand::Create { name, addresses } => {
            let body = json!({"name": name, "addresses": addresses});
            let answer = client.change(Method::POST, "/pools", Some(&body)).await?;
            output.answer(&answer.body, |_| format!("pool {name} created"))
        }
        PoolCommand::AddAddress { name, addresses } => {
            let add = |mut held: Vec<Value>| {
                held.extend(addresses.iter().map(|address| json!(address)));
                Ok(held)
            };
            let answer = edit(context, &name, add).await?;
            output.answer(&answer, |body| format!("pool {name} has {}", count(body)))
        }
        PoolCommand::RemoveAddress { name, addresses } => {
            let answer = edit(context, &name, |held| without(held, &addresses, &name)).await?;
            output.answer(&answer, |body| format!("pool {name} has {}", count(body)))
        }
        PoolCommand::Drain { at } => state(context, &at, "drain").await,
        PoolCommand::Up { at } => state(context, &at, "up").await,
        PoolCommand::Delete { name } => {
            let answer = client.change(Method::DELETE, &path(&["pools", &name]), None).await?;
            output.answer(&answer.body, |_| format!("pool {name} deleted"))
        }
    }
}

async fn state(context: &Context, at: &PoolAddress, state: &str) -> Result<(), CliError> {
    let PoolAddress { name, address } = at;
    let path = path(&["pools", name, "addresses", &address.to_string(), state]);
    let answer = context.client.change(Method::POST, &path, None).await?;
    let says = match state {
        "drain" => "drains: it keeps its conns and takes no new ones",
        _ => "takes new conns",
    };
    context.output.answer(&answer.body, |_| format!("address {address} of pool {name}: {says}"))
}

/// Reads a pool's addresses and writes them back changed, for the very state that was read: what
/// somebody else adds meanwhile is not lost.
async fn edit(
    context: &Context,
    name: &str,
    change: impl Fn(Vec<Value>) -> Result<Vec<Value>, CliError>,
) -> Result<Value, CliError> {
    let path = path(&["pools", name]);
    let mut attempt = 1;
    loop {
        let read = context.client.get(&path).await?;
        let addresses = change(items(&read.body, "addresses").to_vec())?;
        let drained = items(&read.body, "drained").iter().filter(|a| addresses.contains(a));
        let drained: Vec<&Value> = drained.collect();
        let patch = json!({ "addresses": addresses, "drained": drained });
        match context.client.send(Method::PATCH, &path, Some(&patch), read.etag).await {
            Err(CliError::Refused(refusal)) if refusal.status == 412 && attempt < ATTEMPTS => {
                attempt += 1;
            }
            written => return written.map(|answer| answer.body),
        }
    }
}

fn without(held: Vec<Value>, gone: &[IpAddr], pool: &str) -> Result<Vec<Value>, CliError> {
    let gone: Vec<Value> = gone.iter().map(|address| json!(address)).collect();
    if let Some(unknown) = gone.iter().find(|address| !held.contains(address)) {
        return Err(CliError::Usage(format!("pool {pool} has no address {unknown}")));
    }
    Ok(held.into_iter().filter(|address| !gone.contains(address)).collect())
}

fn count(pool: &Value) -> String {
    match items(pool, "addresses").len() {
        1 => "1 address".to_owned(),
        n => format!("{n} addresses"),
    }
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&["NAME", ">COUNT", "ADDRESSES"]);
    for pool in items(answer, "pools") {
        let addresses = items(pool, "addresses");
        let shown = match addresses {
            [first, _, _, .., last] => format!("{}, … {}", text(first), text(last)),
            _ => field(pool, "addresses"),
        };
        table.row(vec![field(pool, "name"), addresses.len().to_string(), shown]);
    }
    table.render("There are no pools yet. `sluice pool create --help` tells how to make one.")
}

fn show(pool: &Value, stats: &Value) -> String {
    let drained = items(pool, "drained");
    let line = |address: &Value| {
        let state = if drained.contains(address) {
            let of_it = items(stats, "leaving").iter().find(|of| of["address"] == *address);
            match of_it.and_then(|of| of["conns"].as_u64()) {
                Some(conns) => format!("  drains, {conns} conns left"),
                None => "  drains".to_owned(),
            }
        } else {
            String::new()
        };
        format!("\n  {}{state}", text(address))
    };
    let lines: String = items(pool, "addresses").iter().map(line).collect();
    format!("{}  {}{lines}", field(pool, "name"), count(pool))
}

fn text(address: &Value) -> &str {
    address.as_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drained_addresses_are_shown_with_the_conns_that_are_left() {
        let pool = json!({
            "name": "lan", "addresses": ["10.0.0.8", "10.0.0.9"], "drained": ["10.0.0.9"]
        });
        let leaving = json!({"leaving": [{"address": "10.0.0.9", "conns": 3}]});
        assert_eq!(
            show(&pool, &leaving),
            "lan  2 addresses\n  10.0.0.8\n  10.0.0.9  drains, 3 conns left"
        );
        assert!(show(&pool, &Value::Null).ends_with("10.0.0.9  drains"));
    }
}
