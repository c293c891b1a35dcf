//! Health checks whose way leads through the data plane: what is our own fault takes no backend out.
//! Needs root.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_tests::lab::Lab;
use sluice_tests::lab::command::run;
use sluice_tests::lab::load::Kind;
use sluice_tests::lab::topology::{LB_LAN, Wire};

/// A check every 10 s, and three in a row to rise: who is unhealthy stays so for half a minute.
const SLOW: [(&str, &str); 3] = [
    ("interval_ms = 500", "interval_ms = 10000"),
    ("timeout_ms = 300", "timeout_ms = 1000"),
    ("rise = 2", "rise = 3"),
];
/// Service is there so soon after both processes are: a first check comes within 200 ms.
const IN_SERVICE: Duration = Duration::from_millis(1_500);

/// A lab with slow checks, and a host whose default route leads to where nobody answers.
fn slow_lab(prefix: &str) -> Lab {
    let lab = common::lab(prefix, Wire::AfXdp, vec![1]);
    lab.binaries().check().unwrap();
    let file = lab.site().file("control.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for (quick, slow) in SLOW {
        assert!(text.contains(quick), "{text}");
        text = text.replace(quick, slow);
    }
    fs::write(&file, text).unwrap();
    let lb = lab.site().netns("lb");
    run(&["ip", "-n", &lb, "address", "add", "192.0.2.1/24", "dev", "wan0"]).unwrap();
    run(&["ip", "-n", &lb, "route", "add", "default", "via", "192.0.2.254"]).unwrap();
    lab
}

/// Until all backends are healthy, from now.
fn until_in_service(lab: &Lab) -> Duration {
    let start = Instant::now();
    lab.wait_healthy(Duration::from_secs(40)).unwrap_or_else(|error| panic!("{error}"));
    start.elapsed()
}

fn kinds(lab: &Lab, seq: u64, kind: &str) -> Vec<String> {
    let events = lab.events_since(seq).unwrap();
    events.into_iter().filter(|e| e.kind == kind).map(|e| e.message).collect()
}

fn warnings(lab: &Lab) -> String {
    let ready: Value = lab.api.get("/readyz").unwrap();
    ready["warnings"].to_string()
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn service_comes_as_soon_whichever_process_starts_first() {
    let mut lab = slow_lab("sluice-first");
    lab.start_dataplane().unwrap();
    lab.start_control().unwrap();
    let dataplane_first = until_in_service(&lab);
    drop((lab.control.take(), lab.dataplane.take()));
    drop(lab);

    let mut lab = slow_lab("sluice-first");
    lab.start_control().unwrap();
    sleep(Duration::from_secs(4));
    assert_eq!(kinds(&lab, 0, "backend-unhealthy"), [""; 0]);
    lab.start_dataplane().unwrap();
    let control_first = until_in_service(&lab);
    println!("in service after {dataplane_first:?}; with control first after {control_first:?}");
    assert_eq!(kinds(&lab, 0, "backend-unhealthy"), [""; 0]);
    assert!(dataplane_first < IN_SERVICE, "{dataplane_first:?}");
    assert!(control_first < IN_SERVICE, "{control_first:?}");
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_data_plane_that_hangs_for_six_seconds_takes_no_backend_out() {
    let mut lab = common::lab_with_sluice("sluice-hang", Wire::AfXdp, vec![1]);
    let seq = lab.last_event().unwrap();
    let dataplane = lab.dataplane.as_ref().unwrap();
    dataplane.signal("-STOP").unwrap();
    sleep(Duration::from_secs(4));
    let services = lab.services().unwrap();
    let reason =
        services[0]["backends"][0]["observed"]["health_reason"].as_str().unwrap().to_owned();
    sleep(Duration::from_secs(2));
    dataplane.signal("-CONT").unwrap();
    // As soon as packets move again, all backends take them.
    let mut spec = lab.load_spec("web", Kind::Page);
    (spec.requests, spec.timeout_ms) = (Some(500), 3_000);
    let pages = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    println!("{:?}, while it hung: {reason}", pages.by_backend());
    assert_eq!(pages.errors(), []);
    assert_eq!(pages.by_backend().len(), 3, "{:?}", pages.by_backend());
    sleep(Duration::from_secs(3));
    assert_eq!(kinds(&lab, seq, "backend-unhealthy"), [""; 0]);
    assert!(reason.contains("cannot be asked since"), "{reason}");
    lab.wait_healthy(Duration::from_millis(100)).unwrap();
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn an_exception_port_that_is_down_or_lost_its_address_takes_no_backend_out() {
    let lab = common::lab_with_sluice("sluice-lost", Wire::AfXdp, vec![1]);
    let lb = lab.site().netns("lb");
    let ports = lab.ports().unwrap();
    let lan = ports.iter().find(|port| port["name"] == "lan").unwrap();
    let lan = lan["exception"].as_str().unwrap();
    let seq = lab.last_event().unwrap();

    // The data plane puts right what it finds: it is taken away again and again.
    let mut told = Vec::new();
    let mut hold = |change: &[&str]| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            run(&[&["ip", "-n", &lb], change].concat()).unwrap();
            sleep(Duration::from_millis(20));
            told.push(warnings(&lab));
        }
    };
    hold(&["link", "set", lan, "down"]);
    run(&["ip", "-n", &lb, "link", "set", lan, "up"]).unwrap();
    sleep(Duration::from_secs(2));
    assert_eq!(kinds(&lab, seq, "backend-unhealthy"), [""; 0]);

    hold(&["address", "flush", "dev", lan]);
    run(&["ip", "-n", &lb, "address", "replace", &format!("{LB_LAN}/24"), "dev", lan]).unwrap();
    sleep(Duration::from_secs(2));
    assert_eq!(kinds(&lab, seq, "backend-unhealthy"), [""; 0]);
    lab.wait_healthy(Duration::from_millis(100)).unwrap();
    let told: BTreeSet<String> = told.into_iter().collect();
    println!("meanwhile: {told:#?}");
    let is_told = |what: &str| told.iter().any(|text| text.contains(what));
    assert!(is_told(&format!("interface {lan} is down")), "{told:?}");
    assert!(is_told(&format!("interface {lan} has lost its address")), "{told:?}");

    // And with the way open, one that is dead is seen.
    let b1 = lab.site().netns("b1");
    run(&["ip", "-n", &b1, "link", "set", "lan0", "down"]).unwrap();
    sleep(Duration::from_secs(3));
    let ill = kinds(&lab, seq, "backend-unhealthy");
    assert!(!ill.is_empty() && ill.iter().all(|text| text.contains("10.20.0.11")), "{ill:?}");
}

/// The cable is pulled at its far end.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_port_whose_link_is_down_for_six_seconds_takes_no_backend_out() {
    let mut lab = common::lab_with_sluice("sluice-link", Wire::AfXdp, vec![1]);
    let (net, far) = (lab.site().netns("net"), lab.switch_port("lan"));
    let seq = lab.last_event().unwrap();
    run(&["ip", "-n", &net, "link", "set", &far, "down"]).unwrap();
    sleep(Duration::from_secs(6));
    let told = warnings(&lab);
    run(&["ip", "-n", &net, "link", "set", &far, "up"]).unwrap();
    let start = Instant::now();
    while warnings(&lab).contains("port lan is down") || web(&lab)["observed"]["state"] != "serving"
    {
        assert!(start.elapsed() < Duration::from_secs(10), "{}, {}", warnings(&lab), web(&lab));
        sleep(Duration::from_millis(20));
    }
    let back = start.elapsed();
    let mut spec = lab.load_spec("web", Kind::Page);
    (spec.requests, spec.timeout_ms) = (Some(500), 3_000);
    let pages = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    println!("back after {back:?}, {:?}; while it was down: {told}", pages.by_backend());
    assert_eq!(kinds(&lab, seq, "link-down").len(), 1);
    assert_eq!(kinds(&lab, seq, "backend-unhealthy"), [""; 0]);
    assert!(told.contains("the link of port lan is down"), "{told}");
    assert_eq!(pages.errors(), []);
    assert_eq!(pages.by_backend().len(), 3, "{:?}", pages.by_backend());
    assert!(back < Duration::from_secs(3), "{back:?}");
}

fn web(lab: &Lab) -> Value {
    lab.api.get("/api/v1/services/web").unwrap()
}

/// New conns ask for next hops until the service is in this state.
fn await_state(lab: &mut Lab, state: &str) {
    let start = Instant::now();
    while web(lab)["observed"]["state"] != state {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", web(lab)["observed"]);
        let mut spec = lab.load_spec("web", Kind::Page);
        (spec.requests, spec.timeout_ms) = (Some(20), 500);
        lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    }
}

/// The kernel would not notice: nobody checks these backends.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_backend_that_the_data_plane_cannot_reach_takes_no_new_conns() {
    let mut lab = common::lab_with_sluice("sluice-hop", Wire::AfXdp, vec![1]);
    for service in ["web", "web-dr", "echo"] {
        lab.cli(&["service", "set", service, "--no-check"]).unwrap();
    }
    await_state(&mut lab, "serving");
    let b1 = lab.site().netns("b1");
    run(&["ip", "-n", &b1, "link", "set", "lan0", "down"]).unwrap();
    let start = Instant::now();
    await_state(&mut lab, "degraded");
    let noticed = start.elapsed();
    let observed = web(&lab)["backends"][0]["observed"].clone();
    assert_eq!(observed["takes_new_conns"], false, "{observed}");
    assert_eq!(observed["health"], "unchecked", "{observed}");
    let reason = "next hop 10.20.0.11 does not answer the data plane";
    assert_eq!(observed["reason"], reason, "{observed}");

    let mut spec = lab.load_spec("web", Kind::Page);
    spec.requests = Some(500);
    let pages = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    println!("noticed after {noticed:?}; then {:?}", pages.by_backend());
    assert_eq!(pages.errors(), []);
    assert_eq!(pages.by_backend().keys().collect::<Vec<_>>(), ["b2", "b3"]);

    run(&["ip", "-n", &b1, "link", "set", "lan0", "up"]).unwrap();
    await_state(&mut lab, "serving");
}
