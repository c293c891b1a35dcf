//! ICMP errors about conns, with the real programs: a link with a smaller MTU in the way is no black
//! hole, on either side and in either mode, and a closed UDP port is a refused connection. Needs root.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_tests::lab::Lab;
use sluice_tests::lab::command::{run, run_in};
use sluice_tests::lab::process::Process;
use sluice_tests::lab::topology::{
    BACKENDS, Far, VIP_ECHO, VIP_WEB, VIP_WEB_DR, Wire, backend_address, build_far,
};

/// The link in the way.
const MTU: u16 = 1_400;
/// A client behind a router in the clients' network.
const FAR_CLIENT: Far = Far { network: Ipv4Addr::new(10, 30, 0, 0), mtu: MTU };
const CLIENTS_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 254);
/// A backend behind a router in the backends' network.
const FAR_BACKEND: Far = Far { network: Ipv4Addr::new(10, 40, 0, 0), mtu: MTU };
const BACKENDS_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 254);
/// What is loaded down or up, in bytes: some thousand packets.
const BYTES: usize = 4 << 20;
/// What that may take, in seconds. Without any error told it takes for ever.
const MOST_SECONDS: f64 = 1.0;
/// Time in which a change of the configuration has reached the workers.
const APPLIED: Duration = Duration::from_millis(300);

/// A lab in which Sluice knows a way to a network behind a router.
fn lab(prefix: &str, wire: Wire, workers: Vec<u16>, switch: &str, via: Ipv4Addr, far: Far) -> Lab {
    let mut lab = common::lab(prefix, wire, workers);
    lab.binaries().check().unwrap();
    build_far(lab.site(), switch, via, far).unwrap();
    let mut file = OpenOptions::new().append(true).open(lab.site().file("dataplane.toml")).unwrap();
    let network = far.network;
    write!(file, "\n[[route]]\ndestination = \"{network}/24\"\nvia = \"{via}\"\n").unwrap();
    lab.open_services(Duration::from_secs(20)).unwrap_or_else(|error| panic!("{error}"));
    lab
}

fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at / 7) as u8).collect()
}

/// Bytes that curl moved with these arguments, and the seconds that it took.
fn curl(netns: &str, arguments: &str) -> (usize, f64) {
    let out = "%{size_download} %{size_upload} %{time_total}";
    let mut argv = vec!["curl", "-sS", "-f", "-m", "20", "-w", out];
    argv.extend(arguments.split(' '));
    let said = run_in(netns, &argv).unwrap_or_else(|error| panic!("{error}"));
    let fields: Vec<&str> = said.split_whitespace().collect();
    let moved = fields[0].parse::<usize>().unwrap().max(fields[1].parse().unwrap());
    (moved, fields[2].parse().unwrap())
}

/// Let a path's MTU be found out again, by everybody who may have noted it.
fn forget_path_mtu(lab: &Lab, roles: &[&str]) {
    for role in roles {
        run(&["ip", "-n", &lab.site().netns(role), "route", "flush", "cache"]).unwrap();
    }
}

fn downloads_to_a_far_client(prefix: &str, wire: Wire, workers: Vec<u16>) {
    let lab = lab(prefix, wire, workers, "wan", CLIENTS_ROUTER, FAR_CLIENT);
    let (content, network) = (content(), format!("{}/24", FAR_CLIENT.network));
    for number in 1..=BACKENDS {
        // The way of DR replies.
        let netns = lab.site().netns(&format!("b{number}"));
        let via = CLIENTS_ROUTER.to_string();
        run_in(&netns, &["ip", "route", "add", &network, "via", &via, "dev", "direct0"]).unwrap();
        let root = lab.site().file(&format!("nginx-b{number}/root"));
        fs::write(root.join("download"), &content).unwrap();
    }
    let far = lab.site().netns("far");
    let file = lab.site().file("downloaded");
    for (mode, vip) in [("full-NAT", VIP_WEB), ("DR", VIP_WEB_DR)] {
        // Several, as they come to several backends and, where there are more, workers.
        for _ in 0..6 {
            let (moved, seconds) =
                curl(&far, &format!("-o {} http://{vip}/download", file.display()));
            println!("{mode}: {moved} bytes down in {seconds} s");
            assert_eq!(fs::read(&file).unwrap(), content);
            assert!(seconds < MOST_SECONDS, "{mode}: {seconds} s");
            forget_path_mtu(&lab, &["b1", "b2", "b3"]);
        }
    }
    // The link was in the way, and nothing of this was dropped.
    let largest =
        run_in(&far, &["ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1372", "10.30.0.1"]);
    largest.unwrap();
    let drops = lab.stats().unwrap().drops;
    let icmp: u64 = drops.iter().filter(|(name, _)| name.starts_with("icmp")).map(|(_, n)| n).sum();
    assert_eq!(icmp, 0, "{drops:?}");
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_client_behind_a_smaller_mtu_gets_its_download() {
    downloads_to_a_far_client("sluice-mtu", Wire::AfXdp, vec![1]);
}

/// Errors come to any worker, conns are on one.
#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_client_behind_a_smaller_mtu_gets_its_download_through_two_workers() {
    downloads_to_a_far_client("sluice-mtu-tap", Wire::Tap, vec![0, 1]);
}

/// nginx that takes what it is sent and answers once all of it has come; and serves a file.
fn start_far_backend(lab: &Lab, content: &[u8]) -> Process {
    let dir = lab.site().file("nginx-far");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("download"), content).unwrap();
    let dir = dir.display();
    let config = format!(
        "user root; daemon off; worker_processes 1; pid {dir}/pid; error_log stderr warn;
         events {{ }}
         http {{
             access_log off;
             client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
             fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;
             scgi_temp_path {dir}/scgi;
             client_max_body_size 64m;
             server {{
                 listen 80; root {dir};
                 location = /upload {{ proxy_pass http://127.0.0.1:81/; }}
             }}
             server {{ listen 127.0.0.1:81; return 200 got; }}
         }}"
    );
    let path = format!("{dir}/nginx.conf");
    fs::write(&path, config).unwrap();
    let far = lab.site().netns("far");
    let nginx = Process::spawn(lab.site(), &far, "nginx-far", &["nginx", "-c", &path]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while run_in(&far, &["curl", "-sf", "-o", "/dev/null", "http://127.0.0.1/download"]).is_err() {
        assert!(Instant::now() < deadline, "nginx of the far backend does not answer");
    }
    nginx
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_backend_behind_a_smaller_mtu_gets_its_upload() {
    let lab = lab("sluice-mtu-lan", Wire::AfXdp, vec![1], "lan", BACKENDS_ROUTER, FAR_BACKEND);
    let content = content();
    let _nginx = start_far_backend(&lab, &content);
    let service = json!({
        "name": "far", "vip": VIP_WEB, "port": 8080, "protocol": "tcp", "mode": "full-nat",
        "scheduler": "wrr", "pool": "lan",
        "backends": [{"address": FAR_BACKEND.host(), "port": 80}],
    });
    lab.api.send("POST", "/api/v1/services", &service).unwrap();
    sleep(APPLIED);
    let client = lab.site().netns("client");
    let file = lab.site().file("upload");
    fs::write(&file, &content).unwrap();
    for round in 0..3 {
        let url = format!("http://{VIP_WEB}:8080");
        let (moved, seconds) =
            curl(&client, &format!("-o /dev/null -H Expect: -T {} {url}/upload", file.display()));
        println!("{moved} bytes up in {seconds} s");
        assert_eq!(moved, BYTES);
        assert!(seconds < MOST_SECONDS, "round {round}: {seconds} s");
        let (moved, seconds) = curl(&client, &format!("-o /dev/null {url}/download"));
        assert_eq!(moved, BYTES);
        assert!(seconds < MOST_SECONDS, "round {round}: {seconds} s");
        forget_path_mtu(&lab, &["client"]);
    }
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_closed_udp_port_of_a_backend_is_a_refused_connection() {
    let lab = common::lab_with_sluice("sluice-refused", Wire::AfXdp, vec![1]);
    // Nobody listens there, and nobody looks.
    let service = json!({
        "name": "closed", "vip": VIP_ECHO, "port": 9, "protocol": "udp", "mode": "full-nat",
        "scheduler": "wrr", "pool": "lan",
        "backends": [{"address": backend_address(1), "port": 9}],
    });
    lab.api.send("POST", "/api/v1/services", &service).unwrap();
    sleep(APPLIED);
    let client = lab.site().netns("client");
    let session = format!(
        "exec 3<>/dev/udp/{VIP_ECHO}/9; start=$(date +%s%N); echo hello >&3
         read -r -t 5 line <&3
         echo \"after $((($(date +%s%N) - start) / 1000000)) ms\""
    );
    let said = run_in(&client, &["bash", "-c", &format!("({session}) 2>&1")]).unwrap();
    println!("{said}");
    assert!(said.contains("Connection refused"), "{said}");
    let after = said.lines().find_map(|line| line.strip_prefix("after ")?.strip_suffix(" ms"));
    assert!(after.unwrap().parse::<u64>().unwrap() < 500, "{said}");
}
