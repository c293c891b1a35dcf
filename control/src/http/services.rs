//! `/services` and `/services/{name}`.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::{Value, json};

use super::body::{Body, aside};
use super::extract::{Segments, Terms};
use super::{App, HttpProblem, view};
use crate::model::{Action, ApiProblem, state_tag, tag_of};
use sluice_api::read::{self, Spelling, set_identity};

type Answer = Result<Response, HttpProblem>;

/// All services with their backends.
pub async fn list(Shared(app): Shared<App>) -> Answer {
    let world = app.manager.world();
    let state = &world.state;
    let services = state.services.iter().map(|s| view::service(&world, s));
    let services: Vec<Value> = services.collect::<Result<_, _>>()?;
    Ok(view::found(state_tag(state), json!({ "services": services })))
}

/// One service.
pub async fn read(Shared(app): Shared<App>, Segments(name): Segments<String>) -> Answer {
    let world = app.manager.world();
    let state = &world.state;
    let service = state.find_service(&name)?;
    Ok(view::found(tag_of(service), view::service(&world, service)?))
}

/// Make a service.
pub async fn create(Shared(app): Shared<App>, terms: Terms, Body(body): Body) -> Answer {
    let service =
        aside(|| read::service(body, Spelling::Json, "new")).map_err(ApiProblem::Invalid)?;
    let name = service.name.clone();
    let done = app.commit(Action::CreateService(service), terms).await?;
    let service = done.world.state.find_service(&name)?;
    let location = format!("/api/v1/services/{name}");
    let view = view::service(&done.world, service)?;
    view::created(&done, tag_of(service), location, view)
}

/// Put another definition in the place of a service.
pub async fn replace(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    terms: Terms,
    Body(mut body): Body,
) -> Answer {
    app.manager.world().state.find_service(&name)?;
    set_identity(&mut body, &format!("services[{name}]"), "name", Value::from(name.as_str()))
        .map_err(ApiProblem::invalid)?;
    let service =
        aside(|| read::service(body, Spelling::Json, &name)).map_err(ApiProblem::Invalid)?;
    changed(&app, &name, Action::ReplaceService(service), terms).await
}

/// Change some fields of a service.
pub async fn patch(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    terms: Terms,
    Body(patch): Body,
) -> Answer {
    changed(&app, &name, Action::PatchService { name: name.clone(), patch }, terms).await
}

/// Delete a service and its backends.
pub async fn delete(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    terms: Terms,
) -> Answer {
    let done = app.commit(Action::DeleteService { name }, terms).await?;
    view::gone(&done)
}

async fn changed(app: &App, name: &str, action: Action, terms: Terms) -> Answer {
    let done = app.commit(action, terms).await?;
    let service = done.world.state.find_service(name)?;
    let view = view::service(&done.world, service)?;
    view::changed(&done, tag_of(service), view)
}
