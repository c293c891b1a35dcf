//! Who is asked for, and when: requests go out at a rate, and whose turn it is not yet waits.

use super::entry::{Entry, Rank, State};
use super::{Action, REQUEST_INTERVAL_MS, Resolver, TRIES};
use crate::next_hop::NextHop;

impl Resolver {
    /// The entry's next request: now if the rate allows it, else in its turn.
    pub(super) fn request(&mut self, now_ms: u64, key: NextHop) {
        let Some(entry) = self.entries.get(&key) else { return };
        let may = match entry.rank {
            Rank::Stranger => self.may_ask_stranger(now_ms, key),
            _ if self.waits_behind_all(key) => self.watch.requests.take(now_ms),
            Rank::Client | Rank::Site => {
                let usable = entry.mac().is_some();
                let next = self.waiting.first_key_value();
                next.is_none_or(|((next_usable, _), _)| !usable && *next_usable)
                    && self.requests.take(now_ms)
            }
        };
        if may {
            self.send(now_ms, key);
        } else {
            self.queue(key);
        }
    }

    /// Whether no packet waits for its next request, and none would if it was sent.
    pub(super) fn waits_behind_all(&self, key: NextHop) -> bool {
        let is_failed = self.entries.get(&key).is_some_and(Entry::is_failed);
        is_failed || self.watch.is_idle(&key)
    }

    /// Whether the rate allows the next request for a stranger.
    pub(super) fn may_ask_stranger(&mut self, now_ms: u64, key: NextHop) -> bool {
        let asks_sender = self.entries.get(&key).is_some_and(Entry::asks_sender);
        (asks_sender && self.first_packet_requests.take(now_ms))
            || (!asks_sender && self.stranger_requests.take(now_ms))
    }

    /// Let an entry wait for its turn to be asked for.
    pub(super) fn queue(&mut self, key: NextHop) {
        self.leave_queue(key);
        let is_last = self.waits_behind_all(key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(old) = entry.due_ms.take() {
            self.deadlines.remove(&(old, key));
        }
        self.last_place += 1;
        let place = (entry.mac().is_some(), self.last_place);
        entry.waiting = Some(place);
        let queue = match entry.rank {
            Rank::Stranger => &mut self.waiting_strangers,
            _ if is_last => &mut self.watch.waiting,
            Rank::Client | Rank::Site => &mut self.waiting,
        };
        queue.insert(place, key);
    }

    pub(super) fn leave_queue(&mut self, key: NextHop) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(place) = entry.waiting.take() {
            self.waiting.remove(&place);
            self.waiting_strangers.remove(&place);
            self.watch.waiting.remove(&place);
        }
    }

    pub(super) fn send(&mut self, now_ms: u64, key: NextHop) {
        self.leave_queue(key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let sender = entry.came_from.filter(|_| entry.asks_sender());
        let unicast_to = match &mut entry.state {
            State::Incomplete { tries } => {
                *tries += 1;
                sender
            }
            State::Probing { mac, tries } => {
                *tries += 1;
                (*tries <= TRIES).then_some(*mac)
            }
            State::Failed { .. } => None,
            State::Reachable { .. } => return,
        };
        self.actions.push(Action::Request { target: key, unicast_to });
        self.set_due(key, now_ms + REQUEST_INTERVAL_MS);
    }
}
