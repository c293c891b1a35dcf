//! A pipeline without ports, and packets to feed it: for tests, simulation, fuzzers and benches.

pub mod fuzz;
mod team;

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_api::stats::Limits;
use sluice_api::{
    AdminState, DropReason, HashOn, Mode, NoConn, Pool, Protocol, Refusal, Scheduler, Snapshot,
    SnapshotBackend, SnapshotService, Timeouts, validate,
};
use sluice_wire::checksum;
use sluice_wire::ether::{EtherHeader, MacAddr, ethertype};
use sluice_wire::ipv4::{Ipv4Header, PROTO_TCP, PROTO_UDP};
use sluice_wire::tcp::{TcpFlags, TcpHeader};
use sluice_wire::udp::UdpHeader;
use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use crate::burst::{BURST, Burst, Meta};
use crate::counters::WorkerCounters;
use crate::flow::FlowKey;
use crate::frame::{Frame, MemFrame};
use crate::host_flows::{HostFlows, KernelLane};
use crate::memory::Pages;
use crate::network::InterfaceAddress;
use crate::pipeline::{Pipeline, PipelineConfig, PortInfo, Sink, Steering, ToMain};
use crate::resolver::{NeighbourState, NeighbourUpdate};
use crate::slots::{self, Slots};
use crate::snapshot::Compiled;
use crate::table::owner::Owners;
use crate::table::route::{Route, RouteTable};
use crate::tally::WorkerView;
use crate::time::Millis;

pub use team::Team;

/// Network of clients, behind port 0: 192.0.2.0/24; the port has .1, clients come through .254.
pub const CLIENT_PORT: u16 = 0;
/// Network of backends, behind port 1: 10.0.0.0/16; the port has 10.0.0.1.
pub const BACKEND_PORT: u16 = 1;
/// MAC addresses of the two ports.
pub const PORT_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
/// MAC address of whoever sends to Sluice; no next hop has it.
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
/// Next hop of clients beyond their network.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// The VIP of all services here.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The first local address of pool `lan`.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 1);

/// The ports' addresses, in their order.
const PORT_ADDRESSES: [&str; 2] = ["192.0.2.1/24", "10.0.0.1/16"];

/// xorshift64*: the same sequence for the same seed, everywhere. The seed is not 0.
pub struct Random(pub u64);

impl Random {
    /// From the environment's `SLUICE_SEED`, or a fixed seed; prints which.
    pub fn from_env() -> Self {
        let seed = std::env::var("SLUICE_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.filter(|s| *s != 0).unwrap_or(20_261_125);
        println!("SLUICE_SEED={seed}");
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// So many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }

    /// One of some items.
    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// The MAC address of a next hop: each has its own.
pub fn mac_of(port: u16, address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([6, port as u8, a, b, c, d])
}

/// What the main thread says of a next hop that answers.
pub fn is_reachable(port: u16, address: Ipv4Addr) -> NeighbourUpdate {
    let state = NeighbourState::Reachable(mac_of(port, address));
    NeighbourUpdate { port, address: address.to_bits(), state }
}

fn port_addresses() -> impl Iterator<Item = InterfaceAddress> {
    PORT_ADDRESSES.iter().map(|text| text.parse().expect("an address and its prefix length"))
}

/// The two ports.
pub fn ports() -> Vec<PortInfo> {
    let ports = port_addresses().zip(PORT_MACS);
    ports
        .map(|(address, mac)| PortInfo {
            mac,
            mtu: 1_500,
            address: address.address(),
            broadcasts: [address.network().last().to_bits()].into(),
            has_exception: true,
            checks_source: true,
        })
        .collect()
}

/// The ports' networks, and a route to everywhere else by [`GATEWAY`].
pub fn routes() -> Arc<RouteTable> {
    let networks = (0..).zip(port_addresses().map(|address| address.network()));
    let destination = "0.0.0.0/0".parse().expect("a network");
    let route = Route { destination, via: GATEWAY, port: CLIENT_PORT };
    Arc::new(RouteTable::new(networks, &[route]))
}

/// Addresses of the ports, each with its port's number.
pub fn own_addresses() -> Vec<(Ipv4Addr, u16)> {
    port_addresses().map(|address| address.address()).zip(0..).collect()
}

/// A flow from an address and port to another.
pub fn flow(protocol: Protocol, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> FlowKey {
    FlowKey {
        src: src.0.to_bits(),
        dst: dst.0.to_bits(),
        src_port: src.1,
        dst_port: dst.1,
        protocol: protocol.number(),
    }
}

/// A whole frame of a flow to a port's MAC address, with correct lengths and checksums; in TCP with
/// sequence and acknowledgment number 1.
pub fn packet(to: MacAddr, key: &FlowKey, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    segment(to, key, flags, (1, 1), payload)
}

/// The same with these sequence and acknowledgment numbers.
pub fn segment(
    to: MacAddr,
    key: &FlowKey,
    flags: TcpFlags,
    (seq, ack): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let mut l4 = Vec::new();
    let (src_port, dst_port) = (U16::new(key.src_port), U16::new(key.dst_port));
    if key.protocol == PROTO_UDP {
        let length = U16::new((8 + payload.len()) as u16);
        l4.extend(UdpHeader { src_port, dst_port, length, checksum: U16::ZERO }.as_bytes());
    } else {
        let header = TcpHeader {
            src_port,
            dst_port,
            seq: U32::new(seq),
            ack: U32::new(ack),
            data_offset: 0x50,
            flags,
            window: U16::new(1_000),
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        };
        l4.extend(header.as_bytes());
    }
    l4.extend(payload);
    let sum = checksum::compute_l4_v4(key.src, key.dst, key.protocol, &l4);
    let at = if key.protocol == PROTO_TCP { 16 } else { 6 };
    let sum = if key.protocol == PROTO_UDP && sum == 0 { 0xffff } else { sum };
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    ip_frame(to, key, 64, &l4)
}

/// A whole IPv4 frame around an L4 packet that stands for itself.
pub fn ip_frame(to: MacAddr, key: &FlowKey, ttl: u8, l4: &[u8]) -> Vec<u8> {
    let mut ip = Ipv4Header {
        version_ihl: 0x45,
        dscp_ecn: 0,
        total_len: U16::new((20 + l4.len()) as u16),
        id: U16::new(7),
        flags_fragment: U16::new(0x4000),
        ttl,
        protocol: key.protocol,
        checksum: U16::ZERO,
        src: U32::new(key.src),
        dst: U32::new(key.dst),
    };
    ip.fill_checksum();
    let ether = EtherHeader::new(to, PEER_MAC, ethertype::IPV4);
    let mut frame = [ether.as_bytes(), ip.as_bytes(), l4].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A service on [`VIP`] with backends 10.0.1.1, 10.0.1.2, … that have its port.
pub fn service(
    name: &str,
    port: u16,
    protocol: Protocol,
    mode: Mode,
    backends: u16,
) -> SnapshotService {
    SnapshotService {
        name: name.to_owned(),
        vip: VIP,
        port,
        protocol,
        mode,
        scheduler: Scheduler::Wrr,
        hash_on: HashOn::FiveTuple,
        maglev_slots: 251,
        max_conns: None,
        pool: (mode == Mode::FullNat).then(|| "lan".to_owned()),
        no_conn: NoConn::of_mode(mode),
        no_backend: Refusal::default(),
        timeouts: Timeouts::default(),
        backends: (1..=backends)
            .map(|i| SnapshotBackend {
                address: Ipv4Addr::from_bits(0x0a00_0100 + u32::from(i)),
                port,
                weight: 1,
                max_conns: None,
                state: AdminState::Up,
                healthy: true,
            })
            .collect(),
    }
}

/// A snapshot of these services and pool `lan` with one local address.
pub fn snapshot(generation: u64, services: Vec<SnapshotService>) -> Snapshot {
    Snapshot {
        generation,
        services,
        pools: vec![Pool::new("lan", vec![LOCAL])],
        no_service: Refusal::default(),
    }
}

/// What left a pipeline.
#[derive(Debug, Default)]
pub struct Out {
    /// Port and packet.
    pub transmitted: Vec<(u16, MemFrame)>,
    /// Worker, port it came in by, and packet.
    pub handed_over: Vec<(u16, u16, MemFrame)>,
    /// Port and packet.
    pub to_kernel: Vec<(u16, MemFrame)>,
    /// The part of the way to the kernel that each of them takes.
    pub kernel_lanes: Vec<KernelLane>,
}

impl Sink<MemFrame> for Out {
    fn transmit(&mut self, port: u16, frame: MemFrame) {
        self.transmitted.push((port, frame));
    }
    fn hand_over(&mut self, worker: u16, in_port: u16, frame: MemFrame) {
        self.handed_over.push((worker, in_port, frame));
    }
    fn to_kernel(&mut self, port: u16, frame: MemFrame, lane: KernelLane) {
        self.to_kernel.push((port, frame));
        self.kernel_lanes.push(lane);
    }
    fn spare(&mut self) -> Option<MemFrame> {
        Some(MemFrame::new(&[]))
    }
}

/// A pipeline with everything around it.
pub struct Harness {
    /// The pipeline.
    pub pipeline: Pipeline<MemFrame>,
    /// What it forwards by.
    pub compiled: Compiled,
    /// Slots of services and backends.
    pub slots: Slots,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// What it sees of the other workers: nothing, unless a test has a tally over several.
    pub view: Arc<WorkerView>,
    /// What the host has asked for: nothing, unless a test notes it.
    pub host_flows: Arc<HostFlows>,
    /// The time; tests set it.
    pub now: Millis,
    /// Whether next hops are found when they are asked for, each by [its own MAC](mac_of).
    pub resolves: bool,
    /// Messages to the main thread other than wants that were answered.
    pub messages: Vec<ToMain>,
    burst: Burst<MemFrame>,
}

impl Harness {
    /// One worker with room for `conns`, forwarding by a snapshot.
    pub fn new(snapshot: &Snapshot, conns: u32) -> Self {
        Self::worker(snapshot, conns, 0, 1)
    }

    /// Worker number `worker` of `workers`, with handover.
    pub fn worker(snapshot: &Snapshot, conns: u32, worker: u16, workers: u16) -> Self {
        Self::steered(snapshot, conns, (worker, workers), Steering::by_handover(workers))
    }

    /// Worker number so of so many, with this steering.
    pub fn steered(
        snapshot: &Snapshot,
        conns: u32,
        (worker, workers): (u16, u16),
        steering: Steering,
    ) -> Self {
        let limits = test_limits();
        let backend_slots = slots::backend_slots(limits.backends) as usize;
        let service_slots = slots::service_slots(limits.services) as usize;
        let counters = Arc::new(WorkerCounters::new(service_slots, backend_slots, PORT_MACS.len()));
        let view = Arc::new(WorkerView::new(service_slots, backend_slots));
        let ports = ports();
        let own_ports = steering.owners.all_own_ports(workers);
        let host_flows = Arc::new(HostFlows::new(7));
        let pipeline_config = PipelineConfig {
            worker,
            workers,
            steering,
            conns,
            neighbours: 1_024,
            service_slots,
            backend_slots,
            ports,
            routes: routes(),
            seed: 7,
            host_flows: Arc::clone(&host_flows),
            verify_l4_checksum: true,
            pages: Pages::Transparent,
        };
        let mut harness = Harness {
            pipeline: Pipeline::new(
                pipeline_config,
                Arc::clone(&counters),
                Arc::clone(&view),
                1_000,
            ),
            compiled: Compiled::empty(&own_addresses(), own_ports, 7, routes()),
            slots: Slots::new(limits.services, limits.backends),
            counters,
            view,
            host_flows,
            now: 1_000,
            resolves: true,
            messages: Vec::new(),
            burst: Burst::default(),
        };
        harness.apply(snapshot);
        harness
    }

    /// Forward by another snapshot, which must be valid.
    pub fn apply(&mut self, snapshot: &Snapshot) {
        assert_valid(snapshot);
        self.slots.assign(snapshot).expect("there is room for the test's services");
        let own = own_addresses();
        self.compiled = Compiled::new(snapshot, &self.slots, &own, &self.compiled);
    }

    /// Reach next hops by other routes, as at the beginning of a round.
    pub fn reroute(&mut self, routes: Arc<RouteTable>) {
        let own = own_addresses();
        self.compiled = Compiled::rerouted(&self.compiled, &self.slots, &own, routes);
        self.pipeline.go_by(&self.compiled.routes);
    }

    /// Let packets come in by a port; what left.
    pub fn receive(&mut self, port: u16, packets: impl IntoIterator<Item = Vec<u8>>) -> Out {
        self.receive_meta(Meta::received(port, false), packets)
    }

    /// Let packets come in with what is known of them; what left.
    pub fn receive_meta(&mut self, meta: Meta, packets: impl IntoIterator<Item = Vec<u8>>) -> Out {
        let mut out = Out::default();
        let mut packets = packets.into_iter().peekable();
        while packets.peek().is_some() {
            let frames = packets.by_ref().take(BURST).map(|bytes| MemFrame::new(&bytes));
            self.burst.frames_mut().extend(frames);
            self.burst.received(|_| meta);
            self.pipeline.process(&mut self.burst, &self.compiled, self.now, &mut out);
            self.answer_wants(&mut out);
        }
        out
    }

    /// Tell the pipeline where the next hops are that it asks for.
    fn answer_wants(&mut self, out: &mut Out) {
        let messages: Vec<ToMain> = self.pipeline.take_messages().collect();
        for message in messages {
            match message {
                ToMain::Want { port, address, .. } if self.resolves => {
                    let update = is_reachable(port, Ipv4Addr::from_bits(address));
                    self.update_neighbour(&update, out);
                }
                message => self.messages.push(message),
            }
        }
    }

    /// Tell the pipeline what the main thread found out about a next hop.
    pub fn update_neighbour(&mut self, update: &NeighbourUpdate, out: &mut Out) {
        self.pipeline.update_neighbour(update, &self.compiled, self.now, out);
    }

    /// Tell the main thread what this worker goes by, as at the end of each round.
    pub fn acknowledge(&self) {
        self.counters.generation.publish(self.compiled.generation);
        self.counters.view_epoch.publish(self.view.epoch());
    }

    /// Let time pass, and conns expire.
    pub fn pass(&mut self, ms: u32) {
        self.now = self.now.wrapping_add(ms);
        self.pipeline.expire(&self.compiled, self.now, usize::MAX);
    }

    /// Packets dropped for a reason so far.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters.drop_count(reason).get()
    }

    /// Reasons for which packets were dropped so far, with their counts.
    pub fn all_drops(&self) -> Vec<(DropReason, u64)> {
        let count = |reason: &DropReason| (*reason, self.drops(*reason));
        DropReason::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }
}

/// Table sizes of all pipelines here.
pub fn test_limits() -> Limits {
    Limits { services: 64, backends: 4_096, ..Limits::default() }
}

/// That a snapshot is one that the data plane takes.
fn assert_valid(snapshot: &Snapshot) {
    let own: Vec<Ipv4Addr> = own_addresses().into_iter().map(|(address, _)| address).collect();
    assert_eq!(validate::snapshot(snapshot, &test_limits(), &own).into_vec(), []);
}

/// What a worker, the only one, forwards by before the first snapshot.
pub fn nothing_compiled() -> Compiled {
    let own_ports = Owners::Arithmetic { workers: 1 }.all_own_ports(1);
    Compiled::empty(&own_addresses(), own_ports, 7, routes())
}

/// Where a slice lies.
pub fn range_of<T>(slice: &[T]) -> std::ops::Range<usize> {
    let start = slice.as_ptr().addr();
    start..start + size_of_val(slice)
}

/// The flow of a frame that left, and whether its checksums are right.
pub fn inspect(frame: &MemFrame) -> (FlowKey, bool) {
    let bytes = frame.bytes();
    let Ok(view) = sluice_wire::Ipv4Frame::parse(bytes) else {
        return (FlowKey::default(), false);
    };
    let ip = &view.ip;
    let end = 14 + usize::from(ip.total_len());
    let l4 = &bytes[34..end];
    let l4_ok = match ip.protocol {
        PROTO_TCP => sluice_wire::tcp::checksum_is_valid(ip.src(), ip.dst(), l4),
        PROTO_UDP => sluice_wire::udp::parse(l4).is_ok_and(|(_, len)| {
            sluice_wire::udp::checksum_is_valid(ip.src(), ip.dst(), &l4[..len])
        }),
        _ => checksum::compute(l4) == 0,
    };
    let key = FlowKey {
        src: ip.src_u32(),
        dst: ip.dst_u32(),
        src_port: view.src_port(),
        dst_port: view.dst_port(),
        protocol: ip.protocol,
    };
    (key, l4_ok && ip.checksum_is_valid())
}
