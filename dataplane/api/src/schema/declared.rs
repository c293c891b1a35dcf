//! Fields as a type declares them: from what schemars makes of it, in the order that serde knows.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use super::{Field, Kind, Object};

/// A struct's name and its fields in order.
type Order = (&'static str, &'static [&'static str]);

impl Object {
    /// What a struct declares. `below` are the [`fields_of`] structs in its fields.
    ///
    /// # Panics
    /// It has a field of a kind that operators are not asked for: a mistake in the type.
    pub fn of<T: JsonSchema + DeserializeOwned>(below: &[Order]) -> Object {
        let mut generator = SchemaGenerator::default();
        let root = T::json_schema(&mut generator);
        let all = [below, &[fields_of::<T>()]].concat();
        let declared = Declared { defs: generator.definitions(), orders: &all };
        declared.object(&T::schema_name(), &root)
    }
}

struct Declared<'a> {
    defs: &'a Map<String, Value>,
    orders: &'a [Order],
}

impl Declared<'_> {
    fn object(&self, name: &str, schema: &Schema) -> Object {
        let of = |key: &str| schema.get(key);
        let properties = of("properties").and_then(Value::as_object);
        let properties = properties.unwrap_or_else(|| panic!("{name} has no fields"));
        let required = of("required").and_then(Value::as_array);
        let order = self.orders.iter().find(|(of, _)| *of == name);
        let (_, order) =
            order.unwrap_or_else(|| panic!("the order of {name}'s fields is not known"));
        let field = |field: &&'static str| {
            let is_required = required.is_some_and(|all| all.iter().any(|name| name == field));
            self.field(field, &properties[*field], is_required)
        };
        Object {
            text: text(of("description")),
            fields: order.iter().map(field).collect(),
            observed: of("x-observed").and_then(Value::as_str).map(str::to_owned),
        }
    }

    fn field(&self, name: &str, schema: &Value, is_required: bool) -> Field {
        let (kind, is_nullable) = self.kind(name, schema);
        Field {
            name: name.to_owned(),
            text: text(schema.get("description")),
            is_required,
            is_nullable,
            default: schema.get("default").cloned(),
            kind,
            accepted: schema.get("x-accepted").and_then(Value::as_str).map(str::to_owned),
        }
    }

    /// What a schema is of, and whether it may be `null`.
    fn kind(&self, name: &str, schema: &Value) -> (Kind, bool) {
        if let Some(either) = schema.get("anyOf").and_then(Value::as_array) {
            return (self.kind(name, &either[0]).0, true);
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let referred = reference.trim_start_matches("#/$defs/");
            return (self.named(referred), false);
        }
        let (kind, is_nullable) = match &schema["type"] {
            Value::Array(types) => (&types[0], types.len() > 1),
            one => (one, false),
        };
        let kind = match (kind.as_str(), schema["format"].as_str()) {
            (Some("string"), Some("ipv4" | "ip")) => Kind::Address,
            (Some("string"), None) => Kind::Text,
            (Some("integer"), Some(format)) => integer(schema, format),
            (Some("array"), _) => Kind::List(Box::new(self.kind(name, &schema["items"]).0)),
            other => panic!("{name} is of a kind that no operator is asked for: {other:?}"),
        };
        (kind, is_nullable)
    }

    fn named(&self, name: &str) -> Kind {
        let schema = &self.defs[name];
        match schema.get("oneOf").and_then(Value::as_array) {
            Some(words) => {
                let word = |one: &Value| text(one.get("const"));
                Kind::Word(words.iter().map(word).collect())
            }
            None => {
                let schema = schema.clone().try_into();
                Kind::Object(self.object(name, &schema.expect("definitions are schemas")))
            }
        }
    }
}

fn integer(schema: &Value, format: &str) -> Kind {
    let bits = format.trim_start_matches("uint").parse().unwrap_or(0);
    let holds = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
    Kind::Integer {
        least: schema["minimum"].as_u64().unwrap_or(0),
        most: schema["maximum"].as_u64().unwrap_or(holds),
        holds,
    }
}

/// A text as one line.
fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

/// The name of a struct, and its fields in the order in which it declares them: serde says so before it
/// reads any.
pub fn fields_of<T: DeserializeOwned>() -> Order {
    let mut order = None;
    let _ = T::deserialize(Names(&mut order));
    order.unwrap_or_default()
}

/// Takes down what a struct is asked for, and reads nothing.
struct Names<'o>(&'o mut Option<Order>);

/// There is nothing to be read.
#[derive(Debug, thiserror::Error)]
#[error("nothing is read")]
struct Nothing;

impl Error for Nothing {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Nothing
    }
}

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Nothing;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        *self.0 = Some((name, fields));
        Err(Nothing)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
