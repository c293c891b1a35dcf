//! Pools as resources.

use std::net::IpAddr;

use serde_json::{Map, Value};
use sluice_api::{Pool, Problems, Service};

use super::{Key, Resource};
use crate::model::diff::as_value;
use crate::model::{ApiProblem, Kind, Named, State};
use sluice_api::read::{self, Spelling};

/// What operators set of a pool by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSetting {
    /// One of its addresses.
    pub address: IpAddr,
    /// Whether that shall take no new conns.
    pub drain: bool,
}

impl Resource for Pool {
    const KIND: Kind = Kind::Pool;
    type Holder = ();
    type Id = String;
    type All = Named<Pool>;
    type Setting = PoolSetting;

    fn id(&self) -> String {
        self.name.clone()
    }

    fn all<'s>(state: &'s State, (): &()) -> Result<&'s Named<Pool>, ApiProblem> {
        Ok(&state.pools)
    }

    fn all_mut<'s>(state: &'s mut State, (): &()) -> Option<&'s mut Named<Pool>> {
        Some(&mut state.pools)
    }

    fn read(body: Value, (): &(), label: &str) -> Result<Pool, Problems> {
        read::pool(body, Spelling::Json, label)
    }

    fn field(key: &Key<Pool>) -> String {
        format!("pools[{}]", key.id)
    }

    fn identity(id: &String) -> Vec<(&'static str, Value)> {
        vec![("name", Value::from(id.as_str()))]
    }

    fn set(&mut self, PoolSetting { address, drain }: PoolSetting) -> Result<(), ApiProblem> {
        if !self.addresses.contains(&address) {
            let known = self.addresses.iter();
            return Err(ApiProblem::not_found(Kind::Address, address, known));
        }
        if !drain {
            self.drained.retain(|drained| *drained != address);
        } else if !self.drained.contains(&address) {
            self.drained.push(address);
        }
        Ok(())
    }

    fn tell_set(key: &Key<Pool>, setting: &PoolSetting) -> (String, String) {
        let PoolSetting { address, drain } = setting;
        let does = if *drain { "drains" } else { "takes new conns" };
        ("pool-changed".to_owned(), format!("address {address} of {} {does}", key.in_words()))
    }

    fn keep(&self, fields: &mut Map<String, Value>) {
        if fields.contains_key("drained") {
            return;
        }
        let addresses = fields.get("addresses").and_then(Value::as_array);
        let is_there = |address: &Value| addresses.is_some_and(|all| all.contains(address));
        let drained: Vec<Value> = self.drained.iter().map(as_value).filter(is_there).collect();
        fields.insert("drained".to_owned(), Value::Array(drained));
    }

    fn may_go(state: &State, id: &String) -> Result<(), ApiProblem> {
        let user = |s: &Service| (s.pool.as_ref() == Some(id)).then(|| s.name.clone());
        let services: Vec<String> = state.services.iter().filter_map(user).collect();
        if services.is_empty() {
            return Ok(());
        }
        Err(ApiProblem::PoolInUse { pool: id.clone(), services })
    }
}
