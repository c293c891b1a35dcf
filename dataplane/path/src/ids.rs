//! What numbers stand for: a type for each kind, so that none is taken for another. They cost nothing.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(FromBytes, IntoBytes, Immutable)]
        #[repr(transparent)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        number! {
            $(#[$doc])*
            $name($number)
        }

        impl $name {
            /// Its place in a list of all of them.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id! {
    /// A worker, from 0 on.
    WorkerId(u16)
}

impl WorkerId {
    /// The first so many workers.
    pub fn first(workers: u16) -> impl ExactSizeIterator<Item = WorkerId> + Clone {
        (0..workers).map(WorkerId)
    }
}

id! {
    /// A port: a NIC of ours with its queues. What steers packets to workers, counts them and sends them
    /// is by port.
    PortId(u16)
}

id! {
    /// An interface: what has addresses, a MTU, routes and next hops. Verdicts name one.
    InterfaceId(u16)
}

impl InterfaceId {
    /// The one interface that a port has.
    #[inline(always)]
    pub const fn of(port: PortId) -> Self {
        InterfaceId(port.0)
    }

    /// The port that it is on.
    #[inline(always)]
    pub const fn port(self) -> PortId {
        PortId(self.0)
    }
}

id! {
    /// The place of a service in counters, timeouts and schedulers' state.
    ServiceSlot(u16)
}

id! {
    /// The place of a backend of a service in counters and quotas.
    BackendSlot(u32)
}

id! {
    /// The place of a next hop in a worker's table. A conn keeps it with the epoch in which it was that
    /// next hop's, as a [`NextHopRef`](crate::table::neighbour::NextHopRef).
    NextHopSlot(u16)
}

number! {
    /// A port of TCP or UDP, in host order; no NIC's, which is a [`PortId`].
    L4Port(u16)
}

impl L4Port {
    /// That of packets without ports; in TCP and UDP it is reserved (RFC 6335, 6).
    pub const ZERO: L4Port = L4Port(0);

    /// Its bytes as they lie in a packet.
    #[inline(always)]
    pub const fn to_be_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// A source and a destination port as they lie in a header of TCP or UDP, its first four bytes.
    #[inline(always)]
    pub const fn pair(src: L4Port, dst: L4Port) -> u32 {
        ((src.0 as u32) << 16 | dst.0 as u32).to_be()
    }

    /// The source and the destination port of a header.
    #[inline(always)]
    pub const fn of_pair(pair: u32) -> (L4Port, L4Port) {
        let both = u32::from_be(pair);
        (L4Port((both >> 16) as u16), L4Port(both as u16))
    }
}

/// The way that packets of a conn go. What a conn has for each of them stands in arrays of two, in
/// this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    FromClient,
    /// From the backend to the client.
    FromBackend,
}

impl Direction {
    /// Both, in order.
    pub const BOTH: [Direction; 2] = [Direction::FromClient, Direction::FromBackend];

    /// The way back.
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Direction::FromClient => Direction::FromBackend,
            Direction::FromBackend => Direction::FromClient,
        }
    }

    /// Its place in an array of both.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }
}
