//! The devices: DPDK itself, its memory, ports, their exception ports, and the kernel's side of them.

use sluice_path::host_flows::KernelLane;
use sluice_path::pipeline::HELD;
use sluice_path::table::toeplitz::RssKey;
use sluice_wire::ether::MacAddr;

use super::StartError;
use super::workers::RING;
use crate::config::{self, Config};
use crate::dpdk::{Eal, EalConfig, Mempool, Port, PortConfig, RxQueue, TxQueue};
use crate::kernel::{Keeper, KernelPort};
use crate::runtime::exception::ExceptionPort;
use crate::runtime::links::{Interface, LinkWatch};

/// Mbufs that each thread keeps in its own cache.
const MEMPOOL_CACHE: u32 = 256;
/// What the kernel keeps in front of each frame that AF_XDP receives into an mbuf.
const XDP_HEADROOM: u16 = 256;
/// The largest MTU of an exception port, that of any Ethernet: DPDK's tap has hardly more.
const EXCEPTION_MTU: u16 = 1_500;
/// Descriptors of an exception port's queues.
const EXCEPTION_DESCRIPTORS: u16 = 256;

/// An open port with its queues, one of each per worker.
pub struct Opened {
    /// The port.
    pub port: Port,
    /// Its receive queues, by worker.
    pub rx: Vec<RxQueue>,
    /// Its transmit queues, by worker.
    pub tx: Vec<TxQueue>,
}

pub fn eal_config(config: &Config) -> EalConfig {
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
pub fn create_mempool(eal: &Eal, config: &Config) -> Result<Mempool, StartError> {
    let workers = u32::from(config.runtime.workers());
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

pub fn open_ports(
    eal: &Eal,
    config: &Config,
    mempool: &Mempool,
    rss_key: &RssKey,
) -> Result<Vec<Opened>, StartError> {
    let queues = config.runtime.workers();
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

pub fn open_exceptions(
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
pub fn watch_links(
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
pub fn configure_kernel(config: &Config, opened: &[Opened]) -> Result<Option<Keeper>, StartError> {
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
