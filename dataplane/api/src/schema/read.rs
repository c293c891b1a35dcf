//! Typed resources from JSON values, by what their types declare: everything that is wrong at once, each
//! with field, value and what would be accepted. serde alone would stop at the first thing that it does
//! not like, and name Rust's types.

use std::net::{IpAddr, Ipv6Addr};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::words::{AN_OBJECT, nearest, shown};
use super::{Field, Kind, Object, Resource};
use crate::family::{NOT_YET, supported};
use crate::problems::{Problem, Problems, label};

/// How a list of resources is called: many in JSON, one per table in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `services`, `backends`, `pools`.
    Json,
    /// `[[service]]`, `[[service.backend]]`, `[[pool]]`.
    Toml,
}

impl Spelling {
    /// How the list of all resources of a kind is called.
    pub const fn list_of<R: Resource>(self) -> &'static str {
        match self {
            Spelling::Json => R::MANY,
            Spelling::Toml => R::ONE,
        }
    }

    /// How a field is called.
    pub fn of(self, field: &Field) -> &str {
        let holds_resources =
            matches!(&field.kind, Kind::List(of) if matches!(**of, Kind::Object(_)));
        match self {
            Spelling::Toml if holds_resources => field.name.trim_end_matches('s'),
            _ => &field.name,
        }
    }
}

/// What answers tell of a resource beside its fields. It is ignored wherever a resource is read, so
/// that what was answered can be sent back.
pub const NOT_CONFIGURED: [&str; 2] = ["observed", "change"];

/// What is to be read, and how.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    /// What it declares.
    pub object: &'a Object,
    /// Where it stands, as problems name it.
    pub path: &'a str,
    /// What its lists are called.
    pub spelling: Spelling,
    /// Whether it is a resource, which has [`NOT_CONFIGURED`] beside its fields in answers.
    pub is_resource: bool,
}

/// A value that declares its fields as `read` tells, or everything that is wrong with them. What is out
/// of range and can be held all the same is left to the rules of the whole, which say more at once.
///
/// # Errors
/// What is wrong.
pub fn read<T: DeserializeOwned>(mut value: Value, read: Read) -> Result<T, Problems> {
    let Read { object, path, spelling, is_resource } = read;
    let mut reader = Reader { spelling, problems: Problems::default(), cannot_be_held: false };
    reader.object(&mut value, object, path, is_resource);
    if reader.cannot_be_held {
        return Err(reader.problems);
    }
    serde_json::from_value(value).map_err(|error| {
        if reader.problems.is_empty() {
            Problem::new(path, "otherwise", error.to_string()).into()
        } else {
            reader.problems
        }
    })
}

struct Reader {
    spelling: Spelling,
    problems: Problems,
    /// Whether one of them keeps the value from being that of a type.
    cannot_be_held: bool,
}

impl Reader {
    fn wrong(&mut self, problem: impl FnOnce() -> Problem) {
        self.cannot_be_held = true;
        self.problems.push_with(problem);
    }

    /// Looks at all fields of an object, and gives it the names that serde knows.
    fn object(&mut self, value: &mut Value, object: &Object, path: &str, is_resource: bool) {
        let Value::Object(map) = value else {
            self.wrong(|| Problem::new(path, shown(value), AN_OBJECT));
            return;
        };
        if is_resource {
            NOT_CONFIGURED.iter().for_each(|name| drop(map.remove(*name)));
        }
        for field in &object.fields {
            let name = self.spelling.of(field);
            match map.get_mut(name) {
                Some(Value::Null) if field.is_nullable => {}
                Some(value) => self.field(value, field, path),
                None if field.is_required => {
                    let expected = field.accepted_in(self.spelling);
                    self.wrong(|| Problem::new(format!("{path}.{name}"), "absent", expected));
                }
                None => {}
            }
        }
        self.unknown(map, object, path);
        for field in &object.fields {
            let name = self.spelling.of(field);
            if name != field.name
                && let Some(value) = map.remove(name)
            {
                map.insert(field.name.clone(), value);
            }
        }
    }

    fn field(&mut self, value: &mut Value, field: &Field, path: &str) {
        let name = self.spelling.of(field);
        match (&field.kind, value) {
            (Kind::Object(object), value) => {
                self.object(value, object, &format!("{path}.{name}"), false);
            }
            (Kind::List(of), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    match &**of {
                        Kind::Object(object) => {
                            let label = label_of(item, object, &format!("#{}", index + 1));
                            self.object(item, object, &format!("{path}.{name}[{label}]"), true);
                        }
                        of => self.plain(item, of, field, path),
                    }
                }
            }
            (Kind::List(_), value) => {
                let expected = field.accepted_in(self.spelling);
                self.wrong(|| Problem::new(format!("{path}.{name}"), shown(value), expected));
            }
            (kind, value) => self.plain(value, kind, field, path),
        }
    }

    /// Looks at a value without parts.
    fn plain(&mut self, value: &Value, kind: &Kind, field: &Field, path: &str) {
        let (can_be_held, is_accepted) = match kind {
            Kind::Text => both(value.is_string()),
            Kind::Address => {
                let address = address(value);
                (address.is_some(), address.is_some_and(|address| supported(address).is_ok()))
            }
            Kind::Word(words) => both(words.iter().any(|word| value == word)),
            Kind::Integer { least, most, holds } => {
                let number = value.as_u64().filter(|number| number <= holds);
                (number.is_some(), number.is_some_and(|number| (*least..=*most).contains(&number)))
            }
            Kind::List(_) | Kind::Object(_) => both(false),
        };
        if !is_accepted {
            self.cannot_be_held |= !can_be_held;
            let name = self.spelling.of(field);
            self.problems.push_with(|| {
                let path = format!("{path}.{name}");
                match (kind, address(value)) {
                    (Kind::Address, Some(address)) => Problem::new(path, address, NOT_YET),
                    _ => Problem::new(path, shown(value), field.accepted()),
                }
            });
        }
    }

    /// Reports what nobody declares.
    fn unknown(&mut self, map: &Map<String, Value>, object: &Object, path: &str) {
        let spelling = self.spelling;
        let is_known = |name: &str| object.fields.iter().any(|field| spelling.of(field) == name);
        for (name, value) in map.iter().filter(|(name, _)| !is_known(name)) {
            self.wrong(|| {
                let field = format!("{path}.{}", label(name));
                Problem::new(field, shown(value), expected_of(name, object, spelling))
            });
        }
    }
}

fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn both(holds: bool) -> (bool, bool) {
    (holds, holds)
}

/// What should stand in the place of a field that there is not.
fn expected_of(name: &str, object: &Object, spelling: Spelling) -> String {
    if let Some(observed) = &object.observed
        && name.starts_with(observed)
    {
        return format!("no such field: {observed} is observed, not configured");
    }
    let known: Vec<&str> = object.fields.iter().map(|field| spelling.of(field)).collect();
    let meant = nearest(name, known.iter().copied());
    let meant = meant.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    format!("a known field: {}{meant}", known.join(", "))
}

/// How an object is called in paths: by its name where it declares one, else by its address and port,
/// as the rules call it; `otherwise` where these are missing.
pub(crate) fn label_of(value: &Value, object: &Object, otherwise: &str) -> String {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if object.field("name").is_some() {
        return label(text("name").unwrap_or(otherwise));
    }
    match (text("address"), value.get("port")) {
        (Some(address), Some(port)) => match address.parse::<Ipv6Addr>() {
            Ok(address) => label(&format!("[{address}]:{port}")),
            Err(_) => label(&format!("{address}:{port}")),
        },
        _ => label(otherwise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, BackendId, Pool, Service};
    use serde_json::json;

    fn told(value: Value) -> Vec<String> {
        let read = Read {
            object: Service::object(),
            path: "s",
            spelling: Spelling::Json,
            is_resource: true,
        };
        match super::read::<Service>(value, read) {
            Ok(service) => vec![service.name],
            Err(problems) => problems.lines().collect(),
        }
    }

    fn good() -> Value {
        json!({"name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr"})
    }

    #[test]
    fn names_that_are_nearly_right_are_told() {
        let mut value = good();
        value["schedular"] = json!("wrr");
        value["colour"] = json!(7);
        let told = told(value);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("s.colour is 7: expected a known field: name, vip,"),
            "{told:?}"
        );
        assert!(told[0].ends_with("backends"), "{told:?}");
        assert!(told[1].ends_with("; did you mean scheduler?"), "{told:?}");
    }

    /// The rules tell of them together with all else.
    #[test]
    fn what_is_out_of_range_is_left_to_the_rules_when_nothing_else_is_wrong() {
        let mut value = good();
        value["port"] = json!(0);
        assert_eq!(told(value.clone()), ["web"]);
        value["mode"] = json!("nat");
        assert_eq!(
            told(value),
            [
                "s.port is 0: expected 1 to 65535",
                "s.mode is \"nat\": expected \"full-nat\" or \"dr\""
            ]
        );
    }

    /// In the words of the rules, which tell of it when nothing else is wrong.
    #[test]
    fn an_ipv6_address_is_told_beside_all_else() {
        let mut value = good();
        value["vip"] = json!("fd00::1");
        assert_eq!(told(value.clone()), ["web"]);
        value["protocol"] = json!("sctp");
        value["backends"] =
            json!([{"address": "::FFFF:10.0.0.1", "port": 7}, {"address": "fe80::1%1", "port": 7}]);
        assert_eq!(
            told(value),
            [
                "s.vip is fd00::1: expected an IPv4 address, as IPv6 is not supported yet",
                "s.protocol is \"sctp\": expected \"tcp\" or \"udp\"",
                "s.backends[[::ffff:10.0.0.1]:7].address is ::ffff:10.0.0.1: expected an IPv4 address, as IPv6 is not supported yet",
                "s.backends[fe80::1%1:7].address is \"fe80::1%1\": expected an IPv4 address, as \"10.0.0.1\"",
            ]
        );
    }

    #[test]
    fn what_has_a_name_is_called_by_it_and_a_backend_by_address_and_port() {
        let label = |value, object| label_of(&value, object, "new");
        let at = |address: &str| json!({"name": "x", "address": address, "port": 80});
        assert_eq!(label(at("10.0.0.1"), Backend::object()), "10.0.0.1:80");
        assert_eq!(label(at("10.0.0.1"), Service::object()), "x");
        assert_eq!(label(at("10.0.0.1"), Pool::object()), "x");
        assert_eq!(label(json!({"name": "x", "port": 80}), Backend::object()), "new");
        let nameless = json!({"address": "10.0.0.1", "port": 80});
        assert_eq!(label(nameless.clone(), Service::object()), "new");
        assert_eq!(label(nameless, Pool::object()), "new");
        // As the rules call them.
        for address in ["fd00::1", "FD00:0::1", "::ffff:10.0.0.1"] {
            let id = BackendId { address: address.parse().unwrap(), port: 80 };
            assert_eq!(label(at(address), Backend::object()), id.to_string());
        }
    }

    #[test]
    fn what_is_no_object_or_no_list_is_told_so() {
        assert_eq!(told(json!([1])), ["s is [1]: expected an object with named fields"]);
        let mut value = good();
        value["timeouts"] = json!(7);
        value["health_check"] = json!({"expected_status": 200});
        value["backends"] = json!({});
        assert_eq!(
            told(value),
            [
                "s.timeouts is 7: expected an object with named fields",
                "s.health_check.expected_status is 200: expected an array, each element codes from 100 to 599",
                "s.backends is {}: expected an array of backends",
            ]
        );
    }
}
