//! The state file of versions before the database: one JSON document with a checksum. It is read once, and
//! left as it is, as a way back to such a version.
//!
//! ```json
//! {"sluice_state": 1, "checksum": "9c…", "content": { … }}
//! ```
//!
//! `checksum` is xxh3-128 over the very bytes of `content`. The copy before the last good write stood beside
//! it as `FILE.previous`, and for a moment as `FILE.previous-new`; it is read when the file itself is damaged
//! or missing.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::file::beside;
use super::{Content, StoreError};
use crate::model::State;
use crate::origin::FileRecord;

/// Version of the file's format.
const FORMAT: u64 = 1;

/// What a file of any format has.
#[derive(Deserialize)]
struct AnyFormat {
    sluice_state: u64,
}

#[derive(Deserialize)]
struct Outer<'a> {
    checksum: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Inner {
    state: State,
    file: FileRecord,
    generation: u64,
    #[serde(default)]
    unconfirmed: bool,
}

/// What the state file holds, or the copy of one that is damaged or missing; none when there is neither.
///
/// # Errors
/// [`StoreError`], as when there was a state file and it cannot be read: never an empty state.
pub(super) fn read(path: &Path) -> Result<Option<Content>, StoreError> {
    let mut wrong = None;
    for (suffix, is_copy) in [("", false), (".previous-new", true), (".previous", true)] {
        let file = beside(path, suffix);
        match fs::read(&file).map(|bytes| decode(&bytes)) {
            Ok(Ok(content)) => {
                let unconfirmed = content.unconfirmed || is_copy;
                return Ok(Some(Content { unconfirmed, ..content }));
            }
            Ok(Err(reason)) => {
                wrong.get_or_insert((file, reason));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(StoreError::Io { path: file, what: "read the state file", source });
            }
        }
    }
    match wrong {
        None => Ok(None),
        Some((path, reason)) => Err(StoreError::Former { path, reason }),
    }
}

fn decode(bytes: &[u8]) -> Result<Content, String> {
    match serde_json::from_slice(bytes) {
        Ok(AnyFormat { sluice_state: FORMAT }) => {}
        Ok(AnyFormat { sluice_state }) => return Err(format!("it has format {sluice_state}")),
        Err(e) => return Err(format!("it is no state file ({e})")),
    }
    let outer: Outer =
        serde_json::from_slice(bytes).map_err(|e| format!("it is no state file ({e})"))?;
    let sum = xxhash_rust::xxh3::xxh3_128(outer.content.get().as_bytes());
    if outer.checksum != format!("{sum:032x}") {
        return Err("its checksum does not match its content".to_owned());
    }
    let inner: Inner = serde_json::from_str(outer.content.get())
        .map_err(|e| format!("its content cannot be read ({e})"))?;
    let Inner { state, file, generation, unconfirmed } = inner;
    Ok(Content { state, file: Arc::new(file), generation, unconfirmed })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the version before this one wrote it.
    const WRITTEN: &str = include_str!("former.json");

    #[test]
    fn what_the_version_before_has_written_is_read_and_nothing_that_is_damaged() {
        let good = decode(WRITTEN.as_bytes()).unwrap();
        assert_eq!((good.state.version, good.generation, good.unconfirmed), (4, 0, true));
        assert_eq!(good.state.services[0].backends[1].weight, 51);
        assert_eq!(good.file.services[0].backends[1].weight, 50);
        for cut in 0..WRITTEN.trim_end().len() {
            assert!(decode(&WRITTEN.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, &WRITTEN[..40]).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("state.json") && error.contains("no state file"), "{error}");
        fs::write(beside(&path, ".previous"), WRITTEN).unwrap();
        assert!(read(&path).unwrap().unwrap().unconfirmed, "an older copy");
        fs::write(&path, WRITTEN).unwrap();
        assert_eq!(read(&path).unwrap(), Some(good));
    }
}
