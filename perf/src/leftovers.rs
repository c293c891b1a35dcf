//! What DPDK leaves behind of a process: files in hugepages and a directory for its own.

use std::fs;
use std::path::{Path, PathBuf};

/// Removes, when it is dropped, what processes with this beginning of their file prefix have left.
pub struct Leftovers {
    prefix: String,
}

impl Leftovers {
    /// Of file prefixes that begin so, all of which are ours.
    pub fn of(prefix: impl Into<String>) -> Self {
        Leftovers { prefix: prefix.into() }
    }
}

/// Where a hugetlbfs is mounted, if anywhere.
pub fn hugetlbfs() -> Option<PathBuf> {
    mount_point(&fs::read_to_string("/proc/mounts").unwrap_or_default())
}

/// The same, by the text of `/proc/mounts`.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find(|fields| fields.get(2) == Some(&"hugetlbfs")).map(|fields| fields[1].into())
}

/// What is in a directory whose name begins with `prefix`.
fn entries(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if let Some(directory) = hugetlbfs() {
            for file in entries(&directory, &self.prefix) {
                let _ = fs::remove_file(file);
            }
        }
        let variables = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].map(std::env::var_os);
        let places = variables.into_iter().flatten().map(PathBuf::from);
        for place in places.chain(["/var/run", "/tmp"].map(PathBuf::from)) {
            for directory in entries(&place.join("dpdk"), &self.prefix) {
                let _ = fs::remove_dir_all(directory);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let mounts = "proc /proc proc rw 0 0\nnodev /mnt/huge hugetlbfs rw,pagesize=2M 0 0\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/mnt/huge")));
        assert_eq!(mount_point("hugetlbfs /x tmpfs rw 0 0\nshort\n"), None);
    }

    #[test]
    fn only_our_files_are_ours() {
        let directory = std::env::temp_dir().join(format!("sluice-left-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for name in ["ours-1map_0", "ours-2map_0", "theirs-ours-1"] {
            fs::write(directory.join(name), "").unwrap();
        }
        assert_eq!(entries(&directory, "ours-").len(), 2);
        assert!(entries(Path::new("/nowhere"), "ours").is_empty());
        fs::remove_dir_all(&directory).unwrap();
    }
}
