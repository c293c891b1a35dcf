//! What holders keep resources in: by name where there may be thousands, in a list where they are a part of
//! something.

use sluice_api::{Backend, BackendId};

use super::Resource;
use crate::model::{HasName, Named};

/// All resources of one kind that a holder has, oldest first.
pub trait Collection<R: Resource> {
    /// The names of all.
    fn ids(&self) -> impl Iterator<Item = R::Id>;

    /// The one of a name.
    fn find(&self, id: &R::Id) -> Option<&R>;

    /// The same, to be changed.
    fn find_mut(&mut self, id: &R::Id) -> Option<&mut R>;

    /// Add one whose name no other has.
    fn add(&mut self, one: R);

    /// Remove the one of a name.
    fn remove(&mut self, id: &R::Id);
}

impl<R: Resource<Id = String> + HasName> Collection<R> for Named<R> {
    fn ids(&self) -> impl Iterator<Item = String> {
        self.iter().map(R::id)
    }

    fn find(&self, name: &String) -> Option<&R> {
        self.get(name)
    }

    fn find_mut(&mut self, name: &String) -> Option<&mut R> {
        self.get_mut(name)
    }

    fn add(&mut self, one: R) {
        self.put(one);
    }

    fn remove(&mut self, name: &String) {
        Named::remove(self, name);
    }
}

impl Collection<Backend> for Vec<Backend> {
    fn ids(&self) -> impl Iterator<Item = BackendId> {
        self.iter().map(Backend::id)
    }

    fn find(&self, id: &BackendId) -> Option<&Backend> {
        self.iter().find(|backend| backend.id() == *id)
    }

    fn find_mut(&mut self, id: &BackendId) -> Option<&mut Backend> {
        self.iter_mut().find(|backend| backend.id() == *id)
    }

    fn add(&mut self, one: Backend) {
        self.push(one);
    }

    fn remove(&mut self, id: &BackendId) {
        self.retain(|backend| backend.id() != *id);
    }
}
