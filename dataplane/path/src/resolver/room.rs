//! Who has a place in the table, and whose place another one gets when it is full.

use super::entry::{Entry, Rank, State};
use super::{EVICTABLE_MS, Resolver};
use crate::next_hop::{NeighbourState, NextHop, Purpose};

impl Resolver {
    /// Strangers among them that there may be.
    pub(super) fn strangers_share(&self) -> usize {
        (self.capacity / 2).max(1)
    }

    pub(super) fn insert(&mut self, now_ms: u64, key: NextHop, purpose: Purpose) {
        let entry = Entry {
            state: State::Incomplete { tries: 0 },
            rank: Rank::of(purpose),
            came_from: purpose.came_from(),
            wanted_ms: now_ms,
            confirmed_ms: now_ms,
            due_ms: None,
            waiting: None,
            failure_told: false,
        };
        self.by_use[entry.rank as usize].insert((now_ms, key));
        self.entries.insert(key, entry);
        self.request(now_ms, key);
    }

    /// Whether there is room for one more of a rank. In a full table it is that of one that has failed,
    /// of a stranger, of one that nobody wants any more, or of one of a lower rank, the longest unused;
    /// a stranger over the strangers' share gets that of another one.
    pub(super) fn make_room(&mut self, now_ms: u64, rank: Rank) -> bool {
        let strangers = &self.by_use[Rank::Stranger as usize];
        let oldest_stranger = strangers.first().copied();
        let is_over_share = rank == Rank::Stranger && strangers.len() >= self.strangers_share();
        if self.entries.len() < self.capacity && !is_over_share {
            return true;
        }
        let oldest = |rank: Rank| self.by_use[rank as usize].first().copied();
        let is_unused = |(wanted_ms, _): &(u64, NextHop)| now_ms >= wanted_ms + EVICTABLE_MS;
        let unused =
            [oldest(Rank::Client), oldest(Rank::Site)].into_iter().flatten().filter(is_unused);
        let room = if is_over_share { None } else { self.failed.first().copied() }
            .or(oldest_stranger)
            .or(unused.min())
            .or(oldest(Rank::Client).filter(|_| rank > Rank::Client));
        if let Some((_, key)) = room {
            self.remove(key);
        }
        room.is_some()
    }

    pub(super) fn remove(&mut self, key: NextHop) {
        self.leave_queue(key);
        let Some(entry) = self.entries.remove(&key) else { return };
        self.watch.is_wanted(&key);
        self.watch.is_well(&key);
        self.by_use[entry.rank as usize].remove(&(entry.wanted_ms, key));
        self.failed.remove(&(entry.wanted_ms, key));
        if let Some(due_ms) = entry.due_ms {
            self.deadlines.remove(&(due_ms, key));
        }
        self.publish(key, NeighbourState::Removed);
    }

    /// An entry is of this rank, if it was of a lower one.
    pub(super) fn raise(&mut self, key: NextHop, rank: Rank) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.rank >= rank {
            return;
        }
        self.by_use[entry.rank as usize].remove(&(entry.wanted_ms, key));
        self.by_use[rank as usize].insert((entry.wanted_ms, key));
        let was_stranger = std::mem::replace(&mut entry.rank, rank) == Rank::Stranger;
        if let (true, Some(place)) = (was_stranger, entry.waiting) {
            self.waiting_strangers.remove(&place);
            self.waiting.insert(place, key);
        }
    }
}
