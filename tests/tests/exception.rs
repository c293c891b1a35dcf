//! A port that DPDK owns still serves its host: ARP, ping, TCP to and from the kernel behind it.
//! Needs root.

mod common;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use sluice_tests::helper::content;
use sluice_tests::lab::Lab;
use sluice_tests::lab::command::run_in;
use sluice_tests::lab::process::Process;
use sluice_tests::lab::topology::{
    CLIENT, LB_WAN, VIP_ECHO, VIP_WEB, VIP_WEB_DR, Wire, backend_address,
};

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn the_host_is_reached_and_reaches_others_over_a_dpdk_port() {
    let lab = common::lab_with_sluice("sluice-exception", Wire::AfXdp, vec![1]);
    let client = lab.site().netns("client");
    let lb = lab.site().netns("lb");
    let mac = fs_read_mac(&lb);

    for address in [LB_WAN, VIP_WEB, VIP_WEB_DR, VIP_ECHO] {
        let address = address.to_string();
        let arping = run_in(&client, &["arping", "-c", "2", "-w", "5", "-I", "wan", &address])
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(arping.to_lowercase().contains(&mac), "{address} at {mac}: {arping}");
        run_in(&client, &["ping", "-c", "3", "-i", "0.2", "-W", "1", &address]).unwrap();
        // Larger than one packet is not: the largest that fits is.
        run_in(&client, &["ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1472", &address])
            .unwrap();
    }
    let nobody = run_in(&client, &["arping", "-c", "1", "-w", "1", "-I", "wan", "10.10.0.77"]);
    assert!(nobody.is_err(), "an address that is not ours was answered for");

    let before: u64 = lab.stats().unwrap().workers.iter().map(|worker| worker.to_kernel).sum();
    // Someone logs in, as over ssh.
    let helper = env!("CARGO_BIN_EXE_sluice-lab");
    let listen = format!("{LB_WAN}:2222");
    let argv = [helper, "echo-server", "--name", "the-host", "--listen", &listen];
    let mut server = Process::spawn(lab.site(), &lb, "login", &argv).unwrap();
    server.wait_ready(Duration::from_secs(5)).unwrap();
    let session = format!(
        "exec 3<>/dev/tcp/{LB_WAN}/2222; read -r name <&3; \
         echo hello >&3; read -r line <&3; echo \"$name says $line\""
    );
    let answer = run_in(&client, &["timeout", "5", "bash", "-c", &session]).unwrap();
    assert_eq!(answer.trim(), "the-host says hello");
    let after: u64 = lab.stats().unwrap().workers.iter().map(|worker| worker.to_kernel).sum();
    assert!(after >= before + 5, "{before} packets went to the kernel, then {after}");

    // The host itself asks: a neighbour on either side, small and large.
    for address in [CLIENT, backend_address(1), backend_address(3)] {
        let address = address.to_string();
        run_in(&lb, &["ping", "-c", "3", "-i", "0.2", "-W", "1", &address]).unwrap();
    }
    let url = format!("http://{}", backend_address(2));
    let page = run_in(&lb, &["curl", "-sf", "-m", "5", &url]).unwrap();
    assert_eq!(page.as_bytes(), content::page("b2"));
    let big = run_in(&lb, &["curl", "-sf", "-m", "20", &format!("{url}/big")]).unwrap();
    assert_eq!(content::backend_of(big.as_bytes(), true), Ok("b2".to_owned()));
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn an_idle_data_plane_sleeps() {
    let mut lab = common::lab("sluice-idle", Wire::AfXdp, vec![1]);
    lab.start_dataplane().unwrap();
    sleep(Duration::from_secs(1));
    // 400 ticks of 10 ms in 4 s of one CPU; an idle worker may use 5 % of it. What else runs on the
    // machine can only add to what is counted, so the least of three windows tells.
    let used: Vec<u64> = (0..3)
        .map(|_| {
            let before = worker_ticks(&lab);
            sleep(Duration::from_secs(4));
            worker_ticks(&lab) - before
        })
        .collect();
    println!("the idle worker used {used:?} of 400 ticks each");
    assert!(used.iter().any(|ticks| *ticks < 20), "{used:?} of 400 ticks each");
}

/// A flood of what nobody asked for, to a port's own address: health checks pass, ARP is answered, and
/// what the host begins itself goes on.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_flood_to_the_host_takes_nothing_from_checks_and_arp() {
    let lab = common::lab_with_sluice("sluice-flood", Wire::AfXdp, vec![1]);
    let (client, lb) = (lab.site().netns("client"), lab.site().netns("lb"));
    let mac = fs_read_mac(&lb);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/flood.py");
    let sick = |lab: &Lab| {
        let all: serde_json::Value = lab.api.get("/api/v1/events").unwrap();
        let all = all["events"].as_array().unwrap().clone();
        all.iter().filter(|e| e["kind"] == "backend-unhealthy").count()
    };
    let before = sick(&lab);
    for kind in ["udp", "syn"] {
        let (source, to) = (CLIENT.to_string(), LB_WAN.to_string());
        let argv = ["python3", script, "wan", &mac, &source, &to, kind, "52000", "8"];
        let stats = lab.stats().unwrap();
        let mut flood = Process::spawn(lab.site(), &client, kind, &argv).unwrap();
        sleep(Duration::from_secs(1));
        let arping = ["arping", "-c", "5", "-w", "6", "-I", "wan", &to];
        let arping = run_in(&client, &arping).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(arping.contains("Received 5 response"), "{kind}: {arping}");
        for number in 1..=3 {
            let url = format!("http://{}/health", backend_address(number));
            run_in(&lb, &["curl", "-sf", "-m", "1", &url])
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        flood.wait(Duration::from_secs(20)).unwrap();
        let after = lab.stats().unwrap();
        let received = after.workers[0].rx_packets - stats.workers[0].rx_packets;
        let dropped = |reason: &str| {
            let count = |stats: &sluice_api::stats::Stats| stats.drops.get(reason).copied();
            count(&after).unwrap_or_default() - count(&stats).unwrap_or_default()
        };
        let strangers = dropped("exception_unsolicited");
        println!(
            "{kind}: sent {}, a worker received {received}, {strangers} dropped as strangers",
            flood.output().trim()
        );
        assert!(received > 160_000, "too slow a machine to tell anything: {received} in 8 s");
        assert!(strangers > received / 4, "{strangers} of {received}");
        assert_eq!(dropped("exception_ring_full"), 0, "{kind}");
    }
    assert_eq!(sick(&lab), before, "no check has failed");
}

/// User and system time of the first worker, in ticks of 10 ms (proc(5), /proc/PID/task/TID/stat).
fn worker_ticks(lab: &Lab) -> u64 {
    let pid = lab.dataplane.as_ref().unwrap().pid();
    let stat = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap())
        .find(|stat| stat.contains("(worker-0)"))
        .unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn fs_read_mac(netns: &str) -> String {
    let mac = run_in(netns, &["cat", "/sys/class/net/wan0/address"]).unwrap();
    mac.trim().to_owned()
}
