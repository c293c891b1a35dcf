//! What a packet's two cache lines cost by themselves: the floor under every row with many flows.
//!
//! As in the pipeline, a burst asks for 32 lines of one table, then for 32 lines of another that
//! the first ones lead to, then writes to these. Both are as large as the conn table's, in pages of
//! the same kind, and visited in random order. Nothing is parsed, compared or rewritten.

use sluice_path::burst::BURST;
use sluice_path::intrinsics::prefetch_index;
use sluice_path::memory::{Pages, TableMemory};
use sluice_path::testkit::Random;

use super::measure::{Figures, Samples};

/// A cache line.
#[derive(Clone)]
#[repr(align(64))]
struct Line([u64; 8]);

/// Bytes of a line.
pub const LINE_BYTES: usize = size_of::<Line>();
/// Bursts that are enough for a median.
pub const MEMORY_FLOOR_BURSTS: usize = 5_000;

/// Measure it for an index and a table of so many lines, over so many bursts.
pub fn measure(
    (index_lines, lines): (usize, usize),
    bursts: usize,
    pages: Pages,
    hz: u64,
) -> Figures {
    let mut random = Random(9);
    let mut index = TableMemory::filled(index_lines.max(1), &Line([0; 8]), pages);
    let mut table = TableMemory::filled(lines.max(1), &Line([0; 8]), pages);
    for line in index.iter_mut() {
        line.0[0] = random.below(table.len()) as u64;
    }
    let mut cycles = Vec::with_capacity(bursts);
    for round in 0..bursts + bursts / 4 {
        let places: [usize; BURST] = std::array::from_fn(|_| random.below(index.len()));
        let mut found = [0; BURST];
        let start = dpdk_sys::rdtsc();
        for place in places {
            prefetch_index(&index, place);
        }
        for (found, place) in found.iter_mut().zip(places) {
            *found = index[place].0[0] as usize;
            prefetch_index(&table, *found);
        }
        for found in found {
            table[found].0[1] += 1;
        }
        let taken = dpdk_sys::rdtsc() - start;
        // The first rounds warm up.
        if round >= bursts / 4 {
            cycles.push(taken);
        }
    }
    Samples::new(&cycles, BURST, hz).figures()
}
