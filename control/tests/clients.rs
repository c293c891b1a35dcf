//! What clients can do to control by what they send: web pages of other sites, huge bodies. The bodies go to
//! the real process, whose memory is looked at.

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Api, CLIENT, FakeDataplane, Lab, WEB};
use serde_json::{Value, json};
use sluice_control::http::MAX_BODY;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status and the whole answer to exactly these bytes.
async fn talk(address: SocketAddr, said: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{said}: {answer}"));
    (status.parse().unwrap(), answer)
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_not_answered() {
    let lab = Lab::new();
    let (server, _) = lab.start(&format!("api_hosts = [\"lb.example.net\"]\n{WEB}")).await;
    let get = async |path: &str, head: &str| {
        talk(server.api, &format!("GET {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n")).await
    };
    for host in ["localhost", "127.0.0.1:9600", "[::1]:1", "lb.example.net", "LB.example.net:80"] {
        assert_eq!(get("/healthz", &format!("Host: {host}\r\n")).await.0, 200, "{host}");
    }
    let paths = ["/healthz", "/metrics", "/api/v1/services", "/nothing"];
    for host in
        ["evil.example", "127.0.0.1.evil.example:9600", "203.0.113.9", "lb.example.net.evil"]
    {
        for path in paths {
            let (status, answer) = get(path, &format!("Host: {host}\r\n")).await;
            assert_eq!(status, 403, "{host}{path}: {answer}");
            assert!(
                answer.contains("application/problem+json") && answer.contains(host),
                "{answer}"
            );
            assert!(answer.contains("control.api_hosts (lb.example.net)"), "{answer}");
        }
    }
    // The target counts as well where it names a host.
    let (status, answer) = get("http://evil.example/healthz", "Host: localhost\r\n").await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(get("http://localhost/healthz", "Host: localhost\r\n").await.0, 200);
    assert_eq!(get("/healthz", "Host: localhost\r\nHost: evil.example\r\n").await.0, 400);
    assert_eq!(get("/healthz", "").await.0, 400, "HTTP/1.1 needs one");
    assert_eq!(talk(server.api, "GET /healthz HTTP/1.0\r\n\r\n").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) =
        lab.start(&format!("api_origins = [\"https://lb.example.net\"]\n{WEB}")).await;
    api.ready(200).await;
    let drain = "/services/web/backends/10.0.0.1:8080/drain";
    let before = api.get("/services/web").await.ok(200);
    // As a form sends it, or a script without leave.
    for headers in [
        &[("origin", "https://evil.example"), CLIENT][..],
        &[("origin", "null"), CLIENT],
        &[("origin", "http://lb.example.net"), CLIENT],
        &[("origin", "https://evil.example"), ("content-type", "text/plain")],
        &[],
    ] {
        let says = api.raw("POST", drain, headers, "").await.problem(403);
        let named = if headers.is_empty() { "Sluice-Client is absent" } else { "Origin is " };
        assert!(says.contains(named), "{says}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        api.raw("POST", drain, &[("content-type", kind)], "").await.problem(415);
    }
    api.raw("DELETE", "/services/web", &[], "").await.problem(403);
    api.raw("GET", "/services", &[("origin", "https://evil.example")], "").await.problem(403);
    assert_eq!(api.get("/services/web").await.ok(200), before);
    // Asking for leave: for a page that is known, and for one that is not.
    let ask = async |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "DELETE")];
        api.raw("OPTIONS", "/services/web", &headers, "").await
    };
    ask("https://evil.example").await.problem(403);
    let leave = ask("https://lb.example.net").await;
    assert_eq!(leave.header("access-control-allow-origin"), "https://lb.example.net");
    assert!(leave.header("access-control-allow-headers").contains("sluice-client"));
    let known = [("origin", "https://lb.example.net"), ("content-type", "application/json")];
    api.raw("POST", drain, &known, "").await.ok(200);
    api.raw("POST", drain, &[CLIENT], "").await.ok(200);
    server.stop().await;
}

/// A control process.
struct Process {
    control: Child,
    api: Api,
    _lab: Lab,
}

impl Process {
    fn start() -> Process {
        let lab = Lab::new();
        let config = lab.path("control.toml");
        std::fs::write(&config, lab.toml(WEB)).unwrap();
        let mut control = Command::new(env!("CARGO_BIN_EXE_sluice-control"))
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(control.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.strip_prefix("READY api=http://").expect("a READY line");
        let api = Api::new(address.trim_end().strip_suffix("/api/v1").unwrap().parse().unwrap());
        Process { control, api, _lab: lab }
    }

    /// The most memory that it has had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.control.id()));
        let status = status.expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.control.kill();
        let _ = self.control.wait();
    }
}

/// A list of as many of these as go into so many bytes.
fn many(what: &str, bytes: usize) -> String {
    format!("[{}]", vec![what; bytes / (what.len() + 1)].join(","))
}

#[tokio::test]
async fn a_mebibyte_of_bad_values_is_answered_in_a_few_words() {
    let process = Process::start();
    let before = process.peak_mib();
    for bad in ["0", "\"\"", "{}", "{\"weight\":-1}", "{\"address\":\"x\",\"port\":0,\"x\":[]}"] {
        let mut service = json!({"name": "a", "vip": "198.51.100.9", "port": 80, "protocol": "tcp",
                                 "mode": "dr", "backends": []});
        service["backends"] = serde_json::from_str(&many(bad, 1 << 20)).unwrap();
        let answer = process.api.send("POST", "/services", service).await;
        let length = answer.body.to_string().len();
        assert_eq!(answer.status, 422, "{bad}");
        assert!(length < 64 << 10, "{bad}: {length} bytes");
        assert_eq!(answer.body["problems"].as_array().unwrap().len(), 100, "{bad}");
        let more = answer.body["more_problems"].as_u64().unwrap();
        assert!(more > 20_000, "{bad}: {more}");
    }
    let unknown: String = (0..90_000).map(|n| format!("\"k{n:05}\":0,")).collect();
    let unknown: Value = serde_json::from_str(&format!("{{{unknown}\"name\":\"a\"}}")).unwrap();
    let answer = process.api.send("POST", "/pools", unknown).await;
    assert_eq!(answer.body["more_problems"], 90_000 + 1 - 100, "and the absent addresses");
    let grown = process.peak_mib() - before;
    eprintln!("{grown} MiB more than the {before} MiB before");
    assert!(grown < 100, "{grown} MiB more than the {before} MiB before");
}

#[tokio::test]
async fn fifteen_mebibytes_of_anything_are_survived() {
    let process = Process::start();
    let headers = [("content-type", "application/json")];
    let mut slowest = Duration::ZERO;
    for (dense, status) in [
        ("0", 422),
        ("[]", 422),
        ("{\"\":0}", 413),
        ("[{\"\":{\"\":[]}}]", 413),
        ("{\"address\":\"x\",\"port\":0}", 422),
    ] {
        let body = format!("{{\"name\":\"a\",\"backends\":{}}}", many(dense, MAX_BODY - 100));
        // Several at a time, and somebody who watches.
        let post = || process.api.raw("POST", "/services", &headers, body.clone());
        let asking = async { tokio::join!(post(), post(), post()) };
        let watching = async {
            for _ in 0..5 {
                let asked = Instant::now();
                process.api.get("//healthz").await.ok(200);
                slowest = slowest.max(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (answers, ()) = tokio::join!(asking, watching);
        for answer in [answers.0, answers.1, answers.2] {
            assert_eq!(answer.status, status, "{dense}: {:.300}", answer.body.to_string());
            assert!(answer.body.to_string().len() < 64 << 10);
        }
    }
    assert!(process.api.get("/services").await.ok(200)["services"][0]["name"] == "web");
    let peak = process.peak_mib();
    eprintln!("peak {peak} MiB, slowest look {slowest:?}");
    assert!(peak < 900, "{peak} MiB");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
