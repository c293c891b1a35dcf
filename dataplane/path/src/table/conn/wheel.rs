//! Timer wheel over conns: lazy, with links kept in the conns themselves.
//!
//! A packet only stores the time. A conn stands in a list of the slot in which it was last due;
//! when that slot comes up, the owner looks whether the conn is idle long enough, and arms it again
//! if not. Only a state change to a shorter timeout moves a conn at once. (Hashed timing wheels:
//! Varghese and Lauck, SOSP 1987, scheme 6.)
//!
//! A list is a chain of cache misses: each conn says where the next one is. So a slot has several,
//! and takes from one while the others' next conns are on their way.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::intrinsics::match_words;
use crate::time::{Millis, at_or_after};

/// Width of a slot, in ms: no conn outlives its timeout by more.
pub const SLOT_MS: u32 = 64;
/// Slots: a horizon of about 17 min; what is due later is armed again at the horizon.
const SLOTS: usize = 16_384;
const MASK: u32 = SLOTS as u32 - 1;
/// Lists of a slot.
const LANES: usize = 8;
/// End of a list.
pub const NIL: u32 = u32::MAX;

/// A conn's place in the wheel. Packed: it lies in the conn's line, where each byte counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed(2))]
pub struct Link {
    next: u32,
    /// The previous conn; anything at the head of a list.
    prev: u32,
    /// The slot that it stands in, or [`Link::NO_SLOT`].
    slot: u16,
}

impl Link {
    const NO_SLOT: u16 = u16::MAX;
    /// Not in the wheel.
    pub const UNARMED: Link = Link { next: NIL, prev: NIL, slot: Link::NO_SLOT };

    fn is_armed(&self) -> bool {
        self.slot != Self::NO_SLOT
    }
}

const _: () = assert!(SLOTS <= Link::NO_SLOT as usize, "no slot has the number of none");

/// Gives the wheel access to the links in the conns.
pub trait Links {
    /// The link of conn number `index`.
    fn link(&mut self, index: u32) -> &mut Link;
    /// Start loading it.
    fn prefetch(&self, index: u32);
}

/// The wheel of one worker.
pub struct Wheel {
    heads: Box<[[u32; LANES]]>,
    /// Number of the next slot to expire, counted from time 0 (wraps with the time).
    next_slot: u32,
    /// The list of that slot to take from next; [`LANES`] while it has not been begun.
    lane: usize,
}

impl Wheel {
    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub(crate) fn written(&self) -> std::ops::Range<usize> {
        crate::testkit::range_of(&self.heads)
    }

    /// An empty wheel that starts at `now`.
    pub fn new(now: Millis) -> Self {
        Wheel { heads: vec![[NIL; LANES]; SLOTS].into(), next_slot: now / SLOT_MS, lane: LANES }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.heads)
    }

    /// The slot that holds `deadline`, no earlier than the next to expire and no later than the
    /// horizon.
    #[inline]
    fn slot_of(&self, deadline: Millis) -> u16 {
        let start = self.next_slot.wrapping_mul(SLOT_MS);
        let ahead = deadline.wrapping_sub(start);
        let slots = if (ahead as i32) < 0 { 0 } else { (ahead / SLOT_MS).min(MASK) };
        (self.next_slot.wrapping_add(slots) & MASK) as u16
    }

    /// Put an unarmed conn into the slot of its deadline.
    #[inline(always)]
    pub fn arm(&mut self, links: &mut impl Links, index: u32, deadline: Millis) {
        let slot = self.slot_of(deadline);
        let head = self.head(slot, index);
        let next = *head;
        *head = index;
        *links.link(index) = Link { next, prev: NIL, slot };
        if next != NIL {
            links.link(next).prev = index;
        }
    }

    /// The head of the list of a slot that a conn stands in.
    #[inline(always)]
    fn head(&mut self, slot: u16, index: u32) -> &mut u32 {
        &mut self.heads[usize::from(slot)][index as usize % LANES]
    }

    /// Move a conn to the slot of its deadline if that comes sooner than the one it stands in.
    #[inline]
    pub fn arm_sooner(&mut self, links: &mut impl Links, index: u32, deadline: Millis) {
        let ahead = |slot: u16| u32::from(slot).wrapping_sub(self.next_slot) & MASK;
        let link = *links.link(index);
        if !link.is_armed() || ahead(self.slot_of(deadline)) < ahead(link.slot) {
            self.disarm(links, index);
            self.arm(links, index, deadline);
        }
    }

    /// Take a conn out; does nothing when it is not in.
    #[inline]
    pub fn disarm(&mut self, links: &mut impl Links, index: u32) {
        let link = std::mem::replace(links.link(index), Link::UNARMED);
        if !link.is_armed() {
            return;
        }
        let head = self.head(link.slot, index);
        if *head == index {
            *head = link.next;
            return;
        }
        links.link(link.prev).next = link.next;
        if link.next != NIL {
            links.link(link.next).prev = link.prev;
        }
    }

    /// For how long, in ms, the slot that is to expire next has been over; `None` while it is not.
    #[inline]
    pub fn behind(&self, now: Millis) -> Option<Millis> {
        let end = self.next_slot.wrapping_add(1).wrapping_mul(SLOT_MS);
        at_or_after(now, end).then(|| now.wrapping_sub(end))
    }

    /// The next conn whose slot is over, taken out of the wheel; the caller frees it or arms it
    /// again. `None` when nothing is due.
    #[inline]
    pub fn pop_due(&mut self, links: &mut impl Links, now: Millis) -> Option<u32> {
        loop {
            self.behind(now)?;
            let lists = &mut self.heads[(self.next_slot & MASK) as usize];
            if self.lane == LANES {
                lists.iter().filter(|head| **head != NIL).for_each(|head| links.prefetch(*head));
            }
            let filled = !match_words(lists, NIL);
            if filled == 0 {
                self.next_slot = self.next_slot.wrapping_add(1);
                self.lane = LANES;
                continue;
            }
            let first = self.lane % LANES;
            let ahead = filled.rotate_right(first as u32).trailing_zeros();
            let lane = (first + ahead as usize) % LANES;
            self.lane = (lane + 1) % LANES;
            let index = lists[lane];
            let link = std::mem::replace(links.link(index), Link::UNARMED);
            lists[lane] = link.next;
            if link.next != NIL {
                links.prefetch(link.next);
            }
            return Some(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Store(Vec<Link>);
    impl Links for Store {
        fn link(&mut self, index: u32) -> &mut Link {
            &mut self.0[index as usize]
        }
        fn prefetch(&self, _index: u32) {}
    }

    fn due(wheel: &mut Wheel, store: &mut Store, now: Millis) -> Vec<u32> {
        let mut all: Vec<u32> = std::iter::from_fn(|| wheel.pop_due(store, now)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn nothing_comes_early_and_nothing_later_than_a_slot() {
        let mut store = Store(vec![Link::UNARMED; 1_000]);
        let start = u32::MAX - 20_000; // wraps within the test
        let mut wheel = Wheel::new(start);
        for i in 0..1_000 {
            wheel.arm(&mut store, i, start.wrapping_add(i * 37));
        }
        let mut seen = 0;
        for step in 0..40_000u32 / 10 {
            let now = start.wrapping_add(step * 10);
            for i in due(&mut wheel, &mut store, now) {
                let late = now.wrapping_sub(start.wrapping_add(i * 37)) as i32;
                assert!((0..=SLOT_MS as i32 + 10).contains(&late), "conn {i} late by {late} ms");
                seen += 1;
            }
        }
        assert_eq!(seen, 1_000);
    }

    #[test]
    fn disarmed_conns_never_come_and_lists_stay_whole() {
        let mut store = Store(vec![Link::UNARMED; 9]);
        let mut wheel = Wheel::new(0);
        (0..9).for_each(|i| wheel.arm(&mut store, i, 100));
        for gone in [0, 4, 8, 4] {
            wheel.disarm(&mut store, gone);
        }
        assert_eq!(due(&mut wheel, &mut store, 1_000), [1, 2, 3, 5, 6, 7]);
        assert!(store.0.iter().all(|l| *l == Link::UNARMED));
    }

    #[test]
    fn a_deadline_beyond_the_horizon_comes_at_the_horizon() {
        let mut store = Store(vec![Link::UNARMED]);
        let mut wheel = Wheel::new(0);
        wheel.arm(&mut store, 0, 1 << 30);
        assert!(due(&mut wheel, &mut store, (SLOTS as u32 - 2) * SLOT_MS).is_empty());
        assert_eq!(due(&mut wheel, &mut store, (SLOTS as u32 + 1) * SLOT_MS), [0]);
    }
}
