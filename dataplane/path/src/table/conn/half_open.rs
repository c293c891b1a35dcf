//! Half-open conns in the order in which they were made: who has to go first when there is no room.
//!
//! A ring of notes, a quarter as many as there can be conns. Notes are not taken out when a handshake
//! completes: whoever looks finds out by the conn itself.

use sluice_wire::ipv4::PROTO_TCP;

use super::head::Head;
use super::{ConnRef, ConnTable};
use crate::ids::{BackendSlot, ServiceSlot};
use crate::time::{Millis, at_or_after};

/// How long a half-open conn is left alone after its last packet, in ms: a handshake that is under
/// way is completed, or its SYN repeated (RFC 6298, 2.1), within that time.
const UNTOUCHABLE_MS: u32 = 1_000;
/// How long nobody looks again when no conn had been silent for long enough, in ms.
const LOOK_AGAIN_MS: u32 = 10;
/// Notes at the front that are looked at whether their conns are still half-open.
const MOST_LOOKS: usize = 256;
/// Notes looked at for one conn: they lie in a row, 16 KiB of them.
const MOST_NOTES: usize = 2_048;
/// Conns looked at for one: each is a line of memory.
const MOST_LINES: usize = 256;

#[derive(Clone, Copy)]
struct Note {
    conn: u32,
    service_slot: ServiceSlot,
}

/// A service and a backend, as far as they matter.
type Wanted = (Option<ServiceSlot>, Option<BackendSlot>);

/// The notes of one worker.
pub struct HalfOpen {
    ring: Box<[Note]>,
    /// Of the oldest note.
    first: usize,
    len: usize,
    /// How many notes behind the first the next look begins that is for one service's: when others'
    /// are in front, the next one comes further.
    next_look: usize,
    /// What nothing was found for, and when it is looked for again.
    none_before: Option<(Wanted, Millis)>,
}

impl HalfOpen {
    /// For a table of so many conns.
    pub fn new(conns: u32) -> Self {
        let size = (conns as usize / 4).max(64).next_power_of_two();
        HalfOpen {
            ring: vec![Note { conn: 0, service_slot: ServiceSlot(0) }; size].into(),
            first: 0,
            len: 0,
            next_look: 0,
            none_before: None,
        }
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

    /// A half-open conn was made. When the ring is full the oldest note is forgotten: that conn has
    /// nothing to fear but its timeout.
    #[inline(always)]
    pub fn push(&mut self, conn: ConnRef, service_slot: ServiceSlot) {
        let mask = self.ring.len() - 1;
        self.ring[(self.first + self.len) & mask] = Note { conn: conn.conn() as u32, service_slot };
        if self.len <= mask {
            self.len += 1;
        } else {
            self.first = (self.first + 1) & mask;
        }
    }

    /// The oldest conn that is still half-open, of a service and towards a backend when these are
    /// given, and silent for a second; among the oldest notes.
    pub fn oldest(
        &mut self,
        conns: &ConnTable,
        service: Option<ServiceSlot>,
        backend: Option<BackendSlot>,
        now: Millis,
    ) -> Option<ConnRef> {
        // A flood against what is full costs a look at the clock.
        if let Some((wanted, then)) = self.none_before
            && wanted == (service, backend)
            && !at_or_after(now, then)
        {
            return None;
        }
        let mask = self.ring.len() - 1;
        let mut looks = 0;
        while self.len > 0
            && looks < MOST_LOOKS
            && self.ring[self.first].stands_for(conns).is_none()
        {
            self.first = (self.first + 1) & mask;
            self.len -= 1;
            looks += 1;
        }
        self.none_before = None;
        let start = match service {
            Some(_) if self.next_look < self.len => self.next_look,
            _ => 0,
        };
        let end = self.len.min(start + MOST_NOTES);
        let mut lines = 0;
        let found = (start..end).find(|nth| {
            let note = self.ring[(self.first + nth) & mask];
            if lines == MOST_LINES || service.is_some_and(|slot| slot != note.service_slot) {
                return false;
            }
            lines += 1;
            note.stands_for(conns).is_some_and(|line| {
                backend.is_none_or(|slot| slot == line.backend_slot())
                    && now.wrapping_sub(line.last_seen()) >= UNTOUCHABLE_MS
            })
        });
        if service.is_some() {
            self.next_look = found.unwrap_or(end);
        }
        let found = found.map(|nth| self.ring[(self.first + nth) & mask].conn);
        let found = found.map(ConnRef::from_client);
        if found.is_none() {
            self.none_before = Some(((service, backend), now.wrapping_add(LOOK_AGAIN_MS)));
        }
        found
    }
}

impl Note {
    /// The conn that was noted, while it is half-open.
    fn stands_for<'a>(&self, conns: &'a ConnTable) -> Option<&'a Head> {
        let line = conns.head(ConnRef::from_client(self.conn));
        (line.is_there()
            && line.protocol() == PROTO_TCP
            && line.state().is_half_open()
            && line.service_slot() == self.service_slot)
            .then_some(line)
    }
}
