//! What differs between two states, resource by resource and field by field, for people and
//! programs to read: what a file changes, what `apply` did or would do.

use std::collections::HashSet;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_api::FieldChange;

use super::{HasName, Named, State};

/// A resource that is not the same in both states, or is of interest all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// `pool` or `service`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Change,
    /// Its fields that changed; empty unless it did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// What happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there before.
    Created,
    /// Some fields differ.
    Changed,
    /// It is not there any more.
    Deleted,
    /// It is as before.
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::Created => "created",
            Change::Changed => "changed",
            Change::Deleted => "deleted",
            Change::Unchanged => "unchanged",
        })
    }
}

impl Difference {
    /// One line per field, or one for the whole; each names the resource.
    pub fn lines(&self) -> Vec<String> {
        let Difference { kind, name, change, fields } = self;
        if fields.is_empty() {
            return vec![format!("{kind} {name}: {change}")];
        }
        fields.iter().map(|field| format!("{kind} {name}: {field}")).collect()
    }
}

/// The changes in a few words: the first of them by name.
pub fn summary(changes: &[Difference]) -> String {
    const NAMED: usize = 5;
    let mut changed = changes.iter().filter(|d| d.change != Change::Unchanged);
    let told =
        |Difference { kind, name, change, .. }: &Difference| format!("{kind} {name} {change}");
    let named: Vec<String> = changed.by_ref().take(NAMED).map(told).collect();
    match (named.is_empty(), changed.count()) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => named.join(", "),
        (false, more) => format!("{} and {more} more", named.join(", ")),
    }
}

/// Everything that differs: pools first, each kind in the order of `new`, then what is gone.
pub fn diff(old: &State, new: &State) -> Vec<Difference> {
    let mut all = compare("pool", &old.pools, &new.pools);
    all.extend(compare("service", &old.services, &new.services));
    all.retain(|difference| difference.change != Change::Unchanged);
    all
}

/// How the resources of one kind differ; those that are the same are there too.
pub fn compare<T: HasName + Serialize + Eq>(
    kind: &'static str,
    old: &Named<T>,
    new: &Named<T>,
) -> Vec<Difference> {
    let mut all = Vec::new();
    for item in new.shared() {
        let (change, fields) = match old.get_shared(item.name()) {
            None => (Change::Created, Vec::new()),
            Some(held) if held == item => (Change::Unchanged, Vec::new()),
            Some(held) => match fields_of(&as_value(&**held), &as_value(&**item)) {
                // Only the order of a list.
                fields if fields.is_empty() => (Change::Unchanged, fields),
                fields => (Change::Changed, fields),
            },
        };
        all.push(Difference { kind, name: item.name().to_owned(), change, fields });
    }
    for item in old.iter().filter(|item| new.get(item.name()).is_none()) {
        let (name, change) = (item.name().to_owned(), Change::Deleted);
        all.push(Difference { kind, name, change, fields: Vec::new() });
    }
    all
}

/// A resource as JSON; what derives `Serialize` with string keys always is some.
pub fn as_value<T: Serialize>(resource: &T) -> Value {
    serde_json::to_value(resource).unwrap_or_default()
}

/// The fields by which two resources of one kind differ.
pub fn fields_of(from: &Value, to: &Value) -> Vec<FieldChange> {
    let mut fields = Vec::new();
    differ("", from, to, &mut fields);
    fields
}

fn differ(path: &str, from: &Value, to: &Value, fields: &mut Vec<FieldChange>) {
    if from == to {
        return;
    }
    let child = |name: &str| {
        if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
    };
    match (from, to) {
        (Value::Object(old), Value::Object(new)) => {
            for name in names(&[old, new]) {
                differ(&child(name), member(old, name), member(new, name), fields);
            }
        }
        (Value::Array(old), Value::Array(new)) if path == "backends" => {
            let (old, new) = (by_id(old), by_id(new));
            for id in names(&[&old, &new]) {
                differ(&format!("{path}[{id}]"), member(&old, id), member(&new, id), fields);
            }
        }
        _ => {
            fields.push(FieldChange { field: path.to_owned(), from: from.clone(), to: to.clone() })
        }
    }
}

/// A member of an object, or `null`.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

/// The names of all members of some objects, each once, in order of first sight.
pub fn names<'a>(objects: &[&'a Map<String, Value>]) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    let all = objects.iter().flat_map(|object| object.keys());
    all.map(String::as_str).filter(|name| seen.insert(*name)).collect()
}

/// Backends by their identity.
pub fn by_id(backends: &[Value]) -> Map<String, Value> {
    backends.iter().map(|backend| (id_of(backend), backend.clone())).collect()
}

/// The identity of a backend.
pub fn id_of(backend: &Value) -> String {
    format!("{}:{}", backend["address"].as_str().unwrap_or_default(), backend["port"])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::json;
    use sluice_api::Pool;

    fn service(name: &str, changes: Value) -> sluice_api::Service {
        let mut value = json!({
            "name": name, "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "backends": [
                {"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 80}
            ]
        });
        value.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_field_that_differs_is_named() {
        let state = |services: Vec<_>, pools: &[(&str, u8)]| State {
            version: 1,
            services: Named::from(services),
            pools: pools
                .iter()
                .map(|(n, a)| Arc::new(Pool::new(*n, vec![[10, 9, 0, *a].into()])))
                .collect(),
        };
        let old = state(vec![service("a", json!({})), service("gone", json!({}))], &[("p", 1)]);
        let new = state(
            vec![
                service(
                    "a",
                    json!({
                        "port": 81, "max_conns": 5, "health_check": {},
                        "timeouts": {"tcp_closed_ms": 1},
                        "backends": [
                            {"address": "10.0.0.2", "port": 80, "state": "drain"},
                            {"address": "10.0.0.3", "port": 80}
                        ]
                    }),
                ),
                service("new", json!({})),
            ],
            &[("p", 2)],
        );
        let lines: Vec<String> = diff(&old, &new).iter().flat_map(Difference::lines).collect();
        let mut expected = [
            "pool p: addresses: [\"10.9.0.1\"] -> [\"10.9.0.2\"]",
            "service a: backends[10.0.0.1:80]: removed",
            "service a: backends[10.0.0.2:80].state: \"up\" -> \"drain\"",
            "service a: backends[10.0.0.3:80]: added",
            "service a: health_check: added",
            "service a: max_conns: none -> 5",
            "service a: port: 80 -> 81",
            "service a: timeouts.tcp_closed_ms: 2000 -> 1",
            "service gone: deleted",
            "service new: created",
        ];
        expected.sort_unstable();
        let mut sorted = lines.clone();
        sorted.sort();
        assert_eq!(sorted, expected);
        assert!(lines[0].starts_with("pool"), "{lines:?}");
        assert_eq!(diff(&old, &old), []);
    }
}
