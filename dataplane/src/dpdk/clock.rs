//! Time for the packet path: the CPU's cycle counter in nanoseconds.

use super::Eal;

/// Nanoseconds since it was made, from the CPU's cycle counter (TSC).
///
/// A copy counts from the same moment, and the TSC is the same on all CPUs of any machine that
/// Linux itself uses it on. DPDK measures the frequency at start to about 0.5 %, or reads it from
/// the CPU: good for timeouts, not for wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start_cycles: u64,
    /// Nanoseconds per cycle, times 2^32.
    ns_per_cycle: u64,
    hz: u64,
}

impl Clock {
    /// Start counting.
    pub fn new(_eal: &Eal) -> Clock {
        // SAFETY: EAL runs, which measured it.
        Clock::with_hz(unsafe { dpdk_sys::rte_get_tsc_hz() })
    }

    fn with_hz(hz: u64) -> Clock {
        assert!(hz >= 1_000_000, "cycle counter of {hz} Hz");
        // Below 2^42, as hz is at least 10^6.
        let ns_per_cycle = ((1_000_000_000_u128 << 32) / u128::from(hz)) as u64;
        Clock { start_cycles: dpdk_sys::rdtsc(), ns_per_cycle, hz }
    }

    /// Nanoseconds since the clock was made. Wraps after 584 years.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.ns(dpdk_sys::rdtsc().wrapping_sub(self.start_cycles))
    }

    #[inline]
    fn ns(&self, cycles: u64) -> u64 {
        ((u128::from(cycles) * u128::from(self.ns_per_cycle)) >> 32) as u64
    }

    /// Cycles per second.
    pub fn hz(&self) -> u64 {
        self.hz
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_become_ns() {
        let clock = Clock::with_hz(2_600_000_000);
        assert_eq!(clock.ns(0), 0);
        let second = clock.ns(2_600_000_000);
        assert!((999_999_990..=1_000_000_000).contains(&second), "{second}");
        let century = clock.ns(2_600_000_000 * 86_400 * 36_500);
        let exact = 86_400_u64 * 36_500 * 1_000_000_000;
        assert!(exact.abs_diff(century) < exact / 1_000_000_000, "{century}");
    }

    #[test]
    fn copies_agree_and_time_goes_on() {
        let clock = Clock::with_hz(1_000_000_000);
        let copy = clock;
        let first = clock.now_ns();
        let second = copy.now_ns();
        assert!(second >= first);
    }
}
