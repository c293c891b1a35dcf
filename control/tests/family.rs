//! IPv6 is refused alike wherever an address can stand: in bodies, in paths, in the file.

mod common;

use std::path::Path;

use common::{CLIENT, Lab, WEB};
use serde_json::{Value, json};
use sluice_api::validate::NOT_YET;
use sluice_control::config::Config;

#[tokio::test]
async fn ipv6_is_refused_in_paths_as_in_bodies() {
    let lab = Lab::new();
    let (server, api) = lab.start(WEB).await;
    let before = api.get("/services").await;
    let backend = "/services/web/backends/%5B2001:db8::1%5D:80";
    let below = |what: &str| format!("{backend}/{what}");
    let address = "/pools/local/addresses/2001:db8::1";
    let of_backend = "backend is [2001:db8::1]:80";
    let of_new = "services[web].backends[[2001:db8::1]:80].address is 2001:db8::1";
    let mut cases: Vec<(&str, String, Value, &str)> = vec![
        (
            "POST",
            "/services/web/backends".into(),
            json!({"address": "2001:db8::1", "port": 80}),
            of_new,
        ),
        (
            "PATCH",
            "/services/web".into(),
            json!({"vip": "2001:db8::1"}),
            "services[web].vip is 2001:db8::1",
        ),
        (
            "PATCH",
            "/pools/local".into(),
            json!({"addresses": ["2001:db8::1"]}),
            "pools[local].addresses is 2001:db8::1",
        ),
        ("GET", "/vips/2001:db8::1".into(), Value::Null, "address is 2001:db8::1"),
        // Mapped (RFC 4291, 2.5.5.2), it is another address.
        ("GET", "/vips/::ffff:198.51.100.1".into(), Value::Null, "address is ::ffff:198.51.100.1"),
        ("PUT", below("weight"), json!({"weight": 5}), of_backend),
    ];
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        cases.push((
            method,
            backend.into(),
            json!({"address": "2001:db8::1", "port": 80}),
            of_backend,
        ));
    }
    for what in ["drain", "up", "down"] {
        cases.push(("POST", below(what), Value::Null, of_backend));
    }
    for what in ["drain", "up"] {
        cases.push(("POST", format!("{address}/{what}"), Value::Null, "address is 2001:db8::1"));
    }
    for (method, path, body, is) in cases {
        let answer = match body {
            Value::Null => api.raw(method, &path, &[CLIENT], "").await,
            body => api.send(method, &path, body).await,
        };
        let problem = answer.problem(422);
        let expected = format!("{is}: expected {NOT_YET}");
        assert!(problem.contains(&expected), "{method} {path}: no {expected:?} in\n{problem}");
        assert_eq!(answer.body["problems"].as_array().map(Vec::len), Some(1), "{}", answer.body);
    }
    let after = api.get("/services").await;
    assert_eq!(before.header("etag"), after.header("etag"));
    assert_eq!(before.body, after.body);
    server.stop().await;
}

#[test]
fn ipv6_is_refused_in_the_file_too() {
    for (of, is) in [
        ("\"10.0.0.250\"", "pool[local].addresses is 2001:db8::1"),
        ("\"198.51.100.1\"", "service[web].vip is 2001:db8::1"),
        ("\"10.0.0.1\"", "service[web].backend[[2001:db8::1]:8080].address is 2001:db8::1"),
    ] {
        let text = WEB.replacen(of, "\"2001:db8::1\"", 1);
        let problem = Config::parse(&text, Path::new("control.toml")).unwrap_err().to_string();
        assert!(problem.contains(&format!("{is}: expected {NOT_YET}")), "{problem}");
    }
}
