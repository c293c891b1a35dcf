//! Who wins, the TOML file or what the API changed: see `docs/adr/0003-file-and-api-state.md`.
//!
//! The file is the initial state. Whatever the API does to it stays, until the file itself says
//! something new: three versions of each field are compared (what the file said before, what it says
//! now, what the state has), and a field that is the same in both files stays as the state has it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_api::{Pool, Problem, Service};

use crate::model::diff::{self, Change, Difference, as_value, by_id, id_of, member, names};
use crate::model::{HasName, Named, State};
use sluice_api::read::shown;

/// What a TOML file held. The definitions themselves, not their hashes: a later version that knows
/// more fields reads old definitions with its defaults and does not take them for changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its services, backends included.
    pub services: Named<Service>,
    /// Its pools.
    pub pools: Named<Pool>,
}

/// A state, and what the file changed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The state to go on with.
    pub state: State,
    /// What the file changed; empty when it has nothing new to say.
    pub changes: Vec<Difference>,
}

/// The stored state with what is new in `file` since it was read last, when it held `before`.
pub fn merge(stored: State, before: &FileRecord, file: &FileRecord) -> Merged {
    let mut state = State {
        version: stored.version,
        services: take(&stored.services, &before.services, &file.services),
        pools: take(&stored.pools, &before.pools, &file.pools),
    };
    // An address that is removed takes its state with it.
    let is_stale = |pool: &&Pool| pool.drained.iter().any(|a| !pool.addresses.contains(a));
    let stale: Vec<String> =
        state.pools.iter().filter(is_stale).map(|pool| pool.name.clone()).collect();
    for name in stale {
        if let Some(Pool { addresses, drained, .. }) = state.pools.get_mut(&name) {
            drained.retain(|address| addresses.contains(address));
        }
    }
    let changes = diff::diff(&stored, &state);
    if changes.is_empty() {
        return Merged { state: stored, changes };
    }
    state.version += 1;
    Merged { state, changes }
}

/// What the file changed, in a few words.
pub fn summary(changes: &[Difference]) -> String {
    format!("the TOML file: {}", diff::summary(changes))
}

impl Merged {
    /// What is wrong with a file that is no operator's word: it named backends to serve by before, names
    /// none now, and would take them away. One that was cut off, or emptied, looks like that.
    pub fn takes_all_away(&self, before: &FileRecord, file: &FileRecord) -> Option<Problem> {
        let serves = |file: &FileRecord| file.services.iter().any(|s| !s.backends.is_empty());
        let takes = self.changes.iter().any(|difference| difference.kind == "service");
        if !takes || !serves(before) || serves(file) {
            return None;
        }
        let names: Vec<&str> = before.services.iter().take(5).map(|s| s.name.as_str()).collect();
        let expected = format!(
            "at least one [[service]] with backends, as the file had before ({}{}): what shall go all \
             at once is deleted over the API, as with `sluice service delete`",
            names.join(", "),
            if before.services.len() > names.len() { ", …" } else { "" },
        );
        Some(Problem::new("service", "none with backends", expected))
    }
}

/// What the state has otherwise than the file says, in words: set at run time, it stays.
pub fn kept(state: &State, file: &FileRecord) -> Vec<String> {
    let pools = diff::compare("pool", &file.pools, &state.pools);
    let services = diff::compare("service", &file.services, &state.services);
    let mut lines = Vec::new();
    for Difference { kind, name, change, fields } in pools.into_iter().chain(services) {
        match change {
            Change::Created => lines.push(format!("{kind} {name}: stays, made at run time")),
            Change::Deleted => lines.push(format!("{kind} {name}: stays deleted at run time")),
            Change::Unchanged => {}
            Change::Changed => lines.extend(fields.iter().map(|f| match (&f.from, &f.to) {
                (Value::Null, Value::Object(_)) => {
                    format!("{kind} {name}: {}: stays, made at run time", f.field)
                }
                (Value::Object(_), Value::Null) => {
                    format!("{kind} {name}: {}: stays removed at run time", f.field)
                }
                (said, is) => format!(
                    "{kind} {name}: {}: stays {}, set at run time (the file says {})",
                    f.field,
                    shown(is),
                    shown(said)
                ),
            })),
        }
    }
    lines
}

fn take<T: HasName + Clone + Eq + Serialize + DeserializeOwned>(
    held: &Named<T>,
    before: &Named<T>,
    file: &Named<T>,
) -> Named<T> {
    let mut taken = Vec::new();
    for item in held.shared() {
        match (before.get_shared(item.name()), file.get_shared(item.name())) {
            // It left the file.
            (Some(_), None) => {}
            (None, None) => taken.push(item.clone()),
            (before, Some(now)) if before == Some(now) => taken.push(item.clone()),
            (before, Some(now)) => {
                taken.push(merged(before.map(Arc::as_ref), now, item).into());
            }
        }
    }
    // New in the file; or deleted at run time, and the file has something new to say of it.
    let is_new = |item: &&Arc<T>| {
        held.get(item.name()).is_none() && before.get_shared(item.name()) != Some(*item)
    };
    taken.extend(file.shared().iter().filter(is_new).cloned());
    taken.into_iter().collect()
}

/// One resource of three: fields that the file says otherwise than before are as it says now.
fn merged<T: Clone + PartialEq + Serialize + DeserializeOwned>(
    before: Option<&T>,
    now: &T,
    held: &T,
) -> T {
    // New in the file and there already: all that it says is new.
    let Some(before) = before else { return now.clone() };
    let (before, now_value, held) = (as_value(before), as_value(now), as_value(held));
    // Each part is one that was read; should they not fit, the file is right.
    serde_json::from_value(merge_value("", &before, &now_value, &held))
        .unwrap_or_else(|_| now.clone())
}

fn merge_value(field: &str, before: &Value, now: &Value, held: &Value) -> Value {
    if before == now {
        return held.clone();
    }
    match (before, now, held) {
        (Value::Object(before), Value::Object(now), Value::Object(held)) => {
            Value::Object(merge_members(before, now, held))
        }
        (Value::Array(before), Value::Array(now), Value::Array(held)) if field == "backends" => {
            let mut merged = merge_members(&by_id(before), &by_id(now), &by_id(held));
            // In the order of the state, then of the file.
            let order = held.iter().chain(now).map(id_of);
            Value::Array(order.filter_map(|id| merged.remove(&id)).collect())
        }
        (Value::Array(before), Value::Array(now), Value::Array(held))
            if matches!(field, "addresses" | "drained") =>
        {
            Value::Array(merge_sets(before, now, held))
        }
        // `drained` is absent when it is empty.
        (_, _, _) if field == "drained" => {
            let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
            Value::Array(merge_sets(&list(before), &list(now), &list(held)))
        }
        _ => now.clone(),
    }
}

fn merge_members(
    before: &Map<String, Value>,
    now: &Map<String, Value>,
    held: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = Map::new();
    for name in names(&[held, now]) {
        let value = merge_value(name, member(before, name), member(now, name), member(held, name));
        if !value.is_null() {
            merged.insert(name.to_owned(), value);
        }
    }
    merged
}

/// What is held, without what left the file and with what came to it.
fn merge_sets(before: &[Value], now: &[Value], held: &[Value]) -> Vec<Value> {
    let stays = |item: &&Value| !before.contains(item) || now.contains(item);
    let mut merged: Vec<Value> = held.iter().filter(stays).cloned().collect();
    let is_new = |item: &&Value| !before.contains(item) && !held.contains(item);
    merged.extend(now.iter().filter(is_new).cloned());
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(name: &str, last: u8) -> Pool {
        Pool::new(name, vec![[10, 0, 0, last].into()])
    }

    fn lines(changes: &[Difference]) -> Vec<String> {
        changes.iter().flat_map(Difference::lines).collect()
    }

    #[test]
    fn the_api_stays_until_the_file_says_something_new() {
        let file = |pools: &[Pool]| FileRecord {
            services: Named::default(),
            pools: pools.to_vec().into(),
        };
        let before =
            file(&[pool("kept", 1), pool("edited", 2), pool("deleted-by-api", 3), pool("gone", 4)]);
        let stored = State {
            version: 9,
            services: Named::default(),
            pools: vec![pool("kept", 11), pool("edited", 2), pool("gone", 4), pool("api", 5)]
                .into(),
        };

        let same = merge(stored.clone(), &before, &before);
        assert_eq!(same, Merged { state: stored.clone(), changes: vec![] });

        let now =
            file(&[pool("kept", 1), pool("edited", 22), pool("deleted-by-api", 3), pool("new", 6)]);
        let changed = merge(stored.clone(), &before, &now);
        assert_eq!(changed.state.version, 10);
        assert_eq!(
            changed.state.pools.to_vec(),
            [pool("kept", 11), pool("edited", 22), pool("api", 5), pool("new", 6)]
        );
        assert_eq!(
            lines(&changed.changes),
            [
                "pool edited: addresses: [\"10.0.0.2\"] -> [\"10.0.0.22\"]",
                "pool new: created",
                "pool gone: deleted",
            ]
        );
        assert_eq!(
            kept(&changed.state, &now),
            [
                "pool kept: addresses: stays [\"10.0.0.11\"], set at run time (the file says \
                 [\"10.0.0.1\"])",
                "pool api: stays, made at run time",
                "pool deleted-by-api: stays deleted at run time",
            ]
        );
        // What was deleted at run time comes back once the file says something new of it.
        let again = file(&[pool("deleted-by-api", 33)]);
        let merged = merge(State::default(), &file(&[pool("deleted-by-api", 3)]), &again);
        assert_eq!(merged.state.pools, again.pools);
    }

    fn web(changes: &[(&str, Value)]) -> Value {
        let mut value = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "health_check": {"interval_ms": 1_000},
            "backends": [
                {"address": "10.0.0.1", "port": 80, "weight": 50},
                {"address": "10.0.0.2", "port": 80}
            ]
        });
        for (pointer, change) in changes {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            match value.pointer_mut(parent).unwrap() {
                Value::Array(list) => list.push(change.clone()),
                parent => parent[name] = change.clone(),
            }
        }
        value
    }

    fn service(changes: &[(&str, Value)]) -> Service {
        serde_json::from_value(web(changes)).unwrap()
    }

    /// The table of cases: what the file said, says, what the state has, and what comes of it.
    #[test]
    fn a_field_is_taken_from_the_file_only_if_the_file_changed_it() {
        let third = || ("/backends/-", json!({"address": "10.0.0.3", "port": 80}));
        let drained = || ("/backends/1/state", json!("drain"));
        let weight = |w: u16| ("/backends/0/weight", json!(w));
        let cases = [
            // A new backend undoes neither a drain nor a weight.
            (
                vec![],
                vec![third()],
                vec![drained(), weight(7)],
                vec![drained(), weight(7), third()],
            ),
            // The file changes the very field that was set at run time.
            (vec![], vec![weight(60)], vec![weight(7), drained()], vec![weight(60), drained()]),
            (vec![drained()], vec![], vec![drained(), weight(7)], vec![weight(7)]),
            // A backend that leaves the file goes; one that was made at run time stays.
            (vec![third()], vec![], vec![third(), weight(7)], vec![weight(7)]),
            (vec![], vec![weight(60)], vec![third()], vec![weight(60), third()]),
            // Fields of the service and of its parts, one by one.
            (
                vec![],
                vec![("/port", json!(81))],
                vec![("/max_conns", json!(5)), ("/health_check/rise", json!(9))],
                vec![
                    ("/port", json!(81)),
                    ("/max_conns", json!(5)),
                    ("/health_check/rise", json!(9)),
                ],
            ),
            (
                vec![],
                vec![("/health_check/interval_ms", json!(3_000))],
                vec![("/health_check/rise", json!(9))],
                vec![("/health_check/interval_ms", json!(3_000)), ("/health_check/rise", json!(9))],
            ),
            // Taken out of the file: absent.
            (
                vec![("/max_conns", json!(5))],
                vec![],
                vec![("/max_conns", json!(6)), weight(7)],
                vec![weight(7)],
            ),
            (
                vec![],
                vec![("/health_check", Value::Null)],
                vec![("/health_check/rise", json!(9)), weight(7)],
                vec![("/health_check", Value::Null), weight(7)],
            ),
        ];
        for (before, now, held, expected) in cases {
            let file = |changes: &[_]| FileRecord {
                services: vec![service(changes)].into(),
                ..FileRecord::default()
            };
            let state = State { services: vec![service(&held)].into(), ..State::default() };
            let merged = merge(state, &file(&before), &file(&now));
            assert_eq!(
                merged.state.services.to_vec(),
                [service(&expected)],
                "{now:?} with {held:?}"
            );
        }
    }

    #[test]
    fn addresses_of_a_pool_come_and_go_one_by_one() {
        let pool = |addresses: &[u8], drained: &[u8]| {
            let all = |list: &[u8]| list.iter().map(|n| [10, 0, 0, *n].into()).collect::<Vec<_>>();
            Pool { drained: all(drained), ..Pool::new("p", all(addresses)) }
        };
        let file = |pool: Pool| FileRecord { pools: vec![pool].into(), ..FileRecord::default() };
        let state = State { pools: vec![pool(&[1, 2, 7], &[2])].into(), ..State::default() };
        let merged = merge(state, &file(pool(&[1, 2], &[])), &file(pool(&[2, 3], &[])));
        assert_eq!(merged.state.pools.to_vec(), [pool(&[2, 7, 3], &[2])]);
        let merged = merge(merged.state, &file(pool(&[2, 3], &[])), &file(pool(&[2, 3], &[3])));
        assert_eq!(merged.state.pools.to_vec(), [pool(&[2, 7, 3], &[2, 3])]);
    }
}
