//! `If-Match`: a change is made only if nobody has made another since the client read what it
//! changes.
//!
//! A service, a backend and a pool each have an entity tag of their own, over their configured fields:
//! operators that change different ones do not get in each other's way. What contains a resource
//! counts too: a backend's service, and the state as a whole.

use serde::Serialize;

use super::resource::{Key, Resource};
use super::{ApiProblem, State};

/// What a client believes to be there (RFC 9110, 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// `*`: anything will do.
    Any,
    /// One of these entity tags, as `"17"`.
    OneOf(Vec<String>),
}

/// The entity tag of the state as a whole, and of lists.
pub fn state_tag(state: &State) -> String {
    format!("\"{}\"", state.version)
}

/// The entity tag of a service, backend or pool.
pub fn tag_of<T: Serialize>(resource: &T) -> String {
    // What derives `Serialize` with string keys always is JSON.
    let json = serde_json::to_vec(resource).unwrap_or_default();
    format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(&json))
}

impl Precondition {
    /// From a header's value; `None` when it is no list of entity tags.
    pub fn parse(text: &str) -> Option<Precondition> {
        if text.trim() == "*" {
            return Some(Precondition::Any);
        }
        let tag = |tag: &str| {
            let tag = tag.trim();
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
            quoted.then(|| tag.to_owned())
        };
        Some(Precondition::OneOf(text.split(',').map(tag).collect::<Option<_>>()?))
    }

    /// Whether what a change is about is what the client believes. Weak tags never match (RFC 9110,
    /// 8.8.3.2).
    ///
    /// # Errors
    /// [`ApiProblem::VersionMismatch`].
    pub fn check<R: Resource>(&self, key: &Key<R>, state: &State) -> Result<(), ApiProblem> {
        let (what, tags) = key.tags(state);
        self.check_tags(what, tags)
    }

    /// The same for what concerns the state as a whole.
    ///
    /// # Errors
    /// [`ApiProblem::VersionMismatch`].
    pub fn check_state(&self, state: &State) -> Result<(), ApiProblem> {
        self.check_tags("the state".to_owned(), vec![state_tag(state)])
    }

    fn check_tags(&self, what: String, tags: Vec<String>) -> Result<(), ApiProblem> {
        let Precondition::OneOf(wanted) = self else { return Ok(()) };
        if wanted.iter().any(|tag| tags.contains(tag)) {
            return Ok(());
        }
        let current = tags.into_iter().next().unwrap_or_default();
        Err(ApiProblem::VersionMismatch { what, current, wanted: wanted.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::super::resource::OfService;
    use super::*;
    use sluice_api::{Backend, Pool};

    #[test]
    fn follows_rfc_9110() {
        assert_eq!(Precondition::parse("*"), Some(Precondition::Any));
        assert_eq!(Precondition::parse("17"), None);
        assert_eq!(Precondition::parse(""), None);
        let state = State { version: 17, ..State::default() };
        let pool = Key::<Pool> { holder: (), id: "p".to_owned() };
        let check = |text: &str| Precondition::parse(text).unwrap().check(&pool, &state);
        assert!(check("\"16\", \"17\"").is_ok() && check("*").is_ok());
        assert!(check("\"16\"").is_err() && check("W/\"17\"").is_err());
    }

    /// A tag holds for its resource and what that contains, and for nothing else.
    #[test]
    fn each_resource_has_a_tag_of_its_own() {
        let service = |name: &str, vip: &str| {
            serde_json::from_value(serde_json::json!({
                "name": name, "vip": vip, "port": 80, "protocol": "tcp", "mode": "dr",
                "backends": [{"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 80}]
            }))
        };
        let services =
            vec![service("a", "198.51.100.1").unwrap(), service("b", "198.51.100.2").unwrap()];
        let mut state = State { version: 3, services: services.into(), ..State::default() };
        let backend = |service: &str, last: u8| Key::<Backend> {
            holder: OfService(service.to_owned()),
            id: format!("10.0.0.{last}:80").parse().unwrap(),
        };
        let tags_before = |key: &Key<Backend>| key.tags(&state).1;
        let (one, two, other) = (backend("a", 1), backend("a", 2), backend("b", 1));
        let (of_one, of_two, of_other) =
            (tags_before(&one), tags_before(&two), tags_before(&other));
        assert_eq!((of_one.len(), of_one[1].as_str()), (3, of_two[1].as_str()));
        assert_ne!(of_one[0], of_two[0]);
        assert_ne!(of_one[1], of_other[1]);

        // The first backend of `a` is changed: what others have read of other resources holds.
        state.services.get_mut("a").unwrap().backends[0].weight = 5;
        state.version = 4;
        let holds = |tag: &String, key: &Key<Backend>| {
            Precondition::OneOf(vec![tag.clone()]).check(key, &state).is_ok()
        };
        assert!(!holds(&of_one[0], &one) && !holds(&of_one[1], &one) && !holds(&of_one[2], &one));
        assert!(holds(&of_two[0], &two) && !holds(&of_two[1], &two) && !holds(&of_two[2], &two));
        assert!(holds(&of_other[0], &other) && holds(&of_other[1], &other));
        assert!(!holds(&of_two[0], &other) || of_two[0] == of_other[0]);
    }
}
