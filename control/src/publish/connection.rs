//! One connection to the data plane: a question and its answer, in order.

use std::io;
use std::path::Path;
use std::time::Duration;

use sluice_api::message::{self, FrameError, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the data plane may take to answer a small question.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to compile and apply a snapshot.
const APPLIED: Duration = Duration::from_secs(60);

/// A connection over which nothing is outstanding.
pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Connect to the socket at `path`.
    pub async fn open(path: &Path) -> io::Result<Connection> {
        Ok(Connection { stream: UnixStream::connect(path).await? })
    }

    /// Ask, and wait for the answer. After an error the connection is of no use any more.
    pub async fn ask(&mut self, request: &Request) -> Result<Response, FrameError> {
        let is_change = matches!(request, Request::Apply { .. } | Request::Amend { .. });
        let patience = if is_change { APPLIED } else { ANSWER };
        timeout(patience, self.exchange(request)).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", patience.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
        })
    }

    async fn exchange(&mut self, request: &Request) -> Result<Response, FrameError> {
        self.stream.write_all(&message::encode(request)?).await?;
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await?;
        let mut json = vec![0; message::frame_len(header)?];
        self.stream.read_exact(&mut json).await?;
        message::decode(&json)
    }

    /// Resolves when the data plane closes the connection. Nothing may be outstanding.
    pub async fn closed(&self) {
        let mut byte = [0];
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            match self.stream.try_read(&mut byte) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Closed, broken, or talking unasked: in each case this connection is over.
                Ok(_) | Err(_) => return,
            }
        }
    }
}
