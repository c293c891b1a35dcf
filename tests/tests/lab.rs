//! The lab itself, without Sluice: its wires carry, its clients tell good from bad, and it leaves
//! nothing behind. Needs root.

mod common;

use std::net::SocketAddrV4;
use std::time::Duration;

use sluice_tests::lab::capture::link_counters;
use sluice_tests::lab::load::Kind;
use sluice_tests::lab::reference::{start_testpmd, wrk};
use sluice_tests::lab::servers::ECHO_PORT;
use sluice_tests::lab::topology::{CLIENT_ON_LAN, Wire, add_address, backend_address};

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn clients_reach_servers_over_a_bare_dpdk_wire_and_nothing_stays_behind() {
    let mut lab = common::lab("sluice-wire", Wire::AfXdp, vec![1]);
    let site = lab.site().clone();
    add_address(&site.netns("client"), CLIENT_ON_LAN, 24, "wan").unwrap();
    let mut testpmd = start_testpmd(&site, 1).unwrap();

    let mut spec = lab.load_spec("web", Kind::Page);
    spec.source = CLIENT_ON_LAN;
    spec.target = SocketAddrV4::new(backend_address(1), 80);
    spec.requests = Some(500);
    let pages = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    assert_eq!(pages.errors(), []);
    assert_eq!(pages.by_backend(), [("b1".to_owned(), 500)].into());

    spec.kind = Kind::Udp;
    spec.target = SocketAddrV4::new(backend_address(2), ECHO_PORT);
    let echoes = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    assert_eq!(echoes.errors(), []);
    assert_eq!(echoes.by_backend(), [("b2".to_owned(), 500)].into());

    spec.kind = Kind::Big;
    spec.target = SocketAddrV4::new(backend_address(3), 80);
    (spec.requests, spec.timeout_ms) = (Some(3), 20_000);
    let downloads = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    assert_eq!(downloads.errors(), []);
    let begun = downloads.records.iter().filter(|record| !record.done).count();
    assert_eq!((begun, downloads.total()), (3, 3));

    // The wire was testpmd, not the backends' direct way to the client's switch.
    let direct = link_counters(&site.netns("b3"), "direct0").unwrap();
    let wired = link_counters(&site.netns("b3"), "lan0").unwrap();
    assert!(wired.tx_packets > 1_000, "{wired:?}");
    assert!(direct.tx_packets < 50, "{direct:?}");

    let url = format!("http://{}/", backend_address(1));
    let result = wrk(&site, &url, &lab.load_cpus(), 16, 1).unwrap();
    assert_eq!(result.errors, 0);
    assert!(result.requests_per_s > 100.0, "{result:?}");

    // A server that is gone is a failed request, not a hanging one.
    lab.servers[0].nginx.kill();
    spec.kind = Kind::Page;
    spec.target = SocketAddrV4::new(backend_address(1), 80);
    (spec.requests, spec.timeout_ms) = (Some(10), 1_000);
    let refused = lab.start_load(&spec).unwrap().finish(Duration::from_secs(30)).unwrap();
    assert_eq!(refused.failed().len(), 10);

    testpmd.signal("-INT").unwrap();
    testpmd.wait(Duration::from_secs(10)).unwrap();
    drop(lab);
    assert!(!site.is_present().unwrap());
    assert!(!site.run_dir().exists());
}
