//! Services as resources.

use std::convert::Infallible;

use serde_json::Value;
use sluice_api::{Problems, Service};

use super::{Key, Resource, Subject};
use crate::model::{ApiProblem, Kind, State};
use sluice_api::read::{self, Spelling};

impl Resource for Service {
    const KIND: Kind = Kind::Service;
    type Holder = ();
    type Id = String;
    /// All of a service is set by its fields.
    type Setting = Infallible;

    fn id(&self) -> String {
        self.name.clone()
    }

    fn is(&self, id: &String) -> bool {
        self.name == *id
    }

    fn all<'s>(state: &'s State, (): &()) -> Result<&'s Vec<Service>, ApiProblem> {
        Ok(&state.services)
    }

    fn all_mut<'s>(state: &'s mut State, (): &()) -> Result<&'s mut Vec<Service>, ApiProblem> {
        Ok(&mut state.services)
    }

    fn read(body: Value, (): &(), label: &str) -> Result<Service, Problems> {
        read::service(body, Spelling::Json, label)
    }

    fn field(key: &Key<Service>) -> String {
        format!("services[{}]", key.id)
    }

    fn identity(id: &String) -> Vec<(&'static str, Value)> {
        vec![("name", Value::from(id.as_str()))]
    }

    fn set(&mut self, setting: Infallible) -> Result<(), ApiProblem> {
        match setting {}
    }

    fn tell_set(_: &Key<Service>, setting: &Infallible) -> (String, String) {
        match *setting {}
    }

    fn subject(key: &Key<Service>) -> Subject {
        Subject { service: Some(key.id.clone()), backend: None }
    }
}
