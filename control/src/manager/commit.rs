//! How changes become durable: who waits at the same time shares one transaction, and so one wait for the disk.
//!
//! A change queues and then wants the disk. Who gets it makes all that have queued by then, each on top of
//! those before it, writes them together and answers; the others find their answer when their turn comes.

use std::sync::{Arc, Mutex};

use sluice_api::Refusal;
use sluice_api::clock::now_ms;

use super::{Committed, Disk, Manager, lock};
use crate::actor::Author;
use crate::events::Event;
use crate::model::{ApiProblem, Environment, State};
use crate::origin::FileRecord;
use crate::store::{Beside, Revision, Step};
use crate::world::World;

type Answer = Arc<Mutex<Option<Result<Committed, ApiProblem>>>>;

/// Makes the next of a draft.
type Make = Box<dyn FnOnce(&Draft) -> Result<Next, ApiProblem> + Send>;

/// A change that waits for its turn.
pub(super) struct Job {
    make: Make,
    answer: Answer,
}

/// What a change begins with: all that was made before it.
#[derive(Clone)]
pub(super) struct Draft {
    pub state: Arc<State>,
    /// What the TOML file said when it was read last.
    pub file: Arc<FileRecord>,
    pub no_service: Refusal,
    pub unconfirmed: bool,
    /// What the rules depend on beside.
    pub environment: Arc<Environment>,
}

/// What a change comes to.
pub(super) struct Next {
    /// The next state, of any version.
    pub state: State,
    /// What the TOML file says, if it was read.
    pub file: Option<FileRecord>,
    pub no_service: Refusal,
    /// Whether it is an operator's word that the state may be published.
    pub confirms: bool,
    /// What it is: a word for programs and a sentence for people.
    pub what: (String, String),
    pub author: Author,
    /// What to tell if it changes the state.
    pub events: Vec<Event>,
    /// What to tell in any case.
    pub always: Vec<Event>,
}

impl Next {
    /// Another state, and nothing beside.
    pub fn of(draft: &Draft, state: State, what: (String, String), author: Author) -> Self {
        Next {
            state,
            file: None,
            no_service: draft.no_service,
            confirms: false,
            what,
            author,
            events: Vec::new(),
            always: Vec::new(),
        }
    }
}

/// A change that is made and not written yet.
struct Made {
    state: Arc<State>,
    events: Vec<Event>,
    answer: Answer,
}

/// What is written together.
struct Group {
    draft: Draft,
    steps: Vec<Step>,
    made: Vec<Made>,
}

impl Group {
    fn new(world: &World, disk: &Disk) -> Self {
        let draft = Draft {
            state: world.state.clone(),
            file: disk.file.clone(),
            no_service: world.no_service,
            unconfirmed: world.unconfirmed,
            environment: world.environment.clone(),
        };
        Group { draft, steps: Vec::new(), made: Vec::new() }
    }

    fn make(&mut self, Job { make, answer }: Job) {
        let next = match make(&self.draft) {
            Ok(next) => next,
            Err(problem) => return give(&answer, Err(problem)),
        };
        let Next { mut state, file, no_service, confirms, what, author, mut events, always } = next;
        let old = self.draft.state.clone();
        state.version = old.version;
        state.share_with(&old);
        if state == *old {
            events.clear();
        } else {
            state.version += 1;
            self.draft.state = Arc::new(state);
            let revision = revision(self.draft.state.version, what, author);
            self.steps.push(Step { old, new: self.draft.state.clone(), revision });
        }
        if let Some(file) = file.filter(|file| *file != *self.draft.file) {
            self.draft.file = Arc::new(file);
        }
        self.draft.no_service = no_service;
        self.draft.unconfirmed &= !confirms;
        events.splice(0..0, always);
        self.made.push(Made { state: self.draft.state.clone(), events, answer });
    }
}

/// A revision that is made now.
pub fn revision(number: u64, (kind, what): (String, String), author: Author) -> Revision {
    let Author { actor, reason } = author;
    Revision { number, at_ms: now_ms(), actor, kind, what, reason }
}

fn give(answer: &Answer, result: Result<Committed, ApiProblem>) {
    *lock(answer) = Some(result);
}

impl Manager {
    /// Do a change durably, with all that wait at the same time. Blocks while the disk does.
    ///
    /// # Errors
    /// That of `make`, or [`ApiProblem::NotStored`]; the state is as before then.
    pub(super) fn submit(
        &self,
        make: impl FnOnce(&Draft) -> Result<Next, ApiProblem> + Send + 'static,
    ) -> Result<Committed, ApiProblem> {
        let answer = Answer::default();
        lock(&self.waiting).push(Job { make: Box::new(make), answer: answer.clone() });
        let mut disk = lock(&self.disk);
        let given = lock(&answer).take();
        if let Some(given) = given {
            return given;
        }
        let jobs = std::mem::take(&mut *lock(&self.waiting));
        self.commit_all(&mut disk, jobs);
        drop(disk);
        // Who panicked while ours was at work has taken it along.
        lock(&answer).take().unwrap_or_else(|| {
            Err(ApiProblem::NotStored("another change failed at the same time".to_owned()))
        })
    }

    fn commit_all(&self, disk: &mut Disk, jobs: Vec<Job>) {
        let world = self.world();
        let mut group = Group::new(&world, disk);
        jobs.into_iter().for_each(|job| group.make(job));
        let Group { draft, steps, made } = group;
        let file = (!Arc::ptr_eq(&draft.file, &disk.file)).then_some(&*draft.file);
        if !steps.is_empty() || file.is_some() || draft.unconfirmed != world.unconfirmed {
            let beside =
                Beside { file, generation: world.generation, unconfirmed: draft.unconfirmed };
            if let Err(error) = self.note_write(disk.store.write(&steps, &beside)) {
                let refused = || Err(ApiProblem::NotStored(error.to_string()));
                return made.iter().for_each(|made| give(&made.answer, refused()));
            }
            disk.file = draft.file.clone();
        }
        let revision = self.adopt(&world, &draft);
        for Made { state, events, answer } in made {
            events.into_iter().for_each(|event| self.events.push(event));
            give(&answer, Ok(Committed { state, revision }));
        }
    }

    /// Let the world have what is on disk. Returns its revision from which on snapshots have it.
    fn adopt(&self, before: &World, draft: &Draft) -> u64 {
        let is_confirmed = before.unconfirmed && !draft.unconfirmed;
        let is_same =
            Arc::ptr_eq(&before.state, &draft.state) && before.no_service == draft.no_service;
        if is_same && !is_confirmed {
            return self.world().revision;
        }
        let mut is_checked_otherwise = false;
        let world = self.world.change(|world| {
            world.unconfirmed &= !is_confirmed;
            is_checked_otherwise = world.adopt(draft.state.clone(), draft.no_service, now_ms());
        });
        if is_checked_otherwise {
            self.set_targets();
        }
        world.revision
    }
}
