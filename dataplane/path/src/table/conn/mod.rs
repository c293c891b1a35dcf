//! Conns of one worker: one cache line each, found by either direction through the index.

mod expiry;
mod free;
pub mod half_open;
mod head;
pub mod index;
mod line;
mod plain;
pub mod resting;
pub mod seq;
pub mod state;
pub mod wheel;
mod wide;

use std::hint::cold_path;

use zerocopy::{transmute_mut, transmute_ref};

use crate::flow::{FlowHasher, FlowKey, Tuple, WideTuple};
use crate::ids::Direction;
use crate::intrinsics::prefetch_far;
use crate::memory::Pages;
use crate::time::Millis;

use expiry::Walk;
use free::Free;
use head::Phase;
use index::{ConnIndex, MAX_CONNS};
use line::{Lines, write_whole};
use state::{ConnState, Fins, StateTimeouts};
use wheel::Wheel;

pub use head::Head;
pub use index::ConnRef;
pub use line::Line;
pub use plain::{Conn, NewConn, Rewrite};
pub use wide::{NewWideConn, WideConn};

/// Why a conn could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// All conns are in use, or the index has no room near this flow's place.
    Full,
    /// The return flow belongs to another conn: this local port is taken towards this backend.
    ReturnFlowTaken,
}

/// The conns of one worker.
pub struct ConnTable {
    index: ConnIndex,
    lines: Lines,
    hasher: FlowHasher,
    wheel: Wheel,
    free: Free,
    free_wide: Free,
    walk: Walk,
}

impl ConnTable {
    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub(crate) fn written(&self) -> Vec<std::ops::Range<usize>> {
        use crate::testkit::range_of;
        let mut all =
            vec![range_of(self.lines.memory()), self.index.written(), self.wheel.written()];
        all.extend(self.free.written());
        all.extend(self.free_wide.written());
        all
    }

    /// A table of `capacity` plain conns (at most 2^28). All memory is taken and touched here.
    pub fn new(capacity: u32, hasher: FlowHasher, now: Millis, pages: Pages) -> Self {
        Self::with_wide(capacity, 0, hasher, now, pages)
    }

    /// A table of so many plain and so many wide conns (at most 2^28 of each).
    pub fn with_wide(plain: u32, wide: u32, hasher: FlowHasher, now: Millis, pages: Pages) -> Self {
        assert!(plain.max(wide) <= MAX_CONNS, "a conn's number is 28 bits");
        let lines = Lines::free(plain, wide, pages);
        ConnTable {
            index: ConnIndex::new((plain + wide) as usize * 2, pages),
            hasher,
            wheel: Wheel::new(now),
            free: Free::of((0..plain).rev()),
            free_wide: Free::of((0..wide as usize).rev().map(|number| lines.wide_place(number))),
            walk: Walk { next: lines.memory().len() },
            lines,
        }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        let lines = size_of_val(self.lines.memory());
        let free = self.free.bytes() + self.free_wide.bytes();
        self.index.bytes() + lines + self.wheel.bytes() + free
    }

    /// Of it, the index, in bytes.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Plain conns that there can be.
    pub fn capacity(&self) -> usize {
        self.lines.plain().len()
    }

    /// Plain conns that there are.
    pub fn len(&self) -> usize {
        self.capacity() - self.free.len()
    }

    /// Whether there is no conn of either kind.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.wide_len() == 0
    }

    /// Start loading what [`candidate`](Self::candidate) will read.
    #[inline(always)]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The likely conn of a flow, its cache line on the way: to be confirmed by
    /// [`confirm`](Self::confirm).
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> ConnRef {
        let Some(candidate) = self.index.candidate(hash) else { return ConnRef::NONE };
        prefetch_far(self.lines.memory(), candidate.conn());
        candidate
    }

    /// The conn of a flow, given its candidate: the candidate itself in all but one of thousands
    /// of cases, where tags collide.
    #[inline(always)]
    pub fn confirm(&self, candidate: ConnRef, hash: u64, tuple: &Tuple) -> ConnRef {
        match self.lines.memory().get(candidate.conn()) {
            Some(line) if line.is_flow(tuple, candidate) => candidate,
            // None, told by the number at hand: nothing else is out of bounds but wide ones.
            None if candidate.conn() == ConnRef::NONE.conn() => candidate,
            None => {
                cold_path();
                self.find(hash, tuple)
            }
            Some(_) => self.find(hash, tuple),
        }
    }

    /// The conn of a flow.
    #[inline(never)]
    pub fn find(&self, hash: u64, tuple: &Tuple) -> ConnRef {
        self.index.find(hash, |conn| self.lines.is_flow(conn, tuple))
    }

    /// A flow's hash.
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash(tuple)
    }

    /// That of one of any family.
    pub fn hash_wide(&self, tuple: &WideTuple) -> u64 {
        self.hasher.hash_wide(tuple)
    }

    /// The conn of a flow that has not been hashed.
    pub fn find_key(&self, key: &FlowKey) -> ConnRef {
        let tuple = Tuple::from(key);
        self.find(self.hasher.hash(&tuple), &tuple)
    }

    /// A plain conn's line.
    #[inline(always)]
    pub fn get(&self, conn: ConnRef) -> &Conn {
        &self.lines.memory()[conn.conn()]
    }

    /// A plain conn's line, to note what is found out about it.
    #[inline(always)]
    pub fn get_mut(&mut self, conn: ConnRef) -> &mut Conn {
        &mut self.lines.memory_mut()[conn.conn()]
    }

    /// A conn's line, whichever kind it is.
    #[inline(always)]
    pub fn line(&self, conn: ConnRef) -> Line<'_> {
        self.lines.get(self.lines.place(conn))
    }

    /// What the lines of both kinds have.
    #[inline(always)]
    pub fn head(&self, conn: ConnRef) -> &Head {
        self.lines.head(self.lines.place(conn))
    }

    /// Lines, a plain conn's by its number, to note packets that change no state. A wide conn's number
    /// is out of bounds.
    #[inline(always)]
    pub fn lines_mut(&mut self) -> &mut [Conn] {
        self.lines.memory_mut()
    }

    /// The lines of all plain conns.
    pub fn plain(&self) -> &[Conn] {
        self.lines.plain()
    }

    /// A packet of the conn was seen: note the time, and the state that it leads to.
    #[inline(always)]
    pub fn touch(
        &mut self,
        conn: ConnRef,
        state: ConnState,
        fins: Fins,
        now: Millis,
        timeouts: &[StateTimeouts],
    ) {
        let place = self.lines.place(conn);
        let line = self.lines.head_mut(place);
        line.last_seen = now;
        let phase = Phase::new(state, fins);
        if line.phase == phase {
            return;
        }
        let of = |state: ConnState| timeouts[line.service_slot.index()][state as usize];
        let sooner = of(state) < of(line.state());
        let deadline = now.wrapping_add(of(state));
        line.phase = phase;
        if sooner {
            self.wheel.arm_sooner(&mut self.lines, place, deadline);
        }
    }

    /// Plain conns that can still be made, before the burst ends.
    #[inline(always)]
    pub fn free(&self) -> usize {
        self.free.ready()
    }

    /// Start loading what [`insert`](Self::insert) will touch for this conn, when so many others
    /// are inserted before it.
    #[inline(always)]
    pub fn prefetch_new(&self, new: &NewConn, before: usize) {
        if let Some(back) = &new.from_backend {
            self.index.prefetch(self.hasher.hash(&Tuple::from(back)));
        }
        if let Some(number) = self.free.nth(before) {
            prefetch_far(self.lines.memory(), number as usize);
        }
    }

    /// Make a conn, both directions at once.
    ///
    /// # Errors
    /// Nothing is changed when there is no room, or when the return flow is taken.
    pub fn insert(
        &mut self,
        new: &NewConn,
        hash: u64,
        now: Millis,
        timeouts: &[StateTimeouts],
    ) -> Result<ConnRef, InsertError> {
        let Some(number) = self.free.next() else { return Err(InsertError::Full) };
        let mut back_hash = None;
        if let Some(back) = &new.from_backend {
            let back = Tuple::from(back);
            let hash = self.hasher.hash(&back);
            if !self.find(hash, &back).is_none() {
                return Err(InsertError::ReturnFlowTaken);
            }
            back_hash = Some(hash);
        }
        if !self.enter(number, hash, back_hash) {
            return Err(InsertError::Full);
        }
        self.free.take();
        let line = new.line(now);
        let memory: &mut [u64; 8] = transmute_mut!(&mut self.lines.memory_mut()[number as usize]);
        write_whole::<8>(transmute_ref!(&line), |at, word| memory[at] = word);
        let timeout = timeouts[new.service_slot.index()][new.state as usize];
        self.wheel.arm(&mut self.lines, number, now.wrapping_add(timeout));
        Ok(ConnRef::from_client(number))
    }

    /// Enter both directions of a conn into the index, or the only one; neither when there is no
    /// room.
    #[inline(always)]
    fn enter(&mut self, number: u32, hash: u64, back_hash: Option<u64>) -> bool {
        let back = ConnRef::from_backend(number);
        if let Some(back_hash) = back_hash
            && !self.index.insert(back_hash, back)
        {
            return false;
        }
        let is_entered = self.index.insert(hash, ConnRef::from_client(number));
        if let (false, Some(back_hash)) = (is_entered, back_hash) {
            self.index.remove(back_hash, back);
        }
        is_entered
    }

    /// Remove a conn. Its line keeps its contents until the burst ends.
    pub fn remove(&mut self, conn: ConnRef) {
        let place = self.lines.place(conn);
        assert!(self.lines.head(place).is_there(), "a conn is removed once");
        let hashes = self.hashes(place);
        self.wheel.disarm(&mut self.lines, place);
        self.unlink(place, hashes);
    }

    /// The hashes of a conn's flows; the second one counts when the backend's packets pass here.
    #[inline(always)]
    fn hashes(&self, place: u32) -> [u64; 2] {
        match self.lines.get(place) {
            Line::Plain(line) => {
                Direction::BOTH.map(|direction| self.hasher.hash(&line.tuple(direction)))
            }
            Line::Wide(line) => self.wide_hashes(line),
        }
    }

    /// Take a conn that is not in the wheel out of the index, and free it.
    #[inline(always)]
    fn unlink(&mut self, place: u32, hashes: [u64; 2]) {
        let head = self.lines.head_mut(place);
        head.end();
        let directions = if head.sees_replies() { 2 } else { 1 };
        let (number, free) = if self.lines.is_wide(place) {
            (self.lines.number_at(place), &mut self.free_wide)
        } else {
            (place, &mut self.free)
        };
        free.give_back(place);
        let refs = [ConnRef::from_client(number), ConnRef::from_backend(number)];
        for (hash, conn) in hashes.into_iter().zip(refs).take(directions) {
            let known = self.index.remove(hash, conn);
            debug_assert!(known, "every direction of a conn is in the index");
        }
    }

    /// No packet refers to a removed conn any more: their numbers may be used again.
    #[inline(always)]
    pub fn end_burst(&mut self) {
        self.free.end_burst();
        self.free_wide.end_burst();
    }
}
