//! A data plane that only talks, an HTTP client, and patience.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request as HttpRequest, StatusCode};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sluice_api::message::{self, Request, Response};
use sluice_api::stats::{
    BackendStats, DataplaneEvent, DataplaneStatus, Doubt, Limits, NeighbourStatus, PortStats,
    PortStatus, QueueStats, ServiceStats, Stats, TableUsage, Traffic, UnreachableBackend,
    WorkerStats, WorkerStatus,
};
use sluice_api::{Problem, Snapshot, validate};
use sluice_control::config::Config;
use sluice_control::server::{self, Server};
use sluice_control::store::{self, Loaded, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// What the fake data plane remembers.
#[derive(Default)]
pub struct Memory {
    pub boot_id: u64,
    pub snapshot: Option<Snapshot>,
    pub announced: Vec<IpAddr>,
    pub limits: Limits,
    pub port_address: Option<IpAddr>,
    /// That of a second port.
    pub other_port_address: Option<IpAddr>,
    /// An address by which it refuses as by that of a port, and which it does not tell.
    pub refuses_silently: Option<IpAddr>,
    pub tables: Vec<TableUsage>,
    pub events: Vec<DataplaneEvent>,
    /// Every snapshot it was asked to apply.
    pub applies: Vec<Snapshot>,
    /// Every announcement it was asked for.
    pub announces: Vec<Vec<IpAddr>>,
    /// No announcement leaves by itself.
    pub keeps_announcements: bool,
    /// Time that applying takes.
    pub apply_takes: Duration,
    /// Reads questions and answers none.
    pub silent: bool,
    /// Generation that its worker still forwards by; absent: the newest.
    pub adopted: Option<u64>,
    /// For how long its worker has been stuck, in ms.
    pub stuck_ms: u64,
    /// When a worker was stuck.
    pub doubt: Option<Doubt>,
    /// It is of before changes were sent, and does not know the word.
    pub wants_all: bool,
    /// Backends that it cannot send to.
    pub unreachable: Vec<UnreachableBackend>,
    /// Grows with their changes.
    pub unreachable_changes: u64,
    /// The kernel's interface of its port with `port_address`.
    pub exception: Option<String>,
    /// The link of that port is down.
    pub link_is_down: bool,
}

impl Memory {
    /// From now on it cannot send to these, whose next hop does not answer.
    pub fn set_unreachable(&mut self, backends: &[&str], next_hop: Option<&str>) {
        let next_hop = next_hop.map(|hop| hop.parse().unwrap());
        self.unreachable = backends
            .iter()
            .map(|address| UnreachableBackend { address: address.parse().unwrap(), next_hop })
            .collect();
        self.unreachable_changes += 1;
    }

    fn port_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.port_address.into_iter().chain(self.other_port_address)
    }

    fn generation(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.generation)
    }

    fn status(&self) -> DataplaneStatus {
        let port = |address: IpAddr| PortStatus {
            name: "wan".into(),
            device: "net_test0".into(),
            driver: "net_test".into(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec![format!("{address}/24")],
            queues: 1,
            mtu: 1500,
            link_up: !self.link_is_down,
            exception: self.exception.clone(),
            steering: "single-worker".into(),
            steering_reason: "there is one worker".into(),
            ..PortStatus::default()
        };
        DataplaneStatus {
            unreachable_changes: self.unreachable_changes,
            version: "test".into(),
            boot_id: self.boot_id,
            uptime_ms: 1,
            pid: 4242,
            generation: self.generation(),
            workers_generation: self.adopted.unwrap_or_else(|| self.generation()),
            doubt: self.doubt,
            announced: self.announced.clone(),
            ports: self.port_addresses().map(port).collect(),
            workers: vec![WorkerStatus {
                worker: 0,
                cpu: 1,
                generation: self.adopted.unwrap_or_else(|| self.generation()),
                stuck_ms: self.stuck_ms,
            }],
            limits: self.limits,
        }
    }

    fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Status => Response::Status(self.status()),
            Request::Apply { snapshot } => {
                self.applies.push(snapshot.clone());
                let addresses: Vec<IpAddr> =
                    self.port_addresses().chain(self.refuses_silently).collect();
                let mut problems = validate::snapshot(&snapshot, &self.limits, &addresses);
                if snapshot.generation <= self.generation() {
                    problems.push(Problem::new("generation", snapshot.generation, "a higher one"));
                }
                if !problems.is_empty() {
                    return Response::Rejected { problems: problems.into_vec() };
                }
                let current = addresses_of(&snapshot);
                self.announced.retain(|a| current.contains(a));
                let generation = snapshot.generation;
                self.snapshot = Some(snapshot);
                Response::Applied { generation }
            }
            Request::Amend { .. } if self.wants_all => {
                Response::Error { message: "unknown variant `amend`".into() }
            }
            Request::Amend { change } => match self.snapshot.clone() {
                Some(held) if held.generation == change.base => {
                    let snapshot = change.apply(held).expect("a change of what is in force");
                    self.answer(Request::Apply { snapshot })
                }
                _ => Response::OtherBase { generation: self.generation() },
            },
            Request::GetSnapshot => Response::Snapshot { snapshot: self.snapshot.clone() },
            Request::Announce { mut addresses } => {
                self.announces.push(addresses.clone());
                let current = self.snapshot.as_ref().map(addresses_of).unwrap_or_default();
                addresses.retain(|a| current.contains(a));
                for address in &addresses {
                    if !self.keeps_announcements && !self.announced.contains(address) {
                        self.announced.push(*address);
                    }
                }
                Response::Announced { addresses }
            }
            Request::Stats => Response::Stats(self.stats()),
            Request::Neighbours => Response::Neighbours {
                neighbours: vec![NeighbourStatus {
                    address: [10, 0, 0, 1].into(),
                    mac: Some("02:00:00:00:00:99".into()),
                    port: "wan".into(),
                    state: "reachable".into(),
                    age_ms: 5,
                }],
            },
            Request::UnreachableBackends => {
                Response::UnreachableBackends { backends: self.unreachable.clone() }
            }
            Request::Events { since } => Response::Events {
                events: self.events.iter().filter(|e| e.seq > since).cloned().collect(),
            },
        }
    }

    fn stats(&self) -> Stats {
        let services = self.snapshot.iter().flat_map(|s| &s.services);
        let traffic = Traffic { packets_in: 7, ..Traffic::default() };
        let stats = |s: &sluice_api::Shared<sluice_api::SnapshotService>| ServiceStats {
            name: s.name.clone(),
            vip: s.vip,
            port: s.port,
            protocol: s.protocol,
            traffic,
            max_conns: s.max_conns,
            backends: s
                .backends
                .iter()
                .map(|b| BackendStats {
                    address: b.address,
                    port: b.port,
                    traffic,
                    max_conns: b.max_conns,
                })
                .collect(),
        };
        Stats {
            drops: [("no_backend".to_owned(), 3)].into(),
            boot_id: self.boot_id,
            generation: self.generation(),
            services: services.map(stats).collect(),
            tables: self.tables.clone(),
            ports: vec![PortStats {
                name: "wan".into(),
                queues: vec![QueueStats { queue: 0, rx_packets: 9, mis_steered: 2 }],
                ..PortStats::default()
            }],
            workers: vec![WorkerStats {
                stuck_ms: self.stuck_ms,
                stalls: 3,
                stalled_ms: 4_567,
                ..WorkerStats::default()
            }],
            ..Stats::default()
        }
    }
}

fn addresses_of(snapshot: &Snapshot) -> Vec<IpAddr> {
    let pools = snapshot.pools.iter().flat_map(|p| p.addresses.clone());
    snapshot.services.iter().map(|s| s.vip).chain(pools).collect()
}

/// A data plane that speaks the real protocol over a real socket and forwards nothing.
pub struct FakeDataplane {
    pub socket: PathBuf,
    pub memory: Arc<Mutex<Memory>>,
    task: Option<JoinHandle<()>>,
}

impl FakeDataplane {
    /// One that listens.
    pub fn start(socket: &Path) -> Self {
        let memory = Memory { boot_id: 1, ..Memory::default() };
        let mut fake = FakeDataplane {
            socket: socket.to_owned(),
            memory: Arc::new(Mutex::new(memory)),
            task: None,
        };
        fake.listen();
        fake
    }

    fn listen(&mut self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let memory = self.memory.clone();
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, memory.clone()));
            }
        }));
    }

    /// As if killed: socket and connections are gone, the file of the socket stays.
    pub async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Start again, knowing nothing.
    pub fn restart(&mut self) {
        std::fs::remove_file(&self.socket).unwrap();
        let mut memory = self.memory.lock().unwrap();
        memory.boot_id += 1;
        memory.snapshot = None;
        memory.announced.clear();
        memory.events.clear();
        drop(memory);
        self.listen();
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap())
    }

    /// Wait until the snapshot in force satisfies a condition.
    pub async fn snapshot_where(
        &self,
        what: &str,
        condition: impl Fn(&Snapshot) -> bool,
    ) -> Snapshot {
        eventually(what, || self.with(|m| m.snapshot.clone().filter(|s| condition(s)))).await
    }
}

async fn serve(mut stream: UnixStream, memory: Arc<Mutex<Memory>>) {
    loop {
        let mut header = [0; 4];
        if stream.read_exact(&mut header).await.is_err() {
            return;
        }
        let mut json = vec![0; message::frame_len(header).unwrap()];
        stream.read_exact(&mut json).await.unwrap();
        let request: Request = message::decode(&json).unwrap();
        let applies = matches!(request, Request::Apply { .. } | Request::Amend { .. });
        let (response, takes, silent) = {
            let mut memory = memory.lock().unwrap();
            (memory.answer(request), memory.apply_takes, memory.silent)
        };
        if silent {
            continue;
        }
        if applies {
            tokio::time::sleep(takes).await;
        }
        if stream.write_all(&message::encode(&response).unwrap()).await.is_err() {
            return;
        }
    }
}

/// Ask again and again, for 5 s at most.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within 5 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    /// It is a problem with this status, in the right form; its detail and fields as one text.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(self.body[field].as_str().is_some_and(|t| !t.is_empty()), "{}", self.body);
        }
        let problems = self.body["problems"].as_array().expect("problems");
        let mut text = vec![self.body["detail"].as_str().unwrap().to_owned()];
        for problem in problems {
            let problem: Problem = serde_json::from_value(problem.clone()).unwrap();
            text.push(problem.to_string());
        }
        text.join("\n")
    }

    /// It succeeded with this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }
}

/// What says that a change is no web page's.
pub const CLIENT: (&str, &str) = ("sluice-client", "test");

/// A client of the API.
pub struct Api {
    client: HyperClient<HttpConnector, Full<Bytes>>,
    pub address: SocketAddr,
}

impl Api {
    pub fn new(address: SocketAddr) -> Self {
        Api { client: HyperClient::builder(TokioExecutor::new()).build_http(), address }
    }

    /// Send exactly this; paths below `/api/v1` unless they start with `//`.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let path = match path.strip_prefix("//") {
            Some(path) => format!("/{path}"),
            None => format!("/api/v1{path}"),
        };
        let mut request = HttpRequest::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            // What is no JSON (`/metrics`) is given as a text.
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::from(String::from_utf8(bytes.to_vec()).unwrap()))
        };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// The status of the answer, or none if the connection broke before it came.
    pub async fn try_raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Option<StatusCode> {
        let mut request = HttpRequest::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("http://{}/api/v1{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.ok()?;
        Some(response.status())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.raw("GET", path, &[], "").await
    }

    pub async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.raw(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.raw("DELETE", path, &[CLIENT], "").await
    }

    pub async fn post_empty(&self, path: &str) -> Answer {
        self.raw("POST", path, &[CLIENT], "").await
    }

    /// Messages of events of a kind.
    pub async fn events(&self, kind: &str) -> Vec<String> {
        let page = self.get("/events").await.ok(200);
        let events = page["events"].as_array().unwrap();
        let of_kind = events.iter().filter(|e| e["kind"] == kind);
        of_kind.map(|e| e["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Wait until an event of a kind has happened.
    pub async fn event(&self, kind: &str) -> String {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(message) = self.events(kind).await.pop() {
                return message;
            }
            assert!(Instant::now() < end, "no event {kind} within 5 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Wait until `/readyz` answers with a status.
    pub async fn ready(&self, status: u16) -> Answer {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let answer = self.get("//readyz").await;
            if answer.status.as_u16() == status {
                return answer;
            }
            assert!(Instant::now() < end, "not {status} within 5 s: {}", answer.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A directory with the files of one control process.
pub struct Lab {
    pub directory: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        Lab { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("dataplane.sock")
    }

    /// Where control keeps its state, beside the state file of versions before.
    pub fn database(&self) -> PathBuf {
        self.path("state.db")
    }

    /// What is kept there.
    pub fn stored(&self) -> Loaded {
        store::read(&self.database(), &self.path("state.json")).unwrap()
    }

    /// As on a host that never ran control.
    pub fn forget_database(&self) {
        for name in ["state.db", "state.db.backup"] {
            std::fs::remove_file(self.path(name)).unwrap();
        }
    }

    /// A TOML file with paths of this directory and a port that is free.
    pub fn toml(&self, resources: &str) -> String {
        format!(
            "[control]\napi_listen = \"127.0.0.1:0\"\nstate_file = {:?}\ndataplane_socket = {:?}\n\
             {resources}",
            self.path("state.json"),
            self.socket()
        )
    }

    pub fn config(&self, resources: &str) -> Config {
        Config::parse(&self.toml(resources), Path::new("control.toml")).unwrap()
    }

    pub async fn start(&self, resources: &str) -> (Server, Api) {
        // A process that another test starts at this moment may have the former one's lock with it
        // until it runs its own program.
        let mut tries = 0;
        let server = loop {
            tries += 1;
            match server::start(&self.config(resources)).await {
                Err(server::StartError::Store(StoreError::Locked { .. })) if tries < 40 => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                started => break started.unwrap(),
            }
        };
        let api = Api::new(server.api);
        (server, api)
    }
}

/// A pool and a full-NAT service with two backends that are not checked.
pub const WEB: &str = r#"
[[pool]]
name = "local"
addresses = ["10.0.0.250"]

[[service]]
name = "web"
vip = "198.51.100.1"
port = 80
protocol = "tcp"
mode = "full-nat"
pool = "local"
[[service.backend]]
address = "10.0.0.1"
port = 8080
[[service.backend]]
address = "10.0.0.2"
port = 8080
weight = 50
"#;
