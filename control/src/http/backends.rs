//! `/services/{name}/backends` and all below it.

use std::str::FromStr;

use axum::Router;
use axum::extract::State as Shared;
use axum::routing::{post, put};
use sluice_api::{AdminState, Backend, BackendId, Problem, read};

use super::body::{Body, aside};
use super::extract::Terms;
use super::resource::{Answer, One, Shown, change, edited};
use super::view::{self, BackendView};
use super::{App, HttpProblem};
use crate::model::resource::{BackendSetting, Change, Key, OfService};
use crate::model::{ApiProblem, tag_of};
use crate::world::World;

impl Shown for Backend {
    const ALL: &'static str = "/services/{name}/backends";
    const ONE: &'static str = "/services/{name}/backends/{id}";
    const LIST: &'static str = "backends";
    type Of = OfService;
    type Name = BackendId;
    type View<'w> = BackendView<'w>;

    fn of(path: Vec<String>) -> OfService {
        OfService(path.into_iter().next().unwrap_or_default())
    }

    fn name(text: String) -> Result<BackendId, HttpProblem> {
        BackendId::from_str(&text).map_err(|_| {
            let expected = "ADDRESS:PORT, as in 10.0.0.1:80";
            HttpProblem::BadRequest(Problem::new("backend", format!("{text:?}"), expected))
        })
    }

    fn list<'w>(
        world: &'w World,
        service: &OfService,
    ) -> Result<(String, Vec<BackendView<'w>>), HttpProblem> {
        let service = world.state.find_service(&service.0)?;
        Ok((tag_of(service), view::backends(world, service)))
    }

    fn one<'w>(
        world: &'w World,
        service: &OfService,
        id: &BackendId,
    ) -> Result<(String, BackendView<'w>), HttpProblem> {
        let backend = Key { holder: service.clone(), id: *id }.find(&world.state)?;
        let service = world.state.find_service(&service.0)?;
        Ok((tag_of(backend), view::backend(world, service, backend)))
    }
}

/// Paths of backends, and of what operators set of them by itself.
pub fn routes() -> Router<App> {
    let below = |what: &str| format!("{}/{what}", Backend::ONE);
    edited::<Backend>()
        .route(&below("weight"), put(set_weight))
        .route(&below("drain"), post(drain))
        .route(&below("up"), post(up))
        .route(&below("down"), post(down))
}

/// Set a backend's weight.
async fn set_weight(
    Shared(app): Shared<App>,
    one: One<Backend>,
    terms: Terms,
    Body(body): Body,
) -> Answer {
    let key = one.key();
    key.find(&app.manager.world().state)?;
    let weight = aside(|| read::weight(body, &key.holder.0, key.id));
    let weight = weight.map_err(ApiProblem::Invalid)?;
    change(app, Change::Set(key, BackendSetting::Weight(weight)), terms).await
}

/// Let a backend keep its conns and take no new ones.
async fn drain(app: Shared<App>, one: One<Backend>, terms: Terms) -> Answer {
    set_state(app, one, terms, AdminState::Drain).await
}

/// Let a backend take new conns.
async fn up(app: Shared<App>, one: One<Backend>, terms: Terms) -> Answer {
    set_state(app, one, terms, AdminState::Up).await
}

/// Take a backend out of service.
async fn down(app: Shared<App>, one: One<Backend>, terms: Terms) -> Answer {
    set_state(app, one, terms, AdminState::Down).await
}

async fn set_state(
    Shared(app): Shared<App>,
    one: One<Backend>,
    terms: Terms,
    state: AdminState,
) -> Answer {
    change(app, Change::Set(one.key(), BackendSetting::State(state)), terms).await
}
