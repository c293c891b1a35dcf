//! The bench: mbufs, a pipeline with its services, and the loop that times bursts.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::{Mode, Pool, Protocol, Snapshot};
use sluice_dataplane::burst::{BURST, Burst, Meta};
use sluice_dataplane::counters::WorkerCounters;
use sluice_dataplane::dpdk::{Clock, Eal, Mbuf, Mempool, Pages, free_bulk};
use sluice_dataplane::frame::Frame;
use sluice_dataplane::pipeline::{Pipeline, PipelineConfig, PortInfo, Sink, ToMain};
use sluice_dataplane::resolver::{NeighbourState, NeighbourUpdate};
use sluice_dataplane::slots::{self, Slots};
use sluice_dataplane::snapshot::Compiled;
use sluice_dataplane::table::route::RouteTable;
use sluice_dataplane::testkit;

use super::PerfError;

/// Mbufs that take turns: 64 bursts, so that none is used again while its lines are still warm
/// from the last time.
const PREPARED: usize = 64 * BURST;
/// Local addresses of the pool: enough local ports for 16 million conns to four backends.
const LOCAL_ADDRESSES: u32 = 64;
/// Backends of the service.
pub const BACKENDS: u16 = 4;
/// The service's L4 port.
pub const SERVICE_PORT: u16 = 80;

/// Takes what leaves the pipeline, as a worker's lanes do.
#[derive(Default)]
pub struct Lane {
    /// What has left.
    pub frames: Vec<Mbuf>,
}

impl Sink<Mbuf> for Lane {
    #[inline(always)]
    fn transmit(&mut self, _port: u16, frame: Mbuf) {
        self.frames.push(frame);
    }
    fn hand_over(&mut self, _worker: u16, _in_port: u16, frame: Mbuf) {
        self.frames.push(frame);
    }
    fn to_kernel(&mut self, _port: u16, frame: Mbuf) {
        self.frames.push(frame);
    }
    #[inline(always)]
    fn transmit_all(&mut self, _port: u16, frames: &mut Vec<Mbuf>) {
        self.frames.append(frames);
    }
    #[inline(always)]
    fn discard(&mut self, frames: &mut Vec<Mbuf>) {
        free_bulk(frames);
    }
}

/// A pipeline with what it forwards by.
pub struct Setup {
    /// The pipeline.
    pub pipeline: Pipeline<Mbuf>,
    /// The snapshot.
    pub compiled: Compiled,
    /// The time; it stands still unless a scenario moves it.
    pub now: u32,
}

/// The bench.
pub struct Bench {
    mempool: Mempool,
    clock: Clock,
    burst: Burst<Mbuf>,
    lane: Lane,
    /// Mbufs that wait to be filled.
    empty: Vec<Mbuf>,
    /// Bursts to measure per row.
    pub bursts: usize,
    /// Whether packets come with their checksums verified, as from a NIC with checksum offload.
    pub nic_checksums: bool,
    /// Pages for the conn tables.
    pub pages: Pages,
}

impl Bench {
    /// A bench that measures so many bursts per row.
    pub fn new(
        eal: &Eal,
        clock: Clock,
        bursts: u32,
        nic_checksums: bool,
        pages: Pages,
    ) -> Result<Self, PerfError> {
        let mempool = Mempool::create(eal, "bench", 3 * PREPARED as u32, 256, 2_048, None)?;
        Ok(Bench {
            mempool,
            clock,
            burst: Burst::default(),
            lane: Lane { frames: Vec::with_capacity(PREPARED) },
            empty: Vec::with_capacity(PREPARED),
            bursts: bursts as usize,
            nic_checksums,
            pages,
        })
    }

    /// Cycles per second.
    pub fn hz(&self) -> u64 {
        self.clock.hz()
    }

    /// A pipeline for `conns` conns, one service in this mode, every next hop resolved.
    pub fn setup(&self, mode: Mode, conns: u32) -> Setup {
        let mut service = testkit::service("web", SERVICE_PORT, Protocol::Tcp, mode, BACKENDS);
        service.scheduler = sluice_api::Scheduler::Maglev;
        service.maglev_slots = 65_537;
        let locals = (1..=LOCAL_ADDRESSES).map(|i| Ipv4Addr::from_bits(0x0a00_ff00 + i));
        let snapshot = Snapshot {
            generation: 1,
            services: vec![service],
            pools: vec![Pool { name: "lan".to_owned(), addresses: locals.collect() }],
        };
        let config = testkit::config();
        let mut slots = Slots::new(1_024, 16_384);
        slots.assign(&snapshot).expect("one service fits");
        let own = sluice_dataplane::runtime::port_addresses(&config);
        let compiled = Compiled::new(&snapshot, &slots, &own, &Compiled::empty(&own));
        let backend_slots = slots::backend_slots(16_384) as usize;
        let ports = config
            .ports
            .iter()
            .zip(testkit::PORT_MACS)
            .map(|(port, mac)| PortInfo {
                mac,
                mtu: port.mtu,
                address: port.addresses[0].address(),
                has_exception: true,
            })
            .collect();
        let pipeline_config = PipelineConfig {
            worker: 0,
            workers: 1,
            conns,
            neighbours: 4_096,
            service_slots: slots::service_slots(1_024) as usize,
            backend_slots,
            ports,
            routes: Arc::new(RouteTable::new(config.networks(), &config.routes)),
            seed: 0x5eed,
            verify_l4_checksum: true,
            pages: self.pages,
        };
        let counters = Arc::new(WorkerCounters::new(backend_slots));
        let pipeline = Pipeline::new(pipeline_config, counters, 1_000);
        Setup { pipeline, compiled, now: 1_000 }
    }

    /// Fill a batch of bursts: `write` gives each packet's bytes and the port it comes in by.
    fn prepare(
        &mut self,
        count: usize,
        mut write: impl FnMut() -> (u16, Vec<u8>),
    ) -> Vec<(u16, Mbuf)> {
        while self.empty.len() < PREPARED {
            match self.mempool.alloc() {
                Some(mbuf) => self.empty.push(mbuf),
                None => break,
            }
        }
        let count = count.min(self.empty.len());
        let nic_checksums = self.nic_checksums;
        // First in, first out: a buffer comes again only after all others.
        self.empty
            .drain(..count)
            .map(|mut mbuf| {
                let (port, bytes) = write();
                mbuf.set_len(bytes.len()).expect("bench packets are small");
                mbuf.bytes_mut().copy_from_slice(&bytes);
                if nic_checksums {
                    mbuf.mark_checksums_good();
                }
                (port, mbuf)
            })
            .collect()
    }

    /// Run packets through `process` in bursts of one port each; cycles of each full burst.
    fn time(
        &mut self,
        packets: Vec<(u16, Mbuf)>,
        cycles: &mut Vec<u64>,
        mut process: impl FnMut(&mut Burst<Mbuf>, &mut Lane),
    ) {
        let mut packets = packets.into_iter();
        loop {
            let mut count = 0;
            let mut port_of = [0; BURST];
            for (slot, (port, mbuf)) in port_of.iter_mut().zip(packets.by_ref()) {
                *slot = port;
                self.burst.frames_mut().push(mbuf);
                count += 1;
            }
            if count == 0 {
                break;
            }
            let mut index = 0;
            let start = dpdk_sys::rdtsc();
            self.burst.received(|_| {
                let meta = Meta::received(port_of[index], false);
                index += 1;
                meta
            });
            process(&mut self.burst, &mut self.lane);
            let taken = dpdk_sys::rdtsc() - start;
            if count == BURST {
                cycles.push(taken);
            }
            self.empty.append(&mut self.lane.frames);
        }
    }

    /// Send packets through a pipeline, `packets` of them in all, and time every burst.
    pub fn run(
        &mut self,
        setup: &mut Setup,
        packets: usize,
        mut write: impl FnMut() -> (u16, Vec<u8>),
    ) -> Vec<u64> {
        let mut cycles = Vec::with_capacity(packets / BURST + 1);
        let mut left = packets;
        while left > 0 {
            let batch = self.prepare(left.min(BURST), &mut write);
            left -= batch.len().min(left);
            let Setup { pipeline, compiled, now } = setup;
            self.time(batch, &mut cycles, |burst, lane| {
                pipeline.process(burst, compiled, *now, lane);
            });
            self.answer_wants(setup);
        }
        cycles
    }

    /// The floor: the same bursts, MAC addresses swapped.
    pub fn floor(&mut self, packets: usize, mut write: impl FnMut() -> (u16, Vec<u8>)) -> Vec<u64> {
        let mut cycles = Vec::with_capacity(packets / BURST + 1);
        let mut left = packets;
        while left > 0 {
            let batch = self.prepare(left.min(BURST), &mut write);
            left -= batch.len().min(left);
            self.time(batch, &mut cycles, |burst, lane| {
                for (frame, _) in burst.iter_mut() {
                    frame.prefetch();
                }
                for (frame, _) in burst.iter_mut() {
                    if let Some(macs) = frame.bytes_mut().first_chunk_mut::<12>() {
                        let (a, b) = macs.split_at_mut(6);
                        a.swap_with_slice(b);
                    }
                }
                for (frame, meta) in burst.drain() {
                    lane.transmit(meta.in_port, frame);
                }
            });
        }
        cycles
    }

    /// Resolve whatever next hops the pipeline asks for.
    fn answer_wants(&mut self, setup: &mut Setup) {
        let messages: Vec<ToMain> = setup.pipeline.take_messages().collect();
        for message in messages {
            if let ToMain::Want { port, address } = message {
                let state = NeighbourState::Reachable(testkit::PEER_MAC);
                let update = NeighbourUpdate { port, address, state };
                setup.pipeline.update_neighbour(&update, &mut self.lane);
            }
        }
        self.empty.append(&mut self.lane.frames);
    }
}
