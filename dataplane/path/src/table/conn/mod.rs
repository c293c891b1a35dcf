//! Conns of one worker: one cache line each, found by either direction through the index.

mod expiry;
pub mod half_open;
pub mod index;
mod plain;
pub mod resting;
pub mod seq;
pub mod state;
pub mod wheel;

use crate::flow::{FlowHasher, FlowKey, Tuple};
use crate::intrinsics::{prefetch_far, prefetch_index};
use crate::memory::{Pages, TableMemory};
use crate::time::Millis;

use expiry::Walk;
use index::ConnIndex;
use plain::Phase;
use state::{ConnState, Fins, StateTimeouts};
use wheel::{Link, Links, NIL, Wheel};

pub use index::ConnRef;
pub use plain::{Conn, NewConn, Rewrite};

/// Why a conn could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// All conns are in use, or the index has no room near this flow's place.
    Full,
    /// The return flow belongs to another conn: this local port is taken towards this backend.
    ReturnFlowTaken,
}

struct Lines(TableMemory<Conn>);

impl Links for Lines {
    #[inline(always)]
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize].link
    }

    #[inline(always)]
    fn prefetch(&self, index: u32) {
        prefetch_index(&self.0, index as usize);
    }
}

/// The conns of one worker.
pub struct ConnTable {
    index: ConnIndex,
    lines: Lines,
    hasher: FlowHasher,
    wheel: Wheel,
    /// Free conns, the last freed first: their lines are the likeliest to be in the cache.
    free: Vec<u32>,
    /// Conns freed while a burst is under way: packets of it may still refer to them, so they are
    /// not used again before [`end_burst`](Self::end_burst).
    freed_in_burst: Vec<u32>,
    walk: Walk,
}

impl ConnTable {
    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub(crate) fn written(&self) -> Vec<std::ops::Range<usize>> {
        use crate::testkit::range_of;
        vec![
            range_of(&self.lines.0),
            self.index.written(),
            self.wheel.written(),
            range_of(&self.free),
            self.freed_in_burst.as_ptr().addr()
                ..self.freed_in_burst.as_ptr().addr() + 4 * self.freed_in_burst.capacity(),
        ]
    }

    /// A table of `capacity` conns (at most 2^31 - 2). All memory is taken and touched here.
    pub fn new(capacity: u32, hasher: FlowHasher, now: Millis, pages: Pages) -> Self {
        assert!(capacity < NIL >> 1, "a conn's number is 31 bits");
        ConnTable {
            index: ConnIndex::new(capacity as usize * 2, pages),
            lines: Lines(TableMemory::filled(capacity as usize, &Conn::FREE, pages)),
            hasher,
            wheel: Wheel::new(now),
            free: (0..capacity).rev().collect(),
            freed_in_burst: Vec::with_capacity(1_024),
            walk: Walk { next: capacity as usize },
        }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        let free = (self.free.capacity() + self.freed_in_burst.capacity()) * size_of::<u32>();
        self.index.bytes() + size_of_val(&*self.lines.0) + self.wheel.bytes() + free
    }

    /// Of it, the index, in bytes.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Conns that there can be.
    pub fn capacity(&self) -> usize {
        self.lines.0.len()
    }

    /// Conns that there are.
    pub fn len(&self) -> usize {
        self.capacity() - self.free.len() - self.freed_in_burst.len()
    }

    /// Whether there is no conn.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        let candidate = self.index.candidate(hash);
        prefetch_far(&self.lines.0, candidate.conn());
        candidate
    }

    /// The conn of a flow, given its candidate: the candidate itself in all but one of thousands
    /// of cases, where tags collide.
    #[inline(always)]
    pub fn confirm(&self, candidate: ConnRef, hash: u64, tuple: &Tuple) -> ConnRef {
        match self.lines.0.get(candidate.conn()) {
            Some(line) if line.is_flow(tuple, candidate) => candidate,
            Some(_) => self.find(hash, tuple),
            None => ConnRef::NONE,
        }
    }

    /// The conn of a flow.
    #[inline(never)]
    pub fn find(&self, hash: u64, tuple: &Tuple) -> ConnRef {
        self.index.find(hash, |conn| self.lines.0[conn.conn()].is_flow(tuple, conn))
    }

    /// A flow's hash.
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash(tuple)
    }

    /// The conn of a flow that has not been hashed.
    pub fn find_key(&self, key: &FlowKey) -> ConnRef {
        let tuple = Tuple::from(key);
        self.find(self.hasher.hash(&tuple), &tuple)
    }

    /// A conn's line.
    #[inline(always)]
    pub fn get(&self, conn: ConnRef) -> &Conn {
        &self.lines.0[conn.conn()]
    }

    /// A conn's line, to cache next hops in it.
    #[inline(always)]
    pub fn get_mut(&mut self, conn: ConnRef) -> &mut Conn {
        &mut self.lines.0[conn.conn()]
    }

    /// All lines, by number, to note packets that change no state.
    #[inline(always)]
    pub fn lines_mut(&mut self) -> &mut [Conn] {
        &mut self.lines.0
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
        let line = &mut self.lines.0[conn.conn()];
        line.last_seen = now;
        let phase = Phase::new(state, fins);
        if line.phase == phase {
            return;
        }
        let of = |state: ConnState| timeouts[line.service_slot as usize][state as usize];
        let sooner = of(state) < of(line.state());
        let deadline = now.wrapping_add(of(state));
        line.phase = phase;
        if sooner {
            self.wheel.arm_sooner(&mut self.lines, conn.conn() as u32, deadline);
        }
    }

    /// Conns that can still be made.
    #[inline(always)]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Start loading what [`insert`](Self::insert) will touch for this conn, when so many others
    /// are inserted before it.
    #[inline(always)]
    pub fn prefetch_new(&self, new: &NewConn, before: usize) {
        if let Some(back) = &new.from_backend {
            self.index.prefetch(self.hasher.hash(&Tuple::from(back)));
        }
        if let Some(number) = self.free.iter().nth_back(before) {
            prefetch_far(&self.lines.0, *number as usize);
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
        let Some(&number) = self.free.last() else { return Err(InsertError::Full) };
        let conn = ConnRef::from_client(number);
        if let Some(back) = &new.from_backend {
            let back = Tuple::from(back);
            let back_hash = self.hasher.hash(&back);
            if !self.find(back_hash, &back).is_none() {
                return Err(InsertError::ReturnFlowTaken);
            }
            let back_ref = ConnRef::from_backend(number);
            if !self.index.insert(back_hash, back_ref) {
                return Err(InsertError::Full);
            }
            if !self.index.insert(hash, conn) {
                self.index.remove(back_hash, back_ref);
                return Err(InsertError::Full);
            }
        } else if !self.index.insert(hash, conn) {
            return Err(InsertError::Full);
        }
        self.free.pop();
        self.lines.0[number as usize] = new.line(now);
        let timeout = timeouts[new.service_slot as usize][new.state as usize];
        self.wheel.arm(&mut self.lines, number, now.wrapping_add(timeout));
        Ok(conn)
    }

    /// Remove a conn. Its line keeps its contents until the burst ends.
    pub fn remove(&mut self, conn: ConnRef) {
        let number = conn.conn() as u32;
        assert!(self.lines.0[number as usize].protocol != 0, "a conn is removed once");
        let hashes = self.hashes(number);
        self.wheel.disarm(&mut self.lines, number);
        self.unlink(number, hashes);
    }

    /// The hashes of a conn's flows; the second one counts in full-NAT only.
    fn hashes(&self, number: u32) -> [u64; 2] {
        let line = &self.lines.0[number as usize];
        [0, 1].map(|direction| self.hasher.hash(&line.tuple(direction)))
    }

    /// Take a conn that is not in the wheel out of the index, and free it.
    fn unlink(&mut self, number: u32, hashes: [u64; 2]) {
        let line = &mut self.lines.0[number as usize];
        line.protocol = 0;
        let directions = if line.is_full_nat() { 2 } else { 1 };
        let refs = [ConnRef::from_client(number), ConnRef::from_backend(number)];
        for (hash, conn) in hashes.into_iter().zip(refs).take(directions) {
            let known = self.index.remove(hash, conn);
            debug_assert!(known, "every direction of a conn is in the index");
        }
        self.freed_in_burst.push(number);
    }

    /// No packet refers to a removed conn any more: their numbers may be used again.
    #[inline(always)]
    pub fn end_burst(&mut self) {
        if !self.freed_in_burst.is_empty() {
            self.free.append(&mut self.freed_in_burst);
        }
    }
}
