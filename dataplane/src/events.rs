//! What happened in the data plane, for an operator to read: at most 1,024 events, told within limits
//! whoever causes them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sluice_api::Severity;
use sluice_api::event_limit::{EventLimits, Kept, Rate, and_before, last_of};
use sluice_api::stats::DataplaneEvent;

/// Events that are kept.
const KEPT: usize = 1_024;
/// How often something is told of one subject.
const EACH: Rate = Rate { at_once: 5, every_ms: 60_000 };
/// How often something of one kind is told.
const KIND: Rate = Rate { at_once: 100, every_ms: 1_000 };

/// The log; the main thread owns it.
pub struct EventLog {
    events: Kept<DataplaneEvent>,
    last_seq: u64,
    limits: EventLimits<(String, String)>,
    started: Instant,
}

impl Default for EventLog {
    fn default() -> Self {
        EventLog {
            events: Kept::new(KEPT),
            last_seq: 0,
            limits: EventLimits::new(EACH, KIND),
            started: Instant::now(),
        }
    }
}

impl EventLog {
    /// Note an event about what its message names before the first `": "`, and log it, as
    /// [`add_about`](Self::add_about) does.
    pub fn add(&mut self, kind: &str, message: String) {
        let subject = message.split(": ").next().unwrap_or_default().to_owned();
        self.add_about(kind, &subject, message);
    }

    /// Note an event about a subject, and log it, unless that has had too many of its kind; those are
    /// counted.
    pub fn add_about(&mut self, kind: &str, subject: &str, message: String) {
        self.offer(self.now_ms(), kind, subject, message);
    }

    /// Tell of what was left out, as far as it is time to. Call about once a second.
    pub fn tell_left_out(&mut self) {
        self.tell_left_out_at(self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn offer(&mut self, now_ms: u64, kind: &str, subject: &str, message: String) {
        let event = (kind.to_owned(), message);
        if let Some(((kind, message), before)) = self.limits.offer(now_ms, kind, subject, event) {
            self.record(&kind, message + &and_before(before));
        }
    }

    fn tell_left_out_at(&mut self, now_ms: u64) {
        for ((kind, message), count) in self.limits.overdue(now_ms) {
            self.record(&kind, message + &last_of(count));
        }
    }

    fn record(&mut self, kind: &str, message: String) {
        let severity = Severity::of(kind);
        match severity {
            Severity::Info => tracing::info!(kind, "{message}"),
            Severity::Warning => tracing::warn!(kind, "{message}"),
            Severity::Error => tracing::error!(kind, "{message}"),
        }
        self.last_seq += 1;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = DataplaneEvent {
            seq: self.last_seq,
            at_ms: since_epoch.as_millis() as u64,
            kind: kind.to_owned(),
            severity,
            message,
        };
        self.events.push(kind, event);
    }

    /// Events after sequence number `seq`, oldest first.
    pub fn since(&self, seq: u64) -> Vec<DataplaneEvent> {
        self.events.iter().filter(|e| e.seq > seq).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_and_numbers_go_on() {
        let mut log = EventLog::default();
        (0..KEPT + 3).for_each(|i| log.record("test", format!("event {i}")));
        let all = log.since(0);
        assert_eq!((all.len(), all[0].seq, all[0].message.as_str()), (KEPT, 4, "event 3"));
        assert_eq!(log.since(KEPT as u64 + 2).len(), 1);
        assert!(log.since(u64::MAX).is_empty());
    }

    /// 51,350 claims of one address, as fast as they come, are five lines and one with their number;
    /// of many addresses they are bounded too, for days, and what else happened stays.
    #[test]
    fn a_flood_is_told_in_bounds_and_hides_nothing() {
        let mut log = EventLog::default();
        log.add("link-down", "port wan: link is down".to_owned());
        for n in 0..51_350 {
            log.offer(n / 10, "address-conflict", "192.0.2.100", format!("{n} claims it"));
            log.tell_left_out_at(n / 10);
        }
        assert_eq!(log.since(1).len(), 5);
        log.tell_left_out_at(60_000);
        let last = log.since(6).pop().unwrap().message;
        assert_eq!(last, "51349 claims it (the last of 51345 like this)");
        for second in 100..3_000 {
            for n in 0..100 {
                let (subject, message) =
                    (format!("10.0.{n}.{}", second % 200), "claimed".to_owned());
                log.offer(second * 1_000, "address-conflict", &subject, message);
            }
            log.tell_left_out_at(second * 1_000);
        }
        assert!(log.last_seq < 3_200, "one a second: {}", log.last_seq);
        let kept = log.since(0);
        assert_eq!((kept.len(), kept[0].kind.as_str()), (KEPT, "link-down"));
    }
}
