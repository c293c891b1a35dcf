//! Long-running programs of the lab: each in a namespace, in a process group of its own, with its
//! output in a log file.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::command::{in_netns, run};
use super::error::{LabError, Result};
use super::site::{self, Site};

/// A program that runs until it is ended. Dropping it kills it, unless it was detached.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: u64,
    detached: bool,
}

impl Process {
    /// Start a program inside a namespace. Its output goes to `NAME.log` in the run directory,
    /// behind that of earlier starts.
    pub fn spawn(site: &Site, netns: &str, name: &str, argv: &[&str]) -> Result<Self> {
        let log = site.file(&format!("{name}.log"));
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::io(log.display().to_string()))?;
        let log_start = output.metadata().map_err(LabError::io(name))?.len();
        let stderr = output.try_clone().map_err(LabError::io(name))?;
        let _permission = site::making();
        let child = command(netns, argv)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(stderr)
            .spawn()
            .map_err(LabError::io(name))?;
        Ok(Process { name: name.to_owned(), child, log, log_start, detached: false })
    }

    /// Wait until it has printed a line whose first word is READY.
    pub fn wait_ready(&mut self, within: Duration) -> Result<()> {
        let is_ready = |line: &str| line.split_whitespace().next() == Some("READY");
        self.wait_for(within, |output| output.lines().any(is_ready))
    }

    /// Wait until it has printed `text`.
    pub fn wait_for_text(&mut self, text: &str, within: Duration) -> Result<()> {
        self.wait_for(within, |output| output.contains(text))
    }

    fn wait_for(&mut self, within: Duration, found: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if found(&self.output()) {
                return Ok(());
            }
            if !self.is_running() || Instant::now() > deadline {
                let (name, log) = (self.name.clone(), self.log.clone());
                return Err(LabError::NotReady { name, within, log, tail: self.log_tail(15) });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has printed since this start.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = bytes.len().min(self.log_start as usize);
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    /// The last lines that it has printed.
    pub fn log_tail(&self, lines: usize) -> String {
        let output = self.output();
        let all: Vec<&str> = output.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// End it and its children with SIGKILL.
    pub fn kill(&mut self) {
        if self.is_running() {
            let group = format!("-{}", self.child.id());
            if run(&["kill", "-KILL", "--", &group]).is_err() {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }

    /// Ask it to end with SIGTERM and wait for it.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("-TERM")?;
        self.wait(within)
    }

    /// Send it a signal, as `-INT`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        run(&["kill", signal, &self.child.id().to_string()]).map(drop)
    }

    /// Wait until it has ended.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().map_err(LabError::io(&self.name))? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(LabError::Timeout { what: format!("{} ended", self.name), within });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Let it run on when this value is dropped.
    pub fn detach(&mut self) {
        self.detached = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            self.kill();
        }
    }
}

/// A command inside a namespace, in its own process group: a Ctrl-C at the terminal reaches the
/// lab alone, which then ends its programs in order.
pub(super) fn command(netns: &str, argv: &[&str]) -> Command {
    let full = in_netns(netns, argv);
    let mut command = Command::new(full[0]);
    command.args(&full[1..]).process_group(0);
    command
}

/// Poll until `condition` gives a value.
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(LabError::Timeout { what: what.to_owned(), within });
        }
        thread::sleep(Duration::from_millis(50));
    }
}
