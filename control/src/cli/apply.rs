//! `sluice apply FILE`: make the pools and services of a file be as they are in it.
//!
//! The API changes one resource at a time, so the whole is checked here first, by control's own
//! rules and together with what is there: a file with a mistake changes nothing. Nothing is
//! deleted; what the file does not name stays as it is.

use std::collections::HashSet;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sluice_api::service::HealthCheck;
use sluice_api::stats::Limits;
use sluice_api::{
    AdminState, Backend, HashOn, Mode, NoConn, Pool, Problem, Protocol, Scheduler, Service,
    Timeouts,
};

use super::Context;
use super::client::path;
use super::error::{CliError, Refusal};
use super::table::items;
use crate::config::in_toml;
use crate::model::read::{self, Spelling};
use crate::model::{Environment, State, check};

/// The resources of a file.
#[derive(Debug, Default)]
struct Wanted {
    pools: Vec<Pool>,
    services: Vec<Service>,
}

/// One resource that is to be as in the file.
struct Step {
    kind: &'static str,
    name: String,
    body: Value,
    change: &'static str,
}

pub(super) async fn run(context: &Context, file: &Path) -> Result<(), CliError> {
    let (value, spelling) = parse(file)?;
    let wanted = resources(value, spelling)
        .map_err(|problems| CliError::File { file: file.display().to_string(), problems })?;
    let current = Wanted {
        pools: read_all(context, "pools").await?,
        services: read_all(context, "services").await?,
    };
    check_together(&wanted, &current, spelling)?;
    let steps = steps(&wanted, &current)?;
    let (done, outcome) = carry_out(context, steps).await;
    report(context, &done)?;
    outcome
}

/// `sluice confirm`: the state may be published as it is.
pub(super) async fn confirm(context: &Context) -> Result<(), CliError> {
    let answer = context.client.change(Method::POST, &path(&["confirm"]), None).await?;
    context.output.answer(&answer.body, |_| "the state may be published as it is".to_owned())
}

/// A JSON or TOML file as a value; `-` is standard input.
pub(super) fn read_file(file: &Path) -> Result<Value, CliError> {
    parse(file).map(|(value, _)| value)
}

/// What the name does not tell, the first character does: JSON's is `{`, which begins no TOML.
fn parse(file: &Path) -> Result<(Value, Spelling), CliError> {
    let wrong = |why: String| CliError::Usage(format!("{}: {why}", file.display()));
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let is_json = match file.extension().and_then(|e| e.to_str()) {
        Some("json") => true,
        Some("toml") => false,
        _ => text.trim_start().starts_with('{'),
    };
    if is_json {
        let value = serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
        Ok((value, Spelling::Json))
    } else {
        let value = toml::from_str(&text)
            .map_err(|e| wrong(format!("not TOML: {}", e.to_string().trim_end())))?;
        Ok((value, Spelling::Toml))
    }
}

/// The file's resources, or everything that is wrong with it by itself.
fn resources(value: Value, spelling: Spelling) -> Result<Wanted, Vec<Problem>> {
    let (pools, services) = (spelling.pools(), spelling.services());
    let Value::Object(map) = value else {
        let expected = format!("an object with the lists {pools:?} and {services:?}");
        return Err(vec![Problem::new("(the file)", read::shown(&value), expected)]);
    };
    let mut problems = Vec::new();
    let mut wanted = Wanted::default();
    for (key, value) in map {
        if key == pools {
            let read = |item, label: &str| read::pool(item, spelling, label);
            wanted.pools = list(&key, value, read, |pool| &pool.name, &mut problems);
        } else if key == services {
            let read = |item, label: &str| read::service(item, spelling, label);
            wanted.services = list(&key, value, read, |service| &service.name, &mut problems);
        } else if !read::NOT_CONFIGURED.contains(&key.as_str()) {
            let expected = format!("{pools} or {services}");
            problems.push(Problem::new(key, read::shown(&value), expected));
        }
    }
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

fn list<T>(
    key: &str,
    value: Value,
    read: impl Fn(Value, &str) -> Result<T, Vec<Problem>>,
    name: impl Fn(&T) -> &String,
    problems: &mut Vec<Problem>,
) -> Vec<T> {
    let Value::Array(list) = value else {
        problems.push(Problem::new(key, read::shown(&value), "a list"));
        return Vec::new();
    };
    let mut read_items: Vec<T> = Vec::with_capacity(list.len());
    let mut names = HashSet::new();
    for (index, item) in list.into_iter().enumerate() {
        match read(item, &format!("#{}", index + 1)) {
            Ok(item) => {
                if !names.insert(name(&item).clone()) {
                    let field = format!("{key}[{}].name", name(&item));
                    let value = format!("{:?}", name(&item));
                    problems.push(Problem::new(field, value, "each name once in a file"));
                }
                read_items.push(item);
            }
            Err(mut more) => problems.append(&mut more),
        }
    }
    read_items
}

/// All pools or services that the API has, as they are configured.
async fn read_all<T: DeserializeOwned>(context: &Context, list: &str) -> Result<Vec<T>, CliError> {
    let request = path(&[list]);
    let answer = context.client.get(&request).await?.body;
    items(&answer, list)
        .iter()
        .map(|item| serde_json::from_value(configured(item)))
        .collect::<Result<_, _>>()
        .map_err(|error| CliError::Answer {
            request: format!("GET {request}"),
            reason: error.to_string(),
        })
}

/// A resource without what was observed of it, which is all that a definition does not know.
fn configured(resource: &Value) -> Value {
    let known = definition();
    let mut resource =
        keep(resource, |name| known.get(name).is_some() || matches!(name, "addresses" | "drained"));
    if let Some(Value::Array(backends)) = resource.get_mut("backends") {
        for backend in backends {
            *backend = keep(backend, |name| known["backends"][0].get(name).is_some());
        }
    }
    resource
}

fn keep(object: &Value, wanted: impl Fn(&str) -> bool) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let kept: Map<String, Value> = fields
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(kept)
}

/// A service with all fields that a definition can have; only their names matter.
fn definition() -> Value {
    let nobody = std::net::Ipv4Addr::UNSPECIFIED;
    json!(Service {
        name: String::new(),
        vip: nobody,
        port: 0,
        protocol: Protocol::Tcp,
        mode: Mode::Dr,
        scheduler: Scheduler::default(),
        hash_on: HashOn::default(),
        maglev_slots: 0,
        max_conns: Some(NonZeroU32::MIN),
        pool: Some(String::new()),
        no_conn: Some(NoConn::Drop),
        no_backend: sluice_api::Refusal::default(),
        timeouts: Timeouts::default(),
        health_check: Some(HealthCheck::default()),
        backends: vec![Backend {
            address: nobody,
            port: 0,
            weight: 0,
            max_conns: Some(NonZeroU32::MIN),
            zone: Some(String::new()),
            state: AdminState::default(),
        }],
    })
}

/// Checks the state that the file would lead to. What only the data plane knows, its limits and
/// its ports' addresses, the API checks.
fn check_together(wanted: &Wanted, current: &Wanted, spelling: Spelling) -> Result<(), CliError> {
    let state = State {
        version: 0,
        services: replaced(&current.services, &wanted.services, |service| &service.name),
        pools: replaced(&current.pools, &wanted.pools, |pool| &pool.name),
    };
    let all = u32::MAX;
    let limits = Limits { connections: all, services: all, backends: all, neighbours: all };
    let environment = Environment { limits, port_addresses: Vec::new() };
    let problems = check::state(&state, &environment);
    if problems.is_empty() {
        return Ok(());
    }
    let in_words = |problem| if spelling == Spelling::Toml { in_toml(problem) } else { problem };
    Err(CliError::Refused(Refusal {
        kind: "about:blank".to_owned(),
        title: "nothing was applied: the file breaks rules, together with what is there".to_owned(),
        status: 422,
        detail: String::new(),
        problems: problems.into_iter().map(in_words).collect(),
    }))
}

fn replaced<T: Clone>(current: &[T], wanted: &[T], name: impl Fn(&T) -> &String) -> Vec<T> {
    let names: HashSet<&String> = wanted.iter().map(&name).collect();
    let others = current.iter().filter(|item| !names.contains(name(item)));
    others.chain(wanted).cloned().collect()
}

/// What is to be done: pools first, as services name them.
fn steps(wanted: &Wanted, current: &Wanted) -> Result<Vec<Step>, CliError> {
    let mut steps = compare("pool", &wanted.pools, &current.pools, |pool| &pool.name)?;
    steps.extend(compare("service", &wanted.services, &current.services, |s| &s.name)?);
    Ok(steps)
}

fn compare<T: PartialEq + Serialize>(
    kind: &'static str,
    wanted: &[T],
    current: &[T],
    name: impl Fn(&T) -> &String,
) -> Result<Vec<Step>, CliError> {
    wanted
        .iter()
        .map(|item| {
            let change = match current.iter().find(|held| name(held) == name(item)) {
                None => "created",
                Some(held) if held == item => "unchanged",
                Some(_) => "replaced",
            };
            let body = serde_json::to_value(item)
                .map_err(|error| CliError::Usage(format!("{kind} {}: {error}", name(item))))?;
            Ok(Step { kind, name: name(item).clone(), body, change })
        })
        .collect()
}

/// Carries the steps out; returns those done, and why it ended. A step that is refused may pass
/// once the others are done, as when an address moves from one pool to another: such steps are
/// tried again while anything else moves.
async fn carry_out(context: &Context, steps: Vec<Step>) -> (Vec<Step>, Result<(), CliError>) {
    let (mut done, mut pending): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| step.change == "unchanged");
    while !pending.is_empty() {
        let before = pending.len();
        let mut refused = Vec::new();
        let mut first_refusal = None;
        for step in pending {
            match send(context, &step).await {
                Ok(()) => done.push(step),
                Err(CliError::Refused(refusal)) if refusal.status < 500 => {
                    first_refusal.get_or_insert(CliError::Refused(refusal));
                    refused.push(step);
                }
                Err(error) => return (done, Err(error)),
            }
        }
        if let Some(refusal) = first_refusal
            && refused.len() == before
        {
            return (done, Err(refusal));
        }
        pending = refused;
    }
    (done, Ok(()))
}

async fn send(context: &Context, step: &Step) -> Result<(), CliError> {
    let list = if step.kind == "pool" { "pools" } else { "services" };
    let (method, path) = match step.change {
        "created" => (Method::POST, path(&[list])),
        _ => (Method::PUT, path(&[list, &step.name])),
    };
    context.client.change(method, &path, Some(&step.body)).await.map(|_| ())
}

fn report(context: &Context, done: &[Step]) -> Result<(), CliError> {
    if context.output.json {
        let change = |s: &Step| json!({"kind": s.kind, "name": s.name, "change": s.change});
        let changes: Vec<Value> = done.iter().map(change).collect();
        return context.output.value(&json!({ "changes": changes }));
    }
    if done.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        done.iter().map(|s| format!("{} {} {}", s.kind, s.name, s.change)).collect();
    context.output.text(&lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_observed_is_no_part_of_a_definition() {
        let answer = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "observed": {"backends_healthy": 1},
            "backends": [{"address": "10.0.0.1", "port": 80, "zone": "a",
                          "observed": {"health": "healthy"}}]
        });
        let service: Service = serde_json::from_value(configured(&answer)).unwrap();
        assert_eq!(service.backends[0].zone.as_deref(), Some("a"));
        let pool =
            json!({"name": "p", "addresses": ["10.0.0.9"], "observed": {"used_by": ["web"]}});
        let pool: Pool = serde_json::from_value(configured(&pool)).unwrap();
        assert_eq!(pool.addresses.len(), 1);
    }

    #[test]
    fn a_files_mistakes_are_all_told() {
        let value = json!({
            "pool": [{"name": "p", "addresses": ["10.0.0.9"]}, {"name": "p", "addresses": ["x"]},
                     {"name": "p", "addresses": []}],
            "colour": 1,
        });
        let problems = resources(value, Spelling::Toml).unwrap_err();
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["colour", "pool[p].addresses", "pool[p].name"]);
        assert!(resources(json!([]), Spelling::Json).is_err());
        assert!(resources(json!({}), Spelling::Json).unwrap().pools.is_empty());
    }

    #[test]
    fn rules_between_file_and_state_are_checked_first() {
        let wanted = |value| resources(value, Spelling::Json).unwrap();
        let current = wanted(json!({"pools": [{"name": "old", "addresses": ["10.0.0.9"]}]}));
        let file = wanted(json!({"pools": [{"name": "new", "addresses": ["10.0.0.9"]}]}));
        let error = check_together(&file, &current, Spelling::Json).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("pools[new].addresses is 10.0.0.9"), "{error}");
        // The same pool with other addresses takes the old one's place.
        let file = wanted(json!({"pools": [{"name": "old", "addresses": ["10.0.0.8"]}]}));
        assert!(check_together(&file, &current, Spelling::Json).is_ok());
        let changes = |file: &Wanted| {
            steps(file, &current).unwrap().iter().map(|s| s.change).collect::<Vec<_>>()
        };
        assert_eq!(changes(&file), ["replaced"]);
        assert_eq!(changes(&current), ["unchanged"]);
    }
}
