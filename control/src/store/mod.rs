//! The desired state and its history, in one SQLite database: what was answered is on disk, and a change
//! writes what it changes.
//!
//! What enters: steps from one state to the next, several at a time when several clients wait. What leaves:
//! the state at a start, and any former one ([`History`]). [`schema`] shows the tables, [`write`] makes rows
//! of a step, [`read`] states of rows, [`care`] looks after the file, [`former`] reads the state file of
//! versions before.
//!
//! The write-ahead log is synced before a change is answered (`synchronous=FULL`): SIGKILL or a loss of power
//! at any moment leaves all that was answered and nothing by halves. A write that fails leaves the database
//! as it was; the next one begins with a new connection. Two processes cannot share a database: `FILE.lock`
//! is locked while one runs, and only its owner can open it.

mod care;
mod error;
mod file;
mod former;
mod history;
mod read;
mod schema;
mod write;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use schemars::JsonSchema;
use serde::Serialize;

use crate::actor::Actor;
use crate::model::State;
use crate::origin::FileRecord;

use file::{beside, directory, open_lock, resolved};
use schema::Access;

pub use care::{BACKUP, Found, Mended, backup, check, refresh_backup, repair};
pub use error::StoreError;
pub use history::History;
pub use write::Step;

/// Bytes of the smallest page that SQLite knows, the first of which is there from the beginning. It takes less
/// for an empty database.
const HEADER: u64 = 512;
/// Time between two looks for revisions that are too old.
const AGED_EVERY: Duration = Duration::from_secs(3_600);

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Most revisions.
    pub revisions: u64,
    /// Oldest ones, but for the last hundred.
    pub age: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Keep { revisions: 10_000, age: Duration::from_secs(90 * 24 * 3_600) }
    }
}

/// A change of the desired state: who made it, when, what it was, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Revision {
    /// The version of the state with it.
    pub number: u64,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
    /// Who made it, and from where.
    pub actor: Actor,
    /// A word for programs: `backend-changed`, `apply`, `file`, `rollback`, …
    pub kind: String,
    /// A sentence for people.
    pub what: String,
    /// Why, in the words of who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is kept, as of the newest revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The desired state.
    pub state: State,
    /// What the TOML file said when this was written.
    pub file: Arc<FileRecord>,
    /// Generation of the last snapshot published when this was written.
    pub generation: u64,
    /// Nobody has said yet that this may take services away from a data plane: it comes from a first
    /// start or from a copy.
    pub unconfirmed: bool,
}

/// What was found at start.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No database, nor a state file of a version before: this is the first start.
    Nothing,
    /// The state as it was written last.
    Good(Content),
    /// No database yet, but a state file of a version before.
    Former(Content),
}

/// What is written with some steps, or without any.
#[derive(Debug)]
pub struct Beside<'a> {
    /// What the TOML file says, if that is news.
    pub file: Option<&'a FileRecord>,
    /// Generation of the last snapshot published.
    pub generation: u64,
    /// See [`Content::unconfirmed`].
    pub unconfirmed: bool,
}

/// The database, held by this process.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    keep: Keep,
    /// Absent before the first use, and after a failure.
    connection: Option<Connection>,
    /// Device and inode of the database once it is there: no other may take its place.
    identity: Option<(u64, u64)>,
    /// When revisions were looked through for their age.
    aged: Option<Instant>,
    /// Locked as long as it lives.
    _lock: File,
}

impl Store {
    /// Take the database for this process; directories are made as needed, for our user only.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process holds it, [`StoreError::Linked`] when one could by
    /// another name, [`StoreError::Exposed`] and [`StoreError::Foreign`] when others could,
    /// [`StoreError::Io`].
    pub fn open(path: &Path, keep: Keep) -> Result<Store, StoreError> {
        let path = resolved(path)?;
        let names = fs::metadata(&path).map_or(1, |found| found.nlink());
        if names > 1 {
            return Err(StoreError::Linked { path, names });
        }
        let lock = hold(&path)?;
        Ok(Store { path, keep, connection: None, identity: None, aged: None, _lock: lock })
    }

    /// Read what is kept. `state_file` is where versions before this one kept it. Nothing is written.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and [`StoreError::Missing`] when there was a state and it cannot be read:
    /// never an empty state. [`StoreError::Newer`] when it is not for this program.
    pub fn load(&mut self, state_file: &Path) -> Result<Loaded, StoreError> {
        let Some(content) = load(&self.path)? else {
            return former(state_file);
        };
        self.identity = identity(&self.path);
        Ok(Loaded::Good(content))
    }

    /// Make steps durable, in their order, all or none: after this returns, any later start reads them.
    ///
    /// # Errors
    /// [`StoreError`]; the database is as before then.
    pub fn write(&mut self, steps: &[Step], beside: &Beside) -> Result<(), StoreError> {
        let is_first = self.identity.is_none();
        let written = self.try_write(steps, beside);
        if written.is_err() {
            self.connection = None;
            if is_first && let Some(made) = self.identity.take() {
                remove_if(&self.path, made);
            }
        }
        written
    }

    fn try_write(&mut self, steps: &[Step], beside: &Beside) -> Result<(), StoreError> {
        self.connect()?;
        let by_age = self.aged.is_none_or(|at| at.elapsed() >= AGED_EVERY);
        let Store { path, keep, connection: Some(connection), .. } = self else {
            return Ok(());
        };
        let failed = |source| StoreError::sqlite(path, "write it", source);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let write = || -> rusqlite::Result<()> {
            if schema::is_empty(&transaction)? {
                schema::make(&transaction)?;
            }
            for step in steps {
                write::step(&transaction, step)?;
            }
            if let Some(file) = beside.file {
                let file = serde_json::to_string(file)
                    .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
                write::meta(&transaction, FILE, &file)?;
            }
            write::meta(&transaction, GENERATION, &beside.generation.to_string())?;
            write::meta(&transaction, UNCONFIRMED, &beside.unconfirmed.to_string())?;
            match steps.last() {
                Some(last) => write::prune(&transaction, *keep, last.revision.number, by_age),
                None => Ok(()),
            }
        };
        write().map_err(failed)?;
        transaction.commit().map_err(failed)?;
        if by_age && !steps.is_empty() {
            self.aged = Some(Instant::now());
        }
        // What was written to a file that nobody finds again is not kept.
        self.still_there()
    }

    /// Have a connection to the database that there was, or to a new one if there was none.
    fn connect(&mut self) -> Result<(), StoreError> {
        if self.identity.is_none() {
            self.make()?;
        }
        self.still_there()?;
        if self.connection.is_none() {
            let failed = |source| StoreError::sqlite(&self.path, "open it", source);
            self.connection = Some(schema::open(&self.path, Access::Write).map_err(failed)?);
        }
        Ok(())
    }

    /// Make an empty file, for us alone to write in.
    fn make(&mut self) -> Result<(), StoreError> {
        let io = |what, source| StoreError::Io { path: self.path.clone(), what, source };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o640);
        options.open(&self.path).map_err(|e| io("create it", e))?;
        let synced = File::open(directory(&self.path)).and_then(|d| d.sync_all());
        synced.map_err(|e| io("sync its directory", e))?;
        self.identity = identity(&self.path);
        Ok(())
    }

    fn still_there(&self) -> Result<(), StoreError> {
        if identity(&self.path) == self.identity {
            return Ok(());
        }
        Err(StoreError::Gone { path: self.path.clone() })
    }

    /// The way to former states.
    pub fn history(&self) -> History {
        History::new(&self.path)
    }
}

/// Names in `meta`.
const FILE: &str = "file";
const GENERATION: &str = "generation";
const UNCONFIRMED: &str = "unconfirmed";

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// What is left of a first write that failed takes room on a disk that may be full.
fn remove_if(path: &Path, made: (u64, u64)) {
    if identity(path) == Some(made) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(path, suffix));
        }
    }
}

/// Lock the lock file, which stays locked as long as the file lives.
fn hold(path: &Path) -> Result<File, StoreError> {
    let failed = |what| move |source| StoreError::Io { path: path.to_owned(), what, source };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory(path))
        .map_err(failed("make its directory"))?;
    let lock = open_lock(&beside(path, ".lock")).map_err(failed("open its lock file"))?;
    let found = lock.metadata().map_err(failed("look at its lock file"))?;
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return Err(StoreError::Foreign { path: path.to_owned(), owner: found.uid(), us });
    }
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed("lock its lock file")(source)),
    }
}

/// Read what is kept without taking or changing anything.
///
/// # Errors
/// As [`Store::load`].
pub fn read(path: &Path, state_file: &Path) -> Result<Loaded, StoreError> {
    match load(&resolved(path)?)? {
        Some(content) => Ok(Loaded::Good(content)),
        None => former(state_file),
    }
}

fn former(state_file: &Path) -> Result<Loaded, StoreError> {
    Ok(former::read(&resolved(state_file)?)?.map_or(Loaded::Nothing, Loaded::Former))
}

/// What a database holds; none when there is no database and never was one.
fn load(path: &Path) -> Result<Option<Content>, StoreError> {
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => {
            return Err(StoreError::Io { path: path.to_owned(), what: "look at it", source });
        }
    };
    if (1..HEADER).contains(&length) {
        let reason = format!("it is cut off after {length} bytes");
        return Err(StoreError::Damaged { path: path.to_owned(), reason });
    }
    let failed = |source| StoreError::sqlite(path, "read it", source);
    let is_there = length > 0 && {
        let connection = schema::open_to_read(path).map_err(failed)?;
        !schema::is_empty(&connection).map_err(failed)?
    };
    if !is_there {
        // One that was lost is no first start.
        let copy = beside(path, BACKUP);
        return if copy.exists() {
            Err(StoreError::Missing { path: path.to_owned() })
        } else {
            Ok(None)
        };
    }
    let mut connection = schema::open_to_read(path).map_err(failed)?;
    schema::check_format(&connection, path)?;
    schema::check_whole(&mut connection, path, false)?;
    content(&connection, path).map(Some)
}

/// What a database of our format holds.
fn content(connection: &Connection, path: &Path) -> Result<Content, StoreError> {
    let failed = |source| StoreError::sqlite(path, "read it", source);
    let lacks = |what: &str| StoreError::Damaged {
        path: path.to_owned(),
        reason: format!("it has no {what} that can be read"),
    };
    let meta = |name| read::meta(connection, name).map_err(failed)?.ok_or_else(|| lacks(name));
    let number = read::newest(connection).map_err(failed)?.ok_or_else(|| lacks("revision"))?;
    let file = serde_json::from_str(&meta(FILE)?).map_err(|_| lacks(FILE))?;
    Ok(Content {
        state: read::state(connection, number).map_err(failed)?,
        file: Arc::new(file),
        generation: meta(GENERATION)?.parse().map_err(|_| lacks(GENERATION))?,
        unconfirmed: meta(UNCONFIRMED)?.parse().map_err(|_| lacks(UNCONFIRMED))?,
    })
}

#[cfg(test)]
mod tests;
