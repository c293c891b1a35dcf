//! What is done for a database while control does not need it: a look whether it is whole, copies of it, and
//! mending one that is damaged.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_api::clock::now_ms;

use super::file::{beside, directory, resolved};
use super::schema::{self, Access};
use super::{StoreError, UNCONFIRMED, content, hold, read, write};

/// What the regular backup's name has behind the database's.
pub const BACKUP: &str = ".backup";

/// How a database was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The newest revision.
    pub newest: u64,
    /// The oldest one that is kept.
    pub oldest: u64,
    /// Services in the newest.
    pub services: usize,
    /// Backends in the newest.
    pub backends: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { newest, oldest, services, backends } = self;
        write!(
            f,
            "revisions {oldest} to {newest}, the newest of {services} services and {backends} backends"
        )
    }
}

/// What mending has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mended {
    /// There was nothing to mend.
    Whole(Found),
    /// What was damaged could be made anew of the rest.
    Rebuilt(Found),
    /// The backup is in its place.
    Restored {
        /// How the backup is.
        found: Found,
        /// Where the damaged database is now, if there was one.
        aside: Option<PathBuf>,
    },
}

/// Look at all of a database, whether or not somebody uses it.
///
/// # Errors
/// [`StoreError`], as when it is damaged or is not there.
pub fn check(path: &Path) -> Result<Found, StoreError> {
    look(&resolved(path)?)
}

fn look(path: &Path) -> Result<Found, StoreError> {
    if fs::metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        let source = io::ErrorKind::NotFound.into();
        return Err(StoreError::Io { path: path.to_owned(), what: "read it", source });
    }
    let failed = |source| StoreError::sqlite(path, "read it", source);
    let mut connection = schema::open_to_read(path).map_err(failed)?;
    schema::check_format(&connection, path)?;
    schema::check_whole(&mut connection, path, true)?;
    let state = content(&connection, path)?.state;
    let oldest = read::revisions(&connection, None, usize::MAX >> 1).map_err(failed)?;
    Ok(Found {
        newest: state.version,
        oldest: oldest.last().map_or(state.version, |revision| revision.number),
        services: state.services.len(),
        backends: state.services.iter().map(|service| service.backends.len()).sum(),
    })
}

/// Copy a database that may be in use, as of one moment, to a file; the regular backup when none is named. A
/// file that is there is replaced once the copy is whole.
///
/// # Errors
/// [`StoreError`]; what was there before stays then.
pub fn backup(path: &Path, to: Option<&Path>) -> Result<PathBuf, StoreError> {
    let path = resolved(path)?;
    let to = to.map_or_else(|| beside(&path, BACKUP), Path::to_owned);
    let unfinished = beside(&to, "-new");
    let io = |what, source| StoreError::Io { path: to.clone(), what, source };
    let _ = fs::remove_file(&unfinished);
    let failed = |source| StoreError::sqlite(&path, "copy it", source);
    let copied = || -> Result<(), StoreError> {
        let connection = schema::open_to_read(&path).map_err(failed)?;
        let target = unfinished.to_string_lossy();
        connection.execute("VACUUM INTO ?1", [target.as_ref()]).map_err(failed)?;
        drop(connection);
        look(&unfinished)?;
        let synced = File::open(&unfinished).and_then(|file| file.sync_all());
        synced.map_err(|e| io("write the copy", e))?;
        fs::rename(&unfinished, &to).map_err(|e| io("replace the copy", e))?;
        let synced = File::open(directory(&to)).and_then(|file| file.sync_all());
        synced.map_err(|e| io("sync the copy's directory", e))
    };
    copied().inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })?;
    Ok(to)
}

/// Make the regular backup unless there is one that is younger than so long.
///
/// # Errors
/// As [`backup`].
pub fn refresh_backup(path: &Path, age: Duration) -> Result<(), StoreError> {
    let copied = fs::metadata(beside(&resolved(path)?, BACKUP)).and_then(|found| found.modified());
    // One from the future is of a clock that was set back.
    let is_young = copied.is_ok_and(|at| at.elapsed().is_ok_and(|since| since < age));
    if is_young { Ok(()) } else { backup(path, None).map(|_| ()) }
}

/// Mend a database that nobody uses: make anew what can be made of the rest, or else put the regular backup in
/// its place, and the damaged one aside. A state from a backup is not published before an operator says so if
/// it lacks what clients are served by.
///
/// # Errors
/// [`StoreError`]; nothing was changed then.
pub fn repair(path: &Path) -> Result<Mended, StoreError> {
    let path = &resolved(path)?;
    let _lock = hold(path)?;
    let damaged = match look(path) {
        Ok(found) => return Ok(Mended::Whole(found)),
        Err(error @ StoreError::Newer { .. }) => return Err(error),
        Err(error) => error,
    };
    let fresh = beside(path, ".mended");
    let rebuilt = rebuild(path, &fresh);
    if let Ok(found) = rebuilt {
        replace(path, &fresh)?;
        return Ok(Mended::Rebuilt(found));
    }
    let copy = beside(path, BACKUP);
    let found = look(&copy).map_err(|backup| StoreError::Lost {
        path: path.clone(),
        reason: damaged.to_string(),
        backup: backup.to_string(),
    })?;
    let failed = |source| StoreError::Io { path: path.clone(), what: "copy the backup", source };
    fs::copy(&copy, &fresh).map_err(failed)?;
    let doubted = schema::open(&fresh, Access::Write).and_then(|connection| {
        let transaction = connection.unchecked_transaction()?;
        write::meta(&transaction, UNCONFIRMED, "true")?;
        transaction.commit()
    });
    doubted.map_err(|source| StoreError::sqlite(path, "copy the backup", source))?;
    Ok(Mended::Restored { found, aside: replace(path, &fresh)? })
}

/// Indexes follow from the rows: where only these are damaged, nothing is lost. `fresh` is made of what is
/// there.
fn rebuild(path: &Path, fresh: &Path) -> Result<Found, StoreError> {
    let failed = |source| StoreError::Io { path: path.to_owned(), what: "copy it", source };
    for (from, to) in all_of(path).iter().zip(all_of(fresh)) {
        fs::remove_file(&to).or_else(absent).map_err(failed)?;
        fs::copy(from, to).map(|_| ()).or_else(absent).map_err(failed)?;
    }
    let rebuilt = schema::open(fresh, Access::Write).and_then(|c| c.execute_batch("REINDEX"));
    rebuilt.map_err(|source| StoreError::sqlite(path, "mend it", source))?;
    look(fresh)
}

/// A database and what stands beside it, as it is used.
fn all_of(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| beside(path, suffix))
}

/// Put `fresh` in a database's place, and that one aside. Returns where it is now, if it was there.
fn replace(path: &Path, fresh: &Path) -> Result<Option<PathBuf>, StoreError> {
    let io = |what, source| StoreError::Io { path: path.to_owned(), what, source };
    let synced = File::open(fresh).and_then(|file| file.sync_all());
    synced.map_err(|e| io("write a new one", e))?;
    let aside = path.exists().then(|| beside(path, &format!(".damaged-{}", now_ms())));
    for (index, from) in all_of(path).iter().enumerate() {
        let moved = match &aside {
            Some(aside) => fs::rename(from, &all_of(aside)[index]),
            None => fs::remove_file(from),
        };
        moved.or_else(absent).map_err(|e| io("set it aside", e))?;
    }
    fs::rename(fresh, path).map_err(|e| io("put a new one in its place", e))?;
    let synced = File::open(directory(path)).and_then(|d| d.sync_all());
    synced.map_err(|e| io("sync its directory", e))?;
    Ok(aside)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
