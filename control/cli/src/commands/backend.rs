//! `sluice backend …`

use hyper::Method;
use serde_json::{Value, json};

use crate::Context;
use crate::args::{BackendAt, BackendCommand, Limit};
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, duration, field, items};
use sluice_api::clock::now_ms;

pub(super) async fn run(context: &Context, command: BackendCommand) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        BackendCommand::List { service } => {
            let answer = client.get(&path(&["services", &service, "backends"])).await?;
            output.answer(&answer.body, |body| table(items(body, "backends")))
        }
        BackendCommand::Add { at, weight, max_conns, zone, state } => {
            let mut body = json!({"address": at.backend.address, "port": at.backend.port});
            let optional = [
                ("weight", json!(weight)),
                ("max_conns", json!(max_conns)),
                ("zone", json!(zone)),
                ("state", json!(state)),
            ];
            for (name, value) in optional.into_iter().filter(|(_, value)| !value.is_null()) {
                body[name] = value;
            }
            let path = path(&["services", &at.service, "backends"]);
            let answer = client.change(Method::POST, &path, Some(&body)).await?;
            output.answer(&answer.body, |_| done(&at, "added"))
        }
        BackendCommand::Remove { at } => {
            let answer = client.change(Method::DELETE, &path_of(&at, None), None).await?;
            output.answer(&answer.body, |_| done(&at, "removed"))
        }
        BackendCommand::Weight { at, weight } => {
            let (path, body) = (path_of(&at, Some("weight")), json!({"weight": weight}));
            let answer = client.change(Method::PUT, &path, Some(&body)).await?;
            output.answer(&answer.body, |_| done(&at, &format!("weight is {weight}")))
        }
        BackendCommand::MaxConns { at, max_conns: Limit(limit) } => {
            let body = json!({"max_conns": limit});
            let answer = client.change(Method::PATCH, &path_of(&at, None), Some(&body)).await?;
            let says = match limit {
                Some(limit) => format!("takes no new conns while it has {limit}"),
                None => "has no limit of conns".to_owned(),
            };
            output.answer(&answer.body, |_| done(&at, &says))
        }
        BackendCommand::Drain { at } => state(context, &at, "drain").await,
        BackendCommand::Up { at } => state(context, &at, "up").await,
        BackendCommand::Down { at } => state(context, &at, "down").await,
    }
}

async fn state(context: &Context, at: &BackendAt, state: &str) -> Result<(), CliError> {
    let path = path_of(at, Some(state));
    let answer = context.client.change(Method::POST, &path, None).await?;
    let says = match state {
        "drain" => "drains: it keeps its conns and takes no new ones",
        "down" => "is down: no new conns, no health checks",
        _ => "is up: it takes new conns while it is healthy",
    };
    context.output.answer(&answer.body, |_| done(at, says))
}

fn path_of(at: &BackendAt, action: Option<&str>) -> String {
    let id = at.backend.to_string();
    let mut segments = vec!["services", &at.service, "backends", &id];
    segments.extend(action);
    path(&segments)
}

fn done(at: &BackendAt, what: &str) -> String {
    format!("backend {} of service {}: {what}", at.backend, at.service)
}

/// Backends with their configured and observed state.
pub(super) fn table(backends: &[Value]) -> String {
    let mut table = Table::new(&[
        "BACKEND",
        ">WEIGHT",
        ">MAX CONNS",
        "ZONE",
        "STATE",
        "HEALTH",
        "FOR",
        "NEW CONNS",
        "REASON",
    ]);
    let now = now_ms();
    for backend in backends {
        let observed = &backend["observed"];
        let since = observed["health_since_ms"].as_u64().filter(|since| *since > 0);
        table.row(vec![
            format!("{}:{}", field(backend, "address"), field(backend, "port")),
            field(backend, "weight"),
            field(backend, "max_conns"),
            field(backend, "zone"),
            field(backend, "state"),
            field(observed, "health"),
            since.map_or("-".to_owned(), |since| duration(now.saturating_sub(since))),
            field(observed, "takes_new_conns"),
            match field(observed, "reason").as_str() {
                "-" => field(observed, "health_reason"),
                reason => format!("{reason}; {}", field(observed, "health_reason")),
            },
        ]);
    }
    table.render("There are no backends yet. `sluice backend add --help` tells how to add one.")
}
