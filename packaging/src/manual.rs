//! The pages of a program: one for the command, and one for each command below it, as
//! `sluice-service-create(1)`. What clap knows comes from clap; the rest from [`Program`].

use std::io;

use clap::Command;

use crate::programs::{Example, Program};
use crate::roff;

/// The head of the list in a command's `after_help` that becomes the section EXIT STATUS.
const EXIT_CODES: &str = "Exit codes:\n";

/// All pages of a program: file name and text.
pub fn pages(program: &Program, date: &str) -> io::Result<Vec<(String, String)>> {
    // Built, it knows how each command below is called, and which options go for all of them. A page
    // about `help` would tell nothing.
    let mut command = program.command.clone().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    let name = command.get_name().to_owned();
    page_and_below(program, &command, &[name], date, &mut pages)?;
    Ok(pages)
}

/// A page for the command that these words call, and for those below it.
fn page_and_below(
    program: &Program,
    command: &Command,
    words: &[String],
    date: &str,
    pages: &mut Vec<(String, String)>,
) -> io::Result<()> {
    let name = words.join("-");
    pages.push((format!("{name}.{}", program.section), page(program, command, words, date)?));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let words: Vec<_> = words.iter().cloned().chain([below.get_name().to_owned()]).collect();
        page_and_below(program, below, &words, date, pages)?;
    }
    Ok(())
}

fn page(program: &Program, command: &Command, words: &[String], date: &str) -> io::Result<String> {
    let man = clap_mangen::Man::new(command.clone());
    let part = |render: &dyn Fn(&mut dyn io::Write) -> io::Result<()>| {
        let mut out = Vec::new();
        render(&mut out)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&out).into_owned())
    };
    let (notes, exit_codes) = after_help(&program.command);
    let top = words.len() == 1;

    let mut page = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n".to_owned();
    page += &roff::title(&words.join("-"), program.section, date);
    page += &part(&|w| man.render_name_section(w))?;
    page += &part(&|w| man.render_synopsis_section(w))?;
    page += &part(&|w| man.render_description_section(w))?;
    if top && !notes.is_empty() {
        page += &roff::paragraph(&roff::text(&notes));
    }
    page += &part(&|w| man.render_options_section(w))?;
    if command.has_subcommands() {
        page += &part(&|w| man.render_subcommands_section(w))?;
    }
    page += &roff::section("EXIT STATUS");
    page += &roff::list(exit_codes.into_iter().map(|(code, meaning)| (code, roff::text(&meaning))));
    page += &told("ENVIRONMENT", program.environment);
    page += &told("FILES", program.files);
    page += &examples(program.examples, words);
    page += &see_also(program, command, words);
    Ok(roff::tidy(&page))
}

/// A section that lists words and what they mean.
fn told(name: &str, items: &[(&str, &str)]) -> String {
    let items = items.iter().map(|(tag, meaning)| (roff::text(tag), roff::text(meaning)));
    roff::section(name) + &roff::list(items)
}

/// The examples that use a command.
fn examples(all: &[Example], words: &[String]) -> String {
    let mut section = roff::section("EXAMPLES");
    for example in all.iter().filter(|example| example.uses(words)) {
        section += &roff::paragraph(&roff::text(example.does));
        section += &roff::example(example.line);
    }
    section
}

/// The page above, those below, and what the program names.
fn see_also(program: &Program, command: &Command, words: &[String]) -> String {
    let section = program.section;
    let mut pages = Vec::new();
    if let [above @ .., _] = words
        && !above.is_empty()
    {
        pages.push(format!("{}({section})", above.join("-")));
    }
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages.push(format!("{}-{}({section})", words.join("-"), below.get_name()));
    }
    pages.extend(program.see_also.iter().map(|page| (*page).to_owned()));
    roff::section("SEE ALSO") + &references(&pages) + &roff::paragraph(&roff::text(DOCUMENTS))
}

/// Where more is written.
pub const DOCUMENTS: &str = "All of Sluice's documentation: /usr/share/doc/sluice/README.md";

/// Names of other pages, in bold, with commas between.
pub fn references<S: AsRef<str>>(pages: &[S]) -> String {
    let mut out = String::new();
    for (index, page) in pages.iter().enumerate() {
        let (name, section) = page.as_ref().split_once('(').unwrap_or((page.as_ref(), ""));
        let comma = if index + 1 == pages.len() { "" } else { "," };
        out += &format!(".BR {} ({section}{comma}\n", roff::text(name));
    }
    out
}

/// What stands behind a command's help: text, and its exit codes with their meanings.
fn after_help(command: &Command) -> (String, Vec<(String, String)>) {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let Some((before, rest)) = after.split_once(EXIT_CODES) else { return (after, Vec::new()) };
    let list = rest.lines().take_while(|line| line.starts_with("  "));
    let mut codes: Vec<(String, String)> = Vec::new();
    for line in list.clone() {
        match (line.trim().split_once("  "), codes.last_mut()) {
            (Some((code, meaning)), _) if code.parse::<u8>().is_ok() => {
                codes.push((code.to_owned(), meaning.trim().to_owned()));
            }
            // A meaning that goes on in the next line.
            (_, Some((_, meaning))) => *meaning += &format!(" {}", line.trim()),
            (_, None) => {}
        }
    }
    let behind = rest.lines().skip(list.count()).collect::<Vec<_>>().join(" ");
    (format!("{before}{behind}").trim().to_owned(), codes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs;

    #[test]
    fn every_page_has_all_its_sections_and_a_date() {
        for program in programs::all() {
            for (name, page) in pages(&program, "2026-11-30").unwrap() {
                assert!(page.contains(" 2026-11-30 \"sluice "), "{name}: {page}");
                for section in
                    ["\"EXIT STATUS\"", "ENVIRONMENT", "FILES", "EXAMPLES", "\"SEE ALSO\""]
                {
                    let (_, body) = page
                        .split_once(&format!(".SH {section}\n"))
                        .unwrap_or_else(|| panic!("{name} has no {section}"));
                    let body = body.split(".SH ").next().unwrap();
                    assert!(!body.trim().is_empty(), "{name}: {section} is empty");
                }
            }
        }
    }

    #[test]
    fn exit_codes_are_those_of_the_help() {
        let command = Command::new("x").after_help(
            "Exit codes:\n  0  done\n  78  the file\n      is wrong\n\nWith more\ntext.",
        );
        let codes = [("0", "done"), ("78", "the file is wrong")];
        let codes = codes.map(|(code, meaning)| (code.to_owned(), meaning.to_owned())).to_vec();
        assert_eq!(after_help(&command), ("With more text.".to_owned(), codes));
        for program in programs::all() {
            let codes: Vec<_> = after_help(&program.command).1.into_iter().map(|c| c.0).collect();
            assert!(["0", "1", "2"].iter().all(|code| codes.contains(&(*code).to_owned())));
        }
    }
}
