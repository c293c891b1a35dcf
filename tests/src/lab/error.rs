//! What can go wrong in the lab, said so that a reader knows where to look.

use std::path::PathBuf;
use std::time::Duration;

/// Why the lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A command could not be started or failed.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// As it was run.
        command: String,
        /// Its exit code and what it printed on stderr.
        reason: String,
    },
    /// A file or a pipe of the lab could not be read or written.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A program did not become ready.
    #[error("{name} ended or was not ready within {within:?}; the end of {log:?}:\n{tail}")]
    NotReady {
        /// The program.
        name: String,
        /// How long was waited.
        within: Duration,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("waited {within:?} in vain until {what}")]
    Timeout {
        /// What should have become true.
        what: String,
        /// How long was waited.
        within: Duration,
    },
    /// The HTTP API answered with an error.
    #[error("{method} {path} answered {status}: {body}")]
    Api {
        /// The request's method.
        method: String,
        /// The request's path.
        path: String,
        /// The status code; 0 when there was no answer.
        status: u16,
        /// The answer's body.
        body: String,
    },
    /// Two labs at once would disturb each other.
    #[error("another lab is running on this machine (process {owner}): wait for it or end it")]
    Busy {
        /// Its process id.
        owner: String,
    },
    /// Something that the lab needs is not there.
    #[error("{0}")]
    Missing(String),
}

impl LabError {
    /// An [`LabError::Io`] for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LabError {
        let what = what.into();
        move |error| LabError::Io { what, error }
    }
}

/// What the lab's functions give.
pub type Result<T> = std::result::Result<T, LabError>;
