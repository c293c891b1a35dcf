//! The end of idle conns, by the wheel; after timeouts were shortened, by a walk over all lines.

use super::state::StateTimeouts;
use super::{ConnTable, Line};
use crate::time::{Millis, at_or_after};

/// Conns that are removed together when they expire.
const EXPIRE_BATCH: usize = 16;

impl ConnTable {
    /// For how long, in ms, conns have waited to be looked at by [`expire`](Self::expire); `None`
    /// when none does.
    #[inline]
    pub fn expiry_behind(&self, now: Millis) -> Option<Millis> {
        self.wheel.behind(now)
    }

    /// Remove conns that were idle for their timeout, looking at no more than `most` conns, and
    /// tell `gone` of each. Call between bursts.
    pub fn expire(
        &mut self,
        now: Millis,
        timeouts: &[StateTimeouts],
        most: usize,
        mut gone: impl FnMut(Line<'_>),
    ) {
        let mut left = most;
        while left > 0 {
            // A batch's lines in the index are asked for before the first of them is needed.
            let mut ended = [(0, [0; 2]); EXPIRE_BATCH];
            let mut count = 0;
            let batch = left.min(EXPIRE_BATCH);
            left -= batch;
            for _ in 0..batch {
                let Some(number) = self.wheel.pop_due(&mut self.lines, now) else {
                    left = 0;
                    break;
                };
                let line = self.lines.head(number);
                let timeout = timeouts[line.service_slot.index()][line.state() as usize];
                let deadline = line.last_seen.wrapping_add(timeout);
                if at_or_after(now, deadline) {
                    let hashes = self.hashes(number);
                    self.index.prefetch(hashes[0]);
                    self.index.prefetch(hashes[1]);
                    ended[count] = (number, hashes);
                    count += 1;
                } else {
                    self.wheel.arm(&mut self.lines, number, deadline);
                }
            }
            for (number, hashes) in &ended[..count] {
                gone(self.lines.get(*number));
                self.unlink(*number, *hashes);
            }
        }
        self.end_burst();
    }
}

/// A walk over all lines after timeouts were shortened: each conn's new deadline may come before the
/// one that it stands in the wheel with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    /// The line that is next, plain ones first; the walk is over at the end of the table.
    pub(super) next: usize,
}

impl ConnTable {
    /// Timeouts were shortened: those of conns that there are count from now on, as soon as
    /// [`rearm`](Self::rearm) has come by.
    pub fn begin_rearming(&mut self) {
        self.walk.next = 0;
    }

    /// Whether a walk is under way.
    #[inline(always)]
    pub fn is_rearming(&self) -> bool {
        self.walk.next < self.lines.memory().len()
    }

    /// Go on with the walk, over at most `most` lines: move the conns that are due sooner than they
    /// are armed for.
    pub fn rearm(&mut self, timeouts: &[StateTimeouts], most: usize) {
        let end = (self.walk.next + most).min(self.lines.memory().len());
        for place in self.walk.next as u32..end as u32 {
            let line = self.lines.head(place);
            if self.lines.is_place(place) && line.is_there() {
                let timeout = timeouts[line.service_slot.index()][line.state() as usize];
                let deadline = line.last_seen.wrapping_add(timeout);
                self.wheel.arm_sooner(&mut self.lines, place, deadline);
            }
        }
        self.walk.next = end;
    }
}
