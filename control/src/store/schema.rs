//! What the database looks like, and how it is opened.
//!
//! A row of `item` is a pool, a service without its backends, or a backend, as it was from one revision
//! until another: a change of one weight ends one row and begins one. The state at revision N is what had
//! begun by then and had not ended. `place` is the order that the API shows, among rows of one holder. `sum`
//! is xxh3-64 over what a row says ([`sum`]): SQLite's own checks see a damaged tree, not a digit that has
//! changed within a text. Its indexes tell of `since` and `until`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction};
use rustix::fs::StatVfsMountFlags;

use super::StoreError;
use super::file::{beside, directory};

/// Version of the database's format, its `user_version`.
pub(super) const FORMAT: i64 = 1;
/// Says that a database is ours, its `application_id`: "SLUI".
const OURS: i64 = 0x534c_5549;
/// Longest time that a look for damage may take. What it has not seen by then counts as good.
const LOOK: Duration = Duration::from_secs(3);
/// Steps of SQLite's virtual machine between two looks at the clock.
const STEPS: i32 = 100_000;
/// How long to wait for who else has the database open, as `sluice-control db`.
const PATIENCE: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE revision(
    number INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    what TEXT NOT NULL,
    reason TEXT
) STRICT;
CREATE TABLE item(
    kind TEXT NOT NULL,
    holder TEXT NOT NULL,
    name TEXT NOT NULL,
    place INTEGER NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    body TEXT NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY(kind, holder, name, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX item_since ON item(since);
CREATE INDEX item_until ON item(until) WHERE until IS NOT NULL;
CREATE TABLE meta(
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read and write.
    Write,
    /// Read, beside who writes.
    Read,
    /// Read where nothing can be written at all, and all is in the file itself.
    Alone,
}

/// Open a database that is there.
///
/// # Errors
/// As SQLite tells.
pub(super) fn open(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = match access {
        Access::Write => {
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)?
        }
        Access::Read => {
            Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?
        }
        Access::Alone => Connection::open_with_flags(
            uri(path, "mode=ro&immutable=1"),
            flags | OpenFlags::SQLITE_OPEN_READ_ONLY,
        )?,
    };
    connection.busy_timeout(PATIENCE)?;
    if access == Access::Write {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
    }
    // What is read is checked as it is read.
    connection.pragma_update(None, "cell_size_check", "ON")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Open a database for reading, whoever has it.
///
/// # Errors
/// As SQLite tells.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    // SQLite would make what readers share beside the file; after a crash it is there.
    let has_log = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let is_alone = is_read_only(path) && !has_log;
    let access = if is_alone { Access::Alone } else { Access::Read };
    let connection = open(path, access)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Whether nothing can be written where a database is.
pub(super) fn is_read_only(path: &Path) -> bool {
    let found = rustix::fs::statvfs(directory(path));
    found.is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn uri(path: &Path, parameters: &str) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri += &format!("%{byte:02x}"),
        }
    }
    format!("{uri}?{parameters}")
}

/// Whether an error tells that the file is not what was written.
pub(super) fn damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// The checksum of a row, over texts that tell what it says.
pub(super) fn sum(parts: &[&str]) -> i64 {
    let mut sum = xxhash_rust::xxh3::Xxh3::new();
    for part in parts {
        sum.update(&part.len().to_le_bytes());
        sum.update(part.as_bytes());
    }
    sum.digest().cast_signed()
}

/// Make the tables.
pub(super) fn make(transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", OURS)?;
    transaction.pragma_update(None, "user_version", FORMAT)
}

/// Whether there are tables yet: a crash at the first start may leave a database without any.
pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Whether a database is ours and of a format that is read here.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Damaged`].
pub(super) fn check_format(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let failed = |source| StoreError::sqlite(path, "read it", source);
    let (ours, format) =
        (pragma("application_id").map_err(failed)?, pragma("user_version").map_err(failed)?);
    match (ours, format) {
        (OURS, FORMAT) => Ok(()),
        (OURS, newer) if newer > FORMAT => {
            Err(StoreError::Newer { path: path.to_owned(), format: newer })
        }
        (OURS, other) => {
            let reason = format!("it has format {other}, which there never was");
            Err(StoreError::Damaged { path: path.to_owned(), reason })
        }
        _ => {
            let reason = "it is a database of another program".to_owned();
            Err(StoreError::Damaged { path: path.to_owned(), reason })
        }
    }
}

/// Look whether a database is whole, as long as [`LOOK`] allows, or all of it.
///
/// # Errors
/// [`StoreError::Damaged`].
pub(super) fn check_whole(
    connection: &mut Connection,
    path: &Path,
    thorough: bool,
) -> Result<(), StoreError> {
    let end = Instant::now() + LOOK;
    let failed = |source| StoreError::sqlite(path, "look at it", source);
    if !thorough {
        connection.progress_handler(STEPS, Some(move || Instant::now() > end)).map_err(failed)?;
    }
    let found = connection.prepare("PRAGMA integrity_check(3)").and_then(|mut look| {
        look.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
    });
    connection.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
    match found {
        Ok(lines) if lines == ["ok"] => Ok(()),
        Ok(lines) => {
            let reason = lines.join("; ").replace('\n', " ");
            Err(StoreError::Damaged { path: path.to_owned(), reason })
        }
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
        {
            tracing::warn!(
                "database {}: not all of it was looked at within {} s",
                path.display(),
                LOOK.as_secs()
            );
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_whatever_it_has_in_it() {
        assert_eq!(
            uri(Path::new("/a b/x?y#%.db"), "mode=ro"),
            "file:/a%20b/x%3fy%23%25.db?mode=ro"
        );
    }
}
