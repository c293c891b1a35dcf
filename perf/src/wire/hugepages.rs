//! Hugepages for the run, made when there are too few, and given back after it.

use std::fs;
use std::process::Command;

use super::WireError;
use crate::leftovers::{self, Leftovers};

const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";
const MOUNT_POINT: &str = "/dev/hugepages";

/// Hugepages are there as long as this lives. Dropping it removes what runs left in them, and
/// restores what the machine had before.
pub struct Hugepages {
    mounted: bool,
    restore: Option<u64>,
    leftovers: Option<Leftovers>,
}

fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

impl Hugepages {
    /// Make sure of `mb` MiB, in a hugetlbfs. Files in it that begin with `prefix` are ours.
    ///
    /// # Errors
    /// There are not enough, and they cannot be made.
    pub fn reserve(mb: u64, prefix: &str) -> Result<Self, WireError> {
        let mut pages =
            Hugepages { mounted: false, restore: None, leftovers: Some(Leftovers::of(prefix)) };
        let page_kb = meminfo("Hugepagesize").max(1);
        let wanted = (mb << 10).div_ceil(page_kb);
        let (total, free) = (meminfo("HugePages_Total"), meminfo("HugePages_Free"));
        if free < wanted {
            let total_wanted = total + wanted - free;
            let error = |reason: String| WireError::Hugepages {
                wanted,
                page_kb,
                free: meminfo("HugePages_Free"),
                total: total_wanted,
                reason,
            };
            fs::write(NR_HUGEPAGES, total_wanted.to_string())
                .map_err(|source| error(source.to_string()))?;
            pages.restore = Some(total);
            if meminfo("HugePages_Free") < wanted {
                return Err(error("the kernel found too little free memory".to_owned()));
            }
        }
        if leftovers::hugetlbfs().is_none() {
            pages.mount()?;
        }
        Ok(pages)
    }

    fn mount(&mut self) -> Result<(), WireError> {
        let what = format!("mounting a hugetlbfs at {MOUNT_POINT}");
        fs::create_dir_all(MOUNT_POINT).map_err(WireError::io(what.as_str()))?;
        let status = Command::new("mount")
            .args(["-t", "hugetlbfs", "nodev", MOUNT_POINT])
            .status()
            .map_err(WireError::io(what.as_str()))?;
        if !status.success() {
            let source = std::io::Error::other(format!("mount ended with {status}"));
            return Err(WireError::Io { what, source });
        }
        self.mounted = true;
        Ok(())
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        // Before the file system that they are in goes.
        self.leftovers = None;
        if self.mounted
            && !Command::new("umount").arg(MOUNT_POINT).status().is_ok_and(|s| s.success())
        {
            eprintln!("sluice-perf: cannot unmount {MOUNT_POINT}");
        }
        if let Some(total) = self.restore
            && let Err(error) = fs::write(NR_HUGEPAGES, total.to_string())
        {
            eprintln!(
                "sluice-perf: {NR_HUGEPAGES} was {total} before, and cannot be restored: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_the_remedy() {
        let error = WireError::Hugepages {
            wanted: 400,
            page_kb: 2_048,
            free: 3,
            total: 410,
            reason: "Permission denied".to_owned(),
        };
        let text = error.to_string();
        assert!(text.starts_with("400 hugepages of 2048 kB are needed and 3 are free"), "{text}");
        assert!(text.contains("`echo 410 > /proc/sys/vm/nr_hugepages`"), "{text}");
    }
}
