//! Bodies of answers as JSON that every reader reads as it is meant: an integer beyond 2^53 - 1, which
//! readers that take numbers for IEEE doubles would change, is a string (RFC 7493, 2.2).

use std::io;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Largest integer such that it and all below are doubles, and no other integer is taken for them.
const EXACT: u64 = (1 << 53) - 1;

/// A body.
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match encode(&self.0) {
            Ok(bytes) => {
                let kind = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, kind)], bytes).into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Exact))?;
    Ok(bytes)
}

struct Exact;

impl Formatter for Exact {
    fn write_u64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if value > EXACT {
            write!(writer, "\"{value}\"")
        } else {
            CompactFormatter.write_u64(writer, value)
        }
    }

    fn write_i64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        if value.unsigned_abs() > EXACT {
            write!(writer, "\"{value}\"")
        } else {
            CompactFormatter.write_i64(writer, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_double_cannot_hold_is_a_string() {
        let text = |value| String::from_utf8(encode(&value).unwrap()).unwrap();
        let largest = 9_007_199_254_740_991_u64;
        assert_eq!(text(json!([0, largest, -7, 0.5, "x"])), "[0,9007199254740991,-7,0.5,\"x\"]");
        assert_eq!(text(json!([largest + 1])), "[\"9007199254740992\"]");
        assert_eq!(text(json!({"id": u64::MAX})), "{\"id\":\"18446744073709551615\"}");
        assert_eq!(text(json!(i64::MIN)), "\"-9223372036854775808\"");
    }
}
