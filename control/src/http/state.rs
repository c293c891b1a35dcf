//! The state as a whole.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::json;

use super::extract::Terms;
use super::{App, HttpProblem, view};
use crate::manager::Manager;

/// Let the state be published, though it takes services away from the data plane.
pub async fn confirm(Shared(app): Shared<App>, terms: Terms) -> Result<Response, HttpProblem> {
    let committed = app.blocking(Manager::confirm).await?;
    let done = app.done(committed, terms.patience).await;
    view::changed(&done, json!({}))
}
