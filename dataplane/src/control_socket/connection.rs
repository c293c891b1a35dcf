//! One peer of the control socket: a request comes in, goes to the main thread, and its response
//! goes out, until the peer leaves, is too slow, or sends what cannot be read.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use sluice_api::message::{self, FrameError, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::complaints::Complaints;
use super::{MAX_CONNECTIONS, Pending, Reply};

/// A place among the connections that there may be.
#[derive(Debug)]
pub(super) struct Seat {
    /// Whether its peer has asked something, and since when it has asked nothing; none while it is
    /// asking.
    idle: Mutex<Option<(bool, Instant)>>,
    is_given_up: Notify,
}

impl Seat {
    /// One whose peer has asked nothing yet.
    pub(super) fn new() -> Seat {
        Seat { idle: Mutex::new(Some((false, Instant::now()))), is_given_up: Notify::new() }
    }

    /// Whether its peer has asked something, and since when it has asked nothing; none while it is
    /// asking. In the order in which seats are given up: first who has never asked, then for longest.
    pub(super) fn idle(&self) -> Option<(bool, Instant)> {
        self.idle.lock().map_or(None, |idle| *idle)
    }

    /// Another peer gets it.
    pub(super) fn give_up(&self) {
        self.is_given_up.notify_one();
    }

    fn note(&self, now: Option<(bool, Instant)>) {
        if let Ok(mut idle) = self.idle.lock() {
            *idle = now;
        }
    }
}

/// Serve a peer until it leaves, or gives up its seat. It has `limit` for each request that it has begun and for taking
/// each response.
pub(super) async fn serve(
    stream: UnixStream,
    requests: Sender<Pending>,
    limit: Duration,
    complaints: Complaints,
    seat: &Seat,
) {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let mut peer = Peer { stream, limit };
    match peer.converse(&requests, seat).await {
        Ok(true) => {
            let message = format!(
                "control socket: {MAX_CONNECTIONS} connections are open, and this one, of peer {pid:?}, \
                 has asked nothing for longest: it gives way to a new one"
            );
            complaints.warn("gave-way", message.clone());
            let _ = peer.write(&Response::Error { message }).await;
        }
        Ok(false) => tracing::debug!(pid, "control socket: peer left"),
        Err(FrameError::Io(error)) => {
            complaints.warn("lost", format!("control socket: peer {pid:?} lost: {error}"));
        }
        Err(error) => {
            complaints.warn("closed", format!("{error}; peer {pid:?} is closed"));
            // What this peer sends next cannot be told from the middle of a frame.
            let _ = peer.write(&Response::Error { message: error.to_string() }).await;
        }
    }
}

/// Tell a peer that there are too many.
pub(super) async fn refuse(stream: UnixStream, limit: Duration, complaints: Complaints) {
    let message = format!(
        "control socket: {MAX_CONNECTIONS} connections are open and busy, no more are taken"
    );
    complaints.warn("full", message.clone());
    let _ = Peer { stream, limit }.write(&Response::Error { message }).await;
}

struct Peer {
    stream: UnixStream,
    limit: Duration,
}

impl Peer {
    /// Answer until the peer leaves; whether it gave up its seat instead.
    async fn converse(
        &mut self,
        requests: &Sender<Pending>,
        seat: &Seat,
    ) -> Result<bool, FrameError> {
        let mut first = [0];
        let mut has_asked = false;
        loop {
            // A peer may be silent between two requests for as long as nobody else wants its seat.
            seat.note(Some((has_asked, Instant::now())));
            let count = tokio::select! {
                biased;
                count = self.stream.read(&mut first) => count?,
                () = seat.is_given_up.notified() => return Ok(true),
            };
            seat.note(None);
            if count == 0 {
                return Ok(false);
            }
            let request = self.read(first[0]).await?;
            has_asked = true;
            let (reply, response) = oneshot::channel();
            if requests.send(Pending { request, reply: Reply(reply) }).is_err() {
                return Ok(false);
            }
            // The main thread drops a request only when it ends.
            let Ok(answer) = response.await else { return Ok(false) };
            self.write(&answer.response()).await?;
        }
    }

    /// The request that begins with this byte.
    async fn read(&mut self, first: u8) -> Result<Request, FrameError> {
        let mut header = [first, 0, 0, 0];
        in_time(self.limit, self.stream.read_exact(&mut header[1..])).await?;
        let mut json = vec![0; message::frame_len(header)?];
        in_time(self.limit, self.stream.read_exact(&mut json)).await?;
        message::decode(&json)
    }

    async fn write(&mut self, response: &Response) -> Result<(), FrameError> {
        let frame = message::encode(response)?;
        in_time(self.limit, self.stream.write_all(&frame)).await
    }
}

async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, FrameError> {
    match timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => {
            let error = format!("not done within {} s", limit.as_secs_f32());
            Err(FrameError::Io(io::Error::new(io::ErrorKind::TimedOut, error)))
        }
    }
}
