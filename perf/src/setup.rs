//! A pipeline as the benches use it, over any kind of frame.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::{Mode, Pool, Protocol, Refusal, Scheduler, Shared, Snapshot, SnapshotService};
use sluice_path::counters::WorkerCounters;
use sluice_path::frame::Frame;
use sluice_path::host_flows::HostFlows;
use sluice_path::ids::{InterfaceId, WorkerId};
use sluice_path::memory::Pages;
use sluice_path::pipeline::{Pipeline, PipelineConfig, Steering};
use sluice_path::slots::{self, Slots};
use sluice_path::snapshot::Compiled;
use sluice_path::tally::WorkerView;
use sluice_path::testkit;
use sluice_path::time::Millis;

use crate::traffic::wide_conn;

/// Local addresses of the pool: enough local ports for 16 million conns to four backends.
const LOCAL_ADDRESSES: u32 = 64;
/// Backends of the service.
pub const BACKENDS: u16 = 4;
/// The service's L4 port.
pub const SERVICE_PORT: u16 = 80;

/// A pipeline with what it forwards by.
pub struct Setup<F> {
    /// The pipeline.
    pub pipeline: Pipeline<F>,
    /// The snapshot, compiled.
    pub compiled: Arc<Compiled>,
    /// The time, in ms; it stands still unless the traffic moves it.
    pub now: Millis,
    /// The snapshot, to make the next one of.
    pub snapshot: Snapshot,
    /// Slots of its services and backends.
    pub slots: Slots,
    /// The ports' own addresses.
    pub own: Vec<(Ipv4Addr, InterfaceId)>,
}

impl<F: Frame> Setup<F> {
    /// A pipeline for `conns` conns, one service in this mode, with Maglev.
    pub fn one_service(mode: Mode, conns: u32) -> Self {
        Self::new(vec![web(mode)], conns)
    }

    /// The same, with so many wide conns in the table beside: IPv6 on both sides.
    pub fn beside_wide(mode: Mode, conns: u32, wide: u32) -> Self {
        let worker = (WorkerId(0), 1);
        let mut setup =
            Self::worker(vec![web(mode)], [conns, wide], worker, Steering::by_handover(1));
        let (table, timeouts) = (setup.pipeline.conns_mut(), &setup.compiled.timeouts);
        for i in 0..wide {
            let new = wide_conn(i);
            let hash = table.hash_wide(&new.from_client);
            table.insert_wide(&new, hash, setup.now, timeouts).expect("there is room");
        }
        setup
    }

    /// The pipeline of worker number so of so many, for one service in full-NAT with Maglev.
    pub fn one_of(worker: (WorkerId, u16), steering: Steering, conns: u32) -> Self {
        Self::worker(vec![web(Mode::FullNat)], [conns, 0], worker, steering)
    }

    /// A pipeline for `conns` conns and these services.
    pub fn new(services: Vec<SnapshotService>, conns: u32) -> Self {
        Self::worker(services, [conns, 0], (WorkerId(0), 1), Steering::by_handover(1))
    }

    fn worker(
        services: Vec<SnapshotService>,
        [conns, wide_conns]: [u32; 2],
        (worker, workers): (WorkerId, u16),
        steering: Steering,
    ) -> Self {
        let backends: usize = services.iter().map(|s| s.backends.len()).sum();
        let limits = ((services.len() as u32).max(1_024), (backends as u32).max(16_384));
        let locals = (1..=LOCAL_ADDRESSES).map(|i| Ipv4Addr::from_bits(0x0a00_ff00 + i).into());
        let pools = vec![Pool::new("lan", locals.collect())];
        let services = services.into_iter().map(Shared::new).collect();
        let snapshot = Snapshot { generation: 1, services, pools, no_service: Refusal::Drop };
        let mut slots = Slots::new(limits.0, limits.1);
        slots.assign(&snapshot).expect("the slots were made for these services");
        let own = testkit::own_addresses();
        let own_ports = steering.owners.all_own_ports(workers);
        let routes = testkit::routes();
        let empty = Compiled::empty(&own, own_ports, 0x5eed, Arc::clone(&routes));
        let compiled = Compiled::new(&snapshot, &slots, &own, &empty);
        let backend_slots = slots::backend_slots(limits.1) as usize;
        let interfaces = testkit::interfaces();
        let pipeline_config = PipelineConfig {
            worker,
            workers,
            steering,
            conns,
            wide_conns,
            neighbours: 4_096,
            service_slots: slots::service_slots(limits.0) as usize,
            backend_slots,
            interfaces,
            routes,
            seed: 0x5eed,
            host_flows: Arc::new(HostFlows::new(0x5eed)),
            verify_l4_checksum: true,
            pages: Pages::Transparent,
        };
        let service_slots = pipeline_config.service_slots;
        let ports = testkit::PORT_MACS.len();
        let counters = Arc::new(WorkerCounters::new(service_slots, backend_slots, ports));
        let view = Arc::new(WorkerView::new(service_slots, backend_slots));
        let pipeline = Pipeline::new(pipeline_config, counters, view, 1_000);
        Setup { pipeline, compiled: Arc::new(compiled), now: 1_000, snapshot, slots, own }
    }
}

fn web(mode: Mode) -> SnapshotService {
    let mut service = testkit::service("web", SERVICE_PORT, Protocol::Tcp, mode, BACKENDS);
    service.scheduler = Scheduler::Maglev;
    service.maglev_slots = 65_537;
    service
}
