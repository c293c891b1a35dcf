//! Local pools: the source addresses of full-NAT.

use std::net::IpAddr;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{Object, Resource};

/// A named set of local addresses: the source addresses of full-NAT towards backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, by the rules of a service's name.
    pub name: String,
    /// Its addresses, 1 to 256, each in one pool only, none a VIP or an address of a port.
    pub addresses: Vec<IpAddr>,
    /// Those of them that new conns do not use; running ones go on. Never all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<IpAddr>,
}

impl Resource for Pool {
    const MANY: &str = "pools";
    const ONE: &str = "pool";

    fn object() -> &'static Object {
        static OBJECT: LazyLock<Object> = LazyLock::new(|| Object::of::<Pool>(&[]));
        &OBJECT
    }
}

impl Pool {
    /// A pool of these addresses, none drained.
    pub fn new(name: impl Into<String>, addresses: Vec<IpAddr>) -> Self {
        Pool { name: name.into(), addresses, drained: Vec::new() }
    }

    /// The addresses that new conns use.
    pub fn open_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied().filter(|address| !self.drained.contains(address))
    }
}
