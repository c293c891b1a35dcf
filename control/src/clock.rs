//! The wall clock, in the unit that the API uses.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in ms since the Unix epoch; 0 on a clock set before it.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
