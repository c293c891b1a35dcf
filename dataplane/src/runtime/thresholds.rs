//! Tells of tables that fill up before it hurts: an event at 80 %, and one when it is over.

use std::collections::HashSet;

use sluice_api::stats::TableUsage;

use crate::events::EventLog;

/// Which tables are known to be filling up.
#[derive(Default)]
pub struct Thresholds {
    filling: HashSet<String>,
}

impl Thresholds {
    /// Look at the tables; call about once a second.
    pub fn check(&mut self, tables: &[TableUsage], events: &mut EventLog) {
        for table in tables {
            let percent = table.used * 100 / table.capacity.max(1);
            let name = &table.table;
            if percent >= 80 && self.filling.insert(name.clone()) {
                let (used, capacity) = (table.used, table.capacity);
                events.add(
                    "table-80-percent",
                    format!("{name}: {used} of {capacity} in use ({percent} %); when it is full, new ones are refused"),
                );
            } else if percent < 70 && self.filling.remove(name) {
                events.add("table-recovered", format!("{name}: back to {percent} % in use"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_when_it_fills_and_one_when_it_recovers() {
        let mut thresholds = Thresholds::default();
        let mut events = EventLog::default();
        for used in [10, 79, 80, 95, 75, 85, 69, 10, 81] {
            let table = TableUsage { table: "conns".to_owned(), used, capacity: 100, bytes: 0 };
            thresholds.check(&[table], &mut events);
        }
        let kinds: Vec<String> = events.since(0).into_iter().map(|e| e.kind).collect();
        assert_eq!(kinds, ["table-80-percent", "table-recovered", "table-80-percent"]);
    }
}
