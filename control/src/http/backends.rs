//! `/services/{name}/backends` and all below it.

use std::str::FromStr;

use axum::extract::State as Shared;
use sluice_api::service::{NewWeight, NotABackend};
use sluice_api::{AdminState, Backend, BackendId, Problem, read};

use super::body::{Body, aside};
use super::extract::{Terms, forwarded};
use super::openapi::{Api, Operation, Schemas};
use super::resource::{Answer, One, Shown, change, edited, one};
use super::view::{self, BackendObservation, BackendView};
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
    type Configured = Backend;
    type Observed = BackendObservation;

    fn of(path: Vec<String>) -> OfService {
        OfService(path.into_iter().next().unwrap_or_default())
    }

    fn name(text: String) -> Result<BackendId, HttpProblem> {
        let id = BackendId::from_str(&text).map_err(|NotABackend { text, expected }| {
            HttpProblem::BadRequest(Problem::new("backend", format!("{text:?}"), expected))
        })?;
        forwarded("backend", &id, id.address)?;
        Ok(id)
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
pub fn routes() -> Api {
    let is = |summary: &str| Operation::changes(summary, one::<Backend>).tagged();
    let below = |what: &str| format!("{}/{what}", Backend::ONE);
    edited::<Backend>()
        .put(
            &below("weight"),
            set_weight,
            is("Set a backend's weight").takes(Schemas::body::<NewWeight>),
        )
        .post(&below("drain"), drain, is("Let a backend keep its conns and take no new ones"))
        .post(&below("up"), up, is("Let a backend take new conns"))
        .post(&below("down"), down, is("Take a backend out of service"))
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
