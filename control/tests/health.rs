//! Health checks against real listeners on loopback.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_api::BackendId;
use sluice_api::service::{CheckClose, HealthCheck, HealthCheckKind};
use sluice_control::health::{Checker, HealthChange, Target};
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError, unbounded_channel};
use tokio::time::{sleep, timeout};

const NOTHING_KNOWN: fn() -> HashMap<(String, BackendId), bool> = HashMap::new;

/// An HTTP server whose status can be switched while it runs; 0 closes without an answer, 1 talks
/// nonsense, 2 never answers, 3 resets.
struct Server {
    id: BackendId,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
    last_head: Arc<std::sync::Mutex<String>>,
}

impl Server {
    fn start(status: u16) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let id = backend(listener.local_addr().unwrap().port());
        let server = Server {
            id,
            status: Arc::new(AtomicU16::new(status)),
            requests: Arc::default(),
            last_head: Arc::default(),
        };
        let (status, requests, last_head) =
            (server.status.clone(), server.requests.clone(), server.last_head.clone());
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                // In this order: who sees the request counted can only change the next answer.
                let status = status.load(Ordering::SeqCst);
                requests.fetch_add(1, Ordering::SeqCst);
                if status == 3 {
                    // Closing with a request unread sends a reset.
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                let mut head = [0; 1024];
                let read = stream.read(&mut head).unwrap_or(0);
                *last_head.lock().unwrap() = String::from_utf8_lossy(&head[..read]).into_owned();
                match status {
                    0 => {}
                    1 => drop(stream.write_all(b"220 mail.example ESMTP\r\n")),
                    2 => silent.push(stream),
                    // A body that never ends must not matter.
                    code => {
                        let head = format!("HTTP/1.1 {code} X\r\nContent-Length: 99999\r\n\r\nabc");
                        drop(stream.write_all(head.as_bytes()));
                    }
                }
            }
        });
        server
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn backend(port: u16) -> BackendId {
    BackendId { address: Ipv4Addr::LOCALHOST.into(), port }
}

fn tcp_check(interval_ms: u32, rise: u8, fall: u8) -> HealthCheck {
    HealthCheck {
        interval_ms,
        timeout_ms: interval_ms.min(300),
        rise,
        fall,
        ..HealthCheck::default()
    }
}

fn http_check(interval_ms: u32, rise: u8, fall: u8) -> HealthCheck {
    HealthCheck { kind: HealthCheckKind::Http, ..tcp_check(interval_ms, rise, fall) }
}

fn target(backend: BackendId, check: &HealthCheck) -> Target {
    Target { service: "web".to_owned(), backend, check: check.clone() }
}

async fn next(changes: &mut UnboundedReceiver<HealthChange>) -> HealthChange {
    timeout(Duration::from_secs(5), changes.recv()).await.expect("a change within 5 s").unwrap()
}

/// The first change of a single target without a known state.
async fn first_verdict(backend: BackendId, check: HealthCheck) -> (bool, String) {
    let (sender, mut changes) = unbounded_channel();
    let checker = Checker::start(sender);
    checker.set_targets(vec![target(backend, &check)], &NOTHING_KNOWN());
    let change = next(&mut changes).await;
    assert_eq!((change.service.as_str(), change.backend), ("web", backend));
    (change.healthy.expect("it is known"), change.reason)
}

#[tokio::test]
async fn reasons_say_what_was_seen() {
    let check = http_check(1_000, 1, 1);
    let cases = [
        (200, true, "HTTP 200"),
        (503, false, "HTTP 503, expected 200"),
        (0, false, "connection closed without an answer"),
        (1, false, "answer is not HTTP"),
        (2, false, "no answer within 300 ms"),
        (3, false, "connection reset"),
    ];
    for (status, healthy, reason) in cases {
        let server = Server::start(status);
        let verdict = first_verdict(server.id, check.clone()).await;
        assert_eq!(verdict, (healthy, reason.to_owned()), "server {status}");
    }
}

#[tokio::test]
async fn tcp_passes_on_a_handshake_and_fails_when_refused() {
    let server = Server::start(200);
    let check = tcp_check(1_000, 1, 1);
    let verdict = first_verdict(server.id, check.clone()).await;
    assert_eq!(verdict, (true, "TCP handshake completed".to_owned()));

    // Port 1 (tcpmux) is nobody's; a port just freed could be another test's by now.
    let verdict = first_verdict(backend(1), check.clone()).await;
    assert_eq!(verdict, (false, "connection refused".to_owned()));

    // The check's own port instead of the backend's.
    let check = HealthCheck { port: Some(server.id.port), ..check };
    assert!(first_verdict(backend(1), check).await.0);
}

/// A reset leaves no TIME_WAIT socket behind, so checks do not use up local ports.
#[tokio::test]
async fn checks_close_with_a_reset() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let id = backend(listener.local_addr().unwrap().port());
    let reading = std::thread::spawn(move || listener.accept()?.0.read(&mut [0; 1]));
    assert!(first_verdict(id, tcp_check(1_000, 1, 1)).await.0);
    let read = tokio::task::spawn_blocking(|| reading.join().unwrap()).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// How a server sees its connections end: by each kind of check, closed in each way.
#[tokio::test]
async fn checks_close_with_a_fin_where_that_is_wanted() {
    let body = "x".repeat(30_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    for (check, close, expected) in [
        (tcp_check(1_000, 1, 1), CheckClose::Fin, Ok(0)),
        (http_check(1_000, 1, 1), CheckClose::Fin, Ok(0)),
        (tcp_check(1_000, 1, 1), CheckClose::Reset, reset),
        (http_check(1_000, 1, 1), CheckClose::Reset, reset),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let id = backend(listener.local_addr().unwrap().port());
        let (kind, answer) = (check.kind, answer.clone());
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept()?.0;
            if kind == HealthCheckKind::Http {
                let read = stream.read(&mut [0; 1_024])?;
                assert!(read > 0);
                stream.write_all(answer.as_bytes())?;
            }
            stream.read(&mut [0; 1])
        });
        let check = HealthCheck { close, ..check };
        assert!(first_verdict(id, check).await.0);
        let end = tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
        assert_eq!(end.map_err(|error| error.kind()), expected, "{kind:?} {close:?}");
    }
}

/// Servers as they are: each with the verdict that curl's exit code and status give.
#[tokio::test]
async fn odd_servers_are_judged_as_curl_does() {
    let many = "X-H: v\r\n".repeat(101);
    let ok = "HTTP/1.1 200 OK\r\n";
    let cases = [
        ("more than 100 headers", format!("{ok}{many}\r\n"), true),
        ("a folded header", format!("{ok}X-A: a\r\n b\r\n\r\n"), true),
        ("a blank before the colon", format!("{ok}Server : bar\r\n\r\n"), true),
        ("a long header", format!("{ok}X: {}\r\n\r\n", "a".repeat(20_000)), true),
        ("another version", "HTTP/2.0 200 OK\r\n\r\n".to_owned(), true),
        ("lower case", "http/1.1 200 ok\r\n\r\n".to_owned(), true),
        ("an interim answer", format!("HTTP/1.1 103 Early Hints\r\n\r\n{ok}\r\n"), true),
        ("a head that closing ends", format!("{ok}Content-Length: 0\r\n"), true),
        ("chunks that are none", format!("{ok}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), true),
        ("no colon", format!("{ok}junk line\r\n\r\n"), false),
        ("a negative length", format!("{ok}Content-Length: -1\r\n\r\nok"), false),
        ("blank lines first", format!("\r\n\r\n{ok}\r\n"), false),
        ("an upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), false),
        ("HTTP/0.9", "hello there\n".to_owned(), false),
    ];
    for (what, answer, expected) in cases {
        // One that reads the request first, and one that does not.
        for reads in [true, false] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let id = backend(listener.local_addr().unwrap().port());
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                if reads {
                    let _ = stream.read(&mut [0; 1_024]);
                }
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0; 1_024]);
            });
            let verdict = first_verdict(id, http_check(1_000, 1, 1)).await;
            assert_eq!(verdict.0, expected, "{what}, reads first: {reads}: {}", verdict.1);
        }
    }
}

#[tokio::test]
async fn an_http_check_asks_what_is_configured() {
    let server = Server::start(204);
    let check = HealthCheck {
        path: "/healthz?deep=1".to_owned(),
        host: Some("www.example.com".to_owned()),
        expected_status: vec![200, 204],
        ..http_check(1_000, 1, 1)
    };
    assert_eq!(first_verdict(server.id, check).await, (true, "HTTP 204".to_owned()));
    let head = server.last_head.lock().unwrap().to_lowercase();
    assert!(head.starts_with("get /healthz?deep=1 http/1.1\r\n"), "{head}");
    assert!(head.contains("host: www.example.com\r\n"), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(head.contains("user-agent: sluice-health/"), "{head}");

    first_verdict(server.id, http_check(1_000, 1, 1)).await;
    let head = server.last_head.lock().unwrap().to_lowercase();
    assert!(head.contains(&format!("host: {}\r\n", server.id)), "{head}");
}

#[tokio::test]
async fn a_dead_backend_is_found_in_time_and_comes_back() {
    let server = Server::start(200);
    let (sender, mut changes) = unbounded_channel();
    let checker = Checker::start(sender);
    // The timeout of a whole interval is the worst case.
    let check = HealthCheck { timeout_ms: 500, ..http_check(500, 2, 2) };
    checker.set_targets(vec![target(server.id, &check)], &NOTHING_KNOWN());
    assert_eq!(next(&mut changes).await.healthy, Some(true));
    for silence in [503, 2] {
        // Just after a check has passed.
        let before = server.requests();
        while server.requests() == before {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(10)).await;
        server.status.store(silence, Ordering::SeqCst);
        let died = Instant::now();
        assert_eq!(next(&mut changes).await.healthy, Some(false));
        assert!(died.elapsed() < Duration::from_millis(1_500), "{:?}", died.elapsed());
        assert!(died.elapsed() > Duration::from_millis(500), "one failure is not enough");
        server.status.store(200, Ordering::SeqCst);
        let change = next(&mut changes).await;
        assert_eq!((change.healthy, change.reason.as_str()), (Some(true), "HTTP 200"));
    }
}

#[tokio::test]
async fn flapping_below_fall_and_rise_changes_nothing() {
    let server = Server::start(200);
    let (sender, mut changes) = unbounded_channel();
    let checker = Checker::start(sender);
    checker.set_targets(vec![target(server.id, &http_check(100, 2, 2))], &NOTHING_KNOWN());
    assert_eq!(next(&mut changes).await.healthy, Some(true));
    // After every check the server changes its mind.
    for round in 0..10 {
        let seen = server.requests();
        while server.requests() == seen {
            sleep(Duration::from_millis(2)).await;
        }
        server.status.store(if round % 2 == 0 { 500 } else { 200 }, Ordering::SeqCst);
    }
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn a_known_state_is_kept_until_fall_or_rise_say_otherwise() {
    let (up, down) = (Server::start(200), Server::start(500));
    let known =
        HashMap::from([(("web".to_owned(), up.id), true), (("web".to_owned(), down.id), true)]);
    let (sender, mut changes) = unbounded_channel();
    let checker = Checker::start(sender);
    let check = http_check(200, 2, 3);
    checker.set_targets(vec![target(up.id, &check), target(down.id, &check)], &known);
    let change = next(&mut changes).await;
    assert_eq!((change.backend, change.healthy), (down.id, Some(false)));
    assert_eq!(down.requests(), 3, "fall is 3");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((now.as_millis() as u64).abs_diff(change.at_ms) < 1_000);
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty), "the other is as known");
}

#[tokio::test]
async fn removed_targets_are_asked_no_more_and_late_results_ignored() {
    let (kept, silent) = (Server::start(200), Server::start(2));
    let (sender, mut changes) = unbounded_channel();
    let checker = Checker::start(sender);
    let check = http_check(300, 1, 1);
    checker.set_targets(vec![target(kept.id, &check), target(silent.id, &check)], &NOTHING_KNOWN());
    while silent.requests() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // Its check is running now, and would fail in 270 ms.
    checker.set_targets(vec![target(kept.id, &check)], &NOTHING_KNOWN());
    let (asked, before) = (silent.requests(), kept.requests());
    sleep(Duration::from_millis(1_000)).await;
    assert_eq!(silent.requests(), asked);
    assert!(kept.requests() >= before + 3, "the kept one goes on at its pace");
    let change = changes.try_recv().expect("the kept one's first verdict");
    assert_eq!((change.backend, change.healthy), (kept.id, Some(true)));
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty));

    checker.shutdown();
    assert_eq!(timeout(Duration::from_secs(1), changes.recv()).await, Ok(None), "it has ended");
}

#[tokio::test]
async fn a_changed_check_keeps_the_state_and_is_used_at_once() {
    let server = Server::start(204);
    let (sender, mut changes) = unbounded_channel();
    let checker = Checker::start(sender);
    checker.set_targets(vec![target(server.id, &tcp_check(60_000, 2, 2))], &NOTHING_KNOWN());
    assert_eq!(next(&mut changes).await.healthy, Some(true));
    checker.set_targets(vec![target(server.id, &http_check(200, 2, 2))], &NOTHING_KNOWN());
    let change = next(&mut changes).await;
    assert_eq!((change.healthy, change.reason.as_str()), (Some(false), "HTTP 204, expected 200"));
    assert_eq!(server.requests(), 1 + 2, "not unknown again: it took fall = 2 failures");
}

#[tokio::test]
async fn setting_the_same_targets_again_moves_no_check() {
    let server = Server::start(200);
    let (sender, _changes) = unbounded_channel();
    let checker = Checker::start(sender);
    let check = http_check(200, 1, 1);
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1_500) {
        checker.set_targets(vec![target(server.id, &check)], &NOTHING_KNOWN());
        sleep(Duration::from_millis(5)).await;
    }
    let requests = server.requests();
    assert!((5..=9).contains(&requests), "{requests} checks in 1.5 s at 200 ms");
}

/// One listener answers for all of 127/8: 2,000 backends, each its own address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_backends_make_no_burst() {
    const TARGETS: u32 = 2_000;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let began = Instant::now();
    let accepted = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = accepted.clone();
    let server = tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let to = stream.local_addr().unwrap().ip();
                log.lock().unwrap().push((began.elapsed(), to));
            }
        }
    });
    let (sender, mut changes) = unbounded_channel();
    let checker = Checker::start(sender);
    let check = tcp_check(2_000, 2, 2);
    let targets = (1..=TARGETS)
        .map(|n| BackendId { address: Ipv4Addr::from(0x7f01_0000 + n).into(), port })
        .map(|id| target(id, &check))
        .collect();
    checker.set_targets(targets, &NOTHING_KNOWN());
    sleep(Duration::from_millis(6_100)).await;
    server.abort();

    let accepted = accepted.lock().unwrap();
    let mut slots = HashMap::new();
    for (at, _) in accepted.iter() {
        *slots.entry(at.as_millis() / 10).or_insert(0) += 1;
    }
    let mut sizes: Vec<i32> = slots.values().copied().collect();
    sizes.sort_unstable();
    // 10 on average. A shared machine may stall the whole process for some slots, no more.
    let (usual, most) = (sizes[sizes.len() * 95 / 100], sizes[sizes.len() - 1]);
    assert!(usual <= 40 && most <= 300, "{usual} checks within 10 ms, {most} at most");
    let busy = slots.values().filter(|n| **n > 0).count();
    assert!(busy > 300, "spread over {busy} slots of 610");

    let mut per_target = HashMap::new();
    for (_, to) in accepted.iter() {
        *per_target.entry(*to).or_insert(0) += 1;
    }
    assert_eq!(per_target.len(), TARGETS as usize, "every backend was asked");
    assert!(per_target.values().all(|n| (2..=5).contains(n)), "each about every 2 s");
    let mut verdicts = 0;
    while let Ok(change) = changes.try_recv() {
        assert_eq!(change.healthy, Some(true), "{change:?}");
        verdicts += 1;
    }
    assert_eq!(verdicts, TARGETS, "one verdict each");
}
