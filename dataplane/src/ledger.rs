//! Adds the workers' counters up per service and backend, for as long as each exists.
//!
//! Workers count per slot and never reset. The ledger notes where a slot's counters stood when it
//! got a new owner, and keeps for each service what its former backends had.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_api::stats::{BackendStats, ServiceStats, Traffic};
use sluice_api::{DropReason, Snapshot};

use crate::counters::WorkerCounters;
use crate::slots::{Freed, Slots};

/// The ledger; the main thread owns it.
pub struct Ledger {
    workers: Vec<Arc<WorkerCounters>>,
    /// What the main thread drops: it has no services.
    main: Arc<WorkerCounters>,
    /// What each backend slot's counters stood at when its owner got it.
    base: HashMap<u32, Traffic>,
    /// Traffic of a service slot's backends that are gone.
    gone: HashMap<u16, Traffic>,
}

fn minus(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        packets_in: a.packets_in.saturating_sub(b.packets_in),
        bytes_in: a.bytes_in.saturating_sub(b.bytes_in),
        packets_out: a.packets_out.saturating_sub(b.packets_out),
        bytes_out: a.bytes_out.saturating_sub(b.bytes_out),
        conns_created: a.conns_created.saturating_sub(b.conns_created),
        conns: a.conns,
    }
}

impl Ledger {
    /// A ledger over these workers and the main thread.
    pub fn new(workers: Vec<Arc<WorkerCounters>>, main: Arc<WorkerCounters>) -> Self {
        Ledger { workers, main, base: HashMap::new(), gone: HashMap::new() }
    }

    fn raw(&self, slot: u32) -> Traffic {
        let mut sum = Traffic::default();
        self.workers.iter().for_each(|w| sum += w.backend(slot).read());
        sum
    }

    /// Traffic of the owner of a backend slot.
    pub fn backend(&self, slot: u32) -> Traffic {
        minus(self.raw(slot), self.base.get(&slot).copied().unwrap_or_default())
    }

    /// Conns on a backend slot, over all workers.
    pub fn conns(&self, slot: u32) -> u64 {
        self.workers.iter().map(|w| w.backend(slot).conns.get()).sum()
    }

    /// Free the slots that nothing refers to any more, and remember what they counted.
    /// `released` hears of each.
    pub fn reclaim(&mut self, slots: &mut Slots, mut released: impl FnMut(Freed)) {
        let mut freed = Vec::new();
        slots.reclaim(|slot| self.conns(slot), |f| freed.push(f));
        for freed in freed {
            released(freed);
            match freed {
                Freed::Backend { service, slot } => {
                    let traffic = self.backend(slot);
                    *self.gone.entry(service).or_default() += traffic;
                    self.base.insert(slot, self.raw(slot));
                }
                Freed::Service { slot } => {
                    self.gone.remove(&slot);
                }
            }
        }
    }

    /// Statistics of every service in the snapshot, in its order.
    pub fn services(&self, snapshot: &Snapshot, slots: &Slots) -> Vec<ServiceStats> {
        let mut total: HashMap<u16, Traffic> = self.gone.clone();
        for (service, slot) in slots.all_backends() {
            *total.entry(service).or_default() += self.backend(slot);
        }
        snapshot
            .services
            .iter()
            .map(|service| {
                let slot = slots.service(&service.name).unwrap_or_default();
                let backends = service
                    .backends
                    .iter()
                    .map(|b| BackendStats {
                        address: b.address,
                        port: b.port,
                        traffic: slots
                            .backend(&(slot, b.id()))
                            .map(|s| self.backend(s))
                            .unwrap_or_default(),
                        max_conns: b.max_conns,
                    })
                    .collect();
                ServiceStats {
                    name: service.name.clone(),
                    vip: service.vip,
                    port: service.port,
                    protocol: service.protocol,
                    traffic: total.get(&slot).copied().unwrap_or_default(),
                    max_conns: service.max_conns,
                    backends,
                }
            })
            .collect()
    }

    /// Dropped packets by reason, over all workers and the main thread.
    pub fn drops(&self) -> std::collections::BTreeMap<String, u64> {
        drops(self.workers.iter().chain([&self.main]).map(Arc::as_ref))
    }
}

/// Dropped packets by reason's name; reasons that never happened are absent.
pub fn drops<'a>(
    workers: impl Iterator<Item = &'a WorkerCounters> + Clone,
) -> std::collections::BTreeMap<String, u64> {
    DropReason::ALL
        .iter()
        .map(|r| (r.name().to_owned(), workers.clone().map(|w| w.drop_count(*r).get()).sum()))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;
    use sluice_api::{Mode, Protocol};

    /// One service with these of the backends 10.0.1.1, 10.0.1.2, …
    fn snapshot(backends: &[usize]) -> Snapshot {
        let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::Dr, 9);
        service.backends = backends.iter().map(|i| service.backends[*i].clone()).collect();
        Snapshot { generation: 1, services: vec![service], ..Snapshot::default() }
    }

    #[test]
    fn what_the_main_thread_drops_counts_too() {
        let threads: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(0, 0, 0))).collect();
        let ledger = Ledger::new(vec![threads[0].clone()], threads[1].clone());
        threads.iter().for_each(|t| t.drop_count(DropReason::ExceptionRingFull).add(2));
        assert_eq!(ledger.drops(), [("exception_ring_full".to_owned(), 4)].into());
    }

    #[test]
    fn a_service_keeps_what_its_former_backends_had_and_a_new_one_starts_at_zero() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(0, 100, 0))).collect();
        let mut ledger = Ledger::new(workers.clone(), Arc::new(WorkerCounters::new(0, 0, 0)));
        let mut slots = Slots::new(1, 1);
        let first = snapshot(&[1]);
        slots.assign(&first).unwrap();
        let (_, slot) = slots.all_backends().next().unwrap();
        workers.iter().for_each(|w| w.backend(slot).forwarded[0].packets.add(5));
        assert_eq!(ledger.services(&first, &slots)[0].backends[0].traffic.packets_in, 10);

        let second = snapshot(&[2]);
        slots.assign(&second).unwrap();
        ledger.reclaim(&mut slots, |_| {});
        // The slot's next owner.
        let third = snapshot(&[2, 3]);
        slots.assign(&third).unwrap();
        let stats = &ledger.services(&third, &slots)[0];
        assert_eq!(stats.traffic.packets_in, 10);
        assert!(stats.backends.iter().all(|b| b.traffic.packets_in == 0));
    }
}
