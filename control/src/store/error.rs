//! Why the database cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use super::care::BACKUP;
use super::file::directory;
use super::schema::{FORMAT, damage};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("database {}: cannot {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// SQLite refuses.
    #[error("database {}: cannot {what}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// Another process uses it.
    #[error(
        "database {}: another sluice-control uses it: stop that one, or give this one another \
         control.database",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of Sluice has written it.
    #[error(
        "database {}: it has format {format}, this program reads format {FORMAT}: a newer version \
         of Sluice has written it. Install that version, or put a backup of format {FORMAT} in its \
         place; nothing was changed",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: i64,
    },
    /// Others may write where it is.
    #[error(
        "database {}: every user may write in {}: expected a directory that only the user of \
         sluice-control can write in (chmod o-w, or another control.database)",
        path.display(),
        directory(path).display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It has more than one name: a process by each would not see the other's lock, nor its log.
    #[error(
        "database {}: it has {names} names (hard links): expected one, as a process by each of them would \
         write into it beside the other",
        path.display()
    )]
    Linked {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        names: u64,
    },
    /// Its lock file is somebody else's, who can lock us out.
    #[error(
        "database {}: its lock file belongs to user {owner}, sluice-control runs as user {us}: \
         remove {}.lock once no sluice-control runs",
        path.display(),
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// User id of the lock file's owner.
        owner: u32,
        /// Our user id.
        us: u32,
    },
    /// It is not what was written.
    #[error(
        "database {}: it is damaged ({reason}): `sluice-control --config FILE db repair` mends what can \
         be mended, or puts the last backup in its place; nothing was changed",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was there once.
    #[error(
        "database {}: it is missing, and a backup is there: `sluice-control --config FILE db repair` puts \
         that in its place; remove {}{BACKUP} to start from the TOML file",
        path.display(),
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It was taken away, or another file put in its place, while it was used.
    #[error(
        "database {}: it was removed or replaced while sluice-control uses it: put it back, or start \
         sluice-control anew",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The state of a version before cannot be taken over.
    #[error(
        "state file {}: {reason}, and there is no database yet to go on with: put a backup in its \
         place, or remove it and what stands beside it to start from the TOML file",
        path.display()
    )]
    Former {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to mend it with.
    #[error(
        "database {}: {reason}, and no good backup is there ({backup}): put one in its place, or remove \
         it to start from the TOML file",
        path.display()
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What is wrong with the backup.
        backup: String,
    },
}

impl StoreError {
    /// What SQLite tells, in our words where it is damage.
    pub(super) fn sqlite(path: &Path, what: &'static str, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if damage(&source) || matches!(source, rusqlite::Error::FromSqlConversionFailure(..)) {
            return StoreError::Damaged { path, reason: source.to_string() };
        }
        StoreError::Sqlite { path, what, source }
    }
}
