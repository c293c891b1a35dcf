//! The way of log lines out of the process: by a thread of its own, so that a reader who does not read
//! (a journal whose disk stalls, a pipe that nobody empties) holds up nobody who forwards or answers.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written; more are lost, and counted.
const WAITING: usize = 1_024;

enum Message {
    Line(Vec<u8>),
    /// All before it is written: say so.
    Flush(SyncSender<()>),
}

/// Where lines go. It is copied at will, and never waits.
#[derive(Clone)]
pub struct Log {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Write lines to `out`, on a thread of its own.
    ///
    /// # Errors
    /// The kernel does not give us a thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Log> {
        let (messages, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&lost);
        let write = move || write(&receiver, &count, out);
        std::thread::Builder::new().name("log".into()).spawn(write)?;
        Ok(Log { messages, lost })
    }

    /// Wait until all lines are written, but not longer than this.
    pub fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let (done, is_done) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.messages.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write(messages: &Receiver<Message>, lost: &AtomicU64, mut out: impl Write) {
    // Nobody can be told when there is no way out.
    for message in messages {
        match message {
            Message::Line(line) => {
                let _ = out.write_all(&line);
                let lost = lost.swap(0, Relaxed);
                if lost > 0 {
                    let _ = writeln!(out, "{lost} lines of this log were lost: nobody took them");
                }
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

/// A line that is being made; it leaves when it is dropped.
pub struct Line<'l> {
    log: &'l Log,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = Message::Line(std::mem::take(&mut self.bytes));
        if let Err(TrySendError::Full(_)) = self.log.messages.try_send(line) {
            self.log.lost.fetch_add(1, Relaxed);
        }
    }
}

impl<'l> MakeWriter<'l> for Log {
    type Writer = Line<'l>;

    fn make_writer(&'l self) -> Line<'l> {
        Line { log: self, bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Takes nothing while the lock is held.
    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_does_not_read_holds_nobody_up() {
        let out = Out::default();
        let log = Log::start(out.clone()).unwrap();
        let stuck = out.0.lock().unwrap();
        // One may be on its way out already.
        for line in 0..WAITING + 11 {
            writeln!(log.make_writer(), "line {line}").unwrap();
        }
        log.flush(Duration::from_millis(1));
        drop(stuck);
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "line 0");
        assert!(matches!(
            lines[1],
            "10 lines of this log were lost: nobody took them"
                | "11 lines of this log were lost: nobody took them"
        ));
        assert!(lines.len() == WAITING + 1 || lines.len() == WAITING + 2, "{}", lines.len());
    }
}
