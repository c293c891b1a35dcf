//! What a check found, in words for an operator.

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be, or not needed.
    Ok,
    /// It works, at a cost that the message names.
    Warning,
    /// The data plane will not start, or not forward.
    Wrong,
    /// It cannot be told from here; the message says why.
    Unknown,
}

impl State {
    /// Its word on the screen.
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Wrong => "WRONG",
            State::Unknown => "cannot tell",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: a word for programs, as `hugepages`.
    pub check: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen, and what follows from it.
    pub message: String,
    /// The command that mends it, or the words to change; absent when there is nothing to mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, message: impl Into<String>) -> Finding {
        Finding { check, state, message: message.into(), fix: None }
    }

    /// As it should be.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, State::Ok, message)
    }

    /// It costs something.
    pub fn warning(
        check: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding { fix: Some(fix.into()), ..Finding::new(check, State::Warning, message) }
    }

    /// It must be mended.
    pub fn wrong(
        check: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding { fix: Some(fix.into()), ..Finding::new(check, State::Wrong, message) }
    }

    /// It cannot be told.
    pub fn unknown(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, State::Unknown, message)
    }
}
