//! Several workers on taps with as many queues: packets arrive at workers that do not own their conn
//! and are handed over, and no client notices. Needs root.

mod common;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use sluice_tests::lab::Lab;
use sluice_tests::lab::command::run_in;
use sluice_tests::lab::load::Kind;
use sluice_tests::lab::servers::ECHO_PORT;
use sluice_tests::lab::topology::{LB_WAN, VIP_ECHO, Wire, backend_address};

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn no_request_fails_with_two_workers() {
    no_request_fails("sluice-tap2", vec![0, 1]);
}

/// Two on each CPU: how they take turns is the kernel's business.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn no_request_fails_with_four_workers() {
    no_request_fails("sluice-tap4", vec![0, 1, 0, 1]);
}

fn no_request_fails(prefix: &str, worker_cpus: Vec<u16>) {
    let workers = worker_cpus.len();
    let mut lab = common::lab_with_sluice(prefix, Wire::Tap, worker_cpus);

    let before = lab.stats().unwrap();
    for (service, kind) in [("web", Kind::Page), ("web-dr", Kind::Page), ("echo", Kind::Udp)] {
        let mut spec = lab.load_spec(service, kind);
        spec.requests = Some(2_000);
        let outcome = lab.start_load(&spec).unwrap().finish(Duration::from_secs(120)).unwrap();
        assert_eq!(outcome.errors(), [], "{service}");
        assert_eq!(outcome.total(), 2_000, "{service}");
        assert_eq!(outcome.by_backend().len(), 3, "{service}: {:?}", outcome.by_backend());
    }
    let mut spec = lab.load_spec("web", Kind::Big);
    (spec.requests, spec.concurrency, spec.timeout_ms) = (Some(8), 8, 60_000);
    let downloads = lab.start_load(&spec).unwrap().finish(Duration::from_secs(90)).unwrap();
    assert_eq!(downloads.errors(), []);

    let after = lab.stats().unwrap();
    assert_eq!(after.workers.len(), workers);
    for (new, old) in after.workers.iter().zip(&before.workers) {
        // All took part: each received packets, owned conns, and gave foreign packets away.
        assert!(new.rx_packets > old.rx_packets + 1_000, "{new:?}");
        assert!(new.conns_created > old.conns_created + 100, "{new:?}");
        assert!(new.handed_over > old.handed_over, "{new:?}");
    }
    // The kernel spreads a tap's packets by a hash of its own, and the driver says nothing of it.
    for port in lab.ports().unwrap() {
        assert_eq!(port["steering"], "handover", "{port}");
        let queues = port["counters"]["queues"].as_array().unwrap();
        assert_eq!(queues.len(), workers, "{port}");
        assert!(queues.iter().all(|q| q["rx_packets"].as_u64() > Some(100)), "{port}");
        assert_eq!(port["counters"]["mis_steered"], 0, "{port}");
    }
    for reason in ["handover_ring_full", "no_conn", "tx_queue_full"] {
        let dropped = |stats: &sluice_api::stats::Stats| stats.drops.get(reason).copied();
        assert_eq!(dropped(&after), dropped(&before), "{reason}: {:?}", after.drops);
    }
}

/// One thread of a process, held by ptrace(2) as by a debugger; the others run. It goes on when this
/// is dropped.
struct Frozen(Pid);

impl Frozen {
    fn worker(lab: &Lab, number: usize) -> Self {
        let pid = lab.dataplane.as_ref().unwrap().pid();
        let name = format!("worker-{number}");
        let thread = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == name)
            .unwrap_or_else(|| panic!("no thread {name}"));
        let id = Pid::from_raw(thread.file_name().unwrap().to_str().unwrap().parse().unwrap());
        ptrace::seize(id, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(id).unwrap();
        waitpid(id, Some(WaitPidFlag::__WALL)).unwrap();
        Frozen(id)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

fn events(lab: &Lab, kinds: &[&str]) -> Vec<(String, String)> {
    let all: Value = lab.api.get("/api/v1/events").unwrap();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
    let all = all["events"].as_array().unwrap().iter();
    all.map(|event| (text(event, "kind"), text(event, "message")))
        .filter(|(kind, _)| kinds.contains(&kind.as_str()))
        .collect()
}

/// Each worker in turn does not come round for 7 s, as the kernel or a debugger may hold it up. No
/// backend goes out for it, the host is reached through the others, and what is told is true.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_stuck_worker_takes_no_backend_out_and_is_told() {
    let lab = common::lab_with_sluice("sluice-stuck", Wire::Tap, vec![0, 1]);
    let (lb, client) = (lab.site().netns("lb"), lab.site().netns("client"));
    let sick = ["backend-unhealthy", "neighbour-failed"];
    let told = ["worker-stuck", "worker-back"];
    let (sick_before, told_before) = (events(&lab, &sick), events(&lab, &told));
    for worker in 0..2 {
        let frozen = Frozen::worker(&lab, worker);
        sleep(Duration::from_millis(600));
        let ready: Value = lab.api.get("/readyz").unwrap();
        let warning = ready["warnings"].to_string();
        assert!(warning.contains(&format!("worker {worker} (CPU {worker}) has not")), "{ready}");

        // A change is not applied before all workers have it.
        let drain = |state: &str| {
            let backend = format!("{}:{ECHO_PORT}", backend_address(1));
            let path = format!("/api/v1/services/echo/backends/{backend}/{state}");
            lab.api.request("POST", &path, None)
        };
        assert_eq!(drain("drain").unwrap().0, 202, "stored: a worker has not taken it over");
        sleep(Duration::from_millis(600));
        let status: Value = lab.api.get("/api/v1/status").unwrap();
        let dataplane = &status["dataplane"];
        assert!(
            dataplane["generation_applied"].as_u64() < dataplane["generation_published"].as_u64(),
            "{dataplane}"
        );
        assert!(dataplane["pending"].as_str().unwrap().contains(&format!("worker {worker} ")));
        assert_eq!(drain("up").unwrap().0, 202);

        // What the host sends leaves by the other worker, and so do our own ARP requests. Answers
        // to half of all flows come to the queue of the one that is stuck.
        let asks = |n: u16| {
            let url = format!("http://{}/health", backend_address(2));
            let port = (20_000 + n).to_string();
            run_in(&lb, &["curl", "-sf", "-m", "1", "--local-port", &port, &url]).is_ok()
        };
        let answered = (0..12).filter(|n| asks(*n)).count();
        assert!(answered >= 1, "worker {worker}: nothing that the host sends arrives");
        let arping = ["arping", "-c", "1", "-w", "1", "-I", "wan", &LB_WAN.to_string()];
        println!("worker {worker}: {answered} of 12, ARP: {:?}", run_in(&client, &arping).is_ok());
        sleep(Duration::from_secs(2));
        drop(frozen);
        sleep(Duration::from_millis(600));
        let ready: Value = lab.api.get("/readyz").unwrap();
        assert_eq!(ready["warnings"], serde_json::json!([]));
    }
    assert_eq!(events(&lab, &sick), sick_before, "nobody is judged by it");
    let told = events(&lab, &told).split_off(told_before.len());
    for worker in 0..2 {
        let at = |kind: &str, words: &str| {
            let words = format!("worker {worker} (CPU {worker}) {words}");
            told.iter().position(|(k, message)| k == kind && message.starts_with(&words))
        };
        let stuck = at("worker-stuck", "has not come round for 100 ms");
        let back = at("worker-back", "comes round again, after ");
        assert!(stuck.is_some() && stuck < back, "{told:?}");
    }
    let metrics = lab.api.request("GET", "/metrics", None).unwrap().1;
    for worker in 0..2 {
        let metric = format!("sluice_worker_stalls_total{{worker=\"{worker}\"}}");
        assert!(metrics.contains(&metric), "{metrics}");
    }

    // And afterwards all is as before.
    let page = run_in(&client, &["curl", "-sf", "-m", "3", "http://10.10.0.100/"]);
    assert!(page.is_ok(), "{page:?}");
    run_in(&client, &["ping", "-c", "1", "-W", "1", &VIP_ECHO.to_string()]).unwrap();
}
