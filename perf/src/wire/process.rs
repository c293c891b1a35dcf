//! The programs that are measured: started here, paused while another is measured, and ended.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::WireError;

/// Longest that a program may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Longest that a program may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Lines of its output in an error.
const TAIL_LINES: usize = 12;

/// A program that runs until this is dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Start a program that may use these CPUs (ours is only one by then); its output goes to a file
    /// in `directory`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(
        name: &'static str,
        cpus: [u16; 2],
        program: &Path,
        arguments: &[String],
        directory: &Path,
    ) -> Result<Self, WireError> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).map_err(WireError::io(log.display().to_string()))?;
        let errors = output.try_clone().map_err(WireError::io(name))?;
        // Both only set something and become the program, so the process id is the program's own. It
        // is not to outlive us, should we be killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "taskset", "-c", &format!("{},{}", cpus[0], cpus[1])])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // A Ctrl-C at the terminal is for us, and we end it in order.
            .process_group(0)
            .spawn()
            .map_err(WireError::io(format!(
                "starting {} by setpriv and taskset (of util-linux)",
                program.display()
            )))?;
        Ok(Process { name, child, log })
    }

    /// Wait until its output has a line that contains `text`.
    ///
    /// # Errors
    /// It ended before, or took too long; or `stop` was set.
    pub fn wait_for(&mut self, text: &str, stop: &AtomicBool) -> Result<(), WireError> {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.output().lines().any(|line| line.contains(text)) {
            self.check()?;
            if stop.load(Relaxed) {
                return Err(WireError::Interrupted);
            }
            if Instant::now() > deadline {
                return Err(self.error(format!("is not ready after {} s", READY_WITHIN.as_secs())));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// See that it still runs.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> Result<(), WireError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.error(format!("ended by itself ({status})"))),
            Err(source) => Err(WireError::Io { what: self.name.to_owned(), source }),
        }
    }

    fn error(&self, what: String) -> WireError {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        WireError::Process { name: self.name, what, tail }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Let it have its CPU, or take it away.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&mut self, paused: bool) -> Result<(), WireError> {
        self.check()?;
        self.signal(if paused { "-STOP" } else { "-CONT" })
    }

    /// Send a signal to this process alone, by its id, which is ours as long as it was not reaped.
    fn signal(&self, signal: &str) -> Result<(), WireError> {
        let what = || format!("kill {signal} {}", self.child.id());
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .map_err(WireError::io(what()))?;
        if status.success() {
            return Ok(());
        }
        Err(WireError::Io { what: what(), source: std::io::Error::other(status.to_string()) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + END_WITHIN;
        if self.check().is_ok() && self.signal("-CONT").is_ok() && self.signal("-TERM").is_ok() {
            while self.check().is_ok() && Instant::now() < deadline {
                sleep(Duration::from_millis(20));
            }
        }
        if self.check().is_ok() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, name: &'static str) -> (Process, PathBuf) {
        let directory = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let arguments = ["-c".to_owned(), script.to_owned()];
        let cpu = core_affinity::get_core_ids().unwrap()[0].id as u16;
        let shell = Path::new("/bin/sh");
        let process = Process::spawn(name, [cpu, cpu], shell, &arguments, &directory);
        (process.unwrap(), directory)
    }

    #[test]
    fn readiness_is_waited_for_and_an_end_is_told_with_its_words() {
        let stop = AtomicBool::new(false);
        let (mut process, directory) = sh("echo READY; exec sleep 100", "ready");
        process.wait_for("READY", &stop).unwrap();
        process.pause(true).unwrap();
        let ended = Instant::now();
        drop(process);
        assert!(ended.elapsed() < END_WITHIN, "a paused program ends too");
        fs::remove_dir_all(directory).unwrap();

        let (mut process, directory) = sh("echo no such thing; exit 3", "fails");
        let error = process.wait_for("READY", &stop).unwrap_err().to_string();
        assert!(error.starts_with("fails ended by itself (exit status: 3)"), "{error}");
        assert!(error.ends_with("no such thing"), "{error}");
        stop.store(true, Relaxed);
        let (mut process, _) = sh("exec sleep 100", "stopped");
        assert!(matches!(process.wait_for("READY", &stop), Err(WireError::Interrupted)));
        drop(process);
        for name in ["fails", "stopped"] {
            let path = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
            fs::remove_dir_all(path).unwrap();
        }
        drop(directory);
    }
}
