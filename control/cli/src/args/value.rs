//! Values of flags and arguments that are more than a word or a number.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use sluice_api::schema::{Kind, Resource};
use sluice_api::service::NotABackend;
use sluice_api::{BackendId, MAX_WAIT_MS, Service};

/// The words that a field of a service takes, as it is declared.
pub(super) fn words(field: &str) -> PossibleValuesParser {
    match Service::object().field(field).map(|field| &field.kind) {
        Some(Kind::Word(words)) => PossibleValuesParser::new(words.iter().map(String::as_str)),
        other => unreachable!("{field} takes words, not {other:?}"),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected 0 to {} seconds, as 5 or 0.5", MAX_WAIT_MS / 1_000);
    let wait = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    wait.filter(|wait| *wait <= Duration::from_millis(MAX_WAIT_MS)).ok_or_else(wrong)
}

/// A time that something may take, as people write it.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?}: expected a number and s, m or h, as 90s, 10m or 2h");
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds: u64 = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let count: u64 = number.parse().map_err(|_| wrong())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// An address. The API says of one that can be read whether it is supported.
pub(super) fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "invalid IPv4 address syntax")
}

pub(super) fn weighted(text: &str) -> Result<(BackendId, Option<u16>), String> {
    let id = |text: &str| text.parse().map_err(|error: NotABackend| error.to_string());
    let Some((at, weight)) = text.split_once('=') else { return Ok((id(text)?, None)) };
    let weight = weight.parse().map_err(|_| format!("weight {weight:?}: expected 0 to 65535"))?;
    Ok((id(at)?, Some(weight)))
}

/// A limit of conns, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<NonZeroU32>);

pub(super) fn limit(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("max_conns {text:?}: expected 1 to {}", u32::MAX))
}

pub(super) fn limit_or_none(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    limit(text).map(|limit| Limit(Some(limit))).map_err(|error| format!("{error}, or none"))
}

pub(super) fn timeout(text: &str) -> Result<(String, u32), String> {
    let expected = || format!("{text:?}: expected NAME=MS, as in tcp_established_ms=900000");
    let (name, ms) = text.split_once('=').ok_or_else(expected)?;
    Ok((name.to_owned(), ms.parse().map_err(|_| expected())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_flags() {
        assert_eq!(weighted("10.0.0.1:80"), Ok(("10.0.0.1:80".parse().unwrap(), None)));
        assert_eq!(weighted("10.0.0.1:80=0"), Ok(("10.0.0.1:80".parse().unwrap(), Some(0))));
        let spans = ["90s", "10m", "2h", "0s"].map(|text| span(text).unwrap().as_secs());
        assert_eq!(spans, [90, 600, 7_200, 0]);
        for wrong in ["", "10", "m", "1.5m", "-1s", "10min", "99999999999999999999h"] {
            assert!(span(wrong).unwrap_err().ends_with("as 90s, 10m or 2h"), "{wrong}");
        }
        assert!(weighted("10.0.0.1:80=65536").unwrap_err().contains("0 to 65535"));
        assert!(weighted("10.0.0.1").unwrap_err().contains("ADDRESS:PORT"));
        assert_eq!(limit("7"), Ok(NonZeroU32::new(7).unwrap()));
        for wrong in ["0", "-1", "many", "4294967296"] {
            assert!(limit(wrong).unwrap_err().contains("expected 1 to 4294967295"));
        }
        assert_eq!(limit_or_none("none"), Ok(Limit(None)));
        assert!(limit_or_none("0").unwrap_err().ends_with("1 to 4294967295, or none"));
        assert_eq!(timeout("udp_one_way_ms=5"), Ok(("udp_one_way_ms".to_owned(), 5)));
        assert!(timeout("udp_one_way_ms").is_err());
        assert!(timeout("udp_one_way_ms=5s").is_err());
    }
}
