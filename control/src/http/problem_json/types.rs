//! The types of problems that there are: for programs a status and a word, for people a title.

use axum::http::StatusCode;

/// What kind of problem it is.
#[derive(Debug)]
pub struct Type {
    /// The status of the answer.
    pub status: StatusCode,
    /// For programs, after `urn:sluice:problem:`.
    pub word: &'static str,
    /// For people.
    pub title: &'static str,
}

impl Type {
    const fn new(status: StatusCode, word: &'static str, title: &'static str) -> Type {
        Type { status, word, title }
    }

    /// As `type` of a problem.
    pub fn urn(&self) -> String {
        format!("urn:sluice:problem:{}", self.word)
    }
}

macro_rules! types {
    ($($name:ident = $status:ident $word:literal $title:literal;)*) => {
        $(
            #[doc = $title]
            pub static $name: Type = Type::new(StatusCode::$status, $word, $title);
        )*

        /// All of them, by status.
        #[cfg(test)]
        pub static ALL: &[&Type] = &[$(&$name),*];
    };
}

types! {
    BAD_JSON = BAD_REQUEST "bad-json" "The body is not JSON";
    BAD_REQUEST = BAD_REQUEST "bad-request" "The request cannot be read";
    FOREIGN = FORBIDDEN "foreign" "The request may be another site's";
    NOT_FOUND = NOT_FOUND "not-found" "No such resource";
    NO_ROUTE = NOT_FOUND "no-route" "No such path";
    WRONG_METHOD = METHOD_NOT_ALLOWED "method-not-allowed" "Method not allowed";
    SLOW = REQUEST_TIMEOUT "slow" "The body did not come in time";
    EXISTS = CONFLICT "exists" "Exists already";
    POOL_IN_USE = CONFLICT "pool-in-use" "The pool is in use";
    VERSION_MISMATCH = PRECONDITION_FAILED "version-mismatch" "Changed meanwhile";
    TOO_LARGE = PAYLOAD_TOO_LARGE "too-large" "The body is too long";
    MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE "media-type" "The body is not declared as JSON";
    INVALID = UNPROCESSABLE_ENTITY "invalid" "Invalid request";
    NOT_STORED = INTERNAL_SERVER_ERROR "not-stored" "Change not stored";
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "Internal error";
    BUSY = SERVICE_UNAVAILABLE "busy" "Too many large requests at a time";
    DATAPLANE_UNREACHABLE = SERVICE_UNAVAILABLE "dataplane-unreachable" "The data plane does not answer";
    NOT_READY = SERVICE_UNAVAILABLE "not-ready" "Not ready";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_stands_in_the_documentation() {
        let documentation = include_str!("../../../../docs/api.md");
        for Type { status, word, .. } in ALL {
            let row = format!("| {} | `{word}` |", status.as_u16());
            assert!(documentation.contains(&row), "docs/api.md has no row {row}");
        }
    }
}
