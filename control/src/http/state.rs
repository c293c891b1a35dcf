//! The state as a whole.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_api::{Pool, Service};

use super::body::Body;
use super::extract::Terms;
use super::openapi::Schemas;
use super::resource::{one, only_change};
use super::{App, HttpProblem, view};
use crate::manager::{Committed, Manager};
use crate::model::diff::Difference;
use crate::model::{ApiProblem, Batch, state_tag};
use crate::publish::Patience;

/// Let the state be published, though it takes services away from the data plane.
pub async fn confirm(Shared(app): Shared<App>, terms: Terms) -> Result<Response, HttpProblem> {
    let Terms { wanted, patience, author, .. } = terms;
    let committed = app.blocking(move |manager| manager.confirm(wanted, author)).await?;
    let done = app.done(committed, patience).await;
    view::changed(&done, state_tag(&done.world.state), json!({}))
}

/// The schema of what `/apply` takes.
pub fn batch(schemas: &mut Schemas) -> Value {
    let [pools, services] = [one::<Pool>(schemas), one::<Service>(schemas)];
    let list = |of: Value| json!({"type": "array", "items": of});
    json!({
        "type": "object",
        "properties": {"pools": list(pools), "services": list(services)},
        "additionalProperties": false,
    })
}

/// The schema of what `/apply` answers.
pub fn changes(schemas: &mut Schemas) -> Value {
    let mut answer = only_change(schemas);
    let changes = schemas.of::<Vec<Difference>>();
    answer["properties"]["changes"] = changes;
    // Not with a dry run.
    answer["required"] = json!(["changes"]);
    answer
}

/// Make many resources be as they are in the body, all or none of them.
pub async fn apply(
    Shared(app): Shared<App>,
    Terms { wanted, patience, author, dry_run }: Terms,
    Body(body): Body,
) -> Result<Response, HttpProblem> {
    let apply = move |manager: &Manager| {
        let batch = Batch::read(body).map_err(ApiProblem::Invalid)?;
        manager.apply(batch, wanted, dry_run, author)
    };
    let (changes, committed) = app.blocking(apply).await?;
    answer(&app, changes, committed, patience).await
}

/// What has changed, or would, and what became of that.
pub async fn answer(
    app: &App,
    changes: Vec<Difference>,
    committed: Option<Committed>,
    patience: Patience,
) -> Result<Response, HttpProblem> {
    let body = json!({ "changes": changes });
    match committed {
        Some(committed) => {
            let done = app.done(committed, patience).await;
            view::changed(&done, state_tag(&done.world.state), body)
        }
        None => Ok(view::found(state_tag(&app.manager.world().state), body)),
    }
}
