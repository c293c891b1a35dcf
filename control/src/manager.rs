//! The one owner of the desired state and of what was observed; HTTP, the checker and the publisher
//! meet here.
//!
//! A commit runs under one lock from the check of its version to the file on disk, so that commits
//! come one after another; readers never wait for the disk. Commits block: call them from
//! `spawn_blocking`, which also sees them through when the client has gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Instant;

use sluice_api::{
    AdminState, Backend, FieldChange, Problem, Refusal, Service, Snapshot, SnapshotBackend,
    SnapshotService,
};
use tokio::sync::watch;

use crate::derived::{Derived, ServiceState, Surroundings, Taking, Told, derive, taking};
use crate::events::EventLog;
use crate::health::{Checker, Contact, HealthChange, LastChecks};
use crate::model::diff::{Change, Difference};
use crate::model::{self, Action, ApiProblem, Batch, Environment, LeftOut, Precondition, State};
use crate::observed::{Observation, Observed};
use crate::origin::{self, FileRecord, Merged};
use crate::publish::taken_away;
use crate::store::{Content, Saved, Store, StoreError};
use sluice_api::clock::now_ms;

/// What is written together.
struct Disk {
    store: Store,
    /// What the TOML file said when it was read last.
    file: FileRecord,
}

/// A change that is on disk.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The state with it.
    pub state: Arc<State>,
    /// The revision from which [`Manager::snapshot`] has it.
    pub revision: u64,
}

/// How writing the state file goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Writes that have failed since control started.
    pub failures: u64,
    /// Why the last one failed; absent once one has succeeded.
    pub failing: Option<String>,
}

/// Desired state, observed health, and what follows from them.
pub struct Manager {
    /// Held during a commit.
    disk: Mutex<Disk>,
    /// What the TOML file says of VIPs where no service is.
    no_service: RwLock<Refusal>,
    state: RwLock<Arc<State>>,
    observed: Mutex<Observed>,
    /// What the data plane has, once it told.
    environment: RwLock<Environment>,
    /// What the data plane told of the state, beside the rules that are known here. Held while the
    /// state, the environment or this changes, as what is left out follows from all three.
    told_problems: Mutex<Vec<Problem>>,
    /// What the data plane would not take of the state.
    left_out: RwLock<Arc<LeftOut>>,
    /// What is around the data plane, once it told.
    around: RwLock<Arc<Surroundings>>,
    /// Which states of services have been told.
    told: Mutex<Told>,
    /// The running checker; absent until [`Manager::start_checks`].
    checker: Mutex<Option<Checker>>,
    /// Whether the data plane answers, for a checker that starts later.
    contact: Mutex<Contact>,
    /// Generation of the last snapshot published.
    generation: AtomicU64,
    /// Whether the state must not take services from a data plane before an operator says so.
    unconfirmed: AtomicBool,
    writes: Mutex<Writes>,
    /// Grows whenever the snapshot may have changed.
    revision: watch::Sender<u64>,
    events: Arc<EventLog>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in another thread leaves whole values behind: each is replaced in one step.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Manager {
    /// Hold `state`, which `store` has already.
    pub fn new(
        store: Store,
        state: State,
        file: FileRecord,
        generation: u64,
        events: Arc<EventLog>,
    ) -> Self {
        let mut observed = Observed::default();
        observed.retarget(&State::default(), &state, now_ms());
        let left_out = LeftOut::of(&state, &Environment::default(), &[]);
        Manager {
            disk: Mutex::new(Disk { store, file }),
            no_service: RwLock::default(),
            state: RwLock::new(Arc::new(state)),
            observed: Mutex::new(observed),
            environment: RwLock::default(),
            told_problems: Mutex::default(),
            left_out: RwLock::new(Arc::new(left_out)),
            around: RwLock::default(),
            told: Mutex::default(),
            checker: Mutex::default(),
            contact: Mutex::new(Contact::NotMet),
            generation: AtomicU64::new(generation),
            unconfirmed: AtomicBool::new(false),
            writes: Mutex::default(),
            revision: watch::Sender::new(1),
            events,
        }
    }

    /// With this answer to who comes to a VIP where no service is.
    #[must_use]
    pub fn answering(self, no_service: Refusal) -> Self {
        Manager { no_service: RwLock::new(no_service), ..self }
    }

    /// With a state of doubtful origin, or not: see [`Manager::withheld`].
    #[must_use]
    pub fn unconfirmed(self, unconfirmed: bool) -> Self {
        Manager { unconfirmed: unconfirmed.into(), ..self }
    }

    /// The event log.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// The desired state now.
    pub fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Do what a request asks for, durably, or nothing at all. `wanted` is what the client believes
    /// to be there, if it says so. Blocks while the disk does.
    ///
    /// # Errors
    /// [`ApiProblem`]; the state is as before then.
    pub fn commit(
        &self,
        action: Action,
        wanted: Option<&Precondition>,
    ) -> Result<Committed, ApiProblem> {
        let mut disk = lock(&self.disk);
        let old = self.state();
        if let Some(wanted) = wanted {
            wanted.check(&action, &old)?;
        }
        let (kind, message) = action.describe();
        let (service, backend) = action.subject();
        let next = model::apply(&old, action, &self.environment())?;
        let committed = self.change(&mut disk, &old, next, None, self.no_service())?;
        if committed.state.version != old.version {
            self.events.note_about(kind, service.as_deref(), backend, message);
        }
        Ok(committed)
    }

    /// Make many resources be as they are given, in one change; or only tell what that would do.
    /// Returns what became of each of them, and nothing of a change that was not made.
    ///
    /// # Errors
    /// [`ApiProblem`]; the state is as before then.
    pub fn apply(
        &self,
        batch: Batch,
        wanted: Option<&Precondition>,
        dry_run: bool,
    ) -> Result<(Vec<Difference>, Option<Committed>), ApiProblem> {
        let mut disk = lock(&self.disk);
        let old = self.state();
        let action = Action::Apply(batch.clone());
        if let Some(wanted) = wanted {
            wanted.check(&action, &old)?;
        }
        let next = model::apply(&old, action, &self.environment())?;
        let effect = batch.effect(&old, &next);
        if dry_run {
            return Ok((effect, None));
        }
        let committed = self.change(&mut disk, &old, next, None, self.no_service())?;
        self.tell(&effect, "applied");
        Ok((effect, Some(committed)))
    }

    /// Take over what is new in the TOML file since it was read last, in one change; see
    /// `docs/adr/0003-file-and-api-state.md`. Returns what that was.
    ///
    /// # Errors
    /// [`ApiProblem`]; state and file are as before then.
    pub fn reload(
        &self,
        file: FileRecord,
        no_service: Refusal,
    ) -> Result<(Vec<Difference>, Committed), ApiProblem> {
        let mut disk = lock(&self.disk);
        let old = self.state();
        let merged = origin::merge(State::clone(&old), &disk.file, &file);
        if let Some(problem) = merged.takes_all_away(&disk.file, &file) {
            return Err(ApiProblem::invalid(problem));
        }
        let Merged { state: next, changes } = merged;
        model::check_next(&old, &next, &self.environment())?;
        let file = (disk.file != file).then_some(file);
        let is_other = self.no_service() != no_service;
        let committed = self.change(&mut disk, &old, next, file, no_service)?;
        if is_other {
            self.events.note("file-changed", format!("control.no_service is {no_service} now"));
        }
        for line in changes.iter().flat_map(Difference::lines) {
            self.events.note("file-changed", line);
        }
        Ok((changes, committed))
    }

    /// Write and adopt the next state, which has been checked; nothing when it is the same.
    fn change(
        &self,
        disk: &mut Disk,
        old: &State,
        mut next: State,
        file: Option<FileRecord>,
        no_service: Refusal,
    ) -> Result<Committed, ApiProblem> {
        next.version = old.version;
        let is_same = next == *old;
        if !is_same {
            next.version += 1;
        }
        if !is_same || file.is_some() {
            let unconfirmed = self.unconfirmed.load(Ordering::Relaxed);
            let file = file.unwrap_or_else(|| disk.file.clone());
            next = self.write(disk, next, file, unconfirmed)?;
        }
        let next = Arc::new(next);
        let revision = if is_same && no_service == self.no_service() {
            self.revision()
        } else {
            self.adopt(old, &next, no_service)
        };
        Ok(Committed { state: next, revision })
    }

    /// An event for each resource that changed.
    fn tell(&self, effect: &[Difference], how: &str) {
        for difference in effect.iter().filter(|d| d.change != Change::Unchanged) {
            let Difference { kind, name, change, fields } = difference;
            let fields: Vec<String> = fields.iter().map(FieldChange::to_string).collect();
            let what =
                if fields.is_empty() { String::new() } else { format!(": {}", fields.join("; ")) };
            let message = format!("{kind} {name} {change}, {how}{what}");
            let service = (*kind == "service").then_some(name.as_str());
            self.events.note_about(&format!("{kind}-{change}"), service, None, message);
        }
    }

    fn no_service(&self) -> Refusal {
        *self.no_service.read().unwrap_or_else(|e| e.into_inner())
    }

    fn environment(&self) -> Environment {
        self.environment.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn write(
        &self,
        disk: &mut Disk,
        state: State,
        file: FileRecord,
        unconfirmed: bool,
    ) -> Result<State, ApiProblem> {
        let generation = self.generation.load(Ordering::Relaxed);
        let content = Content { state, file, generation, unconfirmed };
        self.note_write(disk.store.save(&content))
            .map_err(|e| ApiProblem::NotStored(e.to_string()))?;
        disk.file = content.file;
        Ok(content.state)
    }

    /// Take note of how a write went: an event when it failed, and when one succeeds again.
    ///
    /// # Errors
    /// That of the write.
    pub fn note_write(&self, saved: Result<Saved, StoreError>) -> Result<(), StoreError> {
        let (done, failure) = match saved {
            Ok(Saved { doubt }) => (Ok(()), doubt),
            Err(error) => {
                let text = error.to_string();
                (Err(error), Some(text))
            }
        };
        let mut writes = lock(&self.writes);
        if let Some(failure) = &failure {
            writes.failures += 1;
            self.events.note("state-not-written", failure.clone());
        } else if writes.failing.is_some() {
            self.events.note("state-written", "the state file is written again");
        }
        writes.failing = failure;
        done
    }

    /// How writing the state file goes.
    pub fn writes(&self) -> Writes {
        lock(&self.writes).clone()
    }

    /// Why `wanted` must not replace the snapshot in force, if it must not: the state is of doubtful
    /// origin and lacks services that clients are served by. Once nothing is lacking, or an operator
    /// has confirmed it, the state is as good as any, and what it takes away was taken away by
    /// somebody.
    pub fn withheld(&self, in_force: &Snapshot, wanted: &Snapshot) -> Option<String> {
        if !self.unconfirmed.load(Ordering::Relaxed) {
            return None;
        }
        let lost = taken_away(in_force, wanted);
        if lost.is_none() {
            self.unconfirmed.store(false, Ordering::Relaxed);
        }
        lost.map(|lost| {
            format!(
                "publishing is held, as the state was not read from a good state file or is empty, \
                 and would take away services that the data plane forwards by: {lost}. Put them \
                 back, or say that they may go: sluice confirm (POST /api/v1/confirm)"
            )
        })
    }

    /// An operator's word that the state may be published, whatever it takes away. `wanted` is the
    /// state that the client means, if it says so. Blocks while the disk does.
    ///
    /// # Errors
    /// [`ApiProblem::NotStored`] and [`ApiProblem::VersionMismatch`]; nothing is confirmed then.
    pub fn confirm(&self, wanted: Option<&Precondition>) -> Result<Committed, ApiProblem> {
        let mut disk = lock(&self.disk);
        let state = self.state();
        if let Some(wanted) = wanted {
            wanted.check_state(&state)?;
        }
        if self.unconfirmed.load(Ordering::Relaxed) {
            let file = disk.file.clone();
            self.write(&mut disk, State::clone(&state), file, false)?;
            self.unconfirmed.store(false, Ordering::Relaxed);
            let message = format!("state version {} may be published as it is", state.version);
            self.events.note("state-confirmed", message);
            self.changed();
        }
        Ok(Committed { state, revision: self.revision() })
    }

    fn adopt(&self, old: &State, next: &Arc<State>, no_service: Refusal) -> u64 {
        {
            let mut told = lock(&self.told_problems);
            // It may be mended: the data plane judges anew.
            told.clear();
            let left_out = LeftOut::of(next, &self.environment(), &told);
            // All under one lock: a snapshot never sees one of them without the others.
            let mut observed = lock(&self.observed);
            observed.retarget(old, next, now_ms());
            *self.state.write().unwrap_or_else(|e| e.into_inner()) = next.clone();
            *self.no_service.write().unwrap_or_else(|e| e.into_inner()) = no_service;
            self.set_left_out(left_out);
        }
        self.set_targets();
        self.changed()
    }

    /// Tell the checker what to check. What it is told is read under its lock: the last call tells
    /// the newest.
    fn set_targets(&self) {
        if let Some(checker) = &*lock(&self.checker) {
            let known = lock(&self.observed).known();
            checker.set_targets(Observed::targets(&self.state()), &known);
        }
    }

    /// Hand the targets to a checker and keep it.
    pub fn start_checks(&self, checker: Checker) {
        lock(&self.observed).last_checks = checker.last_checks();
        *lock(&self.checker) = Some(checker);
        self.set_targets();
        let contact = lock(&self.contact).clone();
        self.dataplane_is(contact);
    }

    /// Whether the data plane, through whose ports checks go, answers. While it does not, silence of
    /// backends tells nothing of them.
    pub fn dataplane_is(&self, contact: Contact) {
        if let Some(checker) = &*lock(&self.checker) {
            checker.dataplane(contact.clone());
        }
        *lock(&self.contact) = contact;
    }

    /// Whether the data plane answers now: without that, all that is known of it is from before.
    pub fn has_contact(&self) -> bool {
        matches!(*lock(&self.contact), Contact::Answers(_))
    }

    /// What the last checks saw.
    pub fn last_checks(&self) -> LastChecks {
        lock(&self.observed).last_checks.clone()
    }

    /// When a worker of the data plane was last stuck (began and ended so many ms ago): silence of
    /// backends tells nothing of them then.
    pub fn doubt_silence(&self, doubt: Option<(u64, u64)>) {
        if let Some(checker) = &*lock(&self.checker) {
            checker.doubt_silence(doubt);
        }
    }

    /// Stop checking; health stays as it is.
    pub fn stop_checks(&self) {
        if let Some(checker) = lock(&self.checker).take() {
            checker.shutdown();
        }
    }

    /// Come back once nobody holds what readers need, which is never for long.
    pub fn probe(&self) {
        drop(lock(&self.observed));
        drop(lock(&self.checker));
        drop(lock(&self.told_problems));
        drop(self.state());
        drop(self.environment());
    }

    /// Wait until no commit is running.
    pub fn settle(&self) {
        drop(lock(&self.disk));
    }

    /// Take a change of the checker's: an event, and a new snapshot.
    pub fn note_health(&self, change: &HealthChange) {
        if !lock(&self.observed).note(change) {
            return;
        }
        let (kind, word) = match change.healthy {
            Some(true) => ("backend-healthy", "healthy"),
            Some(false) => ("backend-unhealthy", "unhealthy"),
            None => ("backend-unknown", "unknown again"),
        };
        let message = format!(
            "backend {} of {} is {word}: {}",
            change.backend, change.service, change.reason
        );
        self.events.note_about(kind, Some(&change.service), Some(change.backend), message);
        self.changed();
    }

    /// Take over the health of backends of which nothing is known yet.
    pub fn seed_health(&self, snapshot: &Snapshot) {
        let seeded = lock(&self.observed).seed(snapshot, now_ms());
        if seeded {
            self.set_targets();
            self.changed();
        }
    }

    /// What the data plane has, for the validation of requests and for what it would not take.
    pub fn set_environment(&self, environment: Environment) {
        let mut told = lock(&self.told_problems);
        if self.environment() != environment {
            told.clear();
            self.judge(environment, &told);
        }
    }

    /// Another data plane judges anew.
    pub fn forget_told_problems(&self) {
        let mut told = lock(&self.told_problems);
        if !told.is_empty() {
            told.clear();
            self.judge(self.environment(), &told);
        }
    }

    /// The data plane told these problems of a snapshot of a version of the state: leave out whose they
    /// are, until the state or the data plane changes. Returns whether the next snapshot has less in it.
    pub fn leave_out(&self, version: u64, problems: &[Problem]) -> bool {
        let mut told = lock(&self.told_problems);
        if self.state().version != version {
            // They may be mended already.
            return false;
        }
        let known = told.len();
        told.extend_from_slice(problems);
        let has_changed = self.judge(self.environment(), &told);
        if !has_changed {
            told.truncate(known);
        }
        has_changed
    }

    /// Find what is left out in this environment, and whether that has changed.
    fn judge(&self, environment: Environment, told: &[Problem]) -> bool {
        let left_out = LeftOut::of(&self.state(), &environment, told);
        *self.environment.write().unwrap_or_else(|e| e.into_inner()) = environment;
        let has_changed = self.set_left_out(left_out);
        if has_changed {
            self.changed();
        }
        has_changed
    }

    fn set_left_out(&self, left_out: LeftOut) -> bool {
        let mut held = self.left_out.write().unwrap_or_else(|e| e.into_inner());
        let has_changed = **held != left_out;
        *held = Arc::new(left_out);
        has_changed
    }

    /// What the data plane would not take of the state.
    pub fn left_out(&self) -> Arc<LeftOut> {
        self.left_out.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// What is around the data plane changes.
    pub fn set_surroundings(&self, change: impl FnOnce(&mut Surroundings)) {
        let mut around = self.around.write().unwrap_or_else(|e| e.into_inner());
        let mut next = Surroundings::clone(&around);
        change(&mut next);
        if next != **around {
            *around = Arc::new(next);
            drop(around);
            self.changed();
        }
    }

    fn around(&self) -> Arc<Surroundings> {
        self.around.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// How a service of `state` fares.
    pub fn derive(&self, state: &State, service: &Service) -> Derived {
        let observed = lock(&self.observed);
        let health: Vec<_> = service.backends.iter().map(|b| observed.health(service, b)).collect();
        drop(observed);
        let pool = state.pools.iter().find(|pool| Some(&pool.name) == service.pool.as_ref());
        derive(service, pool, &health, &self.around(), &self.left_out())
    }

    /// Whether a backend takes new conns.
    pub fn taking(&self, service: &Service, backend: &Backend) -> Taking {
        let health = lock(&self.observed).health(service, backend);
        let left_out = self.left_out();
        let left_out = left_out.backend(&service.name, backend.id());
        taking(service.mode, backend, health, &self.around(), left_out)
    }

    /// Make an event of each service that fares otherwise than was told. Call when something may
    /// have changed, and each second.
    pub fn tell_states(&self) {
        let state = self.state();
        let mut told = lock(&self.told);
        told.retain(|name| state.services.iter().any(|service| service.name == name));
        for service in &state.services {
            let derived = self.derive(&state, service);
            if told.is_news(&service.name, &derived, Instant::now()) {
                let kind = match derived.state {
                    ServiceState::Serving => "service-serving",
                    ServiceState::Degraded => "service-degraded",
                    ServiceState::Down => "service-down",
                };
                let mut message = format!("service {} is {}", service.name, derived.state.word());
                if let Some(reason) = &derived.reason {
                    message += &format!(": {reason}");
                }
                self.events.note_about(kind, Some(&service.name), None, message);
            }
        }
    }

    /// What was observed of the backends of a service, in their order.
    pub fn observe(&self, service: &Service) -> Vec<Observation> {
        let observed = lock(&self.observed);
        service.backends.iter().map(|b| observed.of(service, b)).collect()
    }

    /// What was observed of one backend.
    pub fn observe_one(&self, service: &Service, backend: &Backend) -> Observation {
        lock(&self.observed).of(service, backend)
    }

    /// What the data plane shall forward by, less what it would not take; its generation is 0, as only
    /// the publisher numbers it.
    pub fn snapshot(&self) -> Snapshot {
        let observed = lock(&self.observed);
        let state = self.state();
        let around = self.around();
        let services = state.services.iter();
        let service = |s| SnapshotService::from_service(s, |b| observed.is_healthy(s, b));
        let mut snapshot = Snapshot {
            generation: 0,
            services: services.map(service).collect(),
            pools: state.pools.clone(),
            no_service: self.no_service(),
        };
        self.left_out().trim(&mut snapshot);
        snapshot.services.iter_mut().for_each(|service| spare_unreachable(service, &around));
        snapshot
    }

    /// Tells whenever [`Manager::snapshot`] may have changed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Generation of the last snapshot published.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Note the generation of a snapshot that is being published; it is stored with the next
    /// commit. The data plane's own generation covers what happens in between.
    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// How often [`Manager::snapshot`] may have changed.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    fn changed(&self) -> u64 {
        let mut revision = 0;
        self.revision.send_modify(|r| {
            *r += 1;
            revision = *r;
        });
        revision
    }
}

/// Backends that the data plane cannot send to drain, so that others get the new conns. Where there are
/// no others, nothing is won by that: the first packet after their next hop is back shall be served.
/// Draining tells nothing of health: who reads the snapshot after a restart of control is not misled.
fn spare_unreachable(service: &mut SnapshotService, around: &Surroundings) {
    let mode = service.mode;
    let is_lost = |backend: &SnapshotBackend| around.cut_off(mode, backend.address);
    if service.backends.iter().any(|b| b.takes_new_conns() && !is_lost(b)) {
        let lost = service.backends.iter_mut().filter(|b| b.takes_new_conns() && is_lost(b));
        lost.for_each(|backend| backend.state = AdminState::Drain);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use serde_json::json;

    /// A file that is read again changes services and `no_service` at once, whoever makes a snapshot
    /// meanwhile; and nobody waits for the other for ever.
    #[test]
    fn a_snapshot_has_all_of_a_file_that_is_read_again_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.json")).unwrap();
        let file = |weight: u16| {
            let service = json!({
                "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
                "backends": [{"address": "10.0.0.1", "port": 80, "weight": weight}]
            });
            FileRecord { services: vec![serde_json::from_value(service).unwrap()], pools: vec![] }
        };
        let FileRecord { services, pools } = file(1);
        let state = State { version: 1, services, pools };
        let events = Arc::new(EventLog::default());
        let manager = Manager::new(store, state, file(1), 0, events).answering(Refusal::Drop);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let snapshot = manager.snapshot();
                    let weight = snapshot.services[0].backends[0].weight;
                    assert_eq!(snapshot.no_service == Refusal::Drop, weight == 1);
                }
            });
            for round in 0..200 {
                let (weight, refusal) =
                    if round % 2 == 0 { (2, Refusal::Reset) } else { (1, Refusal::Drop) };
                manager.reload(file(weight), refusal).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        // That alone makes another snapshot too.
        let revision = manager.revision();
        let (changes, committed) = manager.reload(file(1), Refusal::Reset).unwrap();
        assert!(changes.is_empty() && committed.revision > revision);
        assert_eq!(manager.snapshot().no_service, Refusal::Reset);
    }

    #[test]
    fn backends_without_a_next_hop_drain_unless_there_are_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.json")).unwrap();
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "backends": [{"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 80},
                         {"address": "10.0.0.3", "port": 80, "state": "down"}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        let state = State { version: 1, services, pools: vec![] };
        let events = Arc::new(EventLog::default());
        let manager = Manager::new(store, state, FileRecord::default(), 0, events);
        let mut changes = manager.watch();
        let states = |lost: &[u8]| {
            let unreachable =
                lost.iter().map(|n| (Ipv4Addr::new(10, 0, 0, *n), Some(Ipv4Addr::LOCALHOST)));
            manager.set_surroundings(|around| around.unreachable = unreachable.collect());
            manager.snapshot().services[0].backends.iter().map(|b| b.state).collect::<Vec<_>>()
        };
        use AdminState::{Down, Drain, Up};
        assert_eq!(states(&[]), [Up, Up, Down]);
        assert!(!changes.has_changed().unwrap());
        assert_eq!(states(&[2, 3]), [Up, Drain, Down]);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(states(&[2, 3]), [Up, Drain, Down]);
        assert!(!changes.has_changed().unwrap(), "no news");
        assert_eq!(states(&[1, 2, 3]), [Up, Up, Down], "nobody would be better");

        // Its own health is what checks say, and stays so over a restart of control.
        states(&[2]);
        let checked = json!({"health_check": {}});
        let action = Action::PatchService { name: "web".into(), patch: checked };
        let state = manager.commit(action, None).unwrap().state;
        let mut observed = Observed::default();
        observed.retarget(&State::default(), &state, 2);
        assert!(observed.seed(&manager.snapshot(), 3));
        let service = &state.services[0];
        let healthy = service.backends.iter().map(|b| observed.is_healthy(service, b));
        assert_eq!(healthy.collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn a_health_change_makes_an_event_and_another_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.json")).unwrap();
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "health_check": {}, "backends": [{"address": "10.0.0.1", "port": 80}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        let state = State { version: 1, services, pools: vec![] };
        let events = Arc::new(EventLog::default());
        let manager = Manager::new(store, state, FileRecord::default(), 0, events);
        let mut changes = manager.watch();
        let healthy = |manager: &Manager| manager.snapshot().services[0].backends[0].healthy;
        let note = |healthy, backend: &str| {
            manager.note_health(&HealthChange {
                service: "web".into(),
                backend: backend.parse().unwrap(),
                healthy: Some(healthy),
                reason: "the reason".into(),
                at_ms: 1,
            });
        };

        assert!(!healthy(&manager), "not checked yet");
        for (now, kind) in [(true, "backend-healthy"), (false, "backend-unhealthy")] {
            changes.mark_unchanged();
            note(now, "10.0.0.1:80");
            assert!(changes.has_changed().unwrap());
            assert_eq!(healthy(&manager), now);
            let event = manager.events().page(None, 1).events.remove(0);
            assert_eq!((event.kind.as_str(), event.service.as_deref()), (kind, Some("web")));
            assert_eq!(event.backend.as_deref(), Some("10.0.0.1:80"));
            assert!(event.message.ends_with("the reason"), "{}", event.message);
        }
        changes.mark_unchanged();
        note(true, "10.0.0.2:80");
        assert!(!changes.has_changed().unwrap(), "nobody checks this backend any more");
    }
}
