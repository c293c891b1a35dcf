//! The HTTP API over a real socket: what it does, and every way to say no.

mod common;

use std::time::{Duration, Instant};

use common::{Answer, Api, CLIENT, FakeDataplane, Lab, WEB};
use serde_json::{Value, json};
use sluice_api::stats::Limits;

fn dr(name: &str, vip: &str) -> Value {
    json!({
        "name": name, "vip": vip, "port": 53, "protocol": "udp", "mode": "dr",
        "backends": [{"address": "10.0.0.1", "port": 53}]
    })
}

#[tokio::test]
async fn services_are_made_read_changed_and_deleted() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;

    let made = api.send("POST", "/services", dr("dns", "198.51.100.2")).await;
    assert_eq!(made.header("location"), "/api/v1/services/dns");
    let tag = made.header("etag").to_owned();
    assert_eq!(api.get("/services/dns").await.header("etag"), tag);
    assert_eq!(api.get("/services").await.header("etag"), "\"2\"", "the state's version");
    let made = made.ok(201);
    assert_eq!(made["scheduler"], "maglev");
    assert_eq!(made["backends"][0]["weight"], 100);
    assert_eq!(made["backends"][0]["observed"]["health"], "unchecked");

    let list = api.get("/services").await.ok(200);
    let names: Vec<_> = list["services"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["web", "dns"]);

    let patched = api.send("PATCH", "/services/dns", json!({"scheduler": "wrr"})).await.ok(200);
    assert_eq!(patched["scheduler"], "wrr");
    assert_eq!(patched["backends"].as_array().unwrap().len(), 1);
    let patched = api.send("PATCH", "/services/dns", json!({"scheduler": null})).await.ok(200);
    assert_eq!(patched["scheduler"], "maglev");

    // The name may be left to the URL.
    let mut other = dr("dns", "198.51.100.3");
    other.as_object_mut().unwrap().remove("name");
    let mut replaced = api.send("PUT", "/services/dns", other).await.ok(200);
    assert_eq!(replaced["vip"], "198.51.100.3");
    let change = replaced.as_object_mut().unwrap().remove("change").unwrap();
    assert_eq!(change["outcome"], "applied");
    assert_eq!(api.get("/services/dns").await.ok(200), replaced);

    let gone = api.delete("/services/dns").await;
    assert_eq!(gone.status, 200);
    assert_eq!(gone.body, json!({"change": {"outcome": "applied", "generation": 6}}));
    api.get("/services/dns").await.problem(404);
    let kinds = ["service-created", "service-changed", "service-deleted"];
    for kind in kinds {
        assert!(!api.events(kind).await.is_empty(), "{kind}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_read_can_be_sent_back() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let check = json!({"health_check": {"kind": "http"}, "max_conns": 9, "no_conn": "drop"});
    api.send("PATCH", "/services/web", check).await.ok(200);
    let drained = json!({"addresses": ["10.0.0.250", "10.0.0.251"], "drained": ["10.0.0.251"]});
    api.send("PATCH", "/pools/local", drained).await.ok(200);
    let before = api.get("/services/web").await;
    for path in ["/services/web", "/services/web/backends/10.0.0.2:8080", "/pools/local"] {
        let version = api.get("/services").await.header("etag").to_owned();
        let read = api.get(path).await;
        let tag = read.header("etag").to_owned();
        let read = read.ok(200);
        assert!(read["observed"].is_object(), "{read}");
        for method in ["PUT", "PATCH"] {
            let written = api.send(method, path, read.clone()).await;
            assert_eq!(written.header("etag"), tag, "{method} {path}: no change");
            assert!(written.ok(200)["observed"].is_object());
        }
        assert_eq!(api.get("/services").await.header("etag"), version, "{path}: no change");
    }
    // The elements of lists are the same as what is read one by one, and make new ones.
    let lists = [
        ("/services", "services", "/services/web"),
        ("/services/web/backends", "backends", "/services/web/backends/10.0.0.1:8080"),
        ("/pools", "pools", "/pools/local"),
    ];
    for (list, name, one) in lists {
        assert_eq!(api.get(list).await.ok(200)[name][0], api.get(one).await.ok(200));
    }
    let mut service = before.ok(200);
    assert_eq!(service["observed"]["backends_healthy"], 2, "both served unchecked before");
    (service["name"], service["vip"]) = (json!("copy"), json!("198.51.100.9"));
    let copy = api.send("POST", "/services", service.clone()).await.ok(201);
    assert_eq!(copy["backends"].as_array().unwrap().len(), 2);
    let users = api.get("/pools/local").await.ok(200)["observed"]["used_by"].clone();
    assert_eq!(users, json!(["web", "copy"]));
    let mut backend = service["backends"][0].clone();
    backend["port"] = json!(8081);
    api.send("POST", "/services/web/backends", backend).await.ok(201);
    // An answer to a change is a body as well.
    api.send("PUT", "/services/copy", copy).await.ok(200);
    let told = api.events("service-changed").await;
    assert!(told.iter().all(|message| !message.contains("observed")), "{told:?}");
    server.stop().await;
}

#[tokio::test]
async fn backends_and_pools_are_made_read_changed_and_deleted() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let backends = "/services/web/backends";

    let body = json!({"address": "10.0.0.3", "port": 8080, "zone": "a"});
    let made = api.send("POST", backends, body).await;
    assert_eq!(made.header("location"), "/api/v1/services/web/backends/10.0.0.3:8080");
    made.ok(201);
    let list = api.get(backends).await.ok(200);
    assert_eq!(list["backends"].as_array().unwrap().len(), 3);

    let one = format!("{backends}/10.0.0.3:8080");
    let weighed = api.send("PUT", &format!("{one}/weight"), json!({"weight": 7})).await.ok(200);
    assert_eq!((&weighed["weight"], &weighed["zone"]), (&json!(7), &json!("a")));
    for (action, state) in [("drain", "drain"), ("down", "down"), ("up", "up")] {
        let done = api.post_empty(&format!("{one}/{action}")).await.ok(200);
        assert_eq!(done["state"], state);
    }
    let patched = api.send("PATCH", &one, json!({"zone": null, "weight": 0})).await.ok(200);
    assert_eq!((&patched["weight"], &patched["zone"]), (&json!(0), &Value::Null));
    let mut replaced = api.send("PUT", &one, json!({"weight": 65_535})).await.ok(200);
    assert_eq!(replaced["weight"], 65_535);
    replaced.as_object_mut().unwrap().remove("change");
    assert_eq!(api.get(&one).await.ok(200), replaced);
    assert_eq!(api.delete(&one).await.status, 200);
    assert!(api.get(&one).await.problem(404).contains("10.0.0.1:8080, 10.0.0.2:8080"));

    let pool = json!({"name": "more", "addresses": ["10.0.0.251"]});
    let made = api.send("POST", "/pools", pool).await;
    assert_eq!(made.header("location"), "/api/v1/pools/more");
    made.ok(201);
    let patch = json!({"addresses": ["10.0.0.252", "10.0.0.253"]});
    assert_eq!(
        api.send("PATCH", "/pools/more", patch.clone()).await.ok(200)["addresses"],
        patch["addresses"]
    );
    let path = "/pools/more/addresses/10.0.0.253";
    let first = api.post_empty(&format!("{path}/drain")).await;
    let again = api.post_empty(&format!("{path}/drain")).await;
    assert_eq!(first.header("etag"), again.header("etag"));
    assert_eq!(first.ok(200)["drained"], json!(["10.0.0.253"]));
    let all = api.post_empty("/pools/more/addresses/10.0.0.252/drain").await.problem(422);
    assert!(all.contains("pools[more].drained is all 2 addresses: expected fewer"), "{all}");
    let unknown = api.post_empty("/pools/more/addresses/10.0.0.9/drain").await.problem(404);
    assert!(unknown.contains("10.0.0.252, 10.0.0.253"), "{unknown}");
    api.post_empty("/pools/more/addresses/ten/drain").await.problem(400);
    assert_eq!(api.post_empty(&format!("{path}/up")).await.ok(200)["drained"], Value::Null);
    api.send("PUT", "/pools/more", json!({"addresses": ["10.0.0.254"]})).await.ok(200);
    assert_eq!(api.get("/pools").await.ok(200)["pools"].as_array().unwrap().len(), 2);
    assert_eq!(api.delete("/pools/more").await.status, 200);
    assert!(api.delete("/pools/local").await.problem(409).contains("used by web"));
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_change_anything_makes_no_version() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let path = "/services/web/backends/10.0.0.1:8080";
    let first = api.post_empty(&format!("{path}/drain")).await;
    let second = api.post_empty(&format!("{path}/drain")).await;
    assert_eq!(first.header("etag"), second.header("etag"));
    assert_eq!(api.events("backend-drained").await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_conflicting_update_is_refused() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let read = api.get("/services/web").await;
    let etag = read.header("etag").to_owned();
    let path = "/services/web/backends/10.0.0.1:8080/weight";
    let put = |weight: u64, etag: String| {
        let api = &api;
        async move {
            let headers = [("content-type", "application/json"), ("if-match", etag.as_str())];
            api.raw("PUT", path, &headers, json!({ "weight": weight }).to_string()).await
        }
    };
    let first = put(1, etag.clone()).await;
    let newer = first.header("etag").to_owned();
    first.ok(200);
    let refused = put(2, etag).await.problem(412);
    let says = format!("backend 10.0.0.1:8080 of service web has the tag {newer} now");
    assert!(refused.contains(&says), "{refused}");
    assert_eq!(api.get("/services/web").await.ok(200)["backends"][0]["weight"], 1);
    put(3, newer).await.ok(200);
    put(4, "*".into()).await.ok(200);
    assert!(put(5, "17".into()).await.problem(400).contains("If-Match is 17: expected an ETag"));
    let stale = [CLIENT, ("if-match", "\"1\"")];
    api.raw("DELETE", "/services/web", &stale, "").await.problem(412);
    server.stop().await;
}

/// Two operators that change different resources do not get in each other's way.
#[tokio::test]
async fn changes_of_different_resources_do_not_conflict() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.send("POST", "/services", dr("dns", "198.51.100.2")).await.ok(201);
    let tag = async |path: &str| api.get(path).await.header("etag").to_owned();
    let change = async |path: &str, tag: &str, body: Value| {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        api.raw("PATCH", path, &headers, body.to_string()).await
    };
    let (one, two) =
        ("/services/web/backends/10.0.0.1:8080", "/services/web/backends/10.0.0.2:8080");
    let (web, dns) = (tag("/services/web").await, tag("/services/dns").await);
    let (of_one, of_two) = (tag(one).await, tag(two).await);
    let (pool, all) = (tag("/pools/local").await, tag("/services").await);

    let changed = change(one, &of_one, json!({"weight": 5})).await;
    assert_ne!(changed.header("etag"), of_one);
    assert_eq!(changed.header("etag"), tag(one).await);
    changed.ok(200);
    change(two, &of_two, json!({"weight": 6})).await.ok(200);
    change("/services/dns", &dns, json!({"scheduler": "wrr"})).await.ok(200);
    change("/pools/local", &pool, json!({"addresses": ["10.0.0.251"]})).await.ok(200);
    // Its backends are part of a service, and all are part of the state.
    change("/services/web", &web, json!({"scheduler": "wrr"})).await.problem(412);
    change("/services/dns", &all, json!({"scheduler": "maglev"})).await.problem(412);
    change(one, &of_one, json!({"weight": 7})).await.problem(412);
    // What contains it is as good.
    change(one, &tag("/services/web").await, json!({"weight": 8})).await.ok(200);
    change(one, &tag("/services").await, json!({"weight": 9})).await.ok(200);
    server.stop().await;
}

/// Of two writers that read the same version, one wins.
#[tokio::test]
async fn concurrent_updates_have_one_winner() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let etag = api.get("/services/web").await.header("etag").to_owned();
    let put = |weight: u64| {
        let (api, etag) = (&api, &etag);
        async move {
            let headers = [("content-type", "application/json"), ("if-match", etag.as_str())];
            let path = "/services/web/backends/10.0.0.1:8080/weight";
            api.raw("PUT", path, &headers, json!({ "weight": weight }).to_string()).await.status
        }
    };
    let (a, b, c, d) = tokio::join!(put(1), put(2), put(3), put(4));
    let won = [a, b, c, d].iter().filter(|s| s.as_u16() == 200).count();
    assert_eq!(won, 1, "{a} {b} {c} {d}");
    server.stop().await;
}

/// Method, path and body of a request, and what its answer says is wrong.
type Wrong = (&'static str, &'static str, Value, Vec<String>);

async fn refused(api: &Api, cases: Vec<Wrong>) {
    for (method, path, body, expected) in cases {
        let problem = api.send(method, path, body.clone()).await.problem(422);
        for expected in expected {
            assert!(
                problem.contains(&expected),
                "{method} {path} {body}: no {expected:?} in\n{problem}"
            );
        }
    }
}

#[tokio::test]
async fn invalid_weights_are_refused_and_change_nothing() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let before = api.get("/services").await;
    let in_web = "services[web].backends[10.0.0.1:8080]";
    let cases: Vec<Wrong> = vec![
        (
            "PUT",
            WEIGHT,
            json!({"weight": 65_536}),
            vec![format!("{in_web}.weight is 65536: expected 0 to 65535")],
        ),
        (
            "PUT",
            WEIGHT,
            json!({"weight": "-1"}),
            vec![format!("{in_web}.weight is \"-1\": expected 0 to 65535")],
        ),
        (
            "PUT",
            WEIGHT,
            json!({"weight": -1}),
            vec![format!("{in_web}.weight is -1: expected 0 to 65535")],
        ),
        (
            "PUT",
            WEIGHT,
            json!({"weight": 1.5}),
            vec![format!("{in_web}.weight is 1.5: expected 0 to 65535")],
        ),
        ("PUT", WEIGHT, json!({}), vec![format!("{in_web}.weight is absent: expected 0 to 65535")]),
        ("PUT", WEIGHT, json!([1]), vec![format!("{in_web} is [1]: expected an object")]),
        (
            "PUT",
            WEIGHT,
            json!({"weight": 1, "wait": 2}),
            vec![format!("{in_web}.wait is 2: expected a known field: weight")],
        ),
        (
            "PUT",
            WEIGHT,
            json!({"weight": 1, "observed": 2, "change": 3}),
            vec![
                format!("{in_web}.observed is 2: expected a known field: weight"),
                format!("{in_web}.change is 3: expected a known field: weight"),
            ],
        ),
    ];
    refused(&api, cases).await;
    let after = api.get("/services").await;
    assert_eq!(before.header("etag"), after.header("etag"));
    assert_eq!(before.body, after.body);
    server.stop().await;
}

#[tokio::test]
async fn invalid_requests_name_field_value_and_expectation_and_change_nothing() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let before = api.get("/services").await;
    let mut twice = dr("x", "198.51.100.9");
    twice["backends"] =
        json!([{"address": "10.0.0.1", "port": 53}, {"address": "10.0.0.1", "port": 53}]);
    let mut no_pool = dr("x", "198.51.100.9");
    no_pool["mode"] = json!("full-nat");
    let mut check = dr("x", "198.51.100.9");
    check["health_check"] = json!({"interval_ms": 50, "rise": 0, "kind": "http", "path": "alive"});
    let mut badly_closed = dr("x", "198.51.100.9");
    badly_closed["health_check"] = json!({"kind": "http", "close": "rst"});
    let mut cut = dr("x", "198.51.100.9");
    cut["health_check"] = json!({"kind": "http", "path": "/alive#top"});
    let same = json!({
        "name": "x", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr"
    });
    let mut ipv6 = dr("x", "fd00::1");
    ipv6["protocol"] = json!("sctp");
    ipv6["backends"] = json!([{"name": "b", "address": "::ffff:10.0.0.1", "port": 53}]);
    let in_web = "services[web].backends[10.0.0.1:8080]";
    let cases: Vec<Wrong> = vec![
        ("POST", "/services", same, vec!["services[x].port is 198.51.100.1:80/tcp: expected a VIP, port and protocol that no other service has; web has these".into()]),
        ("POST", "/services", twice, vec!["services[x].backends[10.0.0.1:53] is listed twice".into()]),
        ("POST", "/services", no_pool, vec!["services[x].pool is absent: expected the name of a pool".into()]),
        ("POST", "/services", check, vec![
            "services[x].health_check.interval_ms is 50: expected 100 to 3600000 ms".into(),
            "services[x].health_check.rise is 0: expected 1 to 100".into(),
            "services[x].health_check.timeout_ms is 1000: expected 10 ms to interval_ms, which is 50 ms".into(),
            "services[x].health_check.path is \"alive\": expected a path that starts with '/'".into(),
        ]),
        ("POST", "/services", badly_closed, vec!["services[x].health_check.close is \"rst\": expected \"reset\" or \"fin\"".into()]),
        ("POST", "/services", cut, vec!["services[x].health_check.path is \"/alive#top\": expected a path that starts with '/', of at most 1024 visible ASCII characters other than # < > `".into()]),
        ("POST", "/services", json!({"name": "X!", "color": 1}), vec![
            "services[X!].vip is absent".into(), "services[X!].port is absent".into(),
            "services[X!].color is 1: expected a known field: name, vip, port,".into(),
        ]),
        ("POST", "/services", ipv6, vec![
            "services[x].vip is fd00::1: expected an IPv4 address, as IPv6 is not supported yet".into(),
            "services[x].protocol is \"sctp\": expected \"tcp\" or \"udp\"".into(),
            "services[x].backends[[::ffff:10.0.0.1]:53].name is \"b\": expected a known field: address,".into(),
            "services[x].backends[[::ffff:10.0.0.1]:53].address is ::ffff:10.0.0.1: expected an IPv4 address, as IPv6".into(),
        ]),
        ("POST", "/services", json!({"address": "10.0.0.1", "port": 80}), vec!["services[new].name is absent".into()]),
        ("POST", "/services", dr("Big", "224.0.0.1"), vec![
            "services[Big].name is \"Big\": expected 1 to 63 of a-z".into(),
            "services[Big].vip is 224.0.0.1: expected a unicast address".into(),
        ]),
        ("POST", "/pools", json!({"name": "p", "addresses": ["198.51.100.1"]}), vec!["pools[p].addresses is 198.51.100.1: expected an address that is no VIP; service web has it".into()]),
        ("POST", "/pools", json!({"name": "p", "addresses": ["10.0.0.250", "x"]}), vec!["pools[p].addresses is \"x\": expected an IPv4 address".into()]),
        ("POST", "/pools", json!({"name": "p", "addresses": ["10.0.0.250"]}), vec!["expected each address once; pool local has it already".into()]),
        ("PUT", "/services/web", json!({"name": "other", "vip": "1.2.3.4"}), vec!["services[web].name is \"other\": expected \"web\", as in the URL".into()]),
        ("PATCH", "/services/web", json!({"name": "other"}), vec!["services[web].name is \"other\"".into()]),
        ("PATCH", "/services/web", json!({"pool": null}), vec!["services[web].pool is absent".into()]),
        ("PATCH", "/services/web", json!([]), vec!["services[web] is []: expected an object with the fields to change".into()]),
        ("PATCH", "/services/web/backends/10.0.0.1:8080", json!({"health": "healthy"}), vec![format!("{in_web}.health is \"healthy\": expected no such field: health is observed")]),
        ("PATCH", "/services/web/backends/10.0.0.1:8080", json!({"port": 81}), vec![format!("{in_web}.port is 81: expected 8080, as in the URL")]),
    ];
    refused(&api, cases).await;
    let after = api.get("/services").await;
    assert_eq!(before.header("etag"), after.header("etag"));
    assert_eq!(before.body, after.body);
    server.stop().await;
}

#[tokio::test]
async fn every_other_no_is_a_problem_too() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let json_type = [("content-type", "application/json; charset=utf-8")];

    let bad = api.raw("POST", "/services", &json_type, "{\n  \"name\": web\n}").await.problem(400);
    assert!(bad.contains("line 2 column 11"), "{bad}");
    api.raw("POST", "/services", &json_type, "").await.problem(400);
    let id = api.get("/services/web/backends/10.0.0.1").await.problem(400);
    assert!(id.contains("\"10.0.0.1\": expected ADDRESS:PORT, as in 10.0.0.1:80"), "{id}");
    let zone = api.get("/services/web/backends/%5Bfe80::1%251%5D:80").await.problem(400);
    assert!(zone.contains("\"[fe80::1%1]:80\": expected ADDRESS:PORT without a zone"), "{zone}");
    api.get("/services/%ff").await.problem(400);
    let limit = api.get("/events?limit=0").await.problem(400);
    assert!(limit.contains("limit is \"0\": expected 1 to 4096"), "{limit}");
    api.get("/events?since=x").await.problem(400);
    api.get("/events?sinse=1").await.problem(400);

    for path in ["//", "//api", "/nothing", "//api/v1", "/services/web/backends/10.0.0.1:8080/fly"]
    {
        api.get(path).await.problem(404);
    }
    for path in ["/services/nope", "/services/nope/backends", "/pools/nope", "/stats/services/nope"]
    {
        let problem = api.get(path).await.problem(404);
        assert!(problem.contains("expected one of"), "{problem}");
    }
    let empty = json!({});
    api.send("PUT", "/services/nope", empty.clone()).await.problem(404);
    api.send("PATCH", "/services/nope", empty.clone()).await.problem(404);
    api.send("PUT", "/services/web/backends/10.0.0.9:1", empty.clone()).await.problem(404);
    api.send("PUT", "/services/web/backends/10.0.0.9:1/weight", empty).await.problem(404);
    api.post_empty("/services/web/backends/10.0.0.9:1/drain").await.problem(404);
    api.delete("/services/nope").await.problem(404);
    api.delete("/services/web/backends/10.0.0.9:1").await.problem(404);
    api.delete("/pools/nope").await.problem(404);

    let wrong = api.raw("DELETE", "/services", &[CLIENT], "").await;
    assert!(wrong.header("allow").contains("POST"), "{wrong:?}");
    wrong.problem(405);
    api.get("/services/web/backends/10.0.0.1:8080/drain").await.problem(405);
    api.raw("POST", "//healthz", &[CLIENT], "").await.problem(405);

    let again =
        api.send("POST", "/pools", json!({"name": "local", "addresses": ["10.9.9.9"]})).await;
    assert!(again.problem(409).contains("pool local exists already"));
    let mut web = dr("web", "198.51.100.7");
    web["port"] = json!(53);
    assert!(api.send("POST", "/services", web).await.problem(409).contains("service web exists"));
    let backend = json!({"address": "10.0.0.1", "port": 8080});
    let again = api.send("POST", "/services/web/backends", backend).await.problem(409);
    assert!(again.contains("backend 10.0.0.1:8080 exists already"), "{again}");

    let long = vec![b' '; sluice_control::http::MAX_BODY + 1];
    assert!(api.raw("POST", "/services", &json_type, long).await.problem(413).contains("16777216"));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let media = api.raw("POST", "/services", &form, "{}").await.problem(415);
    assert!(media.contains("expected application/json"), "{media}");
    api.raw("POST", "/services", &[CLIENT], "{}").await.problem(415);
    server.stop().await;
}

#[tokio::test]
async fn statistics_and_status_come_from_the_data_plane() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;

    // Nobody there: the API works, and says what does not.
    assert!(api.get("//readyz").await.problem(503).contains("dataplane unreachable"));
    assert_eq!(api.get("//healthz").await.ok(200)["status"], "alive");
    assert!(api.get("/stats").await.problem(503).contains("dataplane unreachable"));
    assert!(api.get("/neighbours").await.problem(503).contains("dataplane unreachable"));
    let status = api.get("/status").await.ok(200);
    assert_eq!(
        (&status["ready"], &status["dataplane"]["connected"]),
        (&json!(false), &json!(false))
    );
    assert!(status["dataplane"]["error"].as_str().unwrap().contains("dataplane.sock"));
    assert_eq!(status["control"]["backends"], 2);
    api.send("POST", "/services", dr("dns", "198.51.100.2")).await.ok(202);

    let fake = FakeDataplane::start(&lab.socket());
    let table = |used| sluice_api::stats::TableUsage {
        table: "conns".into(),
        used,
        capacity: 1_000,
        bytes: 64_000,
    };
    fake.with(|m| m.tables = vec![table(799)]);
    assert_eq!(api.ready(200).await.body["warnings"], json!([]));
    fake.with(|m| m.tables = vec![table(800)]);
    let warnings = api.get("/readyz").await.ok(200)["warnings"].to_string();
    assert!(warnings.contains("conns is 80 % full: 800 of 1000"), "{warnings}");

    let stats = api.get("/stats").await.ok(200);
    assert_eq!(stats["services"][1]["name"], "dns");
    assert_eq!(api.get("/stats/services/web").await.ok(200)["packets_in"], 7);
    assert_eq!(api.get("/neighbours").await.ok(200)["neighbours"][0]["state"], "reachable");
    let status = api.get("/status").await.ok(200);
    assert_eq!(status["ready"], true);
    let dataplane = &status["dataplane"];
    assert_eq!(dataplane["connected"], true);
    assert_eq!(dataplane["generation_published"], dataplane["generation_applied"]);
    assert_eq!(dataplane["tables"][0]["used"], 800);
    assert_eq!(dataplane["workers"][0]["cpu"], 1);
    server.stop().await;
}

/// What follows the rules and cannot work is taken, and warned of.
#[tokio::test]
async fn what_cannot_work_is_a_warning() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let fake = FakeDataplane::start(&lab.socket());
    fake.with(|m| m.port_address = Some("10.0.0.254".parse().unwrap()));
    api.ready(200).await;
    let mut far = dr("dns", "198.51.100.2");
    far["backends"] =
        json!([{"address": "10.0.0.9", "port": 53}, {"address": "10.9.0.1", "port": 53}]);
    api.send("POST", "/services", far).await.ok(201);
    let warnings = api.get("/readyz").await.ok(200)["warnings"].to_string();
    let expected = "service dns: backend 10.9.0.1:53 is in no network of the data plane's ports";
    assert!(warnings.contains(expected), "{warnings}");
    assert!(!warnings.contains("10.0.0.9"), "{warnings}");
    api.delete("/services/dns/backends/10.9.0.1:53").await.ok(200);
    let warnings = api.get("/readyz").await.ok(200)["warnings"].to_string();
    assert!(!warnings.contains("dns: backend"), "{warnings}");
    server.stop().await;
}

/// What a worker that is stuck has not taken over is pending, not applied.
#[tokio::test]
async fn a_worker_that_is_stuck_is_a_warning_and_what_it_lacks_is_pending() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let fake = FakeDataplane::start(&lab.socket());
    assert_eq!(api.ready(200).await.body["warnings"], json!([]));
    let before = fake.with(|m| m.snapshot.as_ref().unwrap().generation);

    fake.with(|m| (m.adopted, m.stuck_ms) = (Some(before), 7_012));
    let drained = api.post_empty("/services/web/backends/10.0.0.1:8080/drain").await.ok(202);
    assert_eq!(drained["state"], "drain");
    let newer = fake.snapshot_where("the change", |s| s.generation > before).await.generation;
    let warnings = api.get("/readyz").await.ok(200)["warnings"].clone();
    let texts: Vec<&str> = warnings.as_array().unwrap().iter().filter_map(|w| w.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("worker 0 (CPU 1) has not come round for 7012 ms"), "{texts:?}");
    let pending = format!("generation {newer} is pending: worker 0 forwards by {before}");
    assert_eq!(texts[1], pending);
    assert_eq!(drained["change"]["reason"], json!(pending));
    let dataplane = |status: Value| status["dataplane"].clone();
    tokio::time::sleep(2 * sluice_control::publish::POLL).await;
    let status = dataplane(api.get("/status").await.ok(200));
    assert_eq!(
        (&status["generation_published"], &status["generation_applied"]),
        (&json!(newer), &json!(before))
    );
    assert_eq!(status["pending"], json!(pending));
    assert_eq!(status["workers"][0]["stuck_ms"], 7_012);
    let metrics = api.get("//metrics").await.ok(200);
    let applied = format!("sluice_generation_applied {before}\n");
    assert!(metrics.as_str().unwrap().contains(&applied), "{metrics}");
    assert!(metrics.as_str().unwrap().contains("sluice_worker_stuck{worker=\"0\"} 1\n"));

    fake.with(|m| (m.adopted, m.stuck_ms) = (None, 0));
    assert_eq!(api.get("/readyz").await.ok(200)["warnings"], json!([]));
    // `/status` shows what control saw when it last looked.
    tokio::time::sleep(2 * sluice_control::publish::POLL).await;
    let status = dataplane(api.get("/status").await.ok(200));
    assert_eq!((&status["generation_applied"], &status["pending"]), (&json!(newer), &json!(null)));
    server.stop().await;
}

/// In DR, backends' resets are not heard, and conns count until they time out.
#[tokio::test]
async fn a_limit_of_conns_in_dr_is_a_warning() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let _fake = FakeDataplane::start(&lab.socket());
    let mut service = dr("dns", "198.51.100.2");
    service["max_conns"] = json!(100);
    service["protocol"] = json!("tcp");
    api.send("POST", "/services", service).await.ok(201);
    let warnings = api.ready(200).await.body["warnings"].to_string();
    assert!(warnings.contains("service dns: with mode dr, max_conns counts conns"), "{warnings}");
    assert!(warnings.contains("tcp_established_ms is 900000"), "{warnings}");
    assert!(!warnings.contains("web"), "{warnings}");
    server.stop().await;
}

/// A data plane that hangs costs an answer, after 2 s, and nothing else.
#[tokio::test]
async fn a_silent_data_plane_does_not_stop_the_api() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    fake.with(|m| m.silent = true);
    let began = std::time::Instant::now();
    let problem = api.get("/stats").await.problem(503);
    assert!(problem.contains("no answer within 2 s"), "{problem}");
    assert!(began.elapsed().as_millis() < 3_000);
    api.post_empty("/services/web/backends/10.0.0.1:8080/drain").await.ok(202);
    server.stop().await;
}

/// Many resources at once: all or none, one version, an event for each that changed.
#[tokio::test]
async fn apply_is_all_or_nothing() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let version = async || api.get("/status").await.ok(200)["control"]["state_version"].clone();
    let web = api.get("/services/web").await.ok(200);
    let bad = json!({
        "pools": [{"name": "p", "addresses": ["10.0.0.9"]}, {"name": "p", "addresses": ["x"]}],
        "services": [dr("a", "198.51.100.1"), {"name": "b", "port": 65_536}],
    });
    let problem = api.send("POST", "/apply", bad).await.problem(422);
    for part in ["pools[p].addresses", "services[b].port is 65536", "services[b].vip is absent"] {
        assert!(problem.contains(part), "no {part} in {problem}");
    }
    let cases = [
        (json!({"colour": 1}), "colour is 1: expected pools or services"),
        (json!({"pools": {}}), "pools is {}: expected a list"),
        (json!([]), "(the body) is []: expected an object with the lists"),
        (
            json!({"services": [dr("a", "198.51.100.2"), dr("a", "198.51.100.3")]}),
            "services[a].name is \"a\": expected each name once",
        ),
        (
            json!({"services": [dr("a", "198.51.100.2"), dr("b", "198.51.100.2")]}),
            "services[b].port is 198.51.100.2:53/udp",
        ),
    ];
    for (body, expected) in cases {
        let problem = api.send("POST", "/apply", body).await.problem(422);
        assert!(problem.contains(expected), "no {expected} in {problem}");
    }
    assert_eq!(version().await, 1, "nothing was done");

    let mut changed = web.clone();
    changed["scheduler"] = json!("wrr");
    let batch = json!({"services": [dr("a", "198.51.100.2"), changed], "pools": []});
    let dry = api.send("POST", "/apply?dry_run=true", batch.clone()).await.ok(200);
    assert_eq!(dry.get("change"), None, "nothing became of it");
    assert_eq!(version().await, 1);
    let done = api.send("POST", "/apply", batch.clone()).await.ok(200);
    assert_eq!(done["changes"], dry["changes"]);
    assert_eq!(
        done["changes"],
        json!([
            {"kind": "service", "name": "web", "change": "changed",
             "fields": [{"field": "scheduler", "from": "maglev", "to": "wrr"}]},
            {"kind": "service", "name": "a", "change": "created"},
        ])
    );
    assert_eq!(done["change"]["outcome"], "applied");
    assert_eq!(version().await, 2);
    assert_eq!(api.events("service-created").await, ["service a created, applied"]);
    assert_eq!(
        api.events("service-changed").await,
        ["service web changed, applied: scheduler: \"maglev\" -> \"wrr\""]
    );
    let again = api.send("POST", "/apply", batch).await.ok(200);
    assert_eq!(again["changes"][0]["change"], "unchanged");
    assert_eq!(version().await, 2);
    let problem = api.send("POST", "/apply?dry_run=1", json!({})).await.problem(400);
    assert!(problem.contains("dry_run is \"1\": expected true or false"), "{problem}");
    let problem = api.send("PUT", &format!("{WEIGHT}?dry_run=true"), json!({})).await.problem(400);
    assert!(problem.contains("expected a known parameter: wait_ms"), "{problem}");
    server.stop().await;
}

const WEIGHT: &str = "/services/web/backends/10.0.0.1:8080/weight";

/// Set a weight; the answer, and after how many ms it came.
async fn set(api: &Api, weight: u16, query: &str) -> (Answer, u128) {
    let began = Instant::now();
    let answer = api.send("PUT", &format!("{WEIGHT}{query}"), json!({ "weight": weight })).await;
    (answer, began.elapsed().as_millis())
}

/// Status of an answer, and outcome, generation and reason of its change.
fn outcome(answer: &Answer) -> (u16, String, Option<u64>, String) {
    let change = &answer.body["change"];
    let text = |key: &str| change[key].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), text("outcome"), change["generation"].as_u64(), text("reason"))
}

/// Every change says whether packets are treated by it, and why not.
#[tokio::test]
async fn a_change_says_what_became_of_it() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    let applied = |status, generation| (status, "applied".to_owned(), generation, String::new());

    let (answer, took) = set(&api, 7, "").await;
    assert_eq!(outcome(&answer), applied(200, Some(2)));
    assert_eq!(answer.body["weight"], 7);
    assert!(took < 1_000, "{took} ms");
    assert_eq!(fake.with(|m| m.snapshot.as_ref().unwrap().generation), 2);
    let (answer, _) = set(&api, 7, "?wait_ms=0").await;
    assert_eq!(outcome(&answer), applied(200, Some(2)), "what changes nothing is in force");
    let made = api.send("POST", "/services", dr("dns", "198.51.100.2")).await;
    assert_eq!(outcome(&made), applied(201, Some(3)));

    // It takes its time: waited for, or not.
    fake.with(|m| m.apply_takes = Duration::from_millis(400));
    let (answer, took) = set(&api, 8, "?wait_ms=100").await;
    let late = "the data plane has not taken it over within 100 ms";
    assert_eq!(outcome(&answer), (202, "stored".to_owned(), Some(3), late.to_owned()));
    assert!((100..380).contains(&took), "{took} ms");
    let (answer, took) = set(&api, 9, "").await;
    assert_eq!(outcome(&answer), applied(200, Some(5)));
    assert!((400..1_800).contains(&took), "{took} ms");
    fake.with(|m| m.apply_takes = Duration::ZERO);

    for (query, expected) in [
        ("?wait_ms=60001", "wait_ms is \"60001\": expected 0 to 60000"),
        ("?wait_ms=-1", "wait_ms is \"-1\": expected 0 to 60000"),
        ("?wait=1", "wait is \"1\": expected a known parameter: wait_ms"),
    ] {
        let problem = set(&api, 15, query).await.0.problem(400);
        assert!(problem.contains(expected), "{problem}");
    }
    server.stop().await;
}

/// Who waits for a change when control is stopped learns that it is stored, and is not waited for.
#[tokio::test]
async fn a_stop_answers_who_waits_for_a_change() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    fake.with(|m| m.apply_takes = Duration::from_secs(10));
    let waiting = tokio::spawn(async move { set(&api, 7, "?wait_ms=20000").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    let (answer, _) = waiting.await.unwrap();
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["change"]["outcome"], "stored");
}

#[tokio::test]
async fn a_change_that_the_data_plane_does_not_take_says_why() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.send("POST", "/services", dr("dns", "198.51.100.2")).await.ok(201);
    // It refuses.
    fake.with(|m| m.limits.backends = 1);
    let (answer, took) = set(&api, 10, "").await;
    let (status, word, _, reason) = outcome(&answer);
    assert_eq!((status, word.as_str()), (202, "stored"));
    assert!(reason.contains("refused the last snapshot: services[].backends is "), "{reason}");
    assert!(took < 1_000, "{took} ms: that is known at once");
    fake.with(|m| m.limits = Limits::default());
    assert_eq!(outcome(&set(&api, 11, "").await.0).0, 200);

    // It does not take this service, and all else.
    fake.with(|m| m.port_address = Some([198, 51, 100, 1].into()));
    let (status, word, _, reason) = outcome(&set(&api, 10, "").await.0);
    assert_eq!((status, word.as_str()), (202, "stored"));
    assert!(reason.starts_with("the data plane does not take it: services[web].vip"), "{reason}");
    // It tells its addresses each 250 ms.
    tokio::time::sleep(Duration::from_millis(700)).await;
    fake.with(|m| m.port_address = None);
    fake.snapshot_where("web again", |s| s.services[0].name == "web").await;
    assert_eq!(outcome(&set(&api, 11, "").await.0).0, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_change_waits_for_nobody_unless_asked_to() {
    let lab = Lab::new();
    let mut fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    api.send("POST", "/services", dr("dns", "198.51.100.2")).await.ok(201);
    // It is gone: not waited for, unless asked to.
    fake.kill().await;
    api.ready(503).await;
    let (answer, took) = set(&api, 12, "").await;
    let (status, word, _, reason) = outcome(&answer);
    assert_eq!((status, word.as_str()), (202, "stored"));
    assert!(reason.starts_with("dataplane unreachable: "), "{reason}");
    assert!(took < 1_000, "{took} ms");
    let (_, took) = set(&api, 13, "?wait_ms=700").await;
    assert!((700..1_500).contains(&took), "{took} ms");
    let gone = api.delete("/services/dns").await;
    assert_eq!((gone.status.as_u16(), outcome(&gone).1.as_str()), (202, "stored"));
    let (answer, ()) = tokio::join!(set(&api, 14, "?wait_ms=5000"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fake.restart();
    });
    assert_eq!(outcome(&answer.0).0, 200);
    assert_eq!(fake.with(|m| m.snapshot.as_ref().unwrap().services[0].backends[0].weight), 14);
    assert_eq!(api.get(&WEIGHT.replace("/weight", "")).await.body["weight"], 14);
    server.stop().await;
}

/// What nobody reads is refused, on every path.
#[tokio::test]
async fn unknown_parameters_are_refused_everywhere() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    let backend = "/services/web/backends/10.0.0.1:8080";
    let reads = [
        "/services",
        "/services/web",
        "/services/web/backends",
        backend,
        "/pools",
        "/pools/local",
        "/stats",
        "/stats/services/web",
        "/ports",
        "/events",
        "/status",
        "/neighbours",
        "/vips",
        "/vips/198.51.100.1",
        "/nodes",
        "//healthz",
        "//readyz",
        "//metrics",
    ];
    for path in reads {
        let says = api.get(&format!("{path}?limt=5")).await.problem(400);
        assert!(says.contains("limt is \"5\": expected "), "{path}: {says}");
    }
    let before = api.get("/services").await.ok(200);
    for (method, path) in [
        ("PUT", "/services/web".to_owned()),
        ("PATCH", "/services/web".to_owned()),
        ("DELETE", "/services/web".to_owned()),
        ("POST", format!("{backend}/drain")),
        ("PUT", format!("{backend}/weight")),
        ("POST", "/pools".to_owned()),
    ] {
        let says = api.send(method, &format!("{path}?force=1"), json!({"weight": 3})).await;
        assert!(says.problem(400).contains("force is \"1\""), "{method} {path}");
    }
    assert_eq!(api.get("/services").await.ok(200), before, "nothing was done");
    server.stop().await;
}

/// Whoever goes on from the last event that was seen misses none, however small the pages are.
#[tokio::test]
async fn events_are_read_page_by_page() {
    let lab = Lab::new();
    let _fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    for n in 1..=7 {
        let pool = json!({"name": format!("p{n}"), "addresses": [format!("10.0.9.{n}")]});
        api.send("POST", "/pools", pool).await.ok(201);
    }
    let page = async |query: &str| -> Vec<u64> {
        let page = api.get(&format!("/events?{query}")).await.ok(200);
        page["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect()
    };
    let all = page("").await;
    assert!(all.len() >= 8 && all.is_sorted(), "{all:?}");
    let (mut seen, mut since) = (Vec::new(), 0);
    loop {
        let next = page(&format!("since={since}&limit=3")).await;
        let Some(last) = next.last() else { break };
        assert!(next.len() <= 3);
        since = *last;
        seen.extend(next);
    }
    assert_eq!(seen, all);
    assert_eq!(page("limit=2").await, all[all.len() - 2..], "without since the newest");
    let events = api.get("/events").await.ok(200)["events"].clone();
    let started = &events[0];
    assert_eq!(
        (&started["kind"], &started["severity"]),
        (&json!("control-started"), &json!("info"))
    );
    server.stop().await;
}

#[tokio::test]
async fn numbers_are_read_as_they_are_meant_also_by_readers_of_doubles() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    fake.with(|m| m.boot_id = u64::MAX);
    let (server, api) = lab.start(WEB).await;
    api.ready(200).await;
    let status = api.get("/status").await.ok(200);
    assert_eq!(status["dataplane"]["boot_id"], u64::MAX.to_string());
    assert_eq!(api.get("/stats").await.ok(200)["boot_id"], u64::MAX.to_string());
    fake.with(|m| m.boot_id = (1 << 53) - 1);
    assert_eq!(api.get("/stats").await.ok(200)["boot_id"], (1_u64 << 53) - 1);
    server.stop().await;
}

/// VIPs are there while services have them, and fare as these do.
#[tokio::test]
async fn vips_fare_as_their_services_do() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let alone = api.get("/vips/198.51.100.1").await;
    let tag = alone.header("etag").to_owned();
    let alone = alone.ok(200);
    assert_eq!((&alone["address"], &alone["services"]), (&json!("198.51.100.1"), &json!(["web"])));
    assert_eq!(alone["observed"]["announced"], Value::Null, "nobody has told");

    let fake = FakeDataplane::start(&lab.socket());
    api.ready(200).await;
    let announced = async |address: &str| {
        let vip = api.get(&format!("/vips/{address}")).await.ok(200);
        vip["observed"]["announced"].as_bool()
    };
    for _ in 0..100 {
        if announced("198.51.100.1").await == Some(true) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(announced("198.51.100.1").await, Some(true));
    fake.with(|m| m.keeps_announcements = true);
    let mut idle = dr("dns", "198.51.100.1");
    idle["backends"] = json!([]);
    api.send("POST", "/services", idle).await.ok(201);
    api.send("POST", "/services", dr("ntp", "198.51.100.9")).await.ok(201);
    assert_eq!(announced("198.51.100.9").await, Some(false));

    let list = api.get("/vips").await;
    assert_eq!(list.header("etag"), "\"3\"", "the state's version");
    let list = list.ok(200);
    let vip = &list["vips"][0];
    assert_eq!(vip["services"], json!(["web", "dns"]));
    assert_eq!(vip["observed"]["state"], "degraded");
    let reason = vip["observed"]["reason"].as_str().unwrap();
    assert!(reason.contains("service dns is down: it has no backends"), "{reason}");
    assert_eq!(list["vips"][1]["address"], "198.51.100.9");
    assert_ne!(api.get("/vips/198.51.100.1").await.header("etag"), tag);

    api.delete("/services/ntp").await.ok(200);
    let problem = api.get("/vips/198.51.100.9").await.problem(404);
    assert!(problem.contains("there is no VIP 198.51.100.9: "), "{problem}");
    let problem = api.get("/vips/web").await.problem(400);
    assert!(problem.contains("address is \"web\": expected an IPv4 address"), "{problem}");
    let problem = api.get("/vips?limit=1").await.problem(400);
    assert!(problem.contains("expected no parameters here"), "{problem}");
    api.delete("/vips/198.51.100.1").await.problem(405);
    server.stop().await;
}

/// The node tells what runs on it, and nothing that it does not know.
#[tokio::test]
async fn a_node_tells_what_runs_on_it() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let nodes = api.get("/nodes").await.ok(200);
    let [node] = nodes["nodes"].as_array().unwrap().as_slice() else { panic!("{nodes}") };
    let path = format!("/nodes/{}", node["name"].as_str().unwrap());
    let observed = &node["observed"];
    assert_eq!(observed["ready"], false);
    assert!(observed["reason"].as_str().unwrap().contains("dataplane unreachable"), "{observed}");
    assert_eq!(observed["control"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(observed["dataplane"], json!({"connected": false}), "it has not told");

    let fake = FakeDataplane::start(&lab.socket());
    fake.with(|m| m.port_address = Some([10, 20, 0, 1].into()));
    api.ready(200).await;
    let node = api.get(&path).await;
    assert!(!node.header("etag").is_empty());
    let node = node.ok(200);
    let dataplane = &node["observed"]["dataplane"];
    assert_eq!((&node["observed"]["ready"], &dataplane["connected"]), (&json!(true), &json!(true)));
    assert_eq!(dataplane["workers"][0]["cpu"], 1);
    let port = dataplane["ports"][0].as_object().unwrap();
    assert_eq!(port.keys().collect::<Vec<_>>(), ["addresses", "link_up", "name"]);
    assert!(dataplane["generation_applied"].as_u64().unwrap() > 0, "{dataplane}");

    let problem = api.get("/nodes/nobody").await.problem(404);
    assert!(problem.contains("there is no node nobody: expected one of "), "{problem}");
    api.send("PUT", &path, json!({})).await.problem(405);
    server.stop().await;
}

/// What somebody has changed says who it was.
#[tokio::test]
async fn events_of_changes_say_who_made_them() {
    let lab = Lab::new();
    let fake = FakeDataplane::start(&lab.socket());
    let (server, api) = lab.start(WEB).await;
    api.send("POST", "/services", dr("dns", "198.51.100.2")).await.ok(201);
    api.delete("/services/dns").await.ok(200);
    api.send("POST", "/apply", json!({"services": [dr("a", "198.51.100.3")]})).await.ok(200);
    fake.with(|m| {
        m.events.push(sluice_api::stats::DataplaneEvent {
            seq: 1,
            at_ms: 1,
            kind: "link-down".into(),
            severity: sluice_api::Severity::of("link-down"),
            message: "port p0 has no link".into(),
        });
    });
    api.event("link-down").await;
    let events = api.get("/events").await.ok(200);
    let actor = |kind: &str| {
        let events = events["events"].as_array().unwrap();
        events.iter().find(|event| event["kind"] == kind).unwrap()["actor"].clone()
    };
    let nameless = json!({"kind": "api", "address": "127.0.0.1"});
    assert_eq!(actor("service-created"), nameless);
    let named = json!({"kind": "api", "address": "127.0.0.1", "client": CLIENT.1});
    assert_eq!(actor("service-deleted"), named);
    assert_eq!(actor("link-down"), json!({"kind": "dataplane"}));
    assert_eq!(actor("control-started"), Value::Null, "nobody else");
    let of_batch = events["events"].as_array().unwrap().iter();
    let of_batch = of_batch.filter(|event| event["message"] == "service a created, applied");
    assert_eq!(of_batch.map(|event| &event["actor"]).collect::<Vec<_>>(), [&nameless]);
    server.stop().await;
}
