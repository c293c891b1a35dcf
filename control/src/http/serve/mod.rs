//! Connections of API clients: how many, how long, and what is said to who speaks no HTTP.
//!
//! A client that says nothing, slowly, or does not listen costs a connection for a while, and no more:
//! when there are too many, the one that has waited longest for its client makes room for the next. Those
//! whose requests are worked at stay, and when all are, the next is told so.

mod connections;
mod refusals;
mod wire;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use connections::{Connections, Entry, Watched};
use refusals::Refusals;
use wire::Wire;

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

/// Answer who connects, until `stopped`; then let running requests end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    mut stopped: watch::Receiver<bool>,
) {
    let connections = Connections::new(patience);
    let mut refusals = Refusals::default();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // An error means that the sender is gone: stop as well.
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(entry) = connections.enter() else {
                    refusals.refuse(stream, &mut tasks);
                    continue;
                };
                let (router, stopped) = (router.clone(), stopped.clone());
                let connections = connections.clone();
                tasks.spawn(async move {
                    converse(stream, peer, router, &entry, patience, stopped).await;
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
    peer: SocketAddr,
    router: Router,
    entry: &Arc<Entry>,
    patience: Patience,
    mut stopped: watch::Receiver<bool>,
) {
    // An answer in two parts would wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
