//! A wide conn: addresses of either family on either side, and a treatment of its packets, in two cache
//! lines.
//!
//! It stands in the same index and the same wheel as the plain ones.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

use super::head::{HEAD_BYTES, Head, NewHead};
use super::line::write_whole;
use super::state::{ConnState, StateTimeouts};
use super::{ConnRef, ConnTable, InsertError};
use crate::flow::WideTuple;
use crate::ids::{BackendSlot, Direction, InterfaceId, L4Port, ServiceSlot};
use crate::time::Millis;
use crate::treatment::Treatment;

/// What is fixed when a wide conn is made.
#[derive(Clone, Copy, Debug)]
pub struct NewWideConn {
    /// The flow from the client: client, VIP, both L4 ports, protocol.
    pub from_client: WideTuple,
    /// The flow from the backend: backend, local address, both L4 ports. `None` when it does not pass
    /// here.
    pub from_backend: Option<WideTuple>,
    /// The backend's address.
    pub backend_address: IpAddr,
    /// How packets leave: what is to be done to them has this number.
    pub treatment: u8,
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

/// What treatments may keep in a line, in bytes.
const ROOM: usize = 19;

/// A wide conn: two cache lines.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct WideConn {
    /// By direction: source and destination of packets as they arrive, addresses of IPv4 mapped.
    addresses: [[u64; 4]; 2],
    /// Their L4 ports, likewise.
    ports: [u32; 2],
    treatment: u8,
    /// The treatment's own: a shift of sequence numbers, what it does to checksums.
    room: [u8; ROOM],
    head: Head,
}

const _: () = assert!(size_of::<WideConn>() == 128, "a wide conn is two cache lines");
const _: () = assert!(std::mem::offset_of!(WideConn, head) == 128 - HEAD_BYTES);
const _: () = assert!(align_of::<WideConn>() == align_of::<super::Conn>());
const _: () = assert!(ROOM >= 12, "a shift of 32 bits in each direction, and two checksums");

impl Deref for WideConn {
    type Target = Head;

    #[inline(always)]
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for WideConn {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

impl WideConn {
    const FREE: WideConn = WideConn {
        addresses: [[0; 4]; 2],
        ports: [0; 2],
        treatment: 0,
        room: [0; ROOM],
        head: Head::FREE,
    };

    fn tuple(&self, direction: Direction) -> WideTuple {
        WideTuple {
            addresses: self.addresses[direction.index()],
            ports: self.ports[direction.index()],
            protocol: self.protocol(),
        }
    }

    /// The flow from the client.
    pub fn from_client(&self) -> WideTuple {
        self.tuple(Direction::FromClient)
    }

    /// The flow from the backend, when it passes here.
    pub fn from_backend(&self) -> Option<WideTuple> {
        self.sees_replies().then(|| self.tuple(Direction::FromBackend))
    }

    /// How its packets leave.
    pub fn treatment(&self) -> u8 {
        self.treatment
    }

    /// Whether a packet is of this conn, which is there, and of the direction that `conn` says.
    pub fn is_flow(&self, tuple: &WideTuple, conn: ConnRef) -> bool {
        self.tuple(conn.direction()) == *tuple
    }
}

impl NewWideConn {
    fn line(&self, now: Millis) -> WideConn {
        let back = match &self.from_backend {
            Some(back) => *back,
            None => {
                let none = (self.backend_address, L4Port::ZERO);
                WideTuple::between(none, none, 0)
            }
        };
        let head = NewHead {
            backend_slot: self.backend_slot,
            service_slot: self.service_slot,
            protocol: self.from_client.protocol,
            state: self.state,
            interface: self.interface,
            // Its own number says more.
            treatment: match self.from_backend {
                Some(_) => Treatment::FullNat,
                None => Treatment::Dr,
            },
            seq: self.seq,
        };
        WideConn {
            addresses: [self.from_client.addresses, back.addresses],
            ports: [self.from_client.ports, back.ports],
            treatment: self.treatment,
            head: Head::new(&head, now),
            ..WideConn::FREE
        }
    }
}

impl ConnTable {
    /// Make a wide conn, both directions at once; `hash` is that of the client's flow.
    ///
    /// # Errors
    /// Nothing is changed when there is no room, or when the return flow is taken.
    pub fn insert_wide(
        &mut self,
        new: &NewWideConn,
        hash: u64,
        now: Millis,
        timeouts: &[StateTimeouts],
    ) -> Result<ConnRef, InsertError> {
        let Some(place) = self.free_wide.next() else { return Err(InsertError::Full) };
        let back_hash = new.from_backend.as_ref().map(|back| self.hasher.hash_wide(back));
        if let (Some(back), Some(hash)) = (&new.from_backend, back_hash)
            && !self.find_wide(hash, back).is_none()
        {
            return Err(InsertError::ReturnFlowTaken);
        }
        let number = self.lines.number_at(place);
        if !self.enter(number, hash, back_hash) {
            return Err(InsertError::Full);
        }
        self.free_wide.take();
        let line = new.line(now);
        let memory: &mut [u64; 16] = transmute_mut!(self.lines.wide_mut(place));
        write_whole::<16>(transmute_ref!(&line), |at, word| memory[at] = word);
        let timeout = timeouts[new.service_slot.index()][new.state as usize];
        self.wheel.arm(&mut self.lines, place, now.wrapping_add(timeout));
        Ok(ConnRef::from_client(number))
    }

    /// The conn of a flow of any family: a wide one, or, when the flow is IPv4, a plain one.
    pub fn find_wide(&self, hash: u64, tuple: &WideTuple) -> ConnRef {
        match tuple.plain() {
            Some(tuple) => self.find(hash, &tuple),
            None => {
                self.index.find(hash, |conn| conn.is_wide() && self.wide(conn).is_flow(tuple, conn))
            }
        }
    }

    /// Wide conns that there can be.
    pub fn wide_capacity(&self) -> usize {
        self.lines.wide_len()
    }

    /// Wide conns that there are.
    pub fn wide_len(&self) -> usize {
        self.wide_capacity() - self.free_wide.len()
    }

    /// The hashes of a wide conn's flows.
    #[cold]
    #[inline(never)]
    pub(super) fn wide_hashes(&self, line: &WideConn) -> [u64; 2] {
        Direction::BOTH.map(|direction| self.hasher.hash_wide(&line.tuple(direction)))
    }

    /// A wide conn's line.
    pub fn wide(&self, conn: ConnRef) -> &WideConn {
        self.lines.wide(self.lines.place(conn))
    }
}
