//! Which worker owns a flow: the one question that all workers and all ports answer alike.
//!
//! Where ports spread by RSS, the owner is the queue to which that leads, by one key and one table
//! for the whole process, whichever port a packet comes in by and whether or not its NIC has done
//! as it says. So a NIC that is not to be trusted costs time, never a conn.

use std::sync::Arc;

use super::local_port::{OwnPorts, PortGroups};
use super::toeplitz::{IPV4_TUPLE_BYTES, Reta, RssKey, Toeplitz};
use crate::flow::{FlowHasher, Tuple};

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

/// How a NIC spreads flows over its queues.
#[derive(Debug)]
pub struct Spread {
    toeplitz: Toeplitz<IPV4_TUPLE_BYTES>,
    reta: Reta,
    groups: PortGroups,
}

/// Why a key and a table cannot tell workers apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum UnusableSpread {
    #[error("its RSS key is unknown: the driver answers {0} bytes, all zero or too few")]
    Key(usize),
    #[error(
        "its RSS table has {0} entries: expected a power of two up to {most}",
        most = Reta::MOST
    )]
    TableSize(usize),
    #[error("its RSS table leads nothing to queue {0}")]
    IdleQueue(u16),
    #[error("its RSS table leads to queue {0}, which no worker polls")]
    ForeignQueue(u16),
    #[error("its RSS key does not tell local ports apart")]
    WeakKey,
}

impl Spread {
    /// The spread by a key and a table over the queues of so many workers.
    ///
    /// # Errors
    /// [`UnusableSpread`] when not every worker can have local ports that lead to it.
    pub fn new(key: &RssKey, reta: &[u16], workers: u16) -> Result<Spread, UnusableSpread> {
        let toeplitz = Toeplitz::new(key).ok_or(UnusableSpread::Key(key.bytes().len()))?;
        let size = reta.len();
        if let Some(queue) = reta.iter().find(|queue| **queue >= workers) {
            return Err(UnusableSpread::ForeignQueue(*queue));
        }
        let reta = Reta::new(reta).ok_or(UnusableSpread::TableSize(size))?;
        if let Some(queue) = (0..workers).find(|queue| reta.entries_of(*queue).is_empty()) {
            return Err(UnusableSpread::IdleQueue(queue));
        }
        let groups = PortGroups::new(&toeplitz, &reta).ok_or(UnusableSpread::WeakKey)?;
        Ok(Spread { toeplitz, reta, groups })
    }

    /// The queue, and so the worker, to which a flow leads.
    #[inline(always)]
    pub fn queue(&self, tuple: &Tuple) -> u16 {
        let mut bytes = [0; IPV4_TUPLE_BYTES];
        bytes[..8].copy_from_slice(&tuple.addresses.to_ne_bytes());
        bytes[8..].copy_from_slice(&tuple.ports.to_ne_bytes());
        self.reta.queue(self.toeplitz.hash(&bytes))
    }

    /// The hash.
    pub fn toeplitz(&self) -> &Toeplitz<IPV4_TUPLE_BYTES> {
        &self.toeplitz
    }

    /// The table.
    pub fn reta(&self) -> &Reta {
        &self.reta
    }

    /// Local ports by their share of the hash.
    pub fn groups(&self) -> &PortGroups {
        &self.groups
    }
}

impl Owners {
    /// The owner of a client's flow, of which `hash` is the flow hash.
    #[inline(always)]
    pub fn of_client(&self, tuple: &Tuple, hash: u64) -> u16 {
        match self {
            Owners::Arithmetic { workers } => FlowHasher::owner(hash, *workers),
            Owners::Rss(spread) => spread.queue(tuple),
        }
    }

    /// The owner of a backend's flow to a local port.
    #[inline(always)]
    pub fn of_backend(&self, tuple: &Tuple) -> u16 {
        match self {
            Owners::Arithmetic { workers } => {
                let ports = tuple.ports.to_ne_bytes();
                u16::from_be_bytes([ports[2], ports[3]]) % workers
            }
            Owners::Rss(spread) => spread.queue(tuple),
        }
    }

    /// The local ports of each of so many workers.
    pub fn all_own_ports(&self, workers: u16) -> Arc<[OwnPorts]> {
        (0..workers).map(|worker| self.own_ports(worker)).collect()
    }

    /// The local ports of a worker.
    pub fn own_ports(&self, worker: u16) -> OwnPorts {
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
    use crate::table::toeplitz::tests::real_keys;

    #[test]
    fn what_cannot_spread_over_all_workers_is_refused() {
        let (_, key) = &real_keys()[0];
        let even = |len, queues| Reta::even(len, queues);
        assert!(Spread::new(key, &even(128, 4), 4).is_ok());
        let error = |key: &RssKey, reta: &[u16], workers| Spread::new(key, reta, workers).err();
        let zero = RssKey::new(&[0; 40]);
        assert_eq!(error(&zero, &even(128, 4), 4), Some(UnusableSpread::Key(40)));
        assert_eq!(error(key, &even(100, 4), 4), Some(UnusableSpread::TableSize(100)));
        assert_eq!(error(key, &[], 4), Some(UnusableSpread::TableSize(0)));
        assert_eq!(error(key, &even(128, 4), 5), Some(UnusableSpread::IdleQueue(4)));
        assert_eq!(error(key, &even(128, 4), 3), Some(UnusableSpread::ForeignQueue(3)));
        // All bits of a port have the same share of the hash.
        let same = RssKey::new(&[0xff; 40]);
        assert_eq!(error(&same, &even(128, 4), 4), Some(UnusableSpread::WeakKey));
    }

    #[test]
    fn arithmetic_owners_are_as_they_were() {
        let owners = Owners::Arithmetic { workers: 3 };
        let key = FlowKey { src: 1, dst: 2, src_port: 3, dst_port: 5_000, protocol: 6 };
        assert_eq!(owners.of_backend(&Tuple::from(&key)), 5_000 % 3);
        assert_eq!(owners.of_client(&Tuple::from(&key), 0xffff << 32), 2);
    }
}
