//! What a change costs in a large state: 2,284 services with 37,298 backends, where keepalived#2318 was stuck.
//! Prints its figures; run it alone, with `cargo test --release -p sluice-control --test scale -- --ignored
//! --nocapture`.

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::{Api, Lab};
use serde_json::{Value, json};

const SERVICES: usize = 2_284;
const BACKENDS: usize = 37_298;
/// Clients that set weights at the same time.
const CLIENTS: usize = 32;

/// Services of about as many backends each.
fn large() -> Value {
    let at = |base: u32, n: usize| Ipv4Addr::from(base + n as u32);
    let mut backend = 0;
    let services = (0..SERVICES).map(|n| {
        let end = (n + 1) * BACKENDS / SERVICES;
        let backends: Vec<Value> = (backend..end)
            .map(|b| json!({"address": at(0x0a10_0000, b).to_string(), "port": 80}))
            .collect();
        backend = end;
        json!({
            "name": format!("s{n}"), "vip": at(0x0a90_0000, n).to_string(), "port": 80,
            "protocol": "tcp", "mode": "dr", "health_check": {"interval_ms": 60_000},
            "backends": backends,
        })
    });
    json!({"services": services.collect::<Vec<_>>()})
}

fn weight_path(n: usize) -> String {
    format!("/services/s0/backends/{}:80/weight?wait_ms=0", Ipv4Addr::from(0x0a10_0000 + n as u32))
}

/// So many weights, one after another; returns how long each took.
async fn set_weights(api: Api, backend: usize, count: u16) -> Vec<Duration> {
    let mut took = Vec::new();
    for weight in 1..=count {
        let began = Instant::now();
        api.send("PUT", &weight_path(backend), json!({ "weight": weight })).await.ok(202);
        took.push(began.elapsed());
    }
    took
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; needs an idle machine"]
async fn one_weight_among_37298_backends() {
    let lab = Lab::new();
    let (server, api) = lab.start("").await;
    let began = Instant::now();
    api.send("POST", "/apply?wait_ms=0", large()).await.ok(202);
    println!("applied within {:?}, {} MiB resident", began.elapsed(), resident_mib());
    let written = || {
        let io = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = io.lines().find(|line| line.starts_with("write_bytes:")).unwrap().to_owned();
        line["write_bytes:".len()..].trim().parse::<u64>().unwrap()
    };
    let before = written();
    let alone = set_weights(Api::new(api.address), 0, 200).await;
    let each = (written() - before) / 200;
    let one = median(alone);
    println!("one weight: {one:?} from request to answer, {each} bytes to disk");

    let began = Instant::now();
    let count = 200;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let address = api.address;
        // The service has sixteen: two clients share one.
        clients.push(tokio::spawn(async move {
            set_weights(Api::new(address), client % 16, count).await
        }));
    }
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    println!("{CLIENTS} clients: {rate:.0} weights/s, {:?} each", median(all));
    println!("{} MiB resident", resident_mib());
    server.stop().await;
    let began = Instant::now();
    let (server, api) = lab.start("").await;
    println!("started again within {:?}", began.elapsed());
    let found = api.get("/status").await.ok(200);
    assert_eq!(found["control"]["backends"], BACKENDS);
    server.stop().await;
    assert!(one < Duration::from_millis(5), "one weight took {one:?}");
    assert!(rate > 1_000.0, "{rate} weights/s");
}
