//! What the host has of that EAL needs: CPUs, hugepages, a free file prefix.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::EalError;

const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// CPUs that this process may run on, in order.
pub(super) fn cpus() -> Vec<u16> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let mut cpus: Vec<u16> = ids.iter().filter_map(|id| u16::try_from(id.id).ok()).collect();
    cpus.sort_unstable();
    cpus
}

/// Numbers in order as an operator writes them: `0-3, 8`.
pub(super) fn ranges(numbers: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if number - *last <= 1 => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let text = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// One size of hugepages.
struct PageSize {
    kb: u64,
    total: u64,
    free: u64,
}

fn page_sizes() -> Vec<PageSize> {
    let Ok(entries) = fs::read_dir(HUGEPAGES) else { return Vec::new() };
    let read =
        |path: PathBuf| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    let parse = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let kb = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let total = read(entry.path().join("nr_hugepages"))?;
        Some(PageSize { kb, total, free: read(entry.path().join("free_hugepages"))? })
    };
    let mut sizes: Vec<PageSize> = entries.flatten().filter_map(parse).collect();
    sizes.sort_unstable_by_key(|size| size.kb);
    sizes
}

/// Free hugepages of all sizes, in MiB.
pub(super) fn free_hugepages_mb() -> u64 {
    page_sizes().iter().map(|size| size.free * size.kb).sum::<u64>() >> 10
}

fn total_hugepages_mb() -> u64 {
    page_sizes().iter().map(|size| size.total * size.kb).sum::<u64>() >> 10
}

/// Refuse when there can never be enough. Pages that a killed process left behind count as usable,
/// as EAL clears them away.
pub(super) fn check_hugepages(wanted_mb: u32) -> Result<(), EalError> {
    if total_hugepages_mb() < u64::from(wanted_mb) {
        return Err(too_few_hugepages(wanted_mb));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs")) {
        return Err(EalError::NoHugetlbfs);
    }
    Ok(())
}

/// The error, with the command that makes enough pages of the smallest size beside those in use.
pub(super) fn too_few_hugepages(wanted_mb: u32) -> EalError {
    let sizes = page_sizes();
    let (kb, in_use) = sizes.first().map_or((2048, 0), |size| (size.kb, size.total - size.free));
    let pages = (u64::from(wanted_mb) << 10).div_ceil(kb) + in_use;
    EalError::Hugepages {
        wanted_mb,
        total_mb: total_hugepages_mb(),
        free_mb: free_hugepages_mb(),
        command: format!("echo {pages} > {HUGEPAGES}/hugepages-{kb}kB/nr_hugepages"),
    }
}

/// Where EAL keeps the files of a prefix.
fn runtime_directory(prefix: &str) -> PathBuf {
    // SAFETY: has no preconditions.
    let root = unsafe { libc::getuid() } == 0;
    let fallback = if root { "/var/run" } else { "/tmp" };
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let base = variable("RUNTIME_DIRECTORY")
        .or_else(|| if root { None } else { variable("XDG_RUNTIME_DIR") })
        .unwrap_or_else(|| PathBuf::from(fallback));
    base.join("dpdk").join(prefix)
}

/// The process that runs with this file prefix, if any: a DPDK process holds a lock on `config`.
pub(super) fn file_prefix_owner(prefix: &str) -> Option<i32> {
    lock_owner(&runtime_directory(prefix).join("config"))
}

fn lock_owner(path: &Path) -> Option<i32> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and F_GETLK wants a pointer to a struct flock.
    let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    (status == 0 && lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 3, 8, 10, 11]), "0-3, 8, 10-11");
    }

    #[test]
    fn hugepage_error_says_how() {
        let text = too_few_hugepages(100).to_string();
        assert!(text.contains("memory_mb = 100"), "{text}");
        assert!(text.contains("`echo ") && text.contains("nr_hugepages`"), "{text}");
        assert!(check_hugepages(u32::MAX).is_err());
    }

    #[test]
    fn nobody_holds_a_prefix_that_was_never_used() {
        assert_eq!(file_prefix_owner("sluice-test-never-used"), None);
    }
}
