//! What is done over one connection: look, compare, repair, repeat.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::time::Duration;

use sluice_api::message::{FrameError, Request, Response};
use sluice_api::snapshot::MAX_GENERATION;
use sluice_api::stats::DataplaneStatus;
use sluice_api::{Problem, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::announce::Announcer;
use super::connection::Connection;
use super::{POLL, Publisher, Question, addresses};
use crate::derived::Surroundings;
use crate::events::{self, Event};
use crate::health::{Contact, PortInterface};
use crate::model::Environment;

/// Time between the first two looks at workers that have a snapshot to take over.
const SOON: Duration = Duration::from_millis(1);
/// After so long without an answer the data plane may hang, and health checks wait for it.
const ANSWERING: Duration = Duration::from_millis(300);
/// The same while it applies a snapshot; behind it, it counts as unreachable until it answers.
const APPLYING: Duration = Duration::from_secs(3);

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
        }
    }

    /// Keep the data plane in step until the connection breaks, or `stop` says so.
    pub async fn run(
        mut self,
        questions: &mut mpsc::Receiver<Question>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), SessionError> {
        let mut changes = self.publisher.manager.watch();
        self.meet().await?;
        loop {
            tokio::select! {
                _ = stop.changed() => return Ok(()),
                () = self.connection.closed() => return Err(SessionError::Closed),
                _ = changes.changed() => {
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

    /// Is it the data plane that we knew?
    fn recognise(&mut self, status: &DataplaneStatus) {
        let publisher = &mut *self.publisher;
        let events = publisher.manager.events();
        let (who, what) = (status.pid, &status.version);
        match publisher.boot_id {
            Some(known) if known == status.boot_id => {
                events.note("dataplane-connected", format!("the data plane (pid {who}) is back"));
            }
            Some(_) => events.note(
                "dataplane-restarted",
                format!("the data plane was restarted (version {what}, pid {who})"),
            ),
            None => events.note(
                "dataplane-connected",
                format!("connected to the data plane (version {what}, pid {who})"),
            ),
        }
        if publisher.boot_id != Some(status.boot_id) {
            publisher.boot_id = Some(status.boot_id);
            publisher.events_since = 0;
            // Another data plane may have other limits and addresses: let it judge anew.
            publisher.refused = None;
            publisher.manager.forget_told_problems();
            publisher.update_link(|link| link.rejected.clear());
        }
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

    /// Apply the desired snapshot, unless it is in force already or was refused; one that is refused for
    /// some of its parts, again without these. Returns whether another one is in force now.
    async fn publish(&mut self) -> Result<bool, SessionError> {
        loop {
            if let Some(is_news) = self.try_publish().await? {
                return Ok(is_news);
            }
        }
    }

    /// The same once; none when it was refused and the next try has less in it.
    async fn try_publish(&mut self) -> Result<Option<bool>, SessionError> {
        // Before the snapshot, which has all changes up to here and may have more.
        let version = self.publisher.manager.state().version;
        let revision = self.publisher.manager.revision();
        let wanted = self.publisher.manager.snapshot();
        let nothing = Snapshot::default();
        let in_force = self.in_force.as_ref().unwrap_or(&nothing);
        let withheld = self.publisher.manager.withheld(in_force, &wanted);
        let is_held = withheld.is_some();
        self.hold(withheld, revision);
        if is_held {
            return Ok(Some(false));
        }
        if self.in_force.as_ref() == Some(&wanted) {
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
        let last = self.publisher.manager.generation().max(self.generation);
        // Behind the largest the numbers begin anew, and behind one that none may have.
        let generation = if last < MAX_GENERATION { last + 1 } else { 1 };
        self.publisher.manager.set_generation(generation);
        let request = Request::Apply { snapshot: Snapshot { generation, ..wanted.clone() } };
        match self.ask(&request).await? {
            Response::Applied { generation } => {
                self.applied(wanted, generation, revision);
                Ok(Some(true))
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
            self.publisher.manager.events().note("snapshot-rejected", message);
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

    /// Which backends it cannot send to, when that has changed.
    async fn learn_unreachable(&mut self, status: &DataplaneStatus) -> Result<(), SessionError> {
        if self.unreachable_changes == Some(status.unreachable_changes) {
            return Ok(());
        }
        let Response::UnreachableBackends { backends } =
            self.ask(&Request::UnreachableBackends).await?
        else {
            return Err(SessionError::Confused("unreachable-backends"));
        };
        self.unreachable_changes = Some(status.unreachable_changes);
        let unreachable = backends.into_iter().map(|b| (b.address, b.next_hop)).collect();
        self.publisher.manager.set_surroundings(|around| around.unreachable = unreachable);
        Ok(())
    }

    async fn announce(&mut self, announced: &[Ipv4Addr]) -> Result<(), SessionError> {
        let done = self.announcer.done(announced);
        if !done.is_empty() {
            let message = format!("announced {}", listed(&done));
            self.publisher.manager.events().note("announced", message);
        }
        let missing = self.announcer.missing(announced);
        if missing.is_empty() {
            return Ok(());
        }
        let taken = self.send_announce(missing.clone()).await?;
        let refused = self.announcer.asked(&missing, taken);
        if !refused.is_empty() {
            let message = format!("the data plane would not announce {}", listed(&refused));
            self.publisher.manager.events().note("announce-refused", message);
        }
        Ok(())
    }

    async fn send_announce(
        &mut self,
        addresses: Vec<Ipv4Addr>,
    ) -> Result<Vec<Ipv4Addr>, SessionError> {
        match self.ask(&Request::Announce { addresses }).await? {
            Response::Announced { addresses } => Ok(addresses),
            _ => Err(SessionError::Confused("announce")),
        }
    }

    async fn merge_events(&mut self) -> Result<(), SessionError> {
        let since = self.publisher.events_since;
        let Response::Events { events } = self.ask(&Request::Events { since }).await? else {
            return Err(SessionError::Confused("events"));
        };
        for event in events.into_iter().filter(|e| e.seq > since) {
            self.publisher.events_since = self.publisher.events_since.max(event.seq);
            self.publisher.manager.events().push(Event {
                seq: 0,
                at_ms: event.at_ms,
                source: events::DATAPLANE,
                kind: event.kind,
                severity: event.severity,
                service: None,
                backend: None,
                message: event.message,
            });
        }
        Ok(())
    }

    async fn status(&mut self) -> Result<DataplaneStatus, SessionError> {
        let Response::Status(status) = self.ask(&Request::Status).await? else {
            return Err(SessionError::Confused("status"));
        };
        self.publisher.manager.set_environment(environment(&status));
        let networks = Surroundings::networks_of(&status);
        self.publisher.manager.set_surroundings(|around| around.networks = networks);
        let doubt = status.doubt.map(|doubt| (doubt.began_ms, doubt.ended_ms));
        self.publisher.manager.doubt_silence(doubt);
        if self.has_met {
            self.publisher.manager.dataplane_is(Contact::Answers(exception_ports(&status)));
        }
        let latest = status.clone();
        self.publisher.update_link(|link| {
            link.connected = true;
            link.error = None;
            link.status = Some(latest);
        });
        Ok(status)
    }

    async fn pass_on(
        &mut self,
        request: Request,
        answer: tokio::sync::oneshot::Sender<super::Answer>,
    ) -> Result<(), SessionError> {
        if answer.is_closed() {
            return Ok(());
        }
        // Who asked may have given up meanwhile: nobody needs the answer then.
        match self.ask(&request).await {
            Ok(response) => {
                let _ = answer.send(Ok(response));
                Ok(())
            }
            Err(error) => {
                let _ = answer.send(Err(error.to_string()));
                Err(error)
            }
        }
    }

    async fn ask(&mut self, request: &Request) -> Result<Response, SessionError> {
        // A snapshot takes its time; all else is answered within a round of the main thread.
        let applying = match request {
            Request::Apply { snapshot } => Some(snapshot.generation),
            _ => None,
        };
        let patience = if applying.is_some() { APPLYING } else { ANSWERING };
        let asked = Instant::now();
        let mut is_overdue = false;
        let answer = {
            let mut answer = pin!(self.connection.ask(request));
            match timeout(patience, &mut answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    is_overdue = true;
                    match applying {
                        Some(generation) => self.publisher.is_unreachable(&format!(
                            "has not answered for {} s while it takes generation {generation} over",
                            patience.as_secs()
                        )),
                        None => {
                            let silent = format!("no answer for {} ms", patience.as_millis());
                            self.publisher.is_away(&silent);
                        }
                    }
                    answer.await
                }
            }
        }?;
        if is_overdue && applying.is_some() {
            self.publisher.answers_again(asked.elapsed());
        }
        self.publisher.alive_at = asked;
        match answer {
            Response::Error { message } => Err(SessionError::Refused(message)),
            response => Ok(response),
        }
    }
}

/// Addresses as a sentence of bounded length.
fn listed(addresses: &[Ipv4Addr]) -> String {
    const MOST: usize = 16;
    let first: Vec<String> = addresses.iter().take(MOST).map(Ipv4Addr::to_string).collect();
    match addresses.len().saturating_sub(MOST) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The exception ports, as health checks go by them.
fn exception_ports(status: &DataplaneStatus) -> Vec<PortInterface> {
    let ports = status.ports.iter().filter_map(|port| {
        let name = port.exception.as_deref()?.into();
        let addresses = port.addresses.iter().filter_map(|text| address_of(text)).collect();
        let (port, link_is_down) = (port.name.as_str().into(), !port.link_up);
        Some(PortInterface { name, addresses, port, link_is_down })
    });
    ports.collect()
}

/// The address of one with prefix length.
fn address_of(text: &str) -> Option<Ipv4Addr> {
    text.split('/').next()?.parse().ok()
}

/// What requests are validated against from now on.
fn environment(status: &DataplaneStatus) -> Environment {
    Environment {
        limits: status.limits,
        port_addresses: status
            .ports
            .iter()
            .flat_map(|p| p.addresses.iter().filter_map(|text| address_of(text)))
            .collect(),
    }
}
