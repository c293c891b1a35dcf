//! Real-time signals, which drivers take for themselves: the kernel could send them to any thread.
//!
//! `net_tap` (DPDK 22.11) takes a free one and has the kernel send it for each packet that arrives.
//! They land on the main thread, whose naps then never end. Where it finds none that is free, it
//! reads its queues when they are polled, which costs one system call for a burst and not a signal
//! for each packet. So none is free: whatever nobody uses is ignored from the start.

use std::io;
use std::{mem, ptr};

/// Have all real-time signals that nobody handles be ignored, and so be in use. Call it before any
/// driver is started.
///
/// # Errors
/// The kernel does not let us.
pub(super) fn leave_none_to_drivers() -> io::Result<()> {
    for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: all zeroes are a legal sigaction; reading or ignoring a signal runs no code of ours.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &raw mut action) != 0 {
                return Err(io::Error::last_os_error());
            }
            if action.sa_sigaction != libc::SIG_DFL {
                continue;
            }
            action.sa_sigaction = libc::SIG_IGN;
            if libc::sigaction(signal, &raw const action, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Whether a driver says that it has found no signal, which is as it should be.
pub(super) fn is_our_doing(message: &str) -> bool {
    message.contains("rt-signals are in use")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::nap;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    /// Whether a signal is among those of a line of /proc/self/status.
    fn is_in(line: &str, signal: i32) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|l| l.strip_prefix(line)).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() >> (signal - 1) & 1 != 0
    }

    #[test]
    fn no_real_time_signal_is_free() {
        leave_none_to_drivers().unwrap();
        for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            assert!(is_in("SigIgn:", signal) || is_in("SigCgt:", signal), "{signal}");
        }
        assert!(!is_in("SigIgn:", libc::SIGTERM), "others are left alone");
    }

    static HANDLED: AtomicU64 = AtomicU64::new(0);

    extern "C" fn handle(_signal: i32) {
        HANDLED.fetch_add(1, Relaxed);
    }

    /// As the driver had it: a signal for each packet, more often than a timer's slack.
    #[test]
    fn a_nap_ends_in_time_under_a_storm_of_signals() {
        let done = AtomicBool::new(false);
        // SAFETY: the handler adds to a number; gettid has no preconditions.
        let napper = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handle as extern "C" fn(i32) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut()), 0);
            libc::gettid()
        };
        let longest = std::thread::scope(|scope| {
            scope.spawn(|| {
                let until = Instant::now() + Duration::from_secs(5);
                while !done.load(Relaxed) && Instant::now() < until {
                    // SAFETY: a signal that is handled, to a thread of ours.
                    unsafe {
                        libc::syscall(libc::SYS_tgkill, libc::getpid(), napper, libc::SIGUSR2);
                    }
                }
            });
            let naps = (0..50).map(|_| {
                let start = Instant::now();
                nap(Duration::from_millis(2));
                start.elapsed()
            });
            let naps: Vec<Duration> = naps.collect();
            done.store(true, Relaxed);
            assert!(naps.iter().all(|nap| *nap >= Duration::from_millis(2)), "{naps:?}");
            naps.into_iter().max().unwrap()
        });
        let handled = HANDLED.load(Relaxed);
        println!("50 naps of 2 ms under {handled} signals: the longest took {longest:?}");
        assert!(handled > 1_000, "{handled} signals are no storm");
        // Other tests want the CPU, too: what this is about is a nap that does not end.
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }
}
