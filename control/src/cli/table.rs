//! Tables for people: no borders, numbers to the right; and values as they stand in them.

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde_json::Value;

/// A table under construction.
pub(super) struct Table(comfy_table::Table);

impl Table {
    /// A table with these columns; those that begin with `>` hold numbers.
    pub(super) fn new(columns: &[&str]) -> Table {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|column| column.trim_start_matches('>')));
        for (index, name) in columns.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if name.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Table(table)
    }

    /// Adds a row, one text per column.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        // A name from elsewhere must not break the line or steer the terminal.
        let clean = |cell: String| cell.replace(|c: char| c.is_control(), " ");
        self.0.add_row(cells.into_iter().map(clean));
    }

    /// The table, or `empty` when it has no rows.
    pub(super) fn render(&self, empty: &str) -> String {
        if self.0.is_empty() {
            return empty.to_owned();
        }
        let text = self.0.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// A field as it stands in a table: `-` when it is absent or `null`.
pub(super) fn field(object: &Value, name: &str) -> String {
    shown(&object[name])
}

/// A value as it stands in a table.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The elements of a list endpoint's answer.
pub(super) fn items<'v>(answer: &'v Value, name: &str) -> &'v [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

/// An integer with separators: `1,234,567`.
pub(super) fn integer(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in its two largest units: `3d 4h`, `12s`, `250ms`.
pub(super) fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let seconds = ms / 1_000;
    let largest = UNITS.iter().position(|(size, _)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let (size, unit) = UNITS[largest];
    match UNITS.get(largest + 1) {
        Some((next, next_unit)) => {
            format!("{}{unit} {}{next_unit}", seconds / size, seconds % size / next)
        }
        None => format!("{}{unit}", seconds / size),
    }
}

/// A moment in ms since the Unix epoch, as `2026-11-25 03:04:05.678Z` (UTC).
pub(crate) fn moment(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Days to civil date: years begin in March, so that the leap day ends one. 719,468 days lie
    // between 0000-03-01 and 1970-01-01; 146,097 in 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_readable() {
        let numbers = [0, 999, 1_000, 1_234_567].map(integer);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let spans = [250, 12_300, 190_000, 7_500_000, 273_600_000].map(duration);
        assert_eq!(spans, ["250ms", "12s", "3m 10s", "2h 5m", "3d 4h"]);
    }

    #[test]
    fn moments_are_utc() {
        assert_eq!(moment(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(moment(951_827_696_789), "2000-02-29 12:34:56.789Z");
        assert_eq!(moment(1_795_575_845_678), "2026-11-25 03:04:05.678Z");
        assert_eq!(moment(4_102_444_799_999), "2099-12-31 23:59:59.999Z");
    }

    #[test]
    fn tables_align_and_stay_in_their_lines() {
        let mut table = Table::new(&["NAME", ">N"]);
        table.row(vec!["a".into(), "1".into()]);
        table.row(vec!["evil\x1b[2J\nname".into(), "1,000".into()]);
        let text = table.render("nothing");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[1], format!("{:<15}{:>5}", "a", "1"));
        assert!(!text.contains('\x1b'));
        assert_eq!(Table::new(&["NAME"]).render("no pools"), "no pools");
    }

    #[test]
    fn values_of_all_kinds_fit_a_cell() {
        let object = json!({"a": null, "b": "x", "c": 7, "d": [1, "y"], "e": [], "f": true});
        let cells = ["a", "b", "c", "d", "e", "f", "none"].map(|name| field(&object, name));
        assert_eq!(cells, ["-", "x", "7", "1, y", "-", "yes", "-"]);
    }
}
