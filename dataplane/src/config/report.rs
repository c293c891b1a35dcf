//! Collects everything that is wrong with a file, each with its place in the text. Values are read
//! by field; the rules that come later name the field alone and the place is found here.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use sluice_api::Problem;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A problem and where in the file it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// The problems found so far, and the places of the fields read so far.
pub(super) struct Report<'t> {
    text: &'t str,
    /// Where each field's value begins, in bytes.
    places: HashMap<String, usize>,
    problems: Vec<(usize, Problem)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Report { text, places: HashMap::new(), problems: Vec::new() }
    }

    /// Report a field. One that is absent from the file is put where its section begins.
    pub(super) fn problem(&mut self, field: &str, value: impl fmt::Display, expected: &str) {
        let mut known = field;
        let place = loop {
            match (self.places.get(known), known.rsplit_once('.')) {
                (Some(place), _) => break *place,
                (None, Some((section, _))) => known = section,
                (None, None) => break 0,
            }
        };
        self.problem_at(place, field, value, expected);
    }

    pub(super) fn problem_at(
        &mut self,
        place: usize,
        field: &str,
        value: impl fmt::Display,
        expected: &str,
    ) {
        self.problems.push((place, Problem::new(field, value, expected)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Everything reported, in the order of the file.
    pub(super) fn into_problems(mut self) -> Vec<FileProblem> {
        self.problems.sort_by_key(|(place, _)| *place);
        let text = self.text;
        let located = |(place, problem)| {
            let (line, column) = line_and_column(text, place);
            FileProblem { line, column, problem }
        };
        self.problems.into_iter().map(located).collect()
    }

    /// A value as it stands in the file, cut to a readable length.
    fn source(&self, span: Range<usize>) -> String {
        const MOST: usize = 60;
        let source = self.text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
        match source.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", &source[..end]),
            None => source.to_owned(),
        }
    }
}

/// Problems of values that were read and taken, each put where its value stands in the text.
pub(super) fn located(text: &str, problems: Vec<(String, Problem)>) -> Vec<FileProblem> {
    let located = |(value, problem): (String, Problem)| {
        let place = ['"', '\''].map(|quote| text.find(&format!("{quote}{value}{quote}")));
        let place = place.into_iter().flatten().next().unwrap_or(0);
        let (line, column) = line_and_column(text, place);
        FileProblem { line, column, problem }
    };
    problems.into_iter().map(located).collect()
}

fn line_and_column(text: &str, place: usize) -> (usize, usize) {
    let before = text.get(..place).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// One table of the file. Reading a key gives `None` when it is absent or, after reporting it,
/// when its value is of the wrong kind.
pub(super) struct Section<'a> {
    /// Its path, as `port[lan]`; empty for the file itself.
    path: String,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    /// A table that holds the accepted keys only: others are reported.
    pub(super) fn new(
        report: &mut Report<'_>,
        path: String,
        table: &'a DeTable<'a>,
        place: usize,
        accepted: &[&str],
    ) -> Self {
        report.places.insert(path.clone(), place);
        let section = Section { path, table: Some(table) };
        for (key, value) in table {
            let field = section.field(key.get_ref());
            if accepted.contains(&key.get_ref().as_ref()) {
                report.places.insert(field, value.span().start);
            } else {
                let expected = format!("one of the keys {}", accepted.join(", "));
                report.problem_at(key.span().start, &field, "an unknown key", &expected);
            }
        }
        section
    }

    /// The path of one of its keys.
    pub(super) fn field(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    fn wrong(
        &self,
        report: &mut Report<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &str,
    ) {
        let source = report.source(value.span());
        report.problem_at(value.span().start, &self.field(key), source, expected);
    }

    /// The table under a key; an empty one when the key is absent.
    pub(super) fn table(
        &self,
        report: &mut Report<'_>,
        key: &str,
        accepted: &[&str],
    ) -> Section<'a> {
        let path = self.field(key);
        match self.get(key) {
            None => Section { path, table: None },
            Some(value) => match value.get_ref().as_table() {
                Some(table) => Section::new(report, path, table, value.span().start, accepted),
                None => {
                    self.wrong(report, key, value, &format!("a table: [{key}]"));
                    Section { path, table: None }
                }
            },
        }
    }

    /// The tables of an array of tables, each with the place where it begins.
    pub(super) fn tables(
        &self,
        report: &mut Report<'_>,
        key: &str,
    ) -> Vec<(&'a DeTable<'a>, usize)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = format!("an array of tables: [[{key}]]");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(report, key, value, &expected);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => tables.push((table, item.span().start)),
                None => self.wrong(report, key, item, &expected),
            }
        }
        tables
    }

    pub(super) fn string(&self, report: &mut Report<'_>, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        let string = value.get_ref().as_str();
        if string.is_none() {
            self.wrong(report, key, value, "a string in quotes");
        }
        string
    }

    /// The string of a key that must be there.
    pub(super) fn required(
        &self,
        report: &mut Report<'_>,
        key: &str,
        expected: &str,
    ) -> Option<&'a str> {
        if self.get(key).is_none() {
            report.problem(&self.field(key), "absent", expected);
        }
        self.string(report, key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn boolean(&self, report: &mut Report<'_>, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong(report, key, value, "true or false");
        }
        boolean
    }

    /// An integer within bounds.
    pub(super) fn integer<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        bounds: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + fmt::Display,
    {
        let value = self.get(key)?;
        let integer = as_integer(value.get_ref()).filter(|n| bounds.contains(n));
        if integer.is_none() {
            let expected = format!("an integer from {} to {}", bounds.start(), bounds.end());
            self.wrong(report, key, value, &expected);
        }
        integer
    }

    /// A list of strings.
    pub(super) fn strings(&self, report: &mut Report<'_>, key: &str) -> Option<Vec<&'a str>> {
        self.list(report, key, "strings in quotes", |value| value.as_str())
    }

    /// A list of integers that fit into `T`.
    pub(super) fn integers<T: TryFrom<i128>>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        kind: &str,
    ) -> Option<Vec<T>> {
        self.list(report, key, kind, as_integer)
    }

    fn list<T>(
        &self,
        report: &mut Report<'_>,
        key: &str,
        kind: &str,
        read: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(report, key, value, &format!("a list of {kind}"));
            return None;
        };
        let mut items = Vec::new();
        for item in array {
            match read(item.get_ref()) {
                Some(read) => items.push(read),
                None => self.wrong(report, key, item, &format!("a list of {kind}")),
            }
        }
        Some(items)
    }
}

fn as_integer<T: TryFrom<i128>>(value: &DeValue<'_>) -> Option<T> {
    let integer = value.as_integer()?;
    let digits = integer.as_str().replace('_', "");
    i128::from_str_radix(&digits, integer.radix()).ok().and_then(|n| T::try_from(n).ok())
}
