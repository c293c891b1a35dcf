//! How control asks whether backends are alive.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::range_text;

/// Time between two checks of one backend, in ms.
pub const INTERVAL_MS: RangeInclusive<u32> = 100..=3_600_000;
/// Least time that a check waits for an answer, in ms; the most is its interval.
pub const MIN_TIMEOUT_MS: u32 = 10;
/// Checks in a row that change a backend's health.
pub const RISE_FALL: RangeInclusive<u8> = 1..=100;
/// HTTP status codes (RFC 9110, 15).
pub const STATUS: RangeInclusive<u16> = 100..=599;

/// How control asks whether a backend is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    #[serde(default)]
    pub kind: HealthCheckKind,
    /// Time between two checks of one backend, in ms (100 to 3,600,000).
    #[serde(default = "HealthCheck::default_interval_ms")]
    #[schemars(range(min = *INTERVAL_MS.start(), max = *INTERVAL_MS.end()))]
    pub interval_ms: u32,
    /// A check without an answer after this time has failed, in ms (10 to interval_ms).
    #[serde(default = "HealthCheck::default_timeout_ms")]
    #[schemars(
        range(min = MIN_TIMEOUT_MS, max = *INTERVAL_MS.end()),
        extend("x-accepted" = format!("{MIN_TIMEOUT_MS} ms to interval_ms")),
    )]
    pub timeout_ms: u32,
    /// Passed checks in a row that make an unhealthy backend healthy (1 to 100).
    #[serde(default = "HealthCheck::default_rise")]
    #[schemars(range(min = *RISE_FALL.start(), max = *RISE_FALL.end()))]
    pub rise: u8,
    /// Failed checks in a row that make a healthy backend unhealthy (1 to 100).
    #[serde(default = "HealthCheck::default_fall")]
    #[schemars(range(min = *RISE_FALL.start(), max = *RISE_FALL.end()))]
    pub fall: u8,
    /// L4 port to check when it is not the backend's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// HTTP: the path asked for; starts with `/`.
    #[serde(default = "HealthCheck::default_path")]
    #[schemars(extend("x-accepted" = "a path that starts with '/'"))]
    pub path: String,
    /// HTTP: the `Host` header; the backend's `address:port` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-accepted" = "a host name"))]
    pub host: Option<String>,
    /// HTTP: the status codes that pass (100 to 599).
    #[serde(default = "HealthCheck::default_expected_status")]
    #[schemars(
        inner(range(min = *STATUS.start(), max = *STATUS.end())),
        extend("x-accepted" = format!("codes from {}", range_text(&STATUS))),
    )]
    pub expected_status: Vec<u16>,
    /// How a check's connection is closed.
    #[serde(default)]
    pub close: CheckClose,
}

/// How the connection of a health check is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckClose {
    /// With RST: neither side keeps anything of it.
    #[default]
    Reset,
    /// With FIN, as most clients do: for servers that log a reset as an error.
    Fin,
}

/// Kind of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheckKind {
    /// A TCP handshake completes.
    #[default]
    Tcp,
    /// `GET path` answers with an expected status.
    Http,
}

impl HealthCheck {
    fn default_interval_ms() -> u32 {
        2_000
    }
    fn default_timeout_ms() -> u32 {
        1_000
    }
    fn default_rise() -> u8 {
        2
    }
    fn default_fall() -> u8 {
        3
    }
    fn default_path() -> String {
        "/".to_owned()
    }
    fn default_expected_status() -> Vec<u16> {
        vec![200]
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            kind: HealthCheckKind::default(),
            interval_ms: Self::default_interval_ms(),
            timeout_ms: Self::default_timeout_ms(),
            rise: Self::default_rise(),
            fall: Self::default_fall(),
            port: None,
            path: Self::default_path(),
            host: None,
            expected_status: Self::default_expected_status(),
            close: CheckClose::default(),
        }
    }
}
