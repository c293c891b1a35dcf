//! The state file: one JSON document that is replaced as a whole, so that a reader finds the old
//! state or the new one, whenever the process or the machine dies.
//!
//! ```json
//! {"sluice_state": 1, "checksum": "9c…", "content": { … }}
//! ```
//!
//! `checksum` is xxh3-128 over the very bytes of `content`: a torn, edited or foreign file is
//! recognised and never half believed. The copy before the last good write stays beside it as
//! `FILE.previous`; it is read, with a warning, when the file itself is damaged or missing. A file of
//! a newer format is no damage: whoever reads it must not go on. Two processes cannot share a file:
//! `FILE.lock` is locked while one runs, and only its owner can open it.
//!
//! A file that is a symbolic link stays one: where it leads is found out once, when it is opened, and
//! what stands beside it stands there.
//!
//! A write is five steps, and a crash between any two leaves a file and a copy that are whole:
//! write and sync `FILE.new`; link the file as `FILE.previous-new`; rename `FILE.new` to `FILE`, from
//! where on the change is made; rename `FILE.previous-new` to `FILE.previous`; sync the directory.

mod error;
mod file;
mod format;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sluice_api::clock::now_ms;

use file::{beside, directory, open_lock, resolved, write_synced};
use format::{Unreadable, decode, encode};

pub use error::StoreError;
pub use format::Content;

/// What was found at start.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No state file and no copy of one: this is the first start.
    Nothing,
    /// The state as it was written last.
    Good(Content),
    /// The file was damaged or missing; this is the copy before the last. `reason` tells what was
    /// wrong.
    Previous {
        /// The older state.
        content: Content,
        /// What is wrong with the newer file.
        reason: String,
    },
}

/// A state that any later start reads.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Saved {
    /// Why it might still be lost with the machine's power; absent when it cannot.
    pub doubt: Option<String>,
}

/// The state file, held by this process.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Locked as long as it lives.
    _lock: File,
}

impl Store {
    /// Take the file for this process; directories are made as needed, for our user only.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process holds it, [`StoreError::Exposed`] and
    /// [`StoreError::Foreign`] when others could, [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let path = &resolved(path)?;
        let failed = |what| move |source| StoreError::Io { path: path.to_owned(), what, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory(path))
            .map_err(failed("make its directory"))?;
        let lock = open_lock(&beside(path, ".lock")).map_err(failed("open its lock file"))?;
        let found = lock.metadata().map_err(failed("look at its lock file"))?;
        let us = rustix::process::geteuid().as_raw();
        if found.uid() != us {
            return Err(StoreError::Foreign { path: path.to_owned(), owner: found.uid(), us });
        }
        match lock.try_lock() {
            Ok(()) => Ok(Store { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock its lock file")(source)),
        }
    }

    /// Read the state. Nothing is written, but for a copy whose last step a crash has left undone.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when there was a state but no good copy is left: never an empty
    /// state. [`StoreError::Newer`] when it is not for this program.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let loaded = read(&self.path)?;
        if let Loaded::Good(content) = &loaded {
            self.finish_previous(content);
        }
        Ok(loaded)
    }

    /// Keep a damaged file for a post-mortem. Its copy is still there, should a crash follow.
    pub fn set_aside(&self) {
        let aside = beside(&self.path, &format!(".damaged-{}", now_ms()));
        if let Err(error) = fs::rename(&self.path, &aside)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("state file {}: cannot set it aside: {error}", self.path.display());
        }
    }

    /// Make a state durable: after this returns, any later start reads it or a newer one.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the file and its copy are as before then.
    pub fn save(&self, content: &Content) -> Result<Saved, StoreError> {
        let bytes = encode(content).map_err(|source| self.io("encode", source.into()))?;
        let successor = beside(&self.path, ".new");
        let copy = beside(&self.path, ".previous-new");
        let replaced = write_synced(&successor, &bytes)
            .map_err(|(what, source)| self.io(what, source))
            .and_then(|()| {
                let copied = self.link_copy(&copy);
                fs::rename(&successor, &self.path).map_err(|e| self.io("replace it", e))?;
                Ok(copied)
            });
        let copied = match replaced {
            Ok(copied) => copied,
            Err(error) => {
                // What is left of the attempt takes room on a disk that may be full.
                for left in [&successor, &copy] {
                    let _ = fs::remove_file(left);
                }
                return Err(error);
            }
        };
        // The new state is in place and will be read: from here on nothing may say that it is not.
        if let Err(error) = copied.and_then(|made| {
            if made { fs::rename(&copy, beside(&self.path, ".previous")) } else { Ok(()) }
        }) {
            tracing::warn!("state file {}: cannot keep its copy: {error}", self.path.display());
        }
        let synced = File::open(directory(&self.path)).and_then(|d| d.sync_all());
        Ok(Saved { doubt: synced.err().map(|e| self.io("sync its directory", e).to_string()) })
    }

    /// Let the current file be found under the copy's name too. Returns whether there is one.
    fn link_copy(&self, copy: &Path) -> io::Result<bool> {
        match fs::remove_file(copy) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        match fs::hard_link(&self.path, copy) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // A file system without links.
            Err(_) => fs::copy(&self.path, copy).map(|_| true),
        }
    }

    /// Do the step that a crash may have left undone: between the two renames, the copy has its first
    /// name only. A copy of the file itself is from a write that did not happen.
    fn finish_previous(&self, current: &Content) {
        let copy = beside(&self.path, ".previous-new");
        let Ok(bytes) = fs::read(&copy) else { return };
        let done = match decode(&bytes) {
            Ok(content) if content != *current => {
                fs::rename(&copy, beside(&self.path, ".previous"))
            }
            _ => fs::remove_file(&copy),
        };
        if let Err(error) = done {
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
    let path = &resolved(path)?;
    let failed = |source| StoreError::Io { path: path.to_owned(), what: "read it", source };
    let reason = match fs::read(path).map(|bytes| decode(&bytes)) {
        Ok(Ok(content)) => return Ok(Loaded::Good(content)),
        Ok(Err(Unreadable::Newer(format))) => {
            return Err(StoreError::Newer { path: path.to_owned(), format });
        }
        Ok(Err(Unreadable::Damaged(reason))) => Some(reason),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(failed(source)),
    };
    // The first of these names is there only after a crash, and is the newer one then.
    let mut bad = None;
    for copy in [".previous-new", ".previous"].map(|suffix| beside(path, suffix)) {
        match fs::read(&copy).map(|bytes| decode(&bytes)) {
            Ok(Ok(content)) => {
                let reason = reason.unwrap_or_else(|| "it is missing".to_owned());
                return Ok(Loaded::Previous { content, reason });
            }
            Ok(Err(Unreadable::Newer(format))) => {
                return Err(StoreError::Newer { path: copy, format });
            }
            Ok(Err(Unreadable::Damaged(reason))) => bad = Some(reason),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => bad = Some(e.to_string()),
        }
    }
    match (reason, bad) {
        (None, None) => Ok(Loaded::Nothing),
        (reason, bad) => Err(StoreError::Damaged {
            path: path.to_owned(),
            reason: reason.unwrap_or_else(|| "it is missing".to_owned()),
            previous: bad.unwrap_or_else(|| "there is none".to_owned()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;
    use crate::origin::FileRecord;
    use sluice_api::Pool;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn content(version: u64) -> Content {
        let pools = vec![Pool::new("p", vec![[10, 0, 0, 1].into()])];
        Content {
            state: State { version, pools: pools.into(), ..State::default() },
            file: FileRecord::default(),
            generation: 3,
            unconfirmed: false,
        }
    }

    fn saved(store: &Store, version: u64) {
        assert_eq!(store.save(&content(version)).unwrap(), Saved { doubt: None });
    }

    fn previous(path: &Path) -> Content {
        decode(&fs::read(beside(path, ".previous")).unwrap()).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/state.json");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Nothing);
        for version in 1..=3 {
            saved(&store, version);
            assert_eq!(store.load().unwrap(), Loaded::Good(content(version)));
        }
        assert_eq!(previous(&path), content(2));
        assert_eq!(
            names(path.parent().unwrap()),
            ["state.json", "state.json.lock", "state.json.previous"]
        );
        assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
        drop(store);
        assert_eq!(Store::open(&path).unwrap().load().unwrap(), Loaded::Good(content(3)));
    }

    /// Of a link, and of one whose target is yet to be made; by a link to its directory, too.
    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [there, here] = ["there", "here"].map(|name| directory.path().join(name));
        fs::create_dir(&there).unwrap();
        fs::create_dir(&here).unwrap();
        let (file, link) = (there.join("real.json"), here.join("state.json"));
        std::os::unix::fs::symlink("../there/real.json", &link).unwrap();
        std::os::unix::fs::symlink("there", directory.path().join("door")).unwrap();
        for version in 1..=2 {
            let store = Store::open(&link).unwrap();
            saved(&store, version);
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("../there/real.json"));
            assert_eq!(read(&link).unwrap(), Loaded::Good(content(version)));
            assert_eq!(read(&file).unwrap(), Loaded::Good(content(version)));
            for other in [&file, &directory.path().join("door/real.json")] {
                assert!(matches!(Store::open(other), Err(StoreError::Locked { .. })));
            }
        }
        assert_eq!(names(&there), ["real.json", "real.json.lock", "real.json.previous"]);
        assert_eq!(previous(&file), content(1));
        assert_eq!(names(&here), ["state.json"]);

        fs::set_permissions(&here, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(read(&link), Err(StoreError::Exposed { .. })), "others may lead it away");
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

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let store = Store::open(&path).unwrap();
        saved(&store, 1);
        fs::write(&path, &good[..20]).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("no good copy beside it (there is none)"), "{error}");

        saved(&store, 1);
        saved(&store, 2);
        fs::write(&path, &good[..20]).unwrap();
        let Loaded::Previous { content: found, .. } = store.load().unwrap() else {
            panic!("not the previous copy");
        };
        assert_eq!(found, content(1));
        assert_eq!(fs::read(&path).unwrap(), &good[..20], "reading changes nothing");
        store.set_aside();
        saved(&store, 1);
        assert_eq!(store.load().unwrap(), Loaded::Good(content(1)));
        assert!(names(directory.path()).iter().any(|n| n.starts_with("state.json.damaged-")));
    }

    /// A missing file is no first start while its copy is there.
    #[test]
    fn the_copy_is_taken_when_the_file_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let store = Store::open(&path).unwrap();
        saved(&store, 1);
        saved(&store, 2);
        fs::remove_file(&path).unwrap();
        let expected = Loaded::Previous { content: content(1), reason: "it is missing".to_owned() };
        assert_eq!(store.load().unwrap(), expected);
        assert_eq!(store.load().unwrap(), expected, "also the second time");
        fs::write(beside(&path, ".previous"), "torn").unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("it is missing, and there is no good copy"), "{error}");
        assert!(error.contains("state.json.previous to start from the TOML file"), "{error}");
        fs::remove_file(beside(&path, ".previous")).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Nothing);
    }

    /// It is neither damage nor passed over for an older copy.
    #[test]
    fn a_newer_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let store = Store::open(&path).unwrap();
        saved(&store, 1);
        saved(&store, 2);
        let newer = br#"{"sluice_state":9,"unknown":{"a":1}}"#;
        let refused = |what: &str| {
            let error = store.load().unwrap_err();
            assert!(matches!(error, StoreError::Newer { format: 9, .. }), "{what}: {error}");
            let error = error.to_string();
            assert!(error.contains("format 9, this program reads format 1"), "{what}: {error}");
        };
        fs::write(&path, newer).unwrap();
        refused("the file");
        assert_eq!(fs::read(&path).unwrap(), newer);
        assert_eq!(previous(&path), content(1));
        fs::write(beside(&path, ".previous"), newer).unwrap();
        fs::write(&path, "torn").unwrap();
        refused("a copy that would be read");
        fs::remove_file(&path).unwrap();
        refused("a copy of a missing file");
        // A good backup was put in the place of a newer file: the copy is not needed.
        fs::write(&path, encode(&content(5)).unwrap()).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Good(content(5)));
    }

    /// Whatever refuses a write, the file and the copy before the last good write stay.
    #[test]
    fn a_refused_write_leaves_file_and_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let store = Store::open(&path).unwrap();
        let as_before = |what: &str, expected: &str| {
            let error = store.save(&content(3)).unwrap_err().to_string();
            assert!(error.contains(expected), "{what}: {error}");
        };
        saved(&store, 1);
        saved(&store, 2);

        // Nothing can be written, not even by root.
        fs::create_dir(beside(&path, ".new")).unwrap();
        as_before("no successor", "cannot create its successor");
        fs::remove_dir(beside(&path, ".new")).unwrap();
        assert_eq!(previous(&path), content(1));
        assert_eq!(store.load().unwrap(), Loaded::Good(content(2)));

        // A full disk: the write itself fails.
        std::os::unix::fs::symlink("/dev/full", beside(&path, ".new")).unwrap();
        as_before("full disk", "cannot write its successor: No space left on device");
        assert_eq!(previous(&path), content(1));
        assert_eq!(store.load().unwrap(), Loaded::Good(content(2)));
        assert!(!beside(&path, ".new").exists(), "nothing is left of the attempt");

        // The rename fails: a directory stands in the file's place.
        let kept = directory.path().join("kept");
        fs::rename(&path, &kept).unwrap();
        fs::create_dir(&path).unwrap();
        as_before("rename", "cannot replace it");
        fs::remove_dir(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
        assert_eq!(previous(&path), content(1));
        assert_eq!(
            names(directory.path()),
            ["state.json", "state.json.lock", "state.json.previous"]
        );

        saved(&store, 3);
        assert_eq!(previous(&path), content(2), "the copy before the last good write");

        // The directory is gone: refused, and not made anew, as its lock is gone with it.
        fs::remove_dir_all(directory.path()).unwrap();
        as_before("directory", "cannot create its successor: No such file or directory");
    }

    /// As SIGKILL or the power leaves it between any two steps of a write of version 3.
    #[test]
    fn a_crash_between_two_steps_leaves_whole_files() {
        let bytes = |version| encode(&content(version)).unwrap();
        let (new, copy) = (".new", ".previous-new");
        let torn = bytes(3)[..30].to_vec();
        let cases = [
            ("writing the successor", bytes(2), vec![(new, torn)], 2, 1),
            ("successor written", bytes(2), vec![(new, bytes(3))], 2, 1),
            ("copy linked", bytes(2), vec![(new, bytes(3)), (copy, bytes(2))], 2, 1),
            ("renamed", bytes(3), vec![(copy, bytes(2))], 3, 2),
            ("copy torn", bytes(3), vec![(copy, bytes(2)[..9].to_vec())], 3, 1),
        ];
        for (what, file, left, version, before) in cases {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state.json");
            fs::write(&path, file).unwrap();
            fs::write(beside(&path, ".previous"), bytes(1)).unwrap();
            for (suffix, bytes) in left {
                fs::write(beside(&path, suffix), bytes).unwrap();
            }
            let store = Store::open(&path).unwrap();
            assert_eq!(store.load().unwrap(), Loaded::Good(content(version)), "{what}");
            assert_eq!(previous(&path), content(before), "{what}");
            saved(&store, 9);
            assert_eq!(previous(&path), content(version), "{what}");
            assert_eq!(
                names(directory.path()),
                ["state.json", "state.json.lock", "state.json.previous"],
                "{what}"
            );
        }
    }

    /// Who can open the lock file can hold it; who can write in the directory can replace it.
    #[test]
    fn nobody_else_can_hold_the_lock() {
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/state.json");
        drop(Store::open(&path).unwrap());
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let lock = beside(&path, ".lock");
        assert_eq!(mode(&lock), 0o600);
        fs::set_permissions(&lock, Permissions::from_mode(0o644)).unwrap();
        drop(Store::open(&path).unwrap());
        assert_eq!(mode(&lock), 0o600, "one that a former version has made");

        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&lock, Some(65_534), None).unwrap();
            let error = Store::open(&path).unwrap_err().to_string();
            assert!(error.contains("lock file belongs to user 65534"), "{error}");
            fs::remove_file(&lock).unwrap();
        }
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o1777)).unwrap();
        for error in [Store::open(&path).unwrap_err(), read(&path).unwrap_err()] {
            assert!(error.to_string().contains("every user may write in"), "{error}");
        }
    }
}
