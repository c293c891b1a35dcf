//! How long a port may be silent after its device may have lost its settings.

/// A VF whose link has come back, or that was set up anew, is not believed to live until it has
/// received something: a driver does not tell when its PF did not answer, or was reset once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probation {
    /// Packets that its workers had received from it by then.
    pub received: u64,
    /// How often it was set up anew since its link came back.
    pub tries: usize,
    /// Until when it may be silent, in ms.
    pub until_ms: u64,
}

impl Probation {
    /// How long it may be silent, in ms, by the number of tries. Then it is left alone: all workers
    /// pause while a port is set up, and there may well be nobody who sends.
    const PATIENCE_MS: [u64; 4] = [2_000, 4_000, 8_000, 16_000];

    /// It starts when a link has come back; so many packets have been received by then.
    pub fn begin(now_ms: u64, received: u64) -> Option<Probation> {
        Self::new(0, now_ms, received)
    }

    /// The next one, after a port was set up anew; none when it has been tried often enough.
    pub fn after(former: Option<&Probation>, now_ms: u64, received: u64) -> Option<Probation> {
        Self::new(former.map_or(1, |p| p.tries + 1), now_ms, received)
    }

    fn new(tries: usize, now_ms: u64, received: u64) -> Option<Probation> {
        let patience_ms = Self::PATIENCE_MS.get(tries)?;
        Some(Probation { received, tries, until_ms: now_ms + patience_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_stays_silent_is_set_up_four_times() {
        let first = Probation::begin(10_000, 7).unwrap();
        assert_eq!(first, Probation { received: 7, tries: 0, until_ms: 12_000 });
        let again = |p: &Probation| Probation::after(Some(p), p.until_ms, 7);
        let all: Vec<u64> = std::iter::successors(Some(first), again).map(|p| p.until_ms).collect();
        assert_eq!(all, [12_000, 16_000, 24_000, 40_000]);
        // One that was reset without a word of its link has been set up once already.
        assert_eq!(Probation::after(None, 0, 7).unwrap().tries, 1);
    }
}
