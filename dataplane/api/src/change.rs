//! What a change did to a resource, field by field, as answers tell it and the CLI prints it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::shown;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// Its path within the resource, as `backends[10.0.0.1:80].weight`.
    pub field: String,
    /// What it was; `null` when it was absent.
    pub from: Value,
    /// What it is; `null` when it is absent.
    pub to: Value,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FieldChange { field, from, to } = self;
        let value = |value: &Value| match value {
            Value::Null => "none".to_owned(),
            value => shown(value),
        };
        match (from, to) {
            // A backend is too long to be shown whole.
            (Value::Null, Value::Object(_)) => write!(f, "{field}: added"),
            (Value::Object(_), Value::Null) => write!(f, "{field}: removed"),
            _ => write!(f, "{field}: {} -> {}", value(from), value(to)),
        }
    }
}
