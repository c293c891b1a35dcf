//! Many resources that shall be as they are given, in one change: what `sluice apply` sends.

use std::collections::HashSet;

use serde_json::Value;
use sluice_api::read::{self, NOT_CONFIGURED};
use sluice_api::{Problem, Problems};

use super::diff::{Difference, compare};
use super::resource::{Key, Resource};
use super::{ApiProblem, Environment, HasName, Named, State, check_next};

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
        put_list(self.pools, &mut state.pools, &mut problems);
        put_list(self.services, &mut state.services, &mut problems);
        if problems.is_empty() { Ok(state) } else { Err(problems) }
    }

    /// What became of each resource of the batch between two states, also of those that did not
    /// change; pools first.
    pub fn effect(&self, old: &State, new: &State) -> Vec<Difference> {
        let named = |list: &[Value]| -> HashSet<String> {
            list.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
        };
        let (pools, services) = (named(&self.pools), named(&self.services));
        let mut effect = compare("pool", &old.pools, &new.pools);
        effect.retain(|difference| pools.contains(&difference.name));
        let mut more = compare("service", &old.services, &new.services);
        more.retain(|difference| services.contains(&difference.name));
        effect.append(&mut more);
        effect
    }
}

/// Replace those that are held, and add those that are new.
fn put_list<R: Resource<Holder = ()> + HasName>(
    items: Vec<Value>,
    held: &mut Named<R>,
    problems: &mut Problems,
) {
    let mut seen = HashSet::new();
    for (index, mut item) in items.into_iter().enumerate() {
        let before = item["name"].as_str().and_then(|name| held.get(name));
        if let (Some(before), Value::Object(fields)) = (before, &mut item) {
            before.keep(fields);
        }
        match R::read(item, &(), &format!("#{}", index + 1)) {
            Ok(item) => {
                let key = Key::<R> { holder: (), id: item.id() };
                let name = key.id.to_string();
                if !seen.insert(name.clone()) {
                    let field = format!("{}.name", R::field(&key));
                    problems.push(Problem::new(field, format!("{name:?}"), "each name once"));
                }
                held.put(item);
            }
            Err(mut more) => problems.append(&mut more),
        }
    }
}
