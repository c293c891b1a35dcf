//! Several workers without ports, and the part of the main thread that counts over all of them.

use std::sync::Arc;

use sluice_api::Snapshot;

use super::{BACKEND_PORT, CLIENT_PORT, Harness, Out, own_addresses, test_limits};
use crate::burst::Meta;
use crate::frame::Frame;
use crate::ids::{InterfaceId, WorkerId};
use crate::ledger::Ledger;
use crate::slots::{self, Slots};
use crate::snapshot::Compiled;
use crate::tally::Tally;

/// Workers that decide alone, and their tally.
pub struct Team {
    /// The workers, in order.
    pub workers: Vec<Harness>,
    /// Conns over all of them.
    pub tally: Tally,
    /// Slots of services and backends; the workers' own ones are not used.
    pub slots: Slots,
    /// Counters by service and backend.
    pub ledger: Ledger,
    /// What it has published.
    pub compiled: Compiled,
    snapshot: Snapshot,
}

impl Team {
    /// So many workers with room for `conns` each, forwarding by a snapshot.
    pub fn new(snapshot: &Snapshot, conns: u32, workers: u16) -> Self {
        let nothing = Snapshot::default();
        let limits = test_limits();
        let workers: Vec<Harness> = WorkerId::first(workers)
            .map(|w| Harness::worker(&nothing, conns, w, workers))
            .collect();
        let counters: Vec<_> = workers.iter().map(|w| Arc::clone(&w.counters)).collect();
        let views = workers.iter().map(|w| Arc::clone(&w.view)).collect();
        let (services, backends) =
            (slots::service_slots(limits.services), slots::backend_slots(limits.backends));
        let main = Arc::clone(&Harness::new(&nothing, 1_024).counters);
        let mut team = Team {
            tally: Tally::new(views, counters.clone(), services as usize, backends as usize),
            slots: Slots::new(limits.services, limits.backends),
            ledger: Ledger::new(counters, main),
            workers,
            compiled: super::nothing_compiled(),
            snapshot: nothing,
        };
        team.apply(snapshot);
        team
    }

    /// Forward by another snapshot, all workers at once.
    pub fn apply(&mut self, snapshot: &Snapshot) {
        self.publish(snapshot);
        (0..self.workers.len()).for_each(|worker| self.adopt(worker));
    }

    /// Make a snapshot ready; workers go by it once they [adopt](Self::adopt) it.
    pub fn publish(&mut self, snapshot: &Snapshot) {
        super::assert_valid(snapshot);
        let tally = &mut self.tally;
        let adopted = |w: &Harness| w.counters.generation.get() >= self.snapshot.generation;
        if self.workers.iter().all(adopted) {
            self.ledger.reclaim(&mut self.slots, |freed| tally.release(freed));
        }
        self.slots.assign(snapshot).expect("there is room for the test's services");
        let own = own_addresses();
        self.compiled = Compiled::new(snapshot, &self.slots, &own, &self.compiled);
        tally.adopt(&self.compiled);
        self.ledger.adopt(&self.compiled);
        self.snapshot = snapshot.clone();
    }

    /// Let a worker go by the newest snapshot, as at the beginning of a round.
    pub fn adopt(&mut self, worker: usize) {
        let h = &mut self.workers[worker];
        if h.compiled.generation < self.snapshot.generation {
            let own = own_addresses();
            h.compiled = Compiled::new(&self.snapshot, &self.slots, &own, &h.compiled);
        }
    }

    /// Let all workers finish a round, and the main thread make a pass.
    pub fn pass(&mut self) {
        self.workers.iter().for_each(Harness::acknowledge);
        self.tally.pass();
    }

    /// Whether all workers go by the newest snapshot and have told the main thread so.
    pub fn is_settled(&self) -> bool {
        self.workers.iter().all(|w| {
            w.counters.generation.get() == self.snapshot.generation
                && w.counters.view_epoch.get() == w.view.epoch()
        })
    }

    /// Conns of a service over all workers, and of its backends, in the order of the snapshot.
    pub fn conns(&self, service: usize) -> (u64, Vec<u64>) {
        let service = &self.snapshot.services[service];
        let slot = self.slots.service(&service.name).expect("it is in the snapshot");
        let of_backend = |b: &sluice_api::SnapshotBackend| {
            let slot = self.slots.backend(&(slot, b.id())).expect("it is in the snapshot");
            self.ledger.conns(slot)
        };
        let all = self.workers.iter().map(|w| w.counters.service(slot).conns.get()).sum();
        (all, service.backends.iter().map(of_backend).collect())
    }

    /// Let a packet come to a worker as its own, and see what left.
    pub fn give(&mut self, worker: usize, from_backend: bool, packet: Vec<u8>) -> Out {
        let interface = if from_backend { BACKEND_PORT } else { CLIENT_PORT };
        self.workers[worker].receive_meta(Meta::received(interface, true), [packet])
    }

    /// Let a packet come to a worker from an interface; who does not own it hands it over. What left, and
    /// the worker that it left.
    pub fn receive(
        &mut self,
        worker: usize,
        interface: InterfaceId,
        packet: Vec<u8>,
    ) -> (usize, Out) {
        let out = self.workers[worker].receive(interface, [packet]);
        match out.handed_over.first() {
            None => (worker, out),
            Some((owner, interface, frame)) => {
                let meta = Meta::received(*interface, true);
                let owner = owner.index();
                (owner, self.workers[owner].receive_meta(meta, [frame.bytes().to_vec()]))
            }
        }
    }

    /// Let time pass for all, and conns expire.
    pub fn pass_time(&mut self, ms: u32) {
        self.workers.iter_mut().for_each(|worker| worker.pass(ms));
    }
}
