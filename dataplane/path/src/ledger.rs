//! Adds the workers' counters up per service and backend, for as long as each exists.
//!
//! Workers count per slot and never reset. The ledger notes where a slot's counters stood when it
//! got a new owner, and keeps for each service what its former backends had.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_api::DropReason;
use sluice_api::stats::{BackendStats, ServiceStats, Traffic};

use crate::counters::WorkerCounters;
use crate::ids::{BackendSlot, ServiceSlot};
use crate::slots::{Freed, Slots};
use crate::snapshot::Compiled;

/// The ledger; the main thread owns it.
pub struct Ledger {
    /// What the main thread drops: it has no services.
    main: Arc<WorkerCounters>,
    /// Copied when it changes while somebody still reads it.
    books: Arc<Books>,
}

/// Everything that is needed to add up: for whoever has time for it.
#[derive(Clone)]
pub struct Books {
    workers: Vec<Arc<WorkerCounters>>,
    /// What each backend slot's counters stood at when its owner got it.
    base: HashMap<BackendSlot, Traffic>,
    /// Traffic of a service slot's backends that are gone.
    gone: HashMap<ServiceSlot, Traffic>,
    /// Backend slots that are in no snapshot any more and not free yet, with their service slots.
    retired: HashMap<BackendSlot, ServiceSlot>,
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

/// Conns on a backend slot, over all workers.
pub fn conns(workers: &[Arc<WorkerCounters>], slot: BackendSlot) -> u64 {
    workers.iter().map(|w| w.backend(slot).conns.get()).sum()
}

/// Conns that refer to a backend slot, over all workers: those that rest are among them.
pub fn references(workers: &[Arc<WorkerCounters>], slot: BackendSlot) -> u64 {
    let resting: u64 = workers.iter().map(|w| w.backend(slot).resting.get()).sum();
    conns(workers, slot) + resting
}

impl Books {
    fn raw(&self, slot: BackendSlot) -> Traffic {
        let mut sum = Traffic::default();
        self.workers.iter().for_each(|w| sum += w.backend(slot).read());
        sum
    }

    /// Traffic of the owner of a backend slot.
    fn backend(&self, slot: BackendSlot) -> Traffic {
        minus(self.raw(slot), self.base.get(&slot).copied().unwrap_or_default())
    }

    /// Statistics of every service in a snapshot, in its order.
    pub fn services(&self, compiled: &Compiled) -> Vec<ServiceStats> {
        let mut gone = self.gone.clone();
        for (slot, service) in &self.retired {
            *gone.entry(*service).or_default() += self.backend(*slot);
        }
        let services = compiled.services().iter();
        services
            .map(|service| {
                let source = service.source();
                let mut traffic = gone.get(&service.slot).copied().unwrap_or_default();
                let backends = source.backends.iter().zip(&service.backends);
                let backends = backends
                    .map(|(backend, compiled)| {
                        let stats = BackendStats {
                            address: backend.address,
                            port: backend.port,
                            traffic: self.backend(compiled.slot),
                            max_conns: backend.max_conns,
                        };
                        traffic += stats.traffic;
                        stats
                    })
                    .collect();
                ServiceStats {
                    name: source.name.clone(),
                    vip: source.vip,
                    port: source.port,
                    protocol: source.protocol,
                    traffic,
                    max_conns: source.max_conns,
                    backends,
                }
            })
            .collect()
    }
}

impl Ledger {
    /// A ledger over these workers and the main thread.
    pub fn new(workers: Vec<Arc<WorkerCounters>>, main: Arc<WorkerCounters>) -> Self {
        let (base, gone, retired) = (HashMap::new(), HashMap::new(), HashMap::new());
        Ledger { main, books: Arc::new(Books { workers, base, gone, retired }) }
    }

    /// The books as they are now.
    pub fn books(&self) -> &Arc<Books> {
        &self.books
    }

    /// Conns on a backend slot, over all workers.
    pub fn conns(&self, slot: BackendSlot) -> u64 {
        conns(&self.books.workers, slot)
    }

    /// Go by another snapshot.
    pub fn adopt(&mut self, compiled: &Compiled) {
        let retired = compiled.retired_backends().iter();
        let retired: HashMap<BackendSlot, ServiceSlot> =
            retired.map(|(service, slot)| (*slot, *service)).collect();
        if retired != self.books.retired {
            Arc::make_mut(&mut self.books).retired = retired;
        }
    }

    /// A slot is free: remember what it counted.
    pub fn release(&mut self, freed: Freed) {
        let books = Arc::make_mut(&mut self.books);
        match freed {
            Freed::Backend { service, slot } => {
                let (traffic, raw) = (books.backend(slot), books.raw(slot));
                *books.gone.entry(service).or_default() += traffic;
                books.base.insert(slot, raw);
                books.retired.remove(&slot);
            }
            Freed::Service { slot } => {
                books.gone.remove(&slot);
            }
        }
    }

    /// Free the slots that nothing refers to any more. `released` hears of each.
    pub fn reclaim(&mut self, slots: &mut Slots, mut released: impl FnMut(Freed)) {
        let mut freed = Vec::new();
        slots.reclaim(|slot| references(&self.books.workers, slot), |f| freed.push(f));
        for freed in freed {
            released(freed);
            self.release(freed);
        }
    }

    /// Dropped packets by reason, over all workers and the main thread.
    pub fn drops(&self) -> std::collections::BTreeMap<String, u64> {
        drops(self.books.workers.iter().chain([&self.main]).map(Arc::as_ref))
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
    use sluice_api::{Mode, Protocol, Snapshot};

    /// One service with these of the backends 10.0.1.1, 10.0.1.2, …
    fn snapshot(backends: &[usize]) -> Snapshot {
        let mut service = testkit::service("web", 80, Protocol::Tcp, Mode::Dr, 9);
        service.backends = backends.iter().map(|i| service.backends[*i].clone()).collect();
        Snapshot { generation: 1, services: vec![service.into()], ..Snapshot::default() }
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
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(66, 100, 0))).collect();
        let mut ledger = Ledger::new(workers.clone(), Arc::new(WorkerCounters::new(0, 0, 0)));
        let mut slots = Slots::new(1, 1);
        let mut compiled = testkit::nothing_compiled();
        let mut apply = |ledger: &mut Ledger, slots: &mut Slots, backends: &[usize]| {
            let mut snapshot = snapshot(backends);
            snapshot.generation = compiled.generation + 1;
            slots.assign(&snapshot).unwrap();
            compiled = Compiled::new(&snapshot, slots, &[], &compiled);
            ledger.adopt(&compiled);
            ledger.books().services(&compiled).remove(0)
        };
        apply(&mut ledger, &mut slots, &[1]);
        let (_, slot) = slots.all_backends().next().unwrap();
        let count = |packets| {
            workers.iter().for_each(|w| w.backend(slot).forwarded[0].packets.add(packets));
        };
        count(5);
        let reader = Arc::clone(ledger.books());
        assert_eq!(apply(&mut ledger, &mut slots, &[1]).backends[0].traffic.packets_in, 10);

        // Its last conns count for the service while they run.
        let stats = apply(&mut ledger, &mut slots, &[2]);
        count(1);
        assert_eq!((stats.traffic.packets_in, stats.backends[0].traffic.packets_in), (10, 0));
        assert_eq!(apply(&mut ledger, &mut slots, &[2]).traffic.packets_in, 12);
        ledger.reclaim(&mut slots, |_| {});
        // The slot's next owner.
        let stats = apply(&mut ledger, &mut slots, &[2, 3]);
        assert_eq!(stats.traffic.packets_in, 12);
        assert!(stats.backends.iter().all(|b| b.traffic.packets_in == 0));
        assert!(
            reader.retired.is_empty() && reader.base.is_empty(),
            "who reads them is not disturbed"
        );
    }

    /// A conn that rests counts nowhere, but its line names the slot: a new owner would get it.
    #[test]
    fn a_slot_is_free_when_no_conn_refers_to_it_any_more() {
        let workers: Vec<_> = (0..2).map(|_| Arc::new(WorkerCounters::new(66, 100, 0))).collect();
        let mut ledger = Ledger::new(workers.clone(), Arc::new(WorkerCounters::new(0, 0, 0)));
        let mut slots = Slots::new(1, 3);
        slots.assign(&snapshot(&[1])).unwrap();
        let (_, slot) = slots.all_backends().next().unwrap();
        slots.assign(&snapshot(&[2])).unwrap();
        let mut released = |ledger: &mut Ledger| {
            let mut count = 0;
            ledger.reclaim(&mut slots, |_| count += 1);
            count
        };
        workers[0].backend(slot).conns.add(1);
        workers[1].backend(slot).resting.add(1);
        assert_eq!(released(&mut ledger), 0);
        workers[0].backend(slot).conns.subtract(1);
        assert_eq!((ledger.conns(slot), released(&mut ledger)), (0, 0), "one rests");
        workers[1].backend(slot).resting.subtract(1);
        assert_eq!(released(&mut ledger), 1);
    }
}
