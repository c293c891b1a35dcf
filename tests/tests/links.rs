//! Links that go and interfaces that are deleted under ports that are interfaces of the kernel. Needs
//! root.

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_tests::lab::Lab;
use sluice_tests::lab::command::run;
use sluice_tests::lab::topology::Wire;

/// Events of a port's link, oldest first.
fn link_events(lab: &Lab) -> Vec<String> {
    let all: Value = lab.api.get("/api/v1/events").unwrap();
    let all = all["events"].as_array().unwrap().iter();
    all.filter(|event| event["kind"].as_str().unwrap().starts_with("link-"))
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

fn link_up(lab: &Lab, port: usize) -> bool {
    lab.ports().unwrap()[port]["link_up"].as_bool().unwrap()
}

/// Wait until the port's link is up or not, by the API; how long that took.
fn wait_link(lab: &Lab, port: usize, up: bool) -> Duration {
    let began = Instant::now();
    while link_up(lab, port) != up {
        assert!(began.elapsed() < Duration::from_secs(5), "link up: {}", !up);
        sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// The data plane ends by itself, with 1, and says which port it has lost.
fn lost(lab: &mut Lab, words: &[&str]) {
    let dataplane = lab.dataplane.as_mut().unwrap();
    let began = Instant::now();
    let status = dataplane.wait(Duration::from_secs(10)).unwrap();
    println!("ended after {:?}", began.elapsed());
    let said = dataplane.output();
    assert_eq!(status.code(), Some(1), "{said}");
    for word in words.iter().chain(&["its kernel interface is gone", "STOPPED"]) {
        assert!(said.contains(word), "{word:?} is not in:\n{said}");
    }
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_carrier_that_goes_is_told_and_an_interface_that_goes_ends_the_process() {
    let mut lab = common::lab_with_sluice("sluice-links", Wire::AfXdp, vec![1]);
    let net = lab.site().netns("net");
    let far = |state: &str| run(&["ip", "-n", &net, "link", "set", "lb-lan0", state]).unwrap();
    assert!(link_up(&lab, 0) && link_up(&lab, 1));
    far("down");
    let took = wait_link(&lab, 1, false);
    println!("link-down after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(link_up(&lab, 0), "the other port's");
    far("up");
    let took = wait_link(&lab, 1, true);
    assert!(took < Duration::from_secs(1), "{took:?}");
    sleep(Duration::from_millis(600));
    assert_eq!(link_events(&lab), ["port lan: link is down", "port lan: link is up"]);
    lab.wait_healthy(Duration::from_secs(10)).unwrap();

    run(&["ip", "-n", &net, "link", "del", "lb-wan0"]).unwrap();
    lost(&mut lab, &["port wan (net_af_xdp0,iface=wan0)"]);
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_tap_that_moves_is_no_loss_and_one_that_is_deleted_is() {
    let mut lab = common::lab_with_sluice("sluice-linktap", Wire::Tap, vec![0, 1]);
    // Its kernel ends are in the namespace of the switches.
    assert!(link_up(&lab, 0) && link_up(&lab, 1));
    assert_eq!(link_events(&lab), [] as [String; 0]);
    let net = lab.site().netns("net");
    run(&["ip", "-n", &net, "link", "del", "lan0"]).unwrap();
    lost(&mut lab, &["port lan (net_tap1,iface=lan0)"]);
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn an_exception_port_that_is_deleted_ends_the_process() {
    let mut lab = common::lab("sluice-linkexc", Wire::AfXdp, vec![1]);
    lab.start_dataplane().unwrap();
    let lb = lab.site().netns("lb");
    run(&["ip", "-n", &lb, "link", "del", "sl-wan"]).unwrap();
    lost(&mut lab, &["port wan (exception port sl-wan)"]);
}
