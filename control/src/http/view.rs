//! Resources as they are read: the configured fields, and beside them what was observed.

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use sluice_api::{Backend, Service};

use super::HttpProblem;
use crate::manager::Manager;
use crate::model::{State, entity_tag};
use crate::observed::Observation;

/// A backend with its observed health.
#[derive(Serialize)]
pub struct BackendView<'a> {
    #[serde(flatten)]
    backend: &'a Backend,
    #[serde(flatten)]
    observed: Observation,
}

/// A backend of a service as it is read.
pub fn backend<'a>(manager: &Manager, service: &Service, backend: &'a Backend) -> BackendView<'a> {
    BackendView { backend, observed: manager.observe_one(service, backend) }
}

/// All backends of a service as they are read.
pub fn backends<'a>(manager: &Manager, service: &'a Service) -> Vec<BackendView<'a>> {
    let observed = manager.observe(service);
    let pairs = service.backends.iter().zip(observed);
    pairs.map(|(backend, observed)| BackendView { backend, observed }).collect()
}

/// A service as it is read.
pub fn service(manager: &Manager, service: &Service) -> Result<Value, HttpProblem> {
    let mut value = serde_json::to_value(service).map_err(internal)?;
    value["backends"] = serde_json::to_value(backends(manager, service)).map_err(internal)?;
    Ok(value)
}

fn internal(error: serde_json::Error) -> HttpProblem {
    HttpProblem::Internal(error.to_string())
}

/// What was read, with the version of the state as its entity tag.
pub fn found(state: &State, body: impl Serialize) -> Response {
    ([etag(state)], Json(body)).into_response()
}

/// What was made, and where.
pub fn created(state: &State, location: String, body: impl Serialize) -> Response {
    let headers = [etag(state), (header::LOCATION, location)];
    (StatusCode::CREATED, headers, Json(body)).into_response()
}

/// Nothing is left to show.
pub fn gone(state: &State) -> Response {
    (StatusCode::NO_CONTENT, [etag(state)]).into_response()
}

fn etag(state: &State) -> (HeaderName, String) {
    (header::ETAG, entity_tag(state.version))
}
