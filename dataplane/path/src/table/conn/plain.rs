//! A plain conn: IPv4 on both sides, full-NAT or DR, in one cache line.

use sluice_wire::checksum::Delta;

use super::ConnRef;
use super::seq::Seqs;
use super::state::{ConnState, Fins};
use super::wheel::Link;
use crate::flow::{FlowKey, Tuple};
use crate::ids::InterfaceId;
use crate::network::MAX_PORTS;
use crate::table::neighbour::NextHopRef;
use crate::time::Millis;

/// What is fixed when a conn is made.
#[derive(Clone, Copy, Debug)]
pub struct NewConn {
    /// The flow from the client: client, VIP, both L4 ports, protocol.
    pub from_client: FlowKey,
    /// The flow from the backend (full-NAT): backend, local address, both L4 ports. `None` in DR.
    pub from_backend: Option<FlowKey>,
    /// The backend's address: where DR sends the packet.
    pub backend_address: u32,
    /// Slot of the service's timeouts.
    pub service_slot: u16,
    /// Slot of the backend's counters.
    pub backend_slot: u32,
    /// First state.
    pub state: ConnState,
    /// The port that the client's packet came in by.
    pub interface: InterfaceId,
    /// Its sequence number, in TCP.
    pub seq: u32,
}

/// No port is known yet by which packets of a direction come in.
const NOT_YET: u8 = u8::MAX - 1;
/// No packets of this direction come in: the backend's in DR, which is what tells DR.
const NEVER: u8 = u8::MAX;
const _: () = assert!(MAX_PORTS < NOT_YET as usize, "a port's number fits into a conn");

/// A conn: one cache line. Arrays are by direction ([`ConnRef::direction`]).
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Conn {
    /// Addresses of packets from the client (client, VIP) and from the backend (backend, local
    /// address; 0 in DR), as they stand in packets.
    addresses: [u64; 2],
    /// Their L4 ports, likewise.
    ports: [u32; 2],
    pub(super) last_seen: Millis,
    /// What the rewrite towards the backend does to the IPv4 header's checksum as it lies in the
    /// packet.
    ip_delta: Delta,
    /// What it does to the TCP or UDP checksum.
    l4_delta: Delta,
    /// Next hops of packets from the client, and from the backend.
    pub next_hops: [NextHopRef; 2],
    backend_slot: u32,
    pub(super) link: Link,
    pub(super) service_slot: u16,
    seqs: Seqs,
    /// IP protocol number; 0 when the conn is gone, which no packet's is.
    pub(super) protocol: u8,
    pub(super) phase: Phase,
    /// The ports that packets come in by, [`NOT_YET`] or [`NEVER`].
    interfaces: [u8; 2],
}

/// State and FINs of a conn, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase(u8);

impl Phase {
    const STATE: u8 = 0x0f;
    const FINS: u32 = 4;

    pub(super) const fn new(state: ConnState, fins: Fins) -> Self {
        Phase(state as u8 | fins.bits() << Self::FINS)
    }

    /// Whether this is the state, and nothing is noted with it.
    #[inline(always)]
    fn is_plain(self, state: ConnState) -> bool {
        self.0 == state as u8
    }

    fn state(self) -> ConnState {
        ConnState::ALL[usize::from(self.0 & Self::STATE)]
    }

    fn fins(self) -> Fins {
        Fins::from_bits(self.0 >> Self::FINS)
    }
}

const _: () = assert!(size_of::<Conn>() == 64, "a conn is one cache line");

/// What becomes of a packet's addresses, L4 ports and checksums.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    /// Addresses and L4 ports that the packet leaves with.
    pub to: Tuple,
    /// What that does to the IPv4 header's checksum, as it lies in the packet.
    pub ip_delta: Delta,
    /// What that does to the TCP or UDP checksum, likewise.
    pub l4_delta: Delta,
}

impl Conn {
    pub(super) const FREE: Conn = Conn {
        addresses: [0; 2],
        ports: [0; 2],
        last_seen: 0,
        ip_delta: Delta::NONE,
        l4_delta: Delta::NONE,
        next_hops: [NextHopRef::UNRESOLVED; 2],
        backend_slot: 0,
        link: Link::UNARMED,
        service_slot: 0,
        seqs: Seqs::UNKNOWN,
        protocol: 0,
        phase: Phase::new(ConnState::Closed, Fins::NONE),
        interfaces: [NOT_YET, NEVER],
    };

    /// The packets of one direction, as they arrive.
    #[inline(always)]
    pub(super) fn tuple(&self, direction: usize) -> Tuple {
        Tuple {
            addresses: self.addresses[direction],
            ports: self.ports[direction],
            protocol: self.protocol,
        }
    }

    /// The flow from the client.
    pub fn from_client(&self) -> FlowKey {
        FlowKey::from(&self.tuple(0))
    }

    /// The flow from the backend, as it arrives at the local address.
    pub fn from_backend(&self) -> FlowKey {
        FlowKey::from(&self.tuple(1))
    }

    /// How packets of one direction are rewritten; `None` in DR. They leave as the reverse of the
    /// other direction: from its destination to its source.
    #[inline(always)]
    pub fn rewrite(&self, direction: usize) -> Option<Rewrite> {
        let to = self.tuple(direction ^ 1).reversed();
        let inverse = direction != 0;
        let ip_delta = self.ip_delta.inverse_if(inverse);
        let l4_delta = self.l4_delta.inverse_if(inverse);
        self.is_full_nat().then_some(Rewrite { to, ip_delta, l4_delta })
    }

    /// Whether packets are rewritten; in DR they are not, and replies never pass here.
    #[inline(always)]
    pub fn is_full_nat(&self) -> bool {
        self.interfaces[1] != NEVER
    }

    /// Where packets of one direction are sent: the backend's or the client's address.
    pub fn destination(&self, direction: usize) -> u32 {
        FlowKey::from(&self.tuple(direction ^ 1)).src
    }

    /// Slot of the backend's counters.
    #[inline(always)]
    pub fn backend_slot(&self) -> u32 {
        self.backend_slot
    }

    /// Slot of the service's counters and timeouts.
    #[inline(always)]
    pub fn service_slot(&self) -> u16 {
        self.service_slot
    }

    /// Where it stands.
    pub fn state(&self) -> ConnState {
        self.phase.state()
    }

    /// Whether it stands in this state, and nothing else is noted with it.
    #[inline(always)]
    pub fn is_plain(&self, state: ConnState) -> bool {
        self.phase.is_plain(state)
    }

    /// Which sides have sent FIN.
    pub fn fins(&self) -> Fins {
        self.phase.fins()
    }

    /// What is known of its sequence numbers.
    #[inline(always)]
    pub fn seqs(&self) -> &Seqs {
        &self.seqs
    }

    /// The same, to note more.
    pub fn seqs_mut(&mut self) -> &mut Seqs {
        &mut self.seqs
    }

    /// Whether packets of a direction are known to come in by a port.
    #[inline(always)]
    pub fn comes_by(&self, direction: usize, interface: InterfaceId) -> bool {
        u16::from(self.interfaces[direction]) == interface.0
    }

    /// Note that packets of a direction come in by a port.
    pub fn set_interface(&mut self, direction: usize, interface: InterfaceId) {
        self.interfaces[direction] = interface.0 as u8;
    }

    /// When its last packet was seen.
    pub fn last_seen(&self) -> Millis {
        self.last_seen
    }

    /// Whether the line is a conn's: it holds the last one's contents after its end.
    pub fn is_there(&self) -> bool {
        self.protocol != 0
    }

    /// IP protocol number.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether a packet is of this conn, which is there, and of the direction that `conn` says.
    #[inline(always)]
    pub fn is_flow(&self, tuple: &Tuple, conn: ConnRef) -> bool {
        self.tuple(conn.direction()) == *tuple
    }

    /// Note the time of a packet that changes no state.
    #[inline(always)]
    pub fn see(&mut self, now: Millis) {
        self.last_seen = now;
    }
}

impl NewConn {
    pub(super) fn line(&self, now: Millis) -> Conn {
        let client = &self.from_client;
        let from_client = Tuple::from(client);
        let mut line = Conn {
            addresses: [from_client.addresses, (u64::from(self.backend_address) << 32).to_be()],
            ports: [from_client.ports, 0],
            last_seen: now,
            backend_slot: self.backend_slot,
            service_slot: self.service_slot,
            protocol: client.protocol,
            phase: Phase::new(self.state, Fins::NONE),
            interfaces: [self.interface.0 as u8, NEVER],
            ..Conn::FREE
        };
        line.seqs.set(0, self.seq);
        if let Some(back) = &self.from_backend {
            let from_backend = Tuple::from(back);
            line.interfaces[1] = NOT_YET;
            line.addresses[1] = from_backend.addresses;
            line.ports[1] = from_backend.ports;
            let ip_delta = Delta::between_u32(client.src, back.dst)
                .and(Delta::between_u32(client.dst, back.src));
            let l4_delta = ip_delta
                .and(Delta::between_u16(client.src_port, back.dst_port))
                .and(Delta::between_u16(client.dst_port, back.src_port));
            (line.ip_delta, line.l4_delta) = (ip_delta.in_packets(), l4_delta.in_packets());
        }
        line
    }
}
