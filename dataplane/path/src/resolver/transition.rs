//! How an entry goes from one state to another: by an answer, by its absence, by time.

use sluice_wire::ether::MacAddr;

use super::entry::{Rank, State};
use super::{Action, FAILED_HOLD_MS, REACHABLE_MS, Resolver, TRIES, UNUSED_MS};
use crate::next_hop::{NeighbourState, NextHop};

impl Resolver {
    /// Change an entry's state and keep the index of failed entries.
    pub(super) fn set_state(&mut self, key: NextHop, state: State) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.state = state;
        // A backend's next hop that has failed gives its place to nobody, or nobody would know.
        if entry.is_failed() && !self.watch.contains(&key) {
            self.failed.insert((entry.wanted_ms, key));
        } else {
            self.failed.remove(&(entry.wanted_ms, key));
        }
    }

    pub(super) fn set_due(&mut self, key: NextHop, due_ms: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(old) = entry.due_ms.replace(due_ms) {
            self.deadlines.remove(&(old, key));
        }
        self.deadlines.insert((due_ms, key));
    }

    /// An entry's deadline is there.
    pub(super) fn due(&mut self, now_ms: u64, key: NextHop) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.due_ms = None;
        let is_watched = self.watch.contains(&key);
        match entry.state {
            State::Failed { .. } if is_watched => {
                if !self.doubts_silence {
                    self.watch.has_failed(key);
                }
                self.request(now_ms, key);
            }
            State::Incomplete { tries: TRIES.. } => self.fail(now_ms, key),
            // Three more by broadcast when answers arrive again.
            State::Probing { mac, tries: TRIES.. } if self.doubts_silence => {
                self.set_state(key, State::Probing { mac, tries: TRIES });
                self.request(now_ms, key);
            }
            State::Probing { tries, .. } if tries >= 2 * TRIES => self.fail(now_ms, key),
            State::Incomplete { .. } | State::Probing { .. } => self.request(now_ms, key),
            State::Failed { wanted: true, .. } => {
                self.set_state(key, State::Incomplete { tries: 0 });
                self.request(now_ms, key);
            }
            State::Reachable { .. } | State::Failed { .. } => {
                let unused_ms = entry.wanted_ms + UNUSED_MS;
                if is_watched {
                    self.set_due(key, now_ms + UNUSED_MS);
                } else if now_ms >= unused_ms {
                    self.remove(key);
                } else {
                    self.set_due(key, unused_ms);
                }
            }
        }
    }

    pub(super) fn reached(&mut self, now_ms: u64, key: NextHop, mac: MacAddr, confirmed: bool) {
        let fresh_until_ms = if confirmed { now_ms + REACHABLE_MS } else { now_ms };
        self.set_state(key, State::Reachable { mac, fresh_until_ms });
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if confirmed {
            entry.confirmed_ms = now_ms;
        }
        entry.failure_told = false;
        self.watch.is_well(&key);
        let unused_ms = entry.wanted_ms + UNUSED_MS;
        self.leave_queue(key);
        self.set_due(key, unused_ms);
    }

    pub(super) fn fail(&mut self, now_ms: u64, key: NextHop) {
        let until_ms = now_ms + FAILED_HOLD_MS;
        self.set_state(key, State::Failed { until_ms, wanted: false });
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let unused_ms = entry.wanted_ms + UNUSED_MS;
        let told = std::mem::replace(&mut entry.failure_told, true);
        let is_stranger = entry.rank == Rank::Stranger;
        let is_watched = self.watch.contains(&key);
        self.set_due(key, if is_watched { now_ms } else { unused_ms });
        self.publish(key, NeighbourState::Failed);
        // Of strangers anybody can make any number.
        if !told && !is_stranger {
            let subject = self.name(key);
            let message = format!("{subject} does not answer ARP");
            self.actions.push(Action::Event { kind: "neighbour-failed", subject, message });
        }
    }
}
