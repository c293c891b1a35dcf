//! One check of one backend: a TCP handshake, or an HTTP `GET` of which only status line and
//! headers are read.
//!
//! Every check is a connection of its own, closed with a reset (`SO_LINGER` 0) unless it is to be
//! closed with a FIN. A reset leaves no TIME_WAIT socket on either side, which at thousands of checks
//! a second would use up the load balancer's local ports. The backend has answered by then; what it
//! loses is the rest of a body that nobody wants.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use sluice_api::BackendId;
use sluice_api::service::{CheckClose, HealthCheck, HealthCheckKind};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::head::HeadReader;

/// What the checks call themselves.
const AGENT: &str = concat!("sluice-health/", env!("CARGO_PKG_VERSION"));
/// EINPROGRESS on Linux: the SYN is on its way.
const IN_PROGRESS: i32 = 115;
/// How long a check that closes with a FIN reads on, so that the FIN is not followed by a reset.
const FAREWELL: Duration = Duration::from_millis(50);
/// How much of a body it reads then, in bytes.
const FAREWELL_BYTES: u64 = 64 << 10;

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

/// Checks a backend once. Takes at most `deadline`, connecting included; and [`FAREWELL`] if it is to
/// close with a FIN.
pub(super) async fn probe(backend: BackendId, check: &HealthCheck, deadline: Duration) -> Outcome {
    let to = SocketAddrV4::new(backend.address, check.port.unwrap_or(backend.port));
    let asked = async {
        let mut stream = match connect(to, check.close).await {
            Ok(stream) => stream,
            Err(outcome) => return (outcome, None),
        };
        let outcome = match check.kind {
            HealthCheckKind::Tcp => Outcome::Pass("TCP handshake completed".to_owned()),
            HealthCheckKind::Http => http(&mut stream, to, check).await,
        };
        (outcome, Some(stream))
    };
    match timeout(deadline, asked).await {
        Ok((outcome, stream)) => {
            if let (Some(stream), CheckClose::Fin) = (stream, check.close) {
                say_farewell(stream).await;
            }
            outcome
        }
        Err(_) => Outcome::Silent(format!("no answer within {} ms", deadline.as_millis())),
    }
}

/// Closes with a FIN: the kernel sends a reset instead if anything is left unread.
async fn say_farewell(mut stream: TcpStream) {
    let read_on = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    // The verdict stands, whatever becomes of this.
    let _ = timeout(FAREWELL, read_on).await;
}

/// Connects, or says what became of it.
async fn connect(to: SocketAddrV4, close: CheckClose) -> Result<TcpStream, Outcome> {
    let stream = begin_to_connect(to, close).map_err(|error| not_sent(&error))?;
    let connected = async {
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(()), Err)
    };
    connected.await.map_err(|error| from_io(&error))?;
    Ok(stream)
}

/// Has the kernel send a SYN. What it tells at once, it tells by itself: nothing was sent.
fn begin_to_connect(to: SocketAddrV4, close: CheckClose) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    if close == CheckClose::Reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
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

async fn http(stream: &mut TcpStream, to: SocketAddrV4, check: &HealthCheck) -> Outcome {
    let status = match status(stream, &request(to, check)).await {
        Ok(status) => status,
        Err(outcome) => return outcome,
    };
    if check.expected_status.contains(&status) {
        Outcome::Pass(format!("HTTP {status}"))
    } else {
        Outcome::Fail(format!("HTTP {status}, expected {}", any_of(&check.expected_status)))
    }
}

/// What is sent. Validation lets only through what can stand in it.
fn request(to: SocketAddrV4, check: &HealthCheck) -> String {
    let path = &check.path;
    let host = check.host.clone().unwrap_or_else(|| to.to_string());
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
}

/// Sends the request and reads the answer's head.
async fn status(stream: &mut TcpStream, request: &str) -> Result<u16, Outcome> {
    // A server may answer without reading the request and close: its answer counts.
    let sent = stream.write_all(request.as_bytes()).await;
    let mut reader = HeadReader::default();
    let mut bytes = [0; 4_096];
    let head = loop {
        match stream.read(&mut bytes).await {
            Ok(0) => break reader.end(),
            Ok(read) => match reader.take(&bytes[..read]) {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            },
            Err(error) => return Err(from_io(&sent.err().unwrap_or(error))),
        }
    };
    head.map_err(|error| Outcome::Fail(error.to_string()))
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
