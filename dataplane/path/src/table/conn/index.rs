//! Open-addressed hash index from a flow to its conn: one cache line per bucket of eight entries,
//! matched by SIMD over 16-bit tags.
//!
//! An entry lives in its primary bucket, or, when that is full, in its secondary one, which is
//! computed from bucket and tag alone, so that entries can be moved without their keys (partial-key
//! cuckoo hashing, Fan et al., CoNEXT 2014). A bucket counts the entries that had to go elsewhere:
//! while that is zero, a miss costs one cache line.

use std::hint::cold_path;

use crate::ids::Direction;
use crate::intrinsics::{match_tags, prefetch_far};
use crate::memory::{Pages, TableMemory};

/// Lanes of a bucket.
const LANES: usize = 8;

/// A reference kept in the index: the conn's number and which of its two directions this flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRef(u32);

/// Most conns of a kind, a power of two: more than limits allow.
pub const MAX_CONNS: u32 = 1 << 28;
// Plain lines and two for each wide conn.
const _: () = assert!(3 * MAX_CONNS < ConnRef::WIDE, "wide numbers are out of bounds");

impl ConnRef {
    const FROM_BACKEND: u32 = 1 << 31;
    const WIDE: u32 = 1 << 30;
    /// No conn.
    pub const NONE: ConnRef = ConnRef(u32::MAX);

    /// The direction from client to backend of a conn.
    pub const fn from_client(conn: u32) -> Self {
        ConnRef(conn)
    }

    /// The direction from backend to client of a conn.
    pub const fn from_backend(conn: u32) -> Self {
        ConnRef(conn | Self::FROM_BACKEND)
    }

    /// The conn's number.
    #[inline(always)]
    pub const fn conn(self) -> usize {
        (self.0 & !Self::FROM_BACKEND) as usize
    }

    /// Which number the wide conn of this place among them has: one that no plain conn has.
    pub(super) const fn wide(place: u32) -> u32 {
        place | Self::WIDE
    }

    /// Whether it is a wide conn.
    #[inline(always)]
    pub const fn is_wide(self) -> bool {
        self.0 & Self::WIDE != 0 && !self.is_none()
    }

    /// A wide conn's place among them.
    pub(super) const fn wide_number(self) -> usize {
        (self.0 & !(Self::FROM_BACKEND | Self::WIDE)) as usize
    }

    /// Whether this flow comes from the backend.
    #[inline(always)]
    pub const fn is_from_backend(self) -> bool {
        self.0 & Self::FROM_BACKEND != 0
    }

    /// Which way this flow goes.
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.is_from_backend() { Direction::FromBackend } else { Direction::FromClient }
    }

    /// Whether there is no conn.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == u32::MAX
    }
}

#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 is an empty lane.
    tags: [u16; LANES],
    refs: [ConnRef; LANES],
    /// Entries whose primary bucket this is and which live in their secondary one.
    displaced: u32,
    /// Lanes whose entry has its primary bucket elsewhere.
    secondary: u8,
}

impl Bucket {
    const EMPTY: Bucket =
        Bucket { tags: [0; LANES], refs: [ConnRef::NONE; LANES], displaced: 0, secondary: 0 };

    fn free_lane(&self) -> Option<usize> {
        match match_tags(&self.tags, 0) {
            0 => None,
            mask => Some(mask.trailing_zeros() as usize),
        }
    }

    /// The first entry with this tag.
    #[inline(always)]
    fn first(&self, tag: u16) -> Option<ConnRef> {
        match match_tags(&self.tags, tag) {
            0 => None,
            mask => Some(self.refs[mask.trailing_zeros() as usize & (LANES - 1)]),
        }
    }

    fn put(&mut self, lane: usize, tag: u16, conn: ConnRef, is_secondary: bool) {
        self.tags[lane] = tag;
        self.refs[lane] = conn;
        self.secondary = self.secondary & !(1 << lane) | u8::from(is_secondary) << lane;
    }
}

/// Where a flow's entry can be: derived from its hash.
#[derive(Clone, Copy, Debug)]
struct Place {
    primary: usize,
    tag: u16,
}

/// The index of one worker.
pub struct ConnIndex {
    buckets: TableMemory<Bucket>,
    len: usize,
}

impl ConnIndex {
    /// An index for up to `entries` flows, filled to at most half.
    pub fn new(entries: usize, pages: Pages) -> Self {
        let buckets = (entries * 2).div_ceil(LANES).next_power_of_two().max(2);
        ConnIndex { buckets: TableMemory::filled(buckets, &Bucket::EMPTY, pages), len: 0 }
    }

    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub(crate) fn written(&self) -> std::ops::Range<usize> {
        crate::testkit::range_of(&self.buckets)
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Flows in the index.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no flow is in the index.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> Place {
        Place { primary: hash as usize & (self.buckets.len() - 1), tag: (hash >> 48) as u16 | 1 }
    }

    /// The other bucket of an entry with this tag; its own inverse.
    #[inline(always)]
    fn other(&self, bucket: usize, tag: u16) -> usize {
        // An odd multiplier and `| 1` keep the two buckets apart.
        bucket
            ^ ((u32::from(tag).wrapping_mul(0x5bd1_e995) | 1) as usize & (self.buckets.len() - 1))
    }

    /// Start loading the bucket that a hash leads to.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch_far(&self.buckets, self.place(hash).primary);
    }

    /// The first entry with the hash's tag, if any has it: nearly always the right one, but the
    /// caller must compare keys, and call [`find`](Self::find) when they differ.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> Option<ConnRef> {
        let Place { primary, tag } = self.place(hash);
        let bucket = &self.buckets[primary];
        let candidate = bucket.first(tag);
        if candidate.is_none() {
            // The straight way is that of packets with a conn.
            cold_path();
            if bucket.displaced != 0 {
                return self.displaced_candidate(primary, tag);
            }
        }
        candidate
    }

    /// The same for an entry that is not in its primary bucket.
    #[cold]
    #[inline(never)]
    fn displaced_candidate(&self, primary: usize, tag: u16) -> Option<ConnRef> {
        self.buckets[self.other(primary, tag)].first(tag)
    }

    /// The entry for which `is_it` holds, among those with the hash's tag.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(ConnRef) -> bool) -> ConnRef {
        match self.locate(hash, &mut is_it) {
            Some((bucket, lane)) => self.buckets[bucket].refs[lane],
            None => ConnRef::NONE,
        }
    }

    fn locate(&self, hash: u64, is_it: &mut impl FnMut(ConnRef) -> bool) -> Option<(usize, usize)> {
        let Place { primary, tag } = self.place(hash);
        let secondary = self.other(primary, tag);
        let both = if self.buckets[primary].displaced == 0 { 1 } else { 2 };
        for bucket in [primary, secondary].into_iter().take(both) {
            let mut mask = match_tags(&self.buckets[bucket].tags, tag);
            while mask != 0 {
                let lane = mask.trailing_zeros() as usize & (LANES - 1);
                if is_it(self.buckets[bucket].refs[lane]) {
                    return Some((bucket, lane));
                }
                mask &= mask - 1;
            }
        }
        None
    }

    /// Add an entry; false when there is no room for it within a bounded search. The caller makes
    /// sure that the flow is not in the index already.
    #[must_use]
    pub fn insert(&mut self, hash: u64, conn: ConnRef) -> bool {
        let Place { primary, tag } = self.place(hash);
        if let Some(lane) = self.buckets[primary].free_lane() {
            self.buckets[primary].put(lane, tag, conn, false);
        } else {
            let secondary = self.other(primary, tag);
            if let Some(lane) = self.buckets[secondary].free_lane() {
                self.buckets[secondary].put(lane, tag, conn, true);
                self.buckets[primary].displaced += 1;
            } else if let Some(lane) = self.make_room(primary) {
                self.buckets[primary].put(lane, tag, conn, false);
            } else {
                return false;
            }
        }
        self.len += 1;
        true
    }

    /// Move one entry of a full bucket to its other bucket; the freed lane.
    fn make_room(&mut self, full: usize) -> Option<usize> {
        for lane in 0..LANES {
            let tag = self.buckets[full].tags[lane];
            let target = self.other(full, tag);
            let Some(free) = self.buckets[target].free_lane() else { continue };
            let goes_home = self.buckets[full].secondary & 1 << lane != 0;
            let conn = self.buckets[full].refs[lane];
            self.buckets[target].put(free, tag, conn, !goes_home);
            if goes_home {
                self.buckets[target].displaced -= 1;
            } else {
                self.buckets[full].displaced += 1;
            }
            self.buckets[full].tags[lane] = 0;
            return Some(lane);
        }
        None
    }

    /// Remove the entry of a flow; whether it was there.
    pub fn remove(&mut self, hash: u64, conn: ConnRef) -> bool {
        let Some((bucket, lane)) = self.locate(hash, &mut |r| r == conn) else { return false };
        self.buckets[bucket].tags[lane] = 0;
        if self.buckets[bucket].secondary & 1 << lane != 0 {
            let primary = self.place(hash).primary;
            self.buckets[primary].displaced -= 1;
        }
        self.len -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// xorshift64: the same sequence every time.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn agrees_with_a_hash_map_over_a_million_operations() {
        let mut index = ConnIndex::new(4_096, Pages::Transparent);
        let mut model: HashMap<u32, u64> = HashMap::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for _ in 0..1_000_000 {
            let number = next(&mut seed) as u32 % 4_096;
            let conn = ConnRef::from_client(number);
            match model.get(&number).copied() {
                None => {
                    // A narrow hash makes tags and buckets collide.
                    let hash = next(&mut seed) & 0x0003_0000_0000_01ff;
                    if index.insert(hash, conn) {
                        model.insert(number, hash);
                    }
                }
                Some(hash) if next(&mut seed).is_multiple_of(2) => {
                    assert!(index.remove(hash, conn));
                    model.remove(&number);
                }
                Some(hash) => assert_eq!(index.find(hash, |r| r == conn), conn),
            }
            assert_eq!(index.len(), model.len());
        }
        for (number, hash) in model {
            assert!(index.remove(hash, ConnRef::from_client(number)));
        }
        assert!(index.buckets.iter().all(|b| b.tags == [0; LANES] && b.displaced == 0));
    }

    #[test]
    fn takes_every_entry_it_was_sized_for() {
        for entries in [1, 64, 1_000, 65_536] {
            let mut index = ConnIndex::new(entries, Pages::Transparent);
            let mut seed = 42;
            let hashes: Vec<u64> = (0..entries).map(|_| next(&mut seed)).collect();
            for (i, hash) in hashes.iter().enumerate() {
                assert!(index.insert(*hash, ConnRef::from_client(i as u32)), "{i} of {entries}");
            }
            for (i, hash) in hashes.iter().enumerate() {
                let conn = ConnRef::from_client(i as u32);
                assert_eq!(index.find(*hash, |r| r == conn), conn);
            }
        }
    }

    #[test]
    fn a_reference_keeps_number_and_direction() {
        let conn = ConnRef::from_backend(0x7fff_fff0);
        assert_eq!((conn.conn(), conn.is_from_backend()), (0x7fff_fff0, true));
        assert!(!ConnRef::from_client(3).is_from_backend() && ConnRef::NONE.is_none());
    }

    /// So that it is out of bounds for their lines.
    #[test]
    fn no_wide_conn_has_the_number_of_a_plain_one() {
        for place in [0, 7, MAX_CONNS - 1] {
            for conn in [ConnRef::from_client, ConnRef::from_backend] {
                let (plain, wide) = (conn(place), conn(ConnRef::wide(place)));
                assert!(wide.is_wide() && !plain.is_wide() && !wide.is_none());
                assert!(wide.conn() >= MAX_CONNS as usize && plain.conn() < MAX_CONNS as usize);
                assert_eq!(
                    (wide.wide_number(), wide.direction()),
                    (place as usize, plain.direction())
                );
            }
        }
        assert!(!ConnRef::NONE.is_wide() && ConnRef::NONE.conn() >= MAX_CONNS as usize);
    }
}
