//! Keeps the data plane in step with the desired state, over its control socket.
//!
//! One task owns the connection. Whatever it finds at the other end (nothing, an old snapshot, a
//! data plane that was restarted, one that another control spoke to), it compares and repairs; there
//! is no other path. Bursts of changes coalesce: one snapshot is in flight at most, and the next one
//! is made when that is answered. Requests of the API for statistics go through the same task.

mod announce;
mod connection;
mod outcome;
mod session;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_api::Snapshot;
use sluice_api::message::{Request, Response};
use sluice_api::stats::{DataplaneStatus, NeighbourStatus, Stats};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::health::Contact;
use crate::manager::Manager;
use crate::model::ApiProblem;
use crate::watchdog::Heart;
use crate::world::{Link, World};

pub use outcome::{Fate, Outcome, Patience};

use connection::Connection;
use session::Session;

/// Time between two looks at the data plane's status, and between two tries to connect.
pub const POLL: Duration = Duration::from_millis(250);
/// How long a request of the API may wait for the data plane.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);

type Answer = Result<Response, String>;
type Question = (Request, oneshot::Sender<Answer>);

/// The API's way to the data plane.
#[derive(Clone)]
pub struct Dataplane {
    questions: mpsc::Sender<Question>,
    worlds: watch::Receiver<Arc<World>>,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Dataplane {
    /// What became of all changes up to a revision of the world. Waits as long as `patience`
    /// says.
    pub async fn outcome(&self, revision: u64, patience: Patience) -> Outcome {
        outcome::outcome(self.worlds.clone(), revision, patience).await
    }

    /// Who it is and what it runs, as of now.
    ///
    /// # Errors
    /// [`ApiProblem::DataplaneUnreachable`], after [`ASK_TIMEOUT`] at the latest.
    pub async fn status(&self) -> Result<DataplaneStatus, ApiProblem> {
        match self.ask(Request::Status).await? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// All counters.
    ///
    /// # Errors
    /// [`ApiProblem::DataplaneUnreachable`], after [`ASK_TIMEOUT`] at the latest.
    pub async fn stats(&self) -> Result<Stats, ApiProblem> {
        match self.ask(Request::Stats).await? {
            Response::Stats(stats) => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// All next hops.
    ///
    /// # Errors
    /// [`ApiProblem::DataplaneUnreachable`], after [`ASK_TIMEOUT`] at the latest.
    pub async fn neighbours(&self) -> Result<Vec<NeighbourStatus>, ApiProblem> {
        match self.ask(Request::Neighbours).await? {
            Response::Neighbours { neighbours } => Ok(neighbours),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: Request) -> Result<Response, ApiProblem> {
        let unreachable = ApiProblem::DataplaneUnreachable;
        let known = {
            let link = &self.worlds.borrow().link;
            link.error.clone().filter(|_| !link.connected)
        };
        if let Some(error) = known {
            return Err(unreachable(error));
        }
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.questions
                .send((request, answer))
                .await
                .map_err(|_| unreachable("control is stopping".to_owned()))?;
            match answered.await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(reason)) => Err(unreachable(reason)),
                Err(_) => Err(unreachable("the connection was lost".to_owned())),
            }
        };
        timeout(ASK_TIMEOUT, exchange).await.unwrap_or_else(|_| {
            Err(unreachable(format!("no answer within {} s", ASK_TIMEOUT.as_secs())))
        })
    }
}

fn unexpected(response: &Response) -> ApiProblem {
    let what = match response {
        Response::Error { message } => message.clone(),
        _ => "an answer to another question".to_owned(),
    };
    ApiProblem::DataplaneUnreachable(what)
}

/// What outlives a connection.
pub(crate) struct Publisher {
    manager: Arc<Manager>,
    /// The data plane that was connected last.
    boot_id: Option<u64>,
    /// The last of its events that was merged into the log.
    events_since: u64,
    /// When a question was sent that it has answered: it was there then.
    alive_at: Instant,
    /// The snapshot that it refused last.
    refused: Option<Snapshot>,
    /// It is one of before changes were sent in place of snapshots, as it goes on when a package is
    /// upgraded.
    wants_all: bool,
    /// Set, and emptied, when the first try to reach the data plane has ended either way.
    first_contact: Option<oneshot::Sender<()>>,
}

impl Publisher {
    fn update_link(&self, change: impl FnOnce(&mut Link)) {
        self.manager.update_link(change);
    }

    /// It does not answer: checks through its ports would fail for every backend. Before the first
    /// contact nothing is known of such ports, and the checker waits on its own.
    fn is_away(&self, why: &str) {
        if self.boot_id.is_some() {
            let (since, why) = (self.alive_at, why.to_owned());
            self.manager.dataplane_is(Contact::Away { since, why });
        }
    }

    /// Changes do not reach it now, for this reason; an event when that is news.
    fn is_unreachable(&self, error: &str) {
        let mut news = false;
        self.update_link(|link| {
            news = link.connected || link.error.as_deref() != Some(error);
            link.connected = false;
            link.error = Some(error.to_owned());
        });
        if news {
            self.manager.events().note("dataplane-unreachable", error);
        }
        self.is_away(error);
    }

    /// It has answered a question after so long, and counted as unreachable meanwhile.
    fn answers_again(&self, took: Duration) {
        self.update_link(|link| {
            link.connected = true;
            link.error = None;
        });
        let message = format!("the data plane answers again, after {} ms", took.as_millis());
        self.manager.events().note("dataplane-connected", message);
    }

    fn first_contact_made(&mut self) {
        if let Some(done) = self.first_contact.take() {
            // Nobody waits any more: control is stopping.
            let _ = done.send(());
        }
    }
}

/// The running publisher.
pub struct Running {
    /// The API's way to the data plane.
    pub dataplane: Dataplane,
    /// Beats while the publisher's task comes round.
    pub heart: Heart,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Wait for the publisher to end after `stop` was set.
    pub async fn join(self) {
        let mut task = self.task;
        // It may be in the middle of an exchange; the data plane does not need its end.
        if timeout(Duration::from_secs(1), &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Start publishing what `manager` wants to the data plane at `socket`, until `stop` is true. The
/// receiver tells once it is known what the data plane forwards by, or that it cannot be reached.
pub fn start(
    manager: Arc<Manager>,
    socket: PathBuf,
    stop: watch::Receiver<bool>,
) -> (Running, oneshot::Receiver<()>) {
    let (ask, questions) = mpsc::channel(64);
    let (made, first_contact) = oneshot::channel();
    let worlds = manager.watch();
    let publisher = Publisher {
        manager,
        boot_id: None,
        events_since: 0,
        alive_at: Instant::now(),
        refused: None,
        wants_all: false,
        first_contact: Some(made),
    };
    let heart = Heart::default();
    let (beating, at) = (heart.clone(), socket.clone());
    let task = tokio::spawn(async move {
        tokio::select! {
            () = run(publisher, at, questions, stop) => {}
            () = beating.beat() => {}
        }
    });
    let running = Running { dataplane: Dataplane { questions: ask, worlds, socket }, heart, task };
    (running, first_contact)
}

async fn run(
    mut publisher: Publisher,
    socket: PathBuf,
    mut questions: mpsc::Receiver<Question>,
    mut stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        let next_try = Instant::now() + POLL;
        let error = match Connection::open(&socket).await {
            Ok(connection) => {
                let session = Session::new(&mut publisher, connection);
                match session.run(&mut questions, &mut stop).await {
                    Ok(()) => return,
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => {
                format!("{}: {error}: is sluice-dataplane running?", socket.display())
            }
        };
        lost(&mut publisher, &error);
        wait(next_try, &error, &mut questions, &mut stop).await;
    }
}

/// Note that there is no connection to the data plane.
fn lost(publisher: &mut Publisher, error: &str) {
    publisher.update_link(|link| link.revision = 0);
    publisher.is_unreachable(error);
    publisher.first_contact_made();
}

/// Wait for the next try; who asks meanwhile learns that there is nobody.
async fn wait(
    next_try: Instant,
    error: &str,
    questions: &mut mpsc::Receiver<Question>,
    stop: &mut watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            () = sleep_until(next_try) => return,
            _ = stop.changed() => return,
            Some((_, answer)) = questions.recv() => {
                // Who asked may have given up.
                let _ = answer.send(Err(error.to_owned()));
            }
        }
    }
}

/// Every address that a snapshot needs announced: VIPs and local addresses, each once.
pub(crate) fn addresses(snapshot: &Snapshot) -> Vec<IpAddr> {
    let vips = snapshot.services.iter().map(|s| s.vip);
    let locals = snapshot.pools.iter().flat_map(|p| p.addresses.iter().copied());
    let mut addresses: Vec<IpAddr> = vips.chain(locals).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
