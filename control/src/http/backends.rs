//! `/services/{name}/backends` and all below it.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::json;
use sluice_api::{AdminState, BackendId};

use super::body::{Body, aside};
use super::extract::{BackendPath, Segments, Terms};
use super::{App, HttpProblem, view};
use crate::model::{Action, ApiProblem, find_backend, tag_of};
use sluice_api::read::{self, identity_fields, set_identity};

type Answer = Result<Response, HttpProblem>;

/// All backends of a service.
pub async fn list(Shared(app): Shared<App>, Segments(service): Segments<String>) -> Answer {
    let world = app.manager.world();
    let state = &world.state;
    let service = state.find_service(&service)?;
    let backends = view::backends(&world, service);
    Ok(view::found(tag_of(service), json!({ "backends": backends })))
}

/// One backend.
pub async fn read(Shared(app): Shared<App>, BackendPath { service, id }: BackendPath) -> Answer {
    let world = app.manager.world();
    let state = &world.state;
    let service = state.find_service(&service)?;
    let backend = find_backend(service, id)?;
    Ok(view::found(tag_of(backend), view::backend(&world, service, backend)))
}

/// Make a backend.
pub async fn create(
    Shared(app): Shared<App>,
    Segments(service): Segments<String>,
    terms: Terms,
    Body(body): Body,
) -> Answer {
    app.manager.world().state.find_service(&service)?;
    let backend = aside(|| read::backend(body, &service, "new")).map_err(ApiProblem::Invalid)?;
    let id = backend.id();
    let action = Action::CreateBackend { service: service.clone(), backend };
    let done = app.commit(action, terms).await?;
    let location = format!("/api/v1/services/{service}/backends/{id}");
    let service = done.world.state.find_service(&service)?;
    let backend = find_backend(service, id)?;
    let view = view::backend(&done.world, service, backend);
    view::created(&done, tag_of(backend), location, view)
}

/// Put another definition in the place of a backend.
pub async fn replace(
    Shared(app): Shared<App>,
    BackendPath { service, id }: BackendPath,
    terms: Terms,
    Body(mut body): Body,
) -> Answer {
    let world = app.manager.world();
    find_backend(world.state.find_service(&service)?, id)?;
    for (field, value) in identity_fields(id) {
        set_identity(&mut body, &format!("services[{service}].backends[{id}]"), field, value)
            .map_err(ApiProblem::invalid)?;
    }
    let backend =
        aside(|| read::backend(body, &service, &id.to_string())).map_err(ApiProblem::Invalid)?;
    let action = Action::ReplaceBackend { service: service.clone(), backend };
    changed(&app, &service, id, action, terms).await
}

/// Change some fields of a backend.
pub async fn patch(
    Shared(app): Shared<App>,
    BackendPath { service, id }: BackendPath,
    terms: Terms,
    Body(patch): Body,
) -> Answer {
    let action = Action::PatchBackend { service: service.clone(), id, patch };
    changed(&app, &service, id, action, terms).await
}

/// Delete a backend; its conns run out.
pub async fn delete(
    Shared(app): Shared<App>,
    BackendPath { service, id }: BackendPath,
    terms: Terms,
) -> Answer {
    let done = app.commit(Action::DeleteBackend { service, id }, terms).await?;
    view::gone(&done)
}

/// Set a backend's weight.
pub async fn set_weight(
    Shared(app): Shared<App>,
    BackendPath { service, id }: BackendPath,
    terms: Terms,
    Body(body): Body,
) -> Answer {
    let world = app.manager.world();
    find_backend(world.state.find_service(&service)?, id)?;
    let weight = aside(|| read::weight(body, &service, id)).map_err(ApiProblem::Invalid)?;
    let action = Action::SetWeight { service: service.clone(), id, weight };
    changed(&app, &service, id, action, terms).await
}

/// Let a backend keep its conns and take no new ones.
pub async fn drain(app: Shared<App>, path: BackendPath, terms: Terms) -> Answer {
    set_state(app, path, terms, AdminState::Drain).await
}

/// Let a backend take new conns.
pub async fn up(app: Shared<App>, path: BackendPath, terms: Terms) -> Answer {
    set_state(app, path, terms, AdminState::Up).await
}

/// Take a backend out of service.
pub async fn down(app: Shared<App>, path: BackendPath, terms: Terms) -> Answer {
    set_state(app, path, terms, AdminState::Down).await
}

async fn set_state(
    Shared(app): Shared<App>,
    BackendPath { service, id }: BackendPath,
    terms: Terms,
    state: AdminState,
) -> Answer {
    let action = Action::SetBackendState { service: service.clone(), id, state };
    changed(&app, &service, id, action, terms).await
}

async fn changed(app: &App, service: &str, id: BackendId, action: Action, terms: Terms) -> Answer {
    let done = app.commit(action, terms).await?;
    let service = done.world.state.find_service(service)?;
    let backend = find_backend(service, id)?;
    view::changed(&done, tag_of(backend), view::backend(&done.world, service, backend))
}
