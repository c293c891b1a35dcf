//! The highest rate without loss, by halving (RFC 2544, 26.1).

use serde::Serialize;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchConfig {
    /// Rate tried first, the highest that counts, in packets per second.
    pub most_pps: f64,
    /// The search ends when it knows the rate to so many packets per second.
    pub resolution_pps: f64,
    /// Share of packets that may be lost, 0 to 1; RFC 2544 says 0.
    pub loss_tolerance: f64,
    /// Most trials.
    pub most_trials: u32,
}

/// What a trial at one rate showed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Rate that was asked for, in packets per second.
    pub asked_pps: f64,
    /// Rate that was sent, in packets per second.
    pub offered_pps: f64,
    /// Share of packets that did not come back, 0 to 1.
    pub loss: f64,
    /// Latency's median in ns; none without probes.
    pub p50_ns: Option<u64>,
    /// Latency's 99th percentile in ns; none without probes.
    pub p99_ns: Option<u64>,
    /// Whether the whole rate was sent, and no more than tolerable was lost.
    pub passed: bool,
}

/// The least share of the asked rate that a trial must have sent to count.
const OFFERED_ENOUGH: f64 = 0.995;

/// What a trial measured, before it is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Rate that was sent, in packets per second.
    pub offered_pps: f64,
    /// Share of packets that did not come back, 0 to 1.
    pub loss: f64,
    /// Latency's median and 99th percentile in ns.
    pub latency_ns: Option<(u64, u64)>,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The highest rate that passed, in packets per second; 0 when none did.
    pub throughput_pps: f64,
    /// All trials, in order.
    pub trials: Vec<Trial>,
    /// Whether the resolution was reached; not so when it was interrupted or out of trials.
    pub complete: bool,
}

/// Search: `measure` runs a trial at a rate, or returns none to end the search.
pub fn search(config: &SearchConfig, mut measure: impl FnMut(f64) -> Option<Measured>) -> Found {
    let mut found = Found { throughput_pps: 0.0, trials: Vec::new(), complete: false };
    let (mut good, mut bad) = (0.0, config.most_pps);
    let mut rate = config.most_pps;
    while (found.trials.len() as u32) < config.most_trials {
        let Some(measured) = measure(rate) else { return found };
        let trial = judge(config, rate, &measured);
        found.trials.push(trial);
        if trial.passed {
            good = rate;
            found.throughput_pps = found.throughput_pps.max(rate);
        } else {
            bad = rate;
        }
        // The first trial is at the highest rate of all: when it passes there is nothing above.
        if good >= config.most_pps || bad - good <= config.resolution_pps {
            found.complete = true;
            return found;
        }
        rate = next(good, bad, &trial);
    }
    found
}

/// Halfway between what passed and what failed; but what was sent of a rate that could not be sent
/// whole is a better guess than half of it.
fn next(good: f64, bad: f64, last: &Trial) -> f64 {
    let arrived = last.offered_pps * (1.0 - last.loss);
    let half = good + (bad - good) / 2.0;
    let guess = 0.98 * arrived;
    if good == 0.0 && guess > half && guess < bad { guess } else { half }
}

fn judge(config: &SearchConfig, rate: f64, measured: &Measured) -> Trial {
    let offered_enough = measured.offered_pps >= OFFERED_ENOUGH * rate;
    Trial {
        asked_pps: rate,
        offered_pps: measured.offered_pps,
        loss: measured.loss,
        p50_ns: measured.latency_ns.map(|l| l.0),
        p99_ns: measured.latency_ns.map(|l| l.1),
        passed: offered_enough && measured.loss <= config.loss_tolerance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SearchConfig = SearchConfig {
        most_pps: 14_880_952.0,
        resolution_pps: 10_000.0,
        loss_tolerance: 0.0,
        most_trials: 40,
    };

    /// A device that loses all above `capacity`, and a sender that reaches `most`.
    fn device(capacity: f64, most: f64) -> impl FnMut(f64) -> Option<Measured> {
        move |rate| {
            let offered_pps = rate.min(most);
            let loss = (1.0 - capacity / offered_pps).max(0.0);
            Some(Measured { offered_pps, loss, latency_ns: Some((1_000, 2_000)) })
        }
    }

    #[test]
    fn finds_the_capacity_to_the_resolution() {
        for capacity in [15_000.0, 1e6, 5_555_555.0, 14_870_000.0] {
            let found = search(&CONFIG, device(capacity, 1e9));
            assert!(found.complete, "{capacity}");
            let short = capacity - found.throughput_pps;
            assert!((0.0..=10_000.0).contains(&short), "{capacity}: {}", found.throughput_pps);
            assert!(found.trials.len() <= 13, "{capacity}: {} trials", found.trials.len());
        }
    }

    #[test]
    fn a_device_that_keeps_up_needs_one_trial() {
        let found = search(&CONFIG, device(20e6, 1e9));
        assert_eq!((found.throughput_pps, found.trials.len()), (CONFIG.most_pps, 1));
        assert!(found.complete);
    }

    #[test]
    fn tolerance_counts() {
        let tolerant = SearchConfig { loss_tolerance: 0.1, ..CONFIG };
        let found = search(&tolerant, device(9e6, 1e9));
        assert!((9.98e6..=10e6 + 1.0).contains(&found.throughput_pps), "{}", found.throughput_pps);
    }

    #[test]
    fn a_rate_that_was_not_sent_does_not_pass() {
        let found = search(&CONFIG, device(1e9, 4e6));
        assert!((3.98e6..=4.03e6).contains(&found.throughput_pps), "{}", found.throughput_pps);
    }

    #[test]
    fn a_dead_device_and_an_interrupt_end_it() {
        let found = search(&CONFIG, device(0.0, 1e9));
        assert_eq!((found.throughput_pps, found.complete), (0.0, true));
        let mut left = 3;
        let mut limited = device(1e6, 1e9);
        let found = search(&CONFIG, |rate| {
            left -= 1;
            if left == 0 { None } else { limited(rate) }
        });
        assert_eq!((found.trials.len(), found.complete), (2, false));
        let found = search(&SearchConfig { most_trials: 2, ..CONFIG }, device(1e6, 1e9));
        assert_eq!((found.trials.len(), found.complete), (2, false));
    }
}
