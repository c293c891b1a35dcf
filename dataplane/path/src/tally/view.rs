//! What a worker sees of the others: memory that only the main thread writes, one piece per worker.
//!
//! A worker reads it when it chooses a backend for a new conn, and never writes it. What belongs
//! together is one 64-bit store, so nothing is ever seen by halves.

use crate::ids::{BackendSlot, ServiceSlot};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Conns of a backend as the main thread read them: on the other workers, and on the worker itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Conns on the other workers.
    pub others: u32,
    /// Conns on this worker.
    pub own: u32,
}

impl Reading {
    /// Conns on all of `workers` by now, as far as a worker can tell that has `own_now` itself: it
    /// takes it that each of the others has since then gained or lost as many as it has. For one
    /// worker alone it is the truth. Never below 0.
    #[inline]
    pub fn estimate(self, own_now: u32, workers: u16) -> u64 {
        let read = i64::from(self.others) + i64::from(self.own);
        let since = i64::from(own_now) - i64::from(self.own);
        (read + i64::from(workers) * since).max(0) as u64
    }

    const fn bits(self) -> u64 {
        (self.others as u64) << 32 | self.own as u64
    }

    const fn from_bits(bits: u64) -> Self {
        Reading { others: (bits >> 32) as u32, own: bits as u32 }
    }
}

/// A cache line of readings.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Readings([AtomicU64; 8]);

/// A cache line of quotas.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Quotas([AtomicU32; 16]);

/// What one worker sees: per backend slot the [`Reading`], per backend and service slot its quota,
/// which is the number of conns that it may have there. Where there is no limit nobody asks.
#[derive(Debug)]
#[repr(align(64))]
pub struct WorkerView {
    epoch: AtomicU64,
    readings: Box<[Readings]>,
    backend_quotas: Box<[Quotas]>,
    service_quotas: Box<[Quotas]>,
}

impl WorkerView {
    /// A view of this many slots: no conns anywhere, and no quotas.
    pub fn new(service_slots: usize, backend_slots: usize) -> Self {
        fn lines<T: Default>(count: usize) -> Box<[T]> {
            (0..count).map(|_| T::default()).collect()
        }
        WorkerView {
            epoch: AtomicU64::new(0),
            readings: lines(backend_slots.div_ceil(8)),
            backend_quotas: lines(backend_slots.div_ceil(16)),
            service_quotas: lines(service_slots.div_ceil(16)),
        }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.readings)
            + size_of_val(&*self.backend_quotas)
            + size_of_val(&*self.service_quotas)
    }

    /// Grows with every change of quotas. Whoever reads it sees all quotas of that epoch.
    #[inline(always)]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// The conns of a backend slot, as last read.
    #[inline(always)]
    pub fn reading(&self, slot: BackendSlot) -> Reading {
        Reading::from_bits(self.readings[slot.index() / 8].0[slot.index() % 8].load(Relaxed))
    }

    /// How many conns this worker may have on a backend slot.
    #[inline(always)]
    pub fn backend_quota(&self, slot: BackendSlot) -> u32 {
        self.backend_quotas[slot.index() / 16].0[slot.index() % 16].load(Relaxed)
    }

    /// How many conns this worker may have on a service slot.
    #[inline(always)]
    pub fn service_quota(&self, slot: ServiceSlot) -> u32 {
        self.service_quotas[slot.index() / 16].0[slot.index() % 16].load(Relaxed)
    }

    /// Publish an epoch: everything that was published before belongs to it. Main thread only, as
    /// all that follow.
    pub(super) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Release);
    }

    /// Publish a reading, unless it is there already: a store takes the line from the worker.
    pub(super) fn set_reading(&self, slot: BackendSlot, reading: Reading) {
        let word = &self.readings[slot.index() / 8].0[slot.index() % 8];
        if word.load(Relaxed) != reading.bits() {
            word.store(reading.bits(), Relaxed);
        }
    }

    pub(super) fn set_backend_quota(&self, slot: BackendSlot, quota: u32) {
        self.backend_quotas[slot.index() / 16].0[slot.index() % 16].store(quota, Relaxed);
    }

    pub(super) fn set_service_quota(&self, slot: ServiceSlot, quota: u32) {
        self.service_quotas[slot.index() / 16].0[slot.index() % 16].store(quota, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_the_truth_for_one_worker_and_never_below_zero() {
        for own in [0, 1, 7, u32::MAX] {
            assert_eq!(Reading { others: 0, own: 5 }.estimate(own, 1), u64::from(own));
            // Before anything was read, each of the others is taken to be as this one.
            assert_eq!(Reading::default().estimate(own, 8), 8 * u64::from(own));
        }
        let reading = Reading { others: 10, own: 5 };
        assert_eq!(reading.estimate(5, 4), 15);
        assert_eq!(reading.estimate(7, 4), 23);
        assert_eq!(reading.estimate(4, 4), 11);
        assert_eq!(reading.estimate(0, 4), 0);
    }

    #[test]
    fn every_slot_has_its_own_place() {
        let view = WorkerView::new(40, 100);
        for slot in 0..100 {
            view.set_reading(BackendSlot(slot), Reading { others: slot, own: slot + 1_000 });
            view.set_backend_quota(BackendSlot(slot), slot + 7);
        }
        (0..40).for_each(|slot| view.set_service_quota(ServiceSlot(slot), u32::from(slot) + 9));
        for slot in 0..100 {
            assert_eq!(
                view.reading(BackendSlot(slot)),
                Reading { others: slot, own: slot + 1_000 }
            );
            assert_eq!(view.backend_quota(BackendSlot(slot)), slot + 7);
        }
        assert!((0..40).all(|slot| view.service_quota(ServiceSlot(slot)) == u32::from(slot) + 9));
    }
}
