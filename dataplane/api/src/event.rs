//! How much an event matters, in both processes: by its kind, in one table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much an event matters to whoever is on duty.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be: done, back, begun.
    #[default]
    Info,
    /// Something works worse than it should, or will; traffic goes on.
    Warning,
    /// Traffic is lost, or changes do not reach it.
    Error,
}

impl Severity {
    /// That of events of a kind. What is not named here tells of something as it should be.
    pub fn of(kind: &str) -> Self {
        match kind {
            // control
            "dataplane-unreachable"
            | "file-refused"
            | "publish-held"
            | "service-down"
            | "snapshot-rejected"
            | "state-not-written" => Severity::Error,
            "announce-refused"
            | "backup-failed"
            | "backend-unhealthy"
            | "dataplane-restarted"
            | "file-needs-restart"
            | "service-degraded"
            | "snapshot-foreign" => Severity::Warning,
            // data plane
            "config-refused" | "link-down" | "port-reset-failed" | "worker-stuck" => {
                Severity::Error
            }
            "address-conflict"
            | "interface-not-restored"
            | "interface-restored"
            | "limit-80-percent"
            | "main-thread-late"
            | "neighbour-failed"
            | "neighbour-table-full"
            | "port-reset"
            | "ports-used-again-early"
            | "steering-fallback"
            | "table-80-percent" => Severity::Warning,
            _ => Severity::Info,
        }
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_severity() {
        assert_eq!(Severity::of("backend-unhealthy"), Severity::Warning);
        assert_eq!(Severity::of("backend-healthy"), Severity::Info);
        assert_eq!(Severity::of("link-down"), Severity::Error);
        assert_eq!(Severity::of("from-the-future"), Severity::Info);
        assert!(Severity::Info < Severity::Warning && Severity::Warning < Severity::Error);
        for severity in [Severity::Info, Severity::Warning, Severity::Error] {
            assert_eq!(serde_json::to_value(severity).unwrap(), severity.name());
        }
    }
}
