//! The host as its files tell it: `/proc`, `/sys`, `/dev` and `/lib/modules` below a root directory,
//! which is `/`, or a made-up tree in tests.

use std::fs;
use std::path::PathBuf;

/// A host, or a tree that looks like one.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose root directory this is.
    pub fn new(root: impl Into<PathBuf>) -> Host {
        Host { root: root.into() }
    }

    /// The path of a file of the host, given as `proc/meminfo`.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below.trim_start_matches('/'))
    }

    /// A file's text without its last newline; none when it is not there or not readable.
    pub fn read(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.path(below)).ok().map(|text| text.trim_end().to_owned())
    }

    /// A number that stands alone in a file.
    pub fn number(&self, below: &str) -> Option<i64> {
        self.read(below)?.trim().parse().ok()
    }

    /// Whether there is such a file or directory.
    pub fn has(&self, below: &str) -> bool {
        self.path(below).exists()
    }

    /// Names in a directory, in order; none when it is not there or not readable.
    pub fn names(&self, below: &str) -> Option<Vec<String>> {
        let entries = fs::read_dir(self.path(below)).ok()?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Some(names)
    }

    /// The last part of where a symbolic link points: a device's driver, as `vfio-pci`.
    pub fn link(&self, below: &str) -> Option<String> {
        let target = fs::read_link(self.path(below)).ok()?;
        target.file_name().and_then(|name| name.to_str()).map(str::to_owned)
    }

    /// CPUs in a list as the kernel writes it: `0-3,8`. Empty for an empty file.
    pub fn cpus(&self, below: &str) -> Option<Vec<u16>> {
        cpu_list(&self.read(below)?)
    }
}

/// CPUs of a list as the kernel writes it, in order.
pub fn cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?);
    }
    Some(cpus)
}

/// Numbers as they are written in a kernel's parameter: `2,3,8`.
pub fn commas(numbers: &[u16]) -> String {
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A made-up host: files with their text; `a -> b` is a symbolic link, a path that ends in `/`
    /// an empty directory.
    pub fn made_up(files: &[(&str, &str)]) -> (Host, TempDir) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let full = root.path().join(path);
            if path.ends_with('/') {
                fs::create_dir_all(full).unwrap();
                continue;
            }
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, full).unwrap(),
                None => fs::write(full, text).unwrap(),
            }
        }
        (Host::new(root.path()), root)
    }

    #[test]
    fn files_links_and_lists_are_read() {
        let (host, _root) = made_up(&[
            ("sys/devices/system/cpu/online", "0-2,5\n"),
            ("sys/devices/system/cpu/isolated", "\n"),
            ("sys/x/driver", "-> ../../drivers/vfio-pci"),
            ("sys/x/numa_node", "-1\n"),
        ]);
        assert_eq!(host.cpus("sys/devices/system/cpu/online"), Some(vec![0, 1, 2, 5]));
        assert_eq!(host.cpus("sys/devices/system/cpu/isolated"), Some(vec![]));
        assert_eq!(host.cpus("sys/devices/system/cpu/present"), None);
        assert_eq!(host.link("sys/x/driver").as_deref(), Some("vfio-pci"));
        assert_eq!(host.number("sys/x/numa_node"), Some(-1));
        assert_eq!(host.names("sys/x").unwrap(), ["driver", "numa_node"]);
        assert_eq!(host.names("sys/y"), None);
        assert_eq!(cpu_list("a-b"), None);
        assert_eq!(commas(&[2, 3, 8]), "2,3,8");
    }
}
