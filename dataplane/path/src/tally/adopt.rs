//! Adopting a snapshot: which conns are counted from now on, and what limits grant meanwhile.

use std::collections::HashMap;
use std::num::NonZeroU32;

use sluice_api::Scheduler;

use super::{
    BackendTally, Division, Known, Limit, ServiceTally, Tally, publish_backend, publish_service,
};
use crate::ids::BackendSlot;
use crate::snapshot::{Compiled, CompiledService};

impl Tally {
    /// Prepare for a snapshot. Call it before any worker can see that snapshot: then none ever goes by a
    /// limit without a quota.
    ///
    /// Something new gets even quotas at once. A limit on something that has or may have conns
    /// already grants nothing before every worker has heard of it, as until then some may be
    /// making conns without regard to it; the same goes for a limit that is lowered by more than was
    /// not granted yet. That takes a round of each worker.
    pub fn adopt(&mut self, compiled: &Compiled) {
        let mut adoption = self.begin(compiled);
        while !self.go_on(&mut adoption, compiled, usize::MAX) {}
    }

    /// Begin to adopt a snapshot in pieces; passes may be made in between.
    pub fn begin(&mut self, compiled: &Compiled) -> Adoption {
        for slot in compiled.left() {
            self.forget(*slot);
        }
        Adoption { next: 0 }
    }

    /// Go on until about so many backends have been looked at; whether all that has changed is adopted.
    /// Only then may workers see the snapshot.
    pub fn go_on(&mut self, adoption: &mut Adoption, compiled: &Compiled, most: usize) -> bool {
        let change = Change {
            seen: self.epoch_seen(),
            adopted: self.generation_adopted(),
            epoch: self.epoch + 1,
            generation: compiled.generation,
        };
        let mut looked_at = 0;
        for service in compiled.changed(adoption.next) {
            if looked_at >= most {
                return false;
            }
            self.adopt_service(service, &change);
            adoption.next += 1;
            looked_at += 1 + service.backends.len();
        }
        // On from about where the last pass was: snapshots may come faster than a turn is done.
        self.next = (self.next.0.checked_rem(self.services.len()).unwrap_or(0), 0);
        self.waiting = self.services.len();
        self.epoch += 1;
        self.adopted_epoch = self.epoch;
        self.publish_epoch();
        true
    }

    fn adopt_service(&mut self, service: &CompiledService, change: &Change) {
        let (slot, source) = (service.slot, service.source());
        let mut old = Limits::of(self.forget(slot));
        let reads = self.views.len() > 1 && source.scheduler == Scheduler::Wlc;
        let limit = source.max_conns.map(|limit| {
            self.read_service(slot);
            let is_new = !self.used_services[slot.index()];
            change.apply(old.service.take(), limit, is_new, &self.own)
        });
        if let Some(limit) = &limit {
            publish_service(&self.views, slot, limit);
        }
        let mut backends = Vec::new();
        for (backend, compiled) in source.backends.iter().zip(&service.backends) {
            let slot = compiled.slot;
            let limit = backend.max_conns.map(|limit| {
                self.read_backend(slot);
                let is_new = !self.used_backends[slot.index()];
                change.apply(old.backends.remove(&slot), limit, is_new, &self.own)
            });
            if let Some(limit) = &limit {
                publish_backend(&self.views, slot, limit);
            }
            self.used_backends[slot.index()] = true;
            if reads || limit.is_some() {
                backends.push(BackendTally { slot, limit });
            }
        }
        self.used_services[slot.index()] = true;
        if limit.is_some() || !backends.is_empty() {
            self.places[slot.index()] = self.services.len() as u32;
            self.services.push(ServiceTally { slot, limit, reads, backends });
        }
    }
}

/// How far the adoption of a snapshot has come.
#[derive(Debug)]
pub struct Adoption {
    /// The next of what has changed.
    next: usize,
}

/// Limits of a service before, its backends' by slot.
#[derive(Default)]
struct Limits {
    service: Option<Limit>,
    backends: HashMap<BackendSlot, Limit>,
}

impl Limits {
    fn of(service: Option<ServiceTally>) -> Self {
        let Some(service) = service else { return Limits::default() };
        let backends = service.backends.into_iter();
        let backends = backends.filter_map(|b| Some((b.slot, b.limit?))).collect();
        Limits { service: service.limit, backends }
    }
}

/// A change of limits by a snapshot: what workers knew before, and what they will.
struct Change {
    seen: u64,
    adopted: u64,
    epoch: u64,
    generation: u64,
}

impl Change {
    fn apply(&self, old: Option<Limit>, limit: NonZeroU32, is_new: bool, own: &[u32]) -> Limit {
        let (limit, workers) = (limit.get(), own.len());
        let division = match old {
            // One worker alone is never in doubt.
            _ if workers == 1 => Division::even(limit, 1),
            Some(mut old) => {
                let known = Known { epoch: self.seen, generation: self.adopted };
                let in_effect = known.covers(&old);
                if !old.division.set_limit(limit, own, in_effect) {
                    return old;
                }
                old.division
            }
            None if is_new => Division::even(limit, workers),
            None => Division::held(limit, workers),
        };
        Limit { division, epoch: self.epoch, generation: self.generation }
    }
}
