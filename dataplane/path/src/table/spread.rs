//! How a NIC spreads flows over its queues, by the hash of RSS and a table, and which local ports lead
//! to which entry of that.

use super::toeplitz::{Reta, RssFamily, RssKey, Toeplitz};
use crate::family::V4;
use crate::flow::FlowBytes;
use crate::ids::L4Port;

/// First local port: those below are for servers (RFC 6335).
pub const FIRST_PORT: L4Port = L4Port(1_024);

/// Local ports by the table entry to which their share of the RSS hash leads.
///
/// The share is linear: ports whose share leads to entry 0 turn any port, by XOR, into the others of
/// its own entry. So one port of each entry and those of entry 0 say it all, in 1 to 2 KiB.
#[derive(Clone, Debug)]
pub struct PortGroups {
    /// By entry: its lowest port.
    lowest: Box<[L4Port]>,
    /// The ports of entry 0, from [`FIRST_PORT`] on, as what turns a port into another.
    steps: Box<[u16]>,
}

impl PortGroups {
    /// The groups under a hash and a table; `None` when some entry would have no port.
    pub fn new<F: RssFamily>(hash: &Toeplitz<F>, reta: &Reta) -> Option<Self> {
        let mut lowest = vec![None; reta.len()];
        let mut steps = Vec::new();
        for port in (0..=u16::MAX).map(L4Port) {
            let entry = reta.entry(hash.dst_port(port));
            lowest[entry as usize].get_or_insert(port);
            if entry == 0 && port >= FIRST_PORT {
                steps.push(port.0);
            }
        }
        let lowest = lowest.into_iter().collect::<Option<_>>()?;
        (!steps.is_empty()).then(|| PortGroups { lowest, steps: steps.into() })
    }

    /// Ports of each entry. A key of ours leaves none out.
    pub fn per_entry(&self) -> u32 {
        self.steps.len() as u32
    }

    /// Port number `nth` of an entry, never one below [`FIRST_PORT`]: either the lowest port of the
    /// entry has none of the six highest bits, and the result has those of the step; or it has one,
    /// and then no port of the entry is below 1,024.
    #[inline(always)]
    pub fn port(&self, entry: u32, nth: u32) -> L4Port {
        L4Port(self.lowest[entry as usize].0 ^ self.steps[nth as usize])
    }

    /// Which port of its entry a port is, by [`port`](Self::port).
    pub(super) fn nth(&self, entry: u32, port: L4Port) -> Option<u32> {
        let step = port.0 ^ self.lowest[entry as usize].0;
        self.steps.binary_search(&step).ok().map(|nth| nth as u32)
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lowest) + size_of_val(&*self.steps)
    }
}

/// How a NIC spreads flows over its queues.
#[derive(Debug)]
pub struct Spread<F: RssFamily = V4> {
    toeplitz: Toeplitz<F>,
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

impl<F: RssFamily> Spread<F> {
    /// The spread by a key and a table over the queues of so many workers.
    ///
    /// # Errors
    /// [`UnusableSpread`] when not every worker can have local ports that lead to it.
    pub fn new(key: &RssKey, reta: &[u16], workers: u16) -> Result<Self, UnusableSpread> {
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
    pub fn queue(&self, flow: &FlowBytes<F>) -> u16 {
        self.reta.queue(self.toeplitz.hash(&F::tuple(flow)))
    }

    /// The hash.
    pub fn toeplitz(&self) -> &Toeplitz<F> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::toeplitz::tests::real_keys;

    #[test]
    fn what_cannot_spread_over_all_workers_is_refused() {
        let (_, key) = &real_keys()[0];
        let even = |len, queues| Reta::even(len, queues);
        assert!(Spread::<V4>::new(key, &even(128, 4), 4).is_ok());
        let error =
            |key: &RssKey, reta: &[u16], workers| Spread::<V4>::new(key, reta, workers).err();
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
}
