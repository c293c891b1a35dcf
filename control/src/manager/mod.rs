//! The one that changes the world: what operators ask for, what checks have seen, what the data plane
//! tells. Everybody else reads.
//!
//! Commits come one after another, each made of the state that the one before has left, and are written
//! together when several wait ([`commit`]); readers never wait for the disk. Commits block: call them from
//! `spawn_blocking`, which also sees them through when the client has gone.
//!
//! # Order of locks
//! The queue of commits by itself. The disk's, then the world's for a change of it ([`WorldCell`]), which is given back before anything
//! else is taken. The checker's lock is taken with no other held, or with the disk's.

mod checks;
mod commit;
mod dataplane;

use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use sluice_api::{FieldChange, Refusal};
use tokio::sync::watch;

use crate::actor::{Actor, Author, ReadOn};
use crate::events::{Event, EventLog};
use crate::health::Checker;
use crate::model::diff::{self, Difference};
use crate::model::resource::{Change, Resource, Subject};
use crate::model::{self, ApiProblem, Batch, Environment, Precondition, State};
use crate::origin::{self, FileRecord, Merged};
use crate::store::{Store, StoreError};
use crate::world::{World, WorldCell};

use commit::{Job, Next};

pub use commit::revision;

/// What is written together.
struct Disk {
    store: Store,
    /// What the TOML file said when it was read last.
    file: Arc<FileRecord>,
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
    /// Changes that wait for the disk.
    waiting: Mutex<Vec<Job>>,
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
    pub fn new(store: Store, world: World, file: Arc<FileRecord>, events: Arc<EventLog>) -> Self {
        Manager {
            waiting: Mutex::default(),
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
    /// to be there, if it says so. Blocks while the disk does.
    ///
    /// # Errors
    /// [`ApiProblem`]; the state is as before then.
    pub fn commit<R: Resource>(
        &self,
        change: Change<R>,
        wanted: Option<Precondition>,
        author: Author,
    ) -> Result<Committed, ApiProblem> {
        self.submit(move |draft| {
            let key = change.key();
            if let Some(wanted) = wanted {
                wanted.check(&key, &draft.state)?;
            }
            let (kind, message) = change.describe();
            let next = change.apply(&draft.state, &draft.environment)?;
            let Subject { service, backend } = R::subject(&key);
            let event = Event::new(&kind, &message).about(service.as_deref(), backend);
            let event = event.by(&author.actor);
            Ok(Next { events: vec![event], ..Next::of(draft, next, (kind, message), author) })
        })
    }

    /// Make many resources be as they are given, in one change; or only tell what that would do.
    /// Returns what became of each of them, and nothing of a change that was not made.
    ///
    /// # Errors
    /// [`ApiProblem`]; the state is as before then.
    pub fn apply(
        &self,
        batch: Batch,
        wanted: Option<Precondition>,
        dry_run: bool,
        author: Author,
    ) -> Result<(Vec<Difference>, Option<Committed>), ApiProblem> {
        self.change_to(wanted, dry_run, "apply", author, move |state, environment| {
            let next = batch.apply(state, environment)?;
            let effect = batch.effect(state, &next);
            let what = format!("applied: {}", diff::summary(&effect));
            Ok((next, effect, what))
        })
    }

    /// Make the state be as it was with a former revision, in a change of its own; or only tell what that
    /// would do. Returns what became of each resource that differs, and nothing of a change that was not
    /// made.
    ///
    /// # Errors
    /// [`ApiProblem`]; the state is as before then.
    pub fn roll_back(
        &self,
        former: State,
        wanted: Option<Precondition>,
        dry_run: bool,
        author: Author,
    ) -> Result<(Vec<Difference>, Option<Committed>), ApiProblem> {
        self.change_to(wanted, dry_run, "rollback", author, move |state, environment| {
            let what = format!("rolled back to revision {}", former.version);
            let mut next = former;
            next.share_with(state);
            model::check_next(state, &next, environment)?;
            let effect = diff::diff(state, &next);
            Ok((next, effect, what))
        })
    }

    /// A change of many resources at once, by what `make` makes of a state.
    fn change_to(
        &self,
        wanted: Option<Precondition>,
        dry_run: bool,
        kind: &'static str,
        author: Author,
        make: impl FnOnce(&State, &Environment) -> Result<(State, Vec<Difference>, String), ApiProblem>
        + Send
        + 'static,
    ) -> Result<(Vec<Difference>, Option<Committed>), ApiProblem> {
        if dry_run {
            let world = self.world();
            if let Some(wanted) = wanted {
                wanted.check_state(&world.state)?;
            }
            let (_, effect, _) = make(&world.state, &world.environment)?;
            return Ok((effect, None));
        }
        let (tell, told) = mpsc::channel();
        let committed = self.submit(move |draft| {
            if let Some(wanted) = wanted {
                wanted.check_state(&draft.state)?;
            }
            let (next, effect, what) = make(&draft.state, &draft.environment)?;
            let events = tell_effect(&effect, &author.actor, kind);
            // Who waits for it is there.
            let _ = tell.send(effect);
            Ok(Next { events, ..Next::of(draft, next, (kind.to_owned(), what), author) })
        })?;
        Ok((told.recv().unwrap_or_default(), Some(committed)))
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
        let (tell, told) = mpsc::channel();
        let committed = self.submit(move |draft| {
            let merged = origin::merge(State::clone(&draft.state), &draft.file, &file);
            if let Some(problem) = merged.takes_all_away(&draft.file, &file) {
                return Err(ApiProblem::invalid(problem));
            }
            let Merged { state: next, changes } = merged;
            model::check_next(&draft.state, &next, &draft.environment)?;
            let actor = Actor::File { read: ReadOn::Signal };
            let event = |message: String| Event::new("file-changed", message).by(&actor);
            let is_other = draft.no_service != no_service;
            let message = format!("control.no_service is {no_service} now");
            let always = is_other.then(|| event(message)).into_iter().collect();
            let events = changes.iter().flat_map(Difference::lines).map(event).collect();
            let what = ("file".to_owned(), origin::summary(&changes));
            // Who waits for it is there.
            let _ = tell.send(changes);
            let next = Next::of(draft, next, what, actor.into());
            Ok(Next { file: Some(file), no_service, events, always, ..next })
        })?;
        Ok((told.recv().unwrap_or_default(), committed))
    }

    /// Take note of how a write went: an event when it failed, and when one succeeds again.
    ///
    /// # Errors
    /// That of the write.
    pub fn note_write(&self, written: Result<(), StoreError>) -> Result<(), StoreError> {
        let failure = written.as_ref().err().map(StoreError::to_string);
        if let Some(failure) = &failure {
            self.events.note("state-not-written", failure.clone());
        } else if self.world().writes.failing.is_some() {
            self.events.note("state-written", "the database is written again");
        }
        self.world.change_if(|world| {
            let has_failed = failure.is_some();
            world.writes.failures += u64::from(has_failed);
            let was_failing = std::mem::replace(&mut world.writes.failing, failure).is_some();
            has_failed || was_failing
        });
        written
    }

    /// An operator's word that the state may be published, whatever it takes away. `wanted` is the
    /// state that the client means, if it says so. Blocks while the disk does.
    ///
    /// # Errors
    /// [`ApiProblem::NotStored`] and [`ApiProblem::VersionMismatch`]; nothing is confirmed then.
    pub fn confirm(
        &self,
        wanted: Option<Precondition>,
        author: Author,
    ) -> Result<Committed, ApiProblem> {
        self.submit(move |draft| {
            if let Some(wanted) = wanted {
                wanted.check_state(&draft.state)?;
            }
            let message =
                format!("state version {} may be published as it is", draft.state.version);
            let event = Event::new("state-confirmed", &*message).by(&author.actor);
            let always = if draft.unconfirmed { vec![event] } else { Vec::new() };
            let what = ("state-confirmed".to_owned(), message);
            let next = Next::of(draft, State::clone(&draft.state), what, author);
            Ok(Next { confirms: true, always, ..next })
        })
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

/// An event for each resource that changed.
fn tell_effect(effect: &[Difference], actor: &Actor, how: &str) -> Vec<Event> {
    let changed = effect.iter().filter(|d| d.change != diff::Change::Unchanged);
    let event = |Difference { kind, name, change, fields }: &Difference| {
        let fields: Vec<String> = fields.iter().map(FieldChange::to_string).collect();
        let what =
            if fields.is_empty() { String::new() } else { format!(": {}", fields.join("; ")) };
        let how = if how == "apply" { "applied" } else { "rolled back" };
        let message = format!("{kind} {name} {change}, {how}{what}");
        let service = (*kind == "service").then_some(name.as_str());
        Event::new(&format!("{kind}-{change}"), message).about(service, None).by(actor)
    };
    changed.map(event).collect()
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
    use crate::store::{Beside, Keep, Step};
    use serde_json::json;
    use sluice_api::{AdminState, Backend, Pool, Service, Snapshot};
    use tempfile::TempDir;

    /// With a database that has the world's state.
    fn begun(directory: &TempDir, world: World, file: Arc<FileRecord>) -> Manager {
        let path = directory.path().join("state.db");
        let mut store = Store::open(&path, Keep::default()).unwrap();
        let what = ("initial".to_owned(), "the first".to_owned());
        let revision = revision(world.state.version, what, Actor::Dataplane.into());
        let step = Step { old: Arc::default(), new: world.state.clone(), revision };
        let beside = Beside { file: Some(&file), generation: 0, unconfirmed: false };
        store.write(&[step], &beside).unwrap();
        Manager::new(store, world, file, Arc::new(EventLog::default()))
    }

    fn snapshot(manager: &Manager) -> Snapshot {
        compose::snapshot(&manager.world())
    }

    /// A file that is read again changes services and `no_service` at once, whoever makes a snapshot
    /// meanwhile; and nobody waits for the other for ever.
    #[test]
    fn a_snapshot_has_all_of_a_file_that_is_read_again_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
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
        let world = World { no_service: Refusal::Drop, ..World::new(state, 0) };
        let manager = begun(&directory, world, file(1).into());
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
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "backends": [{"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 80},
                         {"address": "10.0.0.3", "port": 80, "state": "down"}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        let state = State { version: 1, services: services.into(), ..State::default() };
        let manager = begun(&directory, World::new(state, 0), Arc::default());
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
        let state = manager.commit(Change::Patch(key, checked), None, Actor::Dataplane.into());
        let state = state.unwrap().state;
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
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "health_check": {}, "backends": [{"address": "10.0.0.1", "port": 80}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        let state = State { version: 1, services: services.into(), ..State::default() };
        let manager = begun(&directory, World::new(state, 0), Arc::default());
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
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "health_check": {}, "backends": [{"address": "10.0.0.1", "port": 80}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        let world =
            World::new(State { version: 1, services: services.into(), ..State::default() }, 0);
        let manager = begun(&directory, world, Arc::default());
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

    /// Who waits at the same time is written together, in order, each on top of the one before: who is refused
    /// does not hold up the others, and a disk that refuses, refuses all.
    #[test]
    fn who_waits_together_is_written_together() {
        let directory = tempfile::tempdir().unwrap();
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "backends": [{"address": "10.0.0.1", "port": 80}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        let state = State { version: 1, services: services.into(), ..State::default() };
        let manager = begun(&directory, World::new(state, 0), Arc::default());
        let stale = || Some(Precondition::OneOf(vec!["\"0\"".to_owned()]));
        // A pool each, of which two have one name; and one who has not seen the newest state.
        let together = || -> Vec<Result<Committed, ApiProblem>> {
            std::thread::scope(|scope| {
                let disk = lock(&manager.disk);
                let threads: Vec<_> = [1, 2, 2, 3, 4]
                    .into_iter()
                    .map(|n| {
                        let pool = Pool::new(format!("p{n}"), vec![[10, 9, 0, n].into()]);
                        let (manager, wanted) = (&manager, (n == 4).then(stale).flatten());
                        let author = Actor::HealthCheck.into();
                        scope
                            .spawn(move || manager.commit(Change::Create((), pool), wanted, author))
                    })
                    .collect();
                while lock(&manager.waiting).len() < threads.len() {
                    std::thread::yield_now();
                }
                drop(disk);
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        };
        let path = directory.path().join("state.db");
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        let refused = together();
        let not_stored = refused.iter().filter(|r| matches!(r, Err(ApiProblem::NotStored(_))));
        assert_eq!((not_stored.count(), refused.len()), (3, 5), "{refused:?}");
        assert_eq!((manager.world().state.version, manager.world().writes.failures), (1, 1));

        std::fs::rename(directory.path().join("elsewhere"), &path).unwrap();
        let before = manager.world().revision;
        let mut done: Vec<u64> =
            together().iter().flatten().map(|committed| committed.state.version).collect();
        done.sort_unstable();
        assert_eq!(done, [2, 3, 4], "each is a revision of its own");
        let world = manager.world();
        assert_eq!(
            (world.state.pools.len(), world.revision),
            (3, before + 1),
            "taken over at once"
        );
        let history = lock(&manager.disk).store.history();
        let numbers: Vec<u64> =
            history.page(None, 9).unwrap().iter().map(|revision| revision.number).collect();
        assert_eq!(numbers, [4, 3, 2, 1]);
        assert_eq!(history.state(4).unwrap(), *world.state);
    }

    fn web() -> Key<Backend> {
        let holder = OfService("web".to_owned());
        Key { holder, id: "10.0.0.1:80".parse().unwrap() }
    }

    fn operate(manager: &Manager, round: u64) {
        let change = Change::Set(web(), BackendSetting::Weight(round as u16));
        manager.commit(change, None, Actor::HealthCheck.into()).unwrap();
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
