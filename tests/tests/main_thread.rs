//! What must not hold up the data plane's main thread, and with it control, ARP and health checks.
//! Needs root.

mod common;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sluice_api::message::{Request, Response, read_frame, write_frame};
use sluice_tests::lab::command::run_in;
use sluice_tests::lab::process::Process;
use sluice_tests::lab::topology::{CLIENT, Wire};

/// How long the data plane takes to answer on its socket, the longest of many times.
struct Asker {
    socket: UnixStream,
    longest: Duration,
    times: u32,
}

impl Asker {
    fn new(path: &Path) -> Asker {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Asker { socket, longest: Duration::ZERO, times: 0 }
    }

    fn ask(&mut self, request: &Request) -> Response {
        let start = Instant::now();
        write_frame(&mut self.socket, request).unwrap();
        let response = read_frame(&mut self.socket).unwrap();
        self.longest = self.longest.max(start.elapsed());
        self.times += 1;
        response
    }
}

/// 30,000 packets a second, which was half as much again as it took to keep it from ever waking up.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn it_answers_under_thirty_thousand_packets_a_second_on_a_tap() {
    let lab = common::lab_with_sluice("sluice-storm", Wire::Tap, vec![1]);
    let client = lab.site().netns("client");
    let mut asker = Asker::new(&lab.site().file("dataplane.sock"));
    let seq = lab.last_event().unwrap();
    let received = |lab: &sluice_tests::lab::Lab| lab.stats().unwrap().ports[0].rx_packets;
    let before = received(&lab);

    // To a VIP, where nothing listens on that port.
    let argv = [
        env!("CARGO_BIN_EXE_sluice-lab"),
        "udp-flood",
        "--source",
        &CLIENT.to_string(),
        "--target",
        "10.10.0.100:9",
        "--rate",
        "30000",
        "--for-ms",
        "6000",
    ];
    let mut flood = Process::spawn(lab.site(), &client, "flood", &argv).unwrap();
    flood.wait_ready(Duration::from_secs(5)).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        assert!(matches!(asker.ask(&Request::Status), Response::Status(_)));
        sleep(Duration::from_millis(10));
    }
    flood.wait_for_text("SENT", Duration::from_secs(10)).unwrap();
    // What does not come from a queue: control's checks and the host's own packets.
    run_in(&client, &["ping", "-c", "1", "-W", "1", "10.10.0.1"]).unwrap();
    let packets = received(&lab) - before;
    println!(
        "{packets} packets received in 6 s, {} answers, the slowest after {:?}",
        asker.times, asker.longest
    );
    assert!(packets > 150_000, "{packets} packets are not 30,000 a second");
    assert!(asker.longest < Duration::from_millis(100), "{:?}", asker.longest);
    let events = lab.events_since(seq).unwrap();
    assert!(!events.iter().any(|event| event.kind == "backend-unhealthy"), "{events:?}");
}
