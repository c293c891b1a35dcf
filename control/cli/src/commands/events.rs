//! `sluice events`: what happened, and what happens.

use std::time::Duration;

use serde_json::Value;
use sluice_api::clock::moment;

use crate::Context;
use crate::args::EventsArgs;
use crate::error::CliError;
use crate::table::{Table, field, items};

/// How often new events are asked for.
const POLL_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(context: &Context, args: EventsArgs) -> Result<(), CliError> {
    let answer = context.client.get(&query(args.since, args.limit)).await?;
    if args.follow {
        return follow(context, answer.body).await;
    }
    context.output.answer(&answer.body, table)
}

/// What follows on `since`, or the newest without it.
fn query(since: Option<u64>, limit: Option<u32>) -> String {
    let since = since.map(|since| format!("since={since}"));
    let limit = limit.map(|limit| format!("limit={limit}"));
    let parameters: Vec<String> = since.into_iter().chain(limit).collect();
    format!("/events?{}", parameters.join("&"))
}

async fn follow(context: &Context, first: Value) -> Result<(), CliError> {
    let mut since = print(context, &first)?;
    let mut away = false;
    loop {
        tokio::time::sleep(POLL_EVERY).await;
        match context.client.get(&query(Some(since), None)).await {
            Ok(answer) => {
                away = false;
                // Control counts from 1 again after a restart, and tells all that is new.
                since = print(context, &answer.body)?;
            }
            // Control restarts now and then; whoever follows wants to see what comes after.
            Err(error @ CliError::Unreachable { .. }) => {
                if !away {
                    error.report(context.output.json);
                }
                away = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Prints a page of events line by line; returns the sequence number to go on from.
fn print(context: &Context, page: &Value) -> Result<u64, CliError> {
    let mut last = page["last_seq"].as_u64().unwrap_or(0);
    for event in items(page, "events") {
        last = event["seq"].as_u64().unwrap_or(last);
        if context.output.json {
            context.output.line(event)?;
        } else {
            context.output.text(&line(event))?;
        }
    }
    Ok(last)
}

fn line(event: &Value) -> String {
    let [seq, at, severity, kind, about, message] = cells(event);
    let line = format!("{seq:>6}  {at}  {severity:<7}  {kind:<22}  {about:<28}  {message}");
    line.replace(|c: char| c.is_control(), " ")
}

fn table(page: &Value) -> String {
    let mut table = Table::new(&[">SEQ", "TIME", "SEVERITY", "KIND", "ABOUT", "MESSAGE"]);
    for event in items(page, "events") {
        table.row(cells(event).into());
    }
    table.render("No events.")
}

fn cells(event: &Value) -> [String; 6] {
    let about = match (event["service"].as_str(), event["backend"].as_str()) {
        (Some(service), Some(backend)) => format!("{service} {backend}"),
        (Some(service), None) => service.to_owned(),
        (None, Some(backend)) => backend.to_owned(),
        (None, None) => field(event, "source"),
    };
    [
        field(event, "seq"),
        event["at_ms"].as_u64().map_or("-".to_owned(), moment),
        field(event, "severity"),
        field(event, "kind"),
        about,
        field(event, "message"),
    ]
}
