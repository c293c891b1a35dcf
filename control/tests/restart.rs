//! State over restarts, clean and brutal, and the program as an operator meets it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Api, FakeDataplane, Lab, WEB};
use serde_json::json;
use sluice_api::{AdminState, Refusal};
use sluice_control::{server, store};

const ONE: &str = "/services/web/backends/10.0.0.1:8080";

#[tokio::test]
async fn what_the_api_changed_survives_a_restart() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.ok(202);
    api.send("POST", "/pools", json!({"name": "api", "addresses": ["10.0.0.9"]})).await.ok(202);
    api.delete("/services/web/backends/10.0.0.2:8080").await;
    let before = api.get("/services").await;
    server.stop().await;

    let (server, api) = lab.start(WEB).await;
    let after = api.get("/services").await;
    assert_eq!(after.body, before.body);
    assert_eq!(after.header("etag"), before.header("etag"));
    api.get("/pools/api").await.ok(200);
    server.stop().await;

    // The file says something new about `web` and nothing about the pool of the API.
    let (server, api) = lab.start(&WEB.replace("weight = 50", "weight = 51")).await;
    let web = api.get("/services/web").await.ok(200);
    assert_eq!(web["backends"][0]["weight"], 7, "the file says nothing new of this field");
    assert_eq!(web["backends"][1]["weight"], 51);
    api.get("/pools/api").await.ok(200);
    let events = api.events("file-changed").await;
    assert_eq!(events, ["service web: backends[10.0.0.2:8080]: added"]);
    server.stop().await;
}

/// `--check` tells the effect of the file, field by field, and what it leaves as it is.
#[tokio::test]
async fn check_tells_what_a_start_would_change_and_what_stays() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.ok(202);
    api.post_empty("/services/web/backends/10.0.0.2:8080/drain").await.ok(202);
    server.stop().await;
    let stored = lab.stored();
    let third = "[[service.backend]]\naddress = \"10.0.0.3\"\nport = 8080\n";
    let toml = lab.toml(&format!("{}{third}", WEB.replace("weight = 50", "weight = 51")));
    let (code, out, error) = run(&lab, &toml, &["--check"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let lines: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "service web: backends[10.0.0.2:8080].weight: 50 -> 51",
            "service web: backends[10.0.0.3:8080]: added",
            "service web: backends[10.0.0.1:8080].weight: stays 7, set at run time (the file says \
             100)",
            "service web: backends[10.0.0.2:8080].state: stays \"drain\", set at run time (the file \
             says \"up\")",
        ]
    );
    assert_eq!(lab.stored(), stored, "nothing is touched");
}

#[tokio::test]
async fn a_file_that_does_not_go_with_the_state_stops_the_start() {
    let lab = Lab::new();
    let (server, api) = lab.start("").await;
    let body =
        json!({"name": "x", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr"});
    api.send("POST", "/services", body).await.ok(202);
    server.stop().await;
    let stored = lab.stored();
    let error = server::start(&lab.config(WEB)).await.err().unwrap().to_string();
    assert!(error.contains("do not go together"), "{error}");
    assert!(error.contains("services[web].port is 198.51.100.1:80/tcp"), "{error}");
    assert_eq!(lab.stored(), stored, "nothing is touched");
}

/// What is said of a file that was cut off.
const NONE_LEFT: &str = "service is none with backends: expected at least one [[service]] with \
                         backends, as the file had before (web)";

/// A file of 0 bytes says nothing: not that all services shall go.
#[tokio::test]
async fn a_file_that_names_no_service_any_more_stops_the_start() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.ok(202);
    server.stop().await;
    let stored = lab.stored();
    let error = server::start(&lab.config("")).await.err().unwrap().to_string();
    assert!(error.contains(NONE_LEFT), "{error}");
    let error = server::check(&lab.config("")).unwrap_err().to_string();
    assert!(error.contains(NONE_LEFT), "{error}");
    assert_eq!(lab.stored(), stored, "nothing is touched");
    // Over the API it is an operator's word, and the file may follow.
    let (server, api) = lab.start(WEB).await;
    api.delete("/services/web").await.ok(202);
    server.stop().await;
    let (server, api) = lab.start("").await;
    assert!(api.get("/services").await.body["services"].as_array().unwrap().is_empty());
    server.stop().await;
}

/// What is damaged is never read, and `db repair` brings back the last backup.
#[tokio::test]
async fn a_torn_database_is_never_read() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.ok(202);
    store::backup(&lab.database(), None).unwrap();
    api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 8})).await.ok(202);
    server.stop().await;
    let good = fs::read(lab.database()).unwrap();
    fs::write(lab.database(), &good[..good.len() / 2]).unwrap();
    for error in [
        server::start(&lab.config(WEB)).await.err().unwrap().to_string(),
        server::check(&lab.config(WEB)).unwrap_err().to_string(),
    ] {
        assert!(error.contains("it is damaged") && error.contains("db repair"), "{error}");
    }
    let db = |command: &str| run(&lab, &lab.toml(WEB), &["db", command]);
    let (code, _, error) = db("check");
    assert!(code == Some(1) && error.contains("it is damaged"), "{error}");
    let (code, out, error) = db("repair");
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(
        out.contains("is the last backup now: revisions 1 to 2, the newest of 1 services and 2"),
        "{out}"
    );
    assert!(db("repair").1.contains("is whole, and as it was"));
    let (server, api) = lab.start(WEB).await;
    assert!(db("repair").2.contains("another sluice-control uses it"));
    assert!(db("check").1.contains("is whole: revisions 1 to 2") && db("backup").0 == Some(0));
    assert_eq!(api.get(ONE).await.ok(200)["weight"], 7, "as of the backup");
    server.stop().await;
}

/// A change that cannot be stored is not made.
#[tokio::test]
async fn a_disk_that_refuses_is_an_error_and_changes_nothing() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    // No write can succeed, not even root's.
    fs::rename(lab.database(), lab.path("elsewhere")).unwrap();
    let problem =
        api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.problem(500);
    assert!(problem.contains("state.db: it was removed or replaced"), "{problem}");
    let read = api.get(ONE).await;
    assert_eq!(api.get("/services").await.header("etag"), "\"1\"");
    assert_eq!(read.ok(200)["weight"], 100);
    fs::rename(lab.path("elsewhere"), lab.database()).unwrap();
    api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.ok(202);
    server.stop().await;
}

#[tokio::test]
async fn two_processes_do_not_share_a_database() {
    let lab = Lab::new();
    let (server, _) = lab.start(WEB).await;
    let error = server::start(&lab.config(WEB)).await.err().unwrap().to_string();
    assert!(error.contains("another sluice-control uses it"), "{error}");
    server.stop().await;
}

// The program itself.

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sluice-control"))
}

fn write_config(lab: &Lab, toml: &str) -> PathBuf {
    let path = lab.path("control.toml");
    fs::write(&path, toml).unwrap();
    path
}

fn run(lab: &Lab, toml: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let path = write_config(lab, toml);
    let Output { status, stdout, stderr } =
        program().arg("--config").arg(path).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

struct Running {
    child: Child,
    api: Api,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already, as the test wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(lab: &Lab, toml: &str) -> Running {
    let path = write_config(lab, toml);
    ready(program().arg("--config").arg(path))
}

/// Start a program and wait until it says that it is ready.
fn ready(command: &mut Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("READY api=http://")
        .and_then(|rest| rest.strip_suffix("/api/v1"))
        .unwrap_or_else(|| panic!("not READY: {line:?}"));
    Running { child, api: Api::new(address.parse::<SocketAddr>().unwrap()) }
}

const WRITERS: usize = 4;

/// A service with a backend for each writer.
fn for_writers() -> String {
    let backend =
        |n| format!("[[service.backend]]\naddress = \"10.0.1.{n}\"\nport = 80\nweight = 0\n");
    let head = "[[service]]\nname = \"web\"\nvip = \"198.51.100.1\"\nport = 80\nprotocol = \"tcp\"\n\
                mode = \"dr\"\n";
    (0..WRITERS).fold(head.to_owned(), |text, n| text + &backend(n))
}

fn weight_of(writer: usize) -> String {
    format!("/services/web/backends/10.0.1.{writer}:80")
}

/// Set one weight after another until control is gone; returns the last that was answered.
async fn write_until_killed(api: Api, writer: usize, mut answered: u64) -> u64 {
    let path = format!("{}/weight?wait_ms=0", weight_of(writer));
    loop {
        let body = json!({ "weight": answered + 1 }).to_string();
        let headers = [("content-type", "application/json")];
        match api.try_raw("PUT", &path, &headers, body).await {
            Some(status) => assert_eq!(status, 202, "stored: there is no data plane"),
            None => return answered,
        }
        answered += 1;
    }
}

/// SIGKILL at random moments while several write: nothing that was answered is lost.
async fn kill_again_and_again(rounds: u64) {
    let lab = Lab::new();
    let toml = lab.toml(&for_writers());
    let mut answered = [0; WRITERS];
    let mut changes = 0;
    for round in 0..rounds {
        let mut running = spawn(&lab, &toml);
        let mut writers = Vec::new();
        for (writer, answered) in answered.iter_mut().enumerate() {
            let weight = running.api.get(&weight_of(writer)).await.ok(200)["weight"].as_u64();
            let weight = weight.unwrap();
            // The last request may have been stored without its answer being seen.
            let is_kept = weight == *answered || weight == *answered + 1;
            assert!(is_kept, "round {round}, writer {writer}: {weight} after {answered}");
            *answered = weight;
            let api = Api::new(running.api.address);
            writers.push(tokio::spawn(write_until_killed(api, writer, weight)));
        }
        let nanos = Instant::now().elapsed().subsec_nanos();
        let pause =
            Duration::from_micros(2_000 + (u64::from(nanos) * 7_919 + round * 4_021) % 60_000);
        tokio::time::sleep(pause).await;
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        for (writer, task) in writers.into_iter().enumerate() {
            let last = task.await.unwrap();
            changes += last - answered[writer];
            answered[writer] = last;
        }
    }
    assert!(changes > rounds, "{changes} changes were answered in {rounds} rounds");
    println!("{changes} changes were answered in {rounds} rounds, none was lost");
    let found = store::check(&lab.database()).unwrap();
    let history = store::Store::open(&lab.database(), store::Keep::default()).unwrap().history();
    let numbers = history.page(None, 100_000).unwrap();
    let numbers: Vec<u64> = numbers.iter().map(|revision| revision.number).collect();
    let expected: Vec<u64> = (found.oldest..=found.newest).rev().collect();
    assert_eq!(numbers, expected, "each revision once");
    assert!(found.newest > changes, "{} after {changes} changes", found.newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_that_was_answered() {
    kill_again_and_again(30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_thousand_kills_lose_nothing_that_was_answered() {
    kill_again_and_again(1_000).await;
}

/// A program whose database is on a file system of its own of so many KiB, once `first` was done to that.
fn on_small_disk(lab: &Lab, kib: u32, first: &str) -> Running {
    let path = write_config(lab, &lab.toml(WEB).replace("state.json", "disk/state.json"));
    fs::create_dir_all(lab.path("disk")).unwrap();
    let script = format!(
        "cd {:?} && mount -t tmpfs -o size={kib}k,mode=700 tmpfs disk && {first} exec \"$0\" --config \"$1\"",
        lab.directory.path()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(env!("CARGO_BIN_EXE_sluice-control"));
    ready(command.arg(path))
}

/// A disk that is full refuses changes with a reason and loses none that was answered; what is read is read.
#[tokio::test]
#[ignore = "needs root"]
async fn a_full_disk_refuses_changes_and_nothing_else() {
    let lab = Lab::new();
    let running = on_small_disk(&lab, 320, "");
    let mut made = 0;
    let problem = loop {
        let pool = json!({"name": format!("p{made}"), "addresses": [format!("10.9.{made}.1")]});
        let answer = running.api.send("POST", "/pools?wait_ms=0", pool).await;
        if answer.status != 202 {
            break answer.problem(500);
        }
        made += 1;
        assert!(made < 250, "the disk does not fill");
    };
    assert!(problem.contains("database or disk is full"), "{problem}");
    let pools =
        || async { running.api.get("/pools").await.ok(200)["pools"].as_array().unwrap().len() };
    assert_eq!(pools().await, made + 1, "with that of the file");
    // Room is made by what needs none: a change that takes away.
    let inside = format!("/proc/{}/root{}", running.child.id(), lab.path("disk").display());
    fs::remove_file(format!("{inside}/state.db.backup")).unwrap();
    running.api.delete("/pools/p0").await.ok(202);
    assert_eq!(pools().await, made);
    running.api.event("state-written").await;
}

/// On a file system that has become read-only, as after a crash of it: what was answered is read, changes are
/// refused, and once it can be written again they are not.
#[tokio::test]
#[ignore = "needs root"]
async fn a_read_only_disk_refuses_changes_and_nothing_else() {
    let lab = Lab::new();
    let killed = "{ \"$0\" --config \"$1\" > ready 2> /dev/null & } && \
                  for n in $(seq 200); do grep -q READY ready && break; sleep 0.1; done; \
                  kill -9 $!; wait $!; test -s disk/state.db-wal && mount -o remount,ro disk &&";
    let running = on_small_disk(&lab, 4_096, killed);
    assert_eq!(running.api.get(ONE).await.ok(200)["weight"], 100);
    let weight = |weight: u16| {
        let body = json!({ "weight": weight });
        let api = &running.api;
        async move { api.send("PUT", &format!("{ONE}/weight?wait_ms=0"), body).await }
    };
    let problem = weight(7).await.problem(500);
    assert!(problem.contains("read"), "{problem}");
    let pid = running.child.id().to_string();
    let remounted = Command::new("nsenter")
        .args(["--mount", "--target", &pid, "mount", "-o", "remount,rw"])
        .arg(lab.path("disk"))
        .status();
    assert!(remounted.unwrap().success());
    weight(9).await.ok(202);
    assert_eq!(running.api.get(ONE).await.ok(200)["weight"], 9);
}

#[tokio::test]
async fn signals_end_it_cleanly() {
    for signal in ["-TERM", "-INT"] {
        let lab = Lab::new();
        let mut running = spawn(&lab, &lab.toml(WEB));
        running.api.get("/services").await.ok(200);
        let began = Instant::now();
        let pid = running.child.id().to_string();
        Command::new("kill").args([signal, &pid]).status().unwrap();
        assert_eq!(running.child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

impl Running {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

/// The file that control has started with, changed in five ways.
fn changed() -> String {
    let third = "[[service.backend]]\naddress = \"10.0.0.3\"\nport = 8080\n";
    WEB.replace("weight = 50", "weight = 51").replace("\"local\"", "\"lan\"") + third
}

/// SIGHUP takes over what is new in the file, in one change.
#[tokio::test]
async fn a_hangup_reads_the_file_again() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let mut running = spawn(&lab, &lab.toml(WEB));
    fake.snapshot_where("web", |s| s.services.len() == 1).await;
    let two = "/services/web/backends/10.0.0.2:8080";
    running.api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.ok(200);
    running.api.post_empty(&format!("{two}/drain")).await.ok(200);
    let applies = fake.with(|m| m.applies.len());

    let toml = lab.toml(&changed()).replace("[control]\n", "[control]\nno_service = \"drop\"\n");
    write_config(&lab, &toml.replace("127.0.0.1:0", "127.0.0.1:1"));
    running.signal("-HUP");
    let told = running.api.event("file-read").await;
    assert!(told.contains("5 changes, applied as generation "), "{told}");
    let snapshot = fake.with(|m| m.snapshot.clone().unwrap());
    assert_eq!(fake.with(|m| m.applies.len()), applies + 1, "one change");
    let backends = &snapshot.services[0].backends;
    let weights: Vec<u16> = backends.iter().map(|b| b.weight).collect();
    assert_eq!(weights, [7, 51, 100]);
    assert_eq!(backends[1].state, AdminState::Drain);
    assert_eq!(snapshot.pools[0].name, "lan");
    assert_eq!(snapshot.no_service, Refusal::Drop);
    let mut told = running.api.events("file-changed").await;
    told.sort();
    assert_eq!(
        told,
        [
            "control.no_service is drop now",
            "pool lan: created",
            "pool local: deleted",
            "service web: backends[10.0.0.2:8080].weight: 50 -> 51",
            "service web: backends[10.0.0.3:8080]: added",
            "service web: pool: \"local\" -> \"lan\"",
        ]
    );
    let fixed = running.api.event("file-needs-restart").await;
    assert!(fixed.contains("control.api_listen stays 127.0.0.1:0 until a restart"), "{fixed}");
    let events = running.api.get("/events").await.ok(200);
    let of_file = events["events"].as_array().unwrap().iter();
    let of_file: Vec<_> =
        of_file.filter(|e| e["kind"].as_str().unwrap().contains("file-")).collect();
    assert_eq!(of_file.len(), 8);
    for event in of_file {
        assert_eq!(event["actor"], json!({"kind": "file", "read": "signal"}), "{event}");
    }

    // What was taken over is taken over once: a restart finds nothing new.
    write_config(&lab, &toml);
    running.signal("-HUP");
    running.signal("-TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    let (code, out, error) = run(&lab, &toml, &["--check"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(!out.contains("->") && !out.contains("added"), "{out}");
}

/// A wrong file changes nothing at a SIGHUP, and other signals ask for nothing.
#[tokio::test]
async fn a_wrong_file_is_refused_at_a_hangup() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let mut running = spawn(&lab, &lab.toml(WEB));
    fake.snapshot_where("web", |s| s.services.len() == 1).await;
    running.api.send("PUT", &format!("{ONE}/weight"), json!({"weight": 7})).await.ok(200);
    // Wrong files: not TOML, against the rules, against the state.
    let pool = json!({"name": "p", "addresses": ["10.0.0.9"]});
    running.api.send("POST", "/pools", pool).await.ok(201);
    let changed = changed();
    let clash = format!("{changed}[[pool]]\nname = \"q\"\naddresses = [\"10.0.0.9\"]\n");
    let wrong = [
        ("[[pool\n".to_owned(), "line 1, column"),
        (lab.toml(&changed.replace("weight = 51", "weight = 65536")), "weight is 65536"),
        (lab.toml(&clash), "it does not go with the state: pools[q].addresses is 10.0.0.9"),
        // Cut off, in the middle and at the beginning.
        (lab.toml(&changed[..changed.find("[[service.backend]]").unwrap()]), NONE_LEFT),
        (lab.toml(""), NONE_LEFT),
    ];
    for (n, (toml, expected)) in wrong.into_iter().enumerate() {
        write_config(&lab, &toml);
        running.signal("-HUP");
        let end = Instant::now() + Duration::from_secs(5);
        while running.api.events("file-refused").await.len() == n {
            assert!(Instant::now() < end, "not refused: {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let told = running.api.events("file-refused").await.pop().unwrap();
        assert!(told.contains(expected), "no {expected} in {told}");
    }
    running.signal("-USR1");
    running.signal("-USR2");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(running.child.try_wait().unwrap(), None, "it goes on");
    assert_eq!(running.api.get(ONE).await.ok(200)["weight"], 7);
    assert_eq!(running.api.events("file-read").await, [""; 0]);
}

/// The supervisor's watchdog is fed while control gets on, also while the data plane hangs; a process
/// that stands still does not feed it.
#[tokio::test]
async fn the_watchdog_is_fed_while_control_gets_on() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let path = lab.path("notify.sock");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let config = write_config(&lab, &lab.toml(WEB));
    let child = program()
        .arg("--config")
        .arg(config)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let _running = Running { child, api: Api::new("127.0.0.1:1".parse().unwrap()) };
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    // How often it is fed within some time.
    let fed = async |time: Duration| {
        let end = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < end {
            let mut said = [0; 256];
            match supervisor.recv(&mut said) {
                Ok(length) => count += usize::from(said[..length].starts_with(b"WATCHDOG=1")),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        count
    };
    fake.snapshot_where("web", |s| s.services.len() == 1).await;
    let patience = Duration::from_millis(600);
    let often = fed(3 * patience).await;
    assert!((6..=11).contains(&often), "{often}");
    fake.with(|m| m.silent = true);
    let often = fed(3 * patience).await;
    assert!((6..=11).contains(&often), "{often} while the data plane hangs");
    signal("-STOP");
    fed(patience).await;
    assert_eq!(fed(2 * patience).await, 0, "it stands still");
    signal("-CONT");
    assert!(fed(2 * patience).await >= 3, "it goes on");
}

/// A supervisor that does not read its socket, of which ten datagrams wait, holds up nobody.
#[tokio::test]
async fn a_supervisor_that_does_not_read_does_not_keep_control_from_its_end() {
    let lab = Lab::new();
    let path = lab.path("notify.sock");
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let mut child = program()
        .arg("--config")
        .arg(write_config(&lab, &lab.toml(WEB)))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "90000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Far more than wait.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let end = Instant::now() + Duration::from_secs(3);
    let code = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if Instant::now() < end => tokio::time::sleep(Duration::from_millis(20)).await,
            None => {
                child.kill().unwrap();
                panic!("it does not end");
            }
        }
    };
    assert_eq!(code, Some(0));
    drop(supervisor);
}

#[test]
fn a_port_in_use_is_named() {
    let lab = Lab::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let toml = lab.toml(WEB).replace("127.0.0.1:0", &address);
    let (code, _, error) = run(&lab, &toml, &[]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&format!("control.api_listen is {address}: Address already in use")),
        "{error}"
    );
    assert!(!lab.database().exists(), "nothing is left behind");
}

#[test]
fn check_accepts_what_would_start() {
    let lab = Lab::new();
    let (code, out, error) = run(&lab, &lab.toml(WEB), &["--check"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(out.starts_with("OK: 1 services, 1 pools"), "{out}");
    let left: Vec<_> = fs::read_dir(lab.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the file itself");

    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/control.toml");
    let text = fs::read_to_string(example).unwrap();
    sluice_control::config::Config::parse(&text, "control.toml".as_ref()).unwrap();
}

#[test]
fn check_warns_of_what_cannot_work_with_the_data_planes_file() {
    let lab = Lab::new();
    let far = lab.toml(WEB).replace("10.0.0.1\"", "10.7.0.1\"");
    assert!(far.contains("10.7.0.1"));
    let file = lab.path("dataplane.toml");
    let named = ["--check", "--dataplane-file", file.to_str().unwrap()];
    // Named, it must be there.
    let (code, out, error) = run(&lab, &far, &named);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(error.contains("dataplane.toml: expected a file that can be read"), "{error}");

    let port = "[[port]]\naddresses = [\"10.0.0.254/24\", \"198.51.100.254/24\"]\n";
    fs::write(&file, port).unwrap();
    let (code, out, error) = run(&lab, &far, &named);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let warnings: Vec<_> = out.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(
        warnings,
        [
            "warning: service web: backend 10.7.0.1:8080 is in no network of the data plane's ports, and no \
          route leads there"
        ]
    );
    let route = "[[route]]\ndestination = \"10.7.0.0/16\"\nvia = \"10.0.0.1\"\n";
    fs::write(&file, format!("{port}{route}")).unwrap();
    let (_, out, _) = run(&lab, &far, &named);
    assert!(!out.contains("warning"), "{out}");
    assert_eq!(run(&lab, &far, &named[1..]).0, Some(2), "only with --check");
}

/// The file's verdict does not wait for a state that cannot be used.
#[test]
fn check_judges_the_file_before_the_state() {
    let lab = Lab::new();
    let far = lab.toml(WEB).replace("10.0.0.1\"", "10.7.0.1\"");
    let ports = lab.path("dataplane.toml");
    let networks = "addresses = [\"10.0.0.254/24\", \"198.51.100.254/24\"]";
    fs::write(&ports, format!("[[port]]\n{networks}\n")).unwrap();
    let judged = |expected: &str| {
        let named = ["--check", "--dataplane-file", ports.to_str().unwrap()];
        let (code, out, error) = run(&lab, &far, &named);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!((code, lines.len(), lines[0]), (Some(1), 2, "OK: 1 services, 1 pools"), "{out}");
        assert!(lines[1].starts_with("warning: service web: backend 10.7.0.1:8080"), "{out}");
        assert!(error.contains(expected), "{error}");
    };
    fs::write(lab.path("state.json"), "{").unwrap();
    judged("there is no database yet to go on with");
    fs::write(lab.path("state.json"), r#"{"sluice_state":2,"sum":"x","zones":[]}"#).unwrap();
    judged("it has format 2");
}

/// Each file is refused for its reason, by name.
fn refused<const N: usize>(lab: &Lab, cases: [(String, &str); N]) {
    for (toml, expected) in cases {
        let (code, out, error) = run(lab, &toml, &["--check"]);
        assert_eq!((code, out.as_str()), (Some(78), ""), "{expected}");
        assert!(error.contains(expected), "no {expected:?} in:\n{error}");
        assert!(error.contains("control.toml"), "{error}");
    }
}

#[test]
fn files_with_wrong_fields_are_refused_with_every_reason() {
    let lab = Lab::new();
    let web = lab.toml(WEB);
    let cases = [
        (
            web.replace("weight = 50", "weight = 65536"),
            "service[web].backend[10.0.0.2:8080].weight is 65536: expected 0 to 65535",
        ),
        (
            web.replace("weight = 50", "weight = \"-1\""),
            "service[web].backend[10.0.0.2:8080].weight is \"-1\": expected 0 to 65535",
        ),
        (
            web.replace("weight = 50", "weight = -1"),
            "service[web].backend[10.0.0.2:8080].weight is -1: expected 0 to 65535",
        ),
        (
            web.replace("weight = 50", "weight = nan"),
            "service[web].backend[10.0.0.2:8080].weight is \"NaN\": expected 0 to 65535",
        ),
        (
            web.replace("weight = 50", "wait = 50"),
            "service[web].backend[10.0.0.2:8080].wait is 50: expected a known field: address, port, weight, max_conns, zone, state",
        ),
        (
            web.replace("port = 80\n", "port = 1979-05-27\n"),
            "service[web].port is \"1979-05-27\": expected 1 to 65535",
        ),
        (
            web.replace("[\"10.0.0.250\"]", "[\"198.51.100.1\"]"),
            "pool[local].addresses is 198.51.100.1: expected an address that is no VIP",
        ),
        (
            web.replace("pool = \"local\"\n", ""),
            "service[web].pool is absent: expected the name of a pool",
        ),
        (
            web.replace("pool = \"local\"\n", "pool = \"x\"\n"),
            "service[web].pool is \"x\": expected the name of a pool (local)",
        ),
        (web.replace("[[pool]]", "[pool]"), "pool is {"),
        (
            web.replace("mode = \"full-nat\"", "mode = \"nat\""),
            "service[web].mode is \"nat\": expected \"full-nat\" or \"dr\"",
        ),
        (web.replace("name = \"web\"\n", ""), "service[#1].name is absent"),
        (web.replace("port = 80\n", "port = 80\nport = 81\n"), "line 14, column 1"),
        (web.replace("port = 80\n", "port = \n"), "line 13, column 8"),
    ];
    refused(&lab, cases);
    let two = web.replace("weight = 50", "weight = 65536").replace("port = 80\n", "port = 0.5\n");
    let (_, _, error) = run(&lab, &two, &["--check"]);
    assert!(error.contains("port is 0.5") && error.contains("weight is 65536"), "{error}");
    assert_eq!(run(&lab, &two, &[]).0, Some(78), "it does not start either");
    assert!(!lab.database().exists());
}

#[test]
fn files_that_are_wrong_as_a_whole_are_refused() {
    let lab = Lab::new();
    let web = lab.toml(WEB);
    let twice = "[[service.backend]]\naddress = \"10.0.0.1\"\nport = 8080\n";
    let same = "[[service]]\nname = \"two\"\nvip = \"198.51.100.1\"\nport = 80\n\
                protocol = \"tcp\"\nmode = \"dr\"\n";
    let cases = [
        (
            web.replace("api_listen = \"127.0.0.1:0\"", "api_listen = \"localhost\""),
            "control.api_listen is \"localhost\": expected ADDRESS:PORT",
        ),
        (
            web.replace("api_listen", "listen"),
            "control.listen is \"127.0.0.1:0\": expected a known field: api_listen, api_hosts, api_origins, database, history_revisions, history_days, state_file, dataplane_socket, no_service",
        ),
        (
            format!("colour = 1\n{web}"),
            "colour is 1: expected a known table: [control], [[pool]], [[service]]",
        ),
        (format!("{web}{twice}"), "service[web].backend[10.0.0.1:8080] is listed twice"),
        (
            format!("{web}{same}"),
            "service[two].port is 198.51.100.1:80/tcp: expected a VIP, port and protocol that no other service has; web has these",
        ),
    ];
    refused(&lab, cases);
}

#[test]
fn usage_errors_have_their_own_exit_code() {
    let lab = Lab::new();
    assert_eq!(run(&lab, &lab.toml(WEB), &["--nonsense"]).0, Some(2));
    assert_eq!(program().output().unwrap().status.code(), Some(2));
    assert_eq!(program().arg("--version").output().unwrap().status.code(), Some(0));
    let missing = program().args(["--config", "/nonexistent.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nonexistent.toml: cannot be read"));
}
