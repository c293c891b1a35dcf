//! Parameters in the query of a request: those that its path does not know are refused, wherever they
//! stand. A `limt=5` that is not seen would be answered as if it were not there.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::Uri;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sluice_api::Problem;

use super::HttpProblem;

/// The parameters that a route knows.
#[derive(Clone, Debug)]
pub struct Known(pub Arc<[&'static str]>);

/// Refuses a request with a parameter that nobody reads, or that stands twice.
pub async fn check(State(known): State<Known>, request: Request, next: Next) -> Response {
    match problem(&known.0, request.uri()) {
        None => next.run(request).await,
        Some(problem) => HttpProblem::BadRequest(problem).into_response(),
    }
}

fn problem(known: &[&str], uri: &Uri) -> Option<Problem> {
    let text = uri.query()?;
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Some(Problem::new("query", format!("{text:?}"), "NAME=VALUE&NAME=VALUE"));
    };
    for (index, (name, value)) in parameters.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            let expected = match known {
                [] => "no parameters here".to_owned(),
                known => format!("a known parameter: {}", known.join(", ")),
            };
            return Some(Problem::new(
                name.escape_debug().to_string(),
                format!("{value:?}"),
                expected,
            ));
        }
        if parameters[..index].iter().any(|(before, _)| before == name) {
            return Some(Problem::new(name, format!("{value:?}"), "each parameter once"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_may_stand_there() {
        let says = |known: &[&str], uri: &'static str| {
            problem(known, &Uri::from_static(uri)).map(|problem| problem.to_string())
        };
        let (events, changes) = (["since", "limit"], ["wait_ms"]);
        assert_eq!(says(&events, "/api/v1/events?since=1&limit=2"), None);
        assert_eq!(says(&[], "/api/v1/services"), None);
        assert_eq!(says(&[], "/readyz?"), None);
        assert_eq!(says(&changes, "/api/v1/pools/p?wait_ms=5"), None);
        let unknown = "limt is \"5\": expected a known parameter: since, limit";
        assert_eq!(says(&events, "/api/v1/events?limt=5").unwrap(), unknown);
        let none = "limit is \"5\": expected no parameters here";
        assert_eq!(says(&[], "/metrics?limit=5").unwrap(), none);
        let twice = "limit is \"2\": expected each parameter once";
        assert_eq!(says(&events, "/api/v1/events?limit=1&limit=2").unwrap(), twice);
        let of_changes = "force is \"\": expected a known parameter: wait_ms";
        assert_eq!(says(&changes, "/api/v1/pools/p?force").unwrap(), of_changes);
    }
}
