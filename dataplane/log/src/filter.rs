//! What is logged, as `RUST_LOG` says.

use std::env::{self, VarError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "info";

/// `RUST_LOG` says nothing that can be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "RUST_LOG is {0:?}: expected off, error, warn, info, debug or trace, or a list as \
     \"info,sluice_control=debug\""
)]
pub struct FilterError(String);

/// What is to be logged, by the environment.
///
/// # Errors
/// [`FilterError`].
pub fn filter() -> Result<EnvFilter, FilterError> {
    filter_or(DEFAULT)
}

/// Whether the environment says what is to be logged: then nobody else does.
pub fn is_from_environment() -> bool {
    env::var_os(EnvFilter::DEFAULT_ENV).is_some()
}

/// Whether a text says what is to be logged, as `RUST_LOG` would.
pub fn is_filter(text: &str) -> bool {
    parse(text).is_ok()
}

/// What is to be logged, by the environment or else by this text, which [is a filter](is_filter).
///
/// # Errors
/// [`FilterError`].
pub fn filter_or(text: &str) -> Result<EnvFilter, FilterError> {
    match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) => parse(&text),
        Err(VarError::NotPresent) => parse(text),
        Err(VarError::NotUnicode(text)) => Err(FilterError(text.to_string_lossy().into_owned())),
    }
}

fn parse(text: &str) -> Result<EnvFilter, FilterError> {
    let wrong = || FilterError(text.to_owned());
    let text = if text.trim().is_empty() { DEFAULT } else { text };
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        // A word that is no level would be taken for a part of the program, and silence all others.
        let is_word = !directive.contains(['=', '[']);
        if is_word && directive.parse::<LevelFilter>().is_err() {
            return Err(wrong());
        }
    }
    EnvFilter::try_new(text).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_does_not_exist_is_an_error() {
        for right in ["info", "WARN", "off", "", " ", "info,hyper=off", "sluice_control=debug", "3"]
        {
            assert!(parse(right).is_ok(), "{right:?}");
        }
        for wrong in ["inof", "info,inof", "sluice_control=inof", "info;debug", "=", "warn debug"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("RUST_LOG is {wrong:?}: expected off, error")));
        }
        assert_eq!(parse("").unwrap().to_string(), "info");
    }
}
