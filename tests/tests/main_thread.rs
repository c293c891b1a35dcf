//! What must not hold up the data plane's main thread, and with it control, ARP and health checks.
//! Needs root.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sluice_api::message::{Request, Response, read_frame, write_frame};
use sluice_tests::lab::command::run_in;
use sluice_tests::lab::process::Process;
use sluice_tests::lab::process::wait_until;
use sluice_tests::lab::topology::{BACKENDS, CLIENT, VIP_WEB, Wire, backend_address};

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

/// Services of the second test, beside those of the lab.
const SERVICES: u16 = 100;

/// A hundred services on the lab's three backends, each with a table of the largest size: about 20 ms
/// to compile.
fn large_services() -> String {
    let mut text = String::new();
    for number in 0..SERVICES {
        let port = 8_000 + number;
        write!(
            text,
            "[[service]]\nname = \"large-{number}\"\nvip = \"{VIP_WEB}\"\nport = {port}\n\
             protocol = \"tcp\"\nmode = \"full-nat\"\nscheduler = \"maglev\"\n\
             maglev_slots = 655373\npool = \"lan\"\n\
             [service.health_check]\nkind = \"http\"\npath = \"/health\"\n\
             interval_ms = 1000\ntimeout_ms = 800\nfall = 2\nrise = 2\n"
        )
        .unwrap();
        for backend in 1..=BACKENDS {
            let address = backend_address(backend);
            write!(text, "[[service.backend]]\naddress = \"{address}\"\nport = 80\n").unwrap();
        }
    }
    text
}

/// The tables of all services are compiled anew, and nobody's checks wait for that.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn one_backend_that_dies_takes_no_other_with_it() {
    let mut lab = common::lab("sluice-large", Wire::AfXdp, vec![1]);
    lab.binaries().check().unwrap();
    let file = lab.site().file("control.toml");
    let config = fs::read_to_string(&file).unwrap() + &large_services();
    fs::write(&file, config).unwrap();
    lab.start_dataplane().unwrap();
    lab.start_control().unwrap();
    lab.wait_healthy(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"));

    let seq = lab.last_event().unwrap();
    let mut asker = Asker::new(&lab.site().file("dataplane.sock"));
    lab.servers[2].nginx.kill();
    let lost = backend_address(3).to_string();
    let is_out = |service: &serde_json::Value| {
        let backends = service["backends"].as_array().unwrap().iter();
        let ill: Vec<&str> = backends
            .filter(|backend| backend["observed"]["health"] != "healthy")
            .map(|backend| backend["address"].as_str().unwrap())
            .collect();
        ill == [lost.as_str()]
    };
    let start = Instant::now();
    wait_until("the dead backend is out everywhere", Duration::from_secs(30), || {
        assert!(matches!(asker.ask(&Request::Status), Response::Status(_)));
        Ok(lab.services()?.iter().all(is_out).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let out_after = start.elapsed();
    // What would take the others with it comes in the seconds after.
    while start.elapsed() < out_after + Duration::from_secs(8) {
        assert!(matches!(asker.ask(&Request::Status), Response::Status(_)));
        sleep(Duration::from_millis(10));
    }
    let Response::Stats(stats) = asker.ask(&Request::Stats) else { panic!("no statistics") };
    println!(
        "out everywhere after {out_after:?}; {} answers, the slowest after {:?}; {:?}",
        asker.times, asker.longest, stats.main_thread
    );
    assert!(lab.services().unwrap().iter().all(is_out));
    let events = lab.events_since(seq).unwrap();
    let ill: Vec<_> = events.iter().filter(|event| event.kind == "backend-unhealthy").collect();
    assert!(ill.iter().all(|event| event.message.contains(&lost)), "{ill:?}");
    // What else the machine's two CPUs have to do is in these; what a round takes by itself is measured
    // by snapshot_adoption.rs. It was seconds.
    assert!(asker.longest < Duration::from_millis(500), "{:?}", asker.longest);
    assert!(stats.main_thread.longest_round_us < 100_000, "{:?}", stats.main_thread);
}
