//! What numbers stand for: a type for each kind, so that none is taken for another. They cost nothing.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(FromBytes, IntoBytes, Immutable)]
        #[repr(transparent)]
        pub struct $name(pub $number);

        impl $name {
            /// Its place in a list of all of them.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
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
