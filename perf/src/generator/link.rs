//! A port with its queues and buffers, as one side of a run sees it.

use std::time::{Duration, Instant};

use sluice_dataplane::dpdk::{Eal, Mbuf, Mempool, Port, PortConfig, RxQueue, TxQueue, free_bulk};
use sluice_path::frame::Frame;
use sluice_wire::ether::MacAddr;

use super::GenError;
use super::counts::Counts;
use super::handler::{Fate, Handler};

/// Packets taken from a device or given to it at once.
pub const BURST: usize = 64;
/// Buffers of one pool: a device's rings and bursts in between.
const MBUFS: u32 = 8_191;
const MEMPOOL_CACHE: u32 = 512;
const DATA_ROOM: u16 = 2_048;
const DESCRIPTORS: u16 = 1_024;
/// Answers that wait for room in the device.
const MOST_WAITING: usize = 1_024;
/// Longest that a link may take to come up.
const LINK_WITHIN: Duration = Duration::from_secs(10);

/// A port, its queues, and what is on its way through them.
pub struct Link {
    /// The port.
    pub port: Port,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Whether clients, and whether servers are behind it.
    behind: (bool, bool),
    device: String,
    rx: RxQueue,
    /// The queue that the load goes out by.
    pub tx: TxQueue,
    received: Vec<Mbuf>,
    done: Vec<Mbuf>,
    answers: Vec<Mbuf>,
}

impl Link {
    /// Open a device; `name` is for messages and unique, `behind` says whether clients and whether
    /// servers are behind it.
    ///
    /// # Errors
    /// There is no such device, or no memory.
    pub fn open(
        eal: &Eal,
        name: &str,
        device: &str,
        behind: (bool, bool),
    ) -> Result<Self, GenError> {
        let pool =
            Mempool::create(eal, &format!("{name}-rx"), MBUFS, MEMPOOL_CACHE, DATA_ROOM, None)?;
        let config = PortConfig {
            name: name.to_owned(),
            device: device.to_owned(),
            queues: 1,
            mtu: 1_500,
            rx_descriptors: DESCRIPTORS,
            tx_descriptors: DESCRIPTORS,
            promiscuous: false,
            rss_key: Box::default(),
        };
        let (port, rx, tx) = Port::open(eal, &config, &pool)?;
        let (Some(rx), Some(tx)) = (rx.into_iter().next(), tx.into_iter().next()) else {
            unreachable!("a port of one queue has one of each")
        };
        Ok(Link {
            mac: MacAddr(port.mac()),
            port,
            behind,
            device: device.to_owned(),
            rx,
            tx,
            received: Vec::with_capacity(BURST),
            done: Vec::with_capacity(2 * BURST),
            answers: Vec::with_capacity(MOST_WAITING + BURST),
        })
    }

    /// A pool for packets to send, all bytes of it zero, so that payloads are too.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn zeroed_pool(eal: &Eal, name: &str) -> Result<Mempool, GenError> {
        let pool =
            Mempool::create(eal, &format!("{name}-tx"), MBUFS, MEMPOOL_CACHE, DATA_ROOM, None)?;
        let mut all = Vec::with_capacity(MBUFS as usize);
        while let Some(mut mbuf) = pool.alloc() {
            if mbuf.set_len(usize::from(DATA_ROOM)).is_ok() {
                mbuf.bytes_mut().fill(0);
            }
            all.push(mbuf);
        }
        free_bulk(&mut all);
        Ok(pool)
    }

    /// DPDK's name of the device and its driver.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.port.device(), self.port.driver())
    }

    /// The device, as it was asked for.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Wait until the link is up.
    ///
    /// # Errors
    /// It did not come up in time, or we were told to stop.
    pub fn wait_up(&self, stop: impl Fn() -> bool) -> Result<(), GenError> {
        let deadline = Instant::now() + LINK_WITHIN;
        while !self.port.link_up() {
            if stop() {
                return Err(GenError::Interrupted);
            }
            if Instant::now() > deadline {
                let (device, seconds) = (self.device.clone(), LINK_WITHIN.as_secs());
                return Err(GenError::LinkDown { device, seconds });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Take what came in, and send what it led to. How many packets there were.
    #[inline]
    pub fn poll(&mut self, handler: &mut Handler) -> usize {
        let got = self.rx.burst(&mut self.received, BURST);
        if got > 0 {
            // The peer's core wrote them: let the misses overlap.
            for frame in &self.received {
                frame.prefetch();
            }
            let cycles = dpdk_sys::rdtsc();
            let side = handler.side(self.mac, self.behind.0, self.behind.1);
            for mut frame in self.received.drain(..) {
                match handler.handle(&mut frame, &side, cycles) {
                    Fate::Done => self.done.push(frame),
                    Fate::Answer => self.answers.push(frame),
                }
            }
            free_bulk(&mut self.done);
        }
        if !self.answers.is_empty() {
            self.flush(&mut handler.counts);
        }
        got
    }

    /// Send answers; those beyond what may wait are dropped and counted.
    fn flush(&mut self, counts: &mut Counts) {
        self.tx.burst(&mut self.answers);
        if self.answers.len() > MOST_WAITING {
            counts.answers_dropped += (self.answers.len() - MOST_WAITING) as u64;
            self.done.extend(self.answers.drain(MOST_WAITING..));
            free_bulk(&mut self.done);
        }
    }

    /// Send a frame of ours, made of these bytes. Whether the device took it.
    pub fn send(&mut self, pool: &Mempool, bytes: &[u8]) -> bool {
        let Some(mut mbuf) = pool.alloc() else { return false };
        if mbuf.set_len(bytes.len()).is_err() {
            return false;
        }
        mbuf.bytes_mut().copy_from_slice(bytes);
        let mut one = vec![mbuf];
        self.tx.burst(&mut one) == 1
    }
}
