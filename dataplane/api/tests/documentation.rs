//! The tables of fields in `docs/configuration.md` and of drop reasons in `docs/operations.md` say what
//! the types declare.

use serde_json::Value;
use sluice_api::schema::{Field, Kind, Object, Resource};
use sluice_api::{Backend, DropReason, Pool, Service};

const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// A row of a table: its line, and its cells by the names of their columns.
struct Row {
    line: usize,
    cells: Vec<(&'static str, &'static str)>,
}

impl Row {
    fn cell(&self, column: &str) -> Option<&'static str> {
        self.cells.iter().find(|(name, _)| *name == column).map(|(_, cell)| *cell)
    }

    fn key(&self) -> &'static str {
        self.cell("key").unwrap_or_default().trim_matches('`')
    }
}

fn cells(line: &'static str) -> Vec<&'static str> {
    line.trim_matches('|').split(" |").map(str::trim).collect()
}

/// The rows of the table of keys below a heading of control's file.
fn rows(heading: &str) -> Vec<Row> {
    let lines = REFERENCE.lines().enumerate().map(|(index, line)| (index + 1, line));
    let of_control = lines.skip_while(|(_, line)| *line != "## Control's file");
    let below = of_control.skip_while(|(_, line)| *line != format!("### `{heading}`"));
    let mut table = below.skip_while(|(_, line)| !line.starts_with("| key"));
    let columns = cells(table.next().unwrap_or_else(|| panic!("no table of {heading}")).1);
    let row =
        |(line, text)| Row { line, cells: columns.iter().copied().zip(cells(text)).collect() };
    table.skip(1).take_while(|(_, line)| line.starts_with('|')).map(row).collect()
}

/// What a row says otherwise than its field.
fn wrong(row: &Row, field: &Field) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |column: &str, said: String| {
        if let Some(cell) = row.cell(column).filter(|cell| !cell.contains(&said)) {
            wrong.push(format!("{column} is {cell:?}: expected {said:?} there"));
        }
    };
    match (&field.default, field.is_required) {
        (_, true) => expect("default", "required".to_owned()),
        (Some(Value::Array(items)), _) if items.is_empty() => expect("default", "`[]`".to_owned()),
        (Some(Value::Null) | None, _) => {}
        (Some(default), _) => expect("default", format!("`{default}`")),
    }
    let kind = match field.kind.element() {
        Kind::Integer { .. } => "integer",
        Kind::Text | Kind::Address | Kind::Word(_) => "string",
        Kind::Object(_) | Kind::List(_) => "table",
    };
    let is_list = matches!(field.kind, Kind::List(_));
    expect("type", if is_list { format!("list of {kind}s") } else { kind.to_owned() });
    match field.kind.element() {
        // Up to another field, which stands in words.
        Kind::Integer { least, .. }
            if field.accepted().contains("_ms") && field.name == "timeout_ms" =>
        {
            expect("accepted", format!("{least} to `interval_ms`"));
        }
        Kind::Integer { least, most, .. } => expect("accepted", format!("{least} to {most}")),
        Kind::Word(words) => {
            words.iter().for_each(|word| expect("accepted", format!("`{word:?}`")))
        }
        _ => {}
    }
    wrong
}

/// Holds a table against what a type declares, but for fields with a table of their own.
fn compare(heading: &str, object: &Object, problems: &mut Vec<String>) {
    let rows = rows(heading);
    let has_none_of_its_own = |field: &&Field| !matches!(field.kind.element(), Kind::Object(_));
    for field in object.fields.iter().filter(has_none_of_its_own) {
        match rows.iter().find(|row| row.key() == field.name) {
            None => problems
                .push(format!("docs/configuration.md: {heading} has no row for {}", field.name)),
            Some(row) => problems.extend(wrong(row, field).into_iter().map(|what| {
                format!("docs/configuration.md:{}: {heading} {}: {what}", row.line, field.name)
            })),
        }
    }
    for row in rows.iter().filter(|row| object.field(row.key()).is_none()) {
        problems.push(format!(
            "docs/configuration.md:{}: {heading} has no field {}",
            row.line,
            row.key()
        ));
    }
}

fn below(name: &str) -> &'static Object {
    match &Service::object().field(name).unwrap().kind {
        Kind::Object(object) => object,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn the_tables_of_fields_say_what_the_types_declare() {
    let mut problems = Vec::new();
    compare("[[pool]]", Pool::object(), &mut problems);
    compare("[[service]]", Service::object(), &mut problems);
    compare("[service.timeouts]", below("timeouts"), &mut problems);
    compare("[service.health_check]", below("health_check"), &mut problems);
    compare("[[service.backend]]", Backend::object(), &mut problems);
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn the_table_of_drop_reasons_says_what_each_means() {
    let below = include_str!("../../../docs/operations.md")
        .lines()
        .skip_while(|line| *line != "## Drop reasons")
        .skip_while(|line| !line.starts_with("| reason"));
    let rows: Vec<&str> = below.skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), DropReason::COUNT);
    for (row, reason) in rows.iter().zip(DropReason::ALL) {
        // The documentation may go on where the code ends.
        let said = format!("| `{}` | {}", reason.name(), reason.meaning().trim_end_matches('.'));
        assert!(row.starts_with(&said), "{row}: expected {said}");
    }
}
