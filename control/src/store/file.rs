//! Where the file and what stands beside it are, and who else may write there.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Most links that lead from one to the next, as in Linux.
const MOST_LINKS: usize = 40;

/// The lock file, which nobody else may open: who can open a file can lock it.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = match options.open(path) {
        // Forwarding and reading go on with a file system that has become read-only.
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => return File::open(path),
        opened => opened?,
    };
    if lock.metadata()?.mode() & 0o077 != 0 {
        // Made by a former version; not ours to change when it is another user's.
        let _ = lock.set_permissions(Permissions::from_mode(0o600));
    }
    Ok(lock)
}

/// Where everybody may write, everybody can put files in the place of ours.
fn check_directory(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(directory(path)) {
        Ok(found) if found.mode() & 0o002 != 0 => {
            Err(StoreError::Exposed { path: path.to_owned() })
        }
        // What is missing is made, or reported where it is used.
        _ => Ok(()),
    }
}

/// Where a path leads: the file itself, also one that is yet to be made, in a directory whose path has
/// no links if it is there.
///
/// # Errors
/// [`StoreError::Exposed`] when others may lead it elsewhere, or write where it leads.
pub(super) fn resolved(path: &Path) -> Result<PathBuf, StoreError> {
    let mut path = path.to_owned();
    check_directory(&path)?;
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = directory(&path).join(target);
        check_directory(&path)?;
    }
    match (fs::canonicalize(directory(&path)), path.file_name()) {
        (Ok(directory), Some(name)) => Ok(directory.join(name)),
        _ => Ok(path),
    }
}

pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}
