//! When a backend is checked: thousands of backends without bursts. Pure: time is an argument, in
//! microseconds since the checker's start.
//!
//! A hash of its identity gives each target a fixed place within its interval, so targets spread
//! evenly whatever they have in common, and adding or removing one moves no other.

use std::net::IpAddr;

use sluice_api::BackendId;

/// A few new targets have their first check within this time, in µs.
const FIRST_WINDOW_US: u64 = 200_000;
/// Many new targets at once start one first check per this time, in µs.
const FIRST_SPACING_US: u64 = 1_000;

/// A target's place within its interval, as a fraction of 2^32. The same in every process and
/// version: FNV-1a over the identity, finished by MurmurHash3's mixer for even high bits.
pub fn phase(service: &str, backend: BackendId) -> u32 {
    let fold = |hash: u64, bytes: &[u8]| {
        let mix =
            |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        bytes.iter().fold(hash, mix)
    };
    let mut hash = fold(0xcbf2_9ce4_8422_2325, service.as_bytes());
    hash = match backend.address {
        IpAddr::V4(address) => fold(hash, &address.octets()),
        IpAddr::V6(address) => fold(hash, &address.octets()),
    };
    hash = fold(hash, &backend.port.to_be_bytes());
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash >> 32) as u32
}

/// The fraction `phase` of `span_us`.
fn part(phase: u32, span_us: u64) -> u64 {
    ((u128::from(span_us) * u128::from(phase)) >> 32) as u64
}

/// When the next check after one that started at `started_us` is due: the target's next place on
/// the grid. A late check does not move the ones after it.
pub fn next_due(phase: u32, interval_us: u64, started_us: u64) -> u64 {
    let offset = part(phase, interval_us);
    let Some(since_offset) = started_us.checked_sub(offset) else { return offset };
    offset + (since_offset / interval_us + 1) * interval_us
}

/// When the first check of a target is due that came at `now_us` as one of `count` new ones: soon
/// when they are few, up to a whole interval later when they are many.
pub fn first_due(phase: u32, interval_us: u64, now_us: u64, count: usize) -> u64 {
    let window = FIRST_WINDOW_US.max(FIRST_SPACING_US.saturating_mul(count as u64));
    if window < interval_us {
        return now_us + part(phase, window);
    }
    // So many, or an interval so short, that the grid itself is the best spread.
    next_due(phase, interval_us, now_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> BackendId {
        BackendId { address: std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), port: 80 }
    }

    #[test]
    fn the_phase_is_fixed() {
        // A new hash would move every check of every backend after an upgrade.
        assert_eq!(phase("web", id(1)), 0x4bf2_64fa);
        assert_ne!(phase("web", id(1)), phase("web", id(2)));
        assert_ne!(phase("web", id(1)), phase("api", id(1)));
    }

    #[test]
    fn neighbouring_backends_spread_evenly() {
        let mut slots = [0_u32; 100];
        for n in 0..10_000 {
            slots[part(phase("web", id(n)), 100) as usize] += 1;
        }
        // 100 expected in each; 5 standard deviations either way.
        assert!(slots.iter().all(|n| (50..=150).contains(n)), "{slots:?}");
    }

    #[test]
    fn checks_keep_their_place_on_the_grid() {
        let (phase, interval) = (1 << 31, 500_000);
        assert_eq!(next_due(phase, interval, 0), 250_000);
        assert_eq!(next_due(phase, interval, 249_999), 250_000);
        assert_eq!(next_due(phase, interval, 250_000), 750_000);
        assert_eq!(next_due(phase, interval, 250_700), 750_000, "late start, same grid");
        assert_eq!(next_due(phase, interval, 1_900_000), 2_250_000, "missed ones are not made up");
    }

    #[test]
    fn the_next_check_is_at_most_one_interval_after_a_start() {
        for n in 0..1_000_u32 {
            let (phase, started) = (phase("web", id(n)), u64::from(n) * 7_919);
            let due = next_due(phase, 500_000, started);
            assert!(due > started && due <= started + 500_000);
        }
    }

    #[test]
    fn few_new_targets_are_checked_at_once_and_many_take_their_time() {
        let now = 1_234_567;
        let last = |count, interval| {
            (0..2_000).map(|n| first_due(phase("web", id(n)), interval, now, count)).max().unwrap()
        };
        assert!(last(1, 2_000_000) <= now + 200_000);
        assert!(last(1, 100_000) <= now + 100_000, "within a short interval");
        assert!(last(1_000, 2_000_000) > now + 900_000);
        assert!(last(1_000, 2_000_000) <= now + 1_000_000);
        assert!(last(100_000, 2_000_000) <= now + 2_000_000, "never later than one interval");
    }
}
