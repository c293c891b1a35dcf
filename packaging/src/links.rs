//! Links of Markdown documents: those that name a file must find it, and those that name a heading a
//! heading.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd};

/// Every link of the Markdown files below a directory that leads nowhere: the document, the link, why.
/// Links to the web are left to it. One that leaves the directory is broken.
pub fn broken(root: &Path) -> io::Result<Vec<String>> {
    let root = &root.canonicalize()?;
    let mut paths = Vec::new();
    documents(root, &mut paths)?;
    paths.sort();
    let mut read = HashMap::new();
    for path in paths {
        let document = Document::of(&fs::read_to_string(&path)?);
        read.insert(normal(&path), (path, document));
    }
    let mut problems = Vec::new();
    for (path, document) in read.values() {
        for link in &document.links {
            if let Some(why) = wrong(root, path, link, &read) {
                let path = path.strip_prefix(root).unwrap_or(path);
                problems.push(format!("{}: link to {link}: {why}", path.display()));
            }
        }
    }
    problems.sort();
    Ok(problems)
}

/// All Markdown files below a directory, without those of a build or of version control.
fn documents(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                documents(&path, found)?;
            }
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    Ok(())
}

fn wrong(
    root: &Path,
    from: &Path,
    link: &str,
    read: &HashMap<PathBuf, (PathBuf, Document)>,
) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
        return None;
    }
    let (file, heading) = link.split_once('#').map_or((link, None), |(f, h)| (f, Some(h)));
    let target = if file.is_empty() {
        normal(from)
    } else {
        normal(&from.parent().unwrap_or(Path::new(".")).join(file))
    };
    if !target.starts_with(root) {
        return Some("leaves the documents".to_owned());
    }
    if !target.exists() {
        return Some("there is no such file".to_owned());
    }
    let heading = heading?;
    match read.get(&target) {
        Some((_, document)) if document.headings.contains(heading) => None,
        Some(_) => Some("there is no such heading".to_owned()),
        None => Some("not a document with headings".to_owned()),
    }
}

/// A path without `.` and `..`, as text: symbolic links are not followed.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// What a document links to, and its headings as they are linked to.
#[derive(Debug, Default)]
struct Document {
    links: Vec<String>,
    headings: HashSet<String>,
}

impl Document {
    fn of(markdown: &str) -> Document {
        let mut document = Document::default();
        let mut heading: Option<String> = None;
        let mut seen: HashMap<String, usize> = HashMap::new();
        // A reference that is defined nowhere is text to the parser: such as `[a][b]`.
        let mut undefined = Vec::new();
        let mut missing = |link: pulldown_cmark::BrokenLink<'_>| {
            if link.link_type == LinkType::Reference {
                undefined.push(format!("[{}]", link.reference));
            }
            None
        };
        let parser = Parser::new_with_broken_link_callback(
            markdown,
            Options::ENABLE_TABLES,
            Some(&mut missing),
        );
        for event in parser {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let times = seen.entry(slug.clone()).or_default();
                    document.headings.insert(match *times {
                        0 => slug,
                        times => format!("{slug}-{times}"),
                    });
                    *times += 1;
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        document.links.append(&mut undefined);
        document
    }
}

/// How code forges name a heading: lower case, punctuation gone, blanks as hyphens.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_of_the_repository_resolves() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let problems = broken(&root).unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        // It has looked: these two are known to be there.
        let read = Document::of(&fs::read_to_string(root.join("README.md")).unwrap());
        assert!(read.links.contains(&"docs/operations.md#drop-reasons".to_owned()), "{read:?}");
        assert!(read.headings.contains("the-demo"), "{read:?}");
    }

    #[test]
    fn links_that_lead_nowhere_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        write("d/b.md", "# Two words, `code`\n## Same\n## Same\n[up](../a.md)");
        write("x.json", "{}");
        write(
            "a.md",
            "[good](d/b.md#two-words-code) [same](d/b.md#same-1) [dir](d/) [web](https://x.y/z)\n\
             `[no](link.md)` [gone](c.md) [head](d/b.md#three) [out](../../etc) [j](x.json#a) [r][s]\n",
        );
        let problems: Vec<_> = broken(directory.path())
            .unwrap()
            .iter()
            .map(|problem| problem.strip_prefix("a.md: ").unwrap().to_owned())
            .collect();
        assert_eq!(
            problems,
            [
                "link to ../../etc: leaves the documents",
                "link to [s]: there is no such file",
                "link to c.md: there is no such file",
                "link to d/b.md#three: there is no such heading",
                "link to x.json#a: not a document with headings",
            ]
        );
    }
}
