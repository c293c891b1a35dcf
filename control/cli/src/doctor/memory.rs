//! Memory: hugepages, where they are mounted, and how much memory may be locked.

use super::finding::Finding;
use super::host::Host;
use super::wanted::Wanted;

const HUGEPAGES: &str = "sys/kernel/mm/hugepages";
/// Bit of CAP_IPC_LOCK, which lifts the limit of locked memory (capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// Whether there are hugepages for DPDK's memory.
pub fn hugepages(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "hugepages";
    if !wanted.hugepages {
        return Finding::ok(
            CHECK,
            "not asked for (hugepages = false); a NIC on vfio-pci needs them",
        );
    }
    let Some(names) = host.names(HUGEPAGES) else {
        return Finding::unknown(CHECK, format!("/{HUGEPAGES} is not there: is /sys mounted?"));
    };
    let mut sizes: Vec<(u64, u64, u64)> = names
        .iter()
        .filter_map(|name| {
            let kb = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = |what| {
                host.number(&format!("{HUGEPAGES}/{name}/{what}"))
                    .and_then(|n| u64::try_from(n).ok())
            };
            Some((kb, count("nr_hugepages")?, count("free_hugepages")?))
        })
        .collect();
    sizes.sort_unstable();
    let Some(&(smallest, total, free)) = sizes.first() else {
        return Finding::wrong(
            CHECK,
            "this kernel has no hugepages",
            "use a kernel with CONFIG_HUGETLBFS, or set hugepages = false",
        );
    };
    let free_mb = sizes.iter().map(|(kb, _, free)| kb * free).sum::<u64>() >> 10;
    let total_mb = sizes.iter().map(|(kb, total, _)| kb * total).sum::<u64>() >> 10;
    let asked = wanted.memory_mb;
    if free_mb >= asked {
        return Finding::ok(CHECK, format!("{free_mb} MiB free of {total_mb}, {asked} asked for"));
    }
    if total_mb >= asked {
        return Finding::warning(
            CHECK,
            format!(
                "{free_mb} MiB free of {total_mb}, {asked} asked for: somebody holds the rest, \
                 which is right when it is the data plane that runs now"
            ),
            "see who has them: grep -l huge /proc/*/numa_maps",
        );
    }
    let pages = (asked << 10).div_ceil(smallest) + (total - free);
    let path = format!("/{HUGEPAGES}/hugepages-{smallest}kB/nr_hugepages");
    Finding::wrong(
        CHECK,
        format!("{total_mb} MiB in all, {free_mb} free, {asked} asked for (memory_mb)"),
        format!(
            "echo {pages} > {path}   # and vm.nr_hugepages={pages} in /etc/sysctl.d/ to keep it"
        ),
    )
}

/// Whether hugepages can be taken.
pub fn hugetlbfs(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "hugetlbfs";
    if !wanted.hugepages {
        return Finding::ok(CHECK, "not needed (hugepages = false)");
    }
    let Some(mounts) = host.read("proc/mounts") else {
        return Finding::unknown(CHECK, "/proc/mounts cannot be read");
    };
    let mounted = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next() == Some("hugetlbfs")).then_some(place)
    });
    match mounted {
        Some(place) => Finding::ok(CHECK, format!("mounted on {place}")),
        None => Finding::wrong(
            CHECK,
            "not mounted: DPDK takes hugepages from it",
            "mkdir -p /dev/hugepages && mount -t hugetlbfs nodev /dev/hugepages",
        ),
    }
}

/// Whether enough memory may be locked: VFIO and AF_XDP pin what a device reads and writes.
/// The limits are those of this process, as a data plane that is started from the same shell gets
/// them.
pub fn memlock(host: &Host, wanted: &Wanted) -> Finding {
    const CHECK: &str = "memlock";
    let status = host.read("proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    if effective.is_some_and(|caps| caps >> CAP_IPC_LOCK & 1 == 1) {
        return Finding::ok(CHECK, "no limit (CAP_IPC_LOCK)");
    }
    let limits = host.read("proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|rest| rest.split_whitespace().next());
    match (soft, soft.and_then(|soft| soft.parse::<u64>().ok())) {
        (Some("unlimited"), _) => Finding::ok(CHECK, "no limit"),
        (_, Some(bytes)) if bytes >> 20 >= wanted.memory_mb => {
            Finding::ok(CHECK, format!("{} MiB may be locked", bytes >> 20))
        }
        (_, Some(bytes)) => Finding::warning(
            CHECK,
            format!(
                "this shell may lock {} KiB only, memory_mb = {}: VFIO and AF_XDP will not \
                 get their memory if the data plane is started from it",
                bytes >> 10,
                wanted.memory_mb
            ),
            "ulimit -l unlimited   # sluice-dataplane.service sets LimitMEMLOCK=infinity itself",
        ),
        _ => Finding::unknown(CHECK, "/proc/self/limits does not tell"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::host::tests::made_up;
    use super::super::wanted::tests::wanted;
    use super::*;

    fn pages(total: &str, free: &str) -> Finding {
        let at = "sys/kernel/mm/hugepages/hugepages-2048kB";
        let (host, _root) = made_up(&[
            (&format!("{at}/nr_hugepages"), total),
            (&format!("{at}/free_hugepages"), free),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0"),
        ]);
        hugepages(&host, &Wanted::default())
    }

    #[test]
    fn hugepages_are_enough_or_the_command_makes_them() {
        assert_eq!(pages("256\n", "256\n").message, "512 MiB free of 512, 512 asked for");
        let few = pages("100", "60");
        assert_eq!(few.state, State::Wrong);
        assert_eq!(few.message, "200 MiB in all, 120 free, 512 asked for (memory_mb)");
        // Those in use stay in use: 256 more than the 40.
        let fix = few.fix.unwrap();
        assert!(fix.starts_with("echo 296 > /sys/kernel/mm/hugepages/hugepages-2048kB/"), "{fix}");
        assert_eq!(pages("256", "10").state, State::Warning);
    }

    #[test]
    fn hosts_without_hugepages() {
        let (host, _root) = made_up(&[("sys/kernel/mm/hugepages/", "")]);
        assert_eq!(hugepages(&host, &Wanted::default()).state, State::Wrong);
        let (host, _root) = made_up(&[]);
        assert_eq!(hugepages(&host, &Wanted::default()).state, State::Unknown);
        let none = wanted("[runtime]\nhugepages = false");
        assert_eq!(hugepages(&host, &none).state, State::Ok);
        assert_eq!(hugetlbfs(&host, &none).state, State::Ok);
        assert_eq!(hugetlbfs(&host, &Wanted::default()).state, State::Unknown);
    }

    #[test]
    fn hugetlbfs_is_mounted_or_not() {
        let mounts = "proc /proc proc rw 0 0\nnodev /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n";
        let (host, _root) = made_up(&[("proc/mounts", mounts)]);
        let found = hugetlbfs(&host, &Wanted::default());
        assert_eq!(found.message, "mounted on /dev/hugepages");
        let (host, _root) = made_up(&[("proc/mounts", "proc /proc proc rw 0 0\n")]);
        let found = hugetlbfs(&host, &Wanted::default());
        assert_eq!(found.state, State::Wrong);
        assert!(found.fix.unwrap().contains("mount -t hugetlbfs"));
    }

    #[test]
    fn the_limit_of_locked_memory_counts_without_the_capability() {
        let look = |caps: &str, limit: &str| {
            let limits = format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max locked memory         {limit:20} {limit:20} bytes\n"
            );
            let status = format!("Name:\tsluice\nCapEff:\t{caps}\n");
            let (host, _root) =
                made_up(&[("proc/self/status", &status), ("proc/self/limits", &limits)]);
            memlock(&host, &Wanted::default())
        };
        assert_eq!(look("0000000000004000", "8388608").message, "no limit (CAP_IPC_LOCK)");
        assert_eq!(look("0000000000000000", "unlimited").message, "no limit");
        assert_eq!(look("0000000000003000", "1073741824").message, "1024 MiB may be locked");
        let low = look("0000000000000000", "8388608");
        assert_eq!(low.state, State::Warning);
        assert!(low.message.contains("8192 KiB") && low.fix.unwrap().contains("ulimit -l"));
        let (host, _root) = made_up(&[]);
        assert_eq!(memlock(&host, &Wanted::default()).state, State::Unknown);
    }
}
