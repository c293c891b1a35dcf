//! The types of bodies and answers as the document's components.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};
use sluice_api::Problem;

use crate::publish::Outcome;

const COMPONENTS: &str = "/components/schemas";

/// The components so far.
pub struct Schemas {
    /// Types that are read: what they have a default for may be absent.
    read: SchemaGenerator,
    /// Types that are answered with only.
    told: SchemaGenerator,
    /// What is observed of resources.
    observed: BTreeMap<String, Value>,
    /// Resources that can be patched.
    patched: Vec<String>,
}

impl Default for Schemas {
    fn default() -> Self {
        let with = |settings: SchemaSettings| {
            settings.with(|settings| {
                settings.definitions_path = COMPONENTS.into();
                settings.meta_schema = None;
            })
        };
        Schemas {
            read: with(SchemaSettings::draft2020_12()).into_generator(),
            told: with(SchemaSettings::draft2020_12().for_serialize()).into_generator(),
            observed: BTreeMap::new(),
            patched: Vec::new(),
        }
    }
}

impl Schemas {
    /// A type that is answered with.
    pub fn of<T: JsonSchema>(&mut self) -> Value {
        self.told.subschema_for::<T>().to_value()
    }

    /// A type that is a body.
    pub fn body<T: JsonSchema>(&mut self) -> Value {
        self.read.subschema_for::<T>().to_value()
    }

    /// A resource: the fields that are configured, and what is observed of it. As a body, too, where what
    /// is observed is ignored.
    pub fn resource<C: JsonSchema, O: JsonSchema>(&mut self) -> Value {
        let observed = self.of::<O>();
        self.observed.insert(C::schema_name().into_owned(), observed);
        self.body::<C>()
    }

    /// A merge patch of a resource.
    pub fn patch<C: JsonSchema>(&mut self) -> Value {
        self.body::<C>();
        let name = C::schema_name().into_owned();
        let reference = json!({"$ref": format!("#{COMPONENTS}/{name}Patch")});
        self.patched.push(name);
        reference
    }

    /// A type that is answered with, in its place instead of by its name: for who changes it.
    pub fn inline<T: JsonSchema>(&mut self) -> Value {
        let mut schema = T::json_schema(&mut self.told).to_value();
        tell_integers(&mut schema);
        schema
    }

    /// All components.
    pub fn into_components(mut self) -> Value {
        let change = self.of::<Outcome>();
        // What is wrong with a field: part of every answer that refuses something.
        self.of::<Problem>();
        let mut all = self.told.take_definitions(true);
        all.values_mut().for_each(tell_integers);
        let mut read = self.read.take_definitions(true);
        read.values_mut().for_each(take_ipv4);
        all.extend(read);
        for (name, observed) in self.observed {
            let properties = &mut all[&name]["properties"];
            properties["observed"] = read_only(observed);
            properties["change"] = read_only(change.clone());
        }
        for name in self.patched {
            let patch = patch(&all[&name]);
            all.insert(format!("{name}Patch"), patch);
        }
        all.insert("ProblemDetails".to_owned(), problem_details());
        Value::Object(all)
    }
}

/// Takes a field out of a schema that is [inline](Schemas::inline).
pub fn without(schema: &mut Value, field: &str) {
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove(field);
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| name != field);
    }
}

fn read_only(schema: Value) -> Value {
    let mut schema = schema;
    schema["readOnly"] = true.into();
    schema
}

/// Integers that a double may not hold are answered as strings (`http::json`).
fn tell_integers(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_wide = map.get("format").is_some_and(|f| f == "uint64" || f == "uint");
            if is_wide {
                let is_nullable = map.get("type").is_some_and(Value::is_array);
                let types = ["integer", "string", "null"];
                let types = if is_nullable { &types[..] } else { &types[..2] };
                map.insert("type".to_owned(), json!(types));
                map.remove("format");
            }
            map.values_mut().for_each(tell_integers);
        }
        Value::Array(items) => items.iter_mut().for_each(tell_integers),
        _ => {}
    }
}

/// Addresses that are taken are of one family so far (`validate`, `NOT_YET`).
fn take_ipv4(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("format").is_some_and(|format| format == "ip") {
                map.insert("format".to_owned(), "ipv4".into());
            }
            map.values_mut().for_each(take_ipv4);
        }
        Value::Array(items) => items.iter_mut().for_each(take_ipv4),
        _ => {}
    }
}

/// Any of the fields, or `null` in the place of one that is to go.
fn patch(resource: &Value) -> Value {
    let mut patch = resource.clone();
    let Some(object) = patch.as_object_mut() else { return patch };
    object.remove("required");
    object.insert("description".to_owned(), "The fields to change (RFC 7396)".into());
    let properties = object.get_mut("properties").and_then(Value::as_object_mut);
    for (name, field) in properties.into_iter().flatten() {
        if let Some(map) = field.as_object_mut().filter(|_| name != "observed" && name != "change")
        {
            map.remove("default");
            let given = Value::Object(std::mem::take(map));
            *field = json!({"anyOf": [given, {"type": "null"}]});
        }
    }
    patch
}

/// RFC 9457, and every field that is wrong.
fn problem_details() -> Value {
    let text = |text: &str| json!({"type": "string", "description": text});
    let problems = json!({
        "type": "array", "items": {"$ref": format!("#{COMPONENTS}/Problem")},
        "description": "Every field that is wrong",
    });
    let properties = json!({
        "type": text("A word for programs, after `urn:sluice:problem:`"),
        "title": text("What kind of problem it is"),
        "status": {"type": "integer", "description": "The status of the answer"},
        "detail": text("A sentence"),
        "problems": problems,
        "more_problems":
            {"type": "integer", "minimum": 1, "description": "How many there are beside those"},
    });
    json!({
        "type": "object",
        "description": "Why a request got no success (RFC 9457)",
        "properties": properties,
        "required": ["type", "title", "status", "detail", "problems"],
    })
}
