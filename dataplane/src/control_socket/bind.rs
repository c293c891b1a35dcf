//! The control socket's file: made where it may be, replaced when it is stale, removed at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::SocketError;

/// How long a process may take to be gone that listens there: one that was killed still does while the
/// kernel frees its memory.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The file of a socket that is ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own socket in this place.
    id: (u64, u64),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remove it, if it is still ours.
    pub(super) fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

/// A listening, non-blocking socket and its file.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let error = |source| SocketError::Bind { path: path.to_owned(), source };
    make_directory(path)?;
    let deadline = Instant::now() + GONE_WITHIN;
    let listener = loop {
        match listen(path) {
            Err(SocketError::InUse { .. }) if Instant::now() < deadline => sleep(LOOK_EVERY),
            result => break result?,
        }
    };
    let metadata = fs::symlink_metadata(path).map_err(error)?;
    let file = SocketFile { path: path.to_owned(), id: (metadata.dev(), metadata.ino()) };
    let prepared = fs::set_permissions(path, Permissions::from_mode(0o660))
        .and_then(|()| listener.set_nonblocking(true));
    match prepared {
        Ok(()) => Ok((listener, file)),
        Err(e) => {
            file.remove();
            Err(error(e))
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    make_way(path)?;
    match UnixListener::bind(path) {
        Ok(listener) => Ok(listener),
        // Somebody was faster.
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(in_use(path)),
        Err(source) => Err(SocketError::Bind { path: path.to_owned(), source }),
    }
}

fn make_directory(path: &Path) -> Result<(), SocketError> {
    let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|source| SocketError::Directory { path: directory.to_owned(), source })
}

/// Remove a socket file on which nobody listens; an error when somebody does.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let error = |source| SocketError::Bind { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(error(e)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Only a socket without a process behind it refuses.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error(e)),
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(in_use(path)),
    }
}

fn in_use(path: &Path) -> SocketError {
    SocketError::InUse { path: path.to_owned(), pid: listener_pid(path) }
}

/// Who listens on a socket (SO_PEERCRED), which only an async stream tells on stable Rust.
fn listener_pid(path: &Path) -> Option<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().ok()?;
    let stream = UnixStream::connect(path).ok()?;
    stream.set_nonblocking(true).ok()?;
    let _context = runtime.enter();
    tokio::net::UnixStream::from_std(stream).ok()?.peer_cred().ok()?.pid()
}
