//! One check of one backend, by its kind: a file each, with what it asks and what it makes of the answer.
//!
//! A new kind is its file, a line in [`probe`], and its word in the API.

mod head;
mod http;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sluice_api::BackendId;
use sluice_api::service::{CheckClose, HealthCheck, HealthCheckKind};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a check found, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The backend is alive.
    Pass(String),
    /// The backend is not, as its answer or its host's tells.
    Fail(String),
    /// No answer came.
    Silent(String),
    /// This host could not ask: it says nothing about the backend.
    Unable(String),
}

/// How a backend was asked.
struct Asked {
    outcome: Outcome,
    /// The connection, to be closed as is wanted; none where there is none.
    stream: Option<TcpStream>,
}

impl From<Outcome> for Asked {
    fn from(outcome: Outcome) -> Self {
        Asked { outcome, stream: None }
    }
}

/// Checks a backend once. Takes at most `deadline`, connecting included; and a little more if it is to
/// close with a FIN.
pub(super) async fn probe(backend: BackendId, check: &HealthCheck, deadline: Duration) -> Outcome {
    let to = SocketAddr::new(backend.address, check.port.unwrap_or(backend.port));
    let asked = async {
        match check.kind {
            HealthCheckKind::Tcp => tcp::ask(to, check).await,
            HealthCheckKind::Http => http::ask(to, check).await,
        }
    };
    match timeout(deadline, asked).await {
        Ok(Asked { outcome, stream }) => {
            if let (Some(stream), CheckClose::Fin) = (stream, check.close) {
                tcp::say_farewell(stream).await;
            }
            outcome
        }
        Err(_) => Outcome::Silent(format!("no answer within {} ms", deadline.as_millis())),
    }
}

/// What an error of a socket says of the backend, or of this host.
fn from_io(error: &io::Error) -> Outcome {
    use io::ErrorKind::*;
    match error.kind() {
        // Nobody answered ARP, or SYNs.
        HostUnreachable => return Outcome::Silent("no route to host".to_owned()),
        NetworkUnreachable => return Outcome::Silent("network unreachable".to_owned()),
        TimedOut => return Outcome::Silent("connection timed out".to_owned()),
        _ => {}
    }
    Outcome::Fail(
        match error.kind() {
            ConnectionRefused => "connection refused",
            ConnectionReset | ConnectionAborted | BrokenPipe => "connection reset",
            UnexpectedEof => "connection closed without an answer",
            // EADDRNOTAVAIL, EADDRINUSE: no local port is left.
            AddrNotAvailable | AddrInUse | OutOfMemory => {
                return Outcome::Unable(error.to_string());
            }
            _ if is_ours(error) => return Outcome::Unable(error.to_string()),
            _ => return Outcome::Fail(error.to_string()),
        }
        .to_owned(),
    )
}

/// Whether this host is short of files or buffers: ENFILE, EMFILE, ENOBUFS on Linux.
fn is_ours(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24 | 105))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// In a namespace with nothing but a loopback interface that is down.
    #[test]
    fn what_cannot_be_sent_says_nothing_about_the_backend() {
        let test = "health::probe::tests::inside_nothing_is_reached";
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", test])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("unshare") {
            return eprintln!("SKIPPED: no namespaces here: {errors}");
        }
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    }

    #[tokio::test]
    #[ignore = "runs inside a namespace, started by the test above"]
    async fn inside_nothing_is_reached() {
        if std::fs::read_to_string("/proc/net/route").unwrap().lines().count() > 1 {
            return eprintln!("SKIPPED: this is no namespace of its own");
        }
        let check = HealthCheck::default();
        for backend in ["192.0.2.1:80", "127.0.0.1:80"] {
            let outcome = probe(backend.parse().unwrap(), &check, Duration::from_secs(1)).await;
            assert!(matches!(outcome, Outcome::Unable(_)), "{backend}: {outcome:?}");
        }
    }

    #[test]
    fn errors_name_the_backends_fault_or_ours() {
        let fail = |kind: io::ErrorKind| from_io(&kind.into());
        assert_eq!(
            fail(io::ErrorKind::ConnectionRefused),
            Outcome::Fail("connection refused".into())
        );
        assert_eq!(fail(io::ErrorKind::ConnectionReset), Outcome::Fail("connection reset".into()));
        let silent = Outcome::Silent("no route to host".into());
        assert_eq!(fail(io::ErrorKind::HostUnreachable), silent);
        for errno in [23, 24, 105, 98, 99] {
            let outcome = from_io(&io::Error::from_raw_os_error(errno));
            assert!(matches!(outcome, Outcome::Unable(_)), "{errno}: {outcome:?}");
        }
    }
}
