//! What the health checks are told, and what they tell.

use crate::actor::Actor;
use crate::events::{Event, EventLog};
use crate::health::{Checker, Contact, HealthChange};
use crate::observed::Observed;

use super::{Manager, lock};

impl Manager {
    /// Hand the targets to a checker and keep it.
    pub fn start_checks(&self, checker: Checker) {
        let last_checks = checker.last_checks();
        self.world.change(|world| world.observed.last_checks = last_checks);
        let mut held = lock(&self.checker);
        checker.dataplane(self.world().contact.clone());
        *held = Some(checker);
        drop(held);
        self.set_targets();
    }

    /// Stop checking; health stays as it is.
    pub fn stop_checks(&self) {
        if let Some(checker) = lock(&self.checker).take() {
            checker.shutdown();
        }
    }

    /// Tell the checker what to check. The world is read under its lock: the last call tells the
    /// newest.
    pub(super) fn set_targets(&self) {
        if let Some(checker) = &*lock(&self.checker) {
            let world = self.world();
            checker.set_targets(Observed::targets(&world.state), &world.observed.known());
        }
    }

    /// Whether the data plane, through whose ports checks go, answers. While it does not, silence of
    /// backends tells nothing of them.
    pub fn dataplane_is(&self, contact: Contact) {
        self.world.change_if(|world| {
            let is_news = world.contact != contact;
            world.contact = contact;
            is_news
        });
        if let Some(checker) = &*lock(&self.checker) {
            checker.dataplane(self.world().contact.clone());
        }
    }

    /// When a worker of the data plane was last stuck (began and ended so many ms ago): silence of
    /// backends tells nothing of them then.
    pub fn doubt_silence(&self, doubt: Option<(u64, u64)>) {
        if let Some(checker) = &*lock(&self.checker) {
            checker.doubt_silence(doubt);
        }
    }

    /// Take changes of the checker's: an event for each, and together another snapshot.
    pub fn note_health(&self, changes: &[HealthChange]) {
        let mut noted = Vec::with_capacity(changes.len());
        self.world.change_if(|world| {
            noted.extend(changes.iter().filter(|change| world.note_health(change)));
            !noted.is_empty()
        });
        for change in noted {
            tell(&self.events, change);
        }
    }
}

fn tell(events: &EventLog, change: &HealthChange) {
    let (kind, word) = match change.healthy {
        Some(true) => ("backend-healthy", "healthy"),
        Some(false) => ("backend-unhealthy", "unhealthy"),
        None => ("backend-unknown", "unknown again"),
    };
    let HealthChange { service, backend, reason, .. } = change;
    let message = format!("backend {backend} of {service} is {word}: {reason}");
    let event = Event::new(kind, message).about(Some(service), Some(*backend));
    events.push(event.by(&Actor::HealthCheck));
}
