//! Every error as `application/problem+json` (RFC 9457): the one place that decides the status.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sluice_api::problems::cut;
use sluice_api::{Problem, Problems};

use super::json::Json;
use crate::model::ApiProblem;

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

type Parts = (StatusCode, &'static str, &'static str, String, Problems);

impl HttpProblem {
    /// Status, a word for programs, a title, the detail, and the fields.
    fn parts(self) -> Parts {
        let (status, kind, title) = match &self {
            HttpProblem::Api(problem) => api_kind(problem),
            HttpProblem::BadJson(_) => {
                (StatusCode::BAD_REQUEST, "bad-json", "The body is not JSON")
            }
            HttpProblem::BadRequest(_) => {
                (StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read")
            }
            HttpProblem::MediaType(_) => {
                let title = "The body is not declared as JSON";
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", title)
            }
            HttpProblem::TooLarge(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too long")
            }
            HttpProblem::Foreign(_) => {
                (StatusCode::FORBIDDEN, "foreign", "The request may be another site's")
            }
            HttpProblem::Slow => {
                (StatusCode::REQUEST_TIMEOUT, "slow", "The body did not come in time")
            }
            HttpProblem::Busy => {
                (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many large requests at a time")
            }
            HttpProblem::NoRoute(_) => (StatusCode::NOT_FOUND, "no-route", "No such path"),
            HttpProblem::WrongMethod { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            }
            HttpProblem::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready"),
            HttpProblem::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error")
            }
        };
        let (detail, problems) = self.detail();
        (status, kind, title, detail, problems)
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

fn api_kind(problem: &ApiProblem) -> (StatusCode, &'static str, &'static str) {
    match problem {
        ApiProblem::NotFound { .. } => (StatusCode::NOT_FOUND, "not-found", "No such resource"),
        ApiProblem::Exists { .. } => (StatusCode::CONFLICT, "exists", "Exists already"),
        ApiProblem::PoolInUse { .. } => (StatusCode::CONFLICT, "pool-in-use", "The pool is in use"),
        ApiProblem::VersionMismatch { .. } => {
            (StatusCode::PRECONDITION_FAILED, "version-mismatch", "Changed meanwhile")
        }
        ApiProblem::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid request"),
        ApiProblem::NotStored(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "not-stored", "Change not stored")
        }
        ApiProblem::DataplaneUnreachable(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "dataplane-unreachable",
            "The data plane does not answer",
        ),
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let (status, kind, title, detail, problems) = self.parts();
        let mut body = json!({
            "type": format!("urn:sluice:problem:{kind}"),
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
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
