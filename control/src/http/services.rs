//! `/services` and `/services/{name}`.

use serde_json::Value;
use sluice_api::Service;

use super::resource::Shown;
use super::view::ServiceObservation;
use super::{HttpProblem, view};
use crate::model::{state_tag, tag_of};
use crate::world::World;

impl Shown for Service {
    const ALL: &'static str = "/services";
    const ONE: &'static str = "/services/{name}";
    const LIST: &'static str = "services";
    type Of = ();
    type Name = String;
    type View<'w> = Value;
    type Configured = Service;
    type Observed = ServiceObservation;

    fn of(_: Vec<String>) {}

    fn name(text: String) -> Result<String, HttpProblem> {
        Ok(text)
    }

    fn list(world: &World, (): &()) -> Result<(String, Vec<Value>), HttpProblem> {
        let services = world.state.services.iter().map(|s| view::service(world, s));
        Ok((state_tag(&world.state), services.collect::<Result<_, _>>()?))
    }

    fn one(world: &World, (): &(), name: &String) -> Result<(String, Value), HttpProblem> {
        let service = world.state.find_service(name)?;
        Ok((tag_of(service), view::service(world, service)?))
    }
}
