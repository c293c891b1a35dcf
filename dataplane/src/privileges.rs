//! What the process may do once it forwards: start-up opens devices, taps and memory with the
//! privileges it was given; after that nearly all of them are given up, by every thread, for good.

use caps::Capability;

use crate::dpdk::{CapabilityError, limit_capabilities};

/// Drivers whose devices are interfaces of the kernel, which are set down when the port stops.
const KERNEL_INTERFACES: [&str; 4] = ["net_tap", "net_af_xdp", "mlx4", "mlx5"];

/// A capability that is kept, and why.
type Kept = (Capability, &'static str);

/// What a data plane with ports of these drivers needs while it runs and when it stops.
fn needed<'d>(mut drivers: impl Iterator<Item = &'d str>, exception_ports: bool) -> Vec<Kept> {
    let of_kernel = |driver: &str| KERNEL_INTERFACES.iter().any(|name| driver.contains(name));
    if exception_ports || drivers.any(of_kernel) {
        let why = "to set its taps and the kernel's interfaces of its ports down when it stops";
        return vec![(Capability::CAP_NET_ADMIN, why)];
    }
    Vec::new()
}

/// Give up what is not needed from now on, and say what is kept and why.
///
/// # Errors
/// Some thread kept more than it should.
pub fn limit<'d>(
    drivers: impl Iterator<Item = &'d str>,
    exception_ports: bool,
) -> Result<(), CapabilityError> {
    let needed = needed(drivers, exception_ports);
    let mask = needed.iter().fold(0, |mask, (capability, _)| mask | capability.bitmask());
    let kept = limit_capabilities(mask)?;
    let mut words: Vec<String> = needed
        .iter()
        .filter(|(capability, _)| kept & capability.bitmask() != 0)
        .map(|(capability, why)| format!("{capability} ({why})"))
        .collect();
    if words.is_empty() {
        words.push("none".to_owned());
    }
    tracing::info!("capabilities kept: {}; no new privileges", words.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;

    /// Set in the process that gives its privileges up, which no other test should share.
    const INSIDE: &str = "SLUICE_TEST_INSIDE_PRIVILEGES";

    #[test]
    fn only_interfaces_of_the_kernel_need_a_capability() {
        let names = |drivers: &[&'static str], exception| {
            needed(drivers.iter().copied(), exception)
                .into_iter()
                .map(|(c, _)| c)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&["net_iavf", "net_ixgbe_vf"], false), []);
        assert_eq!(names(&["net_iavf"], true), [Capability::CAP_NET_ADMIN]);
        for driver in ["net_tap", "net_af_xdp", "mlx5_pci"] {
            assert_eq!(names(&["net_ring", driver], false), [Capability::CAP_NET_ADMIN]);
        }
    }

    #[test]
    fn every_thread_gives_its_privileges_up() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "privileges::tests::inside"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    }

    #[test]
    #[ignore = "gives up the privileges of its process: started by the test above"]
    fn inside() {
        if std::env::var_os(INSIDE).is_none() {
            eprintln!("SKIPPED: runs in a process of its own, started by another test");
            return;
        }
        // One thread that sleeps in a system call, one that spins, both started before.
        let (wake, sleeper) = mpsc::channel::<()>();
        let sleeper = thread::spawn(move || sleeper.recv());
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let spins = stop.clone();
        let spinner = thread::spawn(move || {
            while !spins.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        limit(["net_ring"].into_iter(), true).unwrap();
        let keep = Capability::CAP_NET_ADMIN.bitmask();
        let mut threads = 0;
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            check(&status, keep);
            threads += 1;
        }
        assert!(threads >= 4, "{threads} threads");
        // Nor do a program that is started, and a thread that is new, have more.
        let child = Command::new("cat").arg("/proc/self/status").output().unwrap();
        check(&String::from_utf8_lossy(&child.stdout), keep);
        let own = || fs::read_to_string("/proc/thread-self/status").unwrap();
        check(&thread::spawn(own).join().unwrap(), keep);
        // And less still is possible, more is not.
        limit(std::iter::empty(), false).unwrap();
        check(&own(), 0);
        limit(std::iter::empty(), true).unwrap();
        check(&own(), 0);
        wake.send(()).unwrap();
        sleeper.join().unwrap().unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        spinner.join().unwrap();
    }

    fn check(status: &str, keep: u64) {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
            let bits = u64::from_str_radix(&field(set), 16).unwrap();
            assert_eq!(bits & !keep, 0, "{set} {bits:#x}\n{status}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
    }
}
