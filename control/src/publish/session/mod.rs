//! What is done over one connection: look, compare, repair, repeat.

mod announce;
mod apply;
mod ask;
mod status;

use std::sync::Arc;
use std::time::Duration;

use sluice_api::Snapshot;
use sluice_api::message::{FrameError, Request, Response};
use sluice_api::stats::DataplaneStatus;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::announce::Announcer;
use super::connection::Connection;
use super::{POLL, Publisher, Question, addresses};
use crate::compose::Composed;
use crate::health::Contact;
use crate::world::World;

use status::exception_ports;

/// Time between the first two looks at workers that have a snapshot to take over.
const SOON: Duration = Duration::from_millis(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("control socket: the data plane closed the connection")]
    Closed,
    #[error("control socket: the data plane says: {0}")]
    Refused(String),
    #[error("control socket: the data plane gave an answer to another question than {0}")]
    Confused(&'static str),
}

pub(super) struct Session<'a> {
    publisher: &'a mut Publisher,
    connection: Connection,
    /// The snapshot in force, as far as known.
    in_force: Option<Snapshot>,
    /// Its generation; another one means that somebody else applied a snapshot.
    generation: u64,
    announcer: Announcer,
    /// When to look at the status again.
    next_look: Instant,
    /// How long after the last look that is.
    pause: Duration,
    /// Whether it is known who is there and what it forwards by.
    has_met: bool,
    /// The change of unreachable backends that was asked for last.
    unreachable_changes: Option<u64>,
    /// Revision of the world of which a snapshot was composed last; 0 before.
    composed: u64,
    /// That snapshot, to compose the next one of.
    composition: Option<Composed>,
}

impl<'a> Session<'a> {
    pub fn new(publisher: &'a mut Publisher, connection: Connection) -> Self {
        Session {
            publisher,
            connection,
            in_force: None,
            generation: 0,
            announcer: Announcer::default(),
            next_look: Instant::now(),
            pause: POLL,
            has_met: false,
            unreachable_changes: None,
            composed: 0,
            composition: None,
        }
    }

    /// Keep the data plane in step until the connection breaks, or `stop` says so.
    pub async fn run(
        mut self,
        questions: &mut mpsc::Receiver<Question>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), SessionError> {
        let mut worlds = self.publisher.manager.watch();
        self.meet().await?;
        loop {
            let composed = self.composed;
            tokio::select! {
                _ = stop.changed() => return Ok(()),
                () = self.connection.closed() => return Err(SessionError::Closed),
                () = revised(&mut worlds, composed) => {
                    if self.publish().await? {
                        // At once, as a new VIP wants to be announced.
                        self.look().await?;
                    }
                }
                Some((request, answer)) = questions.recv() => {
                    self.pass_on(request, answer).await?;
                }
                () = sleep_until(self.next_look) => self.look().await?,
            }
        }
    }

    /// Learn who is there and what it forwards by, and put that right.
    async fn meet(&mut self) -> Result<(), SessionError> {
        let status = self.status().await?;
        self.recognise(&status);
        self.learn_in_force(&status).await?;
        self.learn_unreachable(&status).await?;
        self.publisher.first_contact_made();
        // Checks need not wait until the snapshot is in force.
        self.has_met = true;
        self.publisher.manager.dataplane_is(Contact::Answers(exception_ports(&status)));
        self.publish().await?;
        self.look().await
    }

    async fn learn_in_force(&mut self, status: &DataplaneStatus) -> Result<(), SessionError> {
        let snapshot = match self.ask(&Request::GetSnapshot).await? {
            Response::Snapshot { snapshot } => snapshot,
            _ => return Err(SessionError::Confused("get-snapshot")),
        };
        if let Some(snapshot) = &snapshot {
            self.publisher.manager.seed_health(snapshot);
        }
        self.generation = snapshot.as_ref().map_or(status.generation, |s| s.generation);
        self.announcer.in_force(snapshot.as_ref().map(addresses).unwrap_or_default());
        let generation = self.generation;
        self.publisher.update_link(|link| link.published = generation);
        self.in_force = snapshot.map(|snapshot| Snapshot { generation: 0, ..snapshot });
        Ok(())
    }

    /// The regular look: status, events, announcements. Workers that have a snapshot to take over
    /// are looked at again soon, as changes wait for them.
    async fn look(&mut self) -> Result<(), SessionError> {
        let status = self.status().await?;
        let is_pending = status.workers_generation < status.generation;
        self.pause = if is_pending { (self.pause * 2).min(POLL) } else { POLL };
        self.next_look = Instant::now() + self.pause;
        if self.publisher.boot_id != Some(status.boot_id) {
            // A proxy between us hid the restart; begin anew.
            return Err(SessionError::Closed);
        }
        if status.generation != self.generation {
            let message = format!(
                "the data plane forwards by generation {}, control published {}: comparing again",
                status.generation, self.generation
            );
            self.publisher.manager.events().note("snapshot-foreign", message);
            self.learn_in_force(&status).await?;
            self.publish().await?;
        }
        self.learn_unreachable(&status).await?;
        self.announce(&status.announced).await?;
        self.publisher.manager.events().tell_left_out();
        self.merge_events().await
    }
}

/// Resolves when there is another revision of the world.
async fn revised(worlds: &mut watch::Receiver<Arc<World>>, composed: u64) {
    // The world itself is not held on to: its changes would wait.
    let _ = worlds.wait_for(|world| world.revision != composed).await;
}
