//! What reaches the data plane, and when: restarts of either side, refusals, bursts, announcements.

mod common;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::{Api, FakeDataplane, Lab, Memory, WEB, eventually};
use serde_json::{Value, json};
use sluice_api::stats::{DataplaneEvent, Limits};
use sluice_api::{AdminState, Severity, Snapshot};

const WEIGHT: &str = "/services/web/backends/10.0.0.1:8080/weight";

async fn set_weight(api: &Api, weight: u64) {
    api.send("PUT", WEIGHT, json!({ "weight": weight })).await.ok(200);
}

/// While the data plane does not take it over, or without waiting for that.
async fn store_weight(api: &Api, weight: u64) {
    let path = format!("{WEIGHT}?wait_ms=0");
    api.send("PUT", &path, json!({ "weight": weight })).await.ok(202);
}

fn weight(snapshot: &Snapshot) -> u16 {
    snapshot.services[0].backends[0].weight
}

#[tokio::test]
async fn changes_reach_the_data_plane_whole_and_numbered() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let first = fake.snapshot_where("the file's state", |_| true).await;
    assert_eq!(first.generation, 1);
    assert_eq!(first.pools[0].name, "local");
    let web = &first.services[0];
    assert_eq!((web.backends.len(), web.backends[1].weight), (2, 50));
    assert!(web.backends.iter().all(|b| b.healthy), "unchecked counts as healthy");

    set_weight(&api, 7).await;
    let second = fake.snapshot_where("the weight", |s| weight(s) == 7).await;
    assert_eq!(second.generation, 2);
    api.post_empty("/services/web/backends/10.0.0.1:8080/drain").await.ok(200);
    let drained = |s: &Snapshot| s.services[0].backends[0].state == AdminState::Drain;
    fake.snapshot_where("the drain", drained).await;
    server.stop().await;
}

#[tokio::test]
async fn bursts_coalesce_and_the_newest_wins() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    fake.with(|m| m.apply_takes = Duration::from_millis(300));
    for weight in 1..=50 {
        store_weight(&api, weight).await;
    }
    fake.snapshot_where("the last weight", |s| weight(s) == 50).await;
    let applies = fake.with(|m| m.applies.len());
    assert!(applies < 25, "{applies} snapshots for 50 changes");
    server.stop().await;
}

#[tokio::test]
async fn a_restarted_data_plane_gets_everything_back() {
    let lab = Lab::new();
    let mut fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    set_weight(&api, 7).await;
    fake.snapshot_where("the weight", |s| weight(s) == 7).await;
    let announced = || fake.with(|m| m.announced.clone());
    let addresses = [IpAddr::from([10, 0, 0, 250]), IpAddr::from([198, 51, 100, 1])];
    eventually("the announcement", || (announced() == addresses).then_some(())).await;

    fake.kill().await;
    let gone = Instant::now();
    assert!(api.ready(503).await.problem(503).contains("dataplane unreachable"));
    assert!(gone.elapsed() < Duration::from_secs(1), "noticed after {:?}", gone.elapsed());
    api.event("dataplane-unreachable").await;
    let service = api.get("/services/web").await.body;
    assert!(
        service["observed"]["warnings"].to_string().contains("as it was known last"),
        "{service}"
    );
    // The API goes on meanwhile.
    store_weight(&api, 8).await;

    fake.restart();
    let back = Instant::now();
    let snapshot = fake.snapshot_where("the state", |_| true).await;
    assert_eq!(weight(&snapshot), 8);
    let announced = || fake.with(|m| m.announced.clone());
    eventually("the announcement", || (announced() == addresses).then_some(())).await;
    assert!(back.elapsed() < Duration::from_secs(1), "back after {:?}", back.elapsed());
    assert!(api.event("dataplane-restarted").await.contains("pid 4242"));
    api.ready(200).await;
    server.stop().await;
}

#[tokio::test]
async fn a_restart_of_control_changes_nothing() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    set_weight(&api, 7).await;
    fake.snapshot_where("the weight", |s| weight(s) == 7).await;
    eventually("the announcement", || fake.with(|m| (m.announced.len() == 2).then_some(()))).await;
    server.stop().await;
    let before = fake.with(|m| {
        m.applies.clear();
        m.announces.clear();
        m.snapshot.clone()
    });

    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    // Longer than any repetition of an announcement.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    fake.with(|m| {
        assert_eq!(m.applies, [], "nothing is published again");
        assert_eq!(m.announces, Vec::<Vec<IpAddr>>::new(), "nothing is announced again");
        assert_eq!(m.snapshot, before);
    });
    // The next change goes on from the data plane's generation.
    set_weight(&api, 9).await;
    let next = fake.snapshot_where("the weight", |s| weight(s) == 9).await;
    assert_eq!(next.generation, before.unwrap().generation + 1);
    server.stop().await;
}

#[tokio::test]
async fn only_new_addresses_are_asked_for_once_and_told_when_they_have_left() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    fake.with(|m| m.keeps_announcements = true);
    let (server, api) = lab.start(WEB).await;
    let times = |address: IpAddr| {
        fake.with(|m| m.announces.iter().filter(|a| a.contains(&address)).count())
    };
    let told = async || api.events("announced").await;
    let old = IpAddr::from([198, 51, 100, 1]);
    eventually("the question", || (times(old) == 1).then_some(())).await;
    // Nothing has left yet, for longer than several looks.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!((times(old), told().await), (1, vec![]));
    fake.with(|m| m.announced.push(old));
    assert_eq!(api.event("announced").await, "announced 198.51.100.1");
    assert_eq!(told().await, ["announced 198.51.100.1"]);

    let body = json!({
        "name": "dns", "vip": "198.51.100.2", "port": 53, "protocol": "udp", "mode": "dr"
    });
    api.send("POST", "/services", body).await.ok(201);
    let new = IpAddr::from([198, 51, 100, 2]);
    eventually("the question", || (times(new) == 1).then_some(())).await;
    fake.with(|m| m.announced.push(new));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(told().await, ["announced 198.51.100.1", "announced 198.51.100.2"]);
    assert_eq!(times(old), 1);

    // An address that leaves and returns is announced anew.
    api.delete("/services/dns").await;
    fake.snapshot_where("no dns", |s| s.services.len() == 1).await;
    let body = json!({
        "name": "dns", "vip": "198.51.100.2", "port": 53, "protocol": "udp", "mode": "dr"
    });
    api.send("POST", "/services", body).await.ok(201);
    eventually("the question", || (times(new) == 2).then_some(())).await;
    server.stop().await;
}

#[tokio::test]
async fn a_refused_snapshot_is_told_and_tried_again_when_something_changes() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    // The data plane's idea of its size changes behind control's back.
    fake.with(|m| {
        m.applies.clear();
        m.limits.backends = 1;
    });
    store_weight(&api, 7).await;
    let event = api.event("snapshot-rejected").await;
    assert!(event.contains("services[].backends is 2 entries"), "{event}");
    let reason = api.ready(503).await.problem(503);
    assert!(reason.contains("refused the last snapshot"), "{reason}");
    let status = api.get("/status").await.ok(200);
    assert_eq!(status["dataplane"]["rejected"][0]["field"], "services[].backends");
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(fake.with(|m| m.applies.len()), 1, "not tried again without a change");
    // Requests are judged by the same rule from now on, but old sins do not block new changes.
    store_weight(&api, 8).await;
    let bad = json!({
        "name": "x", "vip": "198.51.100.1", "port": 81, "protocol": "tcp", "mode": "dr",
        "backends": [{"address": "10.0.0.3", "port": 81}]
    });
    let problem = api.send("POST", "/services", bad).await.problem(422);
    assert!(problem.contains("services[].backends is 3 entries: expected at most 1"), "{problem}");

    fake.with(|m| m.limits = Limits::default());
    set_weight(&api, 9).await;
    fake.snapshot_where("the weight", |s| weight(s) == 9).await;
    api.ready(200).await;
    server.stop().await;
}

/// A DR service as TOML.
fn dr(name: &str, vip: &str, backends: &[&str], check: &str) -> String {
    let backend =
        |address: &&str| format!("[[service.backend]]\naddress = \"{address}\"\nport = 80\n");
    let backends: String = backends.iter().map(backend).collect();
    format!(
        "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nport = 80\nprotocol = \"tcp\"\n\
         mode = \"dr\"\n{check}\n{backends}"
    )
}

/// Why the data plane does not take this.
fn not_taken(what: &str) -> String {
    let expected = "expected an address that no port of the data plane has";
    format!("the data plane does not take it: {what}: {expected}")
}

/// Services of which a data plane with the ports 10.20.0.1 and 10.20.1.1 takes `web`, `alone` without its
/// backend, and `host` without one of two.
fn half_taken(fake: &FakeDataplane) -> String {
    fake.with(|m| {
        m.port_address = Some(IpAddr::from([10, 20, 0, 1]));
        m.other_port_address = Some(IpAddr::from([10, 20, 1, 1]));
    });
    // Its health changes once, without a change of the state.
    let check = "health_check = { interval_ms = 300, timeout_ms = 100, rise = 1, fall = 1 }";
    let resources = [
        WEB.to_owned(),
        dr("host", "198.51.100.2", &["10.20.0.1", "10.20.0.3"], ""),
        dr("port", "10.20.1.1", &["10.0.0.4"], check),
        dr("alone", "198.51.100.3", &["10.20.0.1"], ""),
    ];
    resources.concat()
}

/// Control cannot know the ports of a data plane that it has not met.
#[tokio::test]
async fn what_the_data_plane_would_not_take_keeps_nothing_else_from_it() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(&half_taken(&fake)).await;
    let first = fake.snapshot_where("the first", |_| true).await;
    let names = |s: &Snapshot| s.services.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (first.generation, names(&first)),
        (1, ["web", "host", "alone"].map(String::from).into())
    );
    let counts: Vec<usize> = first.services.iter().map(|s| s.backends.len()).collect();
    assert_eq!(counts, [2, 1, 0]);
    assert_eq!(api.events("snapshot-rejected").await, [""; 0]);

    eventually("told", || fake.with(|m| (m.announced.len() == 4).then_some(()))).await;
    let told = api.event("service-down").await;
    assert!(
        told.contains("service port is down") || told.contains("service alone is down"),
        "{told}"
    );

    // What others do, and their health, goes on as ever.
    set_weight(&api, 7).await;
    fake.snapshot_where("the weight", |s| weight(s) == 7).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(fake.with(|m| m.applies.len()), 2, "no further generations");
    // A change of it is on disk only.
    let patched = api.send("PATCH", "/services/port", json!({"scheduler": "wrr"})).await.ok(202);
    assert_eq!(
        patched["change"]["reason"],
        not_taken("services[port].vip is 10.20.1.1"),
        "{patched}"
    );
    // Mended.
    let mended = json!({"vip": "198.51.100.4"});
    api.send("PATCH", "/services/port", mended).await.ok(200);
    fake.snapshot_where("all", |s| s.services.len() == 4).await;
    assert_eq!(api.events("snapshot-rejected").await, [""; 0]);
    server.stop().await;
}

/// And what stays out is told wherever it is looked for.
#[tokio::test]
async fn what_the_data_plane_would_not_take_is_told() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(&half_taken(&fake)).await;
    fake.snapshot_where("the first", |_| true).await;
    let observed = async |path: &str| api.get(path).await.ok(200)["observed"].clone();
    let web = api.get("/services/web/backends").await.ok(200);
    for n in [0, 1] {
        assert_eq!(web["backends"][n]["observed"]["takes_new_conns"], true, "{web}");
    }
    let host = observed("/services/host").await;
    assert_eq!(host["state"], "degraded");
    let why = "1 of 2 backends take no new conns: 1 not taken by the data plane";
    assert_eq!(host["reason"], why);
    let bad = observed("/services/host/backends/10.20.0.1:80").await;
    assert_eq!(bad["takes_new_conns"], false);
    assert_eq!(
        bad["reason"],
        not_taken("services[host].backends[10.20.0.1:80].address is 10.20.0.1")
    );
    assert_eq!(observed("/services/host/backends/10.20.0.3:80").await["takes_new_conns"], true);
    assert_eq!(observed("/services/alone").await["state"], "down");
    let port = observed("/services/port").await;
    assert_eq!(
        (&port["state"], &port["reason"]),
        (&json!("down"), &json!(not_taken("services[port].vip is 10.20.1.1")))
    );
    let backend = observed("/services/port/backends/10.0.0.4:80").await;
    assert_eq!((&backend["takes_new_conns"], &backend["reason"]), (&json!(false), &port["reason"]));
    let warnings = api.ready(200).await.ok(200)["warnings"].to_string();
    assert!(warnings.contains(&format!(
        "service port is down: {}",
        not_taken("services[port].vip is 10.20.1.1")
    )));
    let metrics = api.get("//metrics").await.ok(200).to_string();
    for line in [
        r#"sluice_service_state{service=\"port\",state=\"down\"} 1"#,
        r#"sluice_backend_takes_new_conns{service=\"host\",backend=\"10.20.0.1:80\"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    server.stop().await;
}

/// The data plane has a rule that control does not know, here as its new address is not told yet.
#[tokio::test]
async fn parts_that_the_data_plane_refuses_are_left_out_of_the_next_snapshot() {
    let lab = Lab::new();
    let mut fake = FakeDataplane::start(&lab.socket());
    let spare = "[[pool]]\nname = \"spare\"\naddresses = [\"10.20.0.1\"]\n";
    let port = dr("port", "198.51.100.2", &["10.0.0.4"], "");
    let resources = [WEB, spare, &port].concat();
    fake.with(|m| {
        m.port_address = Some(IpAddr::from([10, 20, 0, 1]));
        m.refuses_silently = Some(IpAddr::from([198, 51, 100, 2]));
    });
    let (server, api) = lab.start(&resources).await;
    let second = fake.snapshot_where("the rest", |_| true).await;
    assert_eq!((second.generation, second.services.len()), (2, 1), "once refused");
    let refusals = api.events("snapshot-rejected").await;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(
        refusals[0].contains("generation 1: services[port].vip is 198.51.100.2"),
        "{refusals:?}"
    );
    let status = api.get("/status").await.ok(200);
    assert_eq!(status["dataplane"]["rejected"], json!([]));
    let expected = json!({
        "service": "port", "state": "down",
        "reason": "the data plane does not take it: services[port].vip is 198.51.100.2: \
                   expected an address that no port of the data plane has"
    });
    let not_serving = status["not_serving"].as_array().unwrap();
    assert!(not_serving.contains(&expected), "{not_serving:?}");
    // A pool that nobody uses is told of as well.
    assert_eq!(second.pools.len(), 1);
    let spare = api.get("/pools/spare").await.ok(200);
    let reason = spare["observed"]["reason"].as_str().unwrap();
    assert!(reason.contains("does not take it: pools[spare].addresses is 10.20.0.1"), "{reason}");
    let warnings = api.ready(200).await.ok(200)["warnings"].to_string();
    assert!(warnings.contains(&format!("pool spare: {reason}")), "{warnings}");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(fake.with(|m| m.applies.len()), 2, "not tried again without a change");

    // Another data plane judges anew.
    fake.kill().await;
    api.ready(503).await;
    fake.with(|m| m.refuses_silently = None);
    fake.restart();
    fake.snapshot_where("all", |s| s.services.len() == 2).await;
    api.ready(200).await;
    server.stop().await;
}

#[tokio::test]
async fn a_data_plane_that_hangs_before_a_change_counts_as_unreachable_until_it_answers() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    fake.with(|m| {
        m.applies.clear();
        m.apply_takes = Duration::from_secs(6);
    });
    store_weight(&api, 7).await;
    let generation = eventually("the question", || {
        fake.with(|m| m.applies.last().map(|asked| asked.generation))
    })
    .await;
    fake.with(|m| m.apply_takes = Duration::ZERO);
    let silent = format!("has not answered for 3 s while it takes generation {generation} over");
    assert_eq!(api.event("dataplane-unreachable").await, silent);

    let began = Instant::now();
    let status = api.get("/status").await.ok(200);
    assert_eq!(status["ready"], false);
    assert_eq!(status["unready_reason"], format!("dataplane unreachable: {silent}"));
    assert_eq!(status["dataplane"]["connected"], false);
    assert!(api.get("//readyz").await.problem(503).contains(&silent));
    let metrics = api.get("//metrics").await.ok(200);
    for line in ["sluice_ready 0\n", "sluice_dataplane_up 0\n"] {
        assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
    }
    let body = json!({"weight": 8});
    let change = api.send("PUT", WEIGHT, body).await.ok(202)["change"].clone();
    assert_eq!(change["outcome"], "stored");
    assert!(change["reason"].as_str().unwrap().contains(&silent), "{change}");
    assert!(began.elapsed() < Duration::from_millis(1_500), "nothing waits for it");

    fake.snapshot_where("the last weight", |s| weight(s) == 8).await;
    api.ready(200).await;
    let back = api.events("dataplane-connected").await;
    assert!(back.last().unwrap().starts_with("the data plane answers again, after 6"), "{back:?}");
    assert_eq!(api.events("dataplane-unreachable").await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn limits_of_the_data_plane_are_known_to_the_api() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    fake.with(|m| m.limits.backends = 2);
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    let body = json!({"address": "10.0.0.3", "port": 8080});
    let problem = api.send("POST", "/services/web/backends", body).await.problem(422);
    assert!(problem.contains("services[].backends is 3 entries: expected at most 2"), "{problem}");
    server.stop().await;
}

#[tokio::test]
async fn another_controls_snapshot_is_noticed_and_replaced() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    fake.snapshot_where("the file's state", |s| s.generation == 1).await;
    fake.with(|m| m.snapshot = Some(Snapshot { generation: 40, ..Snapshot::default() }));
    let repaired = fake.snapshot_where("the state again", |s| s.services.len() == 1).await;
    assert_eq!(repaired.generation, 41);
    api.event("snapshot-foreign").await;
    server.stop().await;
}

/// Somebody else's snapshot takes the number that control gives to its next one, before control has seen it.
#[tokio::test]
async fn a_change_that_was_overtaken_comes_into_force() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let published = fake.snapshot_where("the file's state", |s| s.generation == 1).await;
    for overtaken in 1..4 {
        let theirs = published.generation + 10 * overtaken;
        fake.with(|m| m.snapshot = Some(Snapshot { generation: theirs, ..Snapshot::default() }));
        let weight = json!({ "weight": overtaken });
        api.send("PATCH", "/services/web/backends/10.0.0.1:8080", weight).await.ok(200);
        fake.snapshot_where("the state again, with the change", |s| {
            s.generation > theirs
                && s.services.len() == 1
                && u64::from(s.services[0].backends[0].weight) == overtaken
        })
        .await;
    }
    assert_eq!(api.events("snapshot-rejected").await, Vec::<String>::new());
    server.stop().await;
}

/// A package was upgraded: control is the new one, the data plane is that of before until it is restarted.
#[tokio::test]
async fn a_data_plane_that_does_not_know_changes_gets_snapshots() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    fake.with(|m| m.wants_all = true);
    let (server, api) = lab.start(WEB).await;
    fake.snapshot_where("the file's state", |s| s.generation == 1).await;
    for weight in 1..4 {
        let one = "/services/web/backends/10.0.0.1:8080/weight?wait_ms=10000";
        let done = api.send("PUT", one, json!({ "weight": weight })).await;
        let in_force = fake.with(|m| m.snapshot.clone()).unwrap();
        assert_eq!(in_force.services[0].backends[0].weight, weight);
        done.ok(200);
    }
    assert_eq!(api.events("dataplane-unreachable").await.len(), 1, "one connection from then on");
    server.stop().await;
}

#[tokio::test]
async fn events_of_the_data_plane_are_merged_once() {
    let lab = Lab::new();
    let mut fake = FakeDataplane::start(&lab.socket());
    let event = |seq: u64| DataplaneEvent {
        seq,
        at_ms: 1_000 + seq,
        kind: "neighbour-moved".into(),
        severity: Severity::Warning,
        message: format!("event {seq}"),
    };
    fake.with(|m| m.events = vec![event(1), event(2)]);
    let (server, api) = lab.start(WEB).await;
    api.event("neighbour-moved").await;
    // The connection breaks, the data plane lives on.
    fake.kill().await;
    api.ready(503).await;
    fake.restart();
    fake.with(|m| {
        m.boot_id -= 1;
        m.events = vec![event(1), event(2), event(3)];
    });
    let end = Instant::now() + Duration::from_secs(5);
    while api.events("neighbour-moved").await.len() < 3 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(api.events("neighbour-moved").await, ["event 1", "event 2", "event 3"]);
    let page = api.get("/events").await.ok(200);
    let merged = page["events"].as_array().unwrap().iter().find(|e| e["kind"] == "neighbour-moved");
    assert_eq!(merged.unwrap()["source"], "dataplane");
    assert_eq!(merged.unwrap()["at_ms"], 1_001);
    server.stop().await;
}

#[tokio::test]
async fn health_is_taken_over_from_the_data_plane() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    // Nobody answers with this status, least of all at this address (TEST-NET-3): checks only ever
    // fail.
    let resources = |check: &str| {
        format!(
            "[[service]]\nname = \"web\"\nvip = \"198.51.100.1\"\nport = 80\nprotocol = \"tcp\"\n\
             mode = \"dr\"\n{check}\n\
             [[service.backend]]\naddress = \"203.0.113.1\"\nport = 80\n"
        )
    };
    let check = "health_check = { kind = \"http\", expected_status = [299], \
                 interval_ms = 60000, timeout_ms = 60000, fall = 3 }";
    let (server, api) = lab.start(&resources("")).await;
    let served = |s: &Snapshot| s.services[0].backends[0].healthy;
    fake.snapshot_where("served unchecked", served).await;
    server.stop().await;

    // Control comes back with a check that has not answered yet: traffic goes on.
    let (server, api2) = lab.start(&resources(check)).await;
    api2.ready(200).await;
    let backend = api2.get("/services/web/backends/203.0.113.1:80").await.ok(200);
    assert_eq!(backend["observed"]["health"], "healthy", "{backend}");
    assert!(
        backend["observed"]["health_reason"].as_str().unwrap().contains("data plane had it"),
        "{backend}"
    );
    assert!(fake.with(|m| served(m.snapshot.as_ref().unwrap())));

    // A backend that nobody knows waits for its first check.
    let body = json!({"address": "203.0.113.2", "port": 80});
    let made = api2.send("POST", "/services/web/backends", body).await.ok(201);
    assert_ne!(made["observed"]["health"], "healthy", "{made}");
    let second = fake.snapshot_where("the new one", |s| s.services[0].backends.len() == 2).await;
    assert!(!second.services[0].backends[1].healthy);
    assert!(second.services[0].backends[0].healthy);
    server.stop().await;
    drop(api);
}

/// An address of this machine outside of 127/8, by which a real backend can be reached.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only picks the source address.
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address.into()),
        _ => None,
    }
}

#[tokio::test]
async fn a_real_backend_comes_goes_and_comes_back() {
    let Some(address) = own_address() else {
        eprintln!("skipped: this machine has no address outside of 127/8");
        return;
    };
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let resources = format!(
        "[[service]]\nname = \"web\"\nvip = \"198.51.100.1\"\nport = {port}\n\
         protocol = \"tcp\"\nmode = \"dr\"\n\
         health_check = {{ interval_ms = 100, timeout_ms = 100, rise = 2, fall = 2 }}\n\
         [[service.backend]]\naddress = \"{address}\"\nport = {port}\n"
    );
    let (server, api) = lab.start(&resources).await;
    let healthy = |s: &Snapshot| s.services[0].backends[0].healthy;
    fake.snapshot_where("healthy", healthy).await;
    drop(listener);
    fake.snapshot_where("unhealthy", |s| !healthy(s)).await;
    let path = format!("/services/web/backends/{address}:{port}");
    let backend = api.get(&path).await.ok(200);
    assert_eq!(backend["observed"]["health"], "unhealthy");
    assert!(
        backend["observed"]["health_since_ms"].as_u64().unwrap() > 1_600_000_000_000,
        "{backend}"
    );
    assert!(!api.events("backend-unhealthy").await.is_empty());
    let _listener = tokio::net::TcpListener::bind((address, port)).await.unwrap();
    fake.snapshot_where("healthy again", healthy).await;

    // Down: not checked, and it waits for a check when it comes back.
    assert_eq!(
        api.post_empty(&format!("{path}/down")).await.ok(200)["observed"]["health"],
        "unchecked"
    );
    fake.snapshot_where("down", |s| !healthy(s)).await;
    api.post_empty(&format!("{path}/up")).await.ok(200);
    fake.snapshot_where("up and checked", healthy).await;
    server.stop().await;
}

#[tokio::test]
async fn health_freezes_while_the_data_plane_is_away() {
    let Some(address) = own_address() else {
        eprintln!("skipped: this machine has no address outside of 127/8");
        return;
    };
    let lab = Lab::new();
    let mut fake = FakeDataplane::start(&lab.socket());
    // By it the kernel reaches the backend, which is on this host.
    fake.with(|m| {
        m.port_address = Some(IpAddr::from([127, 0, 0, 1]));
        m.exception = Some("lo".into());
    });
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let resources = format!(
        "[[service]]\nname = \"web\"\nvip = \"198.51.100.1\"\nport = {port}\n\
         protocol = \"tcp\"\nmode = \"dr\"\n\
         health_check = {{ interval_ms = 500, timeout_ms = 100, rise = 1, fall = 3 }}\n\
         [[service.backend]]\naddress = \"{address}\"\nport = {port}\n"
    );
    let (server, api) = lab.start(&resources).await;
    let healthy = |s: &Snapshot| s.services[0].backends[0].healthy;
    fake.snapshot_where("healthy", healthy).await;
    fake.kill().await;
    api.event("dataplane-unreachable").await;
    // From here on a check would fail, as it would behind a data plane that is gone.
    drop(listener);
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let path = format!("/services/web/backends/{address}:{port}");
    let backend = api.get(&path).await.ok(200)["observed"].clone();
    assert_eq!(backend["health"], "healthy", "frozen");
    let reason = backend["health_reason"].as_str().unwrap();
    assert!(reason.contains("; cannot be asked since 2"), "{reason}");
    assert!(reason.contains("the data plane does not answer"), "{reason}");

    fake.restart();
    let first = fake.snapshot_where("anything", |_| true).await;
    assert!(healthy(&first), "the new data plane starts with the backends of the old one");
    fake.snapshot_where("unhealthy, now that it is asked again", |s| !healthy(s)).await;
    server.stop().await;
}

#[tokio::test]
async fn backends_that_the_data_plane_cannot_send_to_take_no_new_conns() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let states = |s: &Snapshot| s.services[0].backends.iter().map(|b| b.state).collect::<Vec<_>>();
    let first = fake.snapshot_where("the first", |s| !s.services.is_empty()).await;
    assert_eq!(states(&first), [AdminState::Up; 2]);
    let serving = api.get("/services/web").await.ok(200);
    assert_eq!(serving["observed"]["state"], "serving", "{serving}");
    assert_eq!(serving["backends"][0]["observed"]["takes_new_conns"], true, "{serving}");

    let lost = first.services[0].backends[0].address.to_string();
    fake.with(|m| m.set_unreachable(&[&lost], Some("10.0.0.9")));
    let drains = |s: &Snapshot| states(s) == [AdminState::Drain, AdminState::Up];
    let second = fake.snapshot_where("the other takes all", drains).await;
    assert!(second.services[0].backends[0].healthy);
    let web = api.get("/services/web").await.ok(200);
    assert_eq!(web["observed"]["state"], "degraded", "{web}");
    assert_eq!(web["backends"][0]["state"], "up", "configured as before: {web}");
    let observed = &web["backends"][0]["observed"];
    assert_eq!(observed["takes_new_conns"], false, "{web}");
    assert_eq!(observed["reason"], "next hop 10.0.0.9 does not answer the data plane", "{web}");
    let event = api.event("service-degraded").await;
    assert!(event.contains("1 behind a next hop that does not answer"), "{event}");
    let warnings = api.ready(200).await.ok(200)["warnings"].to_string();
    assert!(warnings.contains("service web is degraded: 1 of 2 backends"), "{warnings}");

    // Nobody else is left: the next hop may be back before we know.
    let other = first.services[0].backends[1].address.to_string();
    fake.with(|m| m.set_unreachable(&[&lost, &other], None));
    fake.snapshot_where("both are tried", |s| states(s) == [AdminState::Up; 2]).await;
    let event = api.event("service-down").await;
    assert!(event.contains("none of 2 backends takes new conns: 2 without a route"), "{event}");

    fake.with(|m| m.set_unreachable(&[], None));
    let event = api.event("service-serving").await;
    assert_eq!(event, "service web is serving");
    server.stop().await;
}

#[tokio::test]
async fn a_service_that_serves_nobody_says_so_everywhere() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    fake.snapshot_where("the first", |s| !s.services.is_empty()).await;
    let id = |n: usize| {
        let snapshot = fake.with(|m| m.snapshot.clone().unwrap());
        snapshot.services[0].backends[n].id().to_string()
    };
    for n in [0, 1] {
        let path = format!("/services/web/backends/{}/drain", id(n));
        assert!(api.post_empty(&path).await.status.is_success());
    }
    let reason = "none of 2 backends takes new conns: 2 draining";
    assert_eq!(api.event("service-down").await, format!("service web is down: {reason}"));
    let observed = api.get("/services/web").await.ok(200)["observed"].clone();
    assert_eq!((&observed["state"], &observed["reason"]), (&json!("down"), &json!(reason)));
    let status = api.get("/status").await.ok(200);
    let expected = json!([{"service": "web", "state": "down", "reason": reason}]);
    assert_eq!(status["not_serving"], expected);
    let warnings = api.ready(200).await.ok(200)["warnings"].to_string();
    assert!(warnings.contains(&format!("service web is down: {reason}")), "{warnings}");
    let metrics = api.get("//metrics").await.ok(200);
    let metrics = metrics.as_str().unwrap();
    for line in [
        "sluice_service_state{service=\"web\",state=\"down\"} 1",
        "sluice_service_state{service=\"web\",state=\"serving\"} 0",
        "sluice_service_state{service=\"web\",state=\"degraded\"} 0",
        &format!("sluice_backend_takes_new_conns{{service=\"web\",backend=\"{}\"}} 0", id(0)),
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert_eq!(api.events("service-down").await.len(), 1, "once");
    server.stop().await;
}

/// What is observed of a backend on this host that falls silent, behind the data plane's port or past it,
/// while this befalls the data plane.
async fn silent_backend_while(
    befalls: impl FnOnce(&mut Memory),
    exception: Option<&str>,
) -> Option<Value> {
    let address = own_address()?;
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    fake.with(|m| {
        m.port_address = Some(IpAddr::from([127, 0, 0, 1]));
        m.exception = exception.map(str::to_owned);
    });
    let listener = std::net::TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (silent, is_silent) = tokio::sync::watch::channel(false);
    let backend = tokio::spawn(answer_until(listener, is_silent));
    let resources = format!(
        "[[service]]\nname = \"web\"\nvip = \"198.51.100.1\"\nport = {port}\n\
         protocol = \"tcp\"\nmode = \"dr\"\n\
         health_check = {{ kind = \"http\", interval_ms = 200, timeout_ms = 100, fall = 2 }}\n\
         [[service.backend]]\naddress = \"{address}\"\nport = {port}\n"
    );
    let (server, api) = lab.start(&resources).await;
    fake.snapshot_where("healthy", |s| s.services[0].backends[0].healthy).await;
    silent.send(true).unwrap();
    fake.with(befalls);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let path = format!("/services/web/backends/{address}:{port}");
    let seen = api.get(&path).await.ok(200)["observed"].clone();
    server.stop().await;
    backend.abort();
    Some(seen)
}

/// An HTTP server that takes requests and leaves them without an answer once it is told to.
async fn answer_until(listener: std::net::TcpListener, silent: tokio::sync::watch::Receiver<bool>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut waiting = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1_024]).await;
        if *silent.borrow() {
            waiting.push(stream);
        } else {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    }
}

#[tokio::test]
async fn silence_while_the_data_plane_hangs_is_held_against_nobody_behind_it() {
    let (Some(behind), Some(past)) = tokio::join!(
        silent_backend_while(|m| m.silent = true, Some("lo")),
        silent_backend_while(|m| m.silent = true, None),
    ) else {
        return eprintln!("skipped: this machine has no address outside of 127/8");
    };
    assert_eq!(behind["health"], "healthy", "{behind}");
    assert_eq!(behind["last_check"]["result"], "undecided", "{behind}");
    assert!(behind["health_reason"].as_str().unwrap().contains("cannot be asked"), "{behind}");
    assert_eq!(past["health"], "unhealthy", "{past}");
    assert_eq!(past["last_check"]["reason"], "no answer within 100 ms", "{past}");
}

#[tokio::test]
async fn silence_while_a_ports_link_is_down_is_held_against_nobody_behind_it() {
    let (Some(behind), Some(past)) = tokio::join!(
        silent_backend_while(|m| m.link_is_down = true, Some("lo")),
        silent_backend_while(|m| m.link_is_down = true, None),
    ) else {
        return eprintln!("skipped: this machine has no address outside of 127/8");
    };
    assert_eq!(behind["health"], "healthy", "{behind}");
    assert_eq!(behind["last_check"]["result"], "undecided", "{behind}");
    assert_eq!(behind["last_check"]["reason"], "the link of port wan is down", "{behind}");
    assert_eq!(past["health"], "unhealthy", "{past}");
}

#[tokio::test]
async fn before_the_data_plane_is_met_only_this_host_is_asked() {
    let Some(address) = own_address() else {
        return eprintln!("skipped: this machine has no address outside of 127/8");
    };
    let lab = Lab::new();
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let resources = format!(
        "[[service]]\nname = \"web\"\nvip = \"198.51.100.1\"\nport = {port}\n\
         protocol = \"tcp\"\nmode = \"dr\"\n\
         health_check = {{ interval_ms = 60000, timeout_ms = 100 }}\n\
         [[service.backend]]\naddress = \"{address}\"\nport = {port}\n\
         [[service.backend]]\naddress = \"203.0.113.1\"\nport = {port}\n"
    );
    let (server, api) = lab.start(&resources).await;
    let far = format!("/services/web/backends/203.0.113.1:{port}");
    let near = format!("/services/web/backends/{address}:{port}");
    let observed = async |path: &str| api.get(path).await.ok(200)["observed"].clone();
    let start = Instant::now();
    let (mut seen, mut host) = (Value::Null, Value::Null);
    // Both have been tried.
    while (seen["last_check"].is_null() || host["last_check"].is_null())
        && start.elapsed() < Duration::from_secs(5)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
        (seen, host) = (observed(&far).await, observed(&near).await);
    }
    assert_eq!(seen["health"], "unknown", "{seen}");
    assert!(seen["health_reason"].as_str().unwrap().contains("was not met yet"), "{seen}");
    assert_eq!(seen["last_check"]["result"], "undecided", "{seen}");
    assert_eq!(host["health"], "healthy", "{host}");

    // Once it is met, who waits is asked at once, not a minute later: here in vain.
    let _fake = FakeDataplane::start(&lab.socket());
    let met = Instant::now();
    while observed(&far).await["last_check"]["result"] == "undecided"
        && met.elapsed() < Duration::from_secs(5)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(met.elapsed() < Duration::from_secs(2), "{:?}", met.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn a_data_plane_of_another_version_is_told() {
    let lab = Lab::new();
    let listener = tokio::net::UnixListener::bind(lab.socket()).unwrap();
    let peer = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 1_024];
            let _ = stream.read(&mut question).await.unwrap();
            let answer = br#"{"version":99,"message":{"response":"from-the-future"}}"#;
            let mut frame = (answer.len() as u32).to_be_bytes().to_vec();
            frame.extend_from_slice(answer);
            stream.write_all(&frame).await.unwrap();
        }
    });
    let (server, api) = lab.start(WEB).await;
    let event = api.event("dataplane-unreachable").await;
    assert!(event.contains("version 99") && event.contains("install the same version"), "{event}");
    assert!(api.ready(503).await.problem(503).contains("version 99"));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(api.events("dataplane-unreachable").await.len(), 1, "told once");
    server.stop().await;
    peer.abort();
}
