//! What those are told for whom there is no room.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest time for telling a client that there is no room.
const TELLING: Duration = Duration::from_secs(1);
/// Most clients that are told so at a time; the connections of more are closed without a word.
const TOLD: usize = 64;
/// Least time between two lines of the log about that.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Tells clients that there is no room for them, and the log how many they were.
pub(super) struct Refusals {
    told: Arc<Semaphore>,
    /// Since the last line of the log.
    count: u64,
    logged: Option<Instant>,
}

impl Default for Refusals {
    fn default() -> Self {
        Refusals { told: Arc::new(Semaphore::new(TOLD)), count: 0, logged: None }
    }
}

impl Refusals {
    pub(super) fn refuse(&mut self, stream: TcpStream, tasks: &mut JoinSet<()>) {
        self.count += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            tracing::warn!(
                refused = self.count,
                "API clients were refused: as many requests are worked at as there may be connections"
            );
            self.count = 0;
            self.logged = Some(Instant::now());
        }
        if let Ok(permit) = self.told.clone().try_acquire_owned() {
            tasks.spawn(async move {
                // It may be gone, or not listen.
                let _ = timeout(TELLING, tell_that_there_is_no_room(stream)).await;
                drop(permit);
            });
        }
    }
}

async fn tell_that_there_is_no_room(mut stream: TcpStream) -> io::Result<()> {
    let body = json!({
        "type": "urn:sluice:problem:busy",
        "title": "Too many connections",
        "status": 503,
        "detail": "there are as many connections as there may be, and the requests of all are worked \
                   at: try again",
        "problems": [],
    })
    .to_string();
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
                retry-after: 1\r\nconnection: close\r\n";
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // A close with something unread would reset the connection, and the answer with it.
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
