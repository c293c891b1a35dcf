//! What is believed of one backend: `fall` failures in a row make it unhealthy, `rise` passes in a
//! row make it healthy. Pure: no time, no I/O.

/// Rise and fall counting for one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Unknown until the first result.
    healthy: Option<bool>,
    /// What was believed before the last change.
    before: Option<bool>,
    /// Results in a row that speak against `healthy`.
    against: u8,
    rise: u8,
    fall: u8,
}

impl Machine {
    /// A backend of which `known` is known, if anything. `rise` and `fall` count as at least 1.
    pub fn new(known: Option<bool>, rise: u8, fall: u8) -> Machine {
        Machine { healthy: known, before: known, against: 0, rise: rise.max(1), fall: fall.max(1) }
    }

    /// What is believed now; `None` before the first result.
    pub fn healthy(&self) -> Option<bool> {
        self.healthy
    }

    /// Results in a row that spoke against what is believed did not count.
    pub fn forget(&mut self) {
        self.against = 0;
    }

    /// The last change was none: what was believed before is believed again, and returned.
    pub fn restore(&mut self) -> Option<bool> {
        (self.healthy, self.against) = (self.before, 0);
        self.healthy
    }

    /// Takes a check's result; returns the new belief when it changed.
    pub fn record(&mut self, passed: bool) -> Option<bool> {
        let needed = match self.healthy {
            None => 1,
            Some(healthy) if healthy == passed => {
                self.against = 0;
                return None;
            }
            Some(true) => self.fall,
            Some(false) => self.rise,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.before = self.healthy.replace(passed);
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(machine: &mut Machine, results: &str) -> Vec<Option<bool>> {
        results.chars().map(|c| machine.record(c == '+')).collect()
    }

    #[test]
    fn the_first_result_decides_an_unknown_backend() {
        let mut good = Machine::new(None, 3, 3);
        assert_eq!(good.healthy(), None);
        assert_eq!(good.record(true), Some(true));
        let mut bad = Machine::new(None, 3, 3);
        assert_eq!(bad.record(false), Some(false));
        assert_eq!(bad.healthy(), Some(false));
    }

    #[test]
    fn fall_failures_in_a_row_make_it_unhealthy() {
        let mut machine = Machine::new(Some(true), 2, 3);
        assert_eq!(feed(&mut machine, "---"), [None, None, Some(false)]);
        assert_eq!(feed(&mut machine, "---"), [None, None, None], "told once");
    }

    #[test]
    fn rise_passes_in_a_row_make_it_healthy() {
        let mut machine = Machine::new(Some(false), 2, 3);
        assert_eq!(feed(&mut machine, "++"), [None, Some(true)]);
        assert_eq!(feed(&mut machine, "++"), [None, None], "told once");
    }

    #[test]
    fn flapping_below_the_thresholds_changes_nothing() {
        let mut up = Machine::new(Some(true), 2, 2);
        assert!(feed(&mut up, "-+-+-+-+").iter().all(Option::is_none));
        let mut down = Machine::new(Some(false), 2, 2);
        assert!(feed(&mut down, "+-+-+-+-").iter().all(Option::is_none));
    }

    #[test]
    fn a_known_state_needs_the_full_count() {
        let mut machine = Machine::new(Some(true), 1, 2);
        assert_eq!(feed(&mut machine, "--+"), [None, Some(false), Some(true)]);
    }

    #[test]
    fn a_change_that_was_none_is_taken_back() {
        for known in [None, Some(true)] {
            let mut machine = Machine::new(known, 1, 1);
            assert_eq!(machine.record(false), Some(false));
            assert_eq!(machine.restore(), known);
            assert_eq!(machine.healthy(), known);
        }
    }

    #[test]
    fn zero_counts_as_one_and_the_largest_counts_do_not_overflow() {
        let mut machine = Machine::new(Some(true), 0, 0);
        assert_eq!(feed(&mut machine, "-+"), [Some(false), Some(true)]);
        let mut machine = Machine::new(Some(true), 1, u8::MAX);
        let changes: Vec<_> = (0..255).filter_map(|_| machine.record(false)).collect();
        assert_eq!(changes, [false]);
    }
}
