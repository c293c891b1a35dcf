//! `sluice history`, `diff`, `rollback` and `export`: what the desired state was, and the way back.

use hyper::Method;
use serde_json::Value;
use sluice_api::clock::moment;
use sluice_api::read::{Spelling, respell};

use super::apply;
use crate::Context;
use crate::args::{ExportArgs, ExportFormat};
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, field, items};

/// `sluice history`: revisions, newest first.
pub(super) async fn list(
    context: &Context,
    before: Option<u64>,
    limit: Option<u32>,
) -> Result<(), CliError> {
    let before = before.map(|before| format!("before={before}"));
    let limit = limit.map(|limit| format!("limit={limit}"));
    let parameters: Vec<String> = before.into_iter().chain(limit).collect();
    let answer = context.client.get(&format!("/revisions?{}", parameters.join("&"))).await?;
    context.output.answer(&answer.body, table)
}

fn table(body: &Value) -> String {
    let mut table = Table::new(&[">REVISION", "TIME", "WHO", "WHAT", "WHY"]);
    for revision in items(body, "revisions") {
        table.row(vec![
            field(revision, "number"),
            revision["at_ms"].as_u64().map_or("-".to_owned(), moment),
            who(&revision["actor"]),
            field(revision, "what"),
            field(revision, "reason"),
        ]);
    }
    table.render("No revisions.")
}

/// Who made a change, as short as it can be told.
fn who(actor: &Value) -> String {
    match (actor["kind"].as_str(), actor["client"].as_str(), actor["address"].as_str()) {
        (Some("api"), Some(client), Some(address)) => format!("{client} from {address}"),
        (Some("api"), None, Some(address)) => address.to_owned(),
        (Some(kind), ..) => kind.to_owned(),
        (None, ..) => "-".to_owned(),
    }
}

/// `sluice diff N [M]`: what differs between two revisions, or since one.
pub(super) async fn diff(context: &Context, from: u64, to: Option<u64>) -> Result<(), CliError> {
    let to = to.map(|to| format!("?to={to}")).unwrap_or_default();
    let path = path(&["revisions", &from.to_string(), "diff"]);
    let answer = context.client.get(&format!("{path}{to}")).await?;
    context.output.answer(&answer.body, |body| apply::changes(body, "", "nothing differs"))
}

/// `sluice rollback N`: the state as it was, as a new revision.
pub(super) async fn roll_back(
    context: &Context,
    number: u64,
    dry_run: bool,
) -> Result<(), CliError> {
    let path = path(&["revisions", &number.to_string(), "rollback"]);
    let path = if dry_run { format!("{path}?dry_run=true") } else { path };
    let answer = context.client.change(Method::POST, &path, None).await?;
    let would = if dry_run { "would be " } else { "" };
    let nothing = format!("nothing differs from revision {number}");
    context.output.answer(&answer.body, |body| apply::changes(body, would, &nothing))
}

/// `sluice export`: the whole state, as `sluice apply` takes it.
pub(super) async fn export(context: &Context, args: ExportArgs) -> Result<(), CliError> {
    let revision = args.revision.map(|number| format!("?revision={number}")).unwrap_or_default();
    let state = context.client.get(&format!("/export{revision}")).await?.body;
    if context.output.json || args.format == ExportFormat::Json {
        return context.output.value(&state);
    }
    let text = toml::to_string(&respell(state, Spelling::Json, Spelling::Toml));
    let text = text.map_err(|e| CliError::Usage(format!("the state is no TOML: {e}")))?;
    context.output.text(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_made_a_change_is_told_in_short() {
        let api = json!({"kind": "api", "address": "192.0.2.7", "client": "sluice/1.0"});
        assert_eq!(who(&api), "sluice/1.0 from 192.0.2.7");
        assert_eq!(who(&json!({"kind": "api", "address": "192.0.2.7"})), "192.0.2.7");
        assert_eq!(who(&json!({"kind": "file", "read": "start"})), "file");
        assert_eq!(who(&Value::Null), "-");
    }
}
