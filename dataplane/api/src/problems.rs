//! What is wrong: a field, what it holds, what would be accepted; and all of it, as far as a person reads: the first problems, and how many
//! more there are. Who sends a million bad values makes neither a million answers nor memory for them.

use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that is wrong: which field, what it holds, what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Path of the field, as `services[web].backends[10.0.0.1:80].weight`.
    pub field: String,
    /// What it holds.
    pub value: String,
    /// What would be accepted.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: expected {}", self.field, self.value, self.expected)
    }
}

impl Problem {
    /// A problem with a field; what is longer than a person reads is cut.
    pub fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        let [field, value, expected] =
            [field.into(), value.to_string(), expected.into()].map(|text| cut(text, MOST_TEXT));
        Problem { field, value, expected }
    }
}

/// Longest text of a problem, in bytes.
const MOST_TEXT: usize = 1_000;
/// Most problems that are told.
pub const MOST_PROBLEMS: usize = 100;
/// Most bytes of their texts.
const MOST_BYTES: usize = 32 << 10;

/// Problems that are found one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    first: Vec<Problem>,
    /// Of the texts of the first.
    bytes: usize,
    more: usize,
    /// Those that are none here.
    excused: HashSet<Problem>,
    /// Whether all are kept, for a program to go through.
    keeps_all: bool,
}

impl Problems {
    /// None, and all will be kept, however many: not for what a client can make.
    pub fn keeping_all() -> Self {
        Problems { keeps_all: true, ..Problems::default() }
    }

    /// None, and none will be any of these.
    pub fn except(excused: HashSet<Problem>) -> Self {
        Problems { excused, ..Problems::default() }
    }

    /// One more.
    pub fn push(&mut self, problem: Problem) {
        if self.excused.contains(&problem) {
            return;
        }
        let bytes = problem.field.len() + problem.value.len() + problem.expected.len();
        let is_first = self.first.is_empty();
        let fits = self.first.len() < MOST_PROBLEMS && self.bytes + bytes <= MOST_BYTES;
        if self.keeps_all || is_first || (self.more == 0 && fits) {
            self.bytes += bytes;
            self.first.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// One more, which need not be put into words any more when there are many.
    pub fn push_with(&mut self, problem: impl FnOnce() -> Problem) {
        if self.more > 0 && self.excused.is_empty() { self.more += 1 } else { self.push(problem()) }
    }

    /// Those of another list, which is empty then.
    pub fn append(&mut self, other: &mut Problems) {
        let Problems { first, more, .. } = std::mem::take(other);
        first.into_iter().for_each(|problem| self.push(problem));
        self.more += more;
    }

    /// The same problems, each in other words.
    #[must_use]
    pub fn map(self, words: impl FnMut(Problem) -> Problem) -> Self {
        Problems { first: self.first.into_iter().map(words).collect(), ..self }
    }

    /// How many there are beside those that are told.
    pub fn more(&self) -> usize {
        self.more
    }

    /// How many there are in all.
    pub fn count(&self) -> usize {
        self.first.len() + self.more
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// A line for each that is told, and one for the others.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.first.iter().map(Problem::to_string).chain(and_more(self.more))
    }

    /// As a list for who knows no other, with the number of the others as its last.
    pub fn into_vec(mut self) -> Vec<Problem> {
        if self.more > 0 {
            let more = format!("{} more problems", self.more);
            self.first.push(Problem::new("(and more)", more, "the first ones to be mended"));
        }
        self.first
    }
}

/// What is said of those that are not told.
pub fn and_more(more: usize) -> Option<String> {
    (more > 0).then(|| format!("and {more} more"))
}

/// Those that are told.
impl Deref for Problems {
    type Target = [Problem];

    fn deref(&self) -> &[Problem] {
        &self.first
    }
}

/// Those that are told.
impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        let mut problems = Problems::default();
        problems.push(problem);
        problems
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(all: I) -> Self {
        let mut problems = Problems::default();
        all.into_iter().for_each(|problem| problems.push(problem));
        problems
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first.first() {
            Some(one) if self.count() == 1 => one.fmt(f),
            Some(first) => write!(f, "{} problems, the first: {first}", self.count()),
            None => f.write_str("invalid"),
        }
    }
}

/// A text, or its beginning when it has more bytes than `most`.
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A text from elsewhere as part of a problem: bounded, without control characters.
pub fn label(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(n: usize) -> Problem {
        Problem::new(format!("field {n}"), n, "another")
    }

    #[test]
    fn a_hundred_are_told_and_the_others_counted() {
        let mut problems: Problems = (0..100).map(problem).collect();
        assert_eq!((problems.len(), problems.more()), (100, 0));
        problems.push(problem(100));
        problems.push_with(|| panic!("needs no words"));
        assert_eq!((problems.len(), problems.count()), (100, 102));
        assert_eq!(problems.to_string(), "102 problems, the first: field 0 is 0: expected another");
        assert_eq!(problems.lines().last().unwrap(), "and 2 more");
        let mut all: Problems = (0..7).map(problem).collect();
        all.append(&mut problems.clone());
        assert_eq!((all.len(), all.count()), (100, 109));
        let list = problems.into_vec();
        assert_eq!((list.len(), list[100].value.as_str()), (101, "2 more problems"));
    }

    #[test]
    fn long_ones_are_cut_and_fewer() {
        let long = |n| Problem::new(format!("field {n}"), "ä".repeat(10 << 20), "another");
        let problems: Problems = (0..50).map(long).collect();
        assert_eq!((problems.len(), problems.count()), (32, 50));
        assert_eq!(problems[0].value, "ä".repeat(500) + "…");
    }

    #[test]
    fn what_is_excused_is_no_problem() {
        let before: HashSet<Problem> = (0..500).map(problem).collect();
        let mut problems = Problems::except(before);
        (0..501).for_each(|n| problems.push_with(|| problem(n)));
        assert_eq!((problems.count(), problems[0].value.as_str()), (1, "500"));
    }
}
