//! All that control knows, as one value: what is desired, what was observed, and what the data plane
//! has told. Pure: time is an argument.
//!
//! A [`World`] that was published is never changed. Readers take it from the [`WorldCell`] and see one
//! moment, however long they look; the manager makes the next one of it. What follows from a world is
//! found out in `compose`. Members of services that are discovered will be a field of their own here,
//! beside the state, when there is a first source of them.

mod cell;
mod link;

use std::sync::Arc;

use sluice_api::{Problem, Refusal, Snapshot};

use crate::derived::Surroundings;
use crate::health::{Contact, HealthChange};
use crate::model::{Environment, LeftOut, State, check};
use crate::observed::Observed;

pub use cell::WorldCell;
pub use link::{Link, pending};

/// How writing the database goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Writes that have failed since control started.
    pub failures: u64,
    /// Why the last one failed; absent once one has succeeded.
    pub failing: Option<String>,
}

/// What is known at one moment. A copy costs next to nothing: all that is large is shared.
#[derive(Clone, Debug)]
pub struct World {
    /// Grows whenever what is composed of this may differ.
    pub revision: u64,
    /// Name of this node: its host's.
    pub node: Arc<str>,
    /// What the operator wants.
    pub state: Arc<State>,
    /// What the TOML file says of VIPs where no service is.
    pub no_service: Refusal,
    /// Whether the state must not take services from a data plane before an operator says so.
    pub unconfirmed: bool,
    /// How writing the database goes.
    pub writes: Writes,
    /// What the health checks have seen.
    pub observed: Observed,
    /// What the data plane has, once it told.
    pub environment: Arc<Environment>,
    /// What the data plane told of the state, beside the rules that are known here.
    pub told_problems: Arc<Vec<Problem>>,
    /// What the data plane would not take of the state. It follows from the three before, and is kept
    /// as finding it out takes long.
    pub left_out: Arc<LeftOut>,
    /// What is around the data plane, once it told.
    pub around: Arc<Surroundings>,
    /// Whether the data plane answers.
    pub contact: Contact,
    /// How far publishing to it has come.
    pub link: Arc<Link>,
    /// Generation of the last snapshot published.
    pub generation: u64,
}

impl World {
    /// With this state, of which nothing is known yet.
    pub fn new(state: State, now_ms: u64) -> Self {
        let mut observed = Observed::default();
        observed.retarget(&State::default(), &state, now_ms);
        let environment = Environment::default();
        World {
            revision: 1,
            node: "localhost".into(),
            left_out: Arc::new(LeftOut::of(&state, &environment, &[])),
            state: Arc::new(state),
            no_service: Refusal::default(),
            unconfirmed: false,
            writes: Writes::default(),
            observed,
            environment: Arc::new(environment),
            told_problems: Arc::default(),
            around: Arc::default(),
            contact: Contact::NotMet,
            link: Arc::default(),
            generation: 0,
        }
    }

    /// Whether the data plane answers now: without that, all that is known of it is from before.
    pub fn has_contact(&self) -> bool {
        matches!(self.contact, Contact::Answers(_))
    }

    /// The operator wants this from now on. Returns whether anything is to be checked otherwise than before.
    pub fn adopt(&mut self, next: Arc<State>, no_service: Refusal, now_ms: u64) -> bool {
        let is_checked_otherwise = self.observed.retarget(&self.state, &next, now_ms);
        let is_all_in = self.told_problems.is_empty() && self.left_out.is_empty();
        let stays_so = is_all_in && check::keeps_rules(&self.state, &next, &self.environment);
        self.state = next;
        self.no_service = no_service;
        if !stays_so {
            // It may be mended: the data plane judges anew.
            self.told_problems = Arc::default();
            self.judge();
        }
        self.revision += 1;
        is_checked_otherwise
    }

    /// What the data plane has. Returns whether that is news.
    pub fn set_environment(&mut self, environment: Environment) -> bool {
        let is_news = *self.environment != environment;
        if is_news {
            self.environment = Arc::new(environment);
            self.told_problems = Arc::default();
            self.revise_left_out();
        }
        is_news
    }

    /// Another data plane judges anew. Returns whether the last one had told of problems.
    pub fn forget_told_problems(&mut self) -> bool {
        let had_told = !self.told_problems.is_empty();
        if had_told {
            self.told_problems = Arc::default();
            self.revise_left_out();
        }
        had_told
    }

    /// The data plane told these problems of a snapshot of a version of the state: leave out whose they
    /// are, until the state or the data plane changes. Returns whether the next snapshot has less in it.
    pub fn leave_out(&mut self, version: u64, problems: &[Problem]) -> bool {
        if self.state.version != version {
            // They may be mended already.
            return false;
        }
        let known = self.told_problems.clone();
        self.told_problems = Arc::new([known.as_slice(), problems].concat());
        let has_changed = self.revise_left_out();
        if !has_changed {
            self.told_problems = known;
        }
        has_changed
    }

    /// What is around the data plane changes. Returns whether it does.
    pub fn set_surroundings(&mut self, change: impl FnOnce(&mut Surroundings)) -> bool {
        let mut next = Surroundings::clone(&self.around);
        change(&mut next);
        let is_news = next != *self.around;
        if is_news {
            self.around = Arc::new(next);
            self.revision += 1;
        }
        is_news
    }

    /// Take over the health of backends of which nothing is known yet. Returns whether there are any.
    pub fn seed_health(&mut self, snapshot: &Snapshot, now_ms: u64) -> bool {
        let seeded = self.observed.seed(snapshot, now_ms);
        self.revision += u64::from(seeded);
        seeded
    }

    /// Take a change of the checker's. Returns whether it concerns a backend that is still checked.
    pub fn note_health(&mut self, change: &HealthChange) -> bool {
        let noted = self.observed.note(change);
        self.revision += u64::from(noted);
        noted
    }

    /// Find out what is left out; a revision if that has changed. Returns whether it has.
    fn revise_left_out(&mut self) -> bool {
        let has_changed = self.judge();
        self.revision += u64::from(has_changed);
        has_changed
    }

    fn judge(&mut self) -> bool {
        let left_out = LeftOut::of(&self.state, &self.environment, &self.told_problems);
        let has_changed = left_out != *self.left_out;
        if has_changed {
            self.left_out = Arc::new(left_out);
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world() -> World {
        let service = json!({
            "name": "web", "vip": "198.51.100.1", "port": 80, "protocol": "tcp", "mode": "dr",
            "health_check": {}, "backends": [{"address": "10.0.0.1", "port": 80}]
        });
        let services = vec![serde_json::from_value(service).unwrap()];
        World::new(State { version: 3, services: services.into(), ..State::default() }, 0)
    }

    /// What the data plane has, tells and forgets leaves parts out and brings them back, each with a
    /// revision; what is no news makes none.
    #[test]
    fn what_the_data_plane_tells_is_news_once() {
        let mut world = world();
        let mut revision = world.revision;
        let mut grown =
            |world: &World| std::mem::replace(&mut revision, world.revision) < world.revision;
        let port =
            Environment { port_addresses: vec![[10, 0, 0, 1].into()], ..Environment::default() };
        let id = "10.0.0.1:80".parse().unwrap();
        for (environment, is_out) in [(port, true), (Environment::default(), false)] {
            assert!(world.set_environment(environment.clone()) && grown(&world));
            assert_eq!(world.left_out.backend("web", id).is_some(), is_out);
            assert!(!world.set_environment(environment) && !grown(&world), "the same");
        }
        let problems = [Problem::new("services[web].scheduler", "new", "one of old")];
        assert!(!world.leave_out(2, &problems), "of a state that is mended already");
        assert!(world.leave_out(3, &problems) && grown(&world));
        assert!(world.left_out.service("web").is_some());
        assert!(!world.leave_out(3, &problems) && !grown(&world), "nothing less than before");
        assert_eq!(world.told_problems.len(), 1);
        assert!(world.forget_told_problems() && grown(&world));
        assert_eq!(world.left_out.service("web"), None);
        assert!(!world.forget_told_problems() && !grown(&world));

        let lost =
            |around: &mut Surroundings| around.unreachable.extend([([10, 0, 0, 1].into(), None)]);
        assert!(world.set_surroundings(lost) && grown(&world));
        assert!(!world.set_surroundings(lost) && !grown(&world));
    }

    #[test]
    fn a_changed_state_is_judged_anew_and_keeps_what_was_seen() {
        let mut world = world();
        let change = |last: u8| HealthChange {
            service: "web".to_owned(),
            backend: format!("10.0.0.{last}:80").parse().unwrap(),
            healthy: Some(true),
            reason: "told".to_owned(),
            at_ms: 1,
        };
        assert!(world.note_health(&change(1)) && !world.note_health(&change(2)));
        assert!(world.leave_out(3, &[Problem::new("services[web].mode", "x", "y")]));
        let before = world.clone();
        let mut next = State::clone(&world.state);
        next.version = 4;
        world.adopt(Arc::new(next), Refusal::Drop, 2);
        assert_eq!(world.left_out.service("web"), None, "it may be mended");
        assert_eq!((world.no_service, world.revision), (Refusal::Drop, before.revision + 1));
        let service = &world.state.services[0];
        assert!(world.observed.is_healthy(service, &service.backends[0]));
        assert!(before.left_out.service("web").is_some(), "a world that was read stays as it was");
    }
}
