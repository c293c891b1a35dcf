//! The lines of both kinds, and how one is written.

use std::hint::cold_path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

use zerocopy::{transmute_mut, transmute_ref};

use super::ConnRef;
use super::head::Head;
use super::plain::Conn;
use super::wheel::{Link, Links};
use super::wide::WideConn;
use crate::flow::{FlowKey, Tuple, WideTuple};
use crate::intrinsics::prefetch_index;
use crate::memory::{Pages, TableMemory};

/// All lines of a worker: plain ones, then wide ones, which take two each. The head of either kind is
/// the end of a line; which one that is is the conn's place. A wide conn's number is out of bounds for
/// all of them, so that plain ones cost nothing for it.
pub(super) struct Lines {
    memory: TableMemory<Conn>,
    plain: usize,
}

/// A conn's line.
#[derive(Clone, Copy)]
pub enum Line<'a> {
    /// Of a plain one.
    Plain(&'a Conn),
    /// Of a wide one.
    Wide(&'a WideConn),
}

impl<'a> Line<'a> {
    /// What both have.
    #[inline(always)]
    pub fn head(self) -> &'a Head {
        match self {
            Line::Plain(line) => line,
            Line::Wide(line) => line,
        }
    }

    /// The flow in which the backend answers to a local port, when it does and both addresses are
    /// IPv4.
    #[inline(always)]
    pub fn from_backend(self) -> Option<FlowKey> {
        match self {
            Line::Plain(line) => line.is_full_nat().then(|| line.from_backend()),
            Line::Wide(line) => line.from_backend()?.plain().map(|tuple| FlowKey::from(&tuple)),
        }
    }
}

impl Lines {
    /// So many of each, of no conn.
    pub fn free(plain: u32, wide: u32, pages: Pages) -> Self {
        let lines = plain as usize + 2 * wide as usize;
        Lines { memory: TableMemory::filled(lines, &Conn::FREE, pages), plain: plain as usize }
    }

    /// All of them: a plain conn's by its number.
    #[inline(always)]
    pub fn memory(&self) -> &[Conn] {
        &self.memory
    }

    /// The plain ones.
    #[inline(always)]
    pub fn plain(&self) -> &[Conn] {
        &self.memory[..self.plain]
    }

    /// All of them, to be written: a plain conn's by its number.
    #[inline(always)]
    pub fn memory_mut(&mut self) -> &mut [Conn] {
        &mut self.memory
    }

    /// How many wide ones there are.
    pub fn wide_len(&self) -> usize {
        (self.memory.len() - self.plain) / 2
    }

    /// The place of a conn.
    #[inline(always)]
    pub fn place(&self, conn: ConnRef) -> u32 {
        match conn.conn() {
            number if number < self.memory.len() => number as u32,
            _ => self.wide_place(conn.wide_number()),
        }
    }

    /// The place of the nth wide conn.
    pub fn wide_place(&self, number: usize) -> u32 {
        (self.plain + 2 * number + 1) as u32
    }

    /// Whether a line has a head: not the first one of a wide conn.
    pub fn is_place(&self, line: u32) -> bool {
        (line as usize).checked_sub(self.plain).is_none_or(|behind| behind % 2 == 1)
    }

    /// Whether a place is a wide conn's.
    #[inline(always)]
    pub fn is_wide(&self, place: u32) -> bool {
        let is_wide = place as usize >= self.plain;
        if is_wide {
            cold_path();
        }
        is_wide
    }

    /// The number of the wide conn at a place.
    pub fn number_at(&self, place: u32) -> u32 {
        ConnRef::wide((place - self.plain as u32) / 2)
    }

    /// The line at a place.
    #[inline(always)]
    pub fn get(&self, place: u32) -> Line<'_> {
        if self.is_wide(place) {
            Line::Wide(self.wide(place))
        } else {
            Line::Plain(&self.memory[place as usize])
        }
    }

    /// A wide one.
    #[cold]
    #[inline(never)]
    pub fn wide(&self, place: u32) -> &WideConn {
        let both = self.memory[place as usize - 1..].first_chunk::<2>();
        transmute_ref!(both.expect("a wide conn has two lines"))
    }

    /// A wide one, to be written.
    pub fn wide_mut(&mut self, place: u32) -> &mut WideConn {
        let both = self.memory[place as usize - 1..].first_chunk_mut::<2>();
        transmute_mut!(both.expect("a wide conn has two lines"))
    }

    /// What both kinds have.
    #[inline(always)]
    pub fn head(&self, place: u32) -> &Head {
        &self.memory[place as usize]
    }

    /// The same, to be written.
    #[inline(always)]
    pub fn head_mut(&mut self, place: u32) -> &mut Head {
        &mut self.memory[place as usize]
    }

    /// Whether a packet of an IPv4 flow is of a conn, and of its direction.
    #[inline(always)]
    pub fn is_flow(&self, conn: ConnRef, tuple: &Tuple) -> bool {
        match self.memory.get(conn.conn()) {
            Some(line) => line.is_flow(tuple, conn),
            None => self.wide(self.place(conn)).is_flow(&WideTuple::from(tuple), conn),
        }
    }
}

impl Links for Lines {
    #[inline(always)]
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.head_mut(index).link
    }

    #[inline(always)]
    fn prefetch(&self, index: u32) {
        prefetch_index(&self.memory, index as usize);
    }
}

/// Write a line, word by word, such that whoever looks at its memory after any of the stores, and
/// after the last that was made before the process died, finds no conn or all of it: the last word
/// says whether there is one, and is cleared first and written last.
#[inline(always)]
pub(super) fn write_whole<const WORDS: usize>(
    new: &[u64; WORDS],
    mut store: impl FnMut(usize, u64),
) {
    let last = WORDS - 1;
    store(last, 0);
    // Stores stay on their side of a fence; x86 makes them in the order that the program does.
    compiler_fence(SeqCst);
    for (at, word) in new[..last].iter().enumerate() {
        store(at, *word);
    }
    compiler_fence(SeqCst);
    store(last, new[last]);
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromBytes, IntoBytes};

    use super::*;
    use crate::testkit::Random;

    /// What is in memory after so many stores of a writer that dies then.
    fn cut_off<const WORDS: usize>(
        before: &[u64; WORDS],
        new: &[u64; WORDS],
        stores: usize,
    ) -> [u64; WORDS] {
        let (mut memory, mut made) = (*before, 0);
        write_whole(new, |at, word| {
            if made < stores {
                memory[at] = word;
            }
            made += 1;
        });
        assert_eq!(made, WORDS + 1, "each word is stored once, and the last one cleared before");
        memory
    }

    /// Over any former contents, a conn's or not, of which nothing is left to be taken for the new
    /// one's.
    fn is_whole_or_absent<const WORDS: usize, L: FromBytes + IntoBytes>(
        random: &mut Random,
        head: impl Fn(&L) -> &Head,
    ) where
        [u64; WORDS]: IntoBytes + FromBytes,
    {
        let mut seen = [0; 3];
        for _ in 0..10_000 {
            let mut any = || -> [u64; WORDS] { std::array::from_fn(|_| random.next_u64()) };
            let (before, mut new) = (any(), any());
            // The protocol's byte: there is a conn.
            new[WORDS - 1] |= 1 << 32;
            for stores in 0..=WORDS + 1 {
                let memory = cut_off(&before, &new, stores);
                let line = L::read_from_bytes(memory.as_bytes()).expect("any bytes are a line");
                if !head(&line).is_there() {
                    seen[0] += 1;
                } else if memory == new {
                    seen[1] += 1;
                } else {
                    assert_eq!((memory, stores), (before, 0), "the old one, before any store");
                    seen[2] += 1;
                }
            }
        }
        assert!(seen.into_iter().all(|times| times >= 9_000), "{seen:?}");
    }

    #[test]
    fn a_line_is_whole_or_absent_after_every_store() {
        let mut random = Random::from_env();
        is_whole_or_absent::<8, Conn>(&mut random, |line| line);
        is_whole_or_absent::<16, WideConn>(&mut random, |line| line);
    }
}
