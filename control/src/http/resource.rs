//! Resources under their paths: one set of handlers for all kinds. A kind says where it stands and how it
//! is shown ([`Shown`]); one of the desired state ([`Edited`]) can be made, changed and deleted as well.

use std::collections::BTreeMap;
use std::fmt::Display;

use axum::extract::{FromRequestParts, State as Shared};
use axum::http::request::Parts;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{Body, aside};
use super::extract::{Segments, Terms};
use super::openapi::{Api, Operation, Schemas};
use super::problem_json::types;
use super::{App, HttpProblem, view};
use crate::model::ApiProblem;
use crate::model::resource::{Change, Holder, Key, Resource};
use crate::publish::Outcome;
use crate::world::World;
use sluice_api::read::set_identity;

/// What a request gets.
pub type Answer = Result<Response, HttpProblem>;

/// A kind of thing that can be read.
pub trait Shown: Sized + Send + Sync + 'static {
    /// The path of all that a holder has, below `/api/v1`.
    const ALL: &'static str;
    /// The path of one.
    const ONE: &'static str;
    /// The key of the list in an answer with all.
    const LIST: &'static str;
    /// What it is a part of: `()` if it stands by itself.
    type Of: Send;
    /// What names one there.
    type Name: Display + Send;
    /// It, and what was observed of it.
    type View<'w>: Serialize;
    /// What is configured of it, for the document.
    type Configured: JsonSchema;
    /// What is observed of it, for the document.
    type Observed: JsonSchema;

    /// The holder by the parts of a path that name it.
    fn of(path: Vec<String>) -> Self::Of;

    /// One's name as it stands in a path.
    ///
    /// # Errors
    /// [`HttpProblem::BadRequest`] when it can be no such name.
    fn name(text: String) -> Result<Self::Name, HttpProblem>;

    /// All of a holder, with an entity tag for the list.
    ///
    /// # Errors
    /// [`ApiProblem::NotFound`] when there is no such holder.
    fn list<'w>(
        world: &'w World,
        of: &Self::Of,
    ) -> Result<(String, Vec<Self::View<'w>>), HttpProblem>;

    /// One, with its entity tag.
    ///
    /// # Errors
    /// [`ApiProblem::NotFound`].
    fn one<'w>(
        world: &'w World,
        of: &Self::Of,
        name: &Self::Name,
    ) -> Result<(String, Self::View<'w>), HttpProblem>;
}

/// A kind of thing that operators make, change and delete.
pub trait Edited:
    Resource + Shown<Of = <Self as Resource>::Holder, Name = <Self as Resource>::Id>
{
}

impl<R> Edited for R where
    R: Resource + Shown<Of = <R as Resource>::Holder, Name = <R as Resource>::Id>
{
}

/// Paths for reading.
pub fn shown<R: Shown>() -> Api {
    Api::new()
        .get(R::ALL, list::<R>, Operation::reads(&format!("All {}", R::LIST), all::<R>).tagged())
        .get(
            R::ONE,
            read::<R>,
            Operation::reads(&format!("One of the {}", R::LIST), one::<R>).tagged(),
        )
}

/// Paths for reading and changing.
pub fn edited<R: Edited>() -> Api {
    let says = |what: &str| format!("{what} {}", R::LIST);
    let creates = Operation::creates(&says("Make one more of the"), one::<R>).tagged();
    let replaces = Operation::changes(&says("Replace one of the"), one::<R>).tagged();
    let patches = Operation::changes(&says("Change fields of one of the"), one::<R>).tagged();
    let deletes = Operation::changes(&says("Delete one of the"), only_change);
    shown::<R>()
        .post(R::ALL, create::<R>, creates.takes(one::<R>))
        .put(R::ONE, replace::<R>, replaces.takes(one::<R>))
        .patch(R::ONE, patch::<R>, patches.takes_patch(Schemas::patch::<R::Configured>))
        .delete(R::ONE, delete::<R>, deletes.may_fail([&types::POOL_IN_USE]))
}

/// One, as it is answered with and as a body.
pub fn one<R: Shown>(schemas: &mut Schemas) -> Value {
    schemas.resource::<R::Configured, R::Observed>()
}

fn all<R: Shown>(schemas: &mut Schemas) -> Value {
    let list = json!({"type": "array", "items": one::<R>(schemas)});
    json!({"type": "object", "properties": {(R::LIST): list}, "required": [R::LIST]})
}

/// What became of a change, and nothing else.
pub fn only_change(schemas: &mut Schemas) -> Value {
    let change = schemas.of::<Outcome>();
    json!({"type": "object", "properties": {"change": change}, "required": ["change"]})
}

/// The holder that a path names.
pub struct All<R: Shown>(pub R::Of);

impl<R: Shown, S: Send + Sync> FromRequestParts<S> for All<R> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        if !R::ALL.contains('{') {
            return Ok(All(R::of(Vec::new())));
        }
        let Segments(path) = Segments::from_request_parts(parts, state).await?;
        Ok(All(R::of(path)))
    }
}

/// The one that a path names.
pub struct One<R: Shown> {
    /// Its holder.
    pub of: R::Of,
    /// Its name there.
    pub name: R::Name,
}

impl<R: Shown, S: Send + Sync> FromRequestParts<S> for One<R> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let Segments::<Vec<String>>(mut path) = Segments::from_request_parts(parts, state).await?;
        let name = R::name(path.pop().unwrap_or_default())?;
        Ok(One { of: R::of(path), name })
    }
}

impl<R: Edited> One<R> {
    /// As the desired state names it.
    pub fn key(self) -> Key<R> {
        Key { holder: self.of, id: self.name }
    }
}

/// All of a holder.
async fn list<R: Shown>(Shared(app): Shared<App>, All(of): All<R>) -> Answer {
    let world = app.manager.world();
    let (tag, list) = R::list(&world, &of)?;
    Ok(view::found(tag, BTreeMap::from([(R::LIST, list)])))
}

/// One.
async fn read<R: Shown>(Shared(app): Shared<App>, One { of, name }: One<R>) -> Answer {
    let world = app.manager.world();
    let (tag, one) = R::one(&world, &of, &name)?;
    Ok(view::found(tag, one))
}

/// Make one.
async fn create<R: Edited>(
    Shared(app): Shared<App>,
    All(holder): All<R>,
    terms: Terms,
    Body(body): Body,
) -> Answer {
    R::all(&app.manager.world().state, &holder)?;
    let new = aside(|| R::read(body, &holder, "new")).map_err(ApiProblem::Invalid)?;
    let key = Key::<R> { id: new.id(), holder };
    let done = app.commit(Change::Create(key.holder.clone(), new), terms).await?;
    let (tag, one) = R::one(&done.world, &key.holder, &key.id)?;
    let all = R::ALL.replace("{name}", key.holder.name().unwrap_or_default());
    view::created(&done, tag, format!("/api/v1{all}/{}", key.id), one)
}

/// Put another definition in the place of one.
async fn replace<R: Edited>(
    Shared(app): Shared<App>,
    one: One<R>,
    terms: Terms,
    Body(mut body): Body,
) -> Answer {
    let key = one.key();
    key.find(&app.manager.world().state)?;
    for (field, value) in R::identity(&key.id) {
        set_identity(&mut body, &R::field(&key), field, value).map_err(ApiProblem::invalid)?;
    }
    let label = key.id.to_string();
    let new = aside(|| R::read(body, &key.holder, &label)).map_err(ApiProblem::Invalid)?;
    change(app, Change::Replace(key.holder.clone(), new), terms).await
}

/// Change some fields of one.
async fn patch<R: Edited>(
    Shared(app): Shared<App>,
    one: One<R>,
    terms: Terms,
    Body(patch): Body,
) -> Answer {
    change(app, Change::Patch(one.key(), patch), terms).await
}

/// Delete one, and all that is a part of it.
async fn delete<R: Edited>(Shared(app): Shared<App>, one: One<R>, terms: Terms) -> Answer {
    let done = app.commit(Change::Delete(one.key()), terms).await?;
    view::gone(&done)
}

/// Change one, and show what it is then.
pub async fn change<R: Edited>(app: App, change: Change<R>, terms: Terms) -> Answer {
    let key = change.key();
    let done = app.commit(change, terms).await?;
    let (tag, one) = R::one(&done.world, &key.holder, &key.id)?;
    view::changed(&done, tag, one)
}
