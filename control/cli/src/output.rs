//! Standard output: text or JSON. A reader that has seen enough is no error.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::client::not_applied;
use crate::error::CliError;

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON for programs instead of text for people.
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Prints text; a newline follows unless it ends with one.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(CliError::Output)
    }

    /// Prints JSON, indented.
    pub(crate) fn value(&self, value: &Value) -> Result<(), CliError> {
        self.text(&format!("{value:#}"))
    }

    /// Prints JSON in one line, for a stream of them.
    pub(crate) fn line(&self, value: &Value) -> Result<(), CliError> {
        self.text(&value.to_string())
    }

    /// Prints an answer: as it came for programs, made readable for people.
    pub(crate) fn answer(
        &self,
        value: &Value,
        readable: impl FnOnce(&Value) -> String,
    ) -> Result<(), CliError> {
        if !self.json {
            let text = readable(value);
            // "weight is 202" would be a lie; the reason follows on standard error.
            let stored = if not_applied(value).is_some() { " (stored, not applied)" } else { "" };
            return self.text(&format!("{}{stored}", text.trim_end()));
        }
        // An answer without a body has nothing for a program: its exit code says it all.
        if value.is_null() { Ok(()) } else { self.value(value) }
    }

    /// Empties the screen before the next print of a repeated one, if it is a screen.
    pub(crate) fn clear(&self) -> Result<(), CliError> {
        if std::io::stdout().is_terminal() { self.text("\x1b[H\x1b[2J") } else { Ok(()) }
    }
}
