//! The socket on which sluice-control asks and the data plane answers.
//!
//! A thread of its own accepts connections, reads requests and writes responses, so that no peer,
//! however slow or wrong, holds up the main thread. The main thread takes the requests that have
//! arrived, whenever it likes ([`ControlSocket::poll`]), and answers them from what it knows.
//! `bind` makes and removes the socket's file, `connection` speaks with one peer.

mod bind;
mod complaints;
mod connection;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_api::message::{Request, Response};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use bind::SocketFile;
use complaints::Complaints;
use connection::Seat;

/// Most connections at a time. For a further one the one gives way that has asked nothing for longest;
/// when all wait for an answer, or are sending a request, it gets an error and is closed.
pub const MAX_CONNECTIONS: usize = 8;
/// How long a peer may take to send a request that it has begun, or to take a response.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the data plane cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens there.
    #[error(
        "control.socket is {}: in use{}: expected a path on which no other data plane listens",
        path.display(),
        pid.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    InUse {
        /// The socket's path.
        path: PathBuf,
        /// Who listens, if the kernel tells.
        pid: Option<i32>,
    },
    /// Something other than a socket has the name.
    #[error(
        "control.socket is {}: a file that is no socket: expected the path of a socket or of nothing",
        path.display()
    )]
    NotSocket {
        /// The file's path.
        path: PathBuf,
    },
    /// Its directory cannot be made.
    #[error(
        "control.socket is in {}, which cannot be made ({source}): expected a directory that this \
         user can make or write to",
        path.display()
    )]
    Directory {
        /// The directory's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error(
        "control.socket is {}: it cannot be made ({source}): expected a path in a directory that \
         this user can write to",
        path.display()
    )]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A request that waits for its answer. Dropping it closes the peer's connection.
#[derive(Debug)]
pub struct Pending {
    /// What is asked.
    pub request: Request,
    reply: Reply,
}

/// Where the answer to a request goes; to be kept for as long as that takes.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Answer>);

/// An answer, or what makes it.
enum Answer {
    Now(Box<Response>),
    Later(Box<dyn FnOnce() -> Response + Send>),
}

impl Answer {
    fn response(self) -> Response {
        match self {
            Answer::Now(response) => *response,
            Answer::Later(make) => make(),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Now(response) => response.fmt(f),
            Answer::Later(_) => f.write_str("Later"),
        }
    }
}

impl Pending {
    /// The request, and where its answer goes.
    pub fn into_parts(self) -> (Request, Reply) {
        (self.request, self.reply)
    }
}

impl Reply {
    /// Answer. Never waits; a peer that is gone does not hear it.
    pub fn send(self, response: Response) {
        // The peer has closed its connection: nobody is left to tell.
        let _ = self.0.send(Answer::Now(Box::new(response)));
    }

    /// A reply to what nobody has asked for.
    pub fn to_nobody() -> Reply {
        Reply(oneshot::channel().0)
    }

    /// A reply, and what becomes of it.
    #[cfg(test)]
    pub fn channel() -> (Reply, Receipt) {
        let (reply, answer) = oneshot::channel();
        (Reply(reply), Receipt(answer))
    }

    /// Answer by what the socket's thread makes, which has the time that this one has not.
    pub fn send_later(self, make: impl FnOnce() -> Response + Send + 'static) {
        let _ = self.0.send(Answer::Later(Box::new(make)));
    }
}

/// What becomes of a reply, for tests.
#[cfg(test)]
pub struct Receipt(oneshot::Receiver<Answer>);

#[cfg(test)]
impl Receipt {
    /// The answer, once there is one.
    pub fn response(&mut self) -> Option<Response> {
        self.0.try_recv().ok().map(Answer::response)
    }
}

/// The control socket, listening. Dropping it closes all connections and removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    requests: Receiver<Pending>,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    file: SocketFile,
}

impl ControlSocket {
    /// Listen on a path. A socket file on which nobody listens any more is replaced; a directory
    /// that is missing is made with mode 0750; the socket gets mode 0660. The thread inherits the
    /// CPU affinity of the caller.
    ///
    /// # Errors
    /// Another process listens there, or the file system does not allow it.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_with(path, PEER_TIMEOUT)
    }

    fn bind_with(path: &Path, peer_timeout: Duration) -> Result<Self, SocketError> {
        let error = |source| SocketError::Bind { path: path.to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(error)?;
        let (listener, file) = bind::bind(path)?;
        let listener = {
            let _context = runtime.enter();
            UnixListener::from_std(listener).map_err(error)?
        };
        let (sender, requests) = channel();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, sender, peer_timeout) => {}
                    // Sent or dropped alike.
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("control-socket".into())
            .spawn(serve)
            .map_err(error)?;
        Ok(ControlSocket { requests, stop: Some(stop), thread: Some(thread), file })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Answer the requests that have arrived, at most one of each connection; how many there were.
    /// Never waits.
    pub fn poll(&self, mut answer: impl FnMut(Request) -> Response) -> usize {
        let mut answered = 0;
        while answered < MAX_CONNECTIONS
            && let Some(pending) = self.next()
        {
            let (request, reply) = pending.into_parts();
            reply.send(answer(request));
            answered += 1;
        }
        answered
    }

    /// The next request that has arrived, to be answered now or later. Never waits.
    pub fn next(&self) -> Option<Pending> {
        self.requests.try_recv().ok()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.file.remove();
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control socket's thread panicked");
        }
    }
}

/// Take connections until the end of time.
async fn accept(listener: UnixListener, requests: Sender<Pending>, peer_timeout: Duration) {
    let mut seats: Vec<Arc<Seat>> = Vec::new();
    let complaints = Complaints::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if !make_seat(&mut seats) {
                    tokio::spawn(connection::refuse(stream, peer_timeout, complaints.clone()));
                    continue;
                }
                let seat = Arc::new(Seat::new());
                seats.push(Arc::clone(&seat));
                let (requests, complaints) = (requests.clone(), complaints.clone());
                tokio::spawn(async move {
                    connection::serve(stream, requests, peer_timeout, complaints, &seat).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: it passes, or it does not and costs nothing.
                complaints
                    .warn("accept", format!("control socket: cannot accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Whether there is a seat for one more; of those who are idle, the one who has never asked, or asked nothing
/// for longest, gives up his.
fn make_seat(seats: &mut Vec<Arc<Seat>>) -> bool {
    // Who has left has dropped his share of it.
    seats.retain(|seat| Arc::strong_count(seat) > 1);
    if seats.len() < MAX_CONNECTIONS {
        return true;
    }
    let idle = seats.iter().enumerate().filter_map(|(at, seat)| Some((seat.idle()?, at)));
    let Some((_, longest)) = idle.min() else { return false };
    seats.remove(longest).give_up();
    true
}

#[cfg(test)]
mod tests;
