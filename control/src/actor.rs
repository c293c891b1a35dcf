//! Who made a change, as events tell.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who or what made something happen, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Actor {
    /// A client of the API: the CLI, a script, a program.
    Api {
        /// Where it connected from.
        address: IpAddr,
        /// What it calls itself in `Sluice-Client`, if it does; nobody checks that. The CLI is
        /// `sluice/VERSION`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
    },
    /// The TOML file, which control read.
    File {
        /// Why it did.
        read: ReadOn,
    },
    /// The health checks.
    HealthCheck,
    /// The data plane.
    Dataplane,
}

/// Why the TOML file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadOn {
    /// Control started.
    Start,
    /// A signal asked for it.
    Signal,
}

/// Who makes a change, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Who.
    pub actor: Actor,
    /// Why, in their words.
    pub reason: Option<String>,
}

impl From<Actor> for Author {
    fn from(actor: Actor) -> Self {
        Author { actor, reason: None }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Api { address, client: None } => write!(f, "api client {address}"),
            Actor::Api { address, client: Some(client) } => {
                write!(f, "api client {address} ({client})")
            }
            Actor::File { read: ReadOn::Start } => f.write_str("file, at start"),
            Actor::File { read: ReadOn::Signal } => f.write_str("file, after a signal"),
            Actor::HealthCheck => f.write_str("health check"),
            Actor::Dataplane => f.write_str("data plane"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_actor_is_a_kind_and_what_is_known_of_it() {
        let address = IpAddr::from([192, 0, 2, 7]);
        let cases = [
            (
                Actor::Api { address, client: Some("sluice/1.0".into()) },
                json!({"kind": "api", "address": "192.0.2.7", "client": "sluice/1.0"}),
                "api client 192.0.2.7 (sluice/1.0)",
            ),
            (
                Actor::Api { address, client: None },
                json!({"kind": "api", "address": "192.0.2.7"}),
                "api client 192.0.2.7",
            ),
            (
                Actor::File { read: ReadOn::Signal },
                json!({"kind": "file", "read": "signal"}),
                "file, after a signal",
            ),
            (
                Actor::File { read: ReadOn::Start },
                json!({"kind": "file", "read": "start"}),
                "file, at start",
            ),
            (Actor::HealthCheck, json!({"kind": "health-check"}), "health check"),
            (Actor::Dataplane, json!({"kind": "dataplane"}), "data plane"),
        ];
        for (actor, expected, in_words) in cases {
            assert_eq!(serde_json::to_value(&actor).unwrap(), expected);
            assert_eq!(serde_json::from_value::<Actor>(expected).unwrap(), actor);
            assert_eq!(actor.to_string(), in_words);
        }
    }
}
