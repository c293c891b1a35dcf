//! `sluice-perf gen` over a real DPDK device that needs no hugepages, no network and no root: a ring
//! that gives back what it is sent. Its servers are behind the same port, so whole conversations run.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-gen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Files(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const COMMON: &[&str] = &["--hugepages=false", "--memory-mb=128", "--flows=1000"];
const RING: &[&str] = &["--device=net_ring0"];
const SERVERS: &[&str] = &["--server-device=client", "--server-address=10.0.0.100"];

fn command(arguments: &[&[&str]]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-perf"));
    // Whatever CPU there is.
    let cpu = core_affinity::get_core_ids().unwrap()[0].id;
    command.arg("gen").args(COMMON).args(arguments.concat()).arg(format!("--cpu={cpu}"));
    command
}

fn run(arguments: &[&[&str]]) -> Output {
    command(arguments).output().unwrap()
}

fn result(arguments: &[&[&str]]) -> Value {
    let output = run(&[arguments.concat().as_slice(), &["--json"]]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("Mpps"), "a progress line: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(arguments: &[&[&str]]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[track_caller]
fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

#[track_caller]
fn assert_all_came_back(result: &Value) {
    let outcome = &result["outcome"];
    assert!(number(outcome, "/counts/sent") > 1_000, "{outcome}");
    assert_eq!(outcome["loss"], 0.0, "{outcome}");
    assert_eq!(number(outcome, "/counts/checksum_errors"), 0);
    assert_eq!(number(outcome, "/probes/sent"), number(outcome, "/probes/received"));
    assert_eq!(number(outcome, "/probes/reordered"), 0);
}

#[test]
fn datagrams_of_every_size_are_echoed_intact() {
    let files = Files::new("udp");
    let scenario = files.file(
        "imix.toml",
        "[client]\ndevice = \"net_ring0\"\n[traffic]\nsizes = \"imix\"\norder = \"zipf\"\n\
         [server]\ndevice = \"client\"\naddress = \"10.0.0.100\"\n\
         [run]\nseconds = 60.0\nverify = \"all\"\n",
    );
    let (scenario, page) = (scenario.display().to_string(), files.0.join("report.html"));
    let page_flag = format!("--html={}", page.display());
    let result = result(&[&["--scenario", &scenario, "--seconds=0.3", "--rate=200k", &page_flag]]);
    assert_all_came_back(&result);
    let outcome = &result["outcome"];
    assert_eq!(number(outcome, "/counts/answered"), number(outcome, "/counts/sent"));
    assert!(outcome["sent_pps"].as_f64().unwrap() <= 210_000.0, "{outcome}");
    assert!(number(outcome, "/latency/p50_ns") <= number(outcome, "/latency/max_ns"));
    assert_eq!(result["scenario"]["traffic"]["sizes"], "imix");
    assert_eq!(result["devices"][0], "net_ring0 (net_ring)");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
}

#[test]
fn connections_are_opened_and_carry_data() {
    let kind = &["--kind=tcp-established", "--seconds=0.3", "--verify=all"];
    let result = result(&[RING, SERVERS, kind]);
    assert_all_came_back(&result);
    assert_eq!(number(&result, "/opened/connections"), 1_000);
}

#[test]
fn connections_come_and_go() {
    let kind = &["--kind=tcp", "--seconds=0.3", "--data-packets=3", "--sizes=128"];
    let result = result(&[RING, SERVERS, kind, &["--order=sequential", "--rate=100k"]]);
    let connections = &result["outcome"]["connections"];
    let completed = number(connections, "/completed");
    assert!(completed > 100, "{connections}");
    assert_eq!(completed, number(connections, "/started"));
    for failure in ["/timed_out", "/reset", "/unfinished"] {
        assert_eq!(number(connections, failure), 0, "{failure}");
    }
    // SYN, ACK, 3 of data, FIN, ACK; the server does not answer the two ACKs.
    assert_eq!(number(&result, "/outcome/counts/sent"), 7 * completed);
    assert_eq!(number(&result, "/outcome/counts/answered"), 5 * completed);
}

#[test]
fn a_reflector_needs_no_servers_and_a_flood_no_handshake() {
    let mac = &["--gateway-mac=02:00:00:00:00:01", "--seconds=0.2"];
    assert_all_came_back(&result(&[RING, mac, &["--kind=udp", "--rate=100k"]]));
    let flood = result(&[RING, mac, &["--kind=tcp-syn", "--rate=100k"]]);
    assert!(number(&flood, "/outcome/counts/received") > 1_000);
    assert_eq!(flood["outcome"]["latency"], Value::Null);
}

#[test]
fn two_ports_each_on_its_own_wire() {
    // What the client sends never reaches the server's ring: all is lost, and said so.
    let result = result(&[
        &["--device=net_ring0", "--server-device=net_ring1", "--server-address=10.1.0.1"],
        &["--gateway-mac=02:00:00:00:00:01", "--seconds=0.1", "--rate=50k", "--settle-ms=10"],
    ]);
    assert_eq!(result["outcome"]["loss"], 1.0);
    assert_eq!(result["devices"].as_array().unwrap().len(), 2);
}

#[test]
fn the_highest_rate_without_loss_is_searched() {
    let result = result(&[
        RING,
        SERVERS,
        &["--search", "--rate=20k", "--seconds=0.1", "--resolution-percent=20"],
    ]);
    let search = &result["search"];
    assert_eq!(search["complete"], true, "{search}");
    assert!(!search["trials"].as_array().unwrap().is_empty());
}

#[test]
fn an_interrupt_ends_it_with_the_results_so_far() {
    let mut child = command(&[RING, SERVERS, &["--rate=10k", "--seconds=600", "--json"]])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let asked = Instant::now();
    while child.try_wait().unwrap().is_none() && asked.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["interrupted"], true);
    assert!(number(&result, "/outcome/counts/received") > 0);
}

#[test]
fn what_cannot_be_is_said_clearly() {
    let error = refused(&[&["--device=net_nothing0"]]);
    assert!(error.contains("net_nothing0") && error.contains("cannot open the device"), "{error}");
    let error = refused(&[&["--device=eth0"]]);
    assert!(error.contains("device = \"eth0\": expected a PCI address"), "{error}");
    let error = refused(&[RING, &["--hugepages=true", "--memory-mb=1000000"]]);
    assert!(error.contains("hugepages = true") && error.contains("`echo "), "{error}");
    let error = refused(&[RING, &["--rate=0"]]);
    assert!(error.contains("run.rate is \"0\": expected packets per second"), "{error}");
    let error = refused(&[RING, &["--scenario=/nowhere.toml"]]);
    assert!(error.contains("scenario /nowhere.toml: No such file"), "{error}");
    let error = refused(&[RING]);
    assert!(error.contains("no answer to ARP for 10.0.0.100 on device net_ring0"), "{error}");
}

#[test]
fn a_result_that_cannot_be_kept_is_refused_before_anything_is_measured() {
    let files = Files::new("outputs");
    let kept = files.file("kept.json", "an older result");
    let out = format!("--out={}", kept.display());
    for flag in ["--out", "--html"] {
        // A device that is not there would be refused next.
        let wrong = format!("{flag}=/nonexistent/result");
        let said = refused(&[&["--device=net_nosuch0"], &[&wrong]]);
        assert_eq!(
            said,
            "sluice-perf: cannot write /nonexistent/result: No such file or directory (os error 2)\n"
        );
    }
    let page = files.0.join("page.html");
    let said =
        refused(&[&["--device=net_nosuch0"], &[&out], &[&format!("--html={}", page.display())]]);
    assert!(said.contains("net_nosuch0"), "{said}");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "an older result", "it stays");
    assert!(!page.exists(), "no empty page is left behind");
}
