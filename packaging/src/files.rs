//! The pages of both files, `sluice-dataplane.toml(5)` and `sluice-control.toml(5)`, made from
//! `docs/configuration.md`: every key stands there once.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::manual::{DOCUMENTS, references};
use crate::roff;

const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// One of the two files.
struct File {
    name: &'static str,
    about: &'static str,
    path: &'static str,
    /// Its part of the reference.
    heading: &'static str,
    description: &'static str,
    check: &'static str,
    example: &'static str,
    see_also: &'static [&'static str],
}

const FILES: [File; 2] = [
    File {
        name: "sluice-dataplane.toml",
        about: "file of Sluice's data plane: CPUs, memory, ports, routes",
        path: "/etc/sluice/dataplane.toml",
        heading: "The data plane's file",
        description: "TOML, read by sluice-dataplane(8) at its start. Only [[port]] is required. \
                      Services never stand here. Unknown keys, wrong types and values out of range are \
                      errors; all of them are told at once, and nothing is half applied.",
        check: "sluice-dataplane --check --config /etc/sluice/dataplane.toml",
        example: include_str!("../../docs/examples/dataplane.toml"),
        see_also: &["sluice-dataplane(8)", "sluice-control.toml(5)", "sluice(1)"],
    },
    File {
        name: "sluice-control.toml",
        about: "file of Sluice's control process: API, services, pools",
        path: "/etc/sluice/control.toml",
        heading: "Control's file",
        description: "TOML, read by sluice-control(8). Every table may be absent. Unknown keys, wrong \
                      types and values out of range are errors; all of them are told at once, and \
                      nothing is half applied.",
        check: "sluice-control --check --config /etc/sluice/control.toml",
        example: include_str!("../../docs/examples/control.toml"),
        see_also: &["sluice-control(8)", "sluice-dataplane.toml(5)", "sluice(1)"],
    },
];

/// Both pages: file name and text.
pub fn pages(date: &str) -> Vec<(String, String)> {
    FILES.iter().map(|file| (format!("{}.5", file.name), page(file, date))).collect()
}

fn page(file: &File, date: &str) -> String {
    let mut page = roff::title(file.name, "5", date);
    page += &roff::section("NAME");
    page += &format!("{} \\- {}\n", roff::text(file.name), roff::text(file.about));
    page += &roff::section("SYNOPSIS");
    page += &format!("\\fB{}\\fR\n", roff::text(file.path));
    page += &roff::section("DESCRIPTION");
    page += &format!("{}\n", roff::text(file.description));
    // What names and addresses are goes for both files.
    for paragraph in Reference::of("Configuration reference").paragraphs {
        if paragraph.starts_with("\\fB") {
            page += &roff::paragraph(&paragraph);
        }
    }
    page += &roff::section("TABLES");
    page += &Reference::of(file.heading).roff;
    page += &roff::section("ENVIRONMENT");
    page += &format!("{}\n", Reference::of("Environment").paragraphs.join("\n"));
    page += &roff::section("FILES");
    page += &roff::list([(
        roff::text(file.path),
        roff::text("Where the unit and this package expect it."),
    )]);
    page += &roff::section("EXIT STATUS");
    page += "A wrong file ends the program with 78, also at its start.\n";
    page += &roff::section("EXAMPLES");
    page += &format!("{}\n", roff::text("Is a file good?"));
    page += &roff::example(file.check);
    page += &roff::paragraph(&roff::text("Every key:"));
    page += &roff::example(file.example);
    page += &roff::section("SEE ALSO");
    page += &references(file.see_also);
    page += &roff::paragraph(&roff::text(DOCUMENTS));
    roff::tidy(&page)
}

/// What stands below a heading of the reference, as roff.
#[derive(Default)]
struct Reference {
    roff: String,
    /// Its paragraphs alone.
    paragraphs: Vec<String>,
    /// Tables of keys: the TOML table's name, and the keys.
    #[cfg(test)]
    keys: Vec<(String, Vec<String>)>,
}

/// A table of the reference while it is read.
#[derive(Default)]
struct Table {
    head: Vec<String>,
    row: Vec<String>,
}

/// A text while it is read: for a page, and as it is.
#[derive(Default)]
struct Text {
    roff: String,
    plain: String,
    /// In a block of code, which needs no words of roff.
    is_literal: bool,
}

impl Text {
    fn clear(&mut self) {
        self.roff.clear();
        self.plain.clear();
    }

    /// What stands within a line.
    fn read(&mut self, event: Event) {
        match event {
            Event::Text(text) => {
                self.plain += &text;
                if !self.is_literal {
                    self.roff += &roff::text_within(&text);
                }
            }
            Event::Code(code) => {
                self.plain += &code;
                self.roff += &format!("\\fB{}\\fR", roff::text_within(&code));
            }
            Event::SoftBreak | Event::HardBreak => {
                self.plain.push(' ');
                self.roff.push(' ');
            }
            Event::Start(Tag::Strong) => self.roff += "\\fB",
            Event::Start(Tag::Emphasis) => self.roff += "\\fI",
            Event::End(TagEnd::Strong | TagEnd::Emphasis) => self.roff += "\\fR",
            _ => {}
        }
    }
}

impl Reference {
    /// The part below a heading of the first or second level, up to the next of them.
    fn of(heading: &str) -> Reference {
        let mut part = Reference::default();
        let mut inside = false;
        let mut level = None;
        let mut text = Text::default();
        let mut table = Table::default();
        for event in Parser::new_ext(REFERENCE, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { level: l, .. }) => {
                    level = Some(l);
                    text.clear();
                }
                Event::End(TagEnd::Heading(_)) => {
                    if level.take().is_some_and(|level| level <= HeadingLevel::H2) {
                        inside = text.plain == heading;
                    } else if inside {
                        part.heading(&text.plain);
                    }
                    text.clear();
                }
                Event::Start(Tag::CodeBlock(_)) => text.is_literal = true,
                Event::End(TagEnd::CodeBlock) => {
                    text.is_literal = false;
                    if inside {
                        part.roff += &roff::example(&text.plain);
                    }
                    text.clear();
                }
                Event::Start(Tag::Paragraph | Tag::TableCell) => text.clear(),
                Event::End(TagEnd::Paragraph) if inside => {
                    part.roff += &roff::paragraph(&text.roff);
                    part.paragraphs.push(std::mem::take(&mut text.roff));
                }
                Event::Start(Tag::Table(_)) => table = Table::default(),
                Event::End(TagEnd::TableCell) => table.row.push(std::mem::take(&mut text.roff)),
                Event::End(TagEnd::TableHead) => table.head = std::mem::take(&mut table.row),
                Event::End(TagEnd::TableRow) => {
                    let row = std::mem::take(&mut table.row);
                    if inside {
                        part.row(&table.head, &row);
                    }
                }
                within => text.read(within),
            }
        }
        part
    }

    fn heading(&mut self, plain: &str) {
        self.roff += &format!(".SS \"{}\"\n", roff::text(plain));
        #[cfg(test)]
        self.keys.push((plain.split(',').next().unwrap_or(plain).to_owned(), Vec::new()));
    }

    /// A row: its first cell, then what the others say, each by the name of its column where that is not
    /// plain from what it says.
    fn row(&mut self, head: &[String], row: &[String]) {
        let Some((tag, rest)) = row.split_first() else { return };
        #[cfg(test)]
        if head[0] == "key"
            && let Some((_, keys)) = self.keys.last_mut()
        {
            keys.push(tag.replace("\\fB", "").replace("\\fR", "").replace("\\-", "-"));
        }
        let mut facts = Vec::new();
        let mut meaning = String::new();
        for (name, cell) in head.iter().skip(1).zip(rest).filter(|(_, cell)| !cell.is_empty()) {
            match name.as_str() {
                "type" => facts.push(cell.clone()),
                "default" if cell == "required" => facts.push(cell.clone()),
                "default" | "accepted" => facts.push(format!("{name} {cell}")),
                _ => meaning.clone_from(cell),
            }
        }
        self.roff += &format!(".TP\n{tag}\n");
        if !facts.is_empty() {
            self.roff += &format!("{}.\n", facts.join("; ").trim_end_matches('.'));
        }
        if !meaning.is_empty() {
            self.roff += &format!("{meaning}\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The keys that a page documents for a table of the file; tables below it count as keys.
    fn documented(heading: &str, table: &str) -> BTreeSet<String> {
        let keys = Reference::of(heading).keys;
        let own = keys.iter().find(|(name, _)| name.trim_matches(['[', ']']) == table);
        let own = own.unwrap_or_else(|| panic!("no table {table} below {heading}: {keys:?}"));
        let prefix = format!("{table}.");
        let below = keys.iter().filter_map(|(name, _)| {
            name.trim_matches(['[', ']']).strip_prefix(&prefix).map(str::to_owned)
        });
        own.1.iter().cloned().chain(below).collect()
    }

    /// The keys in a message as "expected one of the keys a, b, c".
    fn known(expected: &str, before: &str) -> BTreeSet<String> {
        let (_, list) = expected.split_once(before).unwrap_or_else(|| panic!("{expected}"));
        list.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_data_planes_keys_are_those_that_its_reader_knows() {
        for table in ["runtime", "control", "limits", "port", "route", "exception"] {
            let head = match table {
                "port" | "route" => format!("[[{table}]]"),
                _ => format!("[{table}]"),
            };
            let text = format!("{head}\nno_such_key = 1\n");
            let problems = sluice_dataplane::config::Config::parse(&text, &[0, 1]).unwrap_err();
            let problem = problems
                .iter()
                .find(|found| found.problem.field.ends_with("no_such_key"))
                .unwrap_or_else(|| panic!("{problems:?}"));
            let known = known(&problem.problem.expected, "one of the keys ");
            assert_eq!(documented("The data plane's file", table), known, "{table}");
        }
    }

    #[test]
    fn controls_keys_are_those_that_its_reader_knows() {
        let service = "[[service]]\nname = \"a\"\nvip = \"10.0.0.1\"\nport = 1\nprotocol = \"tcp\"\n\
                       mode = \"dr\"\n";
        for table in [
            "control",
            "pool",
            "service",
            "service.timeouts",
            "service.health_check",
            "service.backend",
        ] {
            let text = match table {
                "control" => "[control]\n".to_owned(),
                "pool" => "[[pool]]\nname = \"a\"\naddresses = [\"10.0.0.2\"]\n".to_owned(),
                "service" => service.to_owned(),
                "service.backend" => {
                    format!("{service}[[service.backend]]\naddress = \"10.0.0.3\"\nport = 1\n")
                }
                below => format!("{service}[{below}]\n"),
            };
            let text = format!("{text}no_such_key = 1\n");
            let error =
                sluice_control::config::Config::parse(&text, Path::new("x.toml")).unwrap_err();
            let sluice_control::config::ConfigError::Invalid { problems, .. } = error else {
                panic!("{error}")
            };
            let problem = problems
                .iter()
                .find(|problem| problem.field.ends_with("no_such_key"))
                .unwrap_or_else(|| panic!("{problems:?}"));
            let known = known(&problem.expected, "a known field: ");
            assert_eq!(documented("Control's file", table), known, "{table}");
        }
    }

    #[test]
    fn every_key_has_a_type_or_default_and_what_is_accepted() {
        let page =
            pages("2026-11-30").into_iter().find(|(name, _)| name.contains("data")).unwrap().1;
        let (_, mtu) = page.split_once(".TP\n\\fBmtu\\fR\n").unwrap();
        assert!(
            mtu.starts_with("integer, bytes; default \\fB1500\\fR; accepted 576 to 9216.\n"),
            "{mtu}"
        );
    }
}
