//! Choose the backend of a new conn: what the scheduler says, within the limits there are.
//!
//! Each worker decides alone. It knows its own conns by the packet, the other workers' by its
//! [`WorkerView`](crate::tally::WorkerView), and its part of each limit as a quota there.

use std::sync::Arc;

use sluice_api::DropReason;

use super::PipelineConfig;
use crate::counters::WorkerCounters;
use crate::flow::FlowKey;
use crate::ids::WorkerId;
use crate::scheduler::{WeightSampler, Wrr, pick_least_connections};
use crate::snapshot::{Compiled, CompiledBackend, CompiledService};
use crate::tally::WorkerView;

/// What was so when no backend of a service had room: while it still is, none has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Full {
    generation: u64,
    epoch: u64,
    /// Conns of the service, which only become fewer while none are made; 0 when it is not full.
    conns: u64,
}

/// Where the schedulers stand, and what a worker knows of the others.
pub struct Chooser {
    /// By service slot.
    wrr: Box<[Wrr]>,
    least: Least,
    /// By service slot.
    full: Box<[Full]>,
    view: Arc<WorkerView>,
}

impl Chooser {
    /// Of this worker, which sees so much of the others.
    pub fn new(config: &PipelineConfig, view: Arc<WorkerView>) -> Self {
        let wrr = Wrr::of_worker(config.worker, config.workers);
        Chooser {
            wrr: vec![wrr; config.service_slots].into(),
            least: Least {
                start: config.worker.index(),
                worker: config.worker,
                workers: config.workers,
            },
            full: vec![Full::default(); config.service_slots].into(),
            view,
        }
    }

    /// What it sees of the others.
    pub fn view(&self) -> &WorkerView {
        &self.view
    }

    /// The backend for a new conn of this service: its place among them.
    ///
    /// # Errors
    /// Why there is none.
    #[inline(always)]
    pub fn choose(
        &mut self,
        service: &CompiledService,
        key: &FlowKey,
        counters: &WorkerCounters,
        config: &Compiled,
    ) -> Result<usize, DropReason> {
        if service.has_limits {
            return self.choose_within_limits(service, key, counters, config);
        }
        self.pick(service, key, counters).ok_or(DropReason::NoBackend)
    }

    fn pick(
        &mut self,
        service: &CompiledService,
        key: &FlowKey,
        counters: &WorkerCounters,
    ) -> Option<usize> {
        let Chooser { wrr, least, view, .. } = self;
        let wrr = &mut wrr[service.slot.index()];
        service
            .picker
            .pick(key, wrr, |sampler| least.pick(service, sampler, view, counters, |_| true))
    }

    #[inline(never)]
    fn choose_within_limits(
        &mut self,
        service: &CompiledService,
        key: &FlowKey,
        counters: &WorkerCounters,
        config: &Compiled,
    ) -> Result<usize, DropReason> {
        let conns = counters.service(service.slot).conns.get();
        if service.is_limited && conns >= u64::from(self.view.service_quota(service.slot)) {
            counters.service(service.slot).refused.add(1);
            return Err(DropReason::ServiceLimit);
        }
        let now = Full { generation: config.generation, epoch: self.view.epoch(), conns };
        if conns > 0 && self.full[service.slot.index()] == now {
            return Err(DropReason::BackendLimit);
        }
        match self.pick_with_room(service, key, counters) {
            Some(index) => Ok(index),
            None if service.weights.iter().all(|weight| *weight == 0) => Err(DropReason::NoBackend),
            None => {
                self.full[service.slot.index()] = now;
                Err(DropReason::BackendLimit)
            }
        }
    }

    /// The scheduler's choice, or, when that has no room, its next one that has.
    fn pick_with_room(
        &mut self,
        service: &CompiledService,
        key: &FlowKey,
        counters: &WorkerCounters,
    ) -> Option<usize> {
        let Chooser { wrr, least, view, .. } = self;
        let room = |index: usize| has_room(&service.backends[index], view, counters);
        let wrr = &mut wrr[service.slot.index()];
        let least = |sampler: Option<&_>| least.pick(service, sampler, view, counters, room);
        service.picker.pick_where(key, &service.weights, wrr, least, room)
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> [std::ops::Range<usize>; 2] {
        use crate::testkit::range_of;
        [range_of(&self.wrr), range_of(&self.full)]
    }
}

/// Where least connections stands.
struct Least {
    start: usize,
    worker: WorkerId,
    workers: u16,
}

impl Least {
    /// By least connections, of those backends that `takes` tells: of those drawn from many, or of all when
    /// none of these takes it.
    #[inline(always)]
    fn pick(
        &mut self,
        service: &CompiledService,
        sampler: Option<&WeightSampler>,
        view: &WorkerView,
        counters: &WorkerCounters,
        takes: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.start = self.start.wrapping_add(1);
        let load = |index: usize| {
            let slot = service.backends[index].slot;
            let own = counters.backend(slot).conns.get() as u32;
            takes(index).then(|| view.reading(slot).estimate(own, self.workers))
        };
        let new = u64::from(self.workers);
        // Workers draw apart from each other.
        let random = (self.start as u64) ^ u64::from(self.worker.0) << 40;
        let drawn = sampler.and_then(|some| some.pick(&service.weights, load, new, random));
        drawn.or_else(|| pick_least_connections(&service.weights, load, new, self.start))
    }
}

/// Whether this worker may give a backend another conn. That it may not is counted: the main thread
/// gives room to who is seen to want it.
fn has_room(backend: &CompiledBackend, view: &WorkerView, counters: &WorkerCounters) -> bool {
    if !backend.is_limited {
        return true;
    }
    let counters = counters.backend(backend.slot);
    let has_room = counters.conns.get() < u64::from(view.backend_quota(backend.slot));
    if !has_room {
        counters.refused.add(1);
    }
    has_room
}
