//! The one that changes the world: what operators ask for, what checks have seen, what the data plane
//! tells. Everybody else reads.
//!
//! A commit runs under one lock from the check of its version to the file on disk, so that commits
//! come one after another; readers never wait for the disk. Commits block: call them from
//! `spawn_blocking`, which also sees them through when the client has gone.
//!
//! # Order of locks
//! The disk's, then the world's for a change of it ([`WorldCell`]), which is given back before anything
//! else is taken. The checker's lock is taken with no other held, or with the disk's.

mod checks;
mod dataplane;

use std::sync::{Arc, Mutex, MutexGuard};

use sluice_api::clock::now_ms;
use sluice_api::{FieldChange, Refusal};
use tokio::sync::watch;

use crate::actor::{Actor, ReadOn};
use crate::events::{Event, EventLog};
use crate::health::Checker;
use crate::model::diff::{self, Difference};
use crate::model::resource::{Change, Resource, Subject};
use crate::model::{self, ApiProblem, Batch, Precondition, State};
use crate::origin::{self, FileRecord, Merged};
use crate::store::{Content, Saved, Store, StoreError};
use crate::world::{World, WorldCell};

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
    /// The revision of the world from which on snapshots have it.
    pub revision: u64,
}

/// Holds the world, the disk and the checker.
pub struct Manager {
    /// Held during a commit.
    disk: Mutex<Disk>,
    world: WorldCell,
    /// The running checker; absent until [`Manager::start_checks`].
    checker: Mutex<Option<Checker>>,
    events: Arc<EventLog>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in another thread leaves whole values behind: each is replaced in one step.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Manager {
    /// Hold `world`, whose state `store` has already.
    pub fn new(store: Store, world: World, file: FileRecord, events: Arc<EventLog>) -> Self {
        Manager {
            disk: Mutex::new(Disk { store, file }),
            world: WorldCell::new(world),
            checker: Mutex::default(),
            events,
        }
    }

    /// The event log.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// All that is known now.
    pub fn world(&self) -> Arc<World> {
        self.world.get()
    }

    /// Tells of each world that follows.
    pub fn watch(&self) -> watch::Receiver<Arc<World>> {
        self.world.watch()
    }

    /// Do what a request asks for, durably, or nothing at all. `wanted` is what the client believes
    /// to be there, if it says so; `actor` is who asks. Blocks while the disk does.
    ///
    /// # Errors
    /// [`ApiProblem`]; the state is as before then.
    pub fn commit<R: Resource>(
        &self,
        change: Change<R>,
        wanted: Option<&Precondition>,
        actor: &Actor,
    ) -> Result<Committed, ApiProblem> {
        let mut disk = lock(&self.disk);
        let world = self.world();
        let key = change.key();
        if let Some(wanted) = wanted {
            wanted.check(&key, &world.state)?;
        }
        let (kind, message) = change.describe();
        let next = change.apply(&world.state, &world.environment)?;
        let committed = self.change(&mut disk, &world, next, None, world.no_service)?;
        if committed.state.version != world.state.version {
            let Subject { service, backend } = R::subject(&key);
            let event = Event::new(&kind, message).about(service.as_deref(), backend);
            self.events.push(event.by(actor));
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
        actor: &Actor,
    ) -> Result<(Vec<Difference>, Option<Committed>), ApiProblem> {
        let mut disk = lock(&self.disk);
        let world = self.world();
        let old = &world.state;
        if let Some(wanted) = wanted {
            wanted.check_state(old)?;
        }
        let next = batch.apply(old, &world.environment)?;
        let effect = batch.effect(old, &next);
        if dry_run {
            return Ok((effect, None));
        }
        let committed = self.change(&mut disk, &world, next, None, world.no_service)?;
        self.tell(&effect, actor);
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
        let world = self.world();
        let old = &world.state;
        let merged = origin::merge(State::clone(old), &disk.file, &file);
        if let Some(problem) = merged.takes_all_away(&disk.file, &file) {
            return Err(ApiProblem::invalid(problem));
        }
        let Merged { state: next, changes } = merged;
        model::check_next(old, &next, &world.environment)?;
        let file = (disk.file != file).then_some(file);
        let actor = Actor::File { read: ReadOn::Signal };
        let is_other = world.no_service != no_service;
        let committed = self.change(&mut disk, &world, next, file, no_service)?;
        if is_other {
            let message = format!("control.no_service is {no_service} now");
            self.events.push(Event::new("file-changed", message).by(&actor));
        }
        for line in changes.iter().flat_map(Difference::lines) {
            self.events.push(Event::new("file-changed", line).by(&actor));
        }
        Ok((changes, committed))
    }

    /// Write and adopt the next state, which has been checked; nothing when it is the same. `world` is
    /// that of the state before, which only this changes, under the lock of `disk`.
    fn change(
        &self,
        disk: &mut Disk,
        world: &World,
        mut next: State,
        file: Option<FileRecord>,
        no_service: Refusal,
    ) -> Result<Committed, ApiProblem> {
        let old = &*world.state;
        next.version = old.version;
        next.share_with(old);
        let is_same = next == *old;
        if !is_same {
            next.version += 1;
        }
        if !is_same || file.is_some() {
            let file = file.unwrap_or_else(|| disk.file.clone());
            next = self.write(disk, next, file, self.world().unconfirmed)?;
        }
        let next = Arc::new(next);
        let revision = if is_same && no_service == world.no_service {
            self.world().revision
        } else {
            self.adopt(&next, no_service)
        };
        Ok(Committed { state: next, revision })
    }

    fn adopt(&self, next: &Arc<State>, no_service: Refusal) -> u64 {
        let mut is_checked_otherwise = false;
        let world = self.world.change(|world| {
            is_checked_otherwise = world.adopt(next.clone(), no_service, now_ms());
        });
        if is_checked_otherwise {
            self.set_targets();
        }
        world.revision
    }

    /// An event for each resource that changed.
    fn tell(&self, effect: &[Difference], actor: &Actor) {
        for difference in effect.iter().filter(|d| d.change != diff::Change::Unchanged) {
            let Difference { kind, name, change, fields } = difference;
            let fields: Vec<String> = fields.iter().map(FieldChange::to_string).collect();
            let what =
                if fields.is_empty() { String::new() } else { format!(": {}", fields.join("; ")) };
            let message = format!("{kind} {name} {change}, applied{what}");
            let service = (*kind == "service").then_some(name.as_str());
            let event = Event::new(&format!("{kind}-{change}"), message).about(service, None);
            self.events.push(event.by(actor));
        }
    }

    fn write(
        &self,
        disk: &mut Disk,
        state: State,
        file: FileRecord,
        unconfirmed: bool,
    ) -> Result<State, ApiProblem> {
        let generation = self.world().generation;
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
        if let Some(failure) = &failure {
            self.events.note("state-not-written", failure.clone());
        } else if self.world().writes.failing.is_some() {
            self.events.note("state-written", "the state file is written again");
        }
        self.world.change_if(|world| {
            let has_failed = failure.is_some();
            world.writes.failures += u64::from(has_failed);
            let was_failing = std::mem::replace(&mut world.writes.failing, failure).is_some();
            has_failed || was_failing
        });
        done
    }

    /// An operator's word that the state may be published, whatever it takes away. `wanted` is the
    /// state that the client means, if it says so. Blocks while the disk does.
    ///
    /// # Errors
    /// [`ApiProblem::NotStored`] and [`ApiProblem::VersionMismatch`]; nothing is confirmed then.
    pub fn confirm(
        &self,
        wanted: Option<&Precondition>,
        actor: &Actor,
    ) -> Result<Committed, ApiProblem> {
        let mut disk = lock(&self.disk);
        let world = self.world();
        let state = world.state.clone();
        if let Some(wanted) = wanted {
            wanted.check_state(&state)?;
        }
        if !world.unconfirmed {
            return Ok(Committed { state, revision: world.revision });
        }
        let file = disk.file.clone();
        self.write(&mut disk, State::clone(&state), file, false)?;
        let world = self.world.change(|world| {
            world.unconfirmed = false;
            world.revision += 1;
        });
        let message = format!("state version {} may be published as it is", state.version);
        self.events.push(Event::new("state-confirmed", message).by(actor));
        Ok(Committed { state, revision: world.revision })
    }

    /// Come back once nobody holds what readers and changes need, which is never for long.
    pub fn probe(&self) {
        self.world.change_if(|_| false);
        drop(lock(&self.checker));
    }

    /// Wait until no commit is running.
    pub fn settle(&self) {
        drop(lock(&self.disk));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::compose;
    use crate::health::Contact;
    use crate::health::HealthChange;
    use crate::model::Environment;
    use crate::model::resource::{BackendSetting, Key, OfService};
    use crate::observed::Observed;
    use serde_json::json;
    use sluice_api::{AdminState, Backend, Service, Snapshot};

    fn snapshot(manager: &Manager) -> Snapshot {
        compose::snapshot(&manager.world())
    }

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
            let services = vec![serde_json::from_value(service).unwrap()];
            FileRecord { services: services.into(), ..FileRecord::default() }
        };
        let FileRecord { services, pools } = file(1);
        let state = State { version: 1, services, pools };
        let events = Arc::new(EventLog::default());
        let world = World { no_service: Refusal::Drop, ..World::new(state, 0) };
        let manager = Manager::new(store, world, file(1), events);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let snapshot = snapshot(&manager);
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
        let revision = manager.world().revision;
        let (changes, committed) = manager.reload(file(1), Refusal::Reset).unwrap();
        assert!(changes.is_empty() && committed.revision > revision);
        assert_eq!(snapshot(&manager).no_service, Refusal::Reset);
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
        let state = State { version: 1, services: services.into(), ..State::default() };
        let events = Arc::new(EventLog::default());
        let manager = Manager::new(store, World::new(state, 0), FileRecord::default(), events);
        let mut changes = manager.watch();
        let states = |lost: &[u8]| {
            let unreachable = lost
                .iter()
                .map(|n| (IpAddr::from([10, 0, 0, *n]), Some(IpAddr::from([127, 0, 0, 1]))));
            manager.set_surroundings(|around| around.unreachable = unreachable.collect());
            snapshot(&manager).services[0].backends.iter().map(|b| b.state).collect::<Vec<_>>()
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
        let key = Key::<Service> { holder: (), id: "web".into() };
        let state =
            manager.commit(Change::Patch(key, checked), None, &Actor::Dataplane).unwrap().state;
        let mut observed = Observed::default();
        observed.retarget(&State::default(), &state, 2);
        assert!(observed.seed(&snapshot(&manager), 3));
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
        let state = State { version: 1, services: services.into(), ..State::default() };
        let events = Arc::new(EventLog::default());
        let manager = Manager::new(store, World::new(state, 0), FileRecord::default(), events);
        let mut changes = manager.watch();
        let healthy = |manager: &Manager| snapshot(manager).services[0].backends[0].healthy;
        let note = |healthy, backend: &str| {
            manager.note_health(&[HealthChange {
                service: "web".into(),
                backend: backend.parse().unwrap(),
                healthy: Some(healthy),
                reason: "the reason".into(),
                at_ms: 1,
            }]);
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
            assert_eq!(event.actor, Some(Actor::HealthCheck));
            assert!(event.message.ends_with("the reason"), "{}", event.message);
        }
        changes.mark_unchanged();
        note(true, "10.0.0.2:80");
        assert!(!changes.has_changed().unwrap(), "nobody checks this backend any more");
    }

    /// Operators, checks, the publisher and readers, all at once: nobody waits for another for ever, and
    /// no change is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everybody_changes_the_world_at_once() {
        const ROUNDS: u64 = 100;
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.json")).unwrap();
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "health_check": {}, "backends": [{"address": "10.0.0.1", "port": 80}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        let world =
            World::new(State { version: 1, services: services.into(), ..State::default() }, 0);
        let events = Arc::new(EventLog::default());
        let manager = Manager::new(store, world, FileRecord::default(), events);
        let runtime = tokio::runtime::Handle::current();
        let is_over = AtomicBool::new(false);
        let read = || {
            while !is_over.load(Ordering::Relaxed) {
                manager.probe();
                let world = manager.world();
                let weight = u64::from(world.state.services[0].backends[0].weight);
                assert!(world.state.version == 1 || weight == world.state.version - 1);
            }
        };
        let work: [fn(&Manager, u64); 4] = [operate, check, publish, restart_checks];
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                scope.spawn(read);
                let (manager, runtime) = (&manager, &runtime);
                let threads = work.map(|work| {
                    scope.spawn(move || {
                        let _inside = runtime.enter();
                        (1..=ROUNDS).for_each(|round| work(manager, round));
                    })
                });
                let done = threads.map(|thread| thread.join());
                is_over.store(true, Ordering::Relaxed);
                assert!(done.iter().all(Result::is_ok));
            });
        });
        let world = manager.world();
        assert_eq!((world.state.version, world.link.published), (1 + ROUNDS, ROUNDS));
        assert!(world.revision > 2 * ROUNDS, "{}", world.revision);
        let service = &world.state.services[0];
        assert!(world.observed.is_healthy(service, &service.backends[0]), "the last that was told");
    }

    fn web() -> Key<Backend> {
        let holder = OfService("web".to_owned());
        Key { holder, id: "10.0.0.1:80".parse().unwrap() }
    }

    fn operate(manager: &Manager, round: u64) {
        let change = Change::Set(web(), BackendSetting::Weight(round as u16));
        manager.commit(change, None, &Actor::HealthCheck).unwrap();
    }

    fn check(manager: &Manager, round: u64) {
        let (service, reason) = ("web".to_owned(), "told".to_owned());
        let healthy = Some(round.is_multiple_of(2));
        manager.note_health(&[HealthChange {
            service,
            backend: web().id,
            healthy,
            reason,
            at_ms: 1,
        }]);
    }

    fn publish(manager: &Manager, round: u64) {
        // The backend's address, and none.
        let port_addresses = vec![web().id.address; (round % 2) as usize];
        manager.set_environment(Environment { port_addresses, ..Environment::default() });
        manager.update_link(|link| link.published = round);
        manager.dataplane_is(Contact::Answers(vec![]));
    }

    fn restart_checks(manager: &Manager, _: u64) {
        let (changes, _) = tokio::sync::mpsc::unbounded_channel();
        manager.start_checks(Checker::start(changes));
        manager.stop_checks();
    }
}
