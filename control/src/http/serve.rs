//! Connections of API clients: how many, how long, and what is said to who speaks no HTTP.
//!
//! A client that says nothing, slowly, or does not listen costs a connection for a while, and no more:
//! when there are too many, the one that has waited longest for its client makes room for the next. Those
//! whose requests are worked at stay, and when all are, the next is told so.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::Request;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest time for telling a client that there is no room.
const TELLING: Duration = Duration::from_secs(1);
/// Most clients that are told so at a time; the connections of more are closed without a word.
const TOLD: usize = 64;
/// Least time between two lines of the log about that.
const LOG_EVERY: Duration = Duration::from_secs(10);

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
    /// When it last began or ended to work at a request, or to wait for the body of one, since it
    /// started.
    since_ms: AtomicU64,
    /// Its request is there, as far as it is needed, and not answered yet.
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

/// The body of a request. Until it is whole, or nobody wants the rest, its connection waits for the
/// client.
struct Watched {
    body: Incoming,
    entry: Arc<Entry>,
    is_waited_for: bool,
}

impl Watched {
    fn new(body: Incoming, entry: Arc<Entry>) -> Self {
        let is_waited_for = !body.is_end_stream();
        entry.mark(!is_waited_for);
        Watched { body, entry, is_waited_for }
    }

    fn no_more(&mut self) {
        if std::mem::take(&mut self.is_waited_for) {
            self.entry.mark(true);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.no_more();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.no_more();
    }
}

/// Tells clients that there is no room for them, and the log how many they were.
struct Refusals {
    told: Arc<Semaphore>,
    /// Since the last line of the log.
    count: u64,
    logged: Option<Instant>,
}

impl Refusals {
    fn refuse(&mut self, stream: TcpStream, tasks: &mut JoinSet<()>) {
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

/// Answer who connects, until `stopped`; then let running requests end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    mut stopped: watch::Receiver<bool>,
) {
    let connections = Connections { entries: Arc::default(), patience };
    let told = Arc::new(Semaphore::new(TOLD));
    let mut refusals = Refusals { told, count: 0, logged: None };
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
                let Some(entry) = connections.enter() else {
                    refusals.refuse(stream, &mut tasks);
                    continue;
                };
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
    let answer = service_fn(|request: Request<Incoming>| {
        let answer = router.call(request.map(|body| Watched::new(body, entry.clone())));
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
        let router = router.route("/body", post(async |body: String| body));
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
    async fn who_waits_for_a_body_makes_room_unless_nobody_wants_it() {
        let (address, _stop) = start().await;
        let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
        // Its body is not wanted, and another's is there: both are at work.
        let mut at_work = Vec::new();
        for body in ["", "{}"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(format!("POST /slow {head}{body}").as_bytes()).await.unwrap();
            at_work.push(client);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut waiting = Vec::new();
        for _ in 0..20 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(format!("POST /body {head}{{").as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            waiting.push(client);
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(format!("POST /body {head}{{}}").as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{}"), "{answer}");
        for client in &mut at_work {
            assert!(rest(client).await.ends_with("done"));
        }
    }

    #[tokio::test]
    async fn who_finds_all_at_work_is_told_so() {
        let (address, _stop) = start().await;
        let request = b"POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut at_work = Vec::new();
        for _ in 0..QUICK.connections {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request).await.unwrap();
            at_work.push(client);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["type"], "urn:sluice:problem:busy");
        for client in &mut at_work {
            assert!(rest(client).await.ends_with("done"));
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(rest(&mut client).await.ends_with("here"), "there is room again");
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
