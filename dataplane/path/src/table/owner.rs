//! Which worker owns a flow: the one question that all workers and all ports answer alike.
//!
//! Where ports spread by RSS, the owner is the queue to which that leads, by one key and one table
//! for the whole process, whichever port a packet comes in by and whether or not its NIC has done
//! as it says. So a NIC that is not to be trusted costs time, never a conn.

use std::sync::Arc;

use super::local_port::OwnPorts;
use super::spread::Spread;
use crate::flow::{FlowHasher, Tuple};
use crate::ids::{L4Port, WorkerId};

/// How the owner of a flow is found.
#[derive(Clone, Debug)]
pub enum Owners {
    /// By arithmetic: from clients by flow hash, from backends by local port.
    Arithmetic {
        /// How many workers there are.
        workers: u16,
    },
    /// As a NIC does it.
    Rss(Arc<Spread>),
}

impl Owners {
    /// The owner of a client's flow, of which `hash` is the flow hash.
    #[inline(always)]
    pub fn of_client(&self, tuple: &Tuple, hash: u64) -> WorkerId {
        match self {
            Owners::Arithmetic { workers } => FlowHasher::owner(hash, *workers),
            Owners::Rss(spread) => WorkerId(spread.queue(tuple)),
        }
    }

    /// The owner of a backend's flow to a local port.
    #[inline(always)]
    pub fn of_backend(&self, tuple: &Tuple) -> WorkerId {
        match self {
            Owners::Arithmetic { workers } => {
                let (_, local) = L4Port::of_pair(tuple.ports);
                WorkerId(local.0 % workers)
            }
            Owners::Rss(spread) => WorkerId(spread.queue(tuple)),
        }
    }

    /// The local ports of each of so many workers.
    pub fn all_own_ports(&self, workers: u16) -> Arc<[OwnPorts]> {
        WorkerId::first(workers).map(|worker| self.own_ports(worker)).collect()
    }

    /// The local ports of a worker.
    pub fn own_ports(&self, worker: WorkerId) -> OwnPorts {
        match self {
            Owners::Arithmetic { workers } => OwnPorts::by_modulo(worker, *workers),
            Owners::Rss(spread) => OwnPorts::by_hash(worker, Arc::clone(spread)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowKey;

    #[test]
    fn arithmetic_owners_are_as_they_were() {
        let owners = Owners::Arithmetic { workers: 3 };
        let key =
            FlowKey { src: 1, dst: 2, src_port: L4Port(3), dst_port: L4Port(5_000), protocol: 6 };
        assert_eq!(owners.of_backend(&Tuple::from(&key)), WorkerId(5_000 % 3));
        assert_eq!(owners.of_client(&Tuple::from(&key), 0xffff << 32), WorkerId(2));
    }
}
