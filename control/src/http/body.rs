//! The body of a request as a JSON value: declared as JSON, bounded, each key once.

use std::fmt;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::LengthLimitError;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::HttpProblem;

/// Longest body, in bytes: 100,000 backends.
pub const MAX_BODY: usize = 16 << 20;

/// The JSON body of a request.
pub struct Body(pub Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = HttpProblem;

    async fn from_request(request: Request, _: &S) -> Result<Self, HttpProblem> {
        check_headers(request.headers())?;
        let bytes = to_bytes(request.into_body(), MAX_BODY).await.map_err(|error| {
            let error = error.into_inner();
            if error.is::<LengthLimitError>() {
                HttpProblem::TooLarge
            } else {
                HttpProblem::BadJson(format!("the body ended early: {error}"))
            }
        })?;
        parse(&bytes).map(Body)
    }
}

/// What can be refused before the body is read.
fn check_headers(headers: &HeaderMap) -> Result<(), HttpProblem> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let declared = text(header::CONTENT_TYPE).unwrap_or("absent");
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !matches!(essence.as_str(), "application/json" | "application/merge-patch+json") {
        return Err(HttpProblem::MediaType(declared.to_owned()));
    }
    let length = text(header::CONTENT_LENGTH).and_then(|l| l.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(HttpProblem::TooLarge);
    }
    Ok(())
}

/// JSON with each key once per object: which of two would be meant, nobody knows.
fn parse(bytes: &[u8]) -> Result<Value, HttpProblem> {
    if bytes.is_empty() {
        return Err(HttpProblem::BadJson("the body is empty: expected a JSON object".to_owned()));
    }
    serde_json::from_slice::<Strict>(bytes)
        .map(|strict| strict.0)
        .map_err(|error| HttpProblem::BadJson(error.to_string()))
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number out of range"))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_column() {
        let text = |body: &str| match parse(body.as_bytes()) {
            Err(HttpProblem::BadJson(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(text("{\n  \"weight\": }").contains("line 2 column 13"));
        assert!(text("{\"a\": 1, \"a\": 2}").contains("\"a\" stands twice"));
        assert!(text("{} {}").contains("trailing"));
        assert!(text("").contains("empty"));
        let same = r#"{"a":[1,-2,2.5,"x",null,true,{}]}"#;
        assert_eq!(parse(same.as_bytes()).unwrap().to_string(), same);
    }
}
