//! Tables for people: no borders, numbers to the right; and values as they stand in them.

use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde_json::Value;

/// A table under construction.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// A table with these columns; those that begin with `>` hold numbers.
    pub(crate) fn new(columns: &[&str]) -> Table {
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
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        // A name from elsewhere must not break the line or steer the terminal.
        let clean = |cell: String| cell.replace(|c: char| c.is_control(), " ");
        self.0.add_row(cells.into_iter().map(clean));
    }

    /// The table, or `empty` when it has no rows.
    pub(crate) fn render(&self, empty: &str) -> String {
        if self.0.is_empty() {
            return empty.to_owned();
        }
        let text = self.0.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// A field as it stands in a table: `-` when it is absent or `null`.
pub(crate) fn field(object: &Value, name: &str) -> String {
    shown(&object[name])
}

/// A value as it stands in a table.
pub(crate) fn shown(value: &Value) -> String {
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
pub(crate) fn items<'v>(answer: &'v Value, name: &str) -> &'v [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

/// An integer with separators: `1,234,567`.
pub(crate) fn integer(n: u64) -> String {
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
pub(crate) fn duration(ms: u64) -> String {
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
