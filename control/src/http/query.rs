//! Parameters in the query of a request: those that its path does not know are refused, wherever they
//! stand. A `limt=5` that is not seen would be answered as if it were not there.

use axum::extract::{Query, Request};
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sluice_api::Problem;

use super::HttpProblem;

/// Refuses a request with a parameter that nobody reads, or that stands twice.
pub async fn check(request: Request, next: Next) -> Response {
    match problem(request.method(), request.uri()) {
        None => next.run(request).await,
        Some(problem) => HttpProblem::BadRequest(problem).into_response(),
    }
}

/// The parameters that there are.
fn known(method: &Method, path: &str) -> &'static [&'static str] {
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/api/v1/events") => &["since", "limit"],
        (&Method::GET | &Method::HEAD, _) => &[],
        (_, "/api/v1/apply") => &["wait_ms", "dry_run"],
        // Of changes.
        _ => &["wait_ms"],
    }
}

fn problem(method: &Method, uri: &Uri) -> Option<Problem> {
    let text = uri.query()?;
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Some(Problem::new("query", format!("{text:?}"), "NAME=VALUE&NAME=VALUE"));
    };
    let known = known(method, uri.path());
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
        let says = |method: Method, uri: &'static str| {
            problem(&method, &Uri::from_static(uri)).map(|problem| problem.to_string())
        };
        for right in ["/api/v1/events?since=1&limit=2", "/api/v1/services", "/readyz?"] {
            assert_eq!(says(Method::GET, right), None);
        }
        assert_eq!(says(Method::DELETE, "/api/v1/pools/p?wait_ms=5"), None);
        let unknown = "limt is \"5\": expected a known parameter: since, limit";
        assert_eq!(says(Method::GET, "/api/v1/events?limt=5").unwrap(), unknown);
        for path in ["/api/v1/services?limit=5", "/metrics?limit=5", "/api/v1/pools/p?limit=5"] {
            let none = "limit is \"5\": expected no parameters here";
            assert_eq!(says(Method::GET, path).unwrap(), none);
        }
        let twice = "limit is \"2\": expected each parameter once";
        assert_eq!(says(Method::GET, "/api/v1/events?limit=1&limit=2").unwrap(), twice);
        let of_changes = "force is \"\": expected a known parameter: wait_ms";
        assert_eq!(says(Method::PUT, "/api/v1/pools/p?force").unwrap(), of_changes);
    }
}
