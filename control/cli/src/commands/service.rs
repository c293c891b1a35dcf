//! `sluice service …`

use std::path::Path;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_api::{Mode, NoConn};

use super::apply::read_file;
use super::backend::table as backend_table;
use crate::Context;
use crate::args::{CheckFields, ServiceCommand, ServiceFields};
use crate::client::path;
use crate::error::CliError;
use crate::table::{Table, field, items};

pub(super) async fn run(context: &Context, command: ServiceCommand) -> Result<(), CliError> {
    let Context { client, output } = context;
    match command {
        ServiceCommand::List => {
            let answer = client.get("/services").await?;
            output.answer(&answer.body, list)
        }
        ServiceCommand::Show { name } => {
            let answer = client.get(&path(&["services", &name])).await?;
            output.answer(&answer.body, show)
        }
        ServiceCommand::Create { name, fields, backends, file } => {
            let body = match file {
                Some(file) => from_file(&file, name)?,
                None => {
                    let backends = backends.iter().map(|(id, weight)| {
                        let mut backend = json!({"address": id.address, "port": id.port});
                        if let Some(weight) = weight {
                            backend["weight"] = json!(weight);
                        }
                        backend
                    });
                    from_flags(name, &fields, backends.collect())
                }
            };
            let answer = client.change(Method::POST, "/services", Some(&body)).await?;
            output.answer(&answer.body, |_| format!("service {} created", field(&body, "name")))
        }
        ServiceCommand::Set { name, fields, no_pool, no_max_conns, no_check } => {
            let mut patch = object(&fields);
            if no_pool {
                patch.insert("pool".to_owned(), Value::Null);
            }
            if no_max_conns {
                patch.insert("max_conns".to_owned(), Value::Null);
            }
            if no_check {
                patch.insert("health_check".to_owned(), Value::Null);
            }
            if patch.is_empty() {
                let hint =
                    "nothing to set: name at least one field, see `sluice service set --help`";
                return Err(CliError::Usage(hint.to_owned()));
            }
            let path = path(&["services", &name]);
            let patch = Value::Object(patch);
            let answer = client.change(Method::PATCH, &path, Some(&patch)).await?;
            output.answer(&answer.body, |_| format!("service {name} changed"))
        }
        ServiceCommand::Delete { name } => {
            let answer = client.change(Method::DELETE, &path(&["services", &name]), None).await?;
            output.answer(&answer.body, |_| format!("service {name} deleted"))
        }
    }
}

/// A new service's body; what it must name and a flag can leave out gets the CLI's default.
fn from_flags(name: Option<String>, fields: &ServiceFields, backends: Vec<Value>) -> Value {
    let mut body = object(fields);
    body.insert("name".to_owned(), json!(name));
    body.entry("protocol").or_insert_with(|| json!("tcp"));
    body.entry("mode").or_insert_with(|| json!("full-nat"));
    if !backends.is_empty() {
        body.insert("backends".to_owned(), Value::Array(backends));
    }
    Value::Object(body)
}

/// A service that is a whole file: the fields at its top, backends as in `apply`.
fn from_file(file: &Path, name: Option<String>) -> Result<Value, CliError> {
    let mut body = read_file(file)?;
    if let Some(fields) = body.as_object_mut() {
        // TOML's spelling.
        if let Some(backends) = fields.remove("backend") {
            fields.insert("backends".to_owned(), backends);
        }
        if let Some(name) = name {
            let given = fields.entry("name").or_insert_with(|| json!(name));
            if *given != json!(name) {
                return Err(CliError::Usage(format!(
                    "the command names service {name}, {} names {given}: name it once",
                    file.display()
                )));
            }
        }
    }
    Ok(body)
}

/// The fields that flags name, as the API spells them.
fn object(fields: &ServiceFields) -> Map<String, Value> {
    let ServiceFields {
        vip,
        port,
        protocol,
        mode,
        scheduler,
        hash_on,
        maglev_slots,
        max_conns,
        pool,
        no_conn,
        no_backend,
        timeouts,
        check,
    } = fields;
    let timeouts: Map<String, Value> =
        timeouts.iter().map(|(name, ms)| (name.clone(), json!(ms))).collect();
    present([
        ("vip", json!(vip)),
        ("port", json!(port)),
        ("protocol", json!(protocol)),
        ("mode", json!(mode)),
        ("scheduler", json!(scheduler)),
        ("hash_on", json!(hash_on)),
        ("maglev_slots", json!(maglev_slots)),
        ("max_conns", json!(max_conns)),
        ("pool", json!(pool)),
        ("no_conn", json!(no_conn)),
        ("no_backend", json!(no_backend)),
        ("timeouts", if timeouts.is_empty() { Value::Null } else { Value::Object(timeouts) }),
        ("health_check", check_object(check)),
    ])
}

/// `null` when no flag names a field of the check.
fn check_object(fields: &CheckFields) -> Value {
    let status = &fields.check_status;
    let check = present([
        ("kind", json!(fields.check_kind)),
        ("interval_ms", json!(fields.check_interval_ms)),
        ("timeout_ms", json!(fields.check_timeout_ms)),
        ("rise", json!(fields.check_rise)),
        ("fall", json!(fields.check_fall)),
        ("port", json!(fields.check_port)),
        ("path", json!(fields.check_path)),
        ("host", json!(fields.check_host)),
        ("expected_status", if status.is_empty() { Value::Null } else { json!(status) }),
        ("close", json!(fields.check_close)),
    ]);
    if check.is_empty() { Value::Null } else { Value::Object(check) }
}

fn present<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let named = fields.into_iter().filter(|(_, value)| !value.is_null());
    named.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&[
        "NAME",
        "VIP",
        "MODE",
        "SCHEDULER",
        "POOL",
        "CHECK",
        ">BACKENDS",
        ">HEALTHY",
        "STATE",
        "REASON",
    ]);
    for service in items(answer, "services") {
        let backends = items(service, "backends");
        table.row(vec![
            field(service, "name"),
            address(service),
            field(service, "mode"),
            field(service, "scheduler"),
            field(service, "pool"),
            field(&service["health_check"], "kind"),
            backends.len().to_string(),
            field(&service["observed"], "backends_healthy"),
            field(&service["observed"], "state"),
            field(&service["observed"], "reason"),
        ]);
    }
    table.render("There are no services yet. `sluice service create --help` tells how to make one.")
}

fn address(service: &Value) -> String {
    let part = |name| field(service, name);
    format!("{}:{}/{}", part("vip"), part("port"), part("protocol"))
}

fn show(service: &Value) -> String {
    let mut text = format!("{}  {}\n", field(service, "name"), address(service));
    let mut line = |name: &str, value: String| text += &format!("  {name:<14}{value}\n");
    let observed = &service["observed"];
    line(
        "state",
        match field(observed, "reason").as_str() {
            "-" => field(observed, "state"),
            reason => format!("{}: {reason}", field(observed, "state")),
        },
    );
    for warning in observed["warnings"].as_array().into_iter().flatten() {
        line("warning", warning.as_str().unwrap_or_default().to_owned());
    }
    line("mode", field(service, "mode"));
    let scheduler = field(service, "scheduler");
    line(
        "scheduler",
        match scheduler.as_str() {
            "maglev" => match field(service, "maglev_slots").as_str() {
                "-" => format!("maglev on {}, slots by backends", field(service, "hash_on")),
                slots => format!("maglev on {}, {slots} slots", field(service, "hash_on")),
            },
            _ => scheduler,
        },
    );
    line("pool", field(service, "pool"));
    line("max conns", field(service, "max_conns"));
    let no_conn = match (field(service, "no_conn"), Mode::deserialize(&service["mode"])) {
        (said, Ok(mode)) if said == "-" => {
            format!("{}, as mode {mode} does", NoConn::of_mode(mode))
        }
        (said, _) => said,
    };
    if field(service, "protocol") == "tcp" {
        line("no conn", no_conn);
    }
    line("no backend", field(service, "no_backend"));
    line("health check", check(&service["health_check"]));
    let protocol = field(service, "protocol");
    let timeouts = service["timeouts"].as_object().into_iter().flatten();
    let timeouts: Vec<String> = timeouts
        .filter_map(|(name, ms)| Some((name.strip_prefix(&protocol)?, ms)))
        .map(|(name, ms)| format!("{} {ms}", name.trim_start_matches('_').trim_end_matches("_ms")))
        .collect();
    line("timeouts, ms", if timeouts.is_empty() { "-".into() } else { timeouts.join(", ") });
    text + "\n" + &backend_table(items(service, "backends"))
}

fn check(check: &Value) -> String {
    if check.is_null() {
        return "none: every backend counts as healthy".to_owned();
    }
    let part = |name| field(check, name);
    let mut text = part("kind");
    if text == "http" {
        text = format!("http GET {}, expects {}", part("path"), part("expected_status"));
    }
    if !check["port"].is_null() {
        text += &format!(", port {}", part("port"));
    }
    format!(
        "{text}, every {} ms, timeout {} ms, rise {}, fall {}",
        part("interval_ms"),
        part("timeout_ms"),
        part("rise"),
        part("fall")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_fields_are_sent() {
        assert!(object(&ServiceFields::default()).is_empty());
        let fields = ServiceFields {
            port: Some(443),
            timeouts: vec![("udp_one_way_ms".to_owned(), 7)],
            check: CheckFields { check_rise: Some(3), ..CheckFields::default() },
            ..ServiceFields::default()
        };
        let expected = json!({
            "port": 443, "timeouts": {"udp_one_way_ms": 7}, "health_check": {"rise": 3}
        });
        assert_eq!(Value::Object(object(&fields)), expected);
    }
}
