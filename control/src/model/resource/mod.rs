//! What the desired state is made of: one trait for all kinds, and one way to change any of them.
//!
//! A new kind is a file here, which says where it is kept, how it is read and what else can be set; its
//! paths are a file in `http`.

mod backend;
mod change;
mod collection;
mod pool;
mod service;

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value};
use sluice_api::{BackendId, Problems};

use super::{ApiProblem, Kind, State, state_tag, tag_of};

pub use backend::{BackendSetting, OfService};
pub use change::{Change, check_next};
pub use collection::Collection;
pub use pool::PoolSetting;

/// A kind of thing that operators make, change and delete.
pub trait Resource: Clone + PartialEq + Serialize + Send + Sync + Sized + 'static {
    /// Its kind.
    const KIND: Kind;
    /// What it is a part of: `()` for the state itself.
    type Holder: Holder;
    /// What names one within its holder.
    type Id: Display + Clone + Send + 'static;
    /// What a holder keeps them in.
    type All: Collection<Self>;
    /// What can be set beside its fields, by a request of its own.
    type Setting: Send + 'static;

    /// Its name within its holder.
    fn id(&self) -> Self::Id;

    /// All that a holder has, oldest first.
    ///
    /// # Errors
    /// [`ApiProblem::NotFound`] when there is no such holder.
    fn all<'s>(state: &'s State, holder: &Self::Holder) -> Result<&'s Self::All, ApiProblem>;

    /// The same, to be changed; none when there is no such holder.
    fn all_mut<'s>(state: &'s mut State, holder: &Self::Holder) -> Option<&'s mut Self::All>;

    /// From a JSON body; problems call it `label`.
    ///
    /// # Errors
    /// Everything that is wrong with it by itself.
    fn read(body: Value, holder: &Self::Holder, label: &str) -> Result<Self, Problems>;

    /// Where it stands in the state, as problems name it: `services[web]`.
    fn field(key: &Key<Self>) -> String;

    /// The fields that are its name, which no change of it can change.
    fn identity(id: &Self::Id) -> Vec<(&'static str, Value)>;

    /// Set what has a request of its own.
    ///
    /// # Errors
    /// [`ApiProblem`], when that cannot be set.
    fn set(&mut self, setting: Self::Setting) -> Result<(), ApiProblem>;

    /// What is told of that: a word for programs and a sentence for people.
    fn tell_set(key: &Key<Self>, setting: &Self::Setting) -> (String, String);

    /// Fill in what operators have set of it and a batch does not name: that stays.
    fn keep(&self, _fields: &mut Map<String, Value>) {}

    /// Whether it may be deleted.
    ///
    /// # Errors
    /// [`ApiProblem`] that says who still needs it.
    fn may_go(_state: &State, _id: &Self::Id) -> Result<(), ApiProblem> {
        Ok(())
    }

    /// Whom an event about it is about.
    fn subject(_key: &Key<Self>) -> Subject {
        Subject::default()
    }
}

/// What a resource is a part of.
pub trait Holder: Clone + Send + Sync + 'static {
    /// Its name, if it is not the state.
    fn name(&self) -> Option<&str>;

    /// What it is in words, and its entity tag, if it is there and not the state.
    fn tag(&self, state: &State) -> Option<(String, String)>;
}

impl Holder for () {
    fn name(&self) -> Option<&str> {
        None
    }

    fn tag(&self, _: &State) -> Option<(String, String)> {
        None
    }
}

/// Names one resource in the whole state.
#[derive(Clone)]
pub struct Key<R: Resource> {
    /// What it is a part of.
    pub holder: R::Holder,
    /// Its name there.
    pub id: R::Id,
}

impl<R: Resource> Key<R> {
    /// The resource, or the problem that says which there are.
    ///
    /// # Errors
    /// [`ApiProblem::NotFound`].
    pub fn find<'s>(&self, state: &'s State) -> Result<&'s R, ApiProblem> {
        R::all(state, &self.holder)?.find(&self.id).ok_or_else(|| self.not_found(state))
    }

    /// The resource in `next`, to be changed. `state` is what `next` is a copy of.
    fn find_mut<'s>(&self, next: &'s mut State, state: &State) -> Result<&'s mut R, ApiProblem> {
        let found = R::all_mut(next, &self.holder).and_then(|all| all.find_mut(&self.id));
        found.ok_or_else(|| self.not_found(state))
    }

    fn not_found(&self, state: &State) -> ApiProblem {
        match R::all(state, &self.holder) {
            Ok(all) => ApiProblem::not_found(R::KIND, &self.id, all.ids()),
            Err(no_holder) => no_holder,
        }
    }

    /// As events name it: `backend 10.0.0.1:80 of web`.
    fn in_words(&self) -> String {
        match self.holder.name() {
            None => format!("{} {}", R::KIND, self.id),
            Some(holder) => format!("{} {} of {holder}", R::KIND, self.id),
        }
    }

    /// What a change of it changes, in words, and the entity tags that this has now: its own first, then
    /// those of all that it is a part of.
    pub fn tags(&self, state: &State) -> (String, Vec<String>) {
        let (mut what, mut tags) = ("the state".to_owned(), vec![state_tag(state)]);
        let holder = self.holder.tag(state);
        let of = holder.as_ref().map(|(name, _)| format!(" of {name}")).unwrap_or_default();
        if let Some((name, tag)) = holder {
            what = name;
            tags.insert(0, tag);
        }
        if let Ok(found) = self.find(state) {
            what = format!("{} {}{of}", R::KIND, self.id);
            tags.insert(0, tag_of(found));
        }
        (what, tags)
    }
}

/// Whom an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The service.
    pub service: Option<String>,
    /// The backend of that service.
    pub backend: Option<BackendId>,
}
