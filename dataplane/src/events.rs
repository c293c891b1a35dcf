//! What happened in the data plane, for an operator to read: the last 1,024 events.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_api::stats::DataplaneEvent;

/// Events that are kept.
const KEPT: usize = 1_024;

/// The log; the main thread owns it.
#[derive(Default)]
pub struct EventLog {
    events: VecDeque<DataplaneEvent>,
    last_seq: u64,
}

impl EventLog {
    /// Note an event, and log it.
    pub fn add(&mut self, kind: &str, message: String) {
        tracing::info!(kind, "{message}");
        self.last_seq += 1;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(DataplaneEvent {
            seq: self.last_seq,
            at_ms: since_epoch.as_millis() as u64,
            kind: kind.to_owned(),
            message,
        });
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
        (0..KEPT + 3).for_each(|i| log.add("test", format!("event {i}")));
        let all = log.since(0);
        assert_eq!((all.len(), all[0].seq, all[0].message.as_str()), (KEPT, 4, "event 3"));
        assert_eq!(log.since(KEPT as u64 + 2).len(), 1);
        assert!(log.since(u64::MAX).is_empty());
    }
}
