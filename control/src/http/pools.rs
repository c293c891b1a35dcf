//! `/pools` and `/pools/{name}`.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::{Value, json};

use super::body::Body;
use super::extract::{AddressPath, IfMatch, Segments};
use super::{App, HttpProblem, view};
use crate::model::read::{self, Spelling, set_identity};
use crate::model::{Action, ApiProblem, Precondition};

type Answer = Result<Response, HttpProblem>;

/// All pools.
pub async fn list(Shared(app): Shared<App>) -> Answer {
    let state = app.manager.state();
    let pools: Vec<_> = state.pools.iter().map(|pool| view::pool(&state, pool)).collect();
    Ok(view::found(&state, json!({ "pools": pools })))
}

/// One pool.
pub async fn read(Shared(app): Shared<App>, Segments(name): Segments<String>) -> Answer {
    let state = app.manager.state();
    Ok(view::found(&state, view::pool(&state, state.find_pool(&name)?)))
}

/// Make a pool.
pub async fn create(
    Shared(app): Shared<App>,
    IfMatch(wanted): IfMatch,
    Body(body): Body,
) -> Answer {
    let pool = read::pool(body, Spelling::Json, "new").map_err(ApiProblem::Invalid)?;
    let name = pool.name.clone();
    let state = app.commit(Action::CreatePool(pool), wanted).await?;
    let pool = view::pool(&state, state.find_pool(&name)?);
    Ok(view::created(&state, format!("/api/v1/pools/{name}"), pool))
}

/// Put another definition in the place of a pool.
pub async fn replace(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    IfMatch(wanted): IfMatch,
    Body(mut body): Body,
) -> Answer {
    app.manager.state().find_pool(&name)?;
    set_identity(&mut body, &format!("pools[{name}]"), "name", Value::from(name.as_str()))
        .map_err(ApiProblem::invalid)?;
    let pool = read::pool(body, Spelling::Json, &name).map_err(ApiProblem::Invalid)?;
    changed(&app, &name, Action::ReplacePool(pool), wanted).await
}

/// Change some fields of a pool.
pub async fn patch(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    IfMatch(wanted): IfMatch,
    Body(patch): Body,
) -> Answer {
    changed(&app, &name, Action::PatchPool { name: name.clone(), patch }, wanted).await
}

/// Let an address keep its conns, but give it no new ones.
pub async fn drain(app: Shared<App>, path: AddressPath, wanted: IfMatch) -> Answer {
    set_address(app, path, wanted, true).await
}

/// Let new conns use an address.
pub async fn up(app: Shared<App>, path: AddressPath, wanted: IfMatch) -> Answer {
    set_address(app, path, wanted, false).await
}

async fn set_address(
    Shared(app): Shared<App>,
    AddressPath { pool, address }: AddressPath,
    IfMatch(wanted): IfMatch,
    drain: bool,
) -> Answer {
    let action = Action::DrainAddress { pool: pool.clone(), address, drain };
    changed(&app, &pool, action, wanted).await
}

/// Delete a pool that no service uses.
pub async fn delete(
    Shared(app): Shared<App>,
    Segments(name): Segments<String>,
    IfMatch(wanted): IfMatch,
) -> Answer {
    let state = app.commit(Action::DeletePool { name }, wanted).await?;
    Ok(view::gone(&state))
}

async fn changed(app: &App, name: &str, action: Action, wanted: Option<Precondition>) -> Answer {
    let state = app.commit(action, wanted).await?;
    Ok(view::found(&state, view::pool(&state, state.find_pool(name)?)))
}
