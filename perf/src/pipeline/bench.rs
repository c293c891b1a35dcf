//! The bench: mbufs, a pipeline with its services, and the loop that times bursts.

use sluice_dataplane::dpdk::{Clock, Eal, Mbuf, Mempool, free_bulk};
use sluice_path::burst::{BURST, Burst, Meta};
use sluice_path::frame::Frame;
use sluice_path::host_flows::KernelLane;
use sluice_path::ids::{InterfaceId, WorkerId};
use sluice_path::pipeline::{Sink, ToMain};
use sluice_path::testkit;
use sluice_path::time::Millis;

use super::PerfError;
use crate::setup;

/// A pipeline over mbufs.
pub type Setup = setup::Setup<Mbuf>;

/// Mbufs that take turns: 64 bursts, so that none is used again while its lines are still warm
/// from the last time.
const PREPARED: usize = 64 * BURST;
/// Takes what leaves the pipeline, as a worker's lanes do.
#[derive(Default)]
pub struct Lane {
    /// What has left.
    pub frames: Vec<Mbuf>,
}

impl Sink<Mbuf> for Lane {
    #[inline(always)]
    fn transmit(&mut self, _interface: InterfaceId, frame: Mbuf) {
        self.frames.push(frame);
    }
    fn hand_over(&mut self, _worker: WorkerId, _interface: InterfaceId, frame: Mbuf) {
        self.frames.push(frame);
    }
    fn to_kernel(&mut self, _interface: InterfaceId, frame: Mbuf, _lane: KernelLane) {
        self.frames.push(frame);
    }
    /// No bench has the pipeline make packets of its own.
    fn spare(&mut self) -> Option<Mbuf> {
        None
    }
    #[inline(always)]
    fn transmit_all(&mut self, _interface: InterfaceId, frames: &mut Vec<Mbuf>) {
        self.frames.append(frames);
    }
    #[inline(always)]
    fn discard(&mut self, frames: &mut Vec<Mbuf>) {
        free_bulk(frames);
    }
}

/// The packets that a pipeline is fed, and the clock beside them.
pub trait Traffic {
    /// Conns that the worker may look at for expiry after each burst; that is timed, too.
    const EXPIRE: usize = 0;

    /// The next packet, and the port that it comes in by.
    fn next(&mut self) -> (InterfaceId, Vec<u8>);

    /// The time of the next burst, in ms.
    fn now(&mut self, before: Millis) -> Millis {
        before
    }

    /// What left of a burst, in its order. Not timed.
    fn left(&mut self, _frames: &[Mbuf]) {}
}

impl<F: FnMut() -> (InterfaceId, Vec<u8>)> Traffic for F {
    fn next(&mut self) -> (InterfaceId, Vec<u8>) {
        self()
    }
}

/// The bench.
pub struct Bench {
    mempool: Mempool,
    clock: Clock,
    burst: Burst<Mbuf>,
    lane: Lane,
    /// Mbufs that wait to be filled.
    empty: Vec<Mbuf>,
    /// Packets of a round: a row is a warm-up and [`rounds`](Self::rounds) of these.
    pub packets: usize,
    /// Rounds of a row.
    pub rounds: usize,
    /// Whether packets come with their checksums verified, as from a NIC with checksum offload.
    pub nic_checksums: bool,
    /// Bursts of [`run`](Self::run) that were left out so far, as the kernel ran another program in
    /// them: they took over a millisecond.
    pub preempted: usize,
}

impl Bench {
    /// A bench that measures so many bursts per row, in so many rounds.
    pub fn new(
        eal: &Eal,
        clock: Clock,
        (bursts, rounds): (u32, u32),
        nic_checksums: bool,
    ) -> Result<Self, PerfError> {
        let mempool = Mempool::create(eal, "bench", 3 * PREPARED as u32, 256, 2_048, None)?;
        Ok(Bench {
            mempool,
            clock,
            burst: Burst::default(),
            lane: Lane { frames: Vec::with_capacity(PREPARED) },
            empty: Vec::with_capacity(PREPARED),
            packets: (bursts / rounds) as usize * BURST,
            rounds: rounds as usize,
            nic_checksums,
            preempted: 0,
        })
    }

    /// Cycles per second.
    pub fn hz(&self) -> u64 {
        self.clock.hz()
    }

    /// Fill a burst: `write` gives each packet's bytes and the port it comes in by.
    fn prepare(
        &mut self,
        count: usize,
        mut write: impl FnMut() -> (InterfaceId, Vec<u8>),
    ) -> [InterfaceId; BURST] {
        while self.empty.len() < PREPARED {
            match self.mempool.alloc() {
                Some(mbuf) => self.empty.push(mbuf),
                None => break,
            }
        }
        let mut interfaces = [InterfaceId::default(); BURST];
        let count = count.min(self.empty.len());
        let nic_checksums = self.nic_checksums;
        // First in, first out: a buffer comes again only after all others.
        for (slot, mut mbuf) in interfaces.iter_mut().zip(self.empty.drain(..count)) {
            let (port, bytes) = write();
            mbuf.set_len(bytes.len()).expect("bench packets are small");
            mbuf.bytes_mut().copy_from_slice(&bytes);
            if nic_checksums {
                mbuf.mark_checksums_good();
            }
            *slot = port;
            self.burst.frames_mut().push(mbuf);
        }
        interfaces
    }

    /// Time `process` over the burst that is prepared; its cycles.
    fn time(
        &mut self,
        interfaces: [InterfaceId; BURST],
        process: impl FnOnce(&mut Burst<Mbuf>, &mut Lane),
    ) -> u64 {
        let mut index = 0;
        let start = dpdk_sys::rdtsc();
        self.burst.received(|_| {
            let meta = Meta::received(interfaces[index], false);
            index += 1;
            meta
        });
        process(&mut self.burst, &mut self.lane);
        dpdk_sys::rdtsc() - start
    }

    /// Send packets through a pipeline, `packets` of them in all, and time every burst; cycles of
    /// each full one, but for those in which the kernel ran another program.
    pub fn run(
        &mut self,
        setup: &mut Setup,
        packets: usize,
        traffic: &mut impl Traffic,
    ) -> Vec<u64> {
        let mut cycles = Vec::with_capacity(packets / BURST + 1);
        let mut left = packets;
        while left > 0 {
            let count = left.min(BURST);
            let taken = self.round(setup, count, traffic, |_| {});
            if !self.is_preempted(taken) && count == BURST {
                cycles.push(taken);
            }
            left -= count;
        }
        cycles
    }

    /// Whether the kernel ran another program in a burst of so many cycles; counted.
    pub fn is_preempted(&mut self, cycles: u64) -> bool {
        let preempted = cycles > self.hz() / 1_000;
        self.preempted += usize::from(preempted);
        preempted
    }

    /// One round of a worker: a burst of `count` packets and, if the traffic says so, expiry. What
    /// `before` does is timed with it. Cycles.
    fn round<T: Traffic>(
        &mut self,
        setup: &mut Setup,
        count: usize,
        traffic: &mut T,
        before: impl FnOnce(&mut Setup),
    ) -> u64 {
        let interfaces = self.prepare(count, || traffic.next());
        setup.now = traffic.now(setup.now);
        let taken = self.time(interfaces, |burst, lane| {
            before(setup);
            let Setup { pipeline, compiled, now, .. } = setup;
            pipeline.process(burst, compiled, *now, lane);
            if T::EXPIRE > 0 {
                pipeline.expire(compiled, *now, T::EXPIRE);
            }
        });
        traffic.left(&self.lane.frames);
        self.empty.append(&mut self.lane.frames);
        self.answer_wants(setup);
        taken
    }

    /// One full round in which `before` may change what is forwarded by; cycles of both.
    pub fn worker_round(
        &mut self,
        setup: &mut Setup,
        traffic: &mut impl Traffic,
        before: impl FnOnce(&mut Setup),
    ) -> u64 {
        self.round(setup, BURST, traffic, before)
    }

    /// The floor: the same bursts, MAC addresses swapped.
    pub fn floor(&mut self, packets: usize, frame: &[u8], port: InterfaceId) -> Vec<u64> {
        let mut cycles = Vec::with_capacity(packets / BURST + 1);
        for _ in 0..packets / BURST {
            let interfaces = self.prepare(BURST, || (port, frame.to_vec()));
            cycles.push(self.time(interfaces, |burst, lane| {
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
                    lane.transmit(meta.interface, frame);
                }
            }));
            self.empty.append(&mut self.lane.frames);
        }
        cycles
    }

    /// Resolve whatever next hops the pipeline asks for.
    fn answer_wants(&mut self, setup: &mut Setup) {
        let messages: Vec<ToMain> = setup.pipeline.take_messages().collect();
        for message in messages {
            if let ToMain::Want { hop, .. } = message {
                let update = testkit::is_reachable(hop.interface, hop.ip());
                setup.pipeline.update_neighbour(
                    &update,
                    &setup.compiled,
                    setup.now,
                    &mut self.lane,
                );
            }
        }
        self.empty.append(&mut self.lane.frames);
    }
}
