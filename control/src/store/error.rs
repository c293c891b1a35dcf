//! Why the state file cannot be used.

use std::io;
use std::path::PathBuf;

use super::file::directory;
use super::format::FORMAT;

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("state file {}: cannot {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "state file {}: another sluice-control uses it: stop that one, or give this one another \
         control.state_file",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of Sluice has written it.
    #[error(
        "state file {}: it has format {format}, this program reads format {FORMAT}: a newer version \
         of Sluice has written it. Install that version, or put a backup of format {FORMAT} in its \
         place; nothing was changed",
        path.display()
    )]
    Newer {
        /// The file, or the copy that would be read in its place.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// Others may write where it is.
    #[error(
        "state file {}: every user may write in {}: expected a directory that only the user of \
         sluice-control can write in (chmod o-w, or another control.state_file)",
        path.display(),
        directory(path).display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// Its lock file is somebody else's, who can lock us out.
    #[error(
        "state file {}: its lock file belongs to user {owner}, sluice-control runs as user {us}: \
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
    /// It is damaged or missing, and so is the copy before it.
    #[error(
        "state file {}: {reason}, and there is no good copy beside it ({previous}): put a backup \
         in its place, or remove it and {}.previous to start from the TOML file",
        path.display(),
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What is wrong with the copy.
        previous: String,
    },
}
