//! Services as resources.

use std::collections::HashMap;
use std::convert::Infallible;

use serde_json::{Map, Value};
use sluice_api::{Backend, Problems, Service};

use super::{Key, Resource, Subject};
use crate::model::diff::{as_value, id_of};
use crate::model::{ApiProblem, Kind, Named, State};
use sluice_api::read::{self, Spelling};

impl Resource for Service {
    const KIND: Kind = Kind::Service;
    type Holder = ();
    type Id = String;
    type All = Named<Service>;
    /// All of a service is set by its fields.
    type Setting = Infallible;

    fn id(&self) -> String {
        self.name.clone()
    }

    fn all<'s>(state: &'s State, (): &()) -> Result<&'s Named<Service>, ApiProblem> {
        Ok(&state.services)
    }

    fn all_mut<'s>(state: &'s mut State, (): &()) -> Option<&'s mut Named<Service>> {
        Some(&mut state.services)
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

    fn keep(&self, fields: &mut Map<String, Value>) {
        let held: HashMap<String, &Backend> =
            self.backends.iter().map(|backend| (backend.id().to_string(), backend)).collect();
        let backends = fields.get_mut("backends").and_then(Value::as_array_mut);
        for backend in backends.into_iter().flatten() {
            let Some(held) = held.get(&id_of(backend)) else { continue };
            let Some(fields) = backend.as_object_mut() else { continue };
            fields.entry("weight").or_insert_with(|| as_value(&held.weight));
            fields.entry("state").or_insert_with(|| as_value(&held.state));
        }
    }

    fn subject(key: &Key<Service>) -> Subject {
        Subject { service: Some(key.id.clone()), backend: None }
    }
}
