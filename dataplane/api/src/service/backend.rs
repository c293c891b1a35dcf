//! Backends: the real servers within a service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{Object, Resource};

/// A backend's identity within its service, written `address:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// The backend's address.
    pub address: IpAddr,
    /// The backend's L4 port.
    pub port: u16,
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// A text that names no backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a backend: expected {expected}")]
pub struct NotABackend {
    /// The text.
    pub text: String,
    /// What would be accepted.
    pub expected: &'static str,
}

impl FromStr for BackendId {
    type Err = NotABackend;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |expected| NotABackend { text: text.to_owned(), expected };
        let at = text.parse::<SocketAddr>();
        let at = at.map_err(|_| wrong("ADDRESS:PORT, as in 10.0.0.1:80"))?;
        // A zone (RFC 4007, 11) is no part of the identity; without it, it would be another backend.
        if text.contains('%') {
            return Err(wrong("ADDRESS:PORT without a zone, as in 10.0.0.1:80"));
        }
        Ok(BackendId { address: at.ip(), port: at.port() })
    }
}

/// A real server within a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-observed" = "health"))]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its L4 port, 1 to 65,535. In DR it must be the service's port.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Its share relative to the service's other backends: 0 (no new conns) to 65,535.
    #[serde(default = "default_weight")]
    pub weight: u16,
    /// Most conns that it may have in this service at a time, over all workers, 1 to 4,294,967,295;
    /// new ones beyond go to other backends. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<NonZeroU32>,
    /// The zone it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What the operator wants it to do.
    #[serde(default)]
    pub state: AdminState,
}

/// Another share of new conns for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    /// Its share relative to the service's other backends: 0 (no new conns) to 65,535.
    pub weight: u16,
}

impl Resource for Backend {
    const MANY: &str = "backends";
    const ONE: &str = "backend";

    fn object() -> &'static Object {
        static OBJECT: LazyLock<Object> = LazyLock::new(|| Object::of::<Backend>(&[]));
        &OBJECT
    }
}

impl NewWeight {
    /// Its fields.
    pub fn object() -> &'static Object {
        static OBJECT: LazyLock<Object> = LazyLock::new(|| Object::of::<NewWeight>(&[]));
        &OBJECT
    }
}

/// Weight of a backend that names none.
pub const fn default_weight() -> u16 {
    100
}

impl Backend {
    /// Its identity within the service.
    pub fn id(&self) -> BackendId {
        BackendId { address: self.address, port: self.port }
    }
}

/// What the operator wants a backend to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// Takes new conns while healthy.
    #[default]
    Up,
    /// Keeps its conns, takes no new ones.
    Drain,
    /// Out of service: no new conns and no health checks. Conns it still has run out.
    Down,
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdminState::Up => "up",
            AdminState::Drain => "drain",
            AdminState::Down => "down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_address_and_port_and_nothing_is_dropped() {
        for text in ["10.0.0.1:80", "[fd00::1]:80"] {
            assert_eq!(text.parse::<BackendId>().unwrap().to_string(), text);
        }
        let told = |text: &str| text.parse::<BackendId>().unwrap_err().to_string();
        assert_eq!(
            told("10.0.0.1"),
            "\"10.0.0.1\" is not a backend: expected ADDRESS:PORT, as in 10.0.0.1:80"
        );
        for text in ["[fe80::1%1]:80", "[fe80::1%0]:80"] {
            assert_eq!(
                told(text),
                format!(
                    "{text:?} is not a backend: expected ADDRESS:PORT without a zone, as in 10.0.0.1:80"
                )
            );
        }
    }
}
