//! What happened, for people and programs to read: the last [`KEPT`] events, in memory and in the
//! log, told within limits whoever causes them. Events of the data plane are merged in.
//!
//! | kind | when |
//! |---|---|
//! | `control-started`, `state-initial`, `state-taken-over`, `file-changed` | at start |
//! | `file-read`, `file-refused`, `file-needs-restart` | the TOML file was read again (SIGHUP): what came of it |
//! | `state-not-written`, `state-written` | writing the database fails, and succeeds again |
//! | `backup-failed` | the regular copy of the database could not be made |
//! | `publish-held`, `state-confirmed` | a doubtful state waits for an operator's word, and has it |
//! | `service-created`, `-changed`, `-deleted`; likewise `backend-…`, `pool-…` | the API changed it |
//! | `backend-up`, `backend-drained`, `backend-down` | an operator set its state |
//! | `service-serving`, `-degraded`, `-down` | it fares so from now on, with the reason |
//! | `backend-healthy`, `-unhealthy`, `-unknown` | its checks say so, with the reason |
//! | `dataplane-connected`, `-restarted`, `-unreachable` | the connection came or went |
//! | `snapshot-rejected` | the data plane refused a snapshot; one event per problem |
//! | `snapshot-foreign` | somebody else applied one; control compares and repairs |
//! | `announced`, `announce-refused` | gratuitous ARP |

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;
use sluice_api::event_limit::{EventLimits, Kept, Rate, and_before, last_of};
use sluice_api::{BackendId, Severity};

use crate::actor::Actor;

use sluice_api::clock::now_ms;

/// The source of events that the data plane tells.
pub const DATAPLANE: &str = "dataplane";
/// How many events are kept.
pub const KEPT: usize = 4_096;
/// How often something is told of one service, backend or pool. What operators do is told as it is
/// done, also by a script; a backend whose checks go up and down is told of less often.
const EACH: Rate = Rate { at_once: 20, every_ms: 10_000 };
/// How often something of one kind is told: a host with 1,000 backends may fail.
const KIND: Rate = Rate { at_once: 2_000, every_ms: 100 };

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Event {
    /// Grows by one with every event, and never falls when control starts anew.
    pub seq: u64,
    /// When, in ms since the Unix epoch.
    pub at_ms: u64,
    /// Who tells: `control` or `dataplane`.
    pub source: &'static str,
    /// A word for programs: `backend-unhealthy`, `service-created`, `dataplane-connected`, …
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// Who made it happen; absent when nobody did, or control itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The service it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The backend it is about, as `address:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// A sentence for people.
    pub message: String,
}

impl Event {
    /// Something that happened in control just now.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Event {
            seq: 0,
            at_ms: now_ms(),
            source: "control",
            kind: kind.to_owned(),
            severity: Severity::of(kind),
            actor: None,
            service: None,
            backend: None,
            message: message.into(),
        }
    }

    /// To a service, or a backend of it.
    #[must_use]
    pub fn about(self, service: Option<&str>, backend: Option<BackendId>) -> Self {
        let service = service.map(str::to_owned);
        Event { service, backend: backend.map(|id| id.to_string()), ..self }
    }

    /// And who made it happen.
    #[must_use]
    pub fn by(self, actor: &Actor) -> Self {
        Event { actor: Some(actor.clone()), ..self }
    }
}

/// The event log.
#[derive(Debug)]
pub struct EventLog {
    inner: Mutex<Ring>,
    started: Instant,
}

#[derive(Debug)]
struct Ring {
    events: Kept<Event>,
    limits: EventLimits<Event>,
    last_seq: u64,
}

impl Default for EventLog {
    fn default() -> Self {
        let (events, limits) = (Kept::new(KEPT), EventLimits::new(EACH, KIND));
        EventLog {
            inner: Mutex::new(Ring { events, limits, last_seq: 0 }),
            started: Instant::now(),
        }
    }
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Sequence number of the newest event there is. One below a number that was seen before tells that
    /// control was restarted and its clock set back.
    pub last_seq: u64,
}

impl EventLog {
    /// An empty log whose sequence numbers go on above those of any log before: from the time in µs since
    /// the Unix epoch, below 2^53 until 2255. Who follows it misses nothing when control is restarted.
    pub fn after_all_before() -> Self {
        let log = EventLog::default();
        log.ring().last_seq = now_ms() * 1_000;
        log
    }

    /// Note that something happened in control that nobody else made.
    pub fn note(&self, kind: &str, message: impl Into<String>) {
        self.push(Event::new(kind, message));
    }

    /// Append an event, unless its subject had too many of its kind: these are counted. It gets the
    /// next sequence number.
    pub fn push(&self, event: Event) {
        self.push_at(self.now_ms(), event);
    }

    fn push_at(&self, now_ms: u64, event: Event) {
        let mut ring = self.ring();
        // The data plane limits its own.
        if event.source == DATAPLANE {
            return ring.record(event);
        }
        let kind = event.kind.clone();
        let subject = match (&event.service, &event.backend) {
            (None, None) => event.message.clone(),
            (service, backend) => format!("{service:?} {backend:?}"),
        };
        if let Some((mut event, before)) = ring.limits.offer(now_ms, &kind, &subject, event) {
            event.message += &and_before(before);
            ring.record(event);
        }
    }

    /// Tell of what was left out, as far as it is time to. Call now and then.
    pub fn tell_left_out(&self) {
        self.tell_left_out_at(self.now_ms());
    }

    fn tell_left_out_at(&self, now_ms: u64) {
        let mut ring = self.ring();
        for (mut event, count) in ring.limits.overdue(now_ms) {
            event.message += &last_of(count);
            ring.record(event);
        }
    }

    /// At most `limit` events, oldest first: those that follow on `since`, so that who goes on with the
    /// last number misses none; without `since` the newest. A `since` above the newest is from before
    /// a restart of control: all events count then.
    pub fn page(&self, since: Option<u64>, limit: usize) -> Page {
        self.tell_left_out();
        let ring = self.ring();
        let events: Vec<Event> = match since {
            Some(since) => {
                let since = if since > ring.last_seq { 0 } else { since };
                ring.events.iter().filter(|e| e.seq > since).take(limit).cloned().collect()
            }
            None => {
                let newest = ring.events.iter().rev().take(limit);
                let mut events: Vec<Event> = newest.cloned().collect();
                events.reverse();
                events
            }
        };
        Page { events, last_seq: ring.last_seq }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Ring {
    fn record(&mut self, mut event: Event) {
        self.last_seq += 1;
        event.seq = self.last_seq;
        // The level of a line is part of where it is made.
        let actor = event.actor.as_ref().map(Actor::to_string);
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    source = event.source,
                    kind = event.kind,
                    service = event.service,
                    backend = event.backend,
                    actor,
                    "{}",
                    event.message
                )
            };
        }
        match event.severity {
            Severity::Info => log!(info),
            Severity::Warning => log!(warn),
            Severity::Error => log!(error),
        }
        self.events.push(&event.kind.clone(), event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(
        source: &'static str,
        kind: &str,
        service: Option<&str>,
        message: impl Into<String>,
    ) -> Event {
        Event { at_ms: 0, source, ..Event::new(kind, message) }.about(service, None)
    }

    /// A backend that flaps ten times a second for an hour is told of every 10 s, and hides nothing.
    #[test]
    fn what_flaps_is_told_within_limits_and_counted() {
        let log = EventLog::default();
        log.push_at(0, event("control", "service-created", Some("web"), "service web created"));
        for tick in 0..36_000 {
            let message = format!("unhealthy {tick}");
            log.push_at(tick * 100, event("control", "backend-unhealthy", Some("web"), message));
        }
        let page = log.page(None, usize::MAX);
        assert!((360..=400).contains(&page.last_seq), "{}", page.last_seq);
        assert_eq!(page.events[0].kind, "service-created");
        let told = &page.events.last().unwrap().message;
        assert!(told.ends_with("(and 99 more like this before)"), "{told}");
        log.tell_left_out_at(3_610_000);
        let left_out = log.page(Some(page.last_seq), 10).events;
        assert!(left_out[0].message.starts_with("unhealthy 35999 (the last of "), "{left_out:?}");
        assert_eq!(left_out[0].service.as_deref(), Some("web"));
        // A thousand backends that fail at once are told of, each.
        for n in 0..1_000 {
            let (service, message) = (format!("s{n}"), "unhealthy");
            log.push_at(4_000_000, event("control", "backend-unhealthy", Some(&service), message));
        }
        assert_eq!(log.page(None, 1_000).events[0].service.as_deref(), Some("s0"));
    }

    #[test]
    fn keeps_the_newest_and_pages_oldest_first() {
        let log = EventLog::default();
        assert_eq!(log.page(Some(0), 10), Page { events: vec![], last_seq: 0 });
        for n in 1..=KEPT + 5 {
            let event = event(DATAPLANE, "test", None, format!("event {n}"));
            log.push(event);
        }
        let all = log.page(Some(0), usize::MAX);
        assert_eq!(all.events.len(), KEPT);
        assert_eq!(all.events[0].seq, 6);
        assert_eq!(all.last_seq, KEPT as u64 + 5);
        let seqs = |page: Page| page.events.iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(seqs(log.page(None, 2)), [4100, 4101], "the newest");
        assert_eq!(seqs(log.page(Some(0), 2)), [6, 7], "the oldest");
        assert_eq!(seqs(log.page(Some(4000), 2)), [4001, 4002], "what follows");
        assert_eq!(seqs(log.page(Some(4099), 100)), [4100, 4101]);
        assert!(seqs(log.page(Some(4101), 100)).is_empty());
        assert_eq!(seqs(log.page(Some(9999), 1)), [6], "since from before a restart");
    }
}
