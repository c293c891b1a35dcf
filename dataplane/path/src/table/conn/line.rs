//! The lines of both kinds, and how one is written.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

use super::ConnRef;
use super::head::Head;
use super::plain::Conn;
use super::wheel::{Link, Links};
use super::wide::WideConn;
use crate::flow::{FlowKey, Tuple, WideTuple};
use crate::intrinsics::prefetch_index;
use crate::memory::{Pages, TableMemory};

/// All lines of a worker. A number tells its kind as a [`ConnRef`] does: that of a wide one is out of
/// bounds for the plain ones, so that these cost nothing for it.
pub(super) struct Lines {
    pub plain: TableMemory<Conn>,
    pub wide: TableMemory<WideConn>,
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
        Lines {
            plain: TableMemory::filled(plain as usize, &Conn::FREE, pages),
            wide: TableMemory::filled(wide as usize, &WideConn::FREE, pages),
        }
    }

    /// One of them.
    #[inline(always)]
    pub fn get(&self, number: u32) -> Line<'_> {
        match self.plain.get(number as usize) {
            Some(line) => Line::Plain(line),
            None => Line::Wide(self.wide(number)),
        }
    }

    /// A wide one.
    #[cold]
    #[inline(never)]
    pub fn wide(&self, number: u32) -> &WideConn {
        &self.wide[ConnRef::from_client(number).wide_number()]
    }

    /// What both kinds have.
    #[inline(always)]
    pub fn head_mut(&mut self, number: u32) -> &mut Head {
        match self.plain.get_mut(number as usize) {
            Some(line) => line,
            None => wide_head(&mut self.wide, number),
        }
    }

    /// Whether a packet of an IPv4 flow is of a conn, and of its direction.
    #[inline(always)]
    pub fn is_flow(&self, conn: ConnRef, tuple: &Tuple) -> bool {
        match self.plain.get(conn.conn()) {
            Some(line) => line.is_flow(tuple, conn),
            None => self.wide(conn.conn() as u32).is_flow(&WideTuple::from(tuple), conn),
        }
    }
}

#[cold]
#[inline(never)]
fn wide_head(lines: &mut [WideConn], number: u32) -> &mut Head {
    &mut lines[ConnRef::from_client(number).wide_number()]
}

impl Links for Lines {
    #[inline(always)]
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.head_mut(index).link
    }

    #[inline(always)]
    fn prefetch(&self, index: u32) {
        prefetch_index(&self.plain, index as usize);
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
