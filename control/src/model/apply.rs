//! The next state of a state and an action.

use serde::Serialize;
use serde_json::Value;
use sluice_api::{AdminState, Backend, BackendId, Pool, Problem, Problems, Service};

use super::check::{self, Environment};
use super::{Action, ApiProblem, Kind, State, find_backend, merge_patch, no_backend};
use sluice_api::read::{self, Spelling, identity_fields, set_identity};

/// The state after `action`, with the version of the old one: who stores it numbers it.
///
/// The whole of the new state is validated. Problems that the old one has already (a data plane
/// with other limits or port addresses has come) do not stand in the way of a change.
pub fn apply(
    state: &State,
    action: Action,
    environment: &Environment,
) -> Result<State, ApiProblem> {
    // What only takes away cannot break a rule of the whole.
    let only_removes =
        matches!(action, Action::DeleteService { .. } | Action::DeleteBackend { .. });
    let next = change(state, action)?;
    if only_removes {
        return Ok(next);
    }
    check_next(state, &next, environment)?;
    Ok(next)
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
    let mut problems = check::state(next, environment);
    if !problems.is_empty() {
        let mut before = Problems::keeping_all();
        check::collect(&mut before, state, environment);
        problems = Problems::except(before.into_iter().collect());
        check::collect(&mut problems, next, environment);
    }
    if problems.is_empty() { Ok(()) } else { Err(ApiProblem::Invalid(problems)) }
}

fn change(state: &State, action: Action) -> Result<State, ApiProblem> {
    let mut next = state.clone();
    match action {
        Action::Apply(batch) => return batch.put(next).map_err(ApiProblem::Invalid),
        Action::CreateService(service) => {
            if state.service(&service.name).is_some() {
                return Err(exists(Kind::Service, &service.name));
            }
            next.services.push(service);
        }
        Action::ReplaceService(service) => {
            let old = service_mut(&mut next, &service.name)?;
            *old = service;
        }
        Action::PatchService { name, patch } => {
            let old = service_mut(&mut next, &name)?;
            *old = patched_service(old, patch)?;
        }
        Action::DeleteService { name } => {
            state.find_service(&name)?;
            next.services.retain(|s| s.name != name);
        }
        Action::CreateBackend { service, backend } => {
            let service = service_mut(&mut next, &service)?;
            if service.backends.iter().any(|b| b.id() == backend.id()) {
                return Err(exists(Kind::Backend, &backend.id().to_string()));
            }
            service.backends.push(backend);
        }
        Action::ReplaceBackend { service, backend } => {
            let old = backend_mut(&mut next, &service, backend.id())?;
            *old = backend;
        }
        Action::PatchBackend { service, id, patch } => {
            let old = backend_mut(&mut next, &service, id)?;
            *old = patched_backend(old, &service, patch)?;
        }
        Action::SetWeight { service, id, weight } => {
            backend_mut(&mut next, &service, id)?.weight = weight;
        }
        Action::SetBackendState { service, id, state } => {
            backend_mut(&mut next, &service, id)?.state = state;
        }
        Action::DeleteBackend { service, id } => {
            let service = service_mut(&mut next, &service)?;
            find_backend(service, id)?;
            service.backends.retain(|b| b.id() != id);
        }
        Action::CreatePool(pool) => {
            if state.pool(&pool.name).is_some() {
                return Err(exists(Kind::Pool, &pool.name));
            }
            next.pools.push(pool);
        }
        Action::ReplacePool(pool) => {
            let old = pool_mut(&mut next, &pool.name)?;
            *old = pool;
        }
        Action::PatchPool { name, patch } => {
            let old = pool_mut(&mut next, &name)?;
            *old = patched_pool(old, patch)?;
        }
        Action::DrainAddress { pool, address, drain } => {
            let pool = pool_mut(&mut next, &pool)?;
            if !pool.addresses.contains(&address) {
                let known = pool.addresses.iter();
                return Err(ApiProblem::not_found(Kind::Address, address, known));
            }
            if !drain {
                pool.drained.retain(|drained| *drained != address);
            } else if !pool.drained.contains(&address) {
                pool.drained.push(address);
            }
        }
        Action::DeletePool { name } => {
            state.find_pool(&name)?;
            let user = |s: &Service| (s.pool.as_ref() == Some(&name)).then(|| s.name.clone());
            let services: Vec<String> = state.services.iter().filter_map(user).collect();
            if !services.is_empty() {
                return Err(ApiProblem::PoolInUse { pool: name, services });
            }
            next.pools.retain(|p| p.name != name);
        }
    }
    Ok(next)
}

fn exists(kind: Kind, id: &str) -> ApiProblem {
    ApiProblem::Exists { kind, id: id.to_owned() }
}

fn service_mut<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Service, ApiProblem> {
    match state.services.iter().position(|s| s.name == name) {
        Some(index) => Ok(&mut state.services[index]),
        None => Err(state.no_service(name)),
    }
}

fn backend_mut<'a>(
    state: &'a mut State,
    service: &str,
    id: BackendId,
) -> Result<&'a mut Backend, ApiProblem> {
    let service = service_mut(state, service)?;
    match service.backends.iter().position(|b| b.id() == id) {
        Some(index) => Ok(&mut service.backends[index]),
        None => Err(no_backend(service, id)),
    }
}

fn pool_mut<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Pool, ApiProblem> {
    match state.pools.iter().position(|p| p.name == name) {
        Some(index) => Ok(&mut state.pools[index]),
        None => Err(state.no_pool(name)),
    }
}

fn patched_service(old: &Service, patch: Value) -> Result<Service, ApiProblem> {
    let mut merged = merged(old, patch, &format!("services[{}]", old.name))?;
    set_identity(
        &mut merged,
        &format!("services[{}]", old.name),
        "name",
        Value::from(old.name.as_str()),
    )
    .map_err(ApiProblem::invalid)?;
    read::service(merged, Spelling::Json, &old.name).map_err(ApiProblem::Invalid)
}

fn patched_backend(old: &Backend, service: &str, patch: Value) -> Result<Backend, ApiProblem> {
    let path = format!("services[{service}].backends[{}]", old.id());
    let mut merged = merged(old, patch, &path)?;
    for (field, wanted) in identity_fields(old.id()) {
        set_identity(&mut merged, &path, field, wanted).map_err(ApiProblem::invalid)?;
    }
    read::backend(merged, service, &old.id().to_string()).map_err(ApiProblem::Invalid)
}

fn patched_pool(old: &Pool, patch: Value) -> Result<Pool, ApiProblem> {
    let path = format!("pools[{}]", old.name);
    let mut merged = merged(old, patch, &path)?;
    set_identity(&mut merged, &path, "name", Value::from(old.name.as_str()))
        .map_err(ApiProblem::invalid)?;
    read::pool(merged, Spelling::Json, &old.name).map_err(ApiProblem::Invalid)
}

fn merged<T: Serialize>(old: &T, patch: Value, path: &str) -> Result<Value, ApiProblem> {
    if !patch.is_object() {
        let problem =
            Problem::new(path, read::shown(&patch), "an object with the fields to change");
        return Err(ApiProblem::invalid(problem));
    }
    let old = serde_json::to_value(old)
        .map_err(|e| ApiProblem::invalid(Problem::new(path, e, "a resource that is JSON")))?;
    Ok(merge_patch(old, patch))
}

impl Action {
    /// What the action does: a word for programs and a sentence for people.
    pub fn describe(&self) -> (&'static str, String) {
        match self {
            Action::CreateService(s) => ("service-created", format!("service {} created", s.name)),
            Action::ReplaceService(s) => {
                ("service-changed", format!("service {} replaced", s.name))
            }
            Action::PatchService { name, patch } => {
                ("service-changed", format!("service {name} changed: {}", fields(patch)))
            }
            Action::DeleteService { name } => {
                ("service-deleted", format!("service {name} deleted"))
            }
            Action::CreateBackend { service, backend } => {
                ("backend-created", format!("backend {} of {service} created", backend.id()))
            }
            Action::ReplaceBackend { service, backend } => {
                ("backend-changed", format!("backend {} of {service} replaced", backend.id()))
            }
            Action::PatchBackend { service, id, patch } => {
                ("backend-changed", format!("backend {id} of {service} changed: {}", fields(patch)))
            }
            Action::SetWeight { service, id, weight } => {
                ("backend-changed", format!("backend {id} of {service} has weight {weight} now"))
            }
            Action::SetBackendState { service, id, state } => {
                let kind = match state {
                    AdminState::Up => "backend-up",
                    AdminState::Drain => "backend-drained",
                    AdminState::Down => "backend-down",
                };
                (kind, format!("backend {id} of {service} is set to {state}"))
            }
            Action::DeleteBackend { service, id } => {
                ("backend-deleted", format!("backend {id} of {service} deleted"))
            }
            Action::CreatePool(p) => ("pool-created", format!("pool {} created", p.name)),
            Action::ReplacePool(p) => ("pool-changed", format!("pool {} replaced", p.name)),
            Action::PatchPool { name, patch } => {
                ("pool-changed", format!("pool {name} changed: {}", fields(patch)))
            }
            Action::DrainAddress { pool, address, drain: true } => {
                ("pool-changed", format!("address {address} of pool {pool} drains"))
            }
            Action::DrainAddress { pool, address, drain: false } => {
                ("pool-changed", format!("address {address} of pool {pool} takes new conns"))
            }
            // Each of its resources has its own event.
            Action::Apply(_) => ("state-applied", "pools and services applied".to_owned()),
            Action::DeletePool { name } => ("pool-deleted", format!("pool {name} deleted")),
        }
    }

    /// The pool that the action changes.
    pub fn pool(&self) -> Option<&str> {
        match self {
            Action::ReplacePool(pool) => Some(&pool.name),
            Action::PatchPool { name, .. } | Action::DeletePool { name } => Some(name),
            Action::DrainAddress { pool, .. } => Some(pool),
            _ => None,
        }
    }

    /// The service and the backend that the action is about.
    pub fn subject(&self) -> (Option<String>, Option<BackendId>) {
        match self {
            Action::CreateService(s) | Action::ReplaceService(s) => (Some(s.name.clone()), None),
            Action::PatchService { name, .. } | Action::DeleteService { name } => {
                (Some(name.clone()), None)
            }
            Action::CreateBackend { service, backend }
            | Action::ReplaceBackend { service, backend } => {
                (Some(service.clone()), Some(backend.id()))
            }
            Action::PatchBackend { service, id, .. }
            | Action::SetWeight { service, id, .. }
            | Action::SetBackendState { service, id, .. }
            | Action::DeleteBackend { service, id } => (Some(service.clone()), Some(*id)),
            Action::Apply(_)
            | Action::CreatePool(_)
            | Action::ReplacePool(_)
            | Action::PatchPool { .. }
            | Action::DrainAddress { .. }
            | Action::DeletePool { .. } => (None, None),
        }
    }
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
