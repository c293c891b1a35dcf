//! Start-up, in order: control socket, EAL, ports, tables, kernel interfaces, workers. Whatever
//! fails ends the process with its name and reason: it never runs on half of what was asked for.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use sluice_api::stats::PortStatus;
use sluice_wire::ether::MacAddr;

use super::announce::{Announcer, Batch};
use super::compiler::{self, Compiler};
use super::exception::{ExceptionPort, Strangers};
use super::links::{Interface, LinkWatch};
use super::main_loop::{MainLoop, MainPort, WorkerHandle};
use super::pulse::Pulse;
use super::rounds::Rounds;
use super::steering::{self, PortRss};
use super::thresholds::Thresholds;
use super::{vf, warnings};
use crate::backoff::{Backoff, LONGEST_NAP, nap_exactly};
use crate::config::{self, Config, SourceCheck, VerifyL4Checksum};
use crate::control_socket::{ControlSocket, SocketError};
use crate::dpdk::{
    CapabilityError, Clock, Eal, EalConfig, EalError, Lcore, LcoreError, Mempool, MempoolError,
    Port, PortConfig, PortCounters, PortError, RingError, RingReceiver, RingSender, RxQueue,
    TxQueue, port_name, spsc,
};
use crate::events::EventLog;
use crate::kernel::{Keeper, KernelError, KernelPort};
use crate::orders::Orders;
use crate::worker::{Worker, WorkerParts};
use sluice_path::counters::WorkerCounters;
use sluice_path::host_flows::{HostFlows, KernelLane};
use sluice_path::ids::WorkerId;
use sluice_path::ledger::Ledger;
use sluice_path::memory::Pages;
use sluice_path::pipeline::{HELD, PipelineConfig, PortInfo};
use sluice_path::resolver::Resolver;
use sluice_path::slots;
use sluice_path::snapshot::Compiled;
use sluice_path::table::route::RouteTable;
use sluice_path::table::toeplitz::RssKey;
use sluice_path::tally::{Tally, WorkerView};

/// Mbufs that a ring between two threads holds.
const RING: u32 = 1_024;
/// Messages that wait between a worker and the main thread.
const MESSAGES: usize = 4_096;
/// Mbufs that each thread keeps in its own cache.
const MEMPOOL_CACHE: u32 = 256;
/// What the kernel keeps in front of each frame that AF_XDP receives into an mbuf.
const XDP_HEADROOM: u16 = 256;
/// The largest MTU of an exception port, that of any Ethernet: DPDK's tap has hardly more.
const EXCEPTION_MTU: u16 = 1_500;
/// Descriptors of an exception port's queues.
const EXCEPTION_DESCRIPTORS: u16 = 256;
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
    Worker { worker: usize, cpu: u16, source: LcoreError },
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
pub fn port_addresses(config: &Config) -> Vec<(Ipv4Addr, u16)> {
    (0..)
        .zip(&config.ports)
        .flat_map(|(index, port)| port.addresses.iter().map(move |a| (a.address(), index)))
        .collect()
}

/// An open port with its queues, one of each per worker.
struct Opened {
    port: Port,
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
}

/// Start everything; workers run when this returns.
pub fn start(config: Config) -> Result<MainLoop, StartError> {
    // All threads inherit it.
    nap_exactly();
    // First what costs least to find out: is another one running?
    let server = ControlSocket::bind(&config.control.socket)?;
    let workers = config.runtime.worker_cpus.len();
    // Afterwards a PF shows what the VF's driver has made up.
    let devices = config.ports.iter().map(|port| (port.name.as_str(), port_name(&port.device)));
    let mut warnings = vf::warnings_without_mac(devices);
    let eal = Eal::init(&eal_config(&config))?;
    let clock = Clock::new(&eal);
    let mempool = create_mempool(&eal, &config)?;
    let rss_key = RssKey::generate(random_u64()?);
    let opened = open_ports(&eal, &config, &mempool, &rss_key)?;
    let exceptions = open_exceptions(&eal, &config, &mempool)?;
    let keeper = configure_kernel(&config, &opened)?;

    let seed = random_u64()?;
    let host_flows = Arc::new(HostFlows::new(seed));
    let names = config.ports.iter().map(|port| port.name.as_str());
    let rss: Vec<_> = names.zip(opened.iter().map(|opened| opened.port.rss())).collect();
    let (steering, port_rss) = steering::choose(&rss, workers as u16);
    let per_worker = config.limits.connections.div_ceil(workers as u32);
    let ports: Vec<PortInfo> = config
        .ports
        .iter()
        .zip(&opened)
        .map(|(port, opened)| PortInfo {
            mac: MacAddr(opened.port.mac()),
            mtu: opened.port.mtu(),
            address: port.addresses[0].address(),
            broadcasts: port.broadcasts(),
            has_exception: port.exception.is_some(),
            checks_source: port.source_check == SourceCheck::Strict,
        })
        .collect();
    let routes = Arc::new(routes(&config));
    let pipeline_config = PipelineConfig {
        worker: WorkerId(0),
        workers: workers as u16,
        steering: steering.clone(),
        conns: per_worker,
        neighbours: config.limits.neighbours as u16,
        service_slots: slots::service_slots(config.limits.services) as usize,
        backend_slots: slots::backend_slots(config.limits.backends) as usize,
        ports,
        routes: Arc::clone(&routes),
        seed,
        host_flows: Arc::clone(&host_flows),
        verify_l4_checksum: config.runtime.verify_l4_checksum == VerifyL4Checksum::Always,
        pages: if config.runtime.hugepages { Pages::Reserved } else { Pages::Transparent },
    };
    let own_ports = steering.owners.all_own_ports(workers as u16);
    let compiled = Compiled::empty(&port_addresses(&config), own_ports, seed, routes);
    let compiled = Arc::new(ArcSwap::from_pointee(compiled));
    let messages = Arc::new(ArrayQueue::new(MESSAGES));
    let orders = Arc::new(Orders::default());
    let mut rings = worker_rings(&eal, workers)?;

    let links = watch_links(&opened, &exceptions)?;
    let (mut main_ports, mut queues) = split_queues(opened, exceptions, port_rss, workers);
    for (index, port) in main_ports.iter_mut().enumerate() {
        port.link_up = links.state(index).is_up(&port.port);
    }
    let (service_slots, backend_slots) =
        (pipeline_config.service_slots, pipeline_config.backend_slots);
    let (mut handles, mut views) = (Vec::new(), Vec::new());
    let mut conn_table_bytes = 0;
    for (worker, cpu) in config.runtime.worker_cpus.iter().copied().enumerate() {
        let counters =
            Arc::new(WorkerCounters::new(service_slots, backend_slots, config.ports.len()));
        let view = Arc::new(WorkerView::new(service_slots, backend_slots));
        views.push(Arc::clone(&view));
        let updates = Arc::new(ArrayQueue::new(MESSAGES));
        let (to_main, for_kernel) = kernel_rings(&eal, worker)?;
        let pipeline =
            PipelineConfig { worker: WorkerId(worker as u16), ..pipeline_config.clone() };
        let (rx, tx) = std::mem::take(&mut queues[worker]);
        let (to_workers, from_workers) = std::mem::take(&mut rings[worker]);
        let (to_worker, from_main) = spsc(&eal, &format!("main-{worker}"), RING)?;
        let parts = WorkerParts {
            pipeline,
            rx,
            tx,
            from_workers,
            to_workers,
            from_main,
            to_main,
            messages: Arc::clone(&messages),
            updates: Arc::clone(&updates),
            mempool: mempool.clone(),
            config: Arc::clone(&compiled),
            counters: Arc::clone(&counters),
            view,
            clock,
            backoff: Backoff::new(config.runtime.idle, LONGEST_NAP),
            orders: Arc::clone(&orders),
        };
        let (thread, bytes) = spawn(&eal, worker, cpu, parts)?;
        conn_table_bytes += bytes;
        handles.push(WorkerHandle {
            cpu,
            counters,
            thread,
            for_kernel,
            to_worker,
            frames_given: 0,
            updates,
            waiting: VecDeque::new(),
            pulse: Pulse::default(),
        });
    }
    let started_ms = clock.now_ns() / 1_000_000;
    handles.iter_mut().for_each(|handle| handle.pulse = Pulse::new(started_ms));
    let parts = compiler::Parts {
        limits: config.limits,
        port_addresses: port_addresses(&config),
        workers: handles.iter().map(|h| Arc::clone(&h.counters)).collect(),
    };
    let compiler = Compiler::start(parts, compiled.load_full()).map_err(StartError::Thread)?;
    let counters = Arc::new(WorkerCounters::new(0, 0, 0));
    let voices = config.ports.iter().zip(&main_ports);
    let voices = voices.map(|(port, main)| (port.addresses.clone(), main.link_up)).collect();
    let announce_every_ms = u64::from(config.runtime.announce_every_s) * 1_000;
    let announcer = Announcer::new(voices, announce_every_ms, clock.now_ns() / 1_000_000);
    let names = config.ports.iter().map(|p| p.name.clone());
    let main = MainLoop {
        resolver: Resolver::new(config.limits.neighbours as usize).with_port_names(names),
        ports: main_ports,
        ledger: Ledger::new(
            handles.iter().map(|h| Arc::clone(&h.counters)).collect(),
            Arc::clone(&counters),
        ),
        tally: Tally::new(
            views,
            handles.iter().map(|h| Arc::clone(&h.counters)).collect(),
            service_slots,
            backend_slots,
        ),
        counters,
        workers: handles,
        orders,
        messages,
        carrier: 0,
        host_flows,
        strangers: Strangers::default(),
        waiting: Vec::with_capacity(RING as usize),
        compiled,
        former: Vec::new(),
        compiler,
        adopting: None,
        slots_used: (0, 0),
        events: EventLog::default(),
        thresholds: Thresholds::of_tables(),
        announcer,
        batch: Batch::default(),
        keeper,
        // 53 bits: whoever reads numbers as IEEE doubles, as JSON may (RFC 8259, 6), reads it whole.
        boot_id: random_u64()? >> 11,
        conn_table_bytes,
        mempool,
        clock,
        started_ms,
        pulse_check_at_ms: 0,
        links,
        link_check_at_ms: 0,
        slow_check_at_ms: 0,
        server,
        backoff: Backoff::new(config::Idle::Adaptive, MAIN_NAP),
        rounds: Rounds::new(MAIN_NAP),
        config,
        _eal: eal,
    };
    report(&main);
    let ports = main.ports.iter().map(|p| (p.port.name(), p.port.socket(), p.link_up));
    warnings.extend(warnings::of(Path::new("/"), ports, &main.config.runtime.worker_cpus));
    warnings.extend(unverified(&main));
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(main)
}

/// Ports to which checksums are left and that verify none.
fn unverified(main: &MainLoop) -> impl Iterator<Item = String> {
    let is_left = main.config.runtime.verify_l4_checksum == VerifyL4Checksum::Port;
    let ports = main.ports.iter().filter(move |_| is_left);
    ports
        .filter(|main| !main.port.rx_capabilities().l4_checksum)
        .map(|main| config::unverified_warning(main.port.name()))
}

fn eal_config(config: &Config) -> EalConfig {
    let mut devices: Vec<String> = config.ports.iter().map(|p| p.device.clone()).collect();
    for (index, port) in config.ports.iter().enumerate() {
        if let Some(interface) = &port.exception {
            devices.push(exception_device(index, interface));
        }
    }
    EalConfig {
        main_cpu: config.runtime.main_cpu,
        worker_cpus: config.runtime.worker_cpus.clone(),
        hugepages: config.runtime.hugepages,
        memory_mb: config.runtime.memory_mb,
        file_prefix: config.runtime.file_prefix.clone(),
        devices,
        extra_args: config.runtime.eal_args.clone(),
    }
}

/// The tap beside a port; its name keeps clear of an operator's own `net_tap0`.
fn exception_device(index: usize, interface: &str) -> String {
    format!("net_tap_exception{index},iface={interface}")
}

/// One pool for everything: full queues, full rings, packets on their way, and as much again in the
/// threads' caches.
fn create_mempool(eal: &Eal, config: &Config) -> Result<Mempool, StartError> {
    let workers = config.runtime.worker_cpus.len() as u32;
    let queues: u32 = config
        .ports
        .iter()
        .map(|p| (u32::from(p.rx_descriptors) + u32::from(p.tx_descriptors)) * workers)
        .sum();
    let exceptions = config.ports.len() as u32 * u32::from(EXCEPTION_DESCRIPTORS) * 2;
    // Between any two workers, and from the main thread.
    let rings = workers * workers * RING + workers * KernelLane::ALL_SIZES;
    let in_workers = workers * (HELD as u32 + 256);
    let caches = (workers + 1) * MEMPOOL_CACHE * 2;
    let mbufs = queues + exceptions + rings + in_workers + caches + 2_048;
    let data_room = data_room(config);
    Ok(Mempool::create(eal, "packets", mbufs, MEMPOOL_CACHE, data_room, None)?)
}

/// Bytes of packet that each mbuf holds: the largest frame of any port.
fn data_room(config: &Config) -> u16 {
    let largest = config.ports.iter().map(|p| p.mtu).max().unwrap_or(1_500);
    let for_xdp = if config.ports.iter().any(config::Port::is_af_xdp) { XDP_HEADROOM } else { 0 };
    // Ethernet header and two VLAN tags beside the MTU, in steps of a cache line.
    (largest + 22 + for_xdp).next_multiple_of(64).max(2_048)
}

fn open_ports(
    eal: &Eal,
    config: &Config,
    mempool: &Mempool,
    rss_key: &RssKey,
) -> Result<Vec<Opened>, StartError> {
    let queues = config.runtime.worker_cpus.len() as u16;
    config
        .ports
        .iter()
        .map(|port| {
            let wanted = PortConfig {
                name: port.name.clone(),
                device: port.device.clone(),
                queues,
                mtu: port.mtu,
                rx_descriptors: port.rx_descriptors,
                tx_descriptors: port.tx_descriptors,
                promiscuous: port.promiscuous,
                rss_key: rss_key.bytes().into(),
            };
            let (mut opened, rx, tx) = Port::open(eal, &wanted, mempool)?;
            if port.exception.is_some() {
                opened.take_all_groups();
            }
            Ok(Opened { port: opened, rx, tx })
        })
        .collect()
}

fn open_exceptions(
    eal: &Eal,
    config: &Config,
    mempool: &Mempool,
) -> Result<Vec<Option<ExceptionPort>>, StartError> {
    (0..)
        .zip(&config.ports)
        .map(|(index, port)| {
            let Some(interface) = &port.exception else { return Ok(None) };
            let wanted = PortConfig {
                name: format!("{}'s exception port", port.name),
                device: exception_device(index, interface),
                queues: 1,
                mtu: port.mtu.min(EXCEPTION_MTU),
                rx_descriptors: EXCEPTION_DESCRIPTORS,
                tx_descriptors: EXCEPTION_DESCRIPTORS,
                promiscuous: false,
                rss_key: Box::default(),
            };
            let (port, mut rx, mut tx) = Port::open(eal, &wanted, mempool)?;
            Ok(rx.pop().zip(tx.pop()).map(|(rx, tx)| ExceptionPort::new(port, rx, tx)))
        })
        .collect()
}

/// Ports first, then their exception ports, in the same order.
fn watch_links(
    opened: &[Opened],
    exceptions: &[Option<ExceptionPort>],
) -> Result<LinkWatch, StartError> {
    let ports = opened.iter().map(|opened| Some(&opened.port));
    let all = ports.chain(exceptions.iter().map(|e| e.as_ref().map(ExceptionPort::port)));
    let interfaces = all.map(|port| port.and_then(Interface::of)).collect();
    LinkWatch::start(interfaces).map_err(StartError::Links)
}

/// Give the kernel's side of each port its addresses, and the routes, and have somebody see to it that
/// they stay.
fn configure_kernel(config: &Config, opened: &[Opened]) -> Result<Option<Keeper>, StartError> {
    let ports: Vec<KernelPort> = config
        .ports
        .iter()
        .zip(opened)
        .filter_map(|(port, opened)| {
            port.exception.as_ref().map(|interface| KernelPort {
                interface: interface.clone(),
                mac: MacAddr(opened.port.mac()),
                mtu: opened.port.mtu().min(EXCEPTION_MTU),
                addresses: port.addresses.clone(),
            })
        })
        .collect();
    Ok(Keeper::start(ports, config.routes.clone())?)
}

fn routes(config: &Config) -> RouteTable {
    RouteTable::new(config.networks(), &config.routes)
}

/// Rings of one worker: to the others by number, and from them.
type WorkerRings = (Vec<Option<RingSender>>, Vec<RingReceiver>);

/// A ring for each ordered pair of workers.
fn worker_rings(eal: &Eal, workers: usize) -> Result<Vec<WorkerRings>, StartError> {
    let mut rings: Vec<WorkerRings> = (0..workers).map(|_| (Vec::new(), Vec::new())).collect();
    for from in 0..workers {
        for to in 0..workers {
            if from == to {
                rings[from].0.push(None);
                continue;
            }
            let (sender, receiver) = spsc(eal, &format!("handover-{from}-{to}"), RING)?;
            rings[from].0.push(Some(sender));
            rings[to].1.push(receiver);
        }
    }
    Ok(rings)
}

/// Rings from a worker to the main thread, for each kind of packet for the kernel.
type KernelRings = ([RingSender; KernelLane::COUNT], [RingReceiver; KernelLane::COUNT]);

fn kernel_rings(eal: &Eal, worker: usize) -> Result<KernelRings, StartError> {
    let ring =
        |lane: KernelLane| spsc(eal, &format!("kernel-{worker}-{}", lane as u8), lane.size());
    let (neighbours, answers, unsolicited) =
        (ring(KernelLane::Neighbours)?, ring(KernelLane::Answers)?, ring(KernelLane::Unsolicited)?);
    Ok(([neighbours.0, answers.0, unsolicited.0], [neighbours.1, answers.1, unsolicited.1]))
}

/// Queues of one worker, by port.
type WorkerQueues = (Vec<RxQueue>, Vec<TxQueue>);

fn split_queues(
    opened: Vec<Opened>,
    exceptions: Vec<Option<ExceptionPort>>,
    rss: Vec<PortRss>,
    workers: usize,
) -> (Vec<MainPort>, Vec<WorkerQueues>) {
    let mut queues: Vec<WorkerQueues> = (0..workers).map(|_| Default::default()).collect();
    let ports = opened
        .into_iter()
        .zip(exceptions)
        .zip(rss)
        .map(|((opened, exception), rss)| {
            for (worker, (rx, tx)) in opened.rx.into_iter().zip(opened.tx).enumerate() {
                queues[worker].0.push(rx);
                queues[worker].1.push(tx);
            }
            MainPort {
                mac: MacAddr(opened.port.mac()),
                link_up: opened.port.link_up(),
                port: opened.port,
                exception,
                rss,
                counted: PortCounters::default(),
                probation: None,
                failure: None,
            }
        })
        .collect();
    (ports, queues)
}

/// Start a worker's thread: when this returns it has its CPU, and its tables, of so many bytes,
/// which it takes itself, so that they lie on its own NUMA node.
fn spawn(
    eal: &Eal,
    worker: usize,
    cpu: u16,
    parts: WorkerParts,
) -> Result<(std::thread::JoinHandle<()>, u64), StartError> {
    let eal = eal.handle();
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{worker}"))
        .spawn(move || match Lcore::register(&eal, cpu) {
            Ok(_lcore) => {
                let mut worker = Worker::new(parts);
                let _ = ready.send(Ok(worker.table_bytes()));
                worker.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        })
        .map_err(StartError::Thread)?;
    match is_ready.recv() {
        Ok(Err(source)) => Err(StartError::Worker { worker, cpu, source }),
        Ok(Ok(bytes)) => Ok((thread, bytes)),
        // Its thread is gone, and has said why.
        Err(_) => Ok((thread, 0)),
    }
}

fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes))
        .map_err(StartError::Random)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn steering_in_words(status: &PortStatus) -> String {
    match status.steering.as_str() {
        "single-worker" => status.steering.clone(),
        steering => format!("{steering} ({})", status.steering_reason),
    }
}

/// Say what was taken, and why.
fn report(main: &MainLoop) {
    let config = &main.config;
    println!("sluice-dataplane {} on {}", env!("CARGO_PKG_VERSION"), Eal::version());
    let statuses = main.port_statuses();
    for ((port, opened), status) in config.ports.iter().zip(&main.ports).zip(&statuses) {
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        println!(
            "port {}: {} ({}), mac {}, mtu {}, {} queue(s), steering {}, {}, link {}, kernel interface {}",
            port.name,
            port.device,
            opened.port.driver(),
            opened.mac,
            opened.port.mtu(),
            config.runtime.worker_cpus.len(),
            steering_in_words(status),
            addresses.join(" "),
            if opened.link_up { "up" } else { "down" },
            port.exception.as_deref().unwrap_or("none"),
        );
    }
    for (worker, cpu) in config.runtime.worker_cpus.iter().enumerate() {
        println!("worker {worker}: cpu {cpu}, idle {}", config.runtime.idle.name());
    }
    println!("main thread: cpu {}", config.runtime.main_cpu);
    for table in main.tables().iter().filter(|t| t.bytes > 0) {
        let (name, mib) = (&table.table, table.bytes.div_ceil(1 << 20));
        println!("memory: {name}: {mib} MiB for {}", table.capacity);
    }
    println!("control socket: {}", config.control.socket.display());
}
