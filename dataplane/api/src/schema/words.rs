//! What is said of fields and values: what would be accepted, what was given, which name was meant.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::{Field, Kind, Spelling};

impl Field {
    /// What is accepted, of a list as an element.
    pub fn accepted(&self) -> String {
        match &self.accepted {
            Some(words) => words.clone(),
            None => words(self.kind.element(), &self.name),
        }
    }

    /// What is accepted as a whole.
    pub(super) fn accepted_in(&self, spelling: Spelling) -> String {
        match &self.kind {
            Kind::List(element) => match (&**element, spelling) {
                (Kind::Object(_), Spelling::Json) => format!("an array of {}", self.name),
                (Kind::Object(_), Spelling::Toml) => {
                    format!("tables of the form [[service.{}]]", spelling.of(self))
                }
                _ => format!("an array, each element {}", self.accepted()),
            },
            _ => self.accepted(),
        }
    }
}

fn words(kind: &Kind, name: &str) -> String {
    match kind {
        Kind::Text => "a string".to_owned(),
        Kind::Address => "an IPv4 address, as \"10.0.0.1\"".to_owned(),
        Kind::Integer { least, most, .. } => {
            let unit = if name.ends_with("_ms") { " ms" } else { "" };
            format!("{}{unit}", range_text(&(*least..=*most)))
        }
        Kind::Word(words) => one_of(words),
        Kind::List(element) => format!("an array, each element {}", self::words(element, name)),
        Kind::Object(_) => AN_OBJECT.to_owned(),
    }
}

/// What is expected where fields are.
pub(super) const AN_OBJECT: &str = "an object with named fields";

/// Words to choose from, as `"a", "b" or "c"`.
fn one_of(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}

/// An inclusive range in words.
pub fn range_text<T: fmt::Display>(range: &RangeInclusive<T>) -> String {
    format!("{} to {}", range.start(), range.end())
}

/// Which of the names that there are was meant by one that there is not; none when none is near.
pub fn nearest<N: AsRef<str>>(name: &str, known: impl IntoIterator<Item = N>) -> Option<N> {
    // More than a third of it is another name.
    let far = (name.len() / 3).max(1);
    let distance = |known: &N| strsim::damerau_levenshtein(name, known.as_ref());
    let near = known.into_iter().map(|known| (distance(&known), known));
    near.filter(|(distance, _)| *distance <= far).min_by_key(|(d, _)| *d).map(|(_, known)| known)
}

/// A value as it was sent, bounded: it may be as long as a body.
pub fn shown(value: &Value) -> String {
    const MOST: usize = 120;
    let mut text = Beginning(Vec::new());
    // An error says that this is enough of it.
    let is_whole = serde_json::to_writer(&mut text, value).is_ok();
    let text = String::from_utf8_lossy(&text.0);
    if is_whole && text.chars().count() <= MOST {
        return text.into_owned();
    }
    text.chars().take(MOST).chain("…".chars()).collect()
}

/// The first bytes of what is written; more is refused.
struct Beginning(Vec<u8>);

impl io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /// Those of 120 characters and some.
        const MOST: usize = 1 << 10;
        let room = MOST - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant() {
        let known = ["port", "protocol", "pool", "mode"];
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("protocoll", known), Some("protocol"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", known), None);
    }

    #[test]
    fn choices_in_words() {
        let words =
            |list: &[&str]| one_of(&list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["a"]), "\"a\"");
        assert_eq!(words(&["a", "b"]), "\"a\" or \"b\"");
        assert_eq!(words(&["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
    }
}
