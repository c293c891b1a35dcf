//! Connections of API clients: how many, how long, and what is said to who speaks no HTTP.
//!
//! A client that says nothing, slowly, or does not listen costs a connection for a while, and no more:
//! when there are too many, the one that has waited longest makes room for the next.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Most connections at a time.
    pub connections: usize,
    /// Longest time for the head of a request.
    pub head: Duration,
    /// Longest time between an answer and the next request, and for taking the answer.
    pub idle: Duration,
    /// Longest time for a request, before its connection may make room for another.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Patience { connections: 256, head: seconds(30), idle: seconds(75), request: seconds(150) }
    }
}

/// A connection, as the others see it.
#[derive(Debug)]
struct Entry {
    started: Instant,
    /// When it last began or ended to work at a request, since it started.
    since_ms: AtomicU64,
    is_busy: AtomicBool,
    close: Notify,
}

impl Entry {
    fn mark(&self, is_busy: bool) {
        self.since_ms.store(self.started.elapsed().as_millis() as u64, Relaxed);
        self.is_busy.store(is_busy, Relaxed);
    }

    fn for_how_long(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.since_ms.load(Relaxed)))
    }
}

#[derive(Clone, Debug)]
struct Connections {
    entries: Arc<Mutex<Vec<Arc<Entry>>>>,
    patience: Patience,
}

impl Connections {
    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// One more, for which another may have to go; none when all are at work.
    fn enter(&self) -> Option<Arc<Entry>> {
        let mut entries = self.entries();
        if entries.len() >= self.patience.connections {
            let may_go = |entry: &Entry| {
                !entry.is_busy.load(Relaxed) || entry.for_how_long() > self.patience.request
            };
            let waits_longest = entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| may_go(entry))
                .max_by_key(|(_, entry)| entry.for_how_long())
                .map(|(index, _)| index)?;
            entries.swap_remove(waits_longest).close.notify_one();
        }
        let entry = Arc::new(Entry {
            started: Instant::now(),
            since_ms: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
            close: Notify::new(),
        });
        entries.push(entry.clone());
        Some(entry)
    }

    fn leave(&self, entry: &Arc<Entry>) {
        self.entries().retain(|other| !Arc::ptr_eq(other, entry));
    }
}

/// Answer who connects, until `stopped`; then let running requests end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    mut stopped: watch::Receiver<bool>,
) {
    let connections = Connections { entries: Arc::default(), patience };
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // An error means that the sender is gone: stop as well.
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let Some(entry) = connections.enter() else { continue };
                let (router, stopped) = (router.clone(), stopped.clone());
                let connections = connections.clone();
                tasks.spawn(async move {
                    converse(stream, router, &entry, patience, stopped).await;
                    connections.leave(&entry);
                });
            }
            Err(error) => {
                // No file is left, or the client has gone already: neither is for ever.
                tracing::warn!(%error, "a client's connection cannot be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

async fn converse(
    stream: TcpStream,
    router: Router,
    entry: &Arc<Entry>,
    patience: Patience,
    mut stopped: watch::Receiver<bool>,
) {
    // An answer in two parts would wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request| {
        entry.mark(true);
        let answer = router.call(request);
        async {
            let answer = answer.await;
            entry.mark(false);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .serve_connection(TokioIo::new(Wire::new(stream)), answer);
    let mut connection = pin!(connection);
    let mut is_stopping = false;
    let mut look = tokio::time::interval(patience.idle / 8);
    loop {
        tokio::select! {
            // Errors are the client's: it has gone, was too slow, or speaks no HTTP.
            _ = connection.as_mut() => return,
            () = entry.close.notified() => return,
            _ = stopped.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                if !entry.is_busy.load(Relaxed) && entry.for_how_long() > patience.idle {
                    return;
                }
            }
        }
    }
}

/// A client's stream. Who speaks no HTTP is answered by hyper with a status alone; here it gets a body
/// that says what is wrong.
struct Wire<S> {
    stream: S,
    /// What is to be sent before all else.
    pending: Vec<u8>,
}

impl<S> Wire<S> {
    fn new(stream: S) -> Self {
        Wire { stream, pending: Vec::new() }
    }
}

/// The answer in the place of one without a body; none for all others.
fn in_words(answer: &[u8]) -> Option<Vec<u8>> {
    let head = answer.strip_prefix(b"HTTP/1.1 4").filter(|head| head.ends_with(b"\r\n\r\n"))?;
    let head = std::str::from_utf8(head).ok()?;
    // Whatever comes from a handler has one.
    head.contains("\r\ncontent-length: 0\r\n").then_some(())?;
    let (title, detail) = match head.get(..2)? {
        "14" => ("URI too long", "the target of the request is too long"),
        "31" => ("Request head too long", "the head of the request is too long"),
        _ => (
            "The request cannot be read",
            "what was received is no HTTP/1.1 request (RFC 9112): expected as GET /api/v1/services \
             HTTP/1.1, header fields, and an empty line",
        ),
    };
    let status: u16 = format!("4{}", head.get(..2)?).parse().ok()?;
    let body = json!({
        "type": "urn:sluice:problem:bad-request",
        "title": title,
        "status": status,
        "detail": detail,
        "problems": [],
    })
    .to_string();
    let line = head.lines().next()?;
    let text = format!(
        "HTTP/1.1 4{line}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    Some(text.into_bytes())
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(context))?;
        if let Some(answer) = in_words(bytes) {
            self.pending = answer;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const QUICK: Patience = Patience {
        connections: 3,
        head: Duration::from_millis(200),
        idle: Duration::from_millis(400),
        request: Duration::from_secs(9),
    };

    /// Where it listens, and what stops it.
    async fn start() -> (std::net::SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(async || "here")).route(
            "/slow",
            post(async || {
                tokio::time::sleep(Duration::from_millis(900)).await;
                "done"
            }),
        );
        tokio::spawn(serve(listener, router, QUICK, stopped));
        (address, stop)
    }

    /// What comes until the connection is closed, which must not take long.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let read = stream.read_to_end(&mut text);
        // Who is made room for is reset when it has not been read.
        let _ = tokio::time::timeout(Duration::from_secs(3), read).await.expect("closed in time");
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn who_says_nothing_or_says_it_slowly_is_not_waited_for() {
        let (address, _stop) = start().await;
        let started = Instant::now();
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        rest(&mut silent).await;
        rest(&mut slow).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(rest(&mut idle).await.ends_with("here"), "answered, then closed");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn who_waits_longest_makes_room_and_who_is_at_work_does_not() {
        let (address, _stop) = start().await;
        let mut at_work = TcpStream::connect(address).await.unwrap();
        let request = b"POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        at_work.write_all(request).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        assert!(rest(&mut client).await.ends_with("here"));
        assert!(rest(&mut at_work).await.ends_with("done"));
    }

    #[tokio::test]
    async fn a_stop_waits_for_running_requests_only() {
        let (address, stop) = start().await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut at_work = TcpStream::connect(address).await.unwrap();
        at_work.write_all(b"POST /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(true).unwrap();
        assert!(rest(&mut at_work).await.ends_with("done"));
        assert!(rest(&mut idle).await.ends_with("here"));
    }

    #[tokio::test]
    async fn what_is_no_http_is_told_so() {
        let (address, _stop) = start().await;
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
        let cases = [
            ("hello\r\n\r\n", "400 Bad Request"),
            ("GET / HTTP/9.9\r\n\r\n", "400 Bad Request"),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", "400 Bad Request"),
            ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "400 Bad Request"),
            (long.as_str(), "414 URI Too Long"),
        ];
        for (said, status) in cases {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            let answer = rest(&mut client).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{said:.40}: {answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("content-type: application/problem+json"), "{head}");
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
        }
    }
}
