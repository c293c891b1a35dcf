//! What the health checks have seen: beside the desired state, never stored.
//!
//! What enters: the desired state whenever it changes, and the checker's changes. What leaves: the
//! targets to check, and whether a backend counts as healthy.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use sluice_api::{AdminState, Backend, BackendId, Service, Snapshot};

use crate::health::{CheckResult, HealthChange, LastCheck, LastChecks, Target};
use crate::model::{Changed, State};
use sluice_api::clock::moment;

/// A backend's health, as the API shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Its checks pass.
    Healthy,
    /// Its checks fail.
    Unhealthy,
    /// It was not checked yet and takes no new conns until its first passed check.
    Unknown,
    /// It is not checked: its service has no health check, or it is `down`.
    Unchecked,
}

/// What was observed of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Observation {
    /// Its health.
    pub health: Health,
    /// Why, in words.
    #[serde(rename = "health_reason")]
    pub reason: String,
    /// Since when, in ms since the Unix epoch.
    #[serde(rename = "health_since_ms")]
    pub since_ms: u64,
    /// What its last check saw, once there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_check: Option<LastCheck>,
}

impl Observation {
    fn new(health: Health, reason: impl Into<String>, since_ms: u64) -> Self {
        Observation { health, reason: reason.into(), since_ms, last_check: None }
    }

    /// With what its last check saw; that it cannot be asked is a part of why.
    fn with(self, last_check: Option<LastCheck>) -> Self {
        let reason = match &last_check {
            Some(LastCheck { result: CheckResult::Undecided, reason, since_ms }) => {
                format!("{}; cannot be asked since {}: {reason}", self.reason, moment(*since_ms))
            }
            _ => self.reason,
        };
        Observation { reason, last_check, ..self }
    }
}

/// What is known of the backends of one service.
type OfService = HashMap<BackendId, Observation>;

/// What is known of every backend that is checked. A copy shares all of it, and a change copies what is
/// still shared: the list of services, and the backends of one.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    services: Arc<HashMap<Arc<str>, Arc<OfService>>>,
    /// What the checker's last checks saw.
    pub last_checks: LastChecks,
}

/// Whether a backend is checked at all.
fn is_checked(service: &Service, backend: &Backend) -> bool {
    service.health_check.is_some() && backend.state != AdminState::Down
}

/// What is known of the backends of a service that are checked now: of those that were checked already, what
/// was known; of others, what they were in the service as it was before.
fn begin<'s>(
    before: Option<&Service>,
    checked: impl Iterator<Item = &'s Backend>,
    known: Option<&OfService>,
    now_ms: u64,
) -> OfService {
    let unchecked: HashMap<BackendId, &Backend> = match before {
        Some(was) if was.health_check.is_none() => {
            was.backends.iter().map(|b| (b.id(), b)).collect()
        }
        _ => HashMap::new(),
    };
    let first = |id: BackendId| {
        let (health, reason) = match unchecked.get(&id) {
            Some(b) if b.state != AdminState::Down => {
                (Health::Healthy, "served unchecked before its first check")
            }
            _ => (Health::Unknown, "waits for its first check"),
        };
        Observation::new(health, reason, now_ms)
    };
    let of = |id| known.and_then(|known| known.get(&id).cloned()).unwrap_or_else(|| first(id));
    checked.map(|backend| (backend.id(), of(backend.id()))).collect()
}

impl Observed {
    /// Forget what is no longer checked, begin with what is new. Backends that took conns unchecked
    /// so far (they were in `old`) count as healthy until a check says otherwise: adding a check to
    /// a running service interrupts nothing. Returns whether anything is to be checked otherwise than
    /// before.
    pub fn retarget(&mut self, old: &State, new: &State, now_ms: u64) -> bool {
        let mut is_other = false;
        for Changed { before, now } in old.services.changes(&new.services) {
            let before = before.map(Arc::as_ref);
            let Some(now) = now else {
                is_other |= before.is_some_and(|gone| self.forget(&gone.name));
                continue;
            };
            if now.health_check.is_none() {
                is_other |= self.forget(&now.name);
                continue;
            }
            let known = self.services.get(now.name.as_str());
            let is_checked_so = before.is_some_and(|was| was.health_check == now.health_check);
            let checked = || now.backends.iter().filter(|b| is_checked(now, b));
            let has_same = known.is_some_and(|known| {
                checked().count() == known.len() && checked().all(|b| known.contains_key(&b.id()))
            });
            is_other |= !is_checked_so || !has_same;
            if !has_same {
                let next = begin(before, checked(), known.map(Arc::as_ref), now_ms);
                let services = Arc::make_mut(&mut self.services);
                services.insert(now.name.as_str().into(), Arc::new(next));
            }
        }
        is_other
    }

    /// Nothing of a service is checked any more. Returns whether something was.
    fn forget(&mut self, service: &str) -> bool {
        let was_known = self.services.contains_key(service);
        if was_known {
            Arc::make_mut(&mut self.services).remove(service);
        }
        was_known
    }

    /// All that is to be checked in a state.
    pub fn targets(state: &State) -> Vec<Target> {
        let mut targets = Vec::new();
        for service in &state.services {
            let Some(check) = &service.health_check else { continue };
            for backend in service.backends.iter().filter(|b| is_checked(service, b)) {
                targets.push(Target {
                    service: service.name.clone(),
                    backend: backend.id(),
                    check: check.clone(),
                });
            }
        }
        targets
    }

    /// What is known, for the checker to begin with.
    pub fn known(&self) -> HashMap<(String, BackendId), bool> {
        let mut known = HashMap::new();
        for (service, backends) in self.services.iter() {
            for (id, observation) in backends.iter() {
                match observation.health {
                    Health::Healthy => known.insert((service.to_string(), *id), true),
                    Health::Unhealthy => known.insert((service.to_string(), *id), false),
                    Health::Unknown | Health::Unchecked => None,
                };
            }
        }
        known
    }

    /// Take over what the data plane forwards by, for backends of which nothing is known yet: after
    /// a restart of control, traffic goes on as it was. Returns whether that changed anything.
    pub fn seed(&mut self, snapshot: &Snapshot, now_ms: u64) -> bool {
        let mut changed = false;
        for service in &snapshot.services {
            let services = Arc::make_mut(&mut self.services);
            let Some(known) = services.get_mut(service.name.as_str()) else { continue };
            let known = Arc::make_mut(known);
            // One that was down was not checked: nothing is known of it there either.
            for backend in service.backends.iter().filter(|b| b.state != AdminState::Down) {
                let Some(observation) = known.get_mut(&backend.id()) else { continue };
                if observation.health == Health::Unknown {
                    let health = if backend.healthy { Health::Healthy } else { Health::Unhealthy };
                    let reason = "as the data plane had it when control started";
                    *observation = Observation::new(health, reason, now_ms);
                    changed = true;
                }
            }
        }
        changed
    }

    /// Take a change of the checker's. Returns whether it concerns a backend that is still checked.
    pub fn note(&mut self, change: &HealthChange) -> bool {
        if self.one(&change.service, change.backend).is_none() {
            return false;
        }
        let services = Arc::make_mut(&mut self.services);
        let backends = services.get_mut(change.service.as_str()).map(Arc::make_mut);
        let Some(observation) = backends.and_then(|known| known.get_mut(&change.backend)) else {
            return false;
        };
        let health = match change.healthy {
            Some(true) => Health::Healthy,
            Some(false) => Health::Unhealthy,
            None => Health::Unknown,
        };
        if observation.health != health {
            observation.since_ms = change.at_ms;
        }
        observation.health = health;
        observation.reason.clone_from(&change.reason);
        true
    }

    /// Whether the same is known of a service as `former` knew: true is certain.
    pub fn has_same_of(&self, former: &Observed, service: &str) -> bool {
        if Arc::ptr_eq(&self.services, &former.services) {
            return true;
        }
        match (self.services.get(service), former.services.get(service)) {
            (Some(now), Some(was)) => Arc::ptr_eq(now, was),
            (None, None) => true,
            _ => false,
        }
    }

    fn one(&self, service: &str, backend: BackendId) -> Option<&Observation> {
        self.services.get(service)?.get(&backend)
    }

    /// A backend's health.
    pub fn health(&self, service: &Service, backend: &Backend) -> Health {
        let observed = self.one(&service.name, backend.id());
        // As in `of`: only what is checked has an observation.
        observed.map_or(Health::Unchecked, |observation| observation.health)
    }

    /// Whether a backend may take new conns as far as its health goes.
    pub fn is_healthy(&self, service: &Service, backend: &Backend) -> bool {
        if service.health_check.is_none() {
            return true;
        }
        self.one(&service.name, backend.id()).is_some_and(|o| o.health == Health::Healthy)
    }

    /// What the API shows of a backend.
    pub fn of(&self, service: &Service, backend: &Backend) -> Observation {
        let unchecked = |reason: &str| Observation::new(Health::Unchecked, reason, 0);
        if service.health_check.is_none() {
            return unchecked("the service has no health check");
        }
        match self.one(&service.name, backend.id()) {
            Some(observation) => {
                observation.clone().with(self.last_checks.of(&service.name, backend.id()))
            }
            None => unchecked("a backend that is down is not checked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluice_api::{SnapshotBackend, SnapshotService};

    fn state(check: bool, backend_state: &str) -> State {
        let mut service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "backends": [{"address": "10.0.0.1", "port": 80, "state": backend_state}]
        });
        if check {
            service["health_check"] = json!({});
        }
        let services = vec![serde_json::from_value(service).unwrap()];
        State { version: 1, services: services.into(), ..State::default() }
    }

    fn health(observed: &Observed, state: &State) -> (Health, bool) {
        let service = &state.services[0];
        let backend = &service.backends[0];
        (observed.of(service, backend).health, observed.is_healthy(service, backend))
    }

    fn change(healthy: bool) -> HealthChange {
        HealthChange {
            service: "web".into(),
            backend: "10.0.0.1:80".parse().unwrap(),
            healthy: Some(healthy),
            reason: "test".into(),
            at_ms: 7,
        }
    }

    #[test]
    fn a_new_backend_waits_for_its_first_check() {
        let mut observed = Observed::default();
        let new = state(true, "up");
        assert!(observed.retarget(&State::default(), &new, 1));
        assert_eq!(health(&observed, &new), (Health::Unknown, false));
        assert!(observed.note(&change(true)));
        assert_eq!(health(&observed, &new), (Health::Healthy, true));
        assert!(!observed.retarget(&new, &new.clone(), 2), "the same one");

        let drained = state(true, "drain");
        assert!(!observed.retarget(&new, &drained, 2), "checked as before");
        assert_eq!(health(&observed, &drained), (Health::Healthy, true), "still checked");

        let down = state(true, "down");
        assert!(observed.retarget(&drained, &down, 3));
        assert_eq!(health(&observed, &down), (Health::Unchecked, false));
        assert!(!observed.note(&change(true)), "a late answer is ignored");
        assert!(Observed::targets(&down).is_empty());

        assert!(observed.retarget(&down, &new, 4));
        assert_eq!(health(&observed, &new), (Health::Unknown, false));

        let mut slower = new.clone();
        let check = slower.services.get_mut("web").unwrap().health_check.as_mut().unwrap();
        check.interval_ms *= 2;
        assert!(observed.retarget(&new, &slower, 5), "checked otherwise");
        assert!(observed.retarget(&slower, &state(false, "up"), 6), "not checked any more");
        assert!(!observed.retarget(&state(false, "up"), &State::default(), 7));
    }

    #[test]
    fn what_the_data_plane_knows_counts_until_a_check_says_otherwise() {
        let state = state(true, "up");
        let snapshot = |healthy: bool, admin: AdminState| {
            let backends = vec![SnapshotBackend {
                address: [10, 0, 0, 1].into(),
                port: 80,
                weight: 100,
                max_conns: None,
                state: admin,
                healthy,
            }];
            let service = SnapshotService {
                backends,
                ..SnapshotService::from_service(&state.services[0], |_| true)
            };
            Snapshot { generation: 1, services: vec![service.into()], ..Snapshot::default() }
        };
        let cases = [
            (snapshot(true, AdminState::Drain), Health::Healthy),
            (snapshot(false, AdminState::Up), Health::Unhealthy),
            (snapshot(false, AdminState::Down), Health::Unknown),
            (Snapshot::default(), Health::Unknown),
        ];
        for (snapshot, expected) in cases {
            let mut observed = Observed::default();
            observed.retarget(&State::default(), &state, 1);
            assert_eq!(observed.seed(&snapshot, 2), expected != Health::Unknown);
            assert_eq!(health(&observed, &state).0, expected);
            assert_eq!(observed.known().len(), usize::from(expected != Health::Unknown));
            observed.note(&change(true));
            assert!(!observed.seed(&snapshot, 3), "what a check said stays");
            assert_eq!(health(&observed, &state).0, Health::Healthy);
        }
    }

    #[test]
    fn adding_a_check_interrupts_nothing() {
        let mut observed = Observed::default();
        let unchecked = state(false, "up");
        observed.retarget(&State::default(), &unchecked, 1);
        assert_eq!(health(&observed, &unchecked), (Health::Unchecked, true));
        let checked = state(true, "up");
        observed.retarget(&unchecked, &checked, 2);
        assert_eq!(health(&observed, &checked), (Health::Healthy, true));
    }
}
