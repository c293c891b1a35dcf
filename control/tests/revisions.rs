//! Former states over the API: who changed what and why, what differs, and the way back.

mod common;

use common::{Api, FakeDataplane, Lab, WEB};
use serde_json::{Value, json};

const ONE: &str = "/services/web/backends/10.0.0.1:8080";

async fn weight(api: &Api, weight: u16, reason: &str) {
    let path = format!("{ONE}/weight?reason={reason}");
    api.send("PUT", &path, json!({ "weight": weight })).await.ok(200);
}

/// Control with `web` and four revisions: the file's, two weights and a pool.
async fn with_history(lab: &Lab) -> (FakeDataplane, sluice_control::server::Server, Api) {
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    fake.snapshot_where("web", |s| s.services.len() == 1).await;
    weight(&api, 7, "a%20new%20disk").await;
    weight(&api, 9, "it%20is%20back").await;
    api.send("POST", "/pools", json!({"name": "p", "addresses": ["10.0.0.9"]})).await.ok(201);
    (fake, server, api)
}

fn numbers(answer: &Value) -> Vec<u64> {
    let all = answer["revisions"].as_array().unwrap().iter();
    all.map(|revision| revision["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn each_change_is_told_with_who_when_what_and_why() {
    let lab = Lab::new();
    let (_fake, server, api) = with_history(&lab).await;
    let all = api.get("/revisions").await.ok(200);
    assert_eq!(numbers(&all), [4, 3, 2, 1]);
    let second = &all["revisions"][2];
    assert_eq!(second["what"], "backend 10.0.0.1:8080 of web has weight 7 now");
    assert_eq!(
        (&second["kind"], &second["reason"]),
        (&json!("backend-changed"), &json!("a new disk"))
    );
    assert_eq!(second["actor"], json!({"kind": "api", "address": "127.0.0.1"}));
    assert!(second["at_ms"].as_u64().unwrap() > 1_700_000_000_000);
    let first = &all["revisions"][3];
    assert_eq!(first["actor"], json!({"kind": "file", "read": "start"}));
    assert_eq!(first.get("reason"), None);
    assert_eq!(numbers(&api.get("/revisions?before=4&limit=2").await.ok(200)), [3, 2]);
    assert_eq!(numbers(&api.get("/revisions?before=1").await.ok(200)), [0; 0]);

    let detail = api.get("/revisions/3").await.ok(200);
    let changed = json!([{"kind": "service", "name": "web", "change": "changed", "fields":
        [{"field": "backends[10.0.0.1:8080].weight", "from": 7, "to": 9}]}]);
    assert_eq!((&detail["changes"], &detail["reason"]), (&changed, &json!("it is back")));
    assert_eq!(api.get("/revisions/1").await.ok(200).get("changes"), None);

    // It is all there after a restart.
    server.stop().await;
    let (server, api) = lab.start(WEB).await;
    assert_eq!(api.get("/revisions").await.ok(200), all);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_with_what_can() {
    let lab = Lab::new();
    let (_fake, server, api) = with_history(&lab).await;
    let told = api.get("/revisions/5").await.problem(404);
    assert!(told.contains("there is no revision 5") && told.contains("4, 3, 2, 1"), "{told}");
    api.get("/revisions/0/diff").await.problem(404);
    api.get("/revisions/1/diff?to=9").await.problem(404);
    api.post_empty("/revisions/9/rollback").await.problem(404);
    api.get("/export?revision=9").await.problem(404);
    for (path, expected) in [
        ("/revisions/x", "revision is \"x\": expected the number of a revision"),
        ("/revisions?limit=0", "limit is 0: expected 1 to 1000"),
        ("/revisions?befor=1", "befor is \"1\": expected a known parameter: before, limit"),
        ("/revisions/1/diff?from=1&to=2", "expected one of from and to"),
        ("/export?format=yaml", "format is \"yaml\": expected json or toml"),
    ] {
        let told = api.get(path).await.problem(400);
        assert!(told.contains(expected), "{path}: {told}");
    }
    for reason in ["", "a%0Ab", "a%E2%80%AEb", "a%E2%80%A8b", &"x".repeat(201)] {
        let path = format!("{ONE}/weight?reason={reason}");
        let told = api.send("PUT", &path, json!({"weight": 1})).await.problem(400);
        assert!(
            told.contains("expected 1 to 200 characters, none of them a control one"),
            "{told}"
        );
    }
    assert_eq!(numbers(&api.get("/revisions").await.ok(200)).len(), 4, "nothing was changed");
    server.stop().await;
}

#[tokio::test]
async fn any_two_are_compared_and_any_one_comes_back() {
    let lab = Lab::new();
    let (fake, server, api) = with_history(&lab).await;
    let weights = |from: u64, to: u64| {
        json!({"kind": "service", "name": "web", "change": "changed", "fields":
            [{"field": "backends[10.0.0.1:8080].weight", "from": from, "to": to}]})
    };
    let pool = |change: &str| json!({"kind": "pool", "name": "p", "change": change});
    for (path, from, to, changes) in [
        ("/revisions/1/diff", 1, 4, json!([pool("created"), weights(100, 9)])),
        ("/revisions/1/diff?to=2", 1, 2, json!([weights(100, 7)])),
        ("/revisions/1/diff?from=4", 4, 1, json!([weights(9, 100), pool("deleted")])),
        ("/revisions/3/diff?to=3", 3, 3, json!([])),
    ] {
        let mut told = api.get(path).await.ok(200);
        told["changes"].as_array_mut().unwrap().sort_by_key(|change| change["kind"].to_string());
        let mut changes = changes;
        changes.as_array_mut().unwrap().sort_by_key(|change| change["kind"].to_string());
        assert_eq!(told, json!({"from": from, "to": to, "changes": changes}), "{path}");
    }

    let before = api.get("/services").await;
    let would = api.post_empty("/revisions/2/rollback?dry_run=true").await.ok(200);
    assert_eq!(would["changes"].as_array().unwrap().len(), 2, "{would}");
    assert_eq!(api.get("/services").await.body, before.body, "nothing is changed");
    let tag = ("if-match", "\"3\"");
    api.raw("POST", "/revisions/2/rollback", &[common::CLIENT, tag], "").await.problem(412);

    let tag = ("if-match", "\"4\"");
    let path = "/revisions/2/rollback?reason=as%20before";
    let done = api.raw("POST", path, &[common::CLIENT, tag], "").await;
    assert_eq!(done.header("etag"), "\"5\"");
    assert_eq!(done.ok(200)["change"]["outcome"], "applied");
    assert_eq!(api.get(ONE).await.ok(200)["weight"], 7);
    api.get("/pools/p").await.problem(404);
    fake.snapshot_where("the former one", |s| s.services[0].backends[0].weight == 7).await;
    let made = api.get("/revisions/5").await.ok(200);
    assert_eq!((&made["kind"], &made["reason"]), (&json!("rollback"), &json!("as before")));
    assert_eq!(made["what"], "rolled back to revision 2");
    assert!(api.event("service-changed").await.contains("weight"));
    // It is undone as it was done, and what is so already makes no revision.
    api.post_empty("/revisions/4/rollback").await.ok(200);
    api.get("/pools/p").await.ok(200);
    let same = api.post_empty("/revisions/6/rollback").await;
    assert_eq!(same.header("etag"), "\"6\"");
    assert_eq!(same.ok(200)["changes"], json!([]));
    server.stop().await;
}

/// What is exported makes the same state anywhere, in both forms, also of a former revision.
#[tokio::test]
async fn what_is_exported_is_applied_unchanged() {
    let lab = Lab::new();
    let (_fake, server, api) = with_history(&lab).await;
    let exported = api.get("/export").await;
    assert_eq!(exported.header("etag"), "\"4\"");
    let state = exported.ok(200);
    let applied = api.send("POST", "/apply", state.clone()).await.ok(200);
    let changes = applied["changes"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["change"] == "unchanged"), "{changes:?}");

    let toml = api.get("/export?format=toml").await;
    assert_eq!(toml.header("content-type"), "application/toml");
    let text = toml.body.as_str().unwrap().to_owned();
    assert!(text.contains("[[service.backend]]"), "{text}");
    let elsewhere = Lab::new();
    let (other, other_api) = elsewhere.start(&text).await;
    assert_eq!(other_api.get("/export").await.ok(200), state);
    other.stop().await;

    let empty = Lab::new();
    let (nothing, nothing_api) = empty.start("").await;
    let text = nothing_api.get("/export?format=toml").await.body;
    assert_eq!(
        text.as_str().unwrap_or_default(),
        "",
        "no key that would be one of the table before"
    );
    nothing.stop().await;

    let former = api.get("/export?revision=2").await.ok(200);
    assert_eq!(former["services"][0]["backends"][0]["weight"], 7);
    assert_eq!(former["pools"].as_array().unwrap().len(), 1);
    server.stop().await;
}
