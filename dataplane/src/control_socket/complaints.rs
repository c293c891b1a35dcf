//! What is wrong with peers, in the log: within limits, as any process that may connect can cause it.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use sluice_api::event_limit::{EventLimits, Rate, and_before};

const EACH: Rate = Rate { at_once: 5, every_ms: 60_000 };
const KIND: Rate = Rate { at_once: 20, every_ms: 10_000 };

/// The limits, shared by all connections.
#[derive(Clone)]
pub(super) struct Complaints {
    limits: Arc<Mutex<EventLimits<String>>>,
    started: Instant,
}

impl Complaints {
    pub(super) fn new() -> Self {
        let limits = Arc::new(Mutex::new(EventLimits::new(EACH, KIND)));
        Complaints { limits, started: Instant::now() }
    }

    /// Log that something is wrong, unless the same was logged too often; `kind` is a word for it.
    pub(super) fn warn(&self, kind: &str, message: String) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        let mut limits = self.limits.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((message, before)) = limits.offer(now_ms, kind, kind, message) {
            tracing::warn!("{message}{}", and_before(before));
        }
    }
}
