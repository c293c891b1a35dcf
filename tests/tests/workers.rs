//! Several workers on taps with as many queues: packets arrive at workers that do not own their conn
//! and are handed over, and no client notices. Needs root.

mod common;

use std::time::Duration;

use sluice_tests::lab::load::Kind;
use sluice_tests::lab::topology::Wire;

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
