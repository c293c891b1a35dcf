//! Typed resources from JSON values: the one place where bodies of requests and the tables of the
//! TOML file become [`Service`], [`Backend`] and [`Pool`].
//!
//! serde stops at the first thing it does not like and names Rust types; an operator wants all of
//! them at once, each with field, value and what would be accepted. So the fields are read by hand,
//! and a test holds them against the serde definitions.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::problems::label;
use crate::service::{self, HealthCheck, default_maglev_slots, default_weight};
use crate::validate::{self, range_text};
use crate::{Backend, BackendId, Pool, Problem, Problems, Service, Timeouts};

/// How a list of resources is called: many in JSON, one per table in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `services`, `backends`, `pools`.
    Json,
    /// `[[service]]`, `[[service.backend]]`, `[[pool]]`.
    Toml,
}

impl Spelling {
    /// The list of services.
    pub const fn services(self) -> &'static str {
        if matches!(self, Spelling::Json) { "services" } else { "service" }
    }
    /// The list of backends.
    pub const fn backends(self) -> &'static str {
        if matches!(self, Spelling::Json) { "backends" } else { "backend" }
    }
    /// The list of pools.
    pub const fn pools(self) -> &'static str {
        if matches!(self, Spelling::Json) { "pools" } else { "pool" }
    }
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

/// What answers tell of a resource beside its fields. It is ignored wherever a resource is read, so
/// that what was answered can be sent back.
pub const NOT_CONFIGURED: [&str; 2] = ["observed", "change"];

/// A service, or everything that is wrong with its fields. `label` stands in paths for a name that
/// is missing.
pub fn service(value: Value, spelling: Spelling, label: &str) -> Result<Service, Problems> {
    let path = format!("{}[{}]", spelling.services(), name_of(&value, label));
    finish(|problems| read_service(value, &path, spelling, problems))
}

/// A pool, or everything that is wrong with its fields.
pub fn pool(value: Value, spelling: Spelling, label: &str) -> Result<Pool, Problems> {
    let path = format!("{}[{}]", spelling.pools(), name_of(&value, label));
    finish(|problems| {
        let mut fields = Fields::of_resource(value, &path, problems)?;
        let name = fields.required("name", text, "a string");
        let addresses = fields.list("addresses", None, address, ADDRESS);
        let drained = fields.list("drained", Some(Vec::new()), address, ADDRESS);
        fields.close();
        Some(Pool { name: name?, addresses: addresses?, drained: drained? })
    })
}

/// A backend of a service, or everything that is wrong with its fields.
pub fn backend(value: Value, service: &str, label: &str) -> Result<Backend, Problems> {
    let path = format!("services[{service}].backends[{}]", backend_name(&value, label));
    finish(|problems| read_backend(value, &path, problems))
}

/// The weight in a body `{"weight": N}`, or everything that is wrong with it.
pub fn weight(value: Value, service: &str, id: BackendId) -> Result<u16, Problems> {
    let path = format!("services[{service}].backends[{id}]");
    finish(|problems| {
        let mut fields = Fields::open(value, &path, problems)?;
        let weight = fields.required("weight", number, WEIGHT);
        fields.close();
        weight
    })
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

const WEIGHT: &str = "0 to 65535";
const MAX_CONNS: &str = "1 to 4294967295";
/// What a [`Refusal`](crate::Refusal) may be.
pub const REFUSAL: &str = "\"reset\", \"unreachable\" or \"drop\"";
const PORT: &str = "1 to 65535";
const ADDRESS: &str = "an IPv4 address, as \"10.0.0.1\"";

fn read_service(
    value: Value,
    path: &str,
    spelling: Spelling,
    problems: &mut Problems,
) -> Option<Service> {
    let mut fields = Fields::of_resource(value, path, problems)?;
    let name = fields.required("name", text, "a string");
    let vip = fields.required("vip", address, ADDRESS);
    let port = fields.required("port", number, PORT);
    let protocol = fields.required("protocol", word, "\"tcp\" or \"udp\"");
    let mode = fields.required("mode", word, "\"full-nat\" or \"dr\"");
    let scheduler =
        fields.or_default("scheduler", word, "\"maglev\", \"wrr\", \"wlc\" or \"source-hash\"");
    let hash_on = fields.or_default("hash_on", word, "\"source\" or \"5-tuple\"");
    let slots = format!("a prime from {}", range_text(&validate::MAGLEV_SLOTS));
    let maglev_slots = fields.or("maglev_slots", default_maglev_slots(), number, &slots);
    let max_conns = fields.option("max_conns", limit, MAX_CONNS);
    let pool = fields.option("pool", text, "the name of a pool");
    let no_conn = fields.option("no_conn", word, "\"reset\" or \"drop\"");
    let no_backend = fields.or_default("no_backend", word, REFUSAL);
    let timeouts = match fields.take("timeouts") {
        Some(value) => read_timeouts(value, &format!("{path}.timeouts"), fields.problems),
        None => Some(Timeouts::default()),
    };
    let health_check = match fields.take("health_check") {
        None | Some(Value::Null) => None,
        Some(value) => read_check(value, &format!("{path}.health_check"), fields.problems),
    };
    let backends = match fields.take(spelling.backends()) {
        Some(value) => read_backends(value, path, spelling, fields.problems),
        None => Vec::new(),
    };
    fields.close();
    Some(Service {
        name: name?,
        vip: vip?,
        port: port?,
        protocol: protocol?,
        mode: mode?,
        scheduler,
        hash_on,
        maglev_slots,
        max_conns,
        pool,
        no_conn,
        no_backend,
        timeouts: timeouts?,
        health_check,
        backends,
    })
}

fn read_backends(
    value: Value,
    path: &str,
    spelling: Spelling,
    problems: &mut Problems,
) -> Vec<Backend> {
    let Value::Array(items) = value else {
        let expected = match spelling {
            Spelling::Json => "an array of backends",
            Spelling::Toml => "tables of the form [[service.backend]]",
        };
        let field = format!("{path}.{}", spelling.backends());
        problems.push(Problem::new(field, shown(&value), expected));
        return Vec::new();
    };
    let read = |(index, item): (usize, Value)| {
        let label = backend_name(&item, &format!("#{}", index + 1));
        read_backend(item, &format!("{path}.{}[{label}]", spelling.backends()), problems)
    };
    items.into_iter().enumerate().filter_map(read).collect()
}

fn read_backend(value: Value, path: &str, problems: &mut Problems) -> Option<Backend> {
    let mut fields = Fields::of_resource(value, path, problems)?;
    let address = fields.required("address", address, ADDRESS);
    let port = fields.required("port", number, PORT);
    let weight = fields.or("weight", default_weight(), number, WEIGHT);
    let max_conns = fields.option("max_conns", limit, MAX_CONNS);
    let zone = fields.option("zone", text, "a string");
    let state = fields.or_default("state", word, "\"up\", \"drain\" or \"down\"");
    fields.close();
    Some(Backend { address: address?, port: port?, weight, max_conns, zone, state })
}

fn read_timeouts(value: Value, path: &str, problems: &mut Problems) -> Option<Timeouts> {
    let mut fields = Fields::open(value, path, problems)?;
    let ms = format!("1 to {} ms", validate::MAX_TIMEOUT_MS);
    let default = Timeouts::default();
    let mut read = |name, default| fields.or(name, default, number, &ms);
    let timeouts = Timeouts {
        tcp_syn_sent_ms: read("tcp_syn_sent_ms", default.tcp_syn_sent_ms),
        tcp_syn_received_ms: read("tcp_syn_received_ms", default.tcp_syn_received_ms),
        tcp_established_ms: read("tcp_established_ms", default.tcp_established_ms),
        tcp_fin_wait_ms: read("tcp_fin_wait_ms", default.tcp_fin_wait_ms),
        tcp_last_ack_ms: read("tcp_last_ack_ms", default.tcp_last_ack_ms),
        tcp_time_wait_ms: read("tcp_time_wait_ms", default.tcp_time_wait_ms),
        tcp_closed_ms: read("tcp_closed_ms", default.tcp_closed_ms),
        udp_one_way_ms: read("udp_one_way_ms", default.udp_one_way_ms),
        udp_two_way_ms: read("udp_two_way_ms", default.udp_two_way_ms),
    };
    fields.close();
    Some(timeouts)
}

fn read_check(value: Value, path: &str, problems: &mut Problems) -> Option<HealthCheck> {
    let mut fields = Fields::open(value, path, problems)?;
    let default = HealthCheck::default();
    let counts = range_text(&service::RISE_FALL);
    let interval = format!("{} ms", range_text(&service::INTERVAL_MS));
    let timeout = format!("{} ms to interval_ms", service::MIN_TIMEOUT_MS);
    let codes = format!("codes from {}", range_text(&service::STATUS));
    let check = HealthCheck {
        kind: fields.or_default("kind", word, "\"tcp\" or \"http\""),
        interval_ms: fields.or("interval_ms", default.interval_ms, number, &interval),
        timeout_ms: fields.or("timeout_ms", default.timeout_ms, number, &timeout),
        rise: fields.or("rise", default.rise, number, &counts),
        fall: fields.or("fall", default.fall, number, &counts),
        port: fields.option("port", number, PORT),
        path: fields.or("path", default.path, text, "a path that starts with '/'"),
        host: fields.option("host", text, "a host name"),
        expected_status: fields
            .list("expected_status", Some(default.expected_status), number, &codes)
            .unwrap_or_default(),
        close: fields.or_default("close", word, "\"reset\" or \"fin\""),
    };
    fields.close();
    Some(check)
}

/// The fields of one object, taken out one by one; what is left at the end is unknown.
struct Fields<'a> {
    path: &'a str,
    map: Map<String, Value>,
    asked: Vec<&'static str>,
    problems: &'a mut Problems,
}

impl<'a> Fields<'a> {
    fn open(value: Value, path: &'a str, problems: &'a mut Problems) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Fields { path, map, asked: Vec::new(), problems }),
            other => {
                problems.push(Problem::new(path, shown(&other), "an object with named fields"));
                None
            }
        }
    }

    /// Those of a service, backend or pool.
    fn of_resource(value: Value, path: &'a str, problems: &'a mut Problems) -> Option<Self> {
        let mut fields = Fields::open(value, path, problems)?;
        for name in NOT_CONFIGURED {
            fields.map.remove(name);
        }
        Some(fields)
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.map.remove(name)
    }

    fn wrong(&mut self, name: &str, value: impl fmt::Display, expected: &str) {
        self.problems.push_with(|| Problem::new(format!("{}.{name}", self.path), value, expected));
    }

    /// A field that must be there.
    fn required<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> Option<T> {
        let Some(value) = self.take(name) else {
            self.wrong(name, "absent", expected);
            return None;
        };
        let read = read(&value);
        if read.is_none() {
            self.wrong(name, Shown(&value), expected);
        }
        read
    }

    /// A field with a default.
    fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> T {
        if self.map.contains_key(name) {
            self.required(name, read, expected).unwrap_or(default)
        } else {
            self.asked.push(name);
            default
        }
    }

    fn or_default<T: Default>(
        &mut self,
        name: &'static str,
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> T {
        self.or(name, T::default(), read, expected)
    }

    /// A field that may be absent or `null`.
    fn option<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> Option<T> {
        match self.take(name)? {
            Value::Null => None,
            value => {
                let read = read(&value);
                if read.is_none() {
                    self.wrong(name, Shown(&value), expected);
                }
                read
            }
        }
    }

    /// A field that holds a list; each wrong element is a problem of its own.
    fn list<T>(
        &mut self,
        name: &'static str,
        default: Option<Vec<T>>,
        read: impl Fn(&Value) -> Option<T>,
        element: &str,
    ) -> Option<Vec<T>> {
        let value = match (self.take(name), default) {
            (Some(value), _) => value,
            (None, Some(default)) => return Some(default),
            (None, None) => {
                self.wrong(name, "absent", &format!("an array, each element {element}"));
                return None;
            }
        };
        let Value::Array(items) = &value else {
            self.wrong(name, Shown(&value), &format!("an array, each element {element}"));
            return None;
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            match read(item) {
                Some(item) => list.push(item),
                None => self.wrong(name, Shown(item), element),
            }
        }
        (list.len() == items.len()).then_some(list)
    }

    /// Report what nobody asked for.
    fn close(self) {
        for (name, value) in &self.map {
            self.problems.push_with(|| {
                let expected = if name.starts_with("health") && self.asked.contains(&"weight") {
                    "no such field: health is observed, not configured".to_owned()
                } else {
                    format!("a known field: {}", self.asked.join(", "))
                };
                let field = format!("{}.{}", self.path, label(name));
                Problem::new(field, shown(value), expected)
            });
        }
    }
}

fn finish<T>(read: impl FnOnce(&mut Problems) -> Option<T>) -> Result<T, Problems> {
    let mut problems = Problems::default();
    match read(&mut problems) {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(problems),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn address(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}

fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_u64()?).ok()
}

fn limit(value: &Value) -> Option<NonZeroU32> {
    NonZeroU32::new(number(value)?)
}

/// A variant of an enum, by its name.
pub fn word<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

/// How a resource is called in paths: by its name if it has one.
fn name_of(value: &Value, otherwise: &str) -> String {
    label(value.get("name").and_then(Value::as_str).unwrap_or(otherwise))
}

fn backend_name(value: &Value, otherwise: &str) -> String {
    match (value.get("address").and_then(Value::as_str), value.get("port")) {
        (Some(address), Some(port)) => label(&format!("{address}:{port}")),
        _ => otherwise.to_owned(),
    }
}

/// A value as it was sent, bounded: it may be as long as a body.
pub fn shown(value: &Value) -> String {
    const MOST: usize = 120;
    let mut text = Beginning(Vec::new());
    // An error says that this is enough of it.
    let is_whole = serde_json::to_writer(&mut text, value).is_ok();
    let text = String::from_utf8_lossy(&text.0);
    if is_whole && text.chars().count() <= MOST {
        return text.into_owned();
    }
    text.chars().take(MOST).chain("…".chars()).collect()
}

/// A value that is [`shown`] if anybody looks.
struct Shown<'v>(&'v Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0))
    }
}

/// The first bytes of what is written; more is refused.
struct Beginning(Vec<u8>);

impl io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /// Those of 120 characters and some.
        const MOST: usize = 1 << 10;
        let room = MOST - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The fields of a URL's backend as a body would hold them.
pub fn identity_fields(id: BackendId) -> [(&'static str, Value); 2] {
    [("address", json!(id.address)), ("port", json!(id.port))]
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

    /// A field added to the serde definition and forgotten here would be lost or refused.
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
}
