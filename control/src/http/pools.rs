//! `/pools` and `/pools/{name}`.

use axum::extract::State as Shared;
use sluice_api::Pool;

use super::extract::{AddressPath, Terms};
use super::openapi::{Api, Operation};
use super::resource::{Answer, Shown, change, edited, one};
use super::view::{self, PoolObservation, PoolView};
use super::{App, HttpProblem};
use crate::model::resource::{Change, Key, PoolSetting};
use crate::model::{state_tag, tag_of};
use crate::world::World;

impl Shown for Pool {
    const ALL: &'static str = "/pools";
    const ONE: &'static str = "/pools/{name}";
    const LIST: &'static str = "pools";
    type Of = ();
    type Name = String;
    type View<'w> = PoolView<'w>;
    type Configured = Pool;
    type Observed = PoolObservation<'static>;

    fn of(_: Vec<String>) {}

    fn name(text: String) -> Result<String, HttpProblem> {
        Ok(text)
    }

    fn list<'w>(world: &'w World, (): &()) -> Result<(String, Vec<PoolView<'w>>), HttpProblem> {
        let pools = world.state.pools.iter().map(|pool| view::pool(world, pool));
        Ok((state_tag(&world.state), pools.collect()))
    }

    fn one<'w>(
        world: &'w World,
        (): &(),
        name: &String,
    ) -> Result<(String, PoolView<'w>), HttpProblem> {
        let pool = Key::<Pool> { holder: (), id: name.clone() }.find(&world.state)?;
        Ok((tag_of(pool), view::pool(world, pool)))
    }
}

/// Paths of pools and of their addresses.
pub fn routes() -> Api {
    let is = |summary: &str| Operation::changes(summary, one::<Pool>).tagged();
    let at = "/pools/{name}/addresses/{address}";
    edited::<Pool>()
        .post(
            &format!("{at}/drain"),
            drain,
            is("Let an address keep its conns, but give it no new ones"),
        )
        .post(&format!("{at}/up"), up, is("Let new conns use an address"))
}

/// Let an address keep its conns, but give it no new ones.
async fn drain(app: Shared<App>, path: AddressPath, terms: Terms) -> Answer {
    set_address(app, path, terms, true).await
}

/// Let new conns use an address.
async fn up(app: Shared<App>, path: AddressPath, terms: Terms) -> Answer {
    set_address(app, path, terms, false).await
}

async fn set_address(
    Shared(app): Shared<App>,
    AddressPath { pool, address }: AddressPath,
    terms: Terms,
    drain: bool,
) -> Answer {
    let key = Key::<Pool> { holder: (), id: pool };
    change(app, Change::Set(key, PoolSetting { address, drain }), terms).await
}
