//! Former states, read beside who writes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::Connection;

use super::{Revision, StoreError, read, schema};
use crate::model::State;
use crate::model::diff::{Difference, diff};

/// Reads revisions. It waits for no commit, and no commit waits for it.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    /// Opened with the first use.
    connection: Mutex<Option<Connection>>,
}

impl History {
    pub(super) fn new(path: &Path) -> Self {
        History { path: path.to_owned(), connection: Mutex::default() }
    }

    /// Revisions before one, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(&self, before: Option<u64>, limit: usize) -> Result<Vec<Revision>, StoreError> {
        self.with(|connection| read::revisions(connection, before, limit))
    }

    /// One revision; none when there is no such one, or none any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        self.with(|connection| read::revision(connection, number))
    }

    /// The state as it was with a revision that is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn state(&self, number: u64) -> Result<State, StoreError> {
        self.with(|connection| read::state(connection, number))
    }

    /// What differs between the states of two revisions that are kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn diff(&self, from: u64, to: u64) -> Result<Vec<Difference>, StoreError> {
        let (from, to) = self.with(|connection| read::differing(connection, from, to))?;
        Ok(diff(&from, &to))
    }

    /// Each answer is of one moment.
    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // A panic in another thread leaves a whole connection behind.
        let mut held = self.connection.lock().unwrap_or_else(|e| e.into_inner());
        let failed = |source| StoreError::sqlite(&self.path, "read it", source);
        if held.is_none() {
            *held = Some(schema::open_to_read(&self.path).map_err(failed)?);
        }
        let Some(connection) = held.as_mut() else {
            return Err(failed(rusqlite::Error::InvalidQuery));
        };
        let found = connection.transaction().and_then(|moment| read(&moment));
        // One that reads alone does not see what others write, once they can again.
        if found.is_err() || schema::is_read_only(&self.path) {
            *held = None;
        }
        found.map_err(failed)
    }
}
