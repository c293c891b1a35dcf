//! `/status`: who control and the data plane are, and whether they are in step.

use std::process;

use axum::extract::State as Shared;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sluice_api::Problem;
use sluice_api::stats::{DataplaneStatus, TableUsage};

use super::json::Json;
use super::openapi::{Schemas, without};
use super::{App, HttpProblem};
use crate::compose;
use crate::derived::{Derived, ServiceState};
use crate::world::{World, pending};

/// How both processes are.
#[derive(Serialize, JsonSchema)]
pub struct Status {
    /// Whether changes reach packets.
    ready: bool,
    /// Why not.
    unready_reason: Option<String>,
    /// Services that do not serve as desired.
    not_serving: Vec<NotServing>,
    /// This process.
    control: Control,
    /// The data plane: what it told last, and how it is reached.
    dataplane: Map<String, Value>,
}

/// A service that does not serve as desired.
#[derive(Serialize, JsonSchema)]
struct NotServing {
    /// Its name.
    service: String,
    /// How it fares.
    state: ServiceState,
    /// Why.
    reason: Option<String>,
}

/// This process.
#[derive(Serialize, JsonSchema)]
struct Control {
    /// Version of the program.
    version: &'static str,
    /// Process id.
    pid: u32,
    /// Time since start, in ms.
    uptime_ms: u64,
    /// Version of the desired state.
    state_version: u64,
    /// Where the state and its history are kept.
    database: String,
    /// Why the last write of it failed.
    database_error: Option<String>,
    /// How many services there are.
    services: usize,
    /// How many backends they have in all.
    backends: usize,
    /// How many pools there are.
    pools: usize,
}

/// How the data plane is reached, beside what it tells itself.
#[derive(Serialize, JsonSchema)]
struct Reached {
    /// Whether it answers.
    connected: bool,
    /// Why not.
    error: Option<String>,
    /// Its socket.
    socket: String,
    /// Generation of the last snapshot that it was sent.
    generation_published: u64,
    /// Generation that all its workers forward by; of a worker that has not taken over the newest, `pending`
    /// tells.
    generation_applied: Option<u64>,
    /// What some worker has not taken over.
    pending: Option<String>,
    /// Why it refused the last snapshot.
    rejected: Vec<Problem>,
    /// How full its tables are; absent while it does not answer.
    tables: Option<Vec<TableUsage>>,
}

/// Who control and the data plane are, and whether they are in step.
pub async fn status(Shared(app): Shared<App>) -> Result<Json<Status>, HttpProblem> {
    // Without the data plane the rest of the answer still stands.
    let tables = app.dataplane.stats().await.map(|s| s.tables).ok();
    let world = app.manager.world();
    let unready = world.link.unready();
    let fares = compose::services(&world);
    let troubled = fares.filter(|(_, derived)| derived.state != ServiceState::Serving);
    let not_serving = troubled.map(|(service, Derived { state, reason, .. })| NotServing {
        service: service.name.clone(),
        state,
        reason,
    });
    Ok(Json(Status {
        ready: unready.is_none(),
        unready_reason: unready,
        not_serving: not_serving.collect(),
        control: control(&app, &world),
        dataplane: dataplane(&app, &world, tables)?,
    }))
}

fn control(app: &App, world: &World) -> Control {
    let state = &world.state;
    Control {
        version: env!("CARGO_PKG_VERSION"),
        pid: process::id(),
        uptime_ms: app.started.elapsed().as_millis() as u64,
        state_version: state.version,
        database: app.database.to_string(),
        database_error: world.writes.failing.clone(),
        services: state.services.len(),
        backends: state.services.iter().map(|service| service.backends.len()).sum(),
        pools: state.pools.len(),
    }
}

fn dataplane(
    app: &App,
    world: &World,
    tables: Option<Vec<TableUsage>>,
) -> Result<Map<String, Value>, HttpProblem> {
    let link = &world.link;
    let known = link.status.as_ref();
    let reached = Reached {
        connected: link.connected,
        error: link.error.clone(),
        socket: app.dataplane.socket.display().to_string(),
        generation_published: link.published,
        generation_applied: known.map(|status| status.workers_generation),
        pending: known.and_then(pending),
        rejected: link.rejected.clone(),
        tables,
    };
    let mut told = known.map_or(Ok(Map::new()), fields)?;
    told.remove("generation");
    told.append(&mut fields(&reached)?);
    Ok(told)
}

fn fields(value: &impl Serialize) -> Result<Map<String, Value>, HttpProblem> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        other => Err(HttpProblem::Internal(format!("no fields: {other:?}"))),
    }
}

/// The schema of the answer.
pub fn schema(schemas: &mut Schemas) -> Value {
    let (mut told, reached) = (schemas.inline::<DataplaneStatus>(), schemas.inline::<Reached>());
    without(&mut told, "generation");
    for (name, field) in reached["properties"].as_object().into_iter().flatten() {
        told["properties"][name] = field.clone();
    }
    // What it has never told, nobody knows.
    told["required"] = reached["required"].clone();
    let mut status = schemas.inline::<Status>();
    status["properties"]["dataplane"] = told;
    json!(status)
}
