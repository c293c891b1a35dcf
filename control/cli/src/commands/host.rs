//! `sluice host …`: all backends at one address, in whichever services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::Context;
use crate::args::HostCommand;
use crate::error::{CliError, Refusal, say};
use crate::table::{Table, field, integer, items};

/// How often a change is tried anew when somebody else changed the state between reading and writing.
const ATTEMPTS: u32 = 5;
/// Time between two looks at the conns that are left.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(context: &Context, command: HostCommand) -> Result<(), CliError> {
    match command {
        HostCommand::Show { address } => show(context, address).await,
        HostCommand::Up { address } => {
            let (answer, services) = change(context, address, "drain", "up", true).await?;
            let text = match services.is_empty() {
                true => format!("host {address} has no backend that drains"),
                false => format!("host {address} takes new conns in {}", counted(&services)),
            };
            context.output.answer(&answer, |_| text)
        }
        HostCommand::Drain { address, force, deadline } => {
            let (answer, services) = change(context, address, "up", "drain", force).await?;
            let text = match services.is_empty() {
                true => format!("host {address} has no backend that is up"),
                false => format!(
                    "host {address} drains in {}: it keeps its conns and takes no new ones",
                    counted(&services)
                ),
            };
            context.output.answer(&answer, |_| text)?;
            // While the change is not applied, none that are left may be followed by new ones.
            match deadline.filter(|_| context.client.not_applied().is_none()) {
                Some(deadline) => wait_until_empty(context, address, deadline).await,
                None => Ok(()),
            }
        }
    }
}

/// Sets the state of all backends at an address that have the state `from`, in one change, or in none: of
/// the very state that was read. Returns the answer, and the services of which that changes a backend.
async fn change(
    context: &Context,
    address: IpAddr,
    from: &str,
    to: &str,
    force: bool,
) -> Result<(Value, Vec<String>), CliError> {
    let mut attempt = 1;
    loop {
        let read = context.client.get("/services").await?;
        let with_host: Vec<&Value> =
            items(&read.body, "services").iter().filter(|s| has(s, address)).collect();
        if with_host.is_empty() {
            return Err(nowhere(address));
        }
        let emptied: Vec<String> =
            with_host.iter().filter(|s| is_emptied(s, address)).map(|s| field(s, "name")).collect();
        if !force && !emptied.is_empty() {
            return Err(would_empty(address, &emptied));
        }
        let mut services: Vec<Value> = with_host.iter().map(|s| (*s).clone()).collect();
        services.retain_mut(|service| set_states(service, address, from, to));
        if services.is_empty() {
            return Ok((Value::Null, Vec::new()));
        }
        let names = services.iter().map(|service| field(service, "name")).collect();
        let body = json!({ "services": services });
        match context.client.send(Method::POST, "/apply", Some(&body), read.etag).await {
            Err(CliError::Refused(refusal)) if refusal.status == 412 && attempt < ATTEMPTS => {
                attempt += 1;
            }
            written => return written.map(|answer| (answer.body, names)),
        }
    }
}

/// Sets the state of a service's backends at an address that have the state `from`; whether there are any.
fn set_states(service: &mut Value, address: IpAddr, from: &str, to: &str) -> bool {
    let mut any = false;
    for backend in service["backends"].as_array_mut().into_iter().flatten() {
        if is_at(backend, address) && backend["state"] == from {
            backend["state"] = json!(to);
            any = true;
        }
    }
    any
}

fn is_at(backend: &Value, address: IpAddr) -> bool {
    backend["address"].as_str().and_then(|text| text.parse().ok()) == Some(address)
}

fn has(service: &Value, address: IpAddr) -> bool {
    items(service, "backends").iter().any(|backend| is_at(backend, address))
}

/// Whether a service has new conns served by this host alone.
fn is_emptied(service: &Value, address: IpAddr) -> bool {
    let takes = |backend: &&Value| backend["observed"]["takes_new_conns"] == true;
    let mut taking = items(service, "backends").iter().filter(takes).peekable();
    taking.peek().is_some() && taking.all(|backend| is_at(backend, address))
}

fn nowhere(address: IpAddr) -> CliError {
    let detail = format!("no service has a backend at {address}");
    CliError::Refused(Refusal {
        status: 404,
        title: "not found".into(),
        detail,
        ..Refusal::default()
    })
}

fn would_empty(address: IpAddr, services: &[String]) -> CliError {
    let detail = format!(
        "no other backend than those at {address} takes new conns of {}: nothing was changed; --force \
         drains it all the same",
        counted(services)
    );
    CliError::Refused(Refusal {
        status: 409,
        title: "conflict".into(),
        detail,
        ..Refusal::default()
    })
}

/// Most services that are named.
const NAMED: usize = 8;

fn counted(services: &[String]) -> String {
    let named = services[..services.len().min(NAMED)].join(", ");
    match services.len() {
        1 => format!("service {named}"),
        count if count > NAMED => format!("{count} services: {named} and {} more", count - NAMED),
        count => format!("{count} services: {named}"),
    }
}

/// Conns of all backends at an address, and of how many services they are.
fn conns_left(stats: &Value, address: IpAddr) -> (u64, usize) {
    let (mut conns, mut services) = (0, BTreeSet::new());
    for service in items(stats, "services") {
        for backend in items(service, "backends").iter().filter(|b| is_at(b, address)) {
            let of_backend = backend["conns"].as_u64().unwrap_or_default();
            conns += of_backend;
            if of_backend > 0 {
                services.insert(field(service, "name"));
            }
        }
    }
    (conns, services.len())
}

/// Tells how many conns are left until there are none.
///
/// # Errors
/// [`CliError::NotEmpty`] when some are left at the deadline.
async fn wait_until_empty(
    context: &Context,
    address: IpAddr,
    deadline: Duration,
) -> Result<(), CliError> {
    let started = Instant::now();
    let mut told = None;
    loop {
        let stats = context.client.get("/stats").await?;
        let (conns, services) = conns_left(&stats.body, address);
        if conns == 0 {
            say(&format!("host {address} has no conns left"));
            return Ok(());
        }
        if told != Some(conns) {
            let of = if services == 1 { "service" } else { "services" };
            say(&format!("host {address}: {} conns left in {services} {of}", integer(conns)));
            told = Some(conns);
        }
        let left = deadline.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(CliError::NotEmpty { host: address, conns });
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

async fn show(context: &Context, address: IpAddr) -> Result<(), CliError> {
    let services = context.client.get("/services").await?.body;
    // Without the data plane there are backends all the same, and nothing is known of conns.
    let stats = context.client.get("/stats").await.map_or(Value::Null, |stats| stats.body);
    let mut found = Vec::new();
    for service in items(&services, "services") {
        for backend in items(service, "backends").iter().filter(|b| is_at(b, address)) {
            let mut backend = backend.clone();
            backend["service"] = service["name"].clone();
            backend["conns"] = conns_of(&stats, &backend);
            found.push(backend);
        }
    }
    if found.is_empty() {
        return Err(nowhere(address));
    }
    context.output.answer(&json!({"address": address, "backends": found}), table)
}

fn conns_of(stats: &Value, backend: &Value) -> Value {
    let mut services = items(stats, "services").iter();
    let service = services.find(|service| service["name"] == backend["service"]);
    let mut backends = service.map_or(&[][..], |service| items(service, "backends")).iter();
    let same = |of: &&Value| of["address"] == backend["address"] && of["port"] == backend["port"];
    backends.find(same).map_or(Value::Null, |found| found["conns"].clone())
}

fn table(host: &Value) -> String {
    let mut table =
        Table::new(&["SERVICE", ">PORT", ">WEIGHT", "STATE", "HEALTH", "NEW CONNS", ">CONNS"]);
    for backend in items(host, "backends") {
        let observed = &backend["observed"];
        table.row(vec![
            field(backend, "service"),
            field(backend, "port"),
            field(backend, "weight"),
            field(backend, "state"),
            field(observed, "health"),
            field(observed, "takes_new_conns"),
            backend["conns"].as_u64().map_or("-".to_owned(), integer),
        ]);
    }
    table.render("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, backends: &[(&str, bool)]) -> Value {
        let backends = backends.iter().map(
            |(address, takes)| json!({"address": address, "observed": {"takes_new_conns": takes}}),
        );
        json!({"name": name, "backends": backends.collect::<Vec<_>>()})
    }

    #[test]
    fn a_service_is_emptied_when_nobody_else_takes_new_conns() {
        let host = "10.0.0.1".parse().unwrap();
        let cases = [
            (vec![("10.0.0.1", true), ("10.0.0.2", true)], false),
            (vec![("10.0.0.1", true), ("10.0.0.2", false)], true),
            (vec![("10.0.0.1", true), ("10.0.0.1", true)], true),
            (vec![("10.0.0.1", false), ("10.0.0.2", false)], false),
            (vec![("10.0.0.2", true)], false),
        ];
        for (backends, emptied) in cases {
            assert_eq!(is_emptied(&service("web", &backends), host), emptied, "{backends:?}");
        }
    }

    #[test]
    fn conns_are_added_up_over_services() {
        let backend = |address: &str, conns: u64| json!({"address": address, "conns": conns});
        let stats = json!({"services": [
            {"name": "a", "backends": [backend("10.0.0.1", 2), backend("10.0.0.1", 3)]},
            {"name": "b", "backends": [backend("10.0.0.1", 0), backend("10.0.0.2", 9)]},
            {"name": "c", "backends": [backend("10.0.0.1", 1)]},
        ]});
        assert_eq!(conns_left(&stats, "10.0.0.1".parse().unwrap()), (6, 2));
        assert_eq!(conns_left(&Value::Null, "10.0.0.1".parse().unwrap()), (0, 0));
    }
}
