//! Many resources that shall be as they are given, in one change: what `sluice apply` sends.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use sluice_api::{Backend, Pool, Problem, Problems, Service};

use super::diff::{Difference, as_value, compare, id_of};
use super::{ApiProblem, Environment, State, check_next};
use sluice_api::read::{self, NOT_CONFIGURED, Spelling};

/// Pools and services as they were sent, each an object that is not read yet. What it leaves out is
/// known only beside the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pools: Vec<Value>,
    services: Vec<Value>,
}

impl Batch {
    /// From `{"pools": [..], "services": [..]}`; either may be left out.
    ///
    /// # Errors
    /// Everything that is wrong with that shape.
    pub fn read(value: Value) -> Result<Batch, Problems> {
        let Value::Object(map) = value else {
            let expected = "an object with the lists \"pools\" and \"services\"";
            return Err(Problem::new("(the body)", read::shown(&value), expected).into());
        };
        let mut batch = Batch::default();
        let mut problems = Problems::default();
        for (key, value) in map {
            let list = match key.as_str() {
                "pools" => &mut batch.pools,
                "services" => &mut batch.services,
                name if NOT_CONFIGURED.contains(&name) => continue,
                _ => {
                    problems.push(Problem::new(key, read::shown(&value), "pools or services"));
                    continue;
                }
            };
            match value {
                Value::Array(items) => *list = items,
                other => problems.push(Problem::new(key, read::shown(&other), "a list")),
            }
        }
        if problems.is_empty() { Ok(batch) } else { Err(problems) }
    }

    /// The state after it, with the version of the old one.
    ///
    /// # Errors
    /// [`ApiProblem::Invalid`] with everything that is wrong.
    pub fn apply(&self, state: &State, environment: &Environment) -> Result<State, ApiProblem> {
        let next = self.clone().put(state.clone()).map_err(ApiProblem::Invalid)?;
        check_next(state, &next, environment)?;
        Ok(next)
    }

    /// The state with these resources. What operators set at run time (weight and state of a
    /// backend, addresses of a pool that are drained) stays where the batch does not name it; all
    /// other fields that are left out get their defaults. What the batch does not name at all stays.
    ///
    /// # Errors
    /// Everything that is wrong with its resources by themselves.
    fn put(self, mut state: State) -> Result<State, Problems> {
        let mut problems = Problems::default();
        let pools = put_list(
            self.pools,
            &mut state.pools,
            "pools",
            &mut problems,
            Kind {
                name: |pool: &Pool| &pool.name,
                read: |value, label| read::pool(value, Spelling::Json, label),
                keep: keep_drained,
            },
        );
        let services = put_list(
            self.services,
            &mut state.services,
            "services",
            &mut problems,
            Kind {
                name: |service: &Service| &service.name,
                read: |value, label| read::service(value, Spelling::Json, label),
                keep: keep_backends,
            },
        );
        state.pools.extend(pools);
        state.services.extend(services);
        if problems.is_empty() { Ok(state) } else { Err(problems) }
    }

    /// What became of each resource of the batch between two states, also of those that did not
    /// change; pools first.
    pub fn effect(&self, old: &State, new: &State) -> Vec<Difference> {
        let named = |list: &[Value]| -> HashSet<String> {
            list.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
        };
        let (pools, services) = (named(&self.pools), named(&self.services));
        let mut effect = compare("pool", &old.pools, &new.pools, |pool| &pool.name);
        effect.retain(|difference| pools.contains(&difference.name));
        let mut more = compare("service", &old.services, &new.services, |s| &s.name);
        more.retain(|difference| services.contains(&difference.name));
        effect.append(&mut more);
        effect
    }
}

/// What is different for pools and services.
struct Kind<T> {
    name: fn(&T) -> &String,
    read: fn(Value, &str) -> Result<T, Problems>,
    /// Fill in what was set at run time.
    keep: fn(&mut Map<String, Value>, &T),
}

/// Replace those that are held, and return those that are new.
fn put_list<T>(
    items: Vec<Value>,
    held: &mut [T],
    list: &str,
    problems: &mut Problems,
    kind: Kind<T>,
) -> Vec<T> {
    let places: HashMap<String, usize> =
        held.iter().enumerate().map(|(place, item)| ((kind.name)(item).clone(), place)).collect();
    let mut seen = HashSet::new();
    let mut new = Vec::new();
    for (index, mut item) in items.into_iter().enumerate() {
        let place = item["name"].as_str().and_then(|name| places.get(name)).copied();
        if let (Some(place), Value::Object(fields)) = (place, &mut item) {
            (kind.keep)(fields, &held[place]);
        }
        match (kind.read)(item, &format!("#{}", index + 1)) {
            Ok(item) => {
                let name = (kind.name)(&item).clone();
                if !seen.insert(name.clone()) {
                    let field = format!("{list}[{name}].name");
                    problems.push(Problem::new(field, format!("{name:?}"), "each name once"));
                }
                match place {
                    Some(place) => held[place] = item,
                    None => new.push(item),
                }
            }
            Err(mut more) => problems.append(&mut more),
        }
    }
    new
}

fn keep_drained(fields: &mut Map<String, Value>, held: &Pool) {
    if fields.contains_key("drained") {
        return;
    }
    let addresses = fields.get("addresses").and_then(Value::as_array).cloned().unwrap_or_default();
    let stays = held.drained.iter().map(as_value).filter(|address| addresses.contains(address));
    let drained: Vec<Value> = stays.collect();
    fields.insert("drained".to_owned(), Value::Array(drained));
}

fn keep_backends(fields: &mut Map<String, Value>, held: &Service) {
    let held: HashMap<String, &Backend> =
        held.backends.iter().map(|backend| (backend.id().to_string(), backend)).collect();
    let backends = fields.get_mut("backends").and_then(Value::as_array_mut);
    for backend in backends.into_iter().flatten() {
        let Some(held) = held.get(&id_of(backend)) else { continue };
        let Some(fields) = backend.as_object_mut() else { continue };
        fields.entry("weight").or_insert_with(|| as_value(&held.weight));
        fields.entry("state").or_insert_with(|| as_value(&held.state));
    }
}
