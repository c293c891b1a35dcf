//! Control as a whole: start-up order, and the way out.
//!
//! State first (no API without it), then the API's socket, then the publisher, which learns what the
//! data plane forwards by, then the health checks, which begin with that.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_api::Problems;
use sluice_api::clock::now_ms;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::actor::{Actor, ReadOn};
use crate::config::Config;
use crate::events::{Event, EventLog};
use crate::health::Checker;
use crate::http::{self, App, Guard};
use crate::manager::{self, Manager};
use crate::model::diff::Difference;
use crate::model::{Environment, State, check};
use crate::origin::{self, FileRecord};
use crate::publish;
use crate::states;
use crate::store::{self, Beside, Content, History, Loaded, Step, Store, StoreError};
use crate::watchdog;
use crate::world::World;

/// How long health checks wait for what the data plane knows.
const FIRST_CONTACT: Duration = Duration::from_millis(1_500);
/// Most changes of health that are taken at once.
const MOST_CHANGES: usize = 1_024;
/// How old the regular backup of the database may become.
const BACKUP_AGE: Duration = Duration::from_secs(24 * 3_600);
/// Time between two looks at that.
const BACKUP_LOOK: Duration = Duration::from_secs(3_600);
/// How long requests may take to end when control stops.
const GRACE: Duration = Duration::from_secs(2);

/// Why control cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The TOML file and what the API made do not go together.
    #[error("the TOML file and the state in {database} do not go together:{}", lines(problems))]
    Conflict {
        /// The database.
        database: String,
        /// What is wrong with both together.
        problems: Problems,
    },
    /// The API's address.
    #[error(
        "control.api_listen is {address}: {source}: expected an address of this host and a port that \
         is free"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

fn lines(problems: &Problems) -> String {
    problems.lines().map(|line| format!("\n  {line}")).collect()
}

/// What control begins with.
#[derive(Debug)]
struct Beginning {
    content: Content,
    /// What is new in it, to be written.
    steps: Vec<Step>,
    /// Whether it is new what the TOML file says.
    is_new_file: bool,
    /// What to tell.
    notes: Vec<Event>,
}

/// Bring together what is stored and what the file says; see `docs/adr/0003-file-and-api-state.md`.
fn begin(config: &Config, loaded: Loaded) -> Result<Beginning, StartError> {
    let actor = Actor::File { read: ReadOn::Start };
    let file = FileRecord { services: config.services.clone(), pools: config.pools.clone() };
    let mut notes = Vec::new();
    let mut steps = Vec::new();
    let mut step = |old: Arc<State>, new: State, kind: &str, what: String| {
        let new = Arc::new(new);
        let what = (kind.to_owned(), what);
        let revision = manager::revision(new.version, what, actor.clone().into());
        steps.push(Step { old, new: new.clone(), revision });
        new
    };
    let stored = match loaded {
        Loaded::Nothing => {
            let state =
                State { version: 1, services: file.services.clone(), pools: file.pools.clone() };
            notes.push(Event::new("state-initial", "no database: starting from the TOML file"));
            step(
                Arc::default(),
                state.clone(),
                "initial",
                "the TOML file, at the first start".into(),
            );
            let content = Content { state, file: file.into(), generation: 0, unconfirmed: true };
            return Ok(Beginning { content, steps, is_new_file: true, notes });
        }
        Loaded::Good(content) => content,
        Loaded::Former(content) => {
            let from = format!("taken over from the state file {}", config.state_file.display());
            notes.push(Event::new("state-taken-over", format!("no database: {from}")));
            step(Arc::default(), content.state.clone(), "taken-over", from);
            content
        }
    };
    let merged = origin::merge(stored.state.clone(), &stored.file, &file);
    for line in merged.changes.iter().flat_map(Difference::lines) {
        notes.push(Event::new("file-changed", line).by(&actor));
    }
    let problems = match merged.takes_all_away(&stored.file, &file) {
        Some(problem) => problem.into(),
        None => check::state(&merged.state, &Environment::default()),
    };
    if !problems.is_empty() {
        let database = config.database.display().to_string();
        return Err(StartError::Conflict { database, problems });
    }
    let says_something_new = !merged.changes.is_empty();
    let state = merged.state;
    if says_something_new {
        let what = origin::summary(&merged.changes);
        step(Arc::new(stored.state), state.clone(), "file", what);
    }
    let is_new_file = *stored.file != file || !steps.is_empty();
    // When there are no services, somebody must have said just now that there shall be none.
    let unconfirmed = stored.unconfirmed || (state.services.is_empty() && !says_something_new);
    let generation = stored.generation;
    let content = Content { state, file: file.into(), generation, unconfirmed };
    Ok(Beginning { content, steps, is_new_file, notes })
}

/// Whether control would start with this file and the state there is, without touching anything.
/// Returns what the file would change in the state, and what stays otherwise than it says.
///
/// # Errors
/// [`StartError`].
pub fn check(config: &Config) -> Result<Vec<String>, StartError> {
    let beginning = begin(config, store::read(&config.database, &config.state_file)?)?;
    let Content { state, file, .. } = &beginning.content;
    let notes = beginning.notes.into_iter().map(|event| event.message);
    Ok(notes.chain(origin::kept(state, file)).collect())
}

/// A running control process.
pub struct Server {
    /// Where the API listens.
    pub api: SocketAddr,
    /// What it was started with.
    pub(crate) config: Config,
    pub(crate) manager: Arc<Manager>,
    stop: watch::Sender<bool>,
    pub(crate) publisher: publish::Running,
    http: JoinHandle<()>,
    health: JoinHandle<()>,
    states: JoinHandle<()>,
    backups: JoinHandle<()>,
}

/// Start control on the current tokio runtime.
///
/// # Errors
/// [`StartError`]: nothing runs then.
pub async fn start(config: &Config) -> Result<Server, StartError> {
    let mut store = Store::open(&config.database, config.keep)?;
    let loaded = store.load(&config.state_file)?;
    let Beginning { content, steps, is_new_file, notes } = begin(config, loaded)?;
    let listener = TcpListener::bind(config.api_listen)
        .await
        .map_err(|source| StartError::Listen { address: config.api_listen, source })?;
    let api = listener
        .local_addr()
        .map_err(|source| StartError::Listen { address: config.api_listen, source })?;
    if is_new_file {
        let Content { file, generation, unconfirmed, .. } = &content;
        let beside =
            Beside { file: Some(file), generation: *generation, unconfirmed: *unconfirmed };
        store.write(&steps, &beside)?;
    }
    let events = Arc::new(EventLog::after_all_before());
    events.note(
        "control-started",
        format!("control started with state version {}", content.state.version),
    );
    for event in notes {
        events.push(event);
    }
    if !api.ip().is_loopback() {
        tracing::warn!(
            "control.api_listen is {api}: whoever reaches it controls the load balancer"
        );
    }
    let Content { state, file, generation, unconfirmed } = content;
    let no_service = config.no_service;
    let node = rustix::system::uname().nodename().to_string_lossy().into();
    let world = World { node, no_service, unconfirmed, generation, ..World::new(state, now_ms()) };
    let history = Arc::new(store.history());
    let manager = Arc::new(Manager::new(store, world, file, events));
    Ok(run(config, manager, history, listener, api))
}

fn run(
    config: &Config,
    manager: Arc<Manager>,
    history: Arc<History>,
    listener: TcpListener,
    api: SocketAddr,
) -> Server {
    let (stop, stopped) = watch::channel(false);
    let (publisher, first_contact) =
        publish::start(manager.clone(), config.dataplane_socket.clone(), stopped.clone());
    let health = tokio::spawn(check_health(manager.clone(), first_contact, stopped.clone()));
    let states = tokio::spawn(states::tell(manager.clone(), stopped.clone()));
    let backups =
        tokio::spawn(keep_backup(manager.clone(), config.database.clone(), stopped.clone()));
    let app = App {
        manager: manager.clone(),
        dataplane: publisher.dataplane.clone(),
        started: Instant::now(),
        database: config.database.display().to_string().into(),
        history,
    };
    let guard = Guard::new(api, &config.api_hosts, &config.api_origins);
    let http = tokio::spawn(async move {
        http::serve(listener, http::router(app, guard), http::ClientPatience::default(), stopped)
            .await;
    });
    Server { api, config: config.clone(), manager, stop, publisher, http, health, states, backups }
}

/// Have a good copy of the database that is not too old, until control stops.
async fn keep_backup(manager: Arc<Manager>, database: PathBuf, mut stopped: watch::Receiver<bool>) {
    loop {
        let path = database.clone();
        let work = tokio::task::spawn_blocking(move || store::refresh_backup(&path, BACKUP_AGE));
        if let Ok(Err(error)) = work.await {
            manager.events().note("backup-failed", error.to_string());
        }
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(BACKUP_LOOK) => {}
        }
    }
}

/// Check backends, beginning with what the data plane knows, until control stops.
async fn check_health(
    manager: Arc<Manager>,
    first_contact: oneshot::Receiver<()>,
    mut stopped: watch::Receiver<bool>,
) {
    // Either way the checks begin: what is not known from the data plane is found out.
    let _ = timeout(FIRST_CONTACT, first_contact).await;
    let (sender, mut changes) = mpsc::unbounded_channel();
    manager.start_checks(Checker::start(sender));
    let mut together = Vec::new();
    loop {
        let count = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            count = changes.recv_many(&mut together, MOST_CHANGES) => count,
        };
        if count == 0 {
            break;
        }
        manager.note_health(&together);
        together.clear();
    }
    manager.stop_checks();
}

impl Server {
    /// Call `tell` thrice within `limit` while control gets on. Never ends.
    pub async fn watch(&self, limit: Duration, tell: impl FnMut()) {
        let manager = self.manager.clone();
        watchdog::watch(limit, &self.publisher.heart, move || manager.probe(), tell).await;
    }

    /// Stop: finish the write that is running and the requests that are, leave the data plane as it
    /// is.
    pub async fn stop(self) {
        // Receivers that are gone have stopped already.
        let _ = self.stop.send(true);
        // Who waits for a change is answered by what is known now.
        self.manager.update_link(|link| link.is_over = true);
        let mut http = self.http;
        if timeout(GRACE, &mut http).await.is_err() {
            http.abort();
        }
        self.publisher.join().await;
        // It ends at the same signal; a failure in it was reported where it happened.
        let _ = self.health.await;
        let _ = self.states.await;
        let _ = self.backups.await;
        let manager = self.manager;
        // A commit whose client has gone runs on its own.
        let _ = tokio::task::spawn_blocking(move || manager.settle()).await;
    }
}
