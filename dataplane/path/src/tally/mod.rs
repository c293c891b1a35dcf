//! Counts conns over all workers, which share nothing, and tells each what it must know of the
//! others: for least connections how many conns a backend has elsewhere, for limits how many conns
//! the worker itself may have ([ADR 0012](../../../docs/adr/0012-services-on-all-workers.md)).
//!
//! The main thread owns this. In passes it reads the workers' counters and writes their
//! [`WorkerView`]s; nothing on the packet path waits for it. Only what needs it is looked at:
//! services that schedule by least connections, and whatever has a `max_conns`.

mod adopt;
mod quota;
mod view;

use std::sync::Arc;

pub use adopt::Adoption;
pub use quota::Division;
pub use view::{Reading, WorkerView};

use crate::counters::WorkerCounters;
use crate::ids::{BackendSlot, ServiceSlot};
use crate::slots::Freed;

/// Time between two passes, in ms.
pub const PASS_MS: u64 = 10;
/// Backends looked at in one pass, at most: it bounds the time that the main thread takes, 14 to
/// 34 ns for each of them and worker. Those of one service up to this many are looked at together.
pub const BACKENDS_PER_PASS: usize = 256;

/// The place of a service that is not looked at.
const NOWHERE: u32 = u32::MAX;

/// A limit, and since when its quotas are what they are.
struct Limit {
    division: Division,
    /// Quotas are in effect when every worker has seen this epoch…
    epoch: u64,
    /// …and goes by this generation: before, it may not ask for quotas at all.
    generation: u64,
}

struct BackendTally {
    slot: BackendSlot,
    limit: Option<Limit>,
}

struct ServiceTally {
    slot: ServiceSlot,
    limit: Option<Limit>,
    /// Whether its scheduler wants to know of the other workers' conns.
    reads: bool,
    /// Those that are looked at: all, or those with limits.
    backends: Vec<BackendTally>,
}

/// Conns over all workers; the main thread owns it.
pub struct Tally {
    views: Vec<Arc<WorkerView>>,
    counters: Vec<Arc<WorkerCounters>>,
    services: Vec<ServiceTally>,
    /// The place in it of each service slot, or [`NOWHERE`].
    places: Vec<u32>,
    /// Where the next pass begins: a service, and a backend of it.
    next: (usize, usize),
    next_pass_at_ms: u64,
    epoch: u64,
    /// Epoch of the last snapshot, and how many services are to be looked at at once when all
    /// workers have seen it: some of their limits may grant nothing before that.
    adopted_epoch: u64,
    waiting: usize,
    /// Slots that a worker may have made conns on, by slot.
    used_services: Vec<bool>,
    used_backends: Vec<bool>,
    /// Conns by worker, to work with.
    own: Vec<u32>,
    /// New conns refused for want of room, by worker, likewise.
    refused: Vec<u32>,
}

impl Tally {
    /// A tally over these workers: their views and their counters, in the same order.
    pub fn new(
        views: Vec<Arc<WorkerView>>,
        counters: Vec<Arc<WorkerCounters>>,
        service_slots: usize,
        backend_slots: usize,
    ) -> Self {
        assert_eq!(views.len(), counters.len(), "each worker has a view and counters");
        Tally {
            own: vec![0; views.len()],
            refused: vec![0; views.len()],
            views,
            counters,
            services: Vec::new(),
            places: vec![NOWHERE; service_slots],
            next: (0, 0),
            next_pass_at_ms: 0,
            epoch: 0,
            adopted_epoch: 0,
            waiting: 0,
            used_services: vec![false; service_slots],
            used_backends: vec![false; backend_slots],
        }
    }

    /// Look at a service no longer.
    fn forget(&mut self, slot: ServiceSlot) -> Option<ServiceTally> {
        let place = std::mem::replace(&mut self.places[slot.index()], NOWHERE) as usize;
        if place == NOWHERE as usize {
            return None;
        }
        let service = self.services.swap_remove(place);
        if let Some(moved) = self.services.get(place) {
            self.places[moved.slot.index()] = place as u32;
        }
        if self.next.0 == place || self.next.0 >= self.services.len() {
            // Another one, or none, is where the next pass would begin in the middle.
            self.next = (self.next.0.checked_rem(self.services.len()).unwrap_or(0), 0);
        }
        Some(service)
    }

    /// Memory of all views, in bytes.
    pub fn bytes(&self) -> usize {
        self.views.iter().map(|view| view.bytes()).sum()
    }

    /// A slot is free: no worker has, or makes, conns on it.
    pub fn release(&mut self, freed: Freed) {
        match freed {
            Freed::Backend { slot, .. } => {
                self.used_backends[slot.index()] = false;
                self.views.iter().for_each(|view| view.set_reading(slot, Reading::default()));
            }
            Freed::Service { slot } => self.used_services[slot.index()] = false,
        }
    }

    /// Make a pass when one is due: every [`PASS_MS`], or as soon as the workers have heard of new
    /// limits.
    pub fn round(&mut self, now_ms: u64) {
        let alone = self.views.len() < 2;
        if alone || self.services.is_empty() {
            return;
        }
        let heard = self.waiting > 0 && self.epoch_seen() >= self.adopted_epoch;
        if now_ms >= self.next_pass_at_ms || heard {
            self.next_pass_at_ms = now_ms + PASS_MS;
            self.pass();
        }
    }

    /// Look at up to [`BACKENDS_PER_PASS`] backends, and at their services.
    pub fn pass(&mut self) {
        let known = Known { epoch: self.epoch_seen(), generation: self.generation_adopted() };
        let next_epoch = self.epoch + 1;
        let mut changed = false;
        let mut looked_at = 0;
        let mut services = std::mem::take(&mut self.services);
        let (mut index, mut from) = self.next;
        for _ in 0..services.len() {
            let service = &mut services[index];
            let room = BACKENDS_PER_PASS - looked_at;
            // A service is read at once, so that its backends are comparable, or in large pieces.
            if looked_at > 0 && service.backends.len() - from > room {
                break;
            }
            if from == 0
                && let Some(limit) = &mut service.limit
                && known.covers(limit)
            {
                self.read_service(service.slot);
                if limit.division.divide(&self.own, &self.refused) {
                    limit.epoch = next_epoch;
                    publish_service(&self.views, service.slot, limit);
                    changed = true;
                }
            }
            let reads = service.reads;
            let piece = service.backends.iter_mut().skip(from).take(room);
            let mut count = 0;
            for backend in piece {
                count += 1;
                let due = backend.limit.as_mut().filter(|limit| known.covers(limit));
                if !reads && due.is_none() {
                    continue;
                }
                self.read_backend(backend.slot);
                if reads {
                    self.publish_reading(backend.slot);
                }
                if let Some(limit) = due
                    && limit.division.divide(&self.own, &self.refused)
                {
                    limit.epoch = next_epoch;
                    publish_backend(&self.views, backend.slot, limit);
                    changed = true;
                }
            }
            // A service without such backends is a step, too.
            looked_at += count.max(1);
            from += count;
            if from < service.backends.len() {
                break;
            }
            (index, from) = ((index + 1) % services.len(), 0);
            if known.epoch >= self.adopted_epoch {
                self.waiting = self.waiting.saturating_sub(1);
            }
            if looked_at >= BACKENDS_PER_PASS {
                break;
            }
        }
        self.next = (index, from);
        self.services = services;
        if changed {
            self.epoch = next_epoch;
            self.publish_epoch();
        }
    }

    /// The lowest epoch that any worker goes by.
    fn epoch_seen(&self) -> u64 {
        self.counters.iter().map(|c| c.view_epoch.observe()).min().unwrap_or_default()
    }

    /// The lowest generation that any worker goes by. After [`epoch_seen`](Self::epoch_seen), which
    /// workers note last.
    fn generation_adopted(&self) -> u64 {
        self.counters.iter().map(|c| c.generation.observe()).min().unwrap_or_default()
    }

    fn publish_epoch(&self) {
        self.views.iter().for_each(|view| view.set_epoch(self.epoch));
    }

    fn read_service(&mut self, slot: ServiceSlot) {
        for (worker, counters) in self.counters.iter().enumerate() {
            let counters = counters.service(slot);
            self.own[worker] = counters.conns.get() as u32;
            self.refused[worker] = counters.refused.get() as u32;
        }
    }

    fn read_backend(&mut self, slot: BackendSlot) {
        for (worker, counters) in self.counters.iter().enumerate() {
            let counters = counters.backend(slot);
            self.own[worker] = counters.conns.get() as u32;
            self.refused[worker] = counters.refused.get() as u32;
        }
    }

    /// Tell every worker how the conns just read are divided.
    fn publish_reading(&self, slot: BackendSlot) {
        let all: u32 = self.own.iter().sum();
        for (view, own) in self.views.iter().zip(&self.own) {
            view.set_reading(slot, Reading { others: all - own, own: *own });
        }
    }
}

/// What is known of the workers at the beginning of a pass.
struct Known {
    epoch: u64,
    generation: u64,
}

impl Known {
    /// Whether a limit's quotas are in effect everywhere.
    fn covers(&self, limit: &Limit) -> bool {
        self.epoch >= limit.epoch && self.generation >= limit.generation
    }
}

fn publish_service(views: &[Arc<WorkerView>], slot: ServiceSlot, limit: &Limit) {
    for (view, quota) in views.iter().zip(limit.division.quotas()) {
        view.set_service_quota(slot, *quota);
    }
}

fn publish_backend(views: &[Arc<WorkerView>], slot: BackendSlot, limit: &Limit) {
    for (view, quota) in views.iter().zip(limit.division.quotas()) {
        view.set_backend_quota(slot, *quota);
    }
}

#[cfg(test)]
mod tests;
