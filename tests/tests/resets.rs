//! Nobody hangs who could be told: a client whose conn is gone, and one that nobody serves, with the
//! real programs and nginx. Needs root.

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use sluice_tests::lab::Lab;
use sluice_tests::lab::command::run_in;
use sluice_tests::lab::topology::{VIP_WEB, Wire, backend_address};

/// Time in which a change of the configuration has reached the workers.
const APPLIED: Duration = Duration::from_millis(300);

fn resets_sent(lab: &Lab) -> u64 {
    lab.stats().unwrap().workers.iter().map(|worker| worker.resets_sent).sum()
}

/// What curl says, and after how long.
fn ask(lab: &Lab, port: u16) -> (String, Duration) {
    let start = Instant::now();
    let script = format!("curl -sS -m 5 -o /dev/null http://{VIP_WEB}:{port}/ 2>&1 || true");
    let said = run_in(&lab.site().netns("client"), &["bash", "-c", &script]).unwrap();
    (said.trim().to_owned(), start.elapsed())
}

#[test]
#[ignore = "needs root, for network namespaces; scripts/test runs it"]
fn a_client_hears_at_once_that_its_conn_is_gone_or_that_nobody_serves_it() {
    let lab = common::lab_with_sluice("sluice-resets", Wire::AfXdp, vec![1]);
    lab.cli(&["service", "set", "web", "--timeout", "tcp_established_ms=500"]).unwrap();
    sleep(APPLIED);
    // One request, a pause in which Sluice forgets the conn, and another request on it.
    let session = format!(
        "exec 3<>/dev/tcp/{VIP_WEB}/80
         request='GET / HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n'
         printf \"$request\" >&3
         read -r -t 5 status <&3; echo \"$status\"
         sleep 2
         start=$(date +%s%N)
         printf \"$request\" >&3
         cat <&3 2>&1 >/dev/null
         echo \"after $((($(date +%s%N) - start) / 1000000)) ms\""
    );
    let client = lab.site().netns("client");
    let said = run_in(&client, &["timeout", "30", "bash", "-c", &session]).unwrap();
    println!("{said}");
    assert!(said.contains("200 OK"), "{said}");
    assert!(said.contains("Connection reset by peer"), "{said}");
    let after = said.lines().find_map(|line| line.strip_prefix("after ")?.strip_suffix(" ms"));
    let after: u64 = after.expect("the session says how long it took").parse().unwrap();
    assert!(after < 1_000, "{after} ms");
    assert!(resets_sent(&lab) >= 1);

    // With the service told to drop, the same client would wait for its own timeout.
    lab.cli(&["service", "set", "web", "--no-conn", "drop"]).unwrap();
    let shown = lab.cli(&["service", "show", "web"]).unwrap();
    assert!(shown.contains("no conn       drop"), "{shown}");

    // A port of the VIP where no service is.
    let (said, after) = ask(&lab, 81);
    assert!(said.contains("refused") || said.contains("Couldn't connect"), "{said}");
    assert!(after < Duration::from_secs(1), "{after:?}: {said}");

    // A service whose backends are all out, as it says.
    for backend in 1..=3 {
        let address = format!("{}:80", backend_address(backend));
        lab.cli(&["backend", "drain", "web", &address]).unwrap();
    }
    for (refusal, least, most) in [
        ("reset", Duration::ZERO, Duration::from_secs(1)),
        ("unreachable", Duration::ZERO, Duration::from_secs(1)),
        ("drop", Duration::from_secs(4), Duration::from_secs(9)),
    ] {
        lab.cli(&["service", "set", "web", "--no-backend", refusal]).unwrap();
        sleep(APPLIED);
        let (said, after) = ask(&lab, 80);
        println!("{refusal}: {said} after {after:?}");
        assert!(!said.is_empty(), "{refusal}: nobody serves it");
        assert!(after >= least && after < most, "{refusal}: {after:?}: {said}");
    }
    let stats = lab.stats().unwrap();
    let unreachables: u64 = stats.workers.iter().map(|worker| worker.unreachables_sent).sum();
    assert!(unreachables >= 1, "{:?}", stats.drops);
    let refused = lab.cli(&["service", "set", "web", "--no-backend", "ignore"]).unwrap_err();
    assert!(refused.to_string().contains("unreachable"), "{refused}");
}
