//! The state file: one JSON document that is replaced as a whole, so that a reader finds the old
//! state or the new one, whenever the process or the machine dies.
//!
//! ```json
//! {"sluice_state": 1, "checksum": "9c…", "content": { … }}
//! ```
//!
//! `checksum` is xxh3-128 over the very bytes of `content`: a torn, edited or foreign file is
//! recognised and never half believed. The copy before the last stays beside it as `FILE.previous`;
//! it is read, with a warning, when the file itself is damaged. Two processes cannot share a file:
//! `FILE.lock` is locked while one runs.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::now_ms;
use crate::model::State;
use crate::origin::FileRecord;

/// Version of the file's format.
const FORMAT: u32 = 1;

/// What the state file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The desired state.
    pub state: State,
    /// What the TOML file said when this was written.
    pub file: FileRecord,
    /// Generation of the last snapshot published when this was written.
    pub generation: u64,
}

#[derive(Serialize)]
struct Outer<'a> {
    sluice_state: u32,
    checksum: String,
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct OuterRead<'a> {
    sluice_state: u32,
    checksum: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("state file {}: cannot {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "state file {}: another sluice-control uses it: stop that one, or give this one another \
         control.state_file",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged, and so is the copy before it, or there is none.
    #[error(
        "state file {}: {reason}, and there is no good copy beside it ({previous}): put a backup \
         in its place, or remove it to start from the TOML file",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What is wrong with the copy.
        previous: String,
    },
}

/// What was found at start.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No state file: this is the first start.
    Nothing,
    /// The state as it was written last.
    Good(Content),
    /// The file was damaged; this is the copy before the last. `reason` tells what was wrong.
    Previous {
        /// The older state.
        content: Content,
        /// What is wrong with the newer file.
        reason: String,
    },
}

/// The state file, held by this process.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Locked as long as it lives.
    _lock: File,
}

impl Store {
    /// Take the file for this process; directories are made as needed.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process holds it, [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let failed = |what| move |source| StoreError::Io { path: path.to_owned(), what, source };
        fs::create_dir_all(directory(path)).map_err(failed("make its directory"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, ".lock"))
            .map_err(failed("open its lock file"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Store { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock its lock file")(source)),
        }
    }

    /// Read the state. A damaged file whose copy is good is set aside for a post-mortem, and the
    /// copy takes its place.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when there is a file but no good copy: never an empty state.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let loaded = read(&self.path)?;
        match &loaded {
            Loaded::Previous { content, .. } => {
                let aside = beside(&self.path, &format!(".damaged-{}", now_ms()));
                fs::copy(&self.path, aside).map_err(|e| self.io("set a copy aside", e))?;
                self.replace(content)?;
            }
            Loaded::Nothing if beside(&self.path, ".previous").exists() => tracing::warn!(
                "state file {}: it is missing, though there is an older copy of it; starting from \
                 the TOML file",
                self.path.display()
            ),
            Loaded::Nothing | Loaded::Good(_) => {}
        }
        Ok(loaded)
    }

    /// Make a state durable: after this returns, any later start reads it or a newer one.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the file is as before then.
    pub fn save(&self, content: &Content) -> Result<(), StoreError> {
        self.keep_previous();
        self.replace(content)
    }

    fn replace(&self, content: &Content) -> Result<(), StoreError> {
        let bytes = encode(content).map_err(|source| self.io("encode", source.into()))?;
        let temporary = beside(&self.path, ".new");
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o640)
            .open(&temporary)
            .map_err(|source| self.io("create its successor", source))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(|source| self.io("write its successor", source))?;
        fs::rename(&temporary, &self.path).map_err(|source| self.io("replace it", source))?;
        // The new state is in place and will be read: from here on nothing may say that it is not.
        if let Err(error) = File::open(directory(&self.path)).and_then(|d| d.sync_all()) {
            tracing::error!(
                "state file {}: cannot sync its directory: {error}",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Let the current file be the previous one too. Without it only the fallback is older.
    fn keep_previous(&self) {
        let link = beside(&self.path, ".previous-new");
        let kept = fs::remove_file(&link)
            .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .and_then(|()| fs::hard_link(&self.path, &link))
            .and_then(|()| fs::rename(&link, beside(&self.path, ".previous")));
        if let Err(error) = kept
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("state file {}: cannot keep its copy: {error}", self.path.display());
        }
    }

    fn io(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), what, source }
    }
}

/// Read a state file without taking or changing anything.
///
/// # Errors
/// As [`Store::load`].
pub fn read(path: &Path) -> Result<Loaded, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
        Err(source) => {
            return Err(StoreError::Io { path: path.to_owned(), what: "read it", source });
        }
    };
    let reason = match decode(&bytes) {
        Ok(content) => return Ok(Loaded::Good(content)),
        Err(reason) => reason,
    };
    let previous = fs::read(beside(path, ".previous")).map_err(|e| e.to_string());
    match previous.and_then(|bytes| decode(&bytes)) {
        Ok(content) => Ok(Loaded::Previous { content, reason }),
        Err(previous) => Err(StoreError::Damaged { path: path.to_owned(), reason, previous }),
    }
}

fn encode(content: &Content) -> Result<Vec<u8>, serde_json::Error> {
    let content = serde_json::value::to_raw_value(content)?;
    let outer = Outer { sluice_state: FORMAT, checksum: checksum(&content), content: &content };
    let mut bytes = serde_json::to_vec(&outer)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Content, String> {
    let outer: OuterRead =
        serde_json::from_slice(bytes).map_err(|e| format!("it is no state file ({e})"))?;
    if outer.sluice_state != FORMAT {
        return Err(format!(
            "it has format {}, this program reads format {FORMAT}",
            outer.sluice_state
        ));
    }
    if outer.checksum != checksum(outer.content) {
        return Err("its checksum does not match its content".to_owned());
    }
    serde_json::from_str(outer.content.get())
        .map_err(|e| format!("its content cannot be read ({e})"))
}

fn checksum(content: &RawValue) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(content.get().as_bytes()))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_api::Pool;

    fn content(version: u64) -> Content {
        let pools = vec![Pool::new("p", vec![[10, 0, 0, 1].into()])];
        Content {
            state: State { version, services: vec![], pools },
            file: FileRecord::default(),
            generation: 3,
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/state.json");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Nothing);
        for version in 1..=3 {
            store.save(&content(version)).unwrap();
            assert_eq!(store.load().unwrap(), Loaded::Good(content(version)));
        }
        assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
        drop(store);
        assert_eq!(Store::open(&path).unwrap().load().unwrap(), Loaded::Good(content(3)));
    }

    /// Every truncation and every flipped byte is noticed, and the copy before is taken.
    #[test]
    fn a_damaged_file_is_never_read() {
        let good = encode(&content(2)).unwrap();
        for cut in 0..good.len() - 1 {
            assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        for index in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[index] ^= 1;
            if let Ok(read) = decode(&bad) {
                assert_eq!(read, content(2), "flip at {index}");
            }
        }
        assert!(
            decode(b"{\"sluice_state\":9,\"checksum\":\"\",\"content\":{}}")
                .unwrap_err()
                .contains("format 9")
        );

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let store = Store::open(&path).unwrap();
        store.save(&content(1)).unwrap();
        fs::write(&path, &good[..20]).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("no good copy"), "{error}");

        store.save(&content(1)).unwrap();
        store.save(&content(2)).unwrap();
        fs::write(&path, &good[..20]).unwrap();
        let Loaded::Previous { content: found, .. } = store.load().unwrap() else {
            panic!("not the previous copy");
        };
        assert_eq!(found, content(1));
        assert_eq!(store.load().unwrap(), Loaded::Good(content(1)));
    }
}
