//! What a worker does between bursts: idle conns end, and those of addresses that leave are counted.

use super::Pipeline;
use super::life::forget;
use super::tables::Tables;
use crate::frame::Frame;
use crate::snapshot::Compiled;
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

impl<F: Frame> Pipeline<F> {
    /// Remove conns that were idle for their timeout, as many as keep pace with those that are made:
    /// what a packet waits for that is bounded by the conns made since the last call. Whether more
    /// wait to be looked at: then there is no time for a nap. Call once a round.
    #[inline]
    pub fn keep_pace(&mut self, config: &Compiled, now: Millis) -> bool {
        let t = &mut self.tables;
        let created = t.counters.conns_created.get();
        let made = created.wrapping_sub(t.created_before) as usize;
        t.created_before = created;
        let is_late = t.conns.expiry_behind(now).is_some_and(|late| late >= EXPIRE_LATE_MS);
        let least = if is_late { EXPIRE_PER_LATE_ROUND } else { EXPIRE_PER_ROUND };
        self.expire(config, now, least + made);
        self.is_behind(now)
    }

    /// Remove conns that were idle for their timeout, looking at no more than `most`; after timeouts
    /// were shortened, also at conns that are armed for later.
    pub fn expire(&mut self, config: &Compiled, now: Millis, most: usize) {
        let Tables { conns, counters, own_ports, rearmed_for, .. } = &mut self.tables;
        if *rearmed_for != config.shortened {
            *rearmed_for = config.shortened;
            conns.begin_rearming();
        }
        if conns.is_rearming() {
            conns.rearm(&config.timeouts, REARM_PER_ROUND);
        }
        conns.expire(now, &config.timeouts, most, |conn| {
            forget(conn, counters, own_ports, config);
            counters.conns_expired.add(1);
        });
    }

    /// Whether there is more to be done about timeouts than the last [`expire`](Self::expire) did.
    pub fn is_behind(&self, now: Millis) -> bool {
        let conns = &self.tables.conns;
        conns.is_rearming() || conns.expiry_behind(now).is_some()
    }

    /// Count some conns of addresses that leave, if any does. Call once a round.
    #[inline]
    pub fn count_leaving(&mut self, config: &Compiled, now: Millis) {
        let Tables { conns, census, worker, .. } = &mut self.tables;
        census.step(&config.leaving, *worker, conns.lines_mut(), now);
    }
}
