//! A log that nobody takes costs lines and nothing else, and so does a standard output that is gone:
//! with the real process.

mod common;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::ops::{Deref, DerefMut};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::{Api, FakeDataplane, Lab, WEB};
use serde_json::json;

/// Changes that are made while nobody reads: several times what a pipe holds.
const CHANGES: usize = 2_000;

/// A process that ends with its test.
struct Process(Child);

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control process that says much, with these standard outputs.
fn spawn(lab: &Lab, stdout: Stdio, stderr: Stdio) -> Process {
    let config = lab.path("control.toml");
    std::fs::write(&config, lab.toml(WEB)).unwrap();
    let spawned = Command::new(env!("CARGO_BIN_EXE_sluice-control"))
        .arg("--config")
        .arg(&config)
        .env("RUST_LOG", "debug")
        .stdout(stdout)
        .stderr(stderr)
        .spawn();
    Process(spawned.unwrap())
}

/// The API of a process that says on its standard output where that is.
fn api(control: &mut Child) -> Api {
    let mut ready = String::new();
    BufReader::new(control.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.strip_prefix("READY api=http://").expect("a READY line");
    Api::new(address.trim_end().strip_suffix("/api/v1").unwrap().parse().unwrap())
}

/// Makes changes, and looks whether the process still answers all that watches over it.
async fn is_well(api: &Api, changes: usize) {
    let path = "/services/web/backends/10.0.0.1:8080/weight";
    let started = Instant::now();
    for weight in 1..=changes {
        api.send("PUT", path, json!({"weight": weight})).await.ok(200);
        assert!(started.elapsed() < Duration::from_secs(120), "{weight} changes took too long");
    }
    for path in ["//readyz", "//healthz", "//metrics", "/events", "/status"] {
        let asked = Instant::now();
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(asked.elapsed() < Duration::from_secs(2), "{path} took {:?}", asked.elapsed());
    }
}

async fn lost(api: &Api) -> u64 {
    let metrics = api.get("//metrics").await.ok(200);
    let mut lines = metrics.as_str().unwrap().lines();
    let value = lines.find_map(|line| line.strip_prefix("sluice_log_lines_lost_total "));
    value.expect("the metric").parse().unwrap()
}

/// Ends a process as its supervisor would.
fn terminate(control: &mut Child) -> ExitStatus {
    let asked = Instant::now();
    let id = control.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let status = control.wait().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    status
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_holds_up_nothing() {
    let lab = Lab::new();
    let _dataplane = FakeDataplane::start(&lab.socket());
    let mut control = spawn(&lab, Stdio::piped(), Stdio::piped());
    let api = api(&mut control);
    api.ready(200).await;
    is_well(&api, CHANGES).await;
    assert!(lost(&api).await > 1_000, "{CHANGES} changes, and a pipe of 64 KiB");
    // Once somebody reads, lines flow again, and what was lost is said.
    let mut log = BufReader::new(control.stderr.take().unwrap()).lines();
    let said = tokio::task::spawn_blocking(move || {
        let said = log.find(|line| line.as_ref().unwrap().contains("lines of this log were lost"));
        (said.expect("said").unwrap(), log)
    });
    let (said, log) = said.await.unwrap();
    let number: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(number > 1_000, "{said}");
    let rest = tokio::task::spawn_blocking(move || log.count());
    assert_eq!(terminate(&mut control).code(), Some(0));
    assert!(rest.await.unwrap() > 0, "and the log goes on");
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_does_not_keep_the_process_from_its_end() {
    let lab = Lab::new();
    let mut control = spawn(&lab, Stdio::piped(), Stdio::piped());
    let api = api(&mut control);
    let path = "/services/web/backends/10.0.0.1:8080/weight";
    for weight in 1..=600 {
        api.send("PUT", path, json!({"weight": weight})).await.ok(202);
    }
    assert_eq!(terminate(&mut control).code(), Some(0));
}

#[tokio::test]
async fn a_full_disk_ends_nobody() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let lab = Lab::new();
    let _dataplane = FakeDataplane::start(&lab.socket());
    let mut control = spawn(&lab, Stdio::piped(), full().into());
    let api = api(&mut control);
    api.ready(200).await;
    is_well(&api, 50).await;
    assert!(lost(&api).await > 50);
    assert_eq!(terminate(&mut control).code(), Some(0));
}

#[tokio::test]
async fn a_reader_who_goes_away_ends_nobody() {
    let lab = Lab::new();
    let _dataplane = FakeDataplane::start(&lab.socket());
    let mut control = spawn(&lab, Stdio::piped(), Stdio::piped());
    let api = api(&mut control);
    api.ready(200).await;
    drop((control.stdout.take(), control.stderr.take()));
    is_well(&api, 50).await;
    assert!(lost(&api).await > 50);
    let status = terminate(&mut control);
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

/// READY has no way out: the process serves, and stops when it is told to.
#[tokio::test]
async fn standard_output_may_be_gone_or_full_from_the_start() {
    let gone = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    for (case, stdout) in [("gone", gone()), ("full", full())] {
        let lab = Lab::new();
        let mut control = spawn(&lab, stdout, Stdio::piped());
        let mut log = BufReader::new(control.stderr.take().unwrap());
        // The log does not tell the address, so that a change cannot be asked for: it is alive.
        let mut line = String::new();
        while !line.contains("control started") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "{case}: it ended");
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(control.try_wait().unwrap().is_none(), "{case}: it lives on");
        let rest = std::thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(terminate(&mut control).code(), Some(0), "{case}");
        let text = rest.join().unwrap();
        assert!(text.contains("SIGTERM: stopping") && !text.contains("panicked"), "{case}: {text}");
    }
}

#[test]
fn a_level_that_does_not_exist_is_refused_at_the_start() {
    let lab = Lab::new();
    let config = lab.path("control.toml");
    std::fs::write(&config, lab.toml(WEB)).unwrap();
    for check in [&["--check"][..], &[]] {
        let output = Command::new(env!("CARGO_BIN_EXE_sluice-control"))
            .arg("--config")
            .arg(&config)
            .args(check)
            .env("RUST_LOG", "inof")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(78));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said,
            "sluice-control: RUST_LOG is \"inof\": expected off, error, warn, info, debug or trace, \
             or a list as \"info,sluice_control=debug\"\n"
        );
        assert!(output.stdout.is_empty());
    }
}
