//! Resources that a state holds, by their names. Whatever the size of a state, a copy of it is a copy of
//! pointers, a name is found at once, and what a change has touched is told apart by pointers: a weight of
//! one backend among 100,000 copies its service and nothing else.

use std::collections::HashMap;
use std::iter;
use std::ops::Index;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sluice_api::{Pool, Service};

/// What has a name of its own in a state.
pub trait HasName {
    /// The name.
    fn name(&self) -> &str;
}

impl HasName for Service {
    fn name(&self) -> &str {
        &self.name
    }
}

impl HasName for Pool {
    fn name(&self) -> &str {
        &self.name
    }
}

/// All resources of one kind, oldest first. A copy shares them; a change copies what it changes. Names may
/// stand twice, as in a file that is yet to be judged; the first is the one that is found.
#[derive(Clone, Debug)]
pub struct Named<T> {
    all: Vec<Arc<T>>,
    /// Where each name stands first. Shared by states that have the same names in the same order.
    places: Arc<HashMap<Box<str>, usize>>,
}

/// A resource that is not the same one in two states: the one before and the one now, as far as there are.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'s, T> {
    /// As it was; none when it is new.
    pub before: Option<&'s Arc<T>>,
    /// As it is; none when it is gone.
    pub now: Option<&'s Arc<T>>,
}

impl<T: HasName> Named<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> + Clone {
        self.all.iter().map(Arc::as_ref)
    }

    /// All of them, as they are shared between states.
    pub fn shared(&self) -> &[Arc<T>] {
        &self.all
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.get_shared(name).map(Arc::as_ref)
    }

    /// The one of this name, as it is shared between states.
    pub fn get_shared(&self, name: &str) -> Option<&Arc<T>> {
        self.places.get(name).map(|place| &self.all[*place])
    }

    /// Whether some name stands twice.
    pub fn has_namesakes(&self) -> bool {
        self.places.len() < self.all.len()
    }

    /// Put one in the place of the one of its name, or behind all others.
    pub fn put(&mut self, one: impl Into<Arc<T>>) {
        let one = one.into();
        if let Some(place) = self.places.get(one.name()) {
            self.all[*place] = one;
        } else {
            Arc::make_mut(&mut self.places).insert(one.name().into(), self.all.len());
            self.all.push(one);
        }
    }

    /// Remove the one of this name, if there is one.
    pub fn remove(&mut self, name: &str) {
        if self.places.contains_key(name) {
            *self = self.all.drain(..).filter(|one| one.name() != name).collect();
        }
    }

    /// Take those of `held` in the place of equal ones of the same name, so that pointers tell what differs.
    pub fn share_with(&mut self, held: &Named<T>)
    where
        T: Eq,
    {
        if Arc::ptr_eq(&self.places, &held.places) {
            let pairs = self.all.iter_mut().zip(&held.all);
            pairs.filter(|(one, same)| one == same).for_each(|(one, same)| *one = same.clone());
            return;
        }
        for one in &mut self.all {
            match held.get_shared(one.name()) {
                Some(same) if same == one => *one = same.clone(),
                _ => {}
            }
        }
        if self.has_order_of(held) {
            self.places = held.places.clone();
        }
    }

    /// Whether both have the same names in the same order.
    pub fn has_order_of(&self, other: &Named<T>) -> bool {
        Arc::ptr_eq(&self.places, &other.places)
            || self.iter().map(T::name).eq(other.iter().map(T::name))
    }

    /// What is not the same one in `next`: in the order of `next`, then what is gone.
    pub fn changes<'s>(&'s self, next: &'s Named<T>) -> Vec<Changed<'s, T>> {
        let differs = |before: &Arc<T>, now: &Arc<T>| !Arc::ptr_eq(before, now);
        if Arc::ptr_eq(&self.places, &next.places) {
            let pairs = self.all.iter().zip(&next.all);
            let changed = pairs.filter(|(before, now)| differs(before, now));
            return changed.map(|(b, n)| Changed { before: Some(b), now: Some(n) }).collect();
        }
        let of = |now: &'s Arc<T>| Changed { before: self.get_shared(now.name()), now: Some(now) };
        let changed = next.all.iter().map(of);
        let is_other =
            |c: &Changed<T>| c.before.zip(c.now).is_none_or(|(before, now)| differs(before, now));
        let gone = self.all.iter().filter(|one| next.get(one.name()).is_none());
        let gone = gone.map(|one| Changed { before: Some(one), now: None });
        changed.filter(is_other).chain(gone).collect()
    }
}

impl<T: HasName + Clone> Named<T> {
    /// The one of this name, to be changed: a copy of it, where others have it too.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        let place = *self.places.get(name)?;
        Some(Arc::make_mut(&mut self.all[place]))
    }

    /// A copy of each.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().cloned().collect()
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named { all: Vec::new(), places: Arc::default() }
    }
}

/// Those that are shared are not looked into.
impl<T: Eq> PartialEq for Named<T> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl<T: Eq> Eq for Named<T> {}

impl<T: HasName> FromIterator<Arc<T>> for Named<T> {
    fn from_iter<I: IntoIterator<Item = Arc<T>>>(all: I) -> Self {
        let all: Vec<Arc<T>> = all.into_iter().collect();
        let mut places = HashMap::with_capacity(all.len());
        for (place, one) in all.iter().enumerate() {
            places.entry(one.name().into()).or_insert(place);
        }
        Named { all, places: Arc::new(places) }
    }
}

impl<T: HasName> From<Vec<T>> for Named<T> {
    fn from(all: Vec<T>) -> Self {
        all.into_iter().map(Arc::new).collect()
    }
}

impl<T> Index<usize> for Named<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.all[place]
    }
}

impl<'s, T> IntoIterator for &'s Named<T> {
    type Item = &'s T;
    type IntoIter = iter::Map<std::slice::Iter<'s, Arc<T>>, fn(&'s Arc<T>) -> &'s T>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter().map(Arc::as_ref)
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de, T: HasName + Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Named::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, last: u8) -> Pool {
        Pool::new(name, vec![[10, 0, 0, last].into()])
    }

    fn names(changes: &[Changed<Pool>]) -> Vec<(Option<u8>, Option<u8>)> {
        let last = |pool: &Arc<Pool>| {
            pool.addresses[0].to_string().rsplit('.').next().unwrap().parse().unwrap()
        };
        changes.iter().map(|c| (c.before.map(last), c.now.map(last))).collect()
    }

    #[test]
    fn a_change_copies_what_it_changes_and_pointers_tell_what_that_is() {
        let old = Named::from(vec![pool("a", 1), pool("b", 2), pool("c", 3)]);
        let mut next = old.clone();
        assert!(old.changes(&next).is_empty() && next.get_mut("x").is_none());
        next.get_mut("b").unwrap().addresses[0] = [10, 0, 0, 22].into();
        assert_eq!((old[1].addresses[0], next.len()), ([10, 0, 0, 2].into(), 3));
        assert_eq!(names(&old.changes(&next)), [(Some(2), Some(22))]);
        assert!(Arc::ptr_eq(&old.shared()[0], &next.shared()[0]));

        next.put(pool("d", 4));
        next.put(pool("a", 11));
        next.remove("c");
        next.remove("nobody");
        let order: Vec<&str> = next.iter().map(HasName::name).collect();
        assert_eq!(order, ["a", "b", "d"]);
        assert_eq!(next.get("d"), Some(&pool("d", 4)));
        assert_eq!(
            names(&old.changes(&next)),
            [(Some(1), Some(11)), (Some(2), Some(22)), (None, Some(4)), (Some(3), None)]
        );

        // Equal ones that were made anew are shared again.
        let mut same = Named::from(next.to_vec());
        assert_eq!((names(&next.changes(&same)).len(), same == next), (3, true));
        same.share_with(&next);
        assert!(next.changes(&same).is_empty());
    }

    #[test]
    fn namesakes_are_kept_for_who_judges_them() {
        let twice: Named<Pool> = serde_json::from_str(
            r#"[{"name":"a","addresses":["10.0.0.1"]},{"name":"a","addresses":["10.0.0.2"]}]"#,
        )
        .unwrap();
        assert!(twice.has_namesakes() && twice.len() == 2);
        assert_eq!(twice.get("a"), Some(&pool("a", 1)));
        let text = serde_json::to_string(&twice).unwrap();
        assert_eq!(serde_json::from_str::<Named<Pool>>(&text).unwrap(), twice);
    }
}
