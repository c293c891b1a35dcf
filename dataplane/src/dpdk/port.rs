//! Ports: opened, described, counted and closed here, set up by `port_setup`; polled through their queues.

use std::path::Path;
use std::sync::Arc;

use super::fault::{FaultWatch, PortFault};
use super::port_config::{
    PortConfig, PortError, PortErrorCause, check_mac, device_name, is_pci_address, is_vdev,
    port_name,
};
use super::port_setup::{self, DeviceInfo, Inner, RxCapabilities};
use super::queue::{RxQueue, TxQueue};
use super::rss::{self, AskedFor, NoRss, Rss};
use super::{Eal, Mempool, messages, pci, signals};
use crate::orders::Pause;

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
        let id = port_setup::find(config)?;
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
        port_setup::check(&inner, config, &info, pool)?;
        inner.configured = true;
        let (rx, asked_for) = port_setup::set_up(&inner, config, &info)?;
        // SAFETY: the port is configured and its queues are set up.
        inner.step("start the port", unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        inner.started = true;
        if config.promiscuous {
            port_setup::promiscuous(&inner)?;
        }
        // A VF goes on counting where a former process has left it.
        // SAFETY: the port is started. A driver that cannot has its own beginning.
        unsafe { dpdk_sys::rte_eth_stats_reset(id) };
        let mac = port_setup::mac(&inner)?;
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
        port_setup::all_multicast(&self.inner);
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
            port_setup::set_up(inner, &self.config, &DeviceInfo::read(inner)?)?;
        }
        // SAFETY: the port is configured and its queues are set up.
        inner.step("start the port", unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        if self.config.promiscuous {
            port_setup::promiscuous(inner)?;
        }
        if self.takes_all_groups {
            port_setup::all_multicast(inner);
        }
        if port_setup::mac(inner)? != self.mac {
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
