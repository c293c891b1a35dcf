//! Choose the backend of a new conn: what the scheduler says, within the limits there are.
//!
//! Each worker decides alone. It knows its own conns by the packet, the other workers' by its
//! [`WorkerView`](crate::tally::WorkerView), and its part of each limit as a quota there.

use sluice_api::DropReason;

use super::Tables;
use crate::flow::FlowKey;
use crate::scheduler::{WeightSampler, first_that_takes, pick_least_connections, source_hash};
use crate::snapshot::{Compiled, CompiledBackend, CompiledService, Picker};

/// What was so when no backend of a service had room: while it still is, none has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Full {
    generation: u64,
    epoch: u64,
    /// Conns of the service, which only become fewer while none are made; 0 when it is not full.
    conns: u64,
}

/// The backend for a new conn of this service: its place among them.
///
/// # Errors
/// Why there is none.
#[inline(always)]
pub fn choose(
    t: &mut Tables,
    config: &Compiled,
    service: &CompiledService,
    key: &FlowKey,
) -> Result<usize, DropReason> {
    if service.has_limits {
        return choose_within_limits(t, config, service, key);
    }
    pick(t, service, key).ok_or(DropReason::NoBackend)
}

fn pick(t: &mut Tables, service: &CompiledService, key: &FlowKey) -> Option<usize> {
    match &service.picker {
        Picker::Maglev(table, hash_on) => {
            table.lookup(CompiledService::maglev_hash(*hash_on, key)).map(usize::from)
        }
        Picker::Wrr(table) => t.wrr[service.slot as usize].pick(table).map(usize::from),
        Picker::Wlc(sampler) => pick_least(t, service, sampler.as_ref(), |_, _| true),
        Picker::SourceHash(table) => table.lookup(source_hash(key.src)).map(usize::from),
    }
}

/// By least connections, of those backends that `takes` tells: of those drawn from many, or of all when
/// none of these takes it.
#[inline(always)]
fn pick_least(
    t: &mut Tables,
    service: &CompiledService,
    sampler: Option<&WeightSampler>,
    takes: impl Fn(&Tables, usize) -> bool,
) -> Option<usize> {
    t.wlc_start = t.wlc_start.wrapping_add(1);
    let load = |index: usize| {
        let slot = service.backends[index].slot;
        let own = t.counters.backend(slot).conns.get() as u32;
        takes(t, index).then(|| t.view.reading(slot).estimate(own, t.workers))
    };
    let new = u64::from(t.workers);
    // Workers draw apart from each other.
    let random = (t.wlc_start as u64) ^ u64::from(t.worker.0) << 40;
    let drawn = sampler.and_then(|some| some.pick(&service.weights, load, new, random));
    drawn.or_else(|| pick_least_connections(&service.weights, load, new, t.wlc_start))
}

#[inline(never)]
fn choose_within_limits(
    t: &mut Tables,
    config: &Compiled,
    service: &CompiledService,
    key: &FlowKey,
) -> Result<usize, DropReason> {
    let conns = t.counters.service(service.slot).conns.get();
    if service.is_limited && conns >= u64::from(t.view.service_quota(service.slot)) {
        t.counters.service(service.slot).refused.add(1);
        return Err(DropReason::ServiceLimit);
    }
    let now = Full { generation: config.generation, epoch: t.view.epoch(), conns };
    if conns > 0 && t.full[service.slot as usize] == now {
        return Err(DropReason::BackendLimit);
    }
    match pick_with_room(t, service, key) {
        Some(index) => Ok(index),
        None if service.weights.iter().all(|weight| *weight == 0) => Err(DropReason::NoBackend),
        None => {
            t.full[service.slot as usize] = now;
            Err(DropReason::BackendLimit)
        }
    }
}

/// Whether this worker may give a backend another conn. That it may not is counted: the main thread
/// gives room to who is seen to want it.
fn has_room(t: &Tables, backend: &CompiledBackend) -> bool {
    if !backend.is_limited {
        return true;
    }
    let counters = t.counters.backend(backend.slot);
    let has_room = counters.conns.get() < u64::from(t.view.backend_quota(backend.slot));
    if !has_room {
        counters.refused.add(1);
    }
    has_room
}

/// The scheduler's choice, or, when that has no room, its next one that has. The schedulers by hash
/// and in turn look at so many of their choices only; then the first backend with room has it.
fn pick_with_room(t: &mut Tables, service: &CompiledService, key: &FlowKey) -> Option<usize> {
    let room = |t: &Tables, index: usize| has_room(t, &service.backends[index]);
    let (next, start) = match &service.picker {
        Picker::Wlc(sampler) => return pick_least(t, service, sampler.as_ref(), room),
        Picker::Wrr(table) => {
            let mut wrr = t.wrr[service.slot as usize];
            let next = wrr.pick_where(table, |index| room(t, usize::from(index)));
            t.wrr[service.slot as usize] = wrr;
            (next, wrr.seed())
        }
        Picker::Maglev(table, hash_on) => {
            let hash = CompiledService::maglev_hash(*hash_on, key);
            (table.lookup_where(hash, |index| room(t, usize::from(index))), hash)
        }
        Picker::SourceHash(table) => {
            let hash = source_hash(key.src);
            (table.lookup_where(hash, |index| room(t, usize::from(index))), hash)
        }
    };
    next.map(usize::from).or_else(|| {
        let start = start % (service.weights.len() as u64).max(1);
        first_that_takes(&service.weights, start, |index| room(t, index))
    })
}
