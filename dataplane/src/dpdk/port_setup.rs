//! The steps of setting a port up: found, described, checked, configured with its queues.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info, rte_eth_rxconf, rte_eth_txconf};

use super::port_config::{PortConfig, PortError, PortErrorCause, device_name, port_name};
use super::port_config::{is_pci_address, is_vdev};
use super::rss::AskedFor;
use super::{EalHandle, Mempool, pci, strerror};
use crate::config::most_queues;

/// Ethernet header, VLAN tag and frame check sequence, as DPDK counts them for the largest frame.
const FRAME_OVERHEAD_BYTES: u32 = 14 + 4 + 4;

/// What the device does on receive, as it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxCapabilities {
    /// It checks IPv4 header checksums.
    pub ip_checksum: bool,
    /// It checks TCP and UDP checksums.
    pub l4_checksum: bool,
    /// How many receive and transmit queues it could have.
    pub max_queues: u16,
    /// The largest MTU it could have.
    pub max_mtu: u16,
}

/// What a port and its queues have in common. The last of them to go stops and closes the port, so
/// that nobody polls a closed one.
pub(super) struct Inner {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) device: String,
    pub(super) started: bool,
    pub(super) configured: bool,
    pub(super) _eal: EalHandle,
    /// Its mbufs are in the receive queues.
    pub(super) pool: Mempool,
}

impl Inner {
    pub(super) fn error(&self, cause: PortErrorCause) -> PortError {
        PortError {
            port: self.name.clone(),
            device: self.device.clone(),
            cause: Box::new(cause),
            messages: Vec::new(),
        }
    }

    /// DPDK's answer to a step: negative is an error.
    pub(super) fn step(&self, step: &'static str, status: i32) -> Result<(), PortError> {
        if status >= 0 {
            return Ok(());
        }
        Err(self.error(PortErrorCause::Dpdk { step, reason: reason(status) }))
    }

    pub(super) fn stop(&mut self) -> Result<(), PortError> {
        if !self.started {
            return Ok(());
        }
        self.started = false;
        // SAFETY: the port is open, and nobody polls it: we are borrowed as the only owner.
        self.step("stop the port", unsafe { dpdk_sys::rte_eth_dev_stop(self.id) })
    }

    pub(super) fn close(&mut self) -> Result<(), PortError> {
        let stopped = self.stop();
        if self.configured {
            self.configured = false;
            // SAFETY: as in stop; the port is not used after this.
            self.step("close the port", unsafe { dpdk_sys::rte_eth_dev_close(self.id) })?;
        }
        stopped
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "port not closed cleanly");
        }
    }
}

/// DPDK's words for a step's answer. Many drivers answer -1 for whatever went wrong, which would
/// read as "Operation not permitted".
fn reason(status: i32) -> String {
    if status == -1 { "the driver refused".to_owned() } else { strerror(status) }
}

/// What we need of `rte_eth_dev_info`.
pub(super) struct DeviceInfo {
    pub(super) raw: rte_eth_dev_info,
    pub(super) driver: String,
    pub(super) socket: Option<u16>,
    max_queues: u16,
    max_mtu: u16,
}

impl DeviceInfo {
    pub(super) fn read(inner: &Inner) -> Result<DeviceInfo, PortError> {
        let mut raw = MaybeUninit::<rte_eth_dev_info>::zeroed();
        // SAFETY: the port exists; DPDK fills the struct, for which all zeroes are a legal value.
        let (status, raw) = unsafe {
            let status = dpdk_sys::rte_eth_dev_info_get(inner.id, raw.as_mut_ptr());
            (status, raw.assume_init())
        };
        inner.step("describe the device", status)?;
        let driver = if raw.driver_name.is_null() {
            "unknown".to_owned()
        } else {
            // SAFETY: the driver's name is a constant C string.
            unsafe { std::ffi::CStr::from_ptr(raw.driver_name) }.to_string_lossy().into_owned()
        };
        // SAFETY: the port exists.
        let socket = u16::try_from(unsafe { dpdk_sys::rte_eth_dev_socket_id(inner.id) }).ok();
        // Some claim more than they live through.
        let known = most_queues(&inner.device).unwrap_or(u16::MAX);
        let max_queues = raw.max_rx_queues.min(raw.max_tx_queues).min(known);
        let max_mtu = max_mtu(raw.max_mtu, raw.max_rx_pktlen);
        Ok(DeviceInfo { raw, driver, socket, max_queues, max_mtu })
    }

    fn socket_id(&self) -> u32 {
        self.socket.map_or(dpdk_sys::SLUICE_SOCKET_ID_ANY as u32, u32::from)
    }
}

/// The largest MTU that DPDK will accept: some drivers name it, some only name the largest frame.
fn max_mtu(max_mtu: u16, max_frame_bytes: u32) -> u16 {
    if max_mtu < u16::MAX {
        return max_mtu;
    }
    // Ethernet header and frame check sequence, as in ethdev's own check.
    u16::try_from(max_frame_bytes.saturating_sub(14 + 4)).unwrap_or(u16::MAX)
}

pub(super) fn find(config: &PortConfig) -> Result<u16, PortError> {
    let error = |cause| {
        let (port, device) = (config.name.clone(), config.device.clone());
        Err(PortError { port, device, cause: Box::new(cause), messages: Vec::new() })
    };
    if !is_vdev(&config.device) && !is_pci_address(device_name(&config.device)) {
        return error(PortErrorCause::BadDevice);
    }
    let (Ok(name), Ok(device)) =
        (CString::new(port_name(&config.device)), CString::new(config.device.as_str()))
    else {
        return error(PortErrorCause::BadDevice);
    };
    let mut id = 0;
    // SAFETY: EAL runs, the name is a C string.
    if unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) } == 0 {
        return Ok(id);
    }
    // EAL only logs why a device failed at start: try again, for the reason.
    // SAFETY: EAL runs, the device string is a C string.
    let status = unsafe { dpdk_sys::rte_dev_probe(device.as_ptr()) };
    // SAFETY: as above.
    if unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) } == 0 {
        return Ok(id);
    }
    // DPDK passes over a device that the kernel has, without a word.
    if !is_vdev(&config.device)
        && let Some(cause) = pci::refusal(Path::new("/"), &port_name(&config.device))
    {
        return error(cause);
    }
    let reason = if status < 0 { reason(status) } else { "it has no such port".to_owned() };
    error(PortErrorCause::NotFound { reason })
}

pub(super) fn check(
    inner: &Inner,
    config: &PortConfig,
    info: &DeviceInfo,
    pool: &Mempool,
) -> Result<(), PortError> {
    let driver = || info.driver.clone();
    if !(1..=info.max_queues).contains(&config.queues) {
        return Err(inner.error(PortErrorCause::Queues {
            wanted: config.queues,
            most: info.max_queues,
            driver: driver(),
        }));
    }
    if !(info.raw.min_mtu..=info.max_mtu).contains(&config.mtu) {
        return Err(inner.error(PortErrorCause::Mtu {
            wanted: config.mtu,
            least: info.raw.min_mtu,
            most: info.max_mtu,
            driver: driver(),
        }));
    }
    let frame_bytes = u32::from(config.mtu) + FRAME_OVERHEAD_BYTES;
    if frame_bytes > u32::from(pool.data_room()) {
        return Err(inner.error(PortErrorCause::MbufTooSmall {
            wanted: config.mtu,
            frame_bytes,
            mbuf_bytes: pool.data_room(),
        }));
    }
    Ok(())
}

/// Receive offloads to ask for.
fn rx_offloads(info: &DeviceInfo) -> u64 {
    let ip = dpdk_sys::SLUICE_RX_OFFLOAD_IPV4_CKSUM;
    let l4 = dpdk_sys::SLUICE_RX_OFFLOAD_TCP_CKSUM | dpdk_sys::SLUICE_RX_OFFLOAD_UDP_CKSUM;
    // A virtio host that may leave checksums to us does leave them unfinished.
    let wanted = if info.driver.contains("virtio") { ip } else { ip | l4 };
    wanted & info.raw.rx_offload_capa
}

/// Configure a stopped port and its queues.
pub(super) fn set_up(
    inner: &Inner,
    config: &PortConfig,
    info: &DeviceInfo,
) -> Result<(RxCapabilities, AskedFor), PortError> {
    let configured = configure(inner, config, info)?;
    set_up_queues(inner, config, info, &inner.pool)?;
    set_mtu(inner, config)?;
    Ok(configured)
}

fn configure(
    inner: &Inner,
    config: &PortConfig,
    info: &DeviceInfo,
) -> Result<(RxCapabilities, AskedFor), PortError> {
    let offloads = rx_offloads(info);
    let l4 = dpdk_sys::SLUICE_RX_OFFLOAD_TCP_CKSUM | dpdk_sys::SLUICE_RX_OFFLOAD_UDP_CKSUM;
    let capabilities = RxCapabilities {
        ip_checksum: offloads & dpdk_sys::SLUICE_RX_OFFLOAD_IPV4_CKSUM != 0,
        l4_checksum: offloads & l4 == l4,
        max_queues: info.max_queues,
        max_mtu: info.max_mtu,
    };
    let mut conf = rte_eth_conf::default();
    conf.rxmode.mtu = u32::from(config.mtu);
    conf.rxmode.offloads = offloads;
    let try_it = |conf: &rte_eth_conf| {
        // SAFETY: the port exists and is stopped; DPDK copies the configuration.
        unsafe { dpdk_sys::rte_eth_dev_configure(inner.id, config.queues, config.queues, conf) }
    };
    for asked_for in AskedFor::in_order(config, &info.raw) {
        // What one device refuses another may want: types that it does not have, or a key.
        let mut with_rss = conf;
        let _key = asked_for.write_to(&mut with_rss);
        if try_it(&with_rss) == 0 {
            return Ok((capabilities, asked_for));
        }
    }
    inner.step("configure the port", try_it(&conf))?;
    Ok((capabilities, AskedFor::default()))
}

fn set_up_queues(
    inner: &Inner,
    config: &PortConfig,
    info: &DeviceInfo,
    pool: &Mempool,
) -> Result<(), PortError> {
    let (mut rx_count, mut tx_count) = (config.rx_descriptors, config.tx_descriptors);
    // SAFETY: the port is configured; DPDK changes the two numbers.
    let status = unsafe {
        dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(inner.id, &mut rx_count, &mut tx_count)
    };
    inner.step("fit the descriptor counts", status)?;
    let rx_conf = rte_eth_rxconf { offloads: 0, ..info.raw.default_rxconf };
    let tx_conf = rte_eth_txconf { offloads: 0, ..info.raw.default_txconf };
    for queue in 0..config.queues {
        let socket = info.socket_id();
        // SAFETY: the port is configured with so many queues; the pool lives as long as EAL.
        let status = unsafe {
            let pool = pool.raw();
            dpdk_sys::rte_eth_rx_queue_setup(inner.id, queue, rx_count, socket, &rx_conf, pool)
        };
        inner.step("set up a receive queue", status)?;
        // SAFETY: as above.
        let status = unsafe {
            dpdk_sys::rte_eth_tx_queue_setup(inner.id, queue, tx_count, socket, &tx_conf)
        };
        inner.step("set up a transmit queue", status)?;
    }
    Ok(())
}

/// Some drivers take the MTU when they are configured, some only from this call.
fn set_mtu(inner: &Inner, config: &PortConfig) -> Result<(), PortError> {
    // SAFETY: the port is configured.
    let status = unsafe { dpdk_sys::rte_eth_dev_set_mtu(inner.id, config.mtu) };
    // A driver without the call has no limit of its own: it takes any frame that fits an mbuf.
    if status == -libc::ENOTSUP { Ok(()) } else { inner.step("set the MTU", status) }
}

/// Best effort: a driver may have no such switch, as one without a MAC filter, and a VF may not be
/// trusted with it.
pub(super) fn all_multicast(inner: &Inner) {
    // SAFETY: the port is started.
    let status = unsafe { dpdk_sys::rte_eth_allmulticast_enable(inner.id) };
    if status != 0 {
        let error = std::io::Error::from_raw_os_error(-status);
        tracing::info!(port = inner.name, %error, "the driver does not switch all multicast on");
    }
}

pub(super) fn promiscuous(inner: &Inner) -> Result<(), PortError> {
    // SAFETY: the port is started.
    let status = unsafe { dpdk_sys::rte_eth_promiscuous_enable(inner.id) };
    if status == -libc::ENOTSUP {
        // A virtual wire without a MAC filter has no such switch.
        tracing::info!(port = inner.name, "the driver has no promiscuous mode to switch on");
        return Ok(());
    }
    inner.step("switch promiscuous mode on", status)
}

pub(super) fn mac(inner: &Inner) -> Result<[u8; 6], PortError> {
    let mut address = dpdk_sys::rte_ether_addr::default();
    // SAFETY: the port exists; DPDK writes the address.
    let status = unsafe { dpdk_sys::rte_eth_macaddr_get(inner.id, ptr::from_mut(&mut address)) };
    inner.step("read the MAC address", status)?;
    Ok(address.addr_bytes)
}
