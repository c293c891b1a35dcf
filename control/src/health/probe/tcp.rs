//! A TCP handshake, which is all of one kind of check and the beginning of others.
//!
//! Every check is a connection of its own, closed with a reset (`SO_LINGER` 0) unless it is to be
//! closed with a FIN. A reset leaves no TIME_WAIT socket on either side, which at thousands of checks
//! a second would use up the load balancer's local ports. The backend has answered by then; what it
//! loses is the rest of a body that nobody wants.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sluice_api::service::{CheckClose, HealthCheck};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Asked, Outcome, from_io};

/// EINPROGRESS on Linux: the SYN is on its way.
const IN_PROGRESS: i32 = 115;
/// How long a check that closes with a FIN reads on, so that the FIN is not followed by a reset.
const FAREWELL: Duration = Duration::from_millis(50);
/// How much of a body it reads then, in bytes.
const FAREWELL_BYTES: u64 = 64 << 10;

/// Asks for a handshake.
pub(super) async fn ask(to: SocketAddr, check: &HealthCheck) -> Asked {
    match connect(to, check.close).await {
        Ok(stream) => {
            let outcome = Outcome::Pass("TCP handshake completed".to_owned());
            Asked { outcome, stream: Some(stream) }
        }
        Err(outcome) => outcome.into(),
    }
}

/// Closes with a FIN: the kernel sends a reset instead if anything is left unread.
pub(super) async fn say_farewell(mut stream: TcpStream) {
    let read_on = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    // The verdict stands, whatever becomes of this.
    let _ = timeout(FAREWELL, read_on).await;
}

/// Connects, or says what became of it.
pub(super) async fn connect(to: SocketAddr, close: CheckClose) -> Result<TcpStream, Outcome> {
    let stream = begin_to_connect(to, close).map_err(|error| not_sent(&error))?;
    let connected = async {
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(()), Err)
    };
    connected.await.map_err(|error| from_io(&error))?;
    Ok(stream)
}

/// Has the kernel send a SYN. What it tells at once, it tells by itself: nothing was sent.
fn begin_to_connect(to: SocketAddr, close: CheckClose) -> io::Result<TcpStream> {
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
