//! One change of one resource, and the state after it.

use serde::Serialize;
use serde_json::Value;
use sluice_api::{Problem, Problems};

use super::{Collection, Key, Resource};
use crate::model::check::{self, Environment};
use crate::model::{ApiProblem, State, merge_patch};
use sluice_api::read::{self, set_identity};

/// What can be done to a resource.
pub enum Change<R: Resource> {
    /// Add it to its holder.
    Create(R::Holder, R),
    /// Put it in the place of the one with its name.
    Replace(R::Holder, R),
    /// Change some of its fields (RFC 7396).
    Patch(Key<R>, Value),
    /// Set what has a request of its own.
    Set(Key<R>, R::Setting),
    /// Remove it, with all that is a part of it.
    Delete(Key<R>),
}

impl<R: Resource> Change<R> {
    /// What it changes.
    pub fn key(&self) -> Key<R> {
        match self {
            Change::Create(holder, one) | Change::Replace(holder, one) => {
                Key { holder: holder.clone(), id: one.id() }
            }
            Change::Patch(key, _) | Change::Set(key, _) | Change::Delete(key) => key.clone(),
        }
    }

    /// What it does: a word for programs and a sentence for people.
    pub fn describe(&self) -> (String, String) {
        let what = self.key().in_words();
        let (word, sentence) = match self {
            Change::Set(key, setting) => return R::tell_set(key, setting),
            Change::Create(..) => ("created", format!("{what} created")),
            Change::Replace(..) => ("changed", format!("{what} replaced")),
            Change::Patch(_, patch) => ("changed", format!("{what} changed: {}", fields(patch))),
            Change::Delete(_) => ("deleted", format!("{what} deleted")),
        };
        (format!("{}-{word}", R::KIND), sentence)
    }

    /// The state after it, with the version of the old one: who stores it numbers it.
    ///
    /// The new state is validated, as far as it can be otherwise than the old one. Problems that the old one has already (a data plane
    /// with other limits or port addresses has come) do not stand in the way of a change.
    ///
    /// # Errors
    /// [`ApiProblem`] with everything that is wrong.
    pub fn apply(self, state: &State, environment: &Environment) -> Result<State, ApiProblem> {
        // What only takes away cannot break a rule of the whole.
        let only_removes = matches!(self, Change::Delete(_));
        let next = self.next(state)?;
        if !only_removes {
            check_next(state, &next, environment)?;
        }
        Ok(next)
    }

    fn next(self, state: &State) -> Result<State, ApiProblem> {
        let mut next = state.clone();
        match self {
            Change::Create(holder, new) => {
                let id = new.id();
                if R::all(state, &holder)?.find(&id).is_some() {
                    return Err(ApiProblem::Exists { kind: R::KIND, id: id.to_string() });
                }
                if let Some(all) = R::all_mut(&mut next, &holder) {
                    all.add(new);
                }
            }
            Change::Replace(holder, new) => {
                let key = Key { holder, id: new.id() };
                *key.find_mut(&mut next, state)? = new;
            }
            Change::Patch(key, patch) => {
                let old = key.find_mut(&mut next, state)?;
                *old = patched(old, &key, patch)?;
            }
            Change::Set(key, setting) => key.find_mut(&mut next, state)?.set(setting)?,
            Change::Delete(key) => {
                key.find(state)?;
                R::may_go(state, &key.id)?;
                if let Some(all) = R::all_mut(&mut next, &key.holder) {
                    all.remove(&key.id);
                }
            }
        }
        Ok(next)
    }
}

/// Whether `next` may follow `state`.
///
/// # Errors
/// [`ApiProblem::Invalid`] with all rules that it breaks and `state` does not.
pub fn check_next(
    state: &State,
    next: &State,
    environment: &Environment,
) -> Result<(), ApiProblem> {
    if check::keeps_rules(state, next, environment) {
        return Ok(());
    }
    let mut problems = check::state(next, environment);
    if !problems.is_empty() {
        let mut before = Problems::keeping_all();
        check::collect(&mut before, state, environment);
        problems = Problems::except(before.into_iter().collect());
        check::collect(&mut problems, next, environment);
    }
    if problems.is_empty() { Ok(()) } else { Err(ApiProblem::Invalid(problems)) }
}

fn patched<R: Resource>(old: &R, key: &Key<R>, patch: Value) -> Result<R, ApiProblem> {
    let field = R::field(key);
    let mut merged = merged(old, patch, &field)?;
    for (name, wanted) in R::identity(&key.id) {
        set_identity(&mut merged, &field, name, wanted).map_err(ApiProblem::invalid)?;
    }
    R::read(merged, &key.holder, &key.id.to_string()).map_err(ApiProblem::Invalid)
}

fn merged<T: Serialize>(old: &T, patch: Value, field: &str) -> Result<Value, ApiProblem> {
    if !patch.is_object() {
        let problem =
            Problem::new(field, read::shown(&patch), "an object with the fields to change");
        return Err(ApiProblem::invalid(problem));
    }
    let old = serde_json::to_value(old)
        .map_err(|e| ApiProblem::invalid(Problem::new(field, e, "a resource that is JSON")))?;
    Ok(merge_patch(old, patch))
}

/// Names of the fields that a patch changes.
fn fields(patch: &Value) -> String {
    match patch.as_object() {
        Some(map) => {
            let configured = map.keys().filter(|k| !read::NOT_CONFIGURED.contains(&k.as_str()));
            configured.cloned().collect::<Vec<_>>().join(", ")
        }
        None => String::new(),
    }
}
