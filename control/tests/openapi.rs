//! `/openapi.json`: it describes all routes that there are, and the fields that answers have.

mod common;

use common::{Api, CLIENT, FakeDataplane, Lab, WEB};
use serde_json::{Value, json};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

async fn document(api: &Api) -> Value {
    let document = api.get("//openapi.json").await;
    assert_eq!(document.header("content-type"), "application/json");
    document.ok(200)
}

fn paths(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    document["paths"].as_object().unwrap().iter()
}

/// A path with its variable parts filled in.
fn filled(path: &str) -> String {
    path.replace("services/{name}", "services/web")
        .replace("pools/{name}", "pools/local")
        .replace("{name}", "wan")
        .replace("{id}", "10.0.0.1:8080")
        .replace("{number}", "2")
        .replace("addresses/{address}", "addresses/10.0.0.250")
        .replace("{address}", "198.51.100.1")
}

/// What a method is answered with at a path: whether it is there at all, and the methods that are.
async fn methods_of(api: &Api, path: &str) -> Vec<String> {
    let answer = api.raw("OPTIONS", &format!("/{path}"), &[CLIENT], "").await;
    answer.problem(405);
    let allowed = answer.header("allow").to_lowercase();
    allowed.split(',').map(str::to_owned).filter(|method| method != "head").collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_no_other() {
    let lab = Lab::new();
    let (_server, api) = lab.start(WEB).await;
    let document = document(&api).await;
    for (path, operations) in paths(&document) {
        let mut allowed = methods_of(&api, &filled(path)).await;
        let mut described: Vec<&String> = operations.as_object().unwrap().keys().collect();
        allowed.sort();
        described.sort();
        assert_eq!(allowed.iter().collect::<Vec<_>>(), described, "{path}");
        for (method, operation) in operations.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()));
            let names: Vec<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let in_path: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
            assert_eq!(names, in_path, "{method} {path}");
        }
    }
    // The table of the documentation names the same paths.
    let table = include_str!("../../docs/api.md");
    let table = table.split("## Endpoints").nth(1).unwrap().split("\n## ").next().unwrap();
    for (path, _) in paths(&document) {
        let path = path.trim_start_matches("/api/v1").replace("{id}", "{address:port}");
        let (head, last) = path.rsplit_once('/').unwrap();
        let is_there = table.contains(&format!("`{path}"))
            || table
                .lines()
                .any(|line| line.contains(head) && line.contains(&format!("`…/{last}`")));
        assert!(is_there, "{path} is not in docs/api.md");
    }
}

#[tokio::test]
async fn unknown_parameters_are_refused_at_every_route() {
    let lab = Lab::new();
    let (_server, api) = lab.start(WEB).await;
    for (path, operations) in paths(&document(&api).await) {
        for method in operations.as_object().unwrap().keys() {
            let target = format!("/{}?colour=red", filled(path));
            let said = api.raw(&method.to_uppercase(), &target, &[CLIENT], "").await.problem(400);
            assert!(said.contains("colour is \"red\": expected"), "{method} {path}: {said}");
        }
    }
}

/// Names of fields in an answer that the schema does not have.
fn strangers(schema: &Value, answer: &Value, document: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).expect(reference);
        return strangers(schema, answer, document, at);
    }
    if let Some(either) = schema["anyOf"].as_array() {
        return strangers(&either[0], answer, document, at);
    }
    match answer {
        Value::Array(items) => {
            items.iter().flat_map(|item| strangers(&schema["items"], item, document, at)).collect()
        }
        Value::Object(fields) if schema["properties"].is_object() => fields
            .iter()
            .flat_map(|(name, value)| {
                let at = format!("{at}.{name}");
                match &schema["properties"][name] {
                    Value::Null => vec![at],
                    schema => strangers(schema, value, document, &at),
                }
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn missing(schema: &Value, answer: &Value, document: &Value) -> Vec<String> {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let required = schema["required"].as_array().into_iter().flatten();
    let required = required.map(|name| name.as_str().unwrap().to_owned());
    required.filter(|name| answer.get(name).is_none()).collect()
}

#[tokio::test]
async fn answers_have_the_fields_that_the_document_names() {
    let lab = Lab::new();
    let dataplane = FakeDataplane::start(&lab.socket());
    dataplane.with(|m| m.port_address = Some([198, 51, 100, 9].into()));
    let (_server, api) = lab.start(WEB).await;
    api.ready(200).await;
    api.send("PUT", "/services/web/backends/10.0.0.1:8080/weight", json!({"weight": 7}))
        .await
        .ok(200);
    let document = document(&api).await;
    let mut looked_at = 0;
    for (path, operations) in paths(&document) {
        let content = &operations["get"]["responses"]["200"]["content"]["application/json"];
        let target = filled(path).replace("nodes/wan", "nodes/none");
        if content.is_null() || path.ends_with("/openapi.json") {
            continue;
        }
        let answer = api.get(&format!("/{target}")).await;
        if answer.status == 404 {
            continue;
        }
        let answer = answer.ok(200);
        assert_eq!(strangers(&content["schema"], &answer, &document, path), [""; 0]);
        assert_eq!(missing(&content["schema"], &answer, &document), [""; 0], "{path}");
        looked_at += 1;
    }
    assert!(looked_at >= 17, "{looked_at}");
}

/// Every reference of the document, with the place where it stands.
fn references(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get("$ref") {
                found.push((at.to_owned(), to.clone()));
            }
            for (name, inner) in fields {
                references(inner, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, at, found)),
        _ => {}
    }
}

/// What the data plane has rejected is fields, as in `problems` of an answer that refuses something,
/// and no such answer itself.
#[tokio::test]
async fn references_lead_to_what_is_meant() {
    let lab = Lab::new();
    let (_server, api) = lab.start(WEB).await;
    let document = document(&api).await;
    let mut found = Vec::new();
    references(&document, "", &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for (at, to) in &found {
        let pointer = to.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{at}: {to}");
        let is_problem = at.ends_with("/rejected/items") || at.ends_with("/problems/items");
        assert_eq!(to.ends_with("/Problem"), is_problem, "{at}: {to}");
    }
    let fields = document.pointer("/components/schemas/Problem/properties").unwrap();
    let names: Vec<&String> = fields.as_object().unwrap().keys().collect();
    assert_eq!(names, ["expected", "field", "value"]);
}
