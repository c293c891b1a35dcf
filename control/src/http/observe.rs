//! What control and the data plane tell about themselves: statistics, events, status, health.

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use sluice_api::stats::{NeighbourStatus, PortStats, PortStatus, TableUsage, WorkerStatus};
use sluice_api::{Protocol, Service};

use super::extract::{EventQuery, Segments};
use super::json::Json;
use super::openapi::{Schemas, without};
use super::{App, HttpProblem};
use crate::compose;
use crate::derived::Surroundings;
use crate::model::reach::cannot_work;
use crate::model::{ApiProblem, Kind};
use crate::world::{World, pending};

type Answer = Result<Response, HttpProblem>;

/// Most lines of `/readyz` about services.
const MOST_TROUBLES: usize = 100;
/// A table this full is named in `/readyz` before it hurts, in percent.
const WARN_PERCENT: u64 = 80;

/// That control answers.
#[derive(Serialize, JsonSchema)]
pub struct Alive {
    /// `alive`.
    status: &'static str,
}

/// That changes reach packets.
#[derive(Serialize, JsonSchema)]
pub struct Ready {
    /// `ready`.
    status: &'static str,
    /// What may be wrong all the same.
    warnings: Vec<String>,
}

/// Next hops.
#[derive(Serialize, JsonSchema)]
pub struct Neighbours {
    /// As the data plane knows them.
    neighbours: Vec<NeighbourStatus>,
}

/// The schema of a port.
pub fn one_port(schemas: &mut Schemas) -> Value {
    let (mut port, mut counters) = (schemas.inline::<PortStatus>(), schemas.inline::<PortStats>());
    without(&mut counters, "name");
    counters["type"] = json!(["object", "null"]);
    port["properties"]["counters"] = counters;
    port
}

/// The schema of all ports.
pub fn all_ports(schemas: &mut Schemas) -> Value {
    let ports = json!({"type": "array", "items": one_port(schemas)});
    json!({"type": "object", "properties": {"ports": ports}, "required": ["ports"]})
}

/// All counters of the data plane.
pub async fn stats(Shared(app): Shared<App>) -> Answer {
    Ok(Json(app.dataplane.stats().await?).into_response())
}

/// Counters of one service.
pub async fn service_stats(Shared(app): Shared<App>, Segments(name): Segments<String>) -> Answer {
    app.manager.world().state.find_service(&name)?;
    let stats = app.dataplane.stats().await?;
    match stats.services.iter().find(|s| s.name == name) {
        Some(service) => Ok(Json(service).into_response()),
        // Configured, but the data plane does not have it (yet, or it refused the snapshot).
        None => {
            let known = stats.services.iter().map(|s| &s.name);
            Err(ApiProblem::not_found(Kind::Service, format!("{name} in the data plane"), known)
                .into())
        }
    }
}

/// What happened.
pub async fn events(Shared(app): Shared<App>, EventQuery { since, limit }: EventQuery) -> Answer {
    Ok(Json(app.manager.events().page(since, limit)).into_response())
}

/// All next hops of the data plane.
pub async fn neighbours(Shared(app): Shared<App>) -> Answer {
    let neighbours = app.dataplane.neighbours().await?;
    Ok(Json(Neighbours { neighbours }).into_response())
}

/// All ports of the data plane, each with its counters.
pub async fn ports(Shared(app): Shared<App>) -> Answer {
    Ok(Json(json!({ "ports": described_ports(&app).await? })).into_response())
}

/// One port.
pub async fn port(Shared(app): Shared<App>, Segments(name): Segments<String>) -> Answer {
    let ports = described_ports(&app).await?;
    match ports.iter().find(|port| port["name"] == name) {
        Some(port) => Ok(Json(port).into_response()),
        None => {
            let known = ports.iter().filter_map(|port| port["name"].as_str());
            Err(ApiProblem::not_found(Kind::Port, name, known).into())
        }
    }
}

async fn described_ports(app: &App) -> Result<Vec<Value>, HttpProblem> {
    let status = app.dataplane.status().await?;
    let stats = app.dataplane.stats().await?;
    let described = status.ports.iter().map(|port| {
        let counters = stats.ports.iter().find(|stats| stats.name == port.name);
        let mut described = serde_json::to_value(port).unwrap_or_default();
        let mut counters = serde_json::to_value(counters).unwrap_or_default();
        if let Some(fields) = counters.as_object_mut() {
            fields.remove("name");
        }
        if let Some(fields) = described.as_object_mut() {
            fields.insert("counters".into(), counters);
        }
        described
    });
    Ok(described.collect())
}

/// Control is alive; no more.
pub async fn healthz() -> Json<Alive> {
    Json(Alive { status: "alive" })
}

/// Whether changes reach packets; tables that fill up are named while there is time.
pub async fn readyz(Shared(app): Shared<App>) -> Answer {
    if let Some(reason) = app.manager.world().link.unready() {
        return Err(HttpProblem::NotReady(reason));
    }
    let (status, stats) = (app.dataplane.status().await?, app.dataplane.stats().await?);
    let world = app.manager.world();
    let mut warnings: Vec<String> = status.workers.iter().filter_map(stuck).collect();
    warnings.extend(pending(&status));
    warnings.extend(world.writes.failing.as_deref().map(not_written));
    warnings.extend(stats.tables.iter().filter_map(nearly_full));
    warnings.extend(stats.pools.into_iter().filter_map(|pool| pool.warning));
    let state = &world.state;
    warnings.extend(state.services.iter().filter_map(counts_the_dead));
    let networks = Surroundings::networks_of(&status);
    warnings.extend(state.services.iter().flat_map(|service| cannot_work(service, &networks)));
    warnings.extend(troubles(&world));
    let (undecided, checks) = world.observed.last_checks.undecided();
    warnings.extend(undecided.iter().map(|(reason, count)| {
        format!(
            "health checks of {count} of {checks} backends tell nothing, health stays: {reason}"
        )
    }));
    Ok(Json(Ready { status: "ready", warnings }).into_response())
}

/// Services that do not serve as desired, the worst first.
fn troubles(world: &World) -> Vec<String> {
    let (mut troubles, mut warnings) = (Vec::new(), Vec::new());
    for (service, derived) in compose::services(world) {
        let name = &service.name;
        if let Some(reason) = derived.reason {
            let text = format!("service {name} is {}: {reason}", derived.state.word());
            troubles.push((std::cmp::Reverse(derived.state), text));
        }
        warnings.extend(derived.warnings.into_iter().map(|w| format!("service {name}: {w}")));
    }
    let left_out = &world.left_out;
    let pools = world.state.pools.iter().filter_map(|p| Some((&p.name, left_out.pool(&p.name)?)));
    warnings.extend(pools.map(|(name, reason)| format!("pool {name}: {reason}")));
    troubles.sort_by_key(|(state, _)| *state);
    let mut all: Vec<String> = troubles.into_iter().map(|(_, text)| text).chain(warnings).collect();
    if all.len() > MOST_TROUBLES {
        let more = all.len() - MOST_TROUBLES;
        all.truncate(MOST_TROUBLES);
        all.push(format!(
            "and {more} more about services: `sluice service list` shows their states"
        ));
    }
    all
}

/// Changes that cannot be kept.
fn not_written(error: &str) -> String {
    format!("the last change could not be kept: {error}")
}

/// A worker that does not come round.
fn stuck(worker: &WorkerStatus) -> Option<String> {
    let WorkerStatus { worker, cpu, stuck_ms, .. } = worker;
    (*stuck_ms > 0).then(|| {
        format!(
            "worker {worker} (CPU {cpu}) has not come round for {stuck_ms} ms: packets of its queues \
             and conns wait, or are lost; silence of backends is not held against them"
        )
    })
}

/// A limit of conns in DR, where their ends are not heard.
fn counts_the_dead(service: &Service) -> Option<String> {
    let is_limited =
        service.max_conns.is_some() || service.backends.iter().any(|b| b.max_conns.is_some());
    let dies_unheard = !service.mode.sees_replies() && service.protocol == Protocol::Tcp;
    (dies_unheard && is_limited).then(|| {
        format!(
            "service {}: with mode {}, max_conns counts conns that the backend has closed or reset \
             until they time out (tcp_established_ms is {})",
            service.name, service.mode, service.timeouts.tcp_established_ms
        )
    })
}

fn nearly_full(table: &TableUsage) -> Option<String> {
    let percent = (table.used * 100).checked_div(table.capacity)?;
    (percent >= WARN_PERCENT).then(|| {
        format!(
            "table {} is {percent} % full: {} of {} entries",
            table.table, table.used, table.capacity
        )
    })
}
