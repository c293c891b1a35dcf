//! Counts by block, a bit for each that a search is to look through, and the search for one.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU16, AtomicU64};

/// Counts in a cache line.
const COUNTS: usize = 32;
/// Words of 64 blocks in a cache line.
const WORDS: usize = 8;

/// A line of counts, by block.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct CountLine([AtomicU16; COUNTS]);

/// A line of bits, by block.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct BitLine([AtomicU64; WORDS]);

/// A count of each block, with a bit for those that a search is to look through.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) counts: Box<[CountLine]>,
    pub(super) bits: Box<[BitLine]>,
}

impl Blocks {
    /// Counts of 0 and no bits.
    pub(super) fn new(blocks: u32) -> Self {
        let blocks = blocks as usize;
        Blocks {
            counts: (0..blocks.div_ceil(COUNTS)).map(|_| CountLine::default()).collect(),
            bits: (0..blocks.div_ceil(64 * WORDS)).map(|_| BitLine::default()).collect(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.counts) + size_of_val(&*self.bits)
    }

    #[inline(always)]
    pub(super) fn count(&self, block: u32) -> &AtomicU16 {
        &self.counts[block as usize / COUNTS].0[block as usize % COUNTS]
    }

    #[inline(always)]
    pub(super) fn word(&self, block: u32) -> &AtomicU64 {
        &self.bits[block as usize / (64 * WORDS)].0[block as usize / 64 % WORDS]
    }

    #[inline(always)]
    pub(super) fn is_set(&self, block: u32) -> bool {
        self.word(block).load(Relaxed) >> (block % 64) & 1 != 0
    }

    pub(super) fn set(&self, block: u32, to: bool) {
        let (word, bit) = (self.word(block), 1 << (block % 64));
        let bits = word.load(Relaxed);
        word.store(if to { bits | bit } else { bits & !bit }, Relaxed);
    }

    /// The first block from `block` on, and round, whose bit is set, of so many.
    pub(super) fn next_set(&self, block: u32, blocks: u32) -> Option<u32> {
        if blocks == 0 {
            return None;
        }
        let words = blocks.div_ceil(64);
        let start = block / 64;
        let mut bits = self.word(block).load(Relaxed) & u64::MAX << (block % 64);
        for step in 0..=words {
            if bits != 0 {
                return Some((start + step) % words * 64 + bits.trailing_zeros());
            }
            bits = self.word((start + step + 1) % words * 64).load(Relaxed);
        }
        None
    }
}
