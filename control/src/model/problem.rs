//! Why a request was not done. The HTTP status of each is decided in one place,
//! `http::problem_json`.

use std::fmt;

use sluice_api::problems::{and_more, cut};
use sluice_api::schema::nearest;
use sluice_api::{Problem, Problems};

/// What kind of resource a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A service.
    Service,
    /// A backend.
    Backend,
    /// A pool.
    Pool,
    /// An address of a pool.
    Address,
    /// A port of the data plane.
    Port,
    /// A VIP.
    Vip,
    /// A node.
    Node,
    /// A revision.
    Revision,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Service => "service",
            Kind::Backend => "backend",
            Kind::Pool => "pool",
            Kind::Address => "address",
            Kind::Port => "port",
            Kind::Vip => "VIP",
            Kind::Node => "node",
            Kind::Revision => "revision",
        })
    }
}

/// Why a request was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiProblem {
    /// There is no such resource.
    #[error("there is no {kind} {id}: {known}")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Its name or identity.
        id: String,
        /// Those there are, as a phrase.
        known: String,
    },
    /// A resource to be made is there already.
    #[error("{kind} {id} exists already: choose another name, or replace it with PUT")]
    Exists {
        /// What was to be made.
        kind: Kind,
        /// Its name or identity.
        id: String,
    },
    /// A pool to be deleted is in use.
    #[error(
        "pool {pool} is used by {}: give them another pool or delete them first",
        listed(services)
    )]
    PoolInUse {
        /// The pool.
        pool: String,
        /// Names of the services that use it.
        services: Vec<String>,
    },
    /// What is to be changed has changed since the client read it.
    #[error(
        "{what} has the tag {current} now, If-Match asks for {wanted}: read it again and repeat the \
         change"
    )]
    VersionMismatch {
        /// What is to be changed.
        what: String,
        /// Its entity tag now.
        current: String,
        /// What the client sent.
        wanted: String,
    },
    /// The request breaks rules; all that it breaks.
    #[error("{0}")]
    Invalid(Problems),
    /// The change could not be made durable.
    #[error("the change was not made, as the database cannot be written: {0}")]
    NotStored(String),
    /// The data plane cannot be asked.
    #[error("dataplane unreachable: {0}")]
    DataplaneUnreachable(String),
}

impl ApiProblem {
    /// There is no such resource; `known` are those there are.
    pub fn not_found<T: fmt::Display>(
        kind: Kind,
        id: impl fmt::Display,
        known: impl Iterator<Item = T>,
    ) -> Self {
        const SHOWN: usize = 20;
        let id = cut(id.to_string(), 200);
        let known: Vec<String> = known.map(|known| known.to_string()).collect();
        let mut shown = known[..known.len().min(SHOWN)].join(", ");
        if known.len() > SHOWN {
            shown += ", …";
        }
        let known = match nearest(&id, &known) {
            _ if known.is_empty() => format!("there are no {kind}s yet"),
            None => format!("expected one of {shown}"),
            Some(nearest) => format!("did you mean {nearest}? expected one of {shown}"),
        };
        ApiProblem::NotFound { kind, id, known }
    }

    /// A single broken rule.
    pub fn invalid(problem: Problem) -> Self {
        ApiProblem::Invalid(problem.into())
    }
}

/// Names, not more than a person reads.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if let Some(more) = and_more(names.len().saturating_sub(SHOWN)) {
        text = format!("{text} {more}");
    }
    text
}
