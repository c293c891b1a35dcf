//! Requests to the HTTP API, over plain TCP: one connection each.

use std::cell::RefCell;
use std::pin::pin;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_MATCH, USER_AGENT,
};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sluice_api::CLIENT_HEADER;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{CliError, Refusal};

/// Time that an API on another host has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole request: publishing 30,000 backends takes the data plane its time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for an answer after which control is asked whether it lives, and for the answer to that.
const SIGN_OF_LIFE: Duration = Duration::from_millis(2_400);
/// Longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Where the API is.
#[derive(Debug)]
pub(crate) struct Client {
    api: String,
    host: String,
    port: u16,
    /// What the `Host` header says.
    authority: String,
    /// Path before `/api/v1`, for an API behind a proxy.
    prefix: String,
    /// How long a change is waited for; absent: as long as the API does by itself.
    wait: Option<Duration>,
    /// Why changes are made, if that is said.
    reason: Option<String>,
    /// Why the last change that was made is not applied; absent when it is.
    stored: RefCell<Option<String>>,
}

/// An answer with status 2xx.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its JSON; `null` when there is none.
    pub(crate) body: Value,
    /// Its version, to say in the next change which state it was made for.
    pub(crate) etag: Option<HeaderValue>,
}

/// A resource's path below `/api/v1`, each segment escaped.
pub(crate) fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| path + "/" + &escape(segment))
}

/// A segment with everything escaped that means something in a URL (RFC 3986, section 3.3).
fn escape(segment: &str) -> String {
    // A segment of dots would be resolved away by proxies, escaped or not: let the API refuse it.
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

impl Client {
    /// An API at a URL of the form `http://HOST[:PORT][/PREFIX]`.
    pub(crate) fn new(api: &str) -> Result<Client, CliError> {
        let wrong = |why: &str| {
            CliError::Usage(format!(
                "the API's address is {api:?}: expected a URL as http://127.0.0.1:9600 ({why})"
            ))
        };
        let uri: Uri = api.parse().map_err(|_| wrong("not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("this version speaks plain HTTP only")),
            _ => return Err(wrong("it must begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong("no user and no query belong there"));
        }
        Ok(Client {
            api: api.to_owned(),
            // An IPv6 address stands in brackets in a URL only.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            wait: None,
            reason: None,
            stored: RefCell::default(),
        })
    }

    /// With so much patience for changes; absent: as much as the API has by itself.
    pub(crate) fn waiting(self, wait: Option<Duration>) -> Client {
        Client { wait, ..self }
    }

    /// With why changes are made.
    pub(crate) fn because(self, reason: Option<String>) -> Client {
        Client { reason, ..self }
    }

    /// Reads a resource.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, CliError> {
        self.send(Method::GET, path, None, None).await
    }

    /// Sends a change, with a body if it needs one.
    pub(crate) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, CliError> {
        self.send(method, path, body, None).await
    }

    /// Sends a request; with `if_match`, only while the state is still the one of that answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<HeaderValue>,
    ) -> Result<Answer, CliError> {
        let is_change = method != Method::GET;
        let (mut target, mut patience) = (path.to_owned(), REQUEST_TIMEOUT);
        let mut ask_for = |parameter: String| {
            let sign = if target.contains('?') { '&' } else { '?' };
            target = format!("{target}{sign}{parameter}");
        };
        if let (true, Some(wait)) = (is_change, self.wait) {
            ask_for(format!("wait_ms={}", wait.as_millis()));
            patience += wait;
        }
        if let (true, Some(reason)) = (is_change, &self.reason) {
            ask_for(format!("reason={}", escape(reason)));
        }
        let described = format!("{method} {path}");
        let request = self.request(method, &target, body, if_match).map_err(|error| {
            CliError::Usage(format!("cannot ask the API for {described}: {error}"))
        })?;
        let answered = self.answered(request, patience).await;
        let (status, etag, bytes) = answered.map_err(|reason| self.unreachable(reason))?;
        let answer = understand(status, etag, &bytes)
            .map_err(|failure| failure.into_error(described, status))?;
        if is_change {
            self.stored.replace(not_applied(&answer.body));
        }
        Ok(answer)
    }

    /// Why the last change that was made is not applied; absent when it is, or when there was none.
    pub(crate) fn not_applied(&self) -> Option<String> {
        self.stored.borrow().clone()
    }

    fn unreachable(&self, reason: String) -> CliError {
        CliError::Unreachable { api: self.api.clone(), reason }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<HeaderValue>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}", self.prefix))
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json, application/problem+json")
            // Says that this is no web page.
            .header(CLIENT_HEADER, concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        if let Some(version) = if_match {
            request = request.header(IF_MATCH, version);
        }
        match body {
            Some(body) => {
                request.header(CONTENT_TYPE, kind).body(Full::new(body.to_string().into()))
            }
            None => request.body(Full::default()),
        }
    }

    /// The answer to a request, which may take so long as long as control is alive.
    async fn answered(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<(u16, Option<HeaderValue>, Bytes), String> {
        let started = Instant::now();
        let mut exchange = pin!(self.exchange(request));
        loop {
            if let Ok(answer) = timeout(SIGN_OF_LIFE, exchange.as_mut()).await {
                return answer;
            }
            let alive =
                self.request(Method::GET, "/healthz", None, None).map_err(|e| e.to_string());
            let alive = timeout(SIGN_OF_LIFE, self.exchange(alive?)).await;
            let waited = started.elapsed();
            if !matches!(alive, Ok(Ok(_))) {
                return Err(format!("no sign of life within {} s", waited.as_secs_f32().round()));
            }
            if waited >= patience {
                return Err(format!("no answer within {} s", patience.as_secs()));
            }
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(u16, Option<HeaderValue>, Bytes), String> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))?
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(full)?;
        // It ends with the response; its errors reach the request and the body.
        tokio::spawn(connection);
        let response: Response<Incoming> = sender.send_request(request).await.map_err(full)?;
        let status = response.status().as_u16();
        let etag = response.headers().get(ETAG).cloned();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| format!("the answer broke off: {error}"))?;
        Ok((status, etag, body.to_bytes()))
    }
}

/// Why a change is stored and not applied, as its answer tells.
pub(crate) fn not_applied(answer: &Value) -> Option<String> {
    let change = &answer["change"];
    let reason = || change["reason"].as_str().unwrap_or("no reason given").to_owned();
    (change["outcome"] == "stored").then(reason)
}

/// An error with its causes: hyper's own text says only where it happened.
fn full(error: hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Why an answer is not a result.
enum Failure {
    Refused(Refusal),
    NotOurs(String),
}

impl Failure {
    fn into_error(self, request: String, status: u16) -> CliError {
        match self {
            Failure::Refused(refusal) => CliError::Refused(Refusal { status, ..refusal }),
            Failure::NotOurs(reason) => CliError::Answer { request, reason },
        }
    }
}

fn understand(status: u16, etag: Option<HeaderValue>, bytes: &[u8]) -> Result<Answer, Failure> {
    if (200..300).contains(&status) {
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(bytes).map_err(|e| Failure::NotOurs(format!("no JSON: {e}")))?
        };
        return Ok(Answer { body, etag });
    }
    if status < 400 {
        return Err(Failure::NotOurs(format!("HTTP {status}")));
    }
    // A proxy's error page is no problem+json; its status still tells the exit code.
    let refusal = serde_json::from_slice(bytes).unwrap_or_else(|_| Refusal {
        kind: "about:blank".to_owned(),
        title: format!("HTTP {status}"),
        detail: String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).trim().to_owned(),
        ..Refusal::default()
    });
    Err(Failure::Refused(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped() {
        assert_eq!(path(&["services", "web.1"]), "/services/web.1");
        assert_eq!(path(&["services", "a/../b?c d%"]), "/services/a%2F..%2Fb%3Fc%20d%25");
        assert_eq!(path(&["backends", "10.0.0.1:80"]), "/backends/10.0.0.1:80");
    }

    #[test]
    fn urls_of_the_api() {
        let client = Client::new("http://[::1]:9600/lb/").unwrap();
        assert_eq!((client.host.as_str(), client.port), ("::1", 9600));
        assert_eq!((client.authority.as_str(), client.prefix.as_str()), ("[::1]:9600", "/lb"));
        assert_eq!(Client::new("http://lb").unwrap().port, 80);
        for wrong in ["", "lb:9600", "127.0.0.1:9600", "https://lb", "ftp://lb", "http://a@b", "/x"]
        {
            let error = Client::new(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}: {error}");
        }
    }

    #[test]
    fn answers_that_are_not_the_apis_are_told_apart() {
        let code = |status, bytes: &[u8]| {
            understand(status, None, bytes)
                .map_err(|f| f.into_error("GET /x".to_owned(), status).exit_code())
                .map(|answer| answer.body)
        };
        assert_eq!(code(204, b""), Ok(Value::Null));
        assert_eq!(code(200, b"<html>"), Err(6));
        assert_eq!(code(302, b""), Err(6));
        assert_eq!(code(404, b"not found"), Err(4));
        assert_eq!(code(502, b"<html>"), Err(6));
        assert_eq!(code(422, br#"{"title":"t","status":422}"#), Err(1));
    }
}
