//! Every error as `application/problem+json` (RFC 9457): the one place that decides the status.

pub mod types;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sluice_api::problems::cut;
use sluice_api::{Problem, Problems};

use super::json::Json;
use crate::model::ApiProblem;

pub use types::Type;

/// Longest sentence of an answer, in bytes: it may quote the request.
const MOST_DETAIL: usize = 4_000;

/// Why a request got no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpProblem {
    /// The model, the store or the data plane said no.
    Api(ApiProblem),
    /// The body is no JSON; with line and column.
    BadJson(String),
    /// A part of the URL, a query parameter or a header cannot be read.
    BadRequest(Problem),
    /// The body is not declared as JSON; what it is declared as.
    MediaType(String),
    /// The body is too long, or what it says is too much.
    TooLarge(String),
    /// It may be a web page of another site that asks.
    Foreign(Problem),
    /// The body did not come in time.
    Slow,
    /// There are so many large requests already.
    Busy,
    /// There is nothing at this path.
    NoRoute(String),
    /// The path exists, with other methods.
    WrongMethod {
        /// The method asked for.
        method: String,
        /// The path.
        path: String,
    },
    /// Changes would not reach packets now; why.
    NotReady(String),
    /// A bug.
    Internal(String),
}

impl From<ApiProblem> for HttpProblem {
    fn from(problem: ApiProblem) -> Self {
        HttpProblem::Api(problem)
    }
}

impl HttpProblem {
    fn of_type(&self) -> &'static Type {
        match self {
            HttpProblem::Api(problem) => type_of(problem),
            HttpProblem::BadJson(_) => &types::BAD_JSON,
            HttpProblem::BadRequest(_) => &types::BAD_REQUEST,
            HttpProblem::MediaType(_) => &types::MEDIA_TYPE,
            HttpProblem::TooLarge(_) => &types::TOO_LARGE,
            HttpProblem::Foreign(_) => &types::FOREIGN,
            HttpProblem::Slow => &types::SLOW,
            HttpProblem::Busy => &types::BUSY,
            HttpProblem::NoRoute(_) => &types::NO_ROUTE,
            HttpProblem::WrongMethod { .. } => &types::WRONG_METHOD,
            HttpProblem::NotReady(_) => &types::NOT_READY,
            HttpProblem::Internal(_) => &types::INTERNAL,
        }
    }

    /// What is wrong in a sentence, and by field.
    fn detail(self) -> (String, Problems) {
        let detail = match self {
            HttpProblem::Api(ApiProblem::Invalid(problems)) => {
                return (problems.to_string(), problems);
            }
            HttpProblem::Api(problem) => problem.to_string(),
            HttpProblem::BadRequest(problem) | HttpProblem::Foreign(problem) => {
                return (problem.to_string(), problem.into());
            }
            HttpProblem::MediaType(given) => {
                let problem = Problem::new("Content-Type", given, "application/json");
                return (problem.to_string(), problem.into());
            }
            HttpProblem::BadJson(detail)
            | HttpProblem::TooLarge(detail)
            | HttpProblem::NotReady(detail)
            | HttpProblem::Internal(detail) => detail,
            HttpProblem::Slow => "no byte for 10 s, or not the last one within 60 s".to_owned(),
            HttpProblem::Busy => "other requests have long bodies now: try again".to_owned(),
            HttpProblem::NoRoute(path) => {
                format!("there is nothing at {path}: the API is under /api/v1")
            }
            HttpProblem::WrongMethod { method, path } => {
                format!("{path} does not take {method}: the Allow header tells what it takes")
            }
        };
        (detail, Problems::default())
    }
}

fn type_of(problem: &ApiProblem) -> &'static Type {
    match problem {
        ApiProblem::NotFound { .. } => &types::NOT_FOUND,
        ApiProblem::Exists { .. } => &types::EXISTS,
        ApiProblem::PoolInUse { .. } => &types::POOL_IN_USE,
        ApiProblem::VersionMismatch { .. } => &types::VERSION_MISMATCH,
        ApiProblem::Invalid(_) => &types::INVALID,
        ApiProblem::NotStored(_) => &types::NOT_STORED,
        ApiProblem::DataplaneUnreachable(_) => &types::DATAPLANE_UNREACHABLE,
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let kind @ Type { status, title, .. } = self.of_type();
        let (detail, problems) = self.detail();
        let mut body = json!({
            "type": kind.urn(),
            "title": title,
            "status": status.as_u16(),
            "detail": cut(detail, MOST_DETAIL),
            "problems": &*problems,
        });
        if problems.more() > 0 {
            body["more_problems"] = problems.more().into();
        }
        // Written over that of a plain body.
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (*status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
