//! `sluice status` and `sluice neighbours`: what control and data plane say about themselves.
//!
//! The status is shown as it comes, field by field: a newer server's fields show up unasked.

use serde_json::Value;
use sluice_api::clock::moment;

use crate::Context;
use crate::error::CliError;
use crate::table::{Table, duration, field, items, shown};

pub(super) async fn status(context: &Context) -> Result<(), CliError> {
    let answer = context.client.get("/status").await?;
    context.output.answer(&answer.body, readable)
}

pub(super) async fn neighbours(context: &Context) -> Result<(), CliError> {
    let answer = context.client.get("/neighbours").await?;
    context.output.answer(&answer.body, |body| {
        let mut table = Table::new(&["ADDRESS", "MAC", "PORT", "STATE", ">CONFIRMED"]);
        for next_hop in items(body, "neighbours") {
            let age = next_hop["age_ms"].as_u64();
            table.row(vec![
                field(next_hop, "address"),
                field(next_hop, "mac"),
                field(next_hop, "port"),
                field(next_hop, "state"),
                age.map_or("-".to_owned(), |age| duration(age) + " ago"),
            ]);
        }
        table.render("The data plane knows no next hops.")
    })
}

/// Plain fields first, then one section per object, one table per list of objects.
fn readable(status: &Value) -> String {
    let mut sections = Vec::new();
    section("", status, &mut sections);
    sections.join("\n\n")
}

fn section(title: &str, object: &Value, sections: &mut Vec<String>) {
    let fields = || object.as_object().into_iter().flatten();
    let plain: Vec<(&String, String)> = fields()
        .filter(|(_, value)| !value.is_object() && rows(value).is_none())
        .map(|(name, value)| (name, cell(name, value)))
        .collect();
    let width = plain.iter().map(|(name, _)| label(name).len()).max().unwrap_or(0);
    let mut lines: Vec<String> = plain
        .iter()
        .map(|(name, value)| format!("{:width$}  {value}", label(name)).trim_end().to_owned())
        .collect();
    if !title.is_empty() && !lines.is_empty() {
        lines.insert(0, title.to_owned());
    }
    if !lines.is_empty() {
        sections.push(lines.join("\n"));
    }
    for (name, value) in fields() {
        let title =
            if title.is_empty() { label(name) } else { format!("{title}, {}", label(name)) };
        if let Some(rows) = rows(value) {
            sections.push(format!("{title}\n{}", list(rows)));
        } else if value.is_object() {
            section(&title, value, sections);
        }
    }
}

/// A list of objects.
fn rows(value: &Value) -> Option<&[Value]> {
    let rows = value.as_array()?;
    (!rows.is_empty() && rows.iter().all(Value::is_object)).then_some(rows)
}

fn list(rows: &[Value]) -> String {
    let first = rows[0].as_object().into_iter().flatten();
    let names: Vec<(&String, bool)> = first.map(|(n, value)| (n, value.is_number())).collect();
    let columns: Vec<String> = names
        .iter()
        .map(|(name, number)| {
            format!("{}{}", if *number { ">" } else { "" }, label(name).to_uppercase())
        })
        .collect();
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for row in rows {
        table.row(names.iter().map(|(name, _)| cell(name, &row[name.as_str()])).collect());
    }
    table.render("")
}

/// A field's name without its unit, when [`cell`] shows the unit with the value.
fn label(name: &str) -> String {
    let name = name.strip_suffix("_ms").filter(|n| is_span(n)).unwrap_or(name);
    name.replace('_', " ")
}

/// Whether a field without its `_ms` is a span of time, not a moment.
fn is_span(name: &str) -> bool {
    name.ends_with("uptime") || name.ends_with("age")
}

fn cell(name: &str, value: &Value) -> String {
    let span = name.strip_suffix("_ms").is_some_and(is_span);
    match value.as_u64() {
        Some(ms) if span => duration(ms),
        Some(0) if name.ends_with("_ms") => "-".to_owned(),
        Some(ms) if name.ends_with("at_ms") || name.ends_with("since_ms") => moment(ms),
        _ => shown(value),
    }
    .replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_shown_whatever_fields_it_has() {
        let status = json!({
            "version": "0.1.0",
            "dataplane": {
                "connected": true, "uptime_ms": 7_500_000, "limits": {"connections": 1_000},
                "ports": [{"name": "p0", "mtu": 1_500}, {"name": "p1", "mtu": 9_000}],
            },
            "announced": [],
        });
        let text = readable(&status);
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "announced  -",
            "version    0.1.0",
            "",
            "dataplane",
            "connected  yes",
            "uptime     2h 5m",
            "",
            "dataplane, limits",
            "connections  1000",
            "",
            "dataplane, ports",
            " MTU  NAME",
            "1500  p0",
            "9000  p1",
        ];
        assert_eq!(lines, expected, "{text}");
    }
}
