//! Who may speak to the API, as far as a browser can be told from a program: a page of another site must
//! neither read nor change anything, also when its name leads to us (DNS rebinding).
//!
//! | what | rule |
//! |---|---|
//! | `Host` | `localhost`, a loopback address, the address listened at (any address when that is 0.0.0.0 or `::`), or one of `control.api_hosts`; with any port. Rebinding needs a name, and a browser sends the one it went to. |
//! | `Origin` | none, or one of `control.api_origins`: programs send none |
//! | changes | a JSON `Content-Type`, or `Sluice-Client` with any value: no page can send either to another site without being asked first (Fetch, "CORS-safelisted request-header") |

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sluice_api::{CLIENT_HEADER, Problem};

use super::HttpProblem;
use super::body::is_json;

/// Says that a request is a program's; a page would have to ask us whether it may send it.
pub static CLIENT: HeaderName = HeaderName::from_static(CLIENT_HEADER);

/// What is accepted.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Where the API listens.
    pub listen: IpAddr,
    /// Other names and addresses it is reached by.
    pub hosts: Arc<[String]>,
    /// Web pages that may use it, as `https://lb.example`.
    pub origins: Arc<[String]>,
}

impl Guard {
    /// With what the configuration says.
    pub fn new(listen: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        Guard { listen: listen.ip(), hosts: hosts.into(), origins: origins.into() }
    }

    /// Why a request is not answered.
    fn problem(&self, request: &Request) -> Option<HttpProblem> {
        self.host_problem(request)
            .or_else(|| self.origin_problem(request))
            .or_else(|| client_problem(request))
    }

    fn host_problem(&self, request: &Request) -> Option<HttpProblem> {
        let said: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
        let target = request.uri().authority();
        let wrong = |value: &str, expected: String| Problem::new("Host", value, expected);
        if said.len() > 1 {
            let expected = "one Host header (RFC 9112, 3.2)";
            let problem = wrong(&format!("{} headers", said.len()), expected.to_owned());
            return Some(HttpProblem::BadRequest(problem));
        }
        if said.is_empty() && target.is_none() {
            // No browser speaks HTTP/1.0.
            let is_required = request.version() >= Version::HTTP_11;
            let problem = || wrong("absent", "a Host header (RFC 9112, 3.2)".to_owned());
            return is_required.then(|| HttpProblem::BadRequest(problem()));
        }
        let said = said.into_iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut all = said.chain(target.map(|target| target.as_str().into()));
        let foreign = all.find(|host| !self.is_ours(host))?;
        Some(HttpProblem::Foreign(wrong(&format!("{foreign:?}"), self.hosts_in_words())))
    }

    fn hosts_in_words(&self) -> String {
        let listen = match self.listen {
            any if any.is_unspecified() => "an IP address".to_owned(),
            address => format!("a loopback address, {address}"),
        };
        format!("localhost, {listen} or one of control.api_hosts ({})", named(&self.hosts))
    }

    /// Whether a host, with a port or without, is a name of ours.
    fn is_ours(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // A user before the host, or a port that is none.
        let has_port = authority.as_str() != authority.host();
        if authority.as_str().contains('@') || (has_port && authority.port_u16().is_none()) {
            return false;
        }
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match literal {
            Some(text) => text.parse::<Ipv6Addr>().ok().map(|v6| IpAddr::V6(v6).to_canonical()),
            None => name.parse::<IpAddr>().ok(),
        };
        let is_ours = match address {
            Some(ip) => ip.is_loopback() || ip == self.listen || self.listen.is_unspecified(),
            None => name == "localhost",
        };
        let is_same = |host: &String| match (host.parse::<IpAddr>(), address) {
            (Ok(host), Some(address)) => host == address,
            _ => host.eq_ignore_ascii_case(&name),
        };
        is_ours || self.hosts.iter().any(is_same)
    }

    fn origin_problem(&self, request: &Request) -> Option<HttpProblem> {
        let origins = request.headers().get_all(header::ORIGIN);
        let is_known = |origin: &[u8]| self.origins.iter().any(|known| known.as_bytes() == origin);
        let foreign = origins.iter().find(|origin| !is_known(origin.as_bytes()))?;
        let value = format!("{:?}", String::from_utf8_lossy(foreign.as_bytes()));
        let expected =
            format!("no Origin, or one of control.api_origins ({})", named(&self.origins));
        Some(HttpProblem::Foreign(Problem::new("Origin", value, expected)))
    }
}

fn named(list: &[String]) -> String {
    if list.is_empty() { "there is none".to_owned() } else { list.join(", ") }
}

fn client_problem(request: &Request) -> Option<HttpProblem> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let headers = request.headers();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if is_read || kind.is_some_and(is_json) || headers.contains_key(&CLIENT) {
        return None;
    }
    // A body in another form is told so in words of its own.
    if kind.is_some() {
        return Some(HttpProblem::MediaType(kind.unwrap_or_default().to_owned()));
    }
    let expected = "it with any value, or Content-Type: application/json, on every change: a page of \
                    another site can send neither";
    Some(HttpProblem::Foreign(Problem::new("Sluice-Client", "absent", expected)))
}

/// Answers only those who may ask.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.problem(&request) {
        None => next.run(request).await,
        Some(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_ours_or_not() {
        let guard = |listen: &str, hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            Guard::new(listen.parse().unwrap(), &hosts, &[])
        };
        let local = guard("127.0.0.1:9600", &[]);
        for ours in [
            "127.0.0.1:9600",
            "127.0.0.1",
            "127.8.8.8:1",
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "[::1]:9600",
            "[::ffff:127.0.0.1]:9600",
        ] {
            assert!(local.is_ours(ours), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9600",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:9600",
            "[2001:db8::1]",
            "127.0.0.1@evil.example",
            "evil@127.0.0.1",
            "localhost:",
            "localhost:x",
            "",
            " ",
            "2130706433",
            "0x7f.1",
            "127.1",
        ] {
            assert!(!local.is_ours(foreign), "{foreign}");
        }
        let lan = guard("10.0.0.5:9600", &["LB.example.net", "10.0.0.6", "2001:db8::6"]);
        assert!(lan.is_ours("[2001:db8::6]:9600") && !lan.is_ours("[2001:db8::7]"));
        assert!(lan.is_ours("10.0.0.5:9600") && lan.is_ours("lb.example.net:9600"));
        assert!(lan.is_ours("10.0.0.6") && !lan.is_ours("10.0.0.7") && lan.is_ours("localhost"));
        for any in ["0.0.0.0:9600", "[::]:9600"] {
            let any = guard(any, &[]);
            assert!(any.is_ours("203.0.113.9:9600") && any.is_ours("[2001:db8::1]:9600"));
            assert!(!any.is_ours("lb1") && !any.is_ours("evil.example"), "rebinding needs a name");
        }
    }
}
