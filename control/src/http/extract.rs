//! The parts of a request beside its body, with errors in our words.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, Path, Query};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use sluice_api::problems::cut;
use sluice_api::validate::supported;
use sluice_api::{MAX_WAIT_MS, Problem};

use super::HttpProblem;
use crate::actor::{Actor, Author};
use crate::model::{ApiProblem, Precondition};
use crate::publish::Patience;

/// Most bytes of what a client calls itself that events tell.
const MAX_CLIENT: usize = 64;

/// Most characters of a reason.
pub const MAX_REASON: usize = 200;

/// The variable parts of the path.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let path = parts.uri.path().to_owned();
        Path::<T>::from_request_parts(parts, state).await.map(|Path(t)| Segments(t)).map_err(|e| {
            let expected = format!("a path that can be decoded ({})", e.body_text());
            HttpProblem::BadRequest(Problem::new("path", path, expected))
        })
    }
}

/// An address of a pool, from `{name}` and `{address}` of the path.
pub struct AddressPath {
    /// Name of the pool.
    pub pool: String,
    /// The address.
    pub address: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for AddressPath {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let Segments((pool, address)) =
            Segments::<(String, String)>::from_request_parts(parts, state).await?;
        let address = address.parse().map_err(|_| {
            let expected = "an IPv4 address, as in 10.0.0.1";
            HttpProblem::BadRequest(Problem::new("address", format!("{address:?}"), expected))
        })?;
        let address = forwarded("address", &address, address)?;
        Ok(AddressPath { pool, address })
    }
}

/// An address in a path, part of what stands there, if it is one that a body could have. What could be
/// nowhere is not merely absent.
pub fn forwarded(
    field: &str,
    stands: &dyn Display,
    address: IpAddr,
) -> Result<IpAddr, HttpProblem> {
    let wrong = |expected| ApiProblem::Invalid(Problem::new(field, stands, expected).into());
    Ok(supported(address).map(IpAddr::from).map_err(wrong)?)
}

/// The `If-Match` header, if there is one.
struct IfMatch(Option<Precondition>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpProblem> {
        let mut texts = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            texts.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        if texts.is_empty() {
            return Ok(IfMatch(None));
        }
        let text = texts.join(", ");
        match Precondition::parse(&text) {
            Some(precondition) => Ok(IfMatch(Some(precondition))),
            None => Err(HttpProblem::BadRequest(Problem::new(
                "If-Match",
                text,
                "an ETag as it was received, quotes included, or *",
            ))),
        }
    }
}

/// On what terms a client makes a change.
pub struct Terms {
    /// What the client believes is there, if it says so: `If-Match`.
    pub wanted: Option<Precondition>,
    /// How long it waits to learn what became of the change: `wait_ms`.
    pub patience: Patience,
    /// Who makes the change, and why: `reason`.
    pub author: Author,
    /// Whether the change shall only be told of: `dry_run`, where the path takes it.
    pub dry_run: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Terms {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        let IfMatch(wanted) = IfMatch::from_request_parts(parts, state).await?;
        let author = actor(parts)?.into();
        let mut terms = Terms { wanted, patience: Patience::default(), author, dry_run: false };
        for (name, value) in query(parts, state, "wait_ms=N").await? {
            let wrong = |expected| {
                HttpProblem::BadRequest(Problem::new(&name, format!("{value:?}"), expected))
            };
            match (name.as_str(), value.parse()) {
                ("wait_ms", Ok(ms)) if ms <= MAX_WAIT_MS => {
                    let wait = Duration::from_millis(ms);
                    terms.patience = Patience { wait, for_unreachable: true };
                }
                ("wait_ms", _) => return Err(wrong(format!("0 to {MAX_WAIT_MS}"))),
                ("reason", _) if !is_reason(&value) => {
                    let expected =
                        format!("1 to {MAX_REASON} characters, none of them a control one");
                    return Err(wrong(expected));
                }
                ("reason", _) => terms.author.reason = Some(value),
                ("dry_run", _) => {
                    terms.dry_run = value.parse().map_err(|_| wrong("true or false".to_owned()))?;
                }
                // Refused before it came here.
                _ => {}
            }
        }
        Ok(terms)
    }
}

/// Whether a text can be told as why a change was made: it stands in a line, and stays the way round that it
/// was written.
fn is_reason(text: &str) -> bool {
    let breaks_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    // The controls of the bidirectional algorithm (UAX #9, 2).
    let turns_line = |c: char| {
        let embeds = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        embeds || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
    };
    let is_long = !(1..=MAX_REASON).contains(&text.chars().count());
    !is_long && !text.chars().any(|c| breaks_line(c) || turns_line(c))
}

/// Who sends a request: from where, and what it calls itself.
fn actor(parts: &Parts) -> Result<Actor, HttpProblem> {
    let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
        return Err(HttpProblem::Internal("nobody knows who has connected".to_owned()));
    };
    let client = parts.headers.get(&super::CLIENT).and_then(|value| value.to_str().ok());
    let client = client.map(|name| cut(name.to_owned(), MAX_CLIENT));
    Ok(Actor::Api { address: peer.ip().to_canonical(), client })
}

/// The query's parameters; `form` says which there may be.
pub async fn query<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    form: &str,
) -> Result<HashMap<String, String>, HttpProblem> {
    match Query::from_request_parts(parts, state).await {
        Ok(Query(fields)) => Ok(fields),
        Err(_) => {
            let query = format!("{:?}", parts.uri.query().unwrap_or_default());
            Err(HttpProblem::BadRequest(Problem::new("query", query, form)))
        }
    }
}

/// `since` and `limit` of the event log.
pub struct EventQuery {
    /// The last event already seen, if the client goes on from one.
    pub since: Option<u64>,
    /// Most events to return.
    pub limit: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for EventQuery {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        const MOST: usize = crate::events::KEPT;
        let wrong = |field: &str, value: &str, expected: String| {
            Err(HttpProblem::BadRequest(Problem::new(field, format!("{value:?}"), expected)))
        };
        let fields = query(parts, state, "since=SEQ&limit=N").await?;
        let mut parsed = EventQuery { since: None, limit: MOST };
        for (name, value) in &fields {
            match name.as_str() {
                "since" => match value.parse() {
                    Ok(since) => parsed.since = Some(since),
                    Err(_) => return wrong(name, value, "a sequence number, from 0".to_owned()),
                },
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MOST).contains(&limit) => parsed.limit = limit,
                    _ => return wrong(name, value, format!("1 to {MOST}")),
                },
                _ => return wrong(name, value, "a known parameter: since, limit".to_owned()),
            }
        }
        Ok(parsed)
    }
}
