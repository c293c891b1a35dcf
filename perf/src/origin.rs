//! Where figures come from: hardware, compiler, commit and command, and where they are kept.
//!
//! Nothing that names a machine or a directory is recorded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::output::OutputFile;

/// What a figure depends on beside the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The processor's name for itself.
    pub hardware: String,
    /// The kernel's version, without what its builder put behind it.
    pub kernel: String,
    /// The compiler that this program was built with.
    pub rustc: &'static str,
    /// The flags given to it, e.g. the target CPU.
    pub rustflags: &'static str,
    /// The commit checked out here, with `-dirty` when files differ; `unknown` outside of a
    /// repository.
    pub commit: String,
    /// The command, without the directory of the program.
    pub command: String,
}

/// Why results could not be kept.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum RecordError {
    #[error("cannot write {path}: {error}: expected a directory that can be written to")]
    Write { path: PathBuf, error: io::Error },
}

impl Origin {
    /// The origin of what is measured now.
    pub fn of_this_run() -> Self {
        Origin {
            hardware: hardware(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map(|s| s.trim().split('-').next().unwrap_or_default().to_owned())
                .unwrap_or_default(),
            rustc: env!("SLUICE_RUSTC"),
            rustflags: env!("SLUICE_RUSTFLAGS"),
            commit: commit(),
            command: command(),
        }
    }
}

fn hardware() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let of = |name| field(name).unwrap_or_else(|| "unknown".to_owned());
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let (name, family, model) = (of("model name"), of("cpu family"), of("model"));
    format!("{name} (family {family}, model {model}), {cpus} CPUs")
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // Results that were recorded a moment ago make no other program.
    let others = [":(top)", ":(top,exclude)perf/results"];
    let status = [&["status", "--porcelain", "--untracked-files=no", "--"][..], &others].concat();
    match git(&status) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}-dirty"),
    }
}

/// The command with directories left out of program and of arguments that are absolute paths.
fn command() -> String {
    let words = std::env::args().map(|word| match Path::new(&word) {
        path if path.is_absolute() || word.starts_with("..") => {
            path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        _ => word,
    });
    let mut words: Vec<String> = words.collect();
    if let Some(program) = words.first_mut() {
        "sluice-perf".clone_into(program);
    }
    words.join(" ")
}

/// A file that a report will be kept in.
#[derive(Debug)]
pub struct Record(OutputFile);

impl Record {
    /// Open it, before anything is measured, in a directory that is made if need be.
    ///
    /// # Errors
    /// Names the path and the system's reason.
    pub fn open(dir: &Path, file: &str) -> Result<Record, RecordError> {
        let path = dir.join(file);
        fs::create_dir_all(dir)
            .and_then(|()| OutputFile::open(&path))
            .map(Record)
            .map_err(|error| RecordError::Write { path, error })
    }

    /// Keep a report in it, as JSON.
    ///
    /// # Errors
    /// Names the path and the system's reason.
    pub fn keep(self, report: &impl Serialize) -> Result<(), RecordError> {
        let path = self.0.path.clone();
        let write = || -> io::Result<()> {
            let mut bytes = serde_json::to_vec_pretty(report)?;
            bytes.push(b'\n');
            self.0.write(&bytes)
        };
        write().map_err(|error| RecordError::Write { path, error })
    }
}
