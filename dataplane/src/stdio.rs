//! Standard output and error, such that whoever writes to them waits for nobody and cannot fail: this
//! program, DPDK, its drivers and their libraries, on every thread.
//!
//! Both become pipes that are read here at once; what comes goes on to where they led before by a
//! thread each ([`Log`]), which may wait for a reader, a disk or nobody. What it cannot get rid of is
//! lost and counted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, dup2_stdout};

use sluice_log::{LAST_LINES, Log};

/// The longest line that is kept together, in bytes.
const LONGEST_LINE: u64 = 16 << 10;
/// What no line is: whoever writes it wants to know that all before it has been read.
const MARK: &[u8] = b"\0 all before this is read \0\n";

/// One of the two.
struct Diverted {
    log: Log,
    /// The way in, for the mark.
    pipe: File,
    marks: std::sync::Mutex<Receiver<()>>,
}

/// Both, once they are taken over.
static BOTH: OnceLock<[Diverted; 2]> = OnceLock::new();

/// Take standard output and error over, for as long as the process lives; the way to standard error for
/// who writes lines of a log. To be called once.
///
/// # Errors
/// The kernel gives no pipe or no thread.
pub fn take_over() -> io::Result<Log> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let out = Diverted::new("stdout", stdout.as_fd(), |pipe| dup2_stdout(pipe))?;
    let err = Diverted::new("stderr", stderr.as_fd(), |pipe| dup2_stderr(pipe))?;
    let log = err.log.clone();
    let _ = BOTH.set([out, err]);
    Ok(log)
}

/// Wait until all that was written has left, but not for long.
pub fn flush() {
    let deadline = Instant::now() + LAST_LINES;
    for diverted in BOTH.get().into_iter().flatten() {
        diverted.flush(deadline);
    }
}

impl Diverted {
    fn new(
        name: &str,
        descriptor: BorrowedFd<'_>,
        divert: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
    ) -> io::Result<Diverted> {
        let log = Log::start(File::from(descriptor.try_clone_to_owned()?))?;
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        let (marked, marks) = channel();
        let pass_to = log.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || pass_on(File::from(from), &pass_to, &marked))?;
        divert(&to)?;
        Ok(Diverted { log, pipe: File::from(to), marks: marks.into() })
    }

    fn flush(&self, deadline: Instant) {
        let left = || deadline.saturating_duration_since(Instant::now());
        let Ok(marks) = self.marks.try_lock() else { return };
        if (&self.pipe).write_all(MARK).is_ok() {
            let _ = marks.recv_timeout(left());
        }
        self.log.flush(left());
    }
}

/// Read lines until the end of time, and pass them on.
fn pass_on(from: File, log: &Log, marked: &Sender<()>) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nothing can be read any more, and nobody be told.
            Err(_) => return,
        }
        // It comes behind what ends without a line's end.
        let is_mark = line.ends_with(MARK);
        if is_mark {
            line.truncate(line.len() - MARK.len());
        }
        if !line.is_empty() {
            log.say(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        }
        if is_mark {
            let _ = marked.send(());
        }
    }
}
