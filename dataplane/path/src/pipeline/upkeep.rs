//! What a worker does between bursts: idle conns end, and those of addresses that leave are counted.

use super::Pipeline;
use super::life::forget;
use super::shared::Shared;
use crate::frame::Frame;
use crate::ids::WorkerId;
use crate::snapshot::Compiled;
use crate::snapshot::leaving::Census;
use crate::time::Millis;

/// Conns looked at for expiry in one round of a worker, beside one for each that was made in it. It
/// bounds what a packet may wait for, about 2 us when all of their lines are in memory.
pub const EXPIRE_PER_ROUND: usize = 16;
/// The same while expiry is late by [`EXPIRE_LATE_MS`]: when many conns end at once, or each is looked
/// at several times.
pub const EXPIRE_PER_LATE_ROUND: usize = 64;
/// How late expiry may be, in ms, before it is given more time. Within a slot of the wheel all is due
/// at its end, and some ms to work it off are no lateness.
const EXPIRE_LATE_MS: Millis = 4;
/// Lines looked at in one round after timeouts were shortened, one after the other in memory: a
/// million in 8,000 rounds, without a nap between them.
const REARM_PER_ROUND: usize = 128;

/// How far a worker has come with it.
pub struct Upkeep {
    worker: WorkerId,
    /// Conns made when it was last done.
    created_before: u64,
    /// [`Compiled::shortened`] that the conns' timers were last looked at for.
    rearmed_for: u64,
    census: Census,
}

impl Upkeep {
    /// Of this worker, which has done nothing yet.
    pub fn new(worker: WorkerId) -> Self {
        Upkeep { worker, created_before: 0, rearmed_for: 0, census: Census::default() }
    }
}

impl<F: Frame> Pipeline<F> {
    /// Remove conns that were idle for their timeout, as many as keep pace with those that are made:
    /// what a packet waits for that is bounded by the conns made since the last call. Whether more
    /// wait to be looked at: then there is no time for a nap. Call once a round.
    #[inline]
    pub fn keep_pace(&mut self, config: &Compiled, now: Millis) -> bool {
        let created = self.shared.counters.conns_created.get();
        let made = created.wrapping_sub(self.upkeep.created_before) as usize;
        self.upkeep.created_before = created;
        let is_late =
            self.shared.conns.expiry_behind(now).is_some_and(|late| late >= EXPIRE_LATE_MS);
        let least = if is_late { EXPIRE_PER_LATE_ROUND } else { EXPIRE_PER_ROUND };
        self.expire(config, now, least + made);
        self.is_behind(now)
    }

    /// Remove conns that were idle for their timeout, looking at no more than `most`; after timeouts
    /// were shortened, also at conns that are armed for later.
    pub fn expire(&mut self, config: &Compiled, now: Millis, most: usize) {
        let Shared { conns, counters, local_ports, .. } = &mut self.shared;
        let rearmed_for = &mut self.upkeep.rearmed_for;
        if *rearmed_for != config.shortened {
            *rearmed_for = config.shortened;
            conns.begin_rearming();
        }
        if conns.is_rearming() {
            conns.rearm(&config.timeouts, REARM_PER_ROUND);
        }
        conns.expire(now, &config.timeouts, most, |conn| {
            forget(conn, counters, local_ports, config);
            counters.conns_expired.add(1);
        });
    }

    /// Whether there is more to be done about timeouts than the last [`expire`](Self::expire) did.
    pub fn is_behind(&self, now: Millis) -> bool {
        let conns = &self.shared.conns;
        conns.is_rearming() || conns.expiry_behind(now).is_some()
    }

    /// Count some conns of addresses that leave, if any does. Call once a round.
    #[inline]
    pub fn count_leaving(&mut self, config: &Compiled, now: Millis) {
        let Upkeep { census, worker, .. } = &mut self.upkeep;
        census.step(&config.leaving, *worker, self.shared.conns.plain(), now);
    }
}
