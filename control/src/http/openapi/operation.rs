//! What is said of a route: what it takes, what it answers, which problems it may have.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use sluice_api::{CLIENT_HEADER, MAX_WAIT_MS};

use super::schemas::Schemas;
use crate::http::extract::MAX_REASON;
use crate::http::problem_json::{Type, types};

/// Makes the schema of a body.
type MakeSchema = Box<dyn Fn(&mut Schemas) -> Value>;

/// A method of a path.
pub struct Operation {
    summary: String,
    /// What a success answers, and as what.
    answer: MakeSchema,
    answer_is: &'static str,
    /// What the request has as its body, and as what.
    body: Option<(MakeSchema, &'static str)>,
    parameters: Vec<Parameter>,
    does: Does,
    /// Whether a success has an entity tag.
    has_tag: bool,
    problems: Vec<&'static Type>,
}

/// A parameter of the query.
struct Parameter {
    name: &'static str,
    text: &'static str,
    schema: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Read,
    Change,
    Create,
}

impl Operation {
    fn new(summary: &str, does: Does, answer: MakeSchema) -> Operation {
        Operation {
            summary: summary.to_owned(),
            answer,
            answer_is: "application/json",
            body: None,
            parameters: Vec::new(),
            does,
            has_tag: false,
            problems: vec![&types::BAD_REQUEST, &types::FOREIGN, &types::INTERNAL],
        }
    }

    /// Reads.
    pub fn reads(summary: &str, answer: impl Fn(&mut Schemas) -> Value + 'static) -> Operation {
        Operation::new(summary, Does::Read, Box::new(answer))
    }

    /// Reads something of a type.
    pub fn reads_a<T: JsonSchema + 'static>(summary: &str) -> Operation {
        Operation::reads(summary, Schemas::of::<T>)
    }

    /// Reads a text of another kind than JSON.
    pub fn reads_text(summary: &str, answer_is: &'static str) -> Operation {
        Operation { answer_is, ..Operation::reads(summary, |_| json!({"type": "string"})) }
    }

    /// Changes the desired state.
    pub fn changes(summary: &str, answer: impl Fn(&mut Schemas) -> Value + 'static) -> Operation {
        let patience =
            json!({"type": "integer", "minimum": 0, "maximum": MAX_WAIT_MS, "default": 2_000});
        Operation::new(summary, Does::Change, Box::new(answer))
            .parameter("wait_ms", "How long to wait until the change is applied, in ms.", patience)
            .parameter(
                "reason",
                "Why the change is made, for the history.",
                json!({"type": "string", "minLength": 1, "maxLength": MAX_REASON}),
            )
            .may_fail([
                &types::VERSION_MISMATCH,
                &types::INVALID,
                &types::NOT_STORED,
                &types::MEDIA_TYPE,
            ])
    }

    /// Makes something new, which its answer's `Location` names.
    pub fn creates(summary: &str, answer: impl Fn(&mut Schemas) -> Value + 'static) -> Operation {
        let creates = Operation { does: Does::Create, ..Operation::changes(summary, answer) };
        creates.may_fail([&types::EXISTS])
    }

    /// Its answer has an `ETag`.
    pub fn tagged(self) -> Operation {
        Operation { has_tag: true, ..self }
    }

    /// Takes a body.
    pub fn takes(self, body: impl Fn(&mut Schemas) -> Value + 'static) -> Operation {
        self.takes_as("application/json", body)
    }

    /// Takes a merge patch (RFC 7396).
    pub fn takes_patch(self, body: impl Fn(&mut Schemas) -> Value + 'static) -> Operation {
        self.takes_as("application/merge-patch+json", body)
    }

    fn takes_as(
        self,
        kind: &'static str,
        body: impl Fn(&mut Schemas) -> Value + 'static,
    ) -> Operation {
        let takes = Operation { body: Some((Box::new(body), kind)), ..self };
        takes.may_fail([&types::BAD_JSON, &types::TOO_LARGE, &types::SLOW, &types::BUSY])
    }

    /// Has a parameter in its query.
    pub fn parameter(mut self, name: &'static str, text: &'static str, schema: Value) -> Operation {
        self.parameters.push(Parameter { name, text, schema });
        self
    }

    /// May have these problems, too.
    pub fn may_fail<const N: usize>(mut self, with: [&'static Type; N]) -> Operation {
        self.problems.extend(with);
        self
    }

    /// The names of the parameters of its query.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.parameters.iter().map(|parameter| parameter.name)
    }

    /// As the document has it.
    pub fn describe(&self, path: &str, method: &str, schemas: &mut Schemas) -> Value {
        let mut operation = json!({
            "summary": self.summary,
            "operationId": id(path, method),
            "parameters": self.described_parameters(path),
            "responses": self.responses(path, schemas),
        });
        if let Some((body, kind)) = &self.body {
            let schema = body(schemas);
            operation["requestBody"] =
                json!({"required": true, "content": {(*kind): {"schema": schema}}});
        }
        operation
    }

    fn described_parameters(&self, path: &str) -> Vec<Value> {
        let mut all: Vec<Value> = segments(path).map(path_parameter).collect();
        all.extend(self.parameters.iter().map(|Parameter { name, text, schema }| {
            json!({"name": name, "in": "query", "description": text, "schema": schema})
        }));
        if self.does != Does::Read {
            let text = "Says that no web page sends this; needed where no JSON body does.";
            let string = json!({"type": "string", "pattern": "^[!-~]+$"});
            all.push(json!({
                "name": CLIENT_HEADER, "in": "header", "required": self.body.is_none(),
                "description": text, "schema": string,
            }));
            let text = "The `ETag` of what is changed, or of a list: the change is made only if that still \
                        is so.";
            all.push(json!({
                "name": "If-Match", "in": "header", "description": text,
                "schema": {"type": "string", "pattern": "^(\\*|\"[0-9a-f]+\")$"},
            }));
        }
        all
    }

    fn responses(&self, path: &str, schemas: &mut Schemas) -> Value {
        let schema = (self.answer)(schemas);
        let success = |text: &str, headers: Value| {
            json!({
                "description": text,
                "headers": headers,
                "content": {(self.answer_is): {"schema": schema}},
            })
        };
        let mut headers = Map::new();
        let header = |text: &str| json!({"description": text, "schema": {"type": "string"}});
        if self.has_tag {
            headers.insert(
                "ETag".to_owned(),
                header("The version of what is answered (RFC 9110, 8.8.3)"),
            );
        }
        if self.does == Does::Create {
            headers.insert("Location".to_owned(), header("The path of what was made"));
        }
        let headers = Value::Object(headers);
        let mut responses = Map::new();
        match self.does {
            Does::Read => {
                responses.insert("200".to_owned(), success("As asked for", headers));
            }
            Does::Change | Does::Create => {
                let code = if self.does == Does::Create { "201" } else { "200" };
                let stored = "Stored, and not applied yet: `change` says why";
                responses.insert(code.to_owned(), success("Applied", headers.clone()));
                responses.insert("202".to_owned(), success(stored, headers));
            }
        }
        let not_found = path.contains('{').then_some(&types::NOT_FOUND);
        let problems = self.problems.iter().copied().chain(not_found);
        let mut by_status: std::collections::BTreeMap<u16, Vec<&Type>> = Default::default();
        problems.for_each(|kind| by_status.entry(kind.status.as_u16()).or_default().push(kind));
        for (status, kinds) in by_status {
            responses.insert(status.to_string(), problem(&kinds));
        }
        Value::Object(responses)
    }
}

fn problem(kinds: &[&Type]) -> Value {
    let words: Vec<String> =
        kinds.iter().map(|kind| format!("`{}`: {}", kind.word, kind.title)).collect();
    let types: Vec<String> = kinds.iter().map(|kind| kind.urn()).collect();
    json!({
        "description": words.join("; "),
        "content": {"application/problem+json": {"schema": {
            "allOf": [
                {"$ref": "#/components/schemas/ProblemDetails"},
                {"properties": {"type": {"enum": types}}},
            ],
        }}},
    })
}

/// Names of the variable parts of a path.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str) -> Value {
    let (text, schema) = match name {
        "address" => ("An address.", json!({"type": "string", "format": "ipv4"})),
        "id" => {
            let pattern = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5}$";
            ("A backend, as `address:port`.", json!({"type": "string", "pattern": pattern}))
        }
        "number" => ("The number of a revision.", json!({"type": "integer", "minimum": 1})),
        _ => ("A name.", json!({"type": "string", "minLength": 1})),
    };
    json!({"name": name, "in": "path", "required": true, "description": text, "schema": schema})
}

/// A name for programs that are made from the document, as `put_services_name_backends_id`.
fn id(path: &str, method: &str) -> String {
    let words = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty() && *word != "api");
    words.fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}
