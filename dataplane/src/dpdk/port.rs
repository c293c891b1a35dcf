//! Ports: opened, described, counted and closed here; polled through their queues.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info, rte_eth_rxconf, rte_eth_txconf};

use super::fault::{FaultWatch, PortFault};
use super::port_config::{
    PortConfig, PortError, PortErrorCause, check_mac, device_name, port_name,
};
use super::port_config::{is_pci_address, is_vdev};
use super::queue::{RxQueue, TxQueue};
use super::rss::{self, AskedFor, NoRss, Rss};
use super::{Eal, EalHandle, Mempool, messages, pci, signals, strerror};
use crate::config::most_queues;
use crate::orders::Pause;

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

/// What the driver counted since the port was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Bytes transmitted.
    pub tx_bytes: u64,
    /// Packets that the device had no room for.
    pub rx_missed: u64,
    /// Packets received with errors.
    pub rx_errors: u64,
    /// Packets for which there was no mbuf.
    pub rx_no_mbuf: u64,
    /// Packets that the device could not send.
    pub tx_errors: u64,
}

/// What a port and its queues have in common. The last of them to go stops and closes the port, so
/// that nobody polls a closed one.
pub(super) struct Inner {
    pub(super) id: u16,
    name: String,
    device: String,
    started: bool,
    configured: bool,
    _eal: EalHandle,
    /// Its mbufs are in the receive queues.
    pool: Mempool,
}

impl Inner {
    fn error(&self, cause: PortErrorCause) -> PortError {
        PortError {
            port: self.name.clone(),
            device: self.device.clone(),
            cause: Box::new(cause),
            messages: Vec::new(),
        }
    }

    /// DPDK's answer to a step: negative is an error.
    fn step(&self, step: &'static str, status: i32) -> Result<(), PortError> {
        if status >= 0 {
            return Ok(());
        }
        Err(self.error(PortErrorCause::Dpdk { step, reason: reason(status) }))
    }

    fn stop(&mut self) -> Result<(), PortError> {
        if !self.started {
            return Ok(());
        }
        self.started = false;
        // SAFETY: the port is open, and nobody polls it: we are borrowed as the only owner.
        self.step("stop the port", unsafe { dpdk_sys::rte_eth_dev_stop(self.id) })
    }

    fn close(&mut self) -> Result<(), PortError> {
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

/// An open port. It stops and closes when it and all its queues are dropped.
pub struct Port {
    inner: Arc<Inner>,
    config: PortConfig,
    mac: [u8; 6],
    driver: String,
    socket: Option<u16>,
    is_vf: bool,
    interface: Option<u32>,
    rx: RxCapabilities,
    rss: Result<Rss, NoRss>,
    /// How it was asked to spread.
    asked_for: AskedFor,
    watch: FaultWatch,
    takes_all_groups: bool,
    /// What was counted before it was set up anew.
    counted: PortCounters,
}

impl Port {
    /// Open, configure and start a port; the queues are for the threads that will poll them.
    ///
    /// Offloads, RSS and descriptor counts are fitted to what the device has; queues and MTU are
    /// taken as they are or refused. Received packets come from `pool`.
    ///
    /// # Errors
    /// [`PortError`] names port, device and DPDK's reason. A configuration that the device cannot
    /// have leaves it untouched, to be opened otherwise; after any other error, and after
    /// [`Port::close`], DPDK does not give the device a second time.
    pub fn open(
        eal: &Eal,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<(Port, Vec<RxQueue>, Vec<TxQueue>), PortError> {
        let (result, messages) = messages::during(|| Port::try_open(eal, config, pool));
        if result.is_ok() {
            for message in messages.iter().filter(|message| !signals::is_our_doing(message)) {
                tracing::info!(port = config.name, "{message}");
            }
        }
        result.map_err(|error| PortError { messages, ..error })
    }

    fn try_open(
        eal: &Eal,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<(Port, Vec<RxQueue>, Vec<TxQueue>), PortError> {
        let id = find(config)?;
        let mut inner = Inner {
            id,
            name: config.name.clone(),
            device: config.device.clone(),
            started: false,
            configured: false,
            _eal: eal.handle(),
            pool: pool.clone(),
        };
        let info = DeviceInfo::read(&inner)?;
        check(&inner, config, &info, pool)?;
        inner.configured = true;
        let (rx, asked_for) = set_up(&inner, config, &info)?;
        // SAFETY: the port is configured and its queues are set up.
        inner.step("start the port", unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        inner.started = true;
        if config.promiscuous {
            promiscuous(&inner)?;
        }
        // A VF goes on counting where a former process has left it.
        // SAFETY: the port is started. A driver that cannot has its own beginning.
        unsafe { dpdk_sys::rte_eth_stats_reset(id) };
        let mac = mac(&inner)?;
        check_mac(&config.device, mac).map_err(|cause| inner.error(cause))?;
        let rss = rss::find_out(id, config, &asked_for);
        let inner = Arc::new(inner);
        let queues = 0..config.queues;
        let rx_queues = queues.clone().map(|queue| RxQueue::new(inner.clone(), queue)).collect();
        let tx_queues = queues.map(|queue| TxQueue::new(inner.clone(), queue)).collect();
        let name = port_name(&config.device);
        let watch = FaultWatch::start(id, is_pci_address(&name).then_some(&*name));
        let is_vf = is_pci_address(&name) && pci::is_vf(Path::new("/"), &name);
        // Of a PCI device that shares itself with the kernel the driver tells all that happens.
        let interface =
            (is_vdev(&config.device) && info.raw.if_index != 0).then_some(info.raw.if_index);
        let port = Port {
            inner,
            config: config.clone(),
            mac,
            driver: info.driver,
            socket: info.socket,
            is_vf,
            interface,
            rx,
            rss,
            asked_for,
            watch,
            takes_all_groups: false,
            counted: PortCounters::default(),
        };
        Ok((port, rx_queues, tx_queues))
    }

    /// Also take frames to any group, where the driver can: the kernel behind the port says which
    /// ones it wants.
    pub fn take_all_groups(&mut self) {
        self.takes_all_groups = true;
        all_multicast(&self.inner);
    }

    /// Its name, from the configuration.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// DPDK's number of it, as in [`super::Mbuf::port`].
    pub fn id(&self) -> u16 {
        self.inner.id
    }

    /// DPDK's name of the device: the device string up to the first comma.
    pub fn device(&self) -> &str {
        device_name(&self.inner.device)
    }

    /// DPDK's name of the driver.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Index of the kernel's interface that a virtual device stands for, when it does.
    pub fn interface(&self) -> Option<u32> {
        self.interface
    }

    /// Its NUMA node, when it has one.
    pub fn socket(&self) -> Option<u16> {
        self.socket
    }

    /// Its MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Why it cannot go on as it is; none while all is well. Costs a load.
    pub fn fault(&self) -> Option<PortFault> {
        self.watch.fault()
    }

    /// What it does on receive.
    pub fn rx_capabilities(&self) -> RxCapabilities {
        self.rx
    }

    /// How it spreads packets over its queues, or why that is not known: then any queue may get
    /// any packet.
    pub fn rss(&self) -> Result<&Rss, &NoRss> {
        self.rss.as_ref()
    }

    /// Its MTU in bytes.
    pub fn mtu(&self) -> u16 {
        let mut mtu = 0;
        // SAFETY: the port is open. It can only fail for a port that is not.
        let status = unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id(), &mut mtu) };
        if status == 0 { mtu } else { 0 }
    }

    /// Whether the link is up. Does not wait for the device.
    pub fn link_up(&self) -> bool {
        // SAFETY: the port is open.
        unsafe { dpdk_sys::sluice_eth_link_up(self.id()) == 1 }
    }

    /// The link's speed in Mbit/s; none when it is down or the driver does not know. Does not wait
    /// for the device.
    pub fn link_speed_mbps(&self) -> Option<u32> {
        // SAFETY: the port is open.
        let speed = unsafe { dpdk_sys::sluice_eth_link_speed(self.id()) };
        (speed != 0 && speed != u32::MAX).then_some(speed)
    }

    /// What the driver counted. All zero for a driver that does not count.
    pub fn stats(&self) -> PortCounters {
        let mut stats = dpdk_sys::rte_eth_stats::default();
        // SAFETY: the port is open; DPDK fills the struct.
        if unsafe { dpdk_sys::rte_eth_stats_get(self.id(), &mut stats) } != 0 {
            return PortCounters::default();
        }
        PortCounters {
            rx_packets: self.counted.rx_packets + stats.ipackets,
            rx_bytes: self.counted.rx_bytes + stats.ibytes,
            tx_packets: self.counted.tx_packets + stats.opackets,
            tx_bytes: self.counted.tx_bytes + stats.obytes,
            rx_missed: self.counted.rx_missed + stats.imissed,
            rx_errors: self.counted.rx_errors + stats.ierrors,
            rx_no_mbuf: self.counted.rx_no_mbuf + stats.rx_nombuf,
            tx_errors: self.counted.tx_errors + stats.oerrors,
        }
    }

    /// Whether it is a virtual function.
    pub fn is_vf(&self) -> bool {
        self.is_vf
    }

    /// It was seen to be reset although its driver did not tell.
    pub fn note_reset(&self) {
        self.watch.remember_reset();
    }

    /// Set it up anew after [`PortFault::Reset`], with the configuration, queues and RSS that it had.
    /// `_pause` shows that nobody polls its queues meanwhile; what was in them is lost. `counted` is
    /// what it had counted when all was well: it counts on from there.
    ///
    /// # Errors
    /// What DPDK says; it can be tried again.
    pub fn set_up_anew(
        &mut self,
        _pause: &Pause<'_>,
        counted: PortCounters,
    ) -> Result<(), PortError> {
        let id = self.id();
        self.watch.forget_reset();
        let (result, messages) = messages::during(|| self.try_set_up_anew(counted));
        tracing::info!(port = self.name(), id, ?messages, "set up anew");
        if result.is_err() {
            self.watch.remember_reset();
        }
        result.map_err(|error| PortError { messages, ..error })
    }

    fn try_set_up_anew(&mut self, counted: PortCounters) -> Result<(), PortError> {
        let (id, inner) = (self.id(), &*self.inner);
        // SAFETY: the port is open, and nobody polls it during a pause.
        inner.step("stop the port", unsafe { dpdk_sys::rte_eth_dev_stop(id) })?;
        // SAFETY: as above; the port keeps its number.
        let status = unsafe { dpdk_sys::rte_eth_dev_reset(id) };
        // A driver without the call does what is needed when the port starts.
        if status != -libc::ENOTSUP {
            inner.step("reset the device", status)?;
            set_up(inner, &self.config, &DeviceInfo::read(inner)?)?;
        }
        // SAFETY: the port is configured and its queues are set up.
        inner.step("start the port", unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        if self.config.promiscuous {
            promiscuous(inner)?;
        }
        if self.takes_all_groups {
            all_multicast(inner);
        }
        if mac(inner)? != self.mac {
            self.watch.note_other_mac();
        }
        // Key and table are set again. Where that fails workers find packets in wrong queues, and hand
        // them over.
        if rss::find_out(id, &self.config, &self.asked_for) != self.rss {
            tracing::warn!(port = self.name(), "it has another RSS than before");
        }
        // SAFETY: the port is started.
        unsafe { dpdk_sys::rte_eth_stats_reset(id) };
        self.counted = counted;
        Ok(())
    }

    /// Stop receiving and transmitting; the counters stay readable.
    ///
    /// # Errors
    /// [`PortErrorCause::QueuesInUse`] while one of its queues lives, as it may be polled; or what
    /// DPDK says.
    pub fn stop(&mut self) -> Result<(), PortError> {
        match Arc::get_mut(&mut self.inner) {
            Some(inner) => inner.stop(),
            None => Err(self.inner.error(PortErrorCause::QueuesInUse)),
        }
    }

    /// Stop and close, and say whether that went well. Dropping does the same, and logs.
    ///
    /// # Errors
    /// As [`Port::stop`]; in the first case, the last queue to be dropped closes the port.
    pub fn close(mut self) -> Result<(), PortError> {
        match Arc::get_mut(&mut self.inner) {
            Some(inner) => inner.close(),
            None => Err(self.inner.error(PortErrorCause::QueuesInUse)),
        }
    }
}

/// DPDK's words for a step's answer. Many drivers answer -1 for whatever went wrong, which would
/// read as "Operation not permitted".
fn reason(status: i32) -> String {
    if status == -1 { "the driver refused".to_owned() } else { strerror(status) }
}

/// What we need of `rte_eth_dev_info`.
struct DeviceInfo {
    raw: rte_eth_dev_info,
    driver: String,
    socket: Option<u16>,
    max_queues: u16,
    max_mtu: u16,
}

impl DeviceInfo {
    fn read(inner: &Inner) -> Result<DeviceInfo, PortError> {
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

fn find(config: &PortConfig) -> Result<u16, PortError> {
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

fn check(
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
fn set_up(
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
fn all_multicast(inner: &Inner) {
    // SAFETY: the port is started.
    let status = unsafe { dpdk_sys::rte_eth_allmulticast_enable(inner.id) };
    if status != 0 {
        let error = std::io::Error::from_raw_os_error(-status);
        tracing::info!(port = inner.name, %error, "the driver does not switch all multicast on");
    }
}

fn promiscuous(inner: &Inner) -> Result<(), PortError> {
    // SAFETY: the port is started.
    let status = unsafe { dpdk_sys::rte_eth_promiscuous_enable(inner.id) };
    if status == -libc::ENOTSUP {
        // A virtual wire without a MAC filter has no such switch.
        tracing::info!(port = inner.name, "the driver has no promiscuous mode to switch on");
        return Ok(());
    }
    inner.step("switch promiscuous mode on", status)
}

fn mac(inner: &Inner) -> Result<[u8; 6], PortError> {
    let mut address = dpdk_sys::rte_ether_addr::default();
    // SAFETY: the port exists; DPDK writes the address.
    let status = unsafe { dpdk_sys::rte_eth_macaddr_get(inner.id, ptr::from_mut(&mut address)) };
    inner.step("read the MAC address", status)?;
    Ok(address.addr_bytes)
}
