//! One check of one backend: a TCP handshake, or an HTTP `GET` of which only status line and
//! headers are read.
//!
//! Every check is a connection of its own, closed with a reset (`SO_LINGER` 0). That leaves no
//! TIME_WAIT socket on either side, which at thousands of checks a second would use up the load
//! balancer's local ports. The backend has answered by then; what it loses is the rest of a body
//! that nobody wants.

use std::error::Error as _;
use std::io;
use std::net::SocketAddrV4;
use std::pin::pin;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use sluice_api::BackendId;
use sluice_api::service::{HealthCheck, HealthCheckKind};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

/// What the checks call themselves.
const AGENT: &str = concat!("sluice-health/", env!("CARGO_PKG_VERSION"));
/// EINPROGRESS on Linux: the SYN is on its way.
const IN_PROGRESS: i32 = 115;
/// Longest answer head that is read, in bytes. Hyper takes no less than 8 KiB.
const MAX_HEAD_BYTES: usize = 16 << 10;

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

/// Checks a backend once. Takes at most `deadline`, connecting included.
pub(super) async fn probe(backend: BackendId, check: &HealthCheck, deadline: Duration) -> Outcome {
    let to = SocketAddrV4::new(backend.address, check.port.unwrap_or(backend.port));
    let asked = async {
        match check.kind {
            HealthCheckKind::Tcp => tcp(to).await,
            HealthCheckKind::Http => http(to, check).await,
        }
    };
    tokio::time::timeout(deadline, asked).await.unwrap_or_else(|_| {
        Outcome::Silent(format!("no answer within {} ms", deadline.as_millis()))
    })
}

async fn tcp(to: SocketAddrV4) -> Outcome {
    match connect(to).await {
        Ok(_) => Outcome::Pass("TCP handshake completed".to_owned()),
        Err(outcome) => outcome,
    }
}

/// Connects, or says what became of it.
async fn connect(to: SocketAddrV4) -> Result<TcpStream, Outcome> {
    let stream = begin_to_connect(to).map_err(|error| not_sent(&error))?;
    let connected = async {
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(()), Err)
    };
    connected.await.map_err(|error| from_io(&error))?;
    Ok(stream)
}

/// Has the kernel send a SYN. What it tells at once, it tells by itself: nothing was sent.
fn begin_to_connect(to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => TcpStream::from_std(socket.into()),
    }
}

/// What it says when a check could not be sent: nothing about the backend, whatever this host lacks (a
/// route, a local port, a permission). But one that is on this host itself can refuse at once.
fn not_sent(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => from_io(error),
        _ => Outcome::Unable(error.to_string()),
    }
}

async fn http(to: SocketAddrV4, check: &HealthCheck) -> Outcome {
    let host = check.host.clone().unwrap_or_else(|| to.to_string());
    let request = Request::get(&check.path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Outcome::Fail(format!("cannot ask for {:?}: {error}", check.path)),
    };
    let stream = match connect(to).await {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    match status(stream, request).await {
        Ok(status) if check.expected_status.contains(&status.as_u16()) => {
            Outcome::Pass(format!("HTTP {}", status.as_u16()))
        }
        Ok(status) => {
            let expected = any_of(&check.expected_status);
            Outcome::Fail(format!("HTTP {}, expected {expected}", status.as_u16()))
        }
        Err(error) => from_http(&error),
    }
}

/// Sends the request and reads the answer's head.
async fn status(stream: TcpStream, request: Request<Empty<Bytes>>) -> hyper::Result<StatusCode> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await?;
    let mut connection = Box::pin(connection);
    let mut response = pin!(sender.send_request(request));
    tokio::select! {
        response = &mut response => response.map(|response| response.status()),
        ended = &mut connection => {
            // The answer may have come before the end. Dropping the connection wakes a request
            // that it never took.
            drop(connection);
            match (response.await, ended) {
                (Ok(response), _) => Ok(response.status()),
                (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
            }
        }
    }
}

fn from_http(error: &hyper::Error) -> Outcome {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return from_io(io);
        }
        source = cause.source();
    }
    Outcome::Fail(if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        "connection closed without an answer".to_owned()
    } else if error.is_parse_too_large() {
        format!("answer's headers exceed {MAX_HEAD_BYTES} bytes")
    } else if error.is_parse() {
        "answer is not HTTP".to_owned()
    } else {
        error.to_string()
    })
}

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

/// `200`, `200 or 204`, `200, 204 or 301`.
fn any_of(codes: &[u16]) -> String {
    let texts: Vec<String> = codes.iter().map(u16::to_string).collect();
    match texts.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
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
    fn expected_codes_read_as_a_sentence() {
        assert_eq!(any_of(&[200]), "200");
        assert_eq!(any_of(&[200, 204]), "200 or 204");
        assert_eq!(any_of(&[200, 204, 301]), "200, 204 or 301");
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
