//! The state as a whole.

use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::json;

use super::{App, HttpProblem, view};

/// Let the state be published, though it takes services away from the data plane.
pub async fn confirm(Shared(app): Shared<App>) -> Result<Response, HttpProblem> {
    let state = app.blocking(|manager| manager.confirm()).await?;
    Ok(view::found(&state, json!({})))
}
