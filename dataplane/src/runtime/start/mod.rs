//! Start-up, in order: control socket, EAL, ports, tables, kernel interfaces, workers. Whatever
//! fails ends the process with its name and reason: it never runs on half of what was asked for.

mod devices;
mod report;
mod workers;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sluice_path::counters::WorkerCounters;
use sluice_path::host_flows::HostFlows;
use sluice_path::ids::{InterfaceId, WorkerId};
use sluice_path::ledger::Ledger;
use sluice_path::memory::Pages;
use sluice_path::pipeline::{InterfaceInfo, PipelineConfig, Steering};
use sluice_path::resolver::Resolver;
use sluice_path::slots;
use sluice_path::snapshot::Compiled;
use sluice_path::table::route::RouteTable;
use sluice_path::table::toeplitz::RssKey;
use sluice_path::tally::Tally;
use sluice_wire::ether::MacAddr;

use super::announce::Announcements;
use super::compiler::{self, Compiler};
use super::crew::Crew;
use super::forwarding::Forwarding;
use super::kernel_path::KernelPath;
use super::main_loop::{MainLoop, Started};
use super::outgoing::Outgoing;
use super::ports::{MainPort, Ports};
use super::rounds::Rounds;
use super::thresholds::Thresholds;
use super::{steering, vf};
use crate::backoff::{Backoff, nap_exactly};
use crate::config::{self, Config, SourceCheck, VerifyL4Checksum};
use crate::control_socket::{ControlSocket, SocketError};
use crate::dpdk::{
    CapabilityError, Clock, Eal, EalError, LcoreError, MempoolError, PortError, RingError,
    port_name,
};
use crate::events::EventLog;
use crate::kernel::KernelError;
use devices::Opened;
use workers::{Common, Hired};

/// The longest that a packet of the host itself may wait for the main thread.
const MAIN_NAP: Duration = Duration::from_millis(2);

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum StartError {
    #[error("cannot watch for signals: {0}")]
    Signal(io::Error),
    #[error(transparent)]
    ControlSocket(#[from] SocketError),
    #[error(transparent)]
    Eal(#[from] EalError),
    #[error(transparent)]
    Mempool(#[from] MempoolError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("worker {worker} cannot run on cpu {cpu}: {source}")]
    Worker { worker: WorkerId, cpu: u16, source: LcoreError },
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    #[error("no randomness from the kernel: {0}")]
    Random(io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("cannot watch the kernel's interfaces of ports: {0}")]
    Links(io::Error),
}

/// Addresses of the ports, each with its port's number.
pub fn own_addresses(config: &Config) -> Vec<(Ipv4Addr, InterfaceId)> {
    (0..)
        .map(InterfaceId)
        .zip(&config.ports)
        .flat_map(|(interface, port)| port.addresses.iter().map(move |a| (a.address(), interface)))
        .collect()
}

/// Start everything; workers run when this returns.
pub fn start(config: Config) -> Result<MainLoop, StartError> {
    // All threads inherit it.
    nap_exactly();
    // First what costs least to find out: is another one running?
    let server = ControlSocket::bind(&config.control.socket)?;
    let worker_count = config.runtime.workers();
    // Afterwards a PF shows what the VF's driver has made up.
    let devices = config.ports.iter().map(|port| (port.name.as_str(), port_name(&port.device)));
    let mut warnings = vf::warnings_without_mac(devices);
    let eal = Eal::init(&devices::eal_config(&config))?;
    let clock = Clock::new(&eal);
    let mempool = devices::create_mempool(&eal, &config)?;
    let rss_key = RssKey::generate(random_u64()?);
    let opened = devices::open_ports(&eal, &config, &mempool, &rss_key)?;
    let exceptions = devices::open_exceptions(&eal, &config, &mempool)?;
    let keeper = devices::configure_kernel(&config, &opened)?;
    let links = devices::watch_links(&opened, &exceptions)?;

    let seed = random_u64()?;
    let host_flows = Arc::new(HostFlows::new(seed));
    let names = config.ports.iter().map(|port| port.name.as_str());
    let rss: Vec<_> = names.zip(opened.iter().map(|opened| opened.port.rss())).collect();
    let (steering, port_rss) = steering::choose(&rss, worker_count);
    let pipeline = pipeline_config(&config, &opened, steering, seed, &host_flows);
    let own_ports = pipeline.steering.owners.all_own_ports(worker_count);
    let routes = Arc::clone(&pipeline.routes);
    let compiled = Compiled::empty(&own_addresses(&config), own_ports, seed, routes);
    let compiled = Arc::new(ArcSwap::from_pointee(compiled));

    let (opened, queues) = workers::split_queues(opened, worker_count);
    let ports = opened.into_iter().zip(port_rss).enumerate().map(|(index, (port, rss))| {
        let link_up = links.state(index).is_up(&port);
        MainPort::new(port, rss, link_up)
    });
    let ports = Ports::new(ports.collect(), links);
    let common = Common {
        eal: &eal,
        config: &config,
        pipeline,
        mempool: &mempool,
        clock,
        compiled: &compiled,
    };
    let Hired { crew, views, conn_table_bytes } = workers::hire(&common, queues)?;
    let (service_slots, backend_slots) =
        (common.pipeline.service_slots, common.pipeline.backend_slots);

    let worker_counters = || crew.workers().iter().map(|h| Arc::clone(&h.counters)).collect();
    let compiler = start_compiler(&config, &crew, &compiled)?;
    let counters = Arc::new(WorkerCounters::new(0, 0, 0));
    let ledger = Ledger::new(worker_counters(), Arc::clone(&counters));
    let tally = Tally::new(views, worker_counters(), service_slots, backend_slots);
    let at_ms = clock.now_ns() / 1_000_000;
    let names = config.ports.iter().map(|p| p.name.clone());
    let main = MainLoop {
        // 53 bits: whoever reads numbers as IEEE doubles, as JSON may (RFC 8259, 6), reads it whole.
        started: Started { boot_id: random_u64()? >> 11, at_ms, conn_table_bytes },
        resolver: Resolver::new(config.limits.neighbours as usize).with_interface_names(names),
        announcements: announcements(&config, &ports, at_ms),
        crew,
        ports,
        kernel: KernelPath::new(exceptions, host_flows, keeper),
        outgoing: Outgoing::new(mempool, counters),
        forwarding: Forwarding::new(compiled, compiler, ledger, tally),
        events: EventLog::default(),
        thresholds: Thresholds::of_tables(),
        clock,
        link_check_at_ms: 0,
        slow_check_at_ms: 0,
        server,
        backoff: Backoff::new(config::Idle::Adaptive, MAIN_NAP),
        rounds: Rounds::new(MAIN_NAP),
        config,
        _eal: eal,
    };
    report::report(&main);
    warnings.extend(report::warnings(&main));
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(main)
}

/// What each worker's pipeline is made of, but for its number.
fn pipeline_config(
    config: &Config,
    opened: &[Opened],
    steering: Steering,
    seed: u64,
    host_flows: &Arc<HostFlows>,
) -> PipelineConfig {
    let workers = config.runtime.workers();
    let interfaces = config.ports.iter().zip(opened).map(|(port, opened)| InterfaceInfo {
        mac: MacAddr(opened.port.mac()),
        mtu: opened.port.mtu(),
        address: port.addresses[0].address(),
        broadcasts: port.broadcasts(),
        has_exception: port.exception.is_some(),
        checks_source: port.source_check == SourceCheck::Strict,
    });
    PipelineConfig {
        worker: WorkerId(0),
        workers,
        steering,
        conns: config.limits.connections.div_ceil(workers.into()),
        // No stage makes any yet.
        wide_conns: 0,
        neighbours: config.limits.neighbours as u16,
        service_slots: slots::service_slots(config.limits.services) as usize,
        backend_slots: slots::backend_slots(config.limits.backends) as usize,
        interfaces: interfaces.collect(),
        routes: Arc::new(RouteTable::new(config.networks(), &config.routes)),
        seed,
        host_flows: Arc::clone(host_flows),
        verify_l4_checksum: config.runtime.verify_l4_checksum == VerifyL4Checksum::Always,
        pages: if config.runtime.hugepages { Pages::Reserved } else { Pages::Transparent },
    }
}

fn start_compiler(
    config: &Config,
    crew: &Crew,
    compiled: &ArcSwap<Compiled>,
) -> Result<Compiler, StartError> {
    let parts = compiler::Parts {
        limits: config.limits,
        own_addresses: own_addresses(config),
        workers: crew.workers().iter().map(|h| Arc::clone(&h.counters)).collect(),
    };
    Compiler::start(parts, compiled.load_full()).map_err(StartError::Thread)
}

fn announcements(config: &Config, ports: &Ports, now_ms: u64) -> Announcements {
    let voices = config.ports.iter().zip(ports.iter());
    let voices = voices.map(|(port, main)| (port.addresses.clone(), main.link_up()));
    let every_ms = u64::from(config.runtime.announce_every_s) * 1_000;
    Announcements::new(voices.collect(), every_ms, now_ms)
}

fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))
        .map_err(StartError::Random)?;
    Ok(u64::from_ne_bytes(bytes))
}
