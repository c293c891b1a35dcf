//! Resources as they are read: the configured fields, and beside them, under the one key `observed`,
//! what was observed. Whoever reads a resource ignores that key, so that an answer is also a body.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, IntoResponseParts, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_api::{AdminState, Backend, Pool, Service};

use super::json::Json;
use super::{Done, HttpProblem};
use crate::compose;
use crate::derived::{Derived, ServiceState, Taking};
use crate::observed::{Health, Observation};
use crate::publish::Fate;
use crate::world::World;

/// A resource and what was observed of it.
#[derive(Serialize)]
pub struct View<'a, R, O> {
    #[serde(flatten)]
    configured: &'a R,
    observed: O,
}

/// What was observed of a backend, and what follows from that.
#[derive(Serialize, JsonSchema)]
pub struct BackendObservation {
    #[serde(flatten)]
    health: Observation,
    #[serde(flatten)]
    taking: Taking,
}

/// A backend with its observed health.
pub type BackendView<'a> = View<'a, Backend, BackendObservation>;

/// What was observed of a service as a whole.
#[derive(Serialize, JsonSchema)]
pub struct ServiceObservation {
    /// How it fares.
    state: ServiceState,
    /// Why it is not serving.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What may be wrong beside that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// How many backends take conns as far as their health goes.
    backends_healthy: usize,
}

/// What is known of a pool beside its definition.
#[derive(Serialize, JsonSchema)]
pub struct PoolObservation<'a> {
    /// Names of the services that use it.
    used_by: Vec<&'a str>,
    /// Why the data plane does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A pool and who uses it.
pub type PoolView<'a> = View<'a, Pool, PoolObservation<'a>>;

/// A backend of a service as it is read.
pub fn backend<'a>(world: &World, service: &Service, backend: &'a Backend) -> BackendView<'a> {
    let health = world.observed.of(service, backend);
    let taking = compose::taking(world, service, backend);
    View { configured: backend, observed: BackendObservation { health, taking } }
}

/// All backends of a service as they are read.
pub fn backends<'a>(world: &World, service: &'a Service) -> Vec<BackendView<'a>> {
    service.backends.iter().map(|one| backend(world, service, one)).collect()
}

/// A service as it is read.
pub fn service(world: &World, service: &Service) -> Result<Value, HttpProblem> {
    let mut value = serde_json::to_value(service).map_err(internal)?;
    let backends = backends(world, service);
    let Derived { state, reason, mut warnings, .. } = compose::service(world, service);
    if !world.has_contact() {
        warnings.push("the data plane does not answer: this is as it was known last".to_owned());
    }
    let observed = ServiceObservation {
        state,
        reason,
        warnings,
        backends_healthy: backends.iter().filter(|backend| backend.counts_as_healthy()).count(),
    };
    value["backends"] = serde_json::to_value(backends).map_err(internal)?;
    value["observed"] = serde_json::to_value(observed).map_err(internal)?;
    Ok(value)
}

impl BackendView<'_> {
    /// Without checks every backend counts as healthy, unless it is taken out of service.
    fn counts_as_healthy(&self) -> bool {
        match self.observed.health.health {
            Health::Unchecked => self.configured.state != AdminState::Down,
            health => health == Health::Healthy,
        }
    }
}

/// A pool as it is read.
pub fn pool<'a>(world: &'a World, pool: &'a Pool) -> PoolView<'a> {
    let users = world.state.services.iter().filter(|s| s.pool.as_ref() == Some(&pool.name));
    let used_by = users.map(|s| s.name.as_str()).collect();
    let reason = world.left_out.pool(&pool.name).map(str::to_owned);
    View { configured: pool, observed: PoolObservation { used_by, reason } }
}

fn internal(error: serde_json::Error) -> HttpProblem {
    HttpProblem::Internal(error.to_string())
}

/// What was read, with its entity tag.
pub fn found(tag: String, body: impl Serialize) -> Response {
    ([(header::ETAG, tag)], Json(body)).into_response()
}

/// What was changed, with its entity tag and what became of it.
pub fn changed(done: &Done, tag: String, body: impl Serialize) -> Result<Response, HttpProblem> {
    let body = serde_json::to_value(body).map_err(internal)?;
    answer(done, StatusCode::OK, [(header::ETAG, tag)], body)
}

/// What was made, where, with its entity tag and what became of it.
pub fn created(
    done: &Done,
    tag: String,
    location: String,
    body: impl Serialize,
) -> Result<Response, HttpProblem> {
    let body = serde_json::to_value(body).map_err(internal)?;
    let headers = [(header::ETAG, tag), (header::LOCATION, location)];
    answer(done, StatusCode::CREATED, headers, body)
}

/// Nothing is left to show but what became of it.
pub fn gone(done: &Done) -> Result<Response, HttpProblem> {
    answer(done, StatusCode::OK, (), Value::Object(Map::new()))
}

/// The resource and `change`; 202 when packets are not treated by it yet (RFC 9110, 15.3.3).
fn answer(
    done: &Done,
    applied: StatusCode,
    headers: impl IntoResponseParts,
    mut body: Value,
) -> Result<Response, HttpProblem> {
    let status = match done.outcome.outcome {
        Fate::Applied => applied,
        Fate::Stored => StatusCode::ACCEPTED,
    };
    body["change"] = serde_json::to_value(&done.outcome).map_err(internal)?;
    Ok((status, headers, Json(body)).into_response())
}
