//! Where a lab stands: its namespaces, its run directory, its lock, and how all of it goes away.
//!
//! Every process of a lab runs inside one of its namespaces and every file lies in its run
//! directory, so the names alone are enough to remove a lab: also one whose maker was killed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::command::run;
use super::error::{LabError, Result};

/// Where labs keep their files.
const RUN_DIR: &str = "/run/sluice-lab";

/// The lab to remove when the process is told to stop or panics.
static ACTIVE: Mutex<Option<Site>> = Mutex::new(None);

/// Held shared by whatever makes namespaces and processes; taken for good by [`abandon`], so that
/// nothing new appears behind its back.
static MAKING: RwLock<()> = RwLock::new(());

/// Whether [`abandon`] was called.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// The names that a lab uses.
#[derive(Clone, Debug)]
pub struct Site {
    prefix: String,
}

impl Site {
    /// The site of a prefix. Prefixes tell labs apart, as `sluice` and `sluice-tap`.
    pub fn new(prefix: &str) -> Self {
        Site { prefix: prefix.to_owned() }
    }

    /// The name of a namespace of this lab.
    pub fn netns(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    /// The names of the namespaces that every lab has.
    pub fn base_netns(&self) -> Vec<String> {
        ["client", "lb", "net", "b1", "b2", "b3"].iter().map(|role| self.netns(role)).collect()
    }

    /// The names of all namespaces that this lab may have: also those behind a router.
    pub fn all_netns(&self) -> Vec<String> {
        let further = ["router", "far"].map(|role| self.netns(role));
        self.base_netns().into_iter().chain(further).collect()
    }

    /// The directory of all files of this lab.
    pub fn run_dir(&self) -> PathBuf {
        Path::new(RUN_DIR).join(&self.prefix)
    }

    /// A file of this lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.run_dir().join(name)
    }

    /// Take the machine for a lab: wait up to `patience` for another lab to end, remove what an
    /// earlier one left behind, make the run directory. The lab ends with the claim.
    pub fn claim(self, patience: Duration) -> Result<Claim> {
        fs::create_dir_all(RUN_DIR).map_err(LabError::io(RUN_DIR))?;
        let lock = lock(patience)?;
        self.remove()?;
        fs::create_dir_all(self.run_dir()).map_err(LabError::io("run directory"))?;
        *ACTIVE.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clone());
        Ok(Claim { site: self, keep: false, _lock: lock })
    }

    /// End all processes of this lab and remove its namespaces and files. What is not there is
    /// no error.
    pub fn remove(&self) -> Result<()> {
        let present = self.present_netns()?;
        signal_all(&present, "-TERM")?;
        let deadline = Instant::now() + Duration::from_secs(3);
        while !pids_in(&present)?.is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        signal_all(&present, "-KILL")?;
        for netns in &present {
            run(&["ip", "netns", "del", netns])?;
        }
        match fs::remove_dir_all(self.run_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LabError::Io { what: "run directory".into(), error })
            }
            _ => Ok(()),
        }
    }

    /// Whether any of this lab's namespaces is there.
    pub fn is_present(&self) -> Result<bool> {
        Ok(!self.present_netns()?.is_empty())
    }

    fn present_netns(&self) -> Result<Vec<String>> {
        let list = run(&["ip", "netns", "list"])?;
        let known: Vec<&str> =
            list.lines().filter_map(|line| line.split_whitespace().next()).collect();
        Ok(self.all_netns().into_iter().filter(|name| known.contains(&name.as_str())).collect())
    }
}

/// The right to run a lab on this machine. Dropping it removes the lab, unless it is kept.
#[derive(Debug)]
pub struct Claim {
    site: Site,
    keep: bool,
    _lock: File,
}

impl Claim {
    /// The lab's names.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Leave the lab running when the claim ends.
    pub fn keep(&mut self) {
        self.keep = true;
        *ACTIVE.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // Whoever abandoned the lab removes it; the process must not end before that.
        wait_if_abandoned();
        *ACTIVE.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(error) = self.site.remove() {
            eprintln!("lab: cannot clean up: {error}");
        }
    }
}

/// Remove the lab of this process at once, from a signal or a panic. Whoever is about to make
/// something new in it, or to [tell](wait_if_abandoned) about it, waits for ever: the process must
/// end now.
pub fn abandon() {
    ABANDONED.store(true, Ordering::Relaxed);
    // A thread that panicked while making something may hold the lock for ever: do not wait long.
    for _ in 0..100 {
        if let Ok(making) = MAKING.try_write() {
            // Leaked on purpose: the process ends.
            std::mem::forget(making);
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let site = ACTIVE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(site) = site
        && let Err(error) = site.remove()
    {
        eprintln!("lab: cannot clean up: {error}");
    }
}

/// Does not return once the lab was [abandoned](abandon): what is seen of it then is only its end.
pub fn wait_if_abandoned() {
    while ABANDONED.load(Ordering::Relaxed) {
        thread::park();
    }
}

/// Permission to make a namespace or a process.
pub(super) fn making() -> RwLockReadGuard<'static, ()> {
    MAKING.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock(patience: Duration) -> Result<File> {
    let path = Path::new(RUN_DIR).join("lock");
    let what = || path.display().to_string();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(LabError::io(what()))?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(LabError::Io { what: what(), error }),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                return Err(LabError::Busy { owner: owner.trim().to_owned() });
            }
        }
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(LabError::io(what()))?;
    writeln!(file, "{}", std::process::id()).map_err(LabError::io(what()))?;
    Ok(file)
}

fn pids_in(netns: &[String]) -> Result<Vec<String>> {
    let own = std::process::id().to_string();
    let mut pids = Vec::new();
    for name in netns {
        pids.extend(run(&["ip", "netns", "pids", name])?.split_whitespace().map(str::to_owned));
    }
    pids.retain(|pid| *pid != own);
    Ok(pids)
}

fn signal_all(netns: &[String], signal: &str) -> Result<()> {
    for pid in pids_in(netns)? {
        // It may have ended by itself meanwhile.
        let _ = run(&["kill", signal, &pid]);
    }
    Ok(())
}
