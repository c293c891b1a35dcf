//! `/nodes` and `/nodes/{name}`: this node, as control and its data plane tell. Read only.

use schemars::JsonSchema;
use serde::Serialize;
use sluice_api::stats::{PortStatus, WorkerStatus};

use super::HttpProblem;
use super::resource::Shown;
use crate::model::{ApiProblem, Kind, state_tag, tag_of};
use crate::world::{Link, World};

/// Shows nodes.
pub struct Nodes;

/// A node as it is read.
#[derive(Serialize)]
pub struct NodeView<'w> {
    #[serde(flatten)]
    configured: Configured<'w>,
    observed: NodeObservation<'w>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Node")]
pub struct Configured<'w> {
    name: &'w str,
}

/// What runs on it.
#[derive(Serialize, JsonSchema)]
pub struct NodeObservation<'w> {
    /// Whether changes reach packets there.
    ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    control: Control,
    dataplane: Dataplane<'w>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NodeControl")]
struct Control {
    version: &'static str,
}

/// The data plane, as it told last; without what it never told.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NodeDataplane")]
struct Dataplane<'w> {
    /// Whether it answers now.
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'w str>,
    /// Generation of the snapshot that all its workers forward by.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_applied: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<&'w [WorkerStatus]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<NodePort<'w>>>,
}

/// A port in short; `/ports` has all of it.
#[derive(Serialize, JsonSchema)]
struct NodePort<'w> {
    name: &'w str,
    addresses: &'w [String],
    link_up: bool,
}

impl<'w> From<&'w PortStatus> for NodePort<'w> {
    fn from(port: &'w PortStatus) -> Self {
        NodePort { name: &port.name, addresses: &port.addresses, link_up: port.link_up }
    }
}

impl<'w> From<&'w Link> for Dataplane<'w> {
    fn from(link: &'w Link) -> Self {
        let known = link.status.as_ref();
        Dataplane {
            connected: link.connected,
            version: known.map(|status| status.version.as_str()),
            generation_applied: known.map(|status| status.workers_generation),
            workers: known.map(|status| status.workers.as_slice()),
            ports: known.map(|status| status.ports.iter().map(NodePort::from).collect()),
        }
    }
}

/// This node, with its entity tag.
fn here(world: &World) -> (String, NodeView<'_>) {
    let configured = Configured { name: &world.node };
    let reason = world.link.unready();
    let observed = NodeObservation {
        ready: reason.is_none(),
        reason,
        control: Control { version: env!("CARGO_PKG_VERSION") },
        dataplane: Dataplane::from(&*world.link),
    };
    (tag_of(&configured), NodeView { configured, observed })
}

impl Shown for Nodes {
    const ALL: &'static str = "/nodes";
    const ONE: &'static str = "/nodes/{name}";
    const LIST: &'static str = "nodes";
    type Of = ();
    type Name = String;
    type View<'w> = NodeView<'w>;
    type Configured = Configured<'static>;
    type Observed = NodeObservation<'static>;

    fn of(_: Vec<String>) {}

    fn name(text: String) -> Result<String, HttpProblem> {
        Ok(text)
    }

    fn list<'w>(world: &'w World, (): &()) -> Result<(String, Vec<NodeView<'w>>), HttpProblem> {
        Ok((state_tag(&world.state), vec![here(world).1]))
    }

    fn one<'w>(
        world: &'w World,
        (): &(),
        name: &String,
    ) -> Result<(String, NodeView<'w>), HttpProblem> {
        if *name != *world.node {
            let known = std::iter::once(&world.node);
            return Err(ApiProblem::not_found(Kind::Node, name, known).into());
        }
        Ok(here(world))
    }
}
