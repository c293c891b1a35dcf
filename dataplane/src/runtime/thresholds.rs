//! Tells of tables that fill up, and of conns that come near a `max_conns`, before it hurts: an event
//! at 80 %, and one when it is over.

use std::collections::HashSet;

use sluice_api::stats::{PoolStats, TableUsage};

/// An event: its kind, and a sentence for people.
pub type Crossing = (&'static str, String);

/// Which tables, or limits, are known to be filling up.
pub struct Thresholds {
    filling: HashSet<String>,
    /// Kinds of the events: it fills up, and it is over.
    kinds: [&'static str; 2],
    /// What fills up, and what then happens.
    words: [&'static str; 2],
}

impl Thresholds {
    /// For tables.
    pub fn of_tables() -> Self {
        Thresholds {
            filling: HashSet::new(),
            kinds: ["table-80-percent", "table-recovered"],
            words: ["in use", "when it is full, new ones are refused"],
        }
    }

    /// For services and backends with a `max_conns`.
    pub fn of_limits() -> Self {
        Thresholds {
            filling: HashSet::new(),
            kinds: ["limit-80-percent", "limit-recovered"],
            words: ["conns", "at max_conns it takes no new ones"],
        }
    }

    /// Look at all of them; call about once a second. Returns what is to be told.
    pub fn check(&mut self, tables: &[TableUsage]) -> Vec<Crossing> {
        let mut events = Vec::new();
        if !self.filling.is_empty() {
            let names: HashSet<&str> = tables.iter().map(|table| table.table.as_str()).collect();
            self.filling.retain(|name| names.contains(name.as_str()));
        }
        let ([filling, recovered], [unit, then]) = (self.kinds, self.words);
        for table in tables {
            let percent = table.used * 100 / table.capacity.max(1);
            let (name, used, capacity) = (&table.table, table.used, table.capacity);
            if percent >= 80 && self.filling.insert(name.clone()) {
                let text = format!("{name}: {used} of {capacity} {unit} ({percent} %); {then}");
                events.push((filling, text));
            } else if percent < 70 && self.filling.remove(name) {
                let text = format!("{name}: back to {used} of {capacity} {unit} ({percent} %)");
                events.push((recovered, text));
            }
        }
        events
    }
}

/// Which pools are known to be too small: those with a warning.
#[derive(Default)]
pub struct SmallPools(HashSet<String>);

impl SmallPools {
    /// Look at all of them; call about once a second. Returns what is to be told.
    pub fn check(&mut self, pools: &[PoolStats]) -> Vec<Crossing> {
        let mut events = Vec::new();
        self.0.retain(|name| pools.iter().any(|pool| pool.name == *name));
        for pool in pools {
            match &pool.warning {
                Some(warning) if self.0.insert(pool.name.clone()) => {
                    events.push(("ports-used-again-early", warning.clone()));
                }
                None if self.0.remove(&pool.name) => {
                    let text = format!("pool {}: no port in the last minute", pool.name);
                    events.push(("ports-rest-again", text));
                }
                _ => {}
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_is_too_small_is_told_once_and_when_it_is_over() {
        let mut small = SmallPools::default();
        let look = |warning: Option<&str>| {
            let (name, warning) = ("lan".to_owned(), warning.map(str::to_owned));
            vec![PoolStats { name, reused: 0, warning }]
        };
        let looks = [None, Some("too small"), Some("still"), None, None, Some("again")];
        let told: Vec<_> = looks.iter().flat_map(|w| small.check(&look(*w))).collect();
        let text = |(kind, text): &Crossing| format!("{kind}: {text}");
        assert_eq!(
            told.iter().map(text).collect::<Vec<_>>(),
            [
                "ports-used-again-early: too small",
                "ports-rest-again: pool lan: no port in the last minute",
                "ports-used-again-early: again",
            ]
        );
        assert_eq!(small.check(&[]), [], "a pool that is gone says nothing");
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut thresholds = Thresholds::of_limits();
        let table = TableUsage { table: "service a".to_owned(), used: 9, capacity: 10, bytes: 0 };
        let looks = [&[table.clone()][..], &[], &[table]];
        let said: Vec<_> = looks.iter().flat_map(|tables| thresholds.check(tables)).collect();
        let message = "service a: 9 of 10 conns (90 %); at max_conns it takes no new ones";
        let expected = ("limit-80-percent", message.to_owned());
        assert_eq!(said, [expected.clone(), expected]);
    }

    #[test]
    fn one_event_when_it_fills_and_one_when_it_recovers() {
        let mut thresholds = Thresholds::of_tables();
        let mut check = |used| {
            let table = TableUsage { table: "conns".to_owned(), used, capacity: 100, bytes: 0 };
            thresholds.check(&[table])
        };
        let looks = [10, 79, 80, 95, 75, 85, 69, 10, 81];
        let kinds: Vec<_> = looks.into_iter().flat_map(&mut check).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["table-80-percent", "table-recovered", "table-80-percent"]);
    }
}
