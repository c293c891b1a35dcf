//! One peer of the control socket: a request comes in, goes to the main thread, and its response
//! goes out, until the peer leaves, is too slow, or sends what cannot be read.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use sluice_api::message::{self, FrameError, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::complaints::Complaints;
use super::{MAX_CONNECTIONS, Pending, Reply};

/// Serve a peer until it leaves. It has `limit` for each request that it has begun and for taking
/// each response.
pub(super) async fn serve(
    stream: UnixStream,
    requests: Sender<Pending>,
    limit: Duration,
    complaints: Complaints,
) {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let mut peer = Peer { stream, limit };
    match peer.converse(&requests).await {
        Ok(()) => tracing::debug!(pid, "control socket: peer left"),
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
    let message =
        format!("control socket: {MAX_CONNECTIONS} connections are open, no more are taken");
    complaints.warn("full", message.clone());
    let _ = Peer { stream, limit }.write(&Response::Error { message }).await;
}

struct Peer {
    stream: UnixStream,
    limit: Duration,
}

impl Peer {
    async fn converse(&mut self, requests: &Sender<Pending>) -> Result<(), FrameError> {
        while let Some(request) = self.read().await? {
            let (reply, response) = oneshot::channel();
            if requests.send(Pending { request, reply: Reply(reply) }).is_err() {
                return Ok(());
            }
            // The main thread drops a request only when it ends.
            let Ok(answer) = response.await else { return Ok(()) };
            self.write(&answer.response()).await?;
        }
        Ok(())
    }

    /// The next request; none when the peer has closed its side between two.
    async fn read(&mut self) -> Result<Option<Request>, FrameError> {
        let mut header = [0; 4];
        // A peer may be silent between two requests for as long as it likes.
        if self.stream.read(&mut header[..1]).await? == 0 {
            return Ok(None);
        }
        in_time(self.limit, self.stream.read_exact(&mut header[1..])).await?;
        let mut json = vec![0; message::frame_len(header)?];
        in_time(self.limit, self.stream.read_exact(&mut json)).await?;
        message::decode(&json).map(Some)
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
