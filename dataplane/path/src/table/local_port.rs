//! Local ports for full-NAT: which (local address, local port) a new conn may get.
//!
//! A local port may serve one conn towards each backend at a time, so a backend has all of them to
//! itself. The candidates of a worker are numbered; which of them are taken towards a backend is the
//! matter of its [`PortSpace`](super::port_space::PortSpace).
//!
//! A worker only takes ports by which return packets lead to it (design, invariant 2): those to
//! whose queue the NIC's RSS hash of the return flow leads, or those congruent to its number modulo
//! the workers.

use std::sync::Arc;

use super::spread::{FIRST_PORT, Spread};
use super::toeplitz::RssFamily;
use crate::family::V4;
use crate::flow::Endpoint;
use crate::ids::{L4Port, WorkerId};

/// A candidate: a local address and local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// Index of the address in the pool.
    pub address: u32,
    /// L4 port.
    pub port: L4Port,
}

/// What a local port is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Towards<'a, F: RssFamily = V4> {
    /// The backend.
    pub backend: Endpoint<F::Address>,
    /// Local addresses of the pool, in host order.
    pub local_addresses: &'a [F::Address],
}

/// The part of every local address's ports that one worker owns.
#[derive(Clone, Debug)]
pub struct OwnPorts<F: RssFamily = V4> {
    worker: WorkerId,
    per_address: u32,
    scheme: Scheme<F>,
}

#[derive(Clone, Debug)]
enum Scheme<F: RssFamily> {
    /// Every `step`th port from `first` on.
    Modulo { first: u32, step: u32 },
    /// Those whose return flow leads to one of the table's own entries.
    Hash { spread: Arc<Spread<F>>, own_entries: Box<[u16]> },
}

impl<F: RssFamily> OwnPorts<F> {
    /// Those of worker number `worker` of `workers`, by modulo.
    pub fn by_modulo(worker: WorkerId, workers: u16) -> Self {
        let step = u32::from(workers);
        let start = u32::from(FIRST_PORT.0);
        let first = start + (u32::from(worker.0) + step - start % step) % step;
        let per_address = (0xffff - first) / step + 1;
        OwnPorts { worker, per_address, scheme: Scheme::Modulo { first, step } }
    }

    /// Those of worker number `worker`, by the hash of the return flow.
    pub fn by_hash(worker: WorkerId, spread: Arc<Spread<F>>) -> Self {
        let own_entries = spread.reta().entries_of(worker.0);
        let per_address = own_entries.len() as u32 * spread.groups().per_entry();
        OwnPorts { worker, per_address, scheme: Scheme::Hash { spread, own_entries } }
    }

    /// Whose they are.
    #[inline(always)]
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// How many conns towards one backend this worker can have with so many local addresses.
    pub fn capacity(&self, addresses: usize) -> u32 {
        self.per_address.saturating_mul(addresses as u32)
    }

    /// What the backend contributes to the hash of its return flows.
    #[inline(always)]
    pub(super) fn backend_share(&self, towards: &Towards<'_, F>) -> u32 {
        match &self.scheme {
            Scheme::Modulo { .. } => 0,
            Scheme::Hash { spread, .. } => {
                let hash = spread.toeplitz();
                hash.src_address(towards.backend.address) ^ hash.src_port(towards.backend.port)
            }
        }
    }

    /// Candidate number `number`, below the capacity; neighbours in number use different addresses,
    /// so that all are used equally.
    #[inline(always)]
    pub(super) fn candidate(
        &self,
        number: u32,
        towards: &Towards<'_, F>,
        backend_share: u32,
    ) -> LocalPort {
        let addresses = towards.local_addresses.len() as u32;
        let (nth, address) = (number / addresses, number % addresses);
        let port = match &self.scheme {
            Scheme::Modulo { first, step } => L4Port((first + nth * step) as u16),
            Scheme::Hash { spread, own_entries } => {
                let local = towards.local_addresses[address as usize];
                let base = backend_share ^ spread.toeplitz().dst_address(local);
                let own = own_entries.len() as u32;
                let wanted = u32::from(own_entries[(nth % own) as usize]);
                spread.groups().port(spread.reta().entry(wanted ^ base), nth / own)
            }
        };
        LocalPort { address, port }
    }

    /// The number of a candidate; `None` when this worker does not own the port.
    pub(super) fn number(&self, local: LocalPort, towards: &Towards<'_, F>) -> Option<u32> {
        let nth = match &self.scheme {
            Scheme::Modulo { first, step } => {
                let above = u32::from(local.port.0).checked_sub(*first)?;
                above.is_multiple_of(*step).then_some(above / step)?
            }
            Scheme::Hash { spread, own_entries } => {
                let (hash, reta) = (spread.toeplitz(), spread.reta());
                let address = *towards.local_addresses.get(local.address as usize)?;
                let base = self.backend_share(towards) ^ hash.dst_address(address);
                let entry = reta.entry(hash.dst_port(local.port));
                let own = own_entries.binary_search(&(reta.entry(entry ^ base) as u16)).ok()?;
                let step = spread.groups().nth(entry, local.port)?;
                step * own_entries.len() as u32 + own as u32
            }
        };
        Some(nth * towards.local_addresses.len() as u32 + local.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::V6;
    use crate::flow::{Flow, FlowBytes};
    use crate::table::toeplitz::tests::{real_keys, soft_rss};
    use crate::table::toeplitz::{Reta, RssKey};
    use crate::testkit::Random;
    use std::collections::{HashMap, HashSet};

    const ONE: Towards = Towards {
        backend: Endpoint { address: 0x0a00_0101, port: L4Port(80), protocol: 6 },
        local_addresses: &[1],
    };

    #[test]
    fn workers_share_all_ports_and_nobody_owns_one_twice() {
        for workers in 1..=7 {
            let mut seen = HashSet::new();
            for worker in 0..workers {
                let ports = OwnPorts::by_modulo(WorkerId(worker), workers);
                for number in 0..ports.capacity(1) {
                    let local = ports.candidate(number, &ONE, 0);
                    let port = local.port;
                    assert_eq!(port.0 % workers, worker);
                    assert_eq!(ports.number(local, &ONE), Some(number));
                    let other = LocalPort { port: L4Port(port.0 ^ 1), ..local };
                    assert_eq!(ports.number(other, &ONE).is_none(), workers > 1, "{other:?}");
                    assert!(port >= FIRST_PORT && seen.insert(port));
                }
            }
            assert_eq!(seen.len(), 65_536 - usize::from(FIRST_PORT.0));
        }
    }

    /// All that one worker can get towards a backend, in order, each checked against DPDK's hash.
    fn all_by_hash(
        key: &[u8],
        reta: &[u16],
        worker: WorkerId,
        ports: &OwnPorts,
        towards: &Towards,
        most: u32,
    ) -> Vec<LocalPort> {
        let share = ports.backend_share(towards);
        let locals = (0..most.min(ports.capacity(towards.local_addresses.len()))).map(|number| {
            let local = ports.candidate(number, towards, share);
            assert_eq!(ports.number(local, towards), Some(number), "{local:?}");
            local
        });
        locals
            .inspect(|local| {
                let address = towards.local_addresses[local.address as usize];
                let Endpoint { address: backend, port, .. } = towards.backend;
                let l4 = u32::from(port.0) << 16 | u32::from(local.port.0);
                let hash = soft_rss(&[backend, address, l4], key);
                assert_eq!(reta[hash as usize % reta.len()], worker.0, "{local:?}");
                assert!(local.port >= FIRST_PORT);
            })
            .collect()
    }

    #[test]
    fn every_pick_leads_to_the_own_queue() {
        let mut random = Random::from_env();
        for (name, key) in real_keys() {
            for (size, workers) in [64, 128, 256, 512].into_iter().zip([1, 3, 8, 16, 5, 2]) {
                let reta = Reta::even(size, workers);
                let spread = Arc::new(Spread::new(&key, &reta, workers).expect(name));
                let locals: Vec<u32> = (0..4).map(|_| random.next_u64() as u32).collect();
                for worker in 0..workers {
                    let ports = OwnPorts::by_hash(WorkerId(worker), Arc::clone(&spread));
                    let towards = Towards {
                        backend: Endpoint {
                            address: random.next_u64() as u32,
                            port: L4Port(random.next_u64() as u16),
                            protocol: 6,
                        },
                        local_addresses: &locals,
                    };
                    let got =
                        all_by_hash(key.bytes(), &reta, WorkerId(worker), &ports, &towards, 3_000);
                    let mut uses = HashMap::new();
                    got.iter().for_each(|local| *uses.entry(local.address).or_insert(0) += 1);
                    let (least, most) = (uses.values().min(), uses.values().max());
                    assert!(most.unwrap() - least.unwrap() <= 1, "{name}: {uses:?}");
                    let distinct: HashSet<_> = got.iter().map(|l| (l.address, l.port)).collect();
                    assert_eq!(distinct.len(), got.len(), "{name}");
                }
            }
        }
    }

    #[test]
    fn workers_share_all_ports_by_hash_too() {
        for (name, key) in real_keys() {
            for (size, workers) in [(64, 16), (128, 3), (512, 8)] {
                let reta = Reta::even(size, workers);
                let spread = Arc::new(Spread::new(&key, &reta, workers).expect(name));
                let mut seen = HashSet::new();
                for worker in 0..workers {
                    let ports = OwnPorts::by_hash(WorkerId(worker), Arc::clone(&spread));
                    let got =
                        all_by_hash(key.bytes(), &reta, WorkerId(worker), &ports, &ONE, u32::MAX);
                    assert_eq!(got.len() as u32, ports.capacity(1));
                    assert!(got.iter().all(|local| seen.insert(local.port)), "{name}");
                }
                let all = 65_536 - usize::from(FIRST_PORT.0);
                // A foreign key may leave some of them out.
                let least = if name.starts_with("ours") { all } else { all * 15 / 16 };
                assert!((least..=all).contains(&seen.len()), "{name} {size}: {}", seen.len());
                assert!(spread.groups().bytes() <= 2_304, "{}", spread.groups().bytes());
            }
        }
    }

    /// Each pick of each worker, checked against the hash as it is defined, over all 36 bytes.
    #[test]
    fn ports_of_ipv6_lead_to_the_own_queue_too() {
        let (site, key) = (0xfd00 << 112, RssKey::generate(5));
        let reta = Reta::even(128, 3);
        let spread = Arc::new(Spread::<V6>::new(&key, &reta, 3).unwrap());
        let backend = Endpoint { address: site | 7, port: L4Port(443), protocol: 6 };
        let towards = Towards::<V6> { backend, local_addresses: &[site | 1 << 64, site | 9] };
        let mut seen = HashSet::new();
        for worker in WorkerId::first(3) {
            let ports = OwnPorts::<V6>::by_hash(worker, Arc::clone(&spread));
            let share = ports.backend_share(&towards);
            for number in 0..ports.capacity(2) {
                let local = ports.candidate(number, &towards, share);
                assert_eq!(ports.number(local, &towards), Some(number), "{local:?}");
                let flow = Flow {
                    src: backend.address,
                    dst: towards.local_addresses[local.address as usize],
                    src_port: backend.port,
                    dst_port: local.port,
                    protocol: backend.protocol,
                };
                assert_eq!(spread.queue(&FlowBytes::from(&flow)), worker.0, "{local:?}");
                let l4 = u32::from(flow.src_port.0) << 16 | u32::from(flow.dst_port.0);
                let words = [flow.src, flow.dst].into_iter();
                let words = words.flat_map(|a| [96, 64, 32, 0].map(|shift| (a >> shift) as u32));
                let hash = soft_rss(&words.chain([l4]).collect::<Vec<_>>(), key.bytes());
                assert_eq!(reta[hash as usize % reta.len()], worker.0, "{local:?}");
                assert!(seen.insert((local.address, local.port)), "{local:?}");
            }
        }
        assert_eq!(seen.len(), 2 * (65_536 - usize::from(FIRST_PORT.0)), "each port, once");
    }

    #[test]
    fn uneven_tables_are_followed_too() {
        let mut random = Random::from_env();
        let (_, key) = &real_keys()[2];
        let reta: Vec<u16> = (0..128).map(|_| [0, 0, 0, 1, 2][random.below(5)]).collect();
        let spread = Arc::new(Spread::new(key, &reta, 3).unwrap());
        let capacities: u32 = (0..3)
            .map(|worker| {
                let ports = OwnPorts::by_hash(WorkerId(worker), Arc::clone(&spread));
                all_by_hash(key.bytes(), &reta, WorkerId(worker), &ports, &ONE, u32::MAX);
                ports.capacity(1)
            })
            .sum();
        assert_eq!(capacities, 128 * spread.groups().per_entry());
    }
}
