//! The little of man(7) that our pages need: sections, paragraphs, lists and examples, in lines that
//! mandoc's lint has nothing to say about.

use clap_mangen::roff::{Roff, roman};

/// Longest line of text; mandoc wants at most 80 bytes.
const WIDTH: usize = 78;

/// Plain text as roff: nothing in it is taken for a request.
pub fn text(plain: &str) -> String {
    Roff::new().text([roman(plain)]).to_roff().trim_end().to_owned()
}

/// The same, in the middle of a line.
pub fn text_within(plain: &str) -> String {
    plain.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

/// The line that a page begins with.
pub fn title(name: &str, section: &str, date: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(".TH {} {section} {date} \"sluice {version}\" Sluice\n", name.to_uppercase())
}

/// The head of a section.
pub fn section(name: &str) -> String {
    if name.contains(' ') { format!(".SH \"{name}\"\n") } else { format!(".SH {name}\n") }
}

/// A list of things and what they are, in roff's own words.
pub fn list(items: impl IntoIterator<Item = (String, String)>) -> String {
    items.into_iter().map(|(tag, meaning)| format!(".TP\n\\fB{tag}\\fR\n{meaning}\n")).collect()
}

/// A paragraph.
pub fn paragraph(roff: &str) -> String {
    format!(".PP\n{roff}\n")
}

/// Lines that stay as they are.
pub fn example(plain: &str) -> String {
    let lines: String = plain.trim_end().lines().map(|line| literal(line) + "\n").collect();
    format!(".PP\n.RS 4\n.EX\n{lines}.EE\n.RE\n")
}

fn literal(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if line.starts_with('.') { format!("\\&{line}") } else { line }
}

/// Break lines of text that are too long, and take away what only makes mandoc talk: blanks at the end
/// of a line, requests that have no effect.
pub fn tidy(page: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut literal = false;
    for line in page.lines().map(str::trim_end) {
        literal = match line {
            ".EX" => true,
            ".EE" => false,
            _ => literal,
        };
        if literal || line.starts_with(['.', '\'']) {
            let last = out.last().map_or("", String::as_str);
            let head = [".SH ", ".SS "].iter().any(|head| last.starts_with(head));
            if (line == ".br" && last == ".sp") || (line == ".PP" && head) {
                continue;
            }
            out.push(line.to_owned());
        } else if line.is_empty() {
            if out.last().is_some_and(|last| last == ".br") {
                out.pop();
            }
            out.push(".sp".to_owned());
        } else {
            wrap(line, &mut out);
        }
    }
    out.join("\n") + "\n"
}

fn wrap(line: &str, out: &mut Vec<String>) {
    let mut current = String::new();
    for word in line.split(' ') {
        if !current.is_empty() && current.len() + 1 + word.len() > WIDTH {
            out.push(std::mem::take(&mut current));
        }
        if current.is_empty() {
            // At the start of a line these would be requests.
            if word.starts_with(['.', '\'']) {
                current.push_str("\\&");
            }
        } else {
            current.push(' ');
        }
        current.push_str(word);
    }
    out.push(current);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_a_request() {
        assert_eq!(text(".SH x"), "\\&.SH x");
        assert_eq!(text("a-b \\n"), "a\\-b \\\\n");
        assert_eq!(example(".\\a -b"), ".PP\n.RS 4\n.EX\n\\&.\\ea \\-b\n.EE\n.RE\n");
    }

    #[test]
    fn long_lines_are_broken_between_words_and_examples_are_not() {
        let words = format!("{} .dots", "word ".repeat(15).trim_end());
        assert_eq!(tidy(&words), format!("{}\n\\&.dots\n", "word ".repeat(15).trim_end()));
        let example = format!(".EX\n{}\n.EE\n", "x y".repeat(40));
        assert_eq!(tidy(&example), example);
    }

    #[test]
    fn requests_without_effect_go() {
        assert_eq!(tidy("a \n.br\n\n.br\nb"), "a\n.sp\nb\n");
        assert_eq!(tidy(".SH A\n.PP\na\n.PP\nb"), ".SH A\na\n.PP\nb\n");
    }
}
