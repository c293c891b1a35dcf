//! The way of lines out of a process, for both of Sluice's: by a thread of its own, so that a reader
//! who does not read (a journal whose disk stalls, a pipe that nobody empties) holds up nobody who
//! forwards or answers, and one who is gone, or a disk that is full, ends nobody. What is lost is
//! counted, and said once lines flow again.
#![forbid(unsafe_code)]

mod filter;
mod supervisor;

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

pub use filter::{FilterError, filter, filter_or, is_filter, is_from_environment};
pub use supervisor::Supervisor;

/// Lines that wait to be written; more are lost, and counted.
const WAITING: usize = 1_024;
/// How long the end of a process, or a panic, waits for the last lines to be taken.
pub const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines that this process has lost, in all its logs.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines of logs that this process has lost since it started.
pub fn lost_lines() -> u64 {
    LOST.load(Relaxed)
}

enum Message {
    Line(Vec<u8>),
    /// All before it is written: say so.
    Flush(SyncSender<()>),
}

/// Where lines go. It is copied at will, and never waits.
#[derive(Clone)]
pub struct Log {
    messages: SyncSender<Message>,
    /// Lost, and not yet said to be.
    untold: Arc<AtomicU64>,
}

impl Log {
    /// Write lines to `out`, on a thread of its own.
    ///
    /// # Errors
    /// The kernel does not give us a thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Log> {
        let (messages, receiver) = sync_channel(WAITING);
        let untold = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&untold);
        let write = move || write(&receiver, &count, out);
        std::thread::Builder::new().name("log".into()).spawn(write)?;
        Ok(Log { messages, untold })
    }

    /// Say a line that is no event of the log: what a process tells who started it.
    pub fn say(&self, text: &str) {
        self.send(format!("{text}\n").into_bytes());
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

    /// Report panics by this log from now on, after what was logged before: the report that a program
    /// has by default waits for whoever reads.
    pub fn report_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name").to_owned();
            // Empty unless RUST_BACKTRACE asks for it.
            let backtrace = Backtrace::capture();
            log.say(&format!("thread {name} {info}\n{backtrace}"));
            log.flush(LAST_LINES);
        }));
    }

    fn send(&self, line: Vec<u8>) {
        if self.messages.try_send(Message::Line(line)).is_err() {
            lose(&self.untold, 1);
        }
    }
}

fn lose(untold: &AtomicU64, lines: u64) {
    untold.fetch_add(lines, Relaxed);
    LOST.fetch_add(lines, Relaxed);
}

fn write(messages: &Receiver<Message>, untold: &AtomicU64, mut out: impl Write) {
    // Whether a line broke off.
    let mut is_torn = false;
    for message in messages {
        match message {
            Message::Line(line) => {
                let start: &[u8] = if is_torn { b"\n" } else { b"" };
                let written = out.write_all(start).and_then(|()| out.write_all(&line));
                is_torn = written.is_err();
                if is_torn {
                    // Nobody can be told when there is no way out.
                    lose(untold, 1);
                    continue;
                }
                let lost = untold.swap(0, Relaxed);
                if lost > 0 {
                    is_torn = writeln!(out, "{lost} lines of this log were lost: nobody took them")
                        .is_err();
                    if is_torn {
                        untold.fetch_add(lost, Relaxed);
                    }
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
        self.log.send(std::mem::take(&mut self.bytes));
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
    use std::sync::atomic::AtomicBool;

    /// Takes nothing while the lock is held, and breaks lines off while it is full.
    #[derive(Clone, Default)]
    struct Out {
        text: Arc<Mutex<Vec<u8>>>,
        is_full: Arc<AtomicBool>,
    }

    impl Out {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut text = self.text.lock().unwrap();
            if !self.is_full.load(Relaxed) {
                return text.write(bytes);
            }
            if bytes.len() <= 3 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            text.write(&bytes[..3])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_does_not_read_holds_nobody_up() {
        let out = Out::default();
        let log = Log::start(out.clone()).unwrap();
        let before = lost_lines();
        let stuck = out.text.lock().unwrap();
        // One may be on its way out already.
        for line in 0..WAITING + 11 {
            writeln!(log.make_writer(), "line {line}").unwrap();
        }
        log.flush(Duration::from_millis(1));
        drop(stuck);
        log.flush(Duration::from_secs(10));
        let lines = out.lines();
        assert_eq!(lines[0], "line 0");
        assert!(matches!(
            lines[1].as_str(),
            "10 lines of this log were lost: nobody took them"
                | "11 lines of this log were lost: nobody took them"
        ));
        assert!(lines.len() == WAITING + 1 || lines.len() == WAITING + 2, "{}", lines.len());
        assert!(lost_lines() >= before + 10, "for the metric");
    }

    #[test]
    fn a_full_disk_costs_lines_which_are_counted() {
        let out = Out::default();
        let log = Log::start(out.clone()).unwrap();
        log.say("first");
        log.flush(Duration::from_secs(10));
        out.is_full.store(true, Relaxed);
        for line in 0..7 {
            log.say(&format!("lost {line}"));
        }
        log.flush(Duration::from_secs(10));
        out.is_full.store(false, Relaxed);
        log.say("last");
        log.flush(Duration::from_secs(10));
        let lines = out.lines();
        assert_eq!(lines.first().unwrap(), "first");
        assert!(lines.contains(&"last".to_owned()), "a line of its own: {lines:?}");
        assert_eq!(lines.last().unwrap(), "7 lines of this log were lost: nobody took them");
    }
}
