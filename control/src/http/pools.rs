//! `/pools` and `/pools/{name}`.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::{Value, json};

use super::body::{Body, aside};
use super::extract::{AddressPath, Segments, Terms};
use super::{App, HttpProblem, view};
use crate::model::{Action, ApiProblem, state_tag, tag_of};
use sluice_api::read::{self, Spelling, set_identity};

type Answer = Result<Response, HttpProblem>;

/// All pools.
pub async fn list(Shared(app): Shared<App>) -> Answer {
    let world = app.manager.world();
    let state = &world.state;
    let pools: Vec<_> = state.pools.iter().map(|pool| view::pool(&world, pool)).collect();
    Ok(view::found(state_tag(state), json!({ "pools": pools })))
}

/// One pool.
pub async fn read(Shared(app): Shared<App>, Segments(name): Segments<String>) -> Answer {
    let world = app.manager.world();
    let state = &world.state;
    let pool = state.find_pool(&name)?;
    Ok(view::found(tag_of(pool), view::pool(&world, pool)))
}

/// Make a pool.
pub async fn create(Shared(app): Shared<App>, terms: Terms, Body(body): Body) -> Answer {
    let pool = aside(|| read::pool(body, Spelling::Json, "new")).map_err(ApiProblem::Invalid)?;
    let name = pool.name.clone();
    let done = app.commit(Action::CreatePool(pool), terms).await?;
    let pool = done.world.state.find_pool(&name)?;
    let location = format!("/api/v1/pools/{name}");
    view::created(&done, tag_of(pool), location, view::pool(&done.world, pool))
}

/// Put another definition in the place of a pool.
pub async fn replace(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    terms: Terms,
    Body(mut body): Body,
) -> Answer {
    app.manager.world().state.find_pool(&name)?;
    set_identity(&mut body, &format!("pools[{name}]"), "name", Value::from(name.as_str()))
        .map_err(ApiProblem::invalid)?;
    let pool = aside(|| read::pool(body, Spelling::Json, &name)).map_err(ApiProblem::Invalid)?;
    changed(&app, &name, Action::ReplacePool(pool), terms).await
}

/// Change some fields of a pool.
pub async fn patch(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    terms: Terms,
    Body(patch): Body,
) -> Answer {
    changed(&app, &name, Action::PatchPool { name: name.clone(), patch }, terms).await
}

/// Let an address keep its conns, but give it no new ones.
pub async fn drain(app: Shared<App>, path: AddressPath, terms: Terms) -> Answer {
    set_address(app, path, terms, true).await
}

/// Let new conns use an address.
pub async fn up(app: Shared<App>, path: AddressPath, terms: Terms) -> Answer {
    set_address(app, path, terms, false).await
}

async fn set_address(
    Shared(app): Shared<App>,
    AddressPath { pool, address }: AddressPath,
    terms: Terms,
    drain: bool,
) -> Answer {
    let action = Action::DrainAddress { pool: pool.clone(), address, drain };
    changed(&app, &pool, action, terms).await
}

/// Delete a pool that no service uses.
pub async fn delete(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    terms: Terms,
) -> Answer {
    let done = app.commit(Action::DeletePool { name }, terms).await?;
    view::gone(&done)
}

async fn changed(app: &App, name: &str, action: Action, terms: Terms) -> Answer {
    let done = app.commit(action, terms).await?;
    let pool = done.world.state.find_pool(name)?;
    view::changed(&done, tag_of(pool), view::pool(&done.world, pool))
}
