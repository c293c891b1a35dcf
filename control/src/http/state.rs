//! The state as a whole.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::json;

use super::body::Body;
use super::extract::Terms;
use super::{App, HttpProblem, view};
use crate::manager::Manager;
use crate::model::{ApiProblem, Batch, state_tag};

/// Let the state be published, though it takes services away from the data plane.
pub async fn confirm(Shared(app): Shared<App>, terms: Terms) -> Result<Response, HttpProblem> {
    let Terms { wanted, patience, actor, .. } = terms;
    let committed = app.blocking(move |manager| manager.confirm(wanted.as_ref(), &actor)).await?;
    let done = app.done(committed, patience).await;
    view::changed(&done, state_tag(&done.world.state), json!({}))
}

/// Make many resources be as they are in the body, all or none of them.
pub async fn apply(
    Shared(app): Shared<App>,
    Terms { wanted, patience, actor, dry_run }: Terms,
    Body(body): Body,
) -> Result<Response, HttpProblem> {
    let apply = move |manager: &Manager| {
        let batch = Batch::read(body).map_err(ApiProblem::Invalid)?;
        manager.apply(batch, wanted.as_ref(), dry_run, &actor)
    };
    let (changes, committed) = app.blocking(apply).await?;
    let body = json!({ "changes": changes });
    match committed {
        Some(committed) => {
            let done = app.done(committed, patience).await;
            view::changed(&done, state_tag(&done.world.state), body)
        }
        None => Ok(view::found(state_tag(&app.manager.world().state), body)),
    }
}
