//! One worker's part of a space.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::blocks::Blocks;
use crate::counters::Counter;

/// Candidates of a block, at the least.
pub const BLOCK: u32 = 256;
/// Blocks of a space, over all workers and beyond one for each of them, at the most: with more
/// addresses than eight the blocks become larger instead.
const MOST_BLOCKS: u32 = 2_048;
/// All local ports towards a backend are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// A number that one worker writes.
#[inline(always)]
pub(super) fn add(to: &AtomicU32, amount: u32) {
    to.store(to.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// What one worker knows of its own part of the ports. Only that worker writes, by loads and stores;
/// no other one's data is in these lines.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Part {
    /// Candidate to try next.
    pub(super) next: AtomicU32,
    /// Candidates that are taken.
    pub(super) in_use: AtomicU32,
    /// Of them, those that rest.
    pub(super) resting: AtomicU32,
    /// How often one was used again that rested.
    pub(super) reused: Counter,
    pub(super) capacity: u32,
    /// A candidate's number, shifted by this, is its block's.
    pub(super) shift: u32,
    pub(super) blocks: u32,
    /// How many of each block are taken; a bit says that it has room. What the last block lacks to
    /// be whole counts as taken.
    pub(super) taken: Blocks,
    /// How many of each block rest; a bit says that some do.
    pub(super) at_rest: Blocks,
}

impl Part {
    pub(super) fn new(capacity: u32, workers: u32, seed: u32) -> Self {
        let most = MOST_BLOCKS / workers.min(MOST_BLOCKS);
        let mut shift = BLOCK.ilog2();
        while capacity.div_ceil(1 << shift) > most.max(1) && shift < u16::BITS - 1 {
            shift += 1;
        }
        let blocks = capacity.div_ceil(1 << shift);
        let taken = Blocks::new(blocks);
        (0..blocks).for_each(|block| taken.set(block, true));
        if let Some(last) = blocks.checked_sub(1) {
            taken.count(last).store(((blocks << shift) - capacity) as u16, Relaxed);
        }
        Part {
            next: AtomicU32::new(seed % capacity.max(1)),
            in_use: AtomicU32::new(0),
            resting: AtomicU32::new(0),
            reused: Counter::default(),
            capacity,
            shift,
            blocks,
            taken,
            at_rest: Blocks::new(blocks),
        }
    }

    /// One more candidate of a block is taken.
    #[inline(always)]
    pub(super) fn take(&self, block: u32) {
        let taken = self.taken.count(block).load(Relaxed) + 1;
        self.taken.count(block).store(taken, Relaxed);
        add(&self.in_use, 1);
        if u32::from(taken) >= 1 << self.shift {
            self.taken.set(block, false);
        }
    }

    /// One less.
    #[inline(always)]
    pub(super) fn give_back(&self, block: u32) {
        let taken = self.taken.count(block).load(Relaxed);
        if taken == 0 {
            return; // It was never counted.
        }
        self.taken.count(block).store(taken - 1, Relaxed);
        self.in_use.store(self.in_use.load(Relaxed).saturating_sub(1), Relaxed);
        if u32::from(taken) >= 1 << self.shift {
            self.taken.set(block, true);
        }
    }

    /// Every candidate of a block was found taken.
    pub(super) fn learn_full(&self, block: u32) {
        let unknown = (1 << self.shift) - u32::from(self.taken.count(block).load(Relaxed));
        self.taken.count(block).store(1 << self.shift, Relaxed);
        add(&self.in_use, unknown);
        self.taken.set(block, false);
    }

    /// A candidate of a block begins to rest.
    pub(super) fn rest(&self, block: u32) {
        let resting = self.at_rest.count(block).load(Relaxed);
        self.at_rest.count(block).store(resting + 1, Relaxed);
        add(&self.resting, 1);
        self.at_rest.set(block, true);
    }

    /// A candidate of a block rests no more.
    pub(super) fn end_rest(&self, block: u32) {
        let resting = self.at_rest.count(block).load(Relaxed);
        if resting == 0 {
            return; // It was never counted.
        }
        self.at_rest.count(block).store(resting - 1, Relaxed);
        add(&self.resting, 1u32.wrapping_neg());
        self.at_rest.set(block, resting > 1);
    }

    /// The candidate to try next, in a block that has room.
    #[inline(always)]
    pub(super) fn next(&self) -> Result<u32, Exhausted> {
        let next = self.next.load(Relaxed);
        if next < self.capacity && self.taken.is_set(next >> self.shift) {
            return Ok(next);
        }
        self.next_in(&self.taken, next)
    }

    /// The candidate to try next, in a block whose bit is set among these.
    #[cold]
    pub(super) fn next_in(&self, blocks: &Blocks, next: u32) -> Result<u32, Exhausted> {
        let next = if next < self.capacity { next } else { 0 };
        let block = next >> self.shift;
        let found = blocks.next_set(block, self.blocks).ok_or(Exhausted)?;
        Ok(if found == block { next } else { found << self.shift })
    }

    /// Candidates of a block from `first` on.
    pub(super) fn rest_of_block(&self, first: u32) -> std::ops::Range<u32> {
        let start = first >> self.shift << self.shift;
        first..(start + (1 << self.shift)).min(self.capacity)
    }
}
