//! The desired snapshot comes into force, or it is told why not.

use sluice_api::message::{Request, Response};
use sluice_api::snapshot::MAX_GENERATION;
use sluice_api::{Problem, Snapshot, SnapshotChange};
use tokio::time::Instant;

use super::{SOON, Session, SessionError};
use crate::actor::Actor;
use crate::compose::Composed;
use crate::events::Event;
use crate::publish::addresses;

impl Session<'_> {
    /// Apply the desired snapshot, unless it is in force already or was refused; one that is refused for
    /// some of its parts, again without these. Returns whether another one is in force now.
    pub(super) async fn publish(&mut self) -> Result<bool, SessionError> {
        loop {
            if let Some(is_news) = self.try_publish().await? {
                return Ok(is_news);
            }
        }
    }

    /// The same once; none when it was refused and the next try has less in it.
    async fn try_publish(&mut self) -> Result<Option<bool>, SessionError> {
        let world = self.publisher.manager.world();
        let (version, revision) = (world.state.version, world.revision);
        self.composed = revision;
        let composed = match self.composition.take() {
            Some(former) => former.next(world.clone()),
            None => Composed::of(world.clone()),
        };
        let wanted = composed.snapshot.clone();
        self.composition = Some(composed);
        let nothing = Snapshot::default();
        let in_force = self.in_force.as_ref().unwrap_or(&nothing);
        let withheld = self.publisher.manager.withheld(&world, in_force, &wanted);
        let is_held = withheld.is_some();
        self.hold(withheld, revision);
        if is_held {
            return Ok(Some(false));
        }
        if self.in_force.as_ref() == Some(&wanted) {
            // What it shares with what is composed next need not be compared.
            self.in_force = Some(wanted);
            let generation = self.generation;
            self.publisher.refused = None;
            self.publisher.update_link(|link| {
                link.published = generation;
                link.revision = revision;
                link.rejected.clear();
            });
            return Ok(Some(false));
        }
        if self.publisher.refused.as_ref() == Some(&wanted) {
            self.publisher.update_link(|link| link.revision = revision);
            return Ok(Some(false));
        }
        let last = world.generation.max(self.generation);
        // Behind the largest the numbers begin anew, and behind one that none may have.
        let generation = if last < MAX_GENERATION { last + 1 } else { 1 };
        self.publisher.manager.set_generation(generation);
        match self.have_applied(&wanted, generation).await? {
            Response::Applied { generation } => {
                self.applied(wanted, generation, revision);
                Ok(Some(true))
            }
            Response::Rejected { problems } if is_overtaken(&problems) => {
                // It says nothing of what is wanted: that is published when it is known what is in force.
                self.next_look = Instant::now();
                Ok(Some(false))
            }
            Response::Rejected { problems } => {
                self.tell_rejected(generation, &problems);
                if self.publisher.manager.leave_out(version, &problems) {
                    return Ok(None);
                }
                self.rejected(wanted, revision, problems);
                Ok(Some(false))
            }
            _ => Err(SessionError::Confused("apply")),
        }
    }

    /// Have a snapshot applied: what differs from the one in force, or the whole of it to whoever has another
    /// than we know.
    async fn have_applied(
        &mut self,
        wanted: &Snapshot,
        generation: u64,
    ) -> Result<Response, SessionError> {
        let in_force = self.in_force.as_ref().filter(|_| !self.publisher.wants_all);
        let change = in_force.and_then(|in_force| {
            SnapshotChange::between(in_force, wanted, self.generation, generation)
        });
        if let Some(change) = change {
            match self.ask(&Request::Amend { change }).await {
                Ok(Response::OtherBase { generation }) => {
                    tracing::debug!(generation, "the data plane forwards by another snapshot");
                }
                // It hangs up on what it does not know: the whole goes by the next connection.
                Err(SessionError::Refused(why)) => {
                    self.publisher.wants_all = true;
                    return Err(SessionError::Refused(why));
                }
                answer => return answer,
            }
        }
        let snapshot = Snapshot { generation, ..wanted.clone() };
        self.ask(&Request::Apply { snapshot }).await
    }

    /// Publish nothing for this reason, or again; an event when that is news.
    fn hold(&self, reason: Option<String>, revision: u64) {
        let mut news = false;
        self.publisher.update_link(|link| {
            news = link.held != reason;
            link.held.clone_from(&reason);
            if reason.is_some() {
                link.revision = revision;
            }
        });
        if news && let Some(reason) = reason {
            self.publisher.manager.events().note("publish-held", reason);
        }
    }

    fn tell_rejected(&self, generation: u64, problems: &[Problem]) {
        for problem in problems {
            let message = format!("the data plane refused generation {generation}: {problem}");
            let event = Event::new("snapshot-rejected", message).by(&Actor::Dataplane);
            self.publisher.manager.events().push(event);
        }
    }

    fn rejected(&mut self, wanted: Snapshot, revision: u64, problems: Vec<Problem>) {
        self.publisher.refused = Some(wanted);
        self.publisher.update_link(|link| {
            link.revision = revision;
            link.rejected = problems;
        });
    }

    fn applied(&mut self, wanted: Snapshot, generation: u64, revision: u64) {
        tracing::debug!(generation, "applied");
        self.publisher.refused = None;
        self.publisher.update_link(|link| {
            link.published = generation;
            link.revision = revision;
            link.rejected.clear();
        });
        self.generation = generation;
        self.pause = SOON;
        self.announcer.in_force(addresses(&wanted));
        self.in_force = Some(wanted);
    }
}

/// Whether a snapshot was refused for its number alone: somebody else has applied one meanwhile.
fn is_overtaken(problems: &[Problem]) -> bool {
    problems.iter().all(|problem| problem.field == "generation")
}
