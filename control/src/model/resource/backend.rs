//! Backends as resources, each a part of its service.

use serde_json::Value;
use sluice_api::{AdminState, Backend, BackendId, Problems};

use super::{Holder, Key, Resource, Subject};
use crate::model::{ApiProblem, Kind, State, tag_of};
use sluice_api::read::{self, identity_fields};

/// The service of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfService(pub String);

impl Holder for OfService {
    fn name(&self) -> Option<&str> {
        Some(&self.0)
    }

    fn tag(&self, state: &State) -> Option<(String, String)> {
        let service = state.service(&self.0)?;
        Some((format!("service {}", self.0), tag_of(service)))
    }
}

/// What operators set of a backend by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendSetting {
    /// Its share of new conns.
    Weight(u16),
    /// What it shall do.
    State(AdminState),
}

impl Resource for Backend {
    const KIND: Kind = Kind::Backend;
    type Holder = OfService;
    type Id = BackendId;
    type All = Vec<Backend>;
    type Setting = BackendSetting;

    fn id(&self) -> BackendId {
        Backend::id(self)
    }

    fn all<'s>(state: &'s State, service: &OfService) -> Result<&'s Vec<Backend>, ApiProblem> {
        Ok(&state.find_service(&service.0)?.backends)
    }

    fn all_mut<'s>(state: &'s mut State, service: &OfService) -> Option<&'s mut Vec<Backend>> {
        Some(&mut state.services.get_mut(&service.0)?.backends)
    }

    fn read(body: Value, service: &OfService, label: &str) -> Result<Backend, Problems> {
        read::backend(body, &service.0, label)
    }

    fn field(key: &Key<Backend>) -> String {
        format!("services[{}].backends[{}]", key.holder.0, key.id)
    }

    fn identity(id: &BackendId) -> Vec<(&'static str, Value)> {
        identity_fields(*id).into_iter().collect()
    }

    fn set(&mut self, setting: BackendSetting) -> Result<(), ApiProblem> {
        match setting {
            BackendSetting::Weight(weight) => self.weight = weight,
            BackendSetting::State(state) => self.state = state,
        }
        Ok(())
    }

    fn tell_set(key: &Key<Backend>, setting: &BackendSetting) -> (String, String) {
        let what = key.in_words();
        let (kind, sentence) = match setting {
            BackendSetting::Weight(weight) => {
                ("backend-changed", format!("{what} has weight {weight} now"))
            }
            BackendSetting::State(state) => {
                let kind = match state {
                    AdminState::Up => "backend-up",
                    AdminState::Drain => "backend-drained",
                    AdminState::Down => "backend-down",
                };
                (kind, format!("{what} is set to {state}"))
            }
        };
        (kind.to_owned(), sentence)
    }

    fn subject(key: &Key<Backend>) -> Subject {
        Subject { service: Some(key.holder.0.clone()), backend: Some(key.id) }
    }
}
