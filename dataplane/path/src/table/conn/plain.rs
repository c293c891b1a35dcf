//! A plain conn: IPv4 on both sides, full-NAT or DR, in one cache line.

use std::ops::{Deref, DerefMut};

use sluice_wire::checksum::Delta;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ConnRef;
use super::head::{HEAD_BYTES, Head, NewHead};
use super::state::ConnState;
use crate::flow::{FlowKey, Tuple};
use crate::ids::{BackendSlot, Direction, InterfaceId, ServiceSlot};
use crate::time::Millis;
use crate::treatment::Treatment;

/// What is fixed when a conn is made.
#[derive(Clone, Copy, Debug)]
pub struct NewConn {
    /// The flow from the client: client, VIP, both L4 ports, protocol.
    pub from_client: FlowKey,
    /// How packets leave.
    pub treatment: Treatment,
    /// The flow from the backend (full-NAT): backend, local address, both L4 ports. `None` when it does
    /// not pass here.
    pub from_backend: Option<FlowKey>,
    /// The backend's address: where DR sends the packet.
    pub backend_address: u32,
    /// Slot of the service's timeouts.
    pub service_slot: ServiceSlot,
    /// Slot of the backend's counters.
    pub backend_slot: BackendSlot,
    /// First state.
    pub state: ConnState,
    /// The port that the client's packet came in by.
    pub interface: InterfaceId,
    /// Its sequence number, in TCP.
    pub seq: u32,
}

/// A conn: one cache line. Arrays are by [`Direction`].
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Conn {
    /// Addresses of packets from the client (client, VIP) and from the backend (backend, local
    /// address; 0 in DR), as they stand in packets.
    addresses: [u64; 2],
    /// Their L4 ports, likewise.
    ports: [u32; 2],
    /// What the rewrite towards the backend does to the IPv4 header's checksum as it lies in the
    /// packet.
    ip_delta: Delta,
    /// What it does to the TCP or UDP checksum.
    l4_delta: Delta,
    head: Head,
}

const _: () = assert!(size_of::<Conn>() == 64, "a conn is one cache line");
const _: () = assert!(std::mem::offset_of!(Conn, head) == 64 - HEAD_BYTES);

impl Deref for Conn {
    type Target = Head;

    #[inline(always)]
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for Conn {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

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
        ip_delta: Delta::NONE,
        l4_delta: Delta::NONE,
        head: Head::FREE,
    };

    /// The packets of one direction, as they arrive.
    #[inline(always)]
    pub(super) fn tuple(&self, direction: Direction) -> Tuple {
        Tuple {
            addresses: self.addresses[direction.index()],
            ports: self.ports[direction.index()],
            protocol: self.protocol(),
        }
    }

    /// The flow from the client.
    pub fn from_client(&self) -> FlowKey {
        FlowKey::from(&self.tuple(Direction::FromClient))
    }

    /// The flow from the backend, as it arrives at the local address.
    pub fn from_backend(&self) -> FlowKey {
        FlowKey::from(&self.tuple(Direction::FromBackend))
    }

    /// How packets of one direction are rewritten; `None` in DR. They leave as the reverse of the
    /// other direction: from its destination to its source.
    #[inline(always)]
    pub fn rewrite(&self, direction: Direction) -> Option<Rewrite> {
        let to = self.tuple(direction.opposite()).reversed();
        let inverse = direction == Direction::FromBackend;
        let ip_delta = self.ip_delta.inverse_if(inverse);
        let l4_delta = self.l4_delta.inverse_if(inverse);
        self.is_full_nat().then_some(Rewrite { to, ip_delta, l4_delta })
    }

    /// How its packets leave.
    #[inline(always)]
    pub fn treatment(&self) -> Treatment {
        self.noted_treatment()
    }

    /// Whether packets are rewritten; in DR they are not, and replies never pass here.
    #[inline(always)]
    pub fn is_full_nat(&self) -> bool {
        self.sees_replies()
    }

    /// Where packets of one direction are sent: the backend's or the client's address.
    pub fn destination(&self, direction: Direction) -> u32 {
        FlowKey::from(&self.tuple(direction.opposite())).src
    }

    /// Whether a packet is of this conn, which is there, and of the direction that `conn` says.
    #[inline(always)]
    pub fn is_flow(&self, tuple: &Tuple, conn: ConnRef) -> bool {
        self.tuple(conn.direction()) == *tuple
    }
}

impl NewConn {
    pub(super) fn line(&self, now: Millis) -> Conn {
        let client = &self.from_client;
        let from_client = Tuple::from(client);
        let head = NewHead {
            backend_slot: self.backend_slot,
            service_slot: self.service_slot,
            protocol: client.protocol,
            state: self.state,
            interface: self.interface,
            treatment: self.treatment,
            seq: self.seq,
        };
        let mut line = Conn {
            addresses: [from_client.addresses, (u64::from(self.backend_address) << 32).to_be()],
            ports: [from_client.ports, 0],
            head: Head::new(&head, now),
            ..Conn::FREE
        };
        if let Some(back) = &self.from_backend {
            let from_backend = Tuple::from(back);
            line.addresses[1] = from_backend.addresses;
            line.ports[1] = from_backend.ports;
            let to = from_backend.reversed();
            line.ip_delta = Delta::between_in_packets(from_client.addresses, to.addresses);
            let ports = Delta::between_in_packets(from_client.ports.into(), to.ports.into());
            line.l4_delta = line.ip_delta.and(ports);
        }
        line
    }
}
