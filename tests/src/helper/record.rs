//! What became of one request, as the client tells its driver.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// One request. Times are in µs since the Unix epoch, the same clock as [`now_us`] in any process
/// of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When the client began to connect (TCP) or sent (UDP).
    pub start_us: u64,
    /// When the answer was complete, or the client gave up.
    pub end_us: u64,
    /// The client's source port.
    pub source_port: u16,
    /// The backend that answered, or began to answer.
    pub backend: Option<String>,
    /// Why the request failed; absent when the answer came back whole and right.
    pub error: Option<String>,
    /// False for a download whose first bytes have come; a second record follows at its end.
    pub done: bool,
}

impl Record {
    /// Whether the request succeeded.
    pub fn ok(&self) -> bool {
        self.done && self.error.is_none()
    }
}

/// Now, in µs since the Unix epoch.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Print records as lines of JSON, in batches, until all senders are gone.
pub async fn print(mut records: mpsc::UnboundedReceiver<Record>) -> std::io::Result<()> {
    let mut batch = Vec::new();
    while records.recv_many(&mut batch, 1_024).await > 0 {
        let mut text = Vec::new();
        for record in batch.drain(..) {
            serde_json::to_writer(&mut text, &record)?;
            text.push(b'\n');
        }
        std::io::stdout().write_all(&text)?;
        std::io::stdout().flush()?;
        // Let some more gather: a line each would cost a system call each.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}
