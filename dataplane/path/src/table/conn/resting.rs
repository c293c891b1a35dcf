//! Conns that rest, in the order in which they began to: who has to go first when the table is full.
//!
//! A ring of notes, as many as there can be conns. A note is not taken out when its conn goes:
//! whoever looks finds out by the conn itself.

use super::state::ConnState;
use super::{ConnRef, ConnTable};

/// Old notes that are looked at with each new one: so there are never many that stand for nothing.
const LOOKS_PER_NOTE: usize = 2;
/// Notes looked at for one conn that gives way.
const MOST_LOOKS: usize = 256;

/// The notes of one worker.
pub struct Resting {
    ring: Box<[u32]>,
    /// Of the oldest note.
    first: usize,
    len: usize,
}

impl Resting {
    /// For a table of so many conns.
    pub fn new(conns: u32) -> Self {
        Resting { ring: vec![0; conns as usize].into(), first: 0, len: 0 }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.ring)
    }

    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub(crate) fn written(&self) -> std::ops::Range<usize> {
        crate::testkit::range_of(&self.ring)
    }

    /// A conn begins to rest. Should the ring be full its oldest note is forgotten: that conn has
    /// nothing to fear but its timeout.
    pub fn push(&mut self, conn: ConnRef, conns: &ConnTable) {
        for _ in 0..LOOKS_PER_NOTE {
            if self.oldest().is_some_and(|oldest| !rests(conns, oldest)) {
                self.drop_oldest();
            }
        }
        if self.len == self.ring.len() {
            self.drop_oldest();
        }
        let end = (self.first + self.len) % self.ring.len();
        self.ring[end] = conn.conn() as u32;
        self.len += 1;
    }

    fn oldest(&self) -> Option<ConnRef> {
        (self.len > 0).then(|| ConnRef::from_client(self.ring[self.first]))
    }

    fn drop_oldest(&mut self) {
        self.first = (self.first + 1) % self.ring.len();
        self.len -= 1;
    }

    /// Take out the conn that has rested for longest, among the oldest notes.
    pub fn pop(&mut self, conns: &ConnTable) -> Option<ConnRef> {
        for _ in 0..MOST_LOOKS {
            let oldest = self.oldest()?;
            self.drop_oldest();
            if rests(conns, oldest) {
                return Some(oldest);
            }
        }
        None
    }
}

fn rests(conns: &ConnTable, conn: ConnRef) -> bool {
    let line = conns.head(conn);
    line.is_there() && line.state() == ConnState::Resting
}
