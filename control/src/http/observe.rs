//! What control and the data plane tell about themselves: statistics, events, status, health.

use std::process;

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sluice_api::stats::{TableUsage, WorkerStatus};
use sluice_api::{Mode, Protocol, Service};

use super::extract::{EventQuery, Segments};
use super::json::Json;
use super::{App, HttpProblem};
use crate::compose;
use crate::derived::{Derived, ServiceState, Surroundings};
use crate::model::reach::cannot_work;
use crate::model::{ApiProblem, Kind};
use crate::world::{World, pending};

type Answer = Result<Response, HttpProblem>;

/// Most lines of `/readyz` about services.
const MOST_TROUBLES: usize = 100;
/// A table this full is named in `/readyz` before it hurts, in percent.
const WARN_PERCENT: u64 = 80;

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
    Ok(Json(json!({ "neighbours": neighbours })).into_response())
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

/// Who control and the data plane are, and whether they are in step.
pub async fn status(Shared(app): Shared<App>) -> Answer {
    // Without the data plane the rest of the answer still stands.
    let tables = app.dataplane.stats().await.map(|s| s.tables).ok();
    let world = app.manager.world();
    let (state, link) = (&world.state, &world.link);
    let known = link.status.as_ref();
    let mut dataplane = known.map_or(Ok(json!({})), serde_json::to_value).unwrap_or_default();
    if let Some(fields) = dataplane.as_object_mut() {
        fields.remove("generation");
        fields.insert("connected".into(), json!(link.connected));
        fields.insert("error".into(), json!(link.error));
        fields.insert("socket".into(), json!(app.dataplane.socket.display().to_string()));
        fields.insert("generation_published".into(), json!(link.published));
        // By all workers: what one of them has not taken over is pending.
        fields.insert("generation_applied".into(), json!(known.map(|s| s.workers_generation)));
        fields.insert("pending".into(), json!(known.and_then(pending)));
        fields.insert("rejected".into(), json!(link.rejected));
        fields.insert("tables".into(), json!(tables));
    }
    let backends: usize = state.services.iter().map(|s| s.backends.len()).sum();
    let control = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": process::id(),
        "uptime_ms": app.started.elapsed().as_millis() as u64,
        "state_version": state.version,
        "state_file": &*app.state_file,
        "state_file_error": world.writes.failing,
        "services": state.services.len(),
        "backends": backends,
        "pools": state.pools.len(),
    });
    let unready = link.unready();
    let fares = compose::services(&world);
    let troubled = fares.filter(|(_, derived)| derived.state != ServiceState::Serving);
    let troubled: Vec<Value> = troubled
        .map(|(service, Derived { state, reason, .. })| {
            json!({ "service": service.name, "state": state, "reason": reason })
        })
        .collect();
    Ok(Json(json!({
        "ready": unready.is_none(),
        "unready_reason": unready,
        "not_serving": troubled,
        "control": control,
        "dataplane": dataplane,
    }))
    .into_response())
}

/// Control is alive; no more.
pub async fn healthz() -> Json<Value> {
    Json(json!({ "status": "alive" }))
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
    Ok(Json(json!({ "status": "ready", "warnings": warnings })).into_response())
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
    let dies_unheard = service.mode == Mode::Dr && service.protocol == Protocol::Tcp;
    (dies_unheard && is_limited).then(|| {
        format!(
            "service {}: with mode dr, max_conns counts conns that the backend has closed or reset \
             until they time out (tcp_established_ms is {})",
            service.name, service.timeouts.tcp_established_ms
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
