//! What a pipeline is made of, fixed at start-up, and how it is made.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_wire::ether::MacAddr;

use super::admit::Admit;
use super::arp::Arp;
use super::dispatch::Dispatch;
use super::exception::Exception;
use super::forward::Forward;
use super::held::Waiting;
use super::icmp::Icmp;
use super::next_hop::NextHops;
use super::parse::Parse;
use super::shared::{Interfaces, Shared};
use super::steer::Steer;
use super::upkeep::Upkeep;
use super::{Pipeline, Steering};
use crate::counters::WorkerCounters;
use crate::flow::FlowHasher;
use crate::frame::Frame;
use crate::host_flows::HostFlows;
use crate::ids::WorkerId;
use crate::memory::Pages;
use crate::table::conn::ConnTable;
use crate::table::route::RouteTable;
use crate::tally::WorkerView;
use crate::time::Millis;

/// An interface as the pipeline knows it.
#[derive(Clone, Debug)]
pub struct InterfaceInfo {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// Its first address: the source of ICMP errors that go out of it.
    pub address: Ipv4Addr,
    /// Directed broadcast addresses of its networks (RFC 919), in host order.
    pub broadcasts: Box<[u32]>,
    /// Whether the kernel can be reached through an exception port.
    pub has_exception: bool,
    /// Whether sources are believed only when they lie behind it.
    pub checks_source: bool,
}

/// What a pipeline is made of, fixed at start-up.
#[derive(Clone)]
pub struct PipelineConfig {
    /// This worker's number.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: u16,
    /// How packets find the worker that owns their conn.
    pub steering: Steering,
    /// Plain conns of this worker.
    pub conns: u32,
    /// Wide conns of this worker.
    pub wide_conns: u32,
    /// Next hops.
    pub neighbours: u16,
    /// Slots of services.
    pub service_slots: usize,
    /// Slots of backends.
    pub backend_slots: usize,
    /// Interfaces, in order.
    pub interfaces: Vec<InterfaceInfo>,
    /// Routes.
    pub routes: Arc<RouteTable>,
    /// Seed of the flow hash, the same for all workers, random per start.
    pub seed: u64,
    /// What the host itself has asked for, hashed with the same seed.
    pub host_flows: Arc<HostFlows>,
    /// Whether TCP and UDP checksums are verified in software where the port did not.
    pub verify_l4_checksum: bool,
    /// Pages for the conn table.
    pub pages: Pages,
}

impl<F: Frame> Pipeline<F> {
    /// A pipeline with all its memory taken; `counters` and `view` have the slots of `config`, and
    /// `counters` as many ports.
    pub fn new(
        config: PipelineConfig,
        counters: Arc<WorkerCounters>,
        view: Arc<WorkerView>,
        now: Millis,
    ) -> Self {
        let PipelineConfig { seed, conns, wide_conns, .. } = config;
        let hasher = FlowHasher::new(seed);
        let whoami = (config.worker, config.workers);
        Pipeline {
            parse: Parse::new(hasher.clone(), config.verify_l4_checksum),
            steer: Steer::new(&config.steering, whoami, config.interfaces.len(), &counters),
            forward: Forward::new(conns, seed, now),
            arp: Arp::new(seed, now),
            icmp: Icmp::new(seed, now),
            exception: Exception::new(seed, now),
            admit: Admit::new(&config, view, now),
            dispatch: Dispatch::new(Arc::clone(&config.host_flows)),
            waiting: Waiting::new(),
            upkeep: Upkeep::new(config.worker),
            shared: Shared {
                conns: ConnTable::with_wide(conns, wide_conns, hasher, now, config.pages),
                next_hops: NextHops::new(&config, now),
                local_ports: config.steering.owners.own_ports(config.worker),
                counters,
                interfaces: Interfaces::new(config.interfaces),
            },
        }
    }
}
