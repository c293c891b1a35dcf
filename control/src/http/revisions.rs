//! `/revisions` and all below it, and `/export`: what the desired state was, what has changed, and the way
//! back.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State as Shared};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use sluice_api::Problem;
use sluice_api::read::{Spelling, respell};

use super::body::aside;
use super::extract::{Segments, Terms, query};
use super::json::Json;
use super::openapi::{Api, Operation};
use super::resource::Answer;
use super::{App, HttpProblem, state, view};
use crate::manager::Manager;
use crate::model::diff::Difference;
use crate::model::{ApiProblem, Kind, State, state_tag};
use crate::store::{History, Revision, StoreError};

/// Most revisions of one answer.
const MOST: usize = 1_000;
/// Revisions of an answer unless the request says otherwise.
const USUAL: usize = 100;

/// Revisions, newest first.
#[derive(Serialize, JsonSchema)]
struct Revisions {
    /// Those that were asked for.
    revisions: Vec<Revision>,
}

/// A revision, and what it changed.
#[derive(Serialize, JsonSchema)]
struct Detail {
    #[serde(flatten)]
    revision: Revision,
    /// What it changed; absent of the oldest that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<Difference>>,
}

/// What differs between two revisions.
#[derive(Serialize, JsonSchema)]
struct Differences {
    /// The one.
    from: u64,
    /// The other.
    to: u64,
    /// What is otherwise in the other.
    changes: Vec<Difference>,
}

/// Paths of former states.
pub fn routes() -> Api {
    let number = |text| (text, json!({"type": "integer", "minimum": 1}));
    let limit = json!({"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL});
    let (before, a_number) = number("Only those before this one.");
    let lists = Operation::reads_a::<Revisions>("Changes of the desired state, newest first")
        .parameter("before", before, a_number.clone())
        .parameter("limit", "At most so many.", limit);
    let differs = Operation::reads_a::<Differences>("What differs between two revisions")
        .parameter("from", "The one before; this one is the other.", a_number.clone())
        .parameter("to", "The other; the newest unless given.", a_number.clone());
    let rolls_back =
        Operation::changes("Make the state be as it was with a revision", state::changes)
            .parameter("dry_run", "Only tell what would change.", json!({"type": "boolean"}));
    let format = json!({"type": "string", "enum": ["json", "toml"], "default": "json"});
    let exports = Operation::reads("The whole desired state, as `/apply` takes it", state::batch)
        .parameter("format", "As JSON, or as TOML like the file of control.", format)
        .parameter("revision", "As it was with this one; the newest unless given.", a_number);
    let one = "/revisions/{number}";
    Api::new()
        .get("/revisions", list, lists)
        .get(one, read, Operation::reads_a::<Detail>("A change of the desired state"))
        .get(&format!("{one}/diff"), diff, differs)
        .post(&format!("{one}/rollback"), roll_back, rolls_back.tagged())
        .get("/export", export, exports)
}

/// The revision that a path names.
pub struct Number(u64);

impl<S: Send + Sync> FromRequestParts<S> for Number {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let Segments(text) = Segments::<String>::from_request_parts(parts, state).await?;
        number("revision", &text).map(Number)
    }
}

fn number(field: &str, text: &str) -> Result<u64, HttpProblem> {
    text.parse().map_err(|_| {
        let expected = "the number of a revision, as in 17";
        HttpProblem::BadRequest(Problem::new(field, format!("{text:?}"), expected))
    })
}

/// The parameters of these paths, as they stand in the query.
pub struct Parameters(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        query(parts, state, "NAME=VALUE").await.map(Parameters)
    }
}

impl Parameters {
    fn number(&self, name: &str) -> Result<Option<u64>, HttpProblem> {
        self.0.get(name).map(|text| number(name, text)).transpose()
    }

    /// One of some words, of which the first is meant where none is said.
    fn word(&self, name: &str, words: [&'static str; 2]) -> Result<&'static str, HttpProblem> {
        let Some(said) = self.0.get(name) else { return Ok(words[0]) };
        words.into_iter().find(|word| word == said).ok_or_else(|| {
            let expected = words.join(" or ");
            HttpProblem::BadRequest(Problem::new(name, format!("{said:?}"), expected))
        })
    }
}

/// Read former states, off the async threads.
async fn history<T: Send + 'static>(
    app: &App,
    read: impl FnOnce(&History) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, HttpProblem> {
    let history = Arc::clone(&app.history);
    match tokio::task::spawn_blocking(move || read(&history)).await {
        Ok(found) => found.map_err(|error| HttpProblem::Internal(error.to_string())),
        Err(error) => Err(HttpProblem::Internal(error.to_string())),
    }
}

/// A revision that is kept.
async fn kept(app: &App, number: u64) -> Result<Revision, HttpProblem> {
    if let Some(found) = history(app, move |history| history.revision(number)).await? {
        return Ok(found);
    }
    let newest = history(app, |history| history.page(None, USUAL)).await?;
    let known = newest.into_iter().map(|revision| revision.number);
    Err(ApiProblem::not_found(Kind::Revision, number, known).into())
}

async fn list(Shared(app): Shared<App>, parameters: Parameters) -> Answer {
    let before = parameters.number("before")?;
    let limit = parameters.number("limit")?.unwrap_or(USUAL as u64);
    let Some(limit) = usize::try_from(limit).ok().filter(|limit| (1..=MOST).contains(limit)) else {
        let expected = format!("1 to {MOST}");
        return Err(HttpProblem::BadRequest(Problem::new("limit", limit, expected)));
    };
    let revisions = history(&app, move |history| history.page(before, limit)).await?;
    Ok(Json(Revisions { revisions }).into_response())
}

async fn read(Shared(app): Shared<App>, Number(number): Number) -> Answer {
    let revision = kept(&app, number).await?;
    let changes = history(&app, move |history| {
        let before = number.saturating_sub(1);
        let has_one_before = history.revision(before)?.is_some();
        has_one_before.then(|| history.diff(before, number)).transpose()
    });
    let changes = changes.await?;
    Ok(Json(Detail { revision, changes }).into_response())
}

async fn diff(Shared(app): Shared<App>, Number(number): Number, parameters: Parameters) -> Answer {
    let (from, to) = match (parameters.number("from")?, parameters.number("to")?) {
        (Some(_), Some(to)) => {
            let expected = "one of from and to: the other is the revision of the path";
            return Err(HttpProblem::BadRequest(Problem::new("to", to, expected)));
        }
        (Some(from), None) => (from, number),
        (None, to) => (number, to.unwrap_or(app.manager.world().state.version)),
    };
    kept(&app, from).await?;
    kept(&app, to).await?;
    let changes = history(&app, move |history| history.diff(from, to)).await?;
    Ok(Json(Differences { from, to, changes }).into_response())
}

/// The state as it was with a revision that is kept.
async fn state_at(app: &App, number: u64) -> Result<State, HttpProblem> {
    kept(app, number).await?;
    history(app, move |history| history.state(number)).await
}

async fn roll_back(
    Shared(app): Shared<App>,
    Number(number): Number,
    Terms { wanted, patience, author, dry_run }: Terms,
) -> Answer {
    let former = state_at(&app, number).await?;
    let roll_back = move |manager: &Manager| manager.roll_back(former, wanted, dry_run, author);
    let (changes, committed) = app.blocking(roll_back).await?;
    state::answer(&app, changes, committed, patience).await
}

async fn export(Shared(app): Shared<App>, parameters: Parameters) -> Answer {
    let world = app.manager.world();
    let format = parameters.word("format", ["json", "toml"])?;
    let former = match parameters.number("revision")? {
        Some(number) if number != world.state.version => Some(state_at(&app, number).await?),
        _ => None,
    };
    let state = former.as_ref().unwrap_or(&world.state);
    let body = aside(|| json!({"pools": state.pools, "services": state.services}));
    if format == "json" {
        return Ok(view::found(state_tag(state), body));
    }
    let text = aside(|| {
        let mut body = respell(body, Spelling::Json, Spelling::Toml);
        // `service = []` would be a key of whichever table it is pasted behind.
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|_, list| list.as_array().is_none_or(|list| !list.is_empty()));
        }
        toml::to_string(&body)
    });
    let text = text.map_err(|error| HttpProblem::Internal(error.to_string()))?;
    let headers =
        [(header::CONTENT_TYPE, "application/toml".to_owned()), (header::ETAG, state_tag(state))];
    Ok((headers, text).into_response())
}
