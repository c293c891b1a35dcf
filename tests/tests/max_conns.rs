//! Limits of conns with the real programs, on two workers: slow downloads fill a backend, further
//! ones go to the others; a full service refuses, and takes new ones when its limit is gone. Needs
//! root.

mod common;

use std::thread::sleep;
use std::time::Duration;

use sluice_api::stats::{ServiceStats, Stats};
use sluice_tests::lab::load::Kind;
use sluice_tests::lab::topology::Wire;

fn service<'s>(stats: &'s Stats, name: &str) -> &'s ServiceStats {
    stats.services.iter().find(|service| service.name == name).expect("the lab has it")
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn slow_downloads_fill_a_limit_and_no_more_than_that() {
    let mut lab = common::lab_with_sluice("sluice-max", Wire::Tap, vec![0, 1]);

    // By weight, b1 would get half of them.
    lab.cli(&["backend", "max-conns", "web", "10.20.0.11:80", "3"]).unwrap();
    sleep(Duration::from_millis(200));
    let mut spec = lab.load_spec("web", Kind::Big);
    (spec.requests, spec.concurrency, spec.timeout_ms) = (Some(16), 16, 60_000);
    // One by one: of many at once a worker may refuse some although another's quota has room.
    spec.rate = Some(20);
    let load = lab.start_load(&spec).unwrap();
    let mut most = 0;
    for _ in 0..30 {
        let stats = lab.stats().unwrap();
        let b1 = &service(&stats, "web").backends[0];
        assert_eq!(b1.max_conns.map(|limit| limit.get()), Some(3));
        assert!(b1.traffic.conns <= 3, "{b1:?}");
        most = most.max(b1.traffic.conns);
        sleep(Duration::from_millis(100));
    }
    let downloads = load.finish(Duration::from_secs(90)).unwrap();
    assert_eq!(downloads.errors(), []);
    let by_backend = downloads.by_backend();
    println!("{by_backend:?}, at most {most} at once on b1");
    assert_eq!((by_backend["b1"], most), (3, 3), "{by_backend:?}");
    assert_eq!(by_backend.values().sum::<u64>(), 16, "{by_backend:?}");

    // A service without room: clients try again and find none, as DR conns outlive their downloads.
    lab.cli(&["service", "set", "web-dr", "--max-conns", "5"]).unwrap();
    sleep(Duration::from_millis(200));
    let before = service(&lab.stats().unwrap(), "web-dr").traffic.conns;
    assert_eq!(before, 0, "nobody used it yet");
    let mut spec = lab.load_spec("web-dr", Kind::Big);
    (spec.requests, spec.concurrency, spec.timeout_ms) = (Some(10), 10, 30_000);
    let downloads = lab.start_load(&spec).unwrap().finish(Duration::from_secs(90)).unwrap();
    let stats = lab.stats().unwrap();
    let full = service(&stats, "web-dr");
    let seen = (downloads.errors(), full, &stats.workers, &stats.drops);
    assert_eq!(downloads.failed().len(), 5, "{seen:?}");
    assert_eq!((full.traffic.conns, full.traffic.conns_created), (5, 5));
    assert!(stats.drops["service_limit"] >= 5, "{:?}", stats.drops);

    // What an operator sees of it.
    let table = lab.cli(&["stats", "web-dr"]).unwrap();
    assert!(table.contains("MAX CONNS"), "{table}");
    let events = lab.cli(&["events"]).unwrap();
    // At 80 %: of five, that may be seen with the fourth already.
    let service_said = ["service web-dr: 4 of 5 conns", "service web-dr: 5 of 5 conns"];
    assert!(service_said.iter().any(|said| events.contains(said)), "{events}");
    assert!(events.contains("backend 10.20.0.11:80 of service web: 3 of 3"), "{events}");
    let (_, metrics) = lab.api.request("GET", "/metrics", None).unwrap();
    for line in [
        "sluice_service_max_conns{service=\"web-dr\"} 5",
        "sluice_service_conns{service=\"web-dr\"} 5",
        "sluice_backend_max_conns{service=\"web\",backend=\"10.20.0.11:80\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    lab.cli(&["service", "set", "web-dr", "--no-max-conns"]).unwrap();
    let mut spec = lab.load_spec("web-dr", Kind::Page);
    spec.requests = Some(100);
    let pages = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    assert_eq!(pages.errors(), []);
}
