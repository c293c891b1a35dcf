//! `sluice apply FILE`: make the pools and services of a file be as they are in it.
//!
//! One request makes all of it so, or nothing. A file that is wrong by itself is told of without
//! asking; the rest the API judges. Nothing is deleted; what the file does not name stays as it is.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use hyper::Method;
use serde_json::Value;
use sluice_api::read::{self, Spelling, in_toml, respell};
use sluice_api::{FieldChange, Pool, Problem, Problems, Service};

use crate::Context;
use crate::client::path;
use crate::error::{CliError, Refusal};
use crate::table::{field, items};

pub(super) async fn run(context: &Context, file: &Path, dry_run: bool) -> Result<(), CliError> {
    let (value, spelling) = parse(file)?;
    check(value.clone(), spelling)
        .map_err(|problems| CliError::File { file: file.display().to_string(), problems })?;
    let request = if dry_run { "/apply?dry_run=true" } else { "/apply" };
    let body = respell(value, spelling, Spelling::Json);
    let answer = context.client.change(Method::POST, request, Some(&body)).await;
    let answer = answer.map_err(|error| in_words_of_the_file(error, spelling))?;
    context.output.answer(&answer.body, |answer| report(answer, dry_run))
}

/// `sluice confirm`: the state may be published as it is.
pub(super) async fn confirm(context: &Context) -> Result<(), CliError> {
    let answer = context.client.change(Method::POST, &path(&["confirm"]), None).await?;
    context.output.answer(&answer.body, |_| "the state may be published as it is".to_owned())
}

/// A JSON or TOML file as a value; `-` is standard input.
pub(super) fn read_file(file: &Path) -> Result<Value, CliError> {
    parse(file).map(|(value, _)| value)
}

/// What the name does not tell, the first character does: JSON's is `{`, which begins no TOML.
fn parse(file: &Path) -> Result<(Value, Spelling), CliError> {
    let wrong = |why: String| CliError::Usage(format!("{}: {why}", file.display()));
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let is_json = match file.extension().and_then(|e| e.to_str()) {
        Some("json") => true,
        Some("toml") => false,
        _ => text.trim_start().starts_with('{'),
    };
    if is_json {
        let value = serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
        Ok((value, Spelling::Json))
    } else {
        let value = toml::from_str(&text)
            .map_err(|e| wrong(format!("not TOML: {}", e.to_string().trim_end())))?;
        Ok((value, Spelling::Toml))
    }
}

/// Everything that is wrong with the file by itself.
fn check(value: Value, spelling: Spelling) -> Result<(), Problems> {
    let (pools, services) = (spelling.list_of::<Pool>(), spelling.list_of::<Service>());
    let Value::Object(map) = value else {
        let expected = format!("an object with the lists {pools:?} and {services:?}");
        return Err(Problem::new("(the file)", read::shown(&value), expected).into());
    };
    let mut problems = Problems::default();
    for (key, value) in map {
        if key == pools {
            let read = |item, label: &str| read::pool(item, spelling, label);
            list(&key, value, read, |pool| &pool.name, &mut problems);
        } else if key == services {
            let read = |item, label: &str| read::service(item, spelling, label);
            list(&key, value, read, |service| &service.name, &mut problems);
        } else if !read::NOT_CONFIGURED.contains(&key.as_str()) {
            let expected = format!("{pools} or {services}");
            problems.push(Problem::new(key, read::shown(&value), expected));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn list<T>(
    key: &str,
    value: Value,
    read: impl Fn(Value, &str) -> Result<T, Problems>,
    name: impl Fn(&T) -> &String,
    problems: &mut Problems,
) {
    let Value::Array(list) = value else {
        problems.push(Problem::new(key, read::shown(&value), "a list"));
        return;
    };
    let mut names = HashSet::new();
    for (index, item) in list.into_iter().enumerate() {
        match read(item, &format!("#{}", index + 1)) {
            Ok(item) => {
                if !names.insert(name(&item).clone()) {
                    let field = format!("{key}[{}].name", name(&item));
                    let value = format!("{:?}", name(&item));
                    problems.push(Problem::new(field, value, "each name once in a file"));
                }
            }
            Err(mut more) => problems.append(&mut more),
        }
    }
}

/// A refusal that says that nothing was applied, with fields as they stand in the file.
fn in_words_of_the_file(error: CliError, spelling: Spelling) -> CliError {
    let CliError::Refused(refusal) = error else { return error };
    let in_words = |problem| if spelling == Spelling::Toml { in_toml(problem) } else { problem };
    let title = match refusal.status {
        422 => "nothing was applied: the file breaks rules, together with what is there".to_owned(),
        _ => refusal.title,
    };
    let detail = if refusal.problems.is_empty() { refusal.detail } else { String::new() };
    let problems = refusal.problems.into_iter().map(in_words).collect();
    CliError::Refused(Refusal { title, detail, problems, ..refusal })
}

/// What became of each resource of a file, field by field.
fn report(answer: &Value, dry_run: bool) -> String {
    let would = if dry_run { "would be " } else { "" };
    changes(answer, would, "nothing in the file: no pools, no services")
}

/// What differs of each resource, field by field.
pub(super) fn changes(answer: &Value, would: &str, nothing: &str) -> String {
    let mut lines = Vec::new();
    if items(answer, "changes").is_empty() {
        lines.push(nothing.to_owned());
    }
    for change in items(answer, "changes") {
        let [kind, name, what] = ["kind", "name", "change"].map(|name| field(change, name));
        lines.push(format!("{kind} {name} {would}{what}"));
        for changed in items(change, "fields") {
            let changed = serde_json::from_value::<FieldChange>(changed.clone());
            lines.extend(changed.ok().map(|changed| format!("  {changed}")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_files_mistakes_are_all_told() {
        let value = json!({
            "pool": [{"name": "p", "addresses": ["10.0.0.9"]}, {"name": "p", "addresses": ["x"]},
                     {"name": "p", "addresses": []}],
            "colour": 1,
        });
        let problems = check(value, Spelling::Toml).unwrap_err();
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["colour", "pool[p].addresses", "pool[p].name"]);
        assert!(check(json!([]), Spelling::Json).is_err());
        assert!(check(json!({}), Spelling::Json).is_ok());
    }

    #[test]
    fn a_file_with_nothing_in_it_is_told_of_in_words() {
        let nothing = "nothing in the file: no pools, no services";
        assert_eq!(report(&json!({"changes": []}), false), nothing);
        assert_eq!(report(&json!({"changes": []}), true), nothing);
        let change = json!({"kind": "pool", "name": "p", "change": "unchanged"});
        assert_eq!(report(&json!({"changes": [change]}), false), "pool p unchanged");
    }
}
