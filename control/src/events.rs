//! What happened, for people and programs to read: the last [`KEPT`] events, in memory and in the
//! log. Events of the data plane are merged in.
//!
//! | kind | when |
//! |---|---|
//! | `control-started`, `state-initial`, `state-damaged`, `file-changed` | at start |
//! | `service-created`, `-changed`, `-deleted`; likewise `backend-…`, `pool-…` | the API changed it |
//! | `backend-up`, `backend-drained`, `backend-down` | an operator set its state |
//! | `backend-healthy`, `backend-unhealthy` | its checks say so, with the reason |
//! | `dataplane-connected`, `-restarted`, `-unreachable` | the connection came or went |
//! | `snapshot-rejected` | the data plane refused a snapshot; one event per problem |
//! | `snapshot-foreign` | somebody else applied one; control compares and repairs |
//! | `announced`, `announce-refused` | gratuitous ARP |

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::Serialize;
use sluice_api::BackendId;

use crate::clock::now_ms;

/// How many events are kept.
pub const KEPT: usize = 4_096;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Grows by one with every event since control started.
    pub seq: u64,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
    /// Who tells: `control` or `dataplane`.
    pub source: &'static str,
    /// A word for programs: `backend-unhealthy`, `service-created`, `dataplane-connected`, …
    pub kind: String,
    /// The service it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The backend it is about, as `address:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// A sentence for people.
    pub message: String,
}

/// The event log.
#[derive(Debug, Default)]
pub struct EventLog {
    inner: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    last_seq: u64,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Sequence number of the newest event there is, 0 when there is none. One below a number that
    /// was seen before tells that control was restarted.
    pub last_seq: u64,
}

impl EventLog {
    /// Note that something happened in control.
    pub fn note(&self, kind: &str, message: impl Into<String>) {
        self.note_about(kind, None, None, message);
    }

    /// Note that something happened to a service or a backend.
    pub fn note_about(
        &self,
        kind: &str,
        service: Option<&str>,
        backend: Option<BackendId>,
        message: impl Into<String>,
    ) {
        self.push(Event {
            seq: 0,
            at_ms: now_ms(),
            source: "control",
            kind: kind.to_owned(),
            service: service.map(str::to_owned),
            backend: backend.map(|b| b.to_string()),
            message: message.into(),
        });
    }

    /// Append an event; it gets the next sequence number.
    pub fn push(&self, mut event: Event) {
        let mut ring = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        ring.last_seq += 1;
        event.seq = ring.last_seq;
        tracing::info!(
            source = event.source,
            kind = event.kind,
            service = event.service,
            backend = event.backend,
            "{}",
            event.message
        );
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(event);
    }

    /// The newest `limit` events with a sequence number above `since`, oldest first. A `since`
    /// above the newest is from before a restart of control: all events count then.
    pub fn page(&self, since: u64, limit: usize) -> Page {
        let ring = self.inner.lock().unwrap_or_else(|e| e.into_inner());
        let since = if since > ring.last_seq { 0 } else { since };
        let above = ring.events.partition_point(|e| e.seq <= since);
        let first = above.max(ring.events.len().saturating_sub(limit));
        Page { events: ring.events.range(first..).cloned().collect(), last_seq: ring.last_seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_pages_oldest_first() {
        let log = EventLog::default();
        assert_eq!(log.page(0, 10), Page { events: vec![], last_seq: 0 });
        for n in 1..=KEPT + 5 {
            log.note("test", format!("event {n}"));
        }
        let all = log.page(0, usize::MAX);
        assert_eq!(all.events.len(), KEPT);
        assert_eq!(all.events[0].seq, 6);
        assert_eq!(all.last_seq, KEPT as u64 + 5);
        let seqs = |page: Page| page.events.iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(seqs(log.page(0, 2)), [4100, 4101]);
        assert_eq!(seqs(log.page(4099, 100)), [4100, 4101]);
        assert!(seqs(log.page(4101, 100)).is_empty());
        assert_eq!(seqs(log.page(9999, 1)), [4101], "since from before a restart");
    }
}
