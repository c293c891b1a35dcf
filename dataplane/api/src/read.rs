//! The resources that there are, from JSON values: the one place where bodies of requests and the tables
//! of TOML files become a [`Service`], [`Backend`] or [`Pool`].

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::schema::{Read, Resource};
use crate::service::NewWeight;
use crate::{Backend, BackendId, Pool, Problem, Problems, Service, schema};

pub use crate::schema::{NOT_CONFIGURED, Spelling, shown};

/// A resource that stands in no other, or everything that is wrong with its fields. `label` stands in
/// paths for a name that is missing.
fn resource<R: Resource>(value: Value, spelling: Spelling, label: &str) -> Result<R, Problems> {
    let label = schema::label_of(&value, R::object(), label);
    let path = format!("{}[{label}]", spelling.list_of::<R>());
    schema::read(value, Read { object: R::object(), path: &path, spelling, is_resource: true })
}

/// A service, or everything that is wrong with its fields. `label` stands in paths for a name that
/// is missing.
pub fn service(value: Value, spelling: Spelling, label: &str) -> Result<Service, Problems> {
    resource(value, spelling, label)
}

/// A pool, or everything that is wrong with its fields.
pub fn pool(value: Value, spelling: Spelling, label: &str) -> Result<Pool, Problems> {
    resource(value, spelling, label)
}

/// A backend of a service, or everything that is wrong with its fields.
pub fn backend(value: Value, service: &str, label: &str) -> Result<Backend, Problems> {
    let object = Backend::object();
    let label = schema::label_of(&value, object, label);
    let path = format!("services[{service}].backends[{label}]");
    let spelling = Spelling::Json;
    schema::read(value, Read { object, path: &path, spelling, is_resource: true })
}

/// The weight in a body `{"weight": N}`, or everything that is wrong with it.
pub fn weight(value: Value, service: &str, id: BackendId) -> Result<u16, Problems> {
    let path = format!("services[{service}].backends[{id}]");
    let (object, spelling) = (NewWeight::object(), Spelling::Json);
    schema::read(value, Read { object, path: &path, spelling, is_resource: false })
        .map(|NewWeight { weight }| weight)
}

/// A problem of the state in the words of the file.
pub fn in_toml(mut problem: Problem) -> Problem {
    let field = &problem.field;
    let renamed = match field.as_str() {
        "services" => "service".to_owned(),
        "services[].backends" => "service[].backend".to_owned(),
        _ => field.replacen("services[", "service[", 1).replacen("pools[", "pool[", 1).replacen(
            ".backends[",
            ".backend[",
            1,
        ),
    };
    problem.field = renamed;
    problem
}

/// Give `value` the field that its place in the URL implies; a body that says otherwise is a
/// problem.
pub fn set_identity(
    value: &mut Value,
    path: &str,
    field: &str,
    wanted: Value,
) -> Result<(), Problem> {
    // What is no object is reported where its fields are read.
    let Some(map) = value.as_object_mut() else { return Ok(()) };
    match map.get(field) {
        Some(given) if *given != wanted => Err(Problem::new(
            format!("{path}.{field}"),
            shown(given),
            format!("{wanted}, as in the URL: make a new one to give it another"),
        )),
        Some(_) => Ok(()),
        None => {
            map.insert(field.to_owned(), wanted);
            Ok(())
        }
    }
}

/// A variant of an enum, by its name.
pub fn word<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

/// The fields of a URL's backend as a body would hold them.
pub fn identity_fields(id: BackendId) -> [(&'static str, Value); 2] {
    [("address", json!(id.address)), ("port", json!(id.port))]
}

/// The value of a file, or of a body, with the names that lists have in another spelling.
pub fn respell(mut value: Value, from: Spelling, to: Spelling) -> Value {
    rename(&mut value, from.list_of::<Pool>(), to.list_of::<Pool>());
    rename(&mut value, from.list_of::<Service>(), to.list_of::<Service>());
    let services = value.get_mut(to.list_of::<Service>()).and_then(Value::as_array_mut);
    for service in services.into_iter().flatten() {
        rename(service, from.list_of::<Backend>(), to.list_of::<Backend>());
    }
    value
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(fields) = object.as_object_mut()
        && let Some(value) = fields.remove(from)
    {
        fields.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;

    fn full_service() -> Value {
        json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp",
            "mode": "full-nat", "scheduler": "wlc", "hash_on": "source", "maglev_slots": 251,
            "max_conns": 4_294_967_295u32, "pool": "local",
            "no_conn": "drop", "no_backend": "unreachable",
            "timeouts": {
                "tcp_syn_sent_ms": 1, "tcp_syn_received_ms": 2, "tcp_established_ms": 3,
                "tcp_fin_wait_ms": 4, "tcp_last_ack_ms": 5, "tcp_time_wait_ms": 6,
                "tcp_closed_ms": 7, "udp_one_way_ms": 8, "udp_two_way_ms": 9
            },
            "health_check": {
                "kind": "http", "interval_ms": 500, "timeout_ms": 200, "rise": 1, "fall": 2,
                "port": 8080, "path": "/alive", "host": "web.example",
                "expected_status": [200, 204], "close": "fin"
            },
            "backends": [
                {"address": "10.0.0.1", "port": 80, "weight": 7, "max_conns": 1, "zone": "a",
                 "state": "drain"}
            ]
        })
    }

    /// Nothing that the types have is refused, changed or lost.
    #[test]
    fn reads_what_serde_reads() {
        let json = full_service();
        let by_serde: Service = serde_json::from_value(json.clone()).unwrap();
        let by_hand = service(json.clone(), Spelling::Json, "new").unwrap();
        assert_eq!(by_hand, by_serde);
        assert_eq!(serde_json::to_value(&by_hand).unwrap(), json);

        let least = json!({
            "name": "a", "vip": "198.51.100.1", "port": 80, "protocol": "udp", "mode": "dr",
            "health_check": {}, "backends": [{"address": "10.0.0.1", "port": 80}]
        });
        let by_serde: Service = serde_json::from_value(least.clone()).unwrap();
        assert_eq!(service(least, Spelling::Json, "new").unwrap(), by_serde);

        let full =
            json!({"name": "p", "addresses": ["10.0.0.8", "10.0.0.9"], "drained": ["10.0.0.9"]});
        let by_serde: Pool = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(pool(full, Spelling::Json, "new").unwrap(), by_serde);

        let least = json!({"name": "p", "addresses": ["10.0.0.9"]});
        let by_serde: Pool = serde_json::from_value(least.clone()).unwrap();
        assert_eq!(pool(least, Spelling::Json, "new").unwrap(), by_serde);
    }

    #[test]
    fn reports_everything_at_once_with_field_value_and_expectation() {
        let mut json = full_service();
        json["port"] = json!(65_536);
        json["protocol"] = json!("sctp");
        json["colour"] = json!("red");
        json["timeouts"]["udp_one_way_ms"] = json!("1s");
        json["health_check"]["rise"] = json!(-1);
        json["health_check"]["expected_status"] = json!([200, "ok"]);
        json["backends"][0]["weight"] = json!("-1");
        json["backends"][0]["health"] = json!("healthy");
        json.as_object_mut().unwrap().remove("vip");
        let problems = service(json, Spelling::Toml, "new").unwrap_err();
        let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
        // The spelling is TOML's, so `backends` itself is unknown there.
        assert!(problems.iter().any(|p| p.starts_with("service[web].backends is [")));
        for expected in [
            "service[web].vip is absent: expected an IPv4 address, as \"10.0.0.1\"",
            "service[web].port is 65536: expected 1 to 65535",
            "service[web].protocol is \"sctp\": expected \"tcp\" or \"udp\"",
            "service[web].timeouts.udp_one_way_ms is \"1s\": expected 1 to 604800000 ms",
            "service[web].health_check.rise is -1: expected 1 to 100",
            "service[web].health_check.expected_status is \"ok\": expected codes from 100 to 599",
        ] {
            assert!(problems.iter().any(|p| p == expected), "{expected} not in {problems:#?}");
        }
        assert!(problems.iter().any(|p| p.starts_with("service[web].colour is \"red\": expected")));
    }

    #[test]
    fn limits_of_conns() {
        for wrong in [json!(0), json!(-1), json!(1.5), json!("100"), json!(4_294_967_296u64)] {
            let mut json = full_service();
            json["max_conns"] = wrong.clone();
            json["backends"][0]["max_conns"] = wrong.clone();
            let problems = service(json, Spelling::Json, "new").unwrap_err();
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            let expected = ["", ".backends[10.0.0.1:80]"].map(|of| {
                format!("services[web]{of}.max_conns is {wrong}: expected 1 to 4294967295")
            });
            assert_eq!(lines, expected);
        }
        let mut json = full_service();
        json["max_conns"] = Value::Null;
        json["backends"][0].as_object_mut().unwrap().remove("max_conns");
        let none = service(json, Spelling::Json, "new").unwrap();
        assert_eq!((none.max_conns, none.backends[0].max_conns), (None, None));
    }

    #[test]
    fn answers_to_who_has_no_conn_or_finds_nobody() {
        let mut json = full_service();
        (json["no_conn"], json["no_backend"]) = (json!("unreachable"), json!("rst"));
        let problems = service(json.clone(), Spelling::Json, "new").unwrap_err();
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            lines,
            [
                "services[web].no_conn is \"unreachable\": expected \"reset\" or \"drop\"",
                "services[web].no_backend is \"rst\": expected \"reset\", \"unreachable\" or \"drop\"",
            ]
        );
        // What is not said follows the mode, also after a patch that takes it away.
        json["no_conn"] = Value::Null;
        json.as_object_mut().unwrap().remove("no_backend");
        let none = service(json, Spelling::Json, "new").unwrap();
        assert_eq!((none.no_conn, none.no_backend), (None, Refusal::Reset));
    }

    #[test]
    fn what_answers_tell_beside_the_fields_is_ignored() {
        let mut answer = full_service();
        answer["observed"] = json!({"state": "serving"});
        answer["change"] = json!({"outcome": "applied"});
        answer["backends"][0]["observed"] = json!({"health": "healthy"});
        let read = service(answer.clone(), Spelling::Json, "new").unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), full_service());
        // They belong to resources only.
        for place in ["timeouts", "health_check"] {
            let mut answer = full_service();
            answer[place]["observed"] = json!({});
            let problems = service(answer, Spelling::Json, "new").unwrap_err();
            assert_eq!(problems[0].field, format!("services[web].{place}.observed"));
        }
        let id = "10.0.0.1:80".parse().unwrap();
        for name in NOT_CONFIGURED {
            let problems = weight(json!({"weight": 1, name: 2}), "web", id).unwrap_err();
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            let field = format!("services[web].backends[10.0.0.1:80].{name}");
            assert_eq!(lines, [format!("{field} is 2: expected a known field: weight")]);
        }
        let answer = json!({"name": "p", "addresses": ["10.0.0.9"], "observed": 7, "change": null});
        assert_eq!(pool(answer, Spelling::Json, "new").unwrap().addresses.len(), 1);
    }

    #[test]
    fn observed_fields_are_not_accepted() {
        let body =
            json!({"address": "10.0.0.1", "port": 80, "weight": 65_536, "health": "healthy"});
        let problems = backend(body, "web", "new").unwrap_err();
        assert_eq!(
            problems[0].to_string(),
            "services[web].backends[10.0.0.1:80].weight is 65536: expected 0 to 65535"
        );
        assert!(problems[1].field.ends_with(".health"), "{problems:?}");
        assert!(problems[1].expected.contains("observed"), "{problems:?}");
    }

    #[test]
    fn lists_have_the_names_of_their_spelling() {
        let toml = json!({"pool": [{"name": "p"}], "service": [{"name": "s", "backend": [1]}]});
        let json = json!({"pools": [{"name": "p"}], "services": [{"name": "s", "backends": [1]}]});
        assert_eq!(respell(toml.clone(), Spelling::Toml, Spelling::Json), json);
        assert_eq!(respell(json.clone(), Spelling::Json, Spelling::Json), json);
        assert_eq!(respell(json, Spelling::Json, Spelling::Toml), toml);
    }
}
