//! A file that results go to. It is opened before anything is measured, so that one that cannot be
//! written is told at once; until there is a result, what it holds stays.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that can be written.
#[derive(Debug)]
pub struct OutputFile {
    /// Its path.
    pub path: PathBuf,
    file: File,
    /// It was made here, and has no result yet: it goes with this value.
    empty: bool,
}

impl OutputFile {
    /// Open a file, or make it.
    ///
    /// # Errors
    /// The system's reason.
    pub fn open(path: &Path) -> io::Result<OutputFile> {
        let make = OpenOptions::new().write(true).create_new(true).open(path);
        let (file, empty) = match make {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (OpenOptions::new().write(true).open(path)?, false)
            }
            made => (made?, true),
        };
        Ok(OutputFile { path: path.to_owned(), file, empty })
    }

    /// Put a result in place of what it holds.
    ///
    /// # Errors
    /// The system's reason.
    pub fn write(mut self, result: &[u8]) -> io::Result<()> {
        // A pipe, or a terminal, holds nothing.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(result)?;
        self.empty = false;
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.empty {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_takes_the_place_of_an_older_one_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.json");
        fs::write(&path, "an older and longer result").unwrap();
        drop(OutputFile::open(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "an older and longer result");
        OutputFile::open(&path).unwrap().write(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_file_without_a_result_is_not_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.json");
        let output = OutputFile::open(&path).unwrap();
        assert!(path.exists());
        drop(output);
        assert!(!path.exists());
        OutputFile::open(Path::new("/dev/null")).unwrap().write(b"x").unwrap();
        assert!(Path::new("/dev/null").exists());
    }

    #[test]
    fn what_cannot_be_written_is_refused_when_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        assert!(OutputFile::open(&directory.path().join("no/such/r.json")).is_err());
        assert!(OutputFile::open(directory.path()).is_err());
    }
}
