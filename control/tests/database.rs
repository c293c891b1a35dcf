//! The database and the data plane: nothing that clients are served by goes away because a file
//! was lost, and a database that cannot be written is told.

mod common;

use std::fs;
use std::time::Duration;

use common::{Api, CLIENT, FakeDataplane, Lab, WEB};
use serde_json::{Value, json};
use sluice_api::Snapshot;
use sluice_control::server;
use sluice_control::store::{self, Mended};

const ONE: &str = "/services/web/backends/10.0.0.1:8080";

fn web() -> Value {
    json!({
        "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
        "backends": [{"address": "10.0.0.1", "port": 80}]
    })
}

fn has_web(snapshot: &Snapshot) -> bool {
    snapshot.services.iter().any(|s| s.name == "web")
}

/// Control with a file without services, one made by the API, and a data plane that has it.
async fn served(lab: &Lab) -> (FakeDataplane, server::Server, Api) {
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start("").await;
    api.send("POST", "/services", web()).await.ok(201);
    fake.snapshot_where("web", has_web).await;
    (fake, server, api)
}

/// Held: the reason is told, and the data plane was asked for nothing.
async fn held(api: &Api, fake: &FakeDataplane) {
    let applies = fake.with(|m| m.applies.len());
    assert!(api.event("publish-held").await.contains("web (198.51.100.1:80/tcp)"));
    let problem = api.ready(503).await.problem(503);
    assert!(
        problem.contains("publishing is held") && problem.contains("sluice confirm"),
        "{problem}"
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(fake.with(|m| m.applies.len()), applies);
    assert!(fake.with(|m| m.snapshot.as_ref().is_some_and(has_web)));
}

/// A database that is lost is no first start: its backup is put in its place by an operator, and what that
/// lacks is not taken from the data plane.
#[tokio::test]
async fn a_lost_database_comes_back_from_its_backup() {
    let lab = Lab::new();
    let (fake, server, api) = served(&lab).await;
    store::backup(&lab.database(), None).unwrap();
    let other = web().to_string().replace("web", "late").replace("100.1", "100.2");
    api.send("POST", "/services", serde_json::from_str(&other).unwrap()).await.ok(201);
    fake.snapshot_where("both", |s| s.services.len() == 2).await;
    server.stop().await;
    fs::remove_file(lab.database()).unwrap();
    let error = server::start(&lab.config("")).await.err().unwrap().to_string();
    assert!(error.contains("it is missing, and a backup is there"), "{error}");

    let Mended::Restored { found, aside: None } = store::repair(&lab.database()).unwrap() else {
        panic!("not restored");
    };
    assert_eq!(found.newest, 2);
    let (server, api) = lab.start("").await;
    api.get("/services/web").await.ok(200);
    api.get("/services/late").await.problem(404);
    assert!(api.event("publish-held").await.contains("late (198.51.100.2:80/tcp)"));
    assert!(fake.with(|m| m.snapshot.as_ref().is_some_and(has_web)));
    server.stop().await;
}

/// The state file of a version before is taken over once, and stays as a way back.
#[tokio::test]
async fn the_state_file_of_a_version_before_is_taken_over() {
    let lab = Lab::new();
    let former = include_bytes!("../src/store/former.json");
    fs::write(lab.path("state.json"), former).unwrap();
    let two = "/services/web/backends/10.0.0.2:8080";
    let taken = async |api: &Api| api.get(two).await.ok(200)["weight"].as_u64().unwrap();
    let checked = server::check(&lab.config(WEB)).unwrap();
    assert!(checked[0].contains("taken over from the state file"), "{checked:?}");
    assert!(!lab.database().exists(), "nothing is touched");
    let (server, api) = lab.start(WEB).await;
    assert_eq!(taken(&api).await, 51, "set at run time");
    assert_eq!(api.get("/revisions/4").await.ok(200)["kind"], "taken-over");
    assert!(api.event("state-taken-over").await.contains("state.json"));
    api.send("PUT", "/services/web/backends/10.0.0.2:8080/weight", json!({"weight": 52}))
        .await
        .ok(202);
    server.stop().await;
    assert_eq!(fs::read(lab.path("state.json")).unwrap(), former, "it is left as it is");
    let (server, api) = lab.start(WEB).await;
    assert_eq!(taken(&api).await, 52, "taken over once");
    assert!(api.events("state-taken-over").await.is_empty());
    server.stop().await;
}

/// The database and its backup are gone, with a TOML file without services: until an operator's word the
/// data plane keeps what it has, also over a restart of control.
#[tokio::test]
async fn an_empty_state_does_not_replace_a_full_one() {
    let lab = Lab::new();
    let (fake, server, _) = served(&lab).await;
    server.stop().await;
    lab.forget_database();

    for _ in 0..2 {
        let (server, api) = lab.start("").await;
        held(&api, &fake).await;
        server.stop().await;
    }
    let (server, api) = lab.start("").await;
    held(&api, &fake).await;
    // A change that leaves the service missing is no word about it.
    api.send("POST", "/pools", json!({"name": "p", "addresses": ["10.0.0.9"]})).await.ok(202);
    held(&api, &fake).await;
    server.stop().await;
    let (server, api) = lab.start("").await;
    held(&api, &fake).await;
    // Confirmed is the state that was read, and no other.
    let tag = api.get("/services").await.header("etag").to_owned();
    let confirm =
        async |tag: &str| api.raw("POST", "/confirm", &[CLIENT, ("if-match", tag)], "").await;
    let problem = confirm("\"99\"").await.problem(412);
    assert!(problem.contains(&format!("the state has the tag {tag} now")), "{problem}");
    held(&api, &fake).await;
    confirm(tag.as_str()).await.ok(200);
    fake.snapshot_where("an empty one", |s| s.services.is_empty()).await;
    api.event("state-confirmed").await;
    api.ready(200).await;
    server.stop().await;
}

/// So is one that is only smaller, and putting the service back is a word too.
#[tokio::test]
async fn a_smaller_state_does_not_replace_a_full_one() {
    let lab = Lab::new();
    let (fake, server, _) = served(&lab).await;
    server.stop().await;
    lab.forget_database();
    let other = WEB.replace("\"web\"", "\"other\"").replace("198.51.100.1", "198.51.100.7");
    let (server, api) = lab.start(&other).await;
    held(&api, &fake).await;
    api.send("POST", "/services", web()).await.ok(201);
    let both = fake.snapshot_where("both", |s| s.services.len() == 2).await;
    assert!(has_web(&both));
    api.ready(200).await;
    // From here on whoever deletes knows what they do.
    api.delete("/services/web").await;
    fake.snapshot_where("one", |s| !has_web(s)).await;
    server.stop().await;
}

/// What operators take away goes away: by the API, by the file, and over a restart in between.
#[tokio::test]
async fn an_operators_word_is_not_asked_for_twice() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    fake.snapshot_where("web", has_web).await;
    api.delete("/services/web").await;
    fake.snapshot_where("none", |s| s.services.is_empty()).await;
    api.ready(200).await;
    api.send("POST", "/services", web()).await.ok(201);
    fake.snapshot_where("web", has_web).await;
    // In the file too: one service of two leaves it.
    server.stop().await;
    let other = WEB.replace("\"web\"", "\"other\"").replace("198.51.100.1", "198.51.100.2");
    let (server, api) = lab.start(&other).await;
    fake.snapshot_where("other", |s| s.services.len() == 1 && !has_web(s)).await;
    api.ready(200).await;
    assert!(api.events("publish-held").await.is_empty());
    server.stop().await;
}

/// An empty state that is good, as from an old backup, is no word either.
#[tokio::test]
async fn an_empty_backup_is_held() {
    let lab = Lab::new();
    let (server, _) = lab.start("").await;
    server.stop().await;
    let empty = store::backup(&lab.database(), Some(&lab.path("empty.db"))).unwrap();
    let (fake, server, _) = served(&lab).await;
    server.stop().await;
    lab.forget_database();
    fs::copy(empty, lab.database()).unwrap();
    let (server, api) = lab.start("").await;
    held(&api, &fake).await;
    server.stop().await;
}

#[tokio::test]
async fn a_newer_format_refuses_to_start() {
    let lab = Lab::new();
    let (_, server, _) = served(&lab).await;
    server.stop().await;
    let connection = rusqlite::Connection::open(lab.database()).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let newer = fs::read(lab.database()).unwrap();
    let error = server::start(&lab.config("")).await.err().unwrap().to_string();
    assert!(error.contains("format 2, this program reads format 1"), "{error}");
    assert!(error.contains("Install that version, or put a backup"), "{error}");
    let error = server::check(&lab.config("")).unwrap_err().to_string();
    assert!(error.contains("format 2"), "--check says the same: {error}");
    assert_eq!(fs::read(lab.database()).unwrap(), newer, "nothing is touched");
}

/// Failed writes are told of everywhere until one succeeds.
#[tokio::test]
async fn failed_writes_are_seen() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    fake.snapshot_where("web", has_web).await;
    let weight = |weight: u16| {
        let body = json!({ "weight": weight });
        let path = format!("{ONE}/weight");
        let api = &api;
        async move { api.send("PUT", &path, body).await }
    };
    weight(5).await.ok(200);
    let elsewhere = lab.path("elsewhere.db");
    fs::rename(lab.database(), &elsewhere).unwrap();
    for _ in 0..40 {
        weight(7).await.problem(500);
    }
    let told = api.events("state-not-written").await;
    assert!(told[0].contains("it was removed or replaced while"), "{told:?}");
    assert!(told.len() <= 21, "told within limits: {}", told.len());
    let warnings = api.ready(200).await.body["warnings"].to_string();
    assert!(warnings.contains("the last change could not be kept"), "{warnings}");
    let status = api.get("/status").await.ok(200);
    assert!(status["control"]["database_error"].as_str().unwrap().contains("removed or"));
    let metrics = api.get("//metrics").await.body.as_str().unwrap().to_owned();
    assert!(metrics.contains("\nsluice_state_write_failures_total 40\n"), "{metrics}");
    assert!(metrics.contains("\nsluice_state_write_failing 1\n"), "{metrics}");
    assert!(!lab.database().exists(), "not made anew");

    fs::rename(&elsewhere, lab.database()).unwrap();
    weight(7).await.ok(200);
    api.event("state-written").await;
    assert_eq!(api.ready(200).await.body["warnings"], json!([]));
    let metrics = api.get("//metrics").await.body.as_str().unwrap().to_owned();
    assert!(metrics.contains("\nsluice_state_write_failing 0\n"), "{metrics}");
    server.stop().await;
}
