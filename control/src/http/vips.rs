//! `/vips` and `/vips/{address}`: what clients connect to. Read only: a VIP is there while a service has it.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;
use sluice_api::Problem;

use super::HttpProblem;
use super::extract::forwarded;
use super::resource::Shown;
use crate::compose::{self, Vip};
use crate::derived::ServiceState;
use crate::model::{ApiProblem, Kind, state_tag, tag_of};
use crate::world::World;

/// Shows VIPs.
pub struct Vips;

/// A VIP as it is read.
#[derive(Serialize)]
pub struct VipView<'w> {
    #[serde(flatten)]
    configured: Configured<'w>,
    observed: VipObservation,
}

/// What services say of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Vip")]
pub struct Configured<'w> {
    address: IpAddr,
    services: Vec<&'w str>,
}

/// How it fares on this node.
#[derive(Serialize, JsonSchema)]
pub struct VipObservation {
    state: ServiceState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    announced: Option<bool>,
}

/// With its entity tag.
fn view(vip: Vip) -> (String, VipView) {
    let Vip { address, services, state, reason, announced } = vip;
    let configured = Configured { address, services };
    let observed = VipObservation { state, reason, announced };
    (tag_of(&configured), VipView { configured, observed })
}

impl Shown for Vips {
    const ALL: &'static str = "/vips";
    const ONE: &'static str = "/vips/{address}";
    const LIST: &'static str = "vips";
    type Of = ();
    type Name = IpAddr;
    type View<'w> = VipView<'w>;
    type Configured = Configured<'static>;
    type Observed = VipObservation;

    fn of(_: Vec<String>) {}

    fn name(text: String) -> Result<IpAddr, HttpProblem> {
        let address: IpAddr = text.parse().map_err(|_| {
            let expected = "an IPv4 address, as in 198.51.100.1";
            HttpProblem::BadRequest(Problem::new("address", format!("{text:?}"), expected))
        })?;
        forwarded("address", &address, address)
    }

    fn list<'w>(world: &'w World, (): &()) -> Result<(String, Vec<VipView<'w>>), HttpProblem> {
        let vips = compose::vips(world).into_iter().map(|vip| view(vip).1);
        Ok((state_tag(&world.state), vips.collect()))
    }

    fn one<'w>(
        world: &'w World,
        (): &(),
        address: &IpAddr,
    ) -> Result<(String, VipView<'w>), HttpProblem> {
        let vip = compose::vip(world, *address).ok_or_else(|| {
            let known = compose::vips(world).into_iter().map(|vip| vip.address);
            ApiProblem::not_found(Kind::Vip, address, known)
        })?;
        Ok(view(vip))
    }
}
