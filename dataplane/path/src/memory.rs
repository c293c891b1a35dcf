//! Memory for tables: taken once, in the largest pages that there are.
//!
//! A random access to a table of hundreds of megabytes in pages of 4 KiB misses the TLB as surely
//! as the cache, and walks page tables that have left the cache themselves.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

/// Size of a huge page, in bytes. (x86-64 has larger ones, which few hosts reserve.)
const HUGE_PAGE: usize = 2 << 20;

/// Which pages to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Reserved huge pages, as far as any are free; otherwise as `Transparent`.
    Reserved,
    /// Ordinary ones that the kernel is asked to make huge (`madvise`, `MADV_HUGEPAGE`).
    #[default]
    Transparent,
}

/// A fixed number of items in memory of their own, all written when it is made.
#[derive(Debug)]
pub struct TableMemory<T> {
    items: NonNull<T>,
    len: usize,
    map: NonNull<libc::c_void>,
    map_bytes: usize,
}

// SAFETY: it owns its items, as a Vec does.
unsafe impl<T: Send> Send for TableMemory<T> {}
// SAFETY: a shared reference gives out shared references to items only.
unsafe impl<T: Sync> Sync for TableMemory<T> {}

impl<T: Clone> TableMemory<T> {
    /// Memory for `len` items, each a copy of `value`. Aborts when there is none left, as every
    /// allocation does.
    pub fn filled(len: usize, value: &T, pages: Pages) -> TableMemory<T> {
        const { assert!(!std::mem::needs_drop::<T>() && size_of::<T>() > 0) };
        const { assert!(align_of::<T>() <= 4_096) };
        if len == 0 {
            let (items, map) = (NonNull::dangling(), NonNull::dangling());
            return TableMemory { items, len, map, map_bytes: 0 };
        }
        let layout = Layout::array::<T>(len).expect("tables are smaller than the address space");
        let bytes = layout.size().next_multiple_of(HUGE_PAGE);
        let reserved = match pages {
            Pages::Reserved => map(bytes, libc::MAP_HUGETLB),
            Pages::Transparent => None,
        };
        let is_reserved = reserved.is_some();
        // Huge pages are aligned; to let others become huge there is one more to align within.
        let map_bytes = if is_reserved { bytes } else { bytes + HUGE_PAGE };
        let Some(map) = reserved.or_else(|| map(map_bytes, 0)) else { handle_alloc_error(layout) };
        let offset = map.as_ptr().align_offset(HUGE_PAGE) % HUGE_PAGE;
        // SAFETY: the offset is below HUGE_PAGE, by which the map is longer than the items unless
        // it is aligned by itself.
        let items = unsafe { map.byte_add(offset) };
        // SAFETY: the range is within the map. It is advice: what comes of it does not matter.
        unsafe { libc::madvise(items.as_ptr(), bytes, libc::MADV_HUGEPAGE) };
        let items = items.cast::<T>();
        for index in 0..len {
            // SAFETY: the map has room for `len` items from here on, aligned to pages, and nobody
            // else knows of it.
            unsafe { items.add(index).write(value.clone()) };
        }
        TableMemory { items, len, map, map_bytes }
    }
}

/// Private memory from the kernel, zeroed; `None` when there is none.
fn map(bytes: usize, flags: libc::c_int) -> Option<NonNull<libc::c_void>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new map, of which nothing is known to anybody, changes nothing that exists.
    let map = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if map == libc::MAP_FAILED { None } else { NonNull::new(map) }
}

impl<T> Deref for TableMemory<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` items were written at `items`, which live as long as we do.
        unsafe { slice::from_raw_parts(self.items.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for TableMemory<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in deref, and we are borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.items.as_ptr(), self.len) }
    }
}

impl<T> Drop for TableMemory<T> {
    fn drop(&mut self) {
        if self.map_bytes > 0 {
            // SAFETY: it is our own map, and our items, which need no drop, go with us.
            unsafe { libc::munmap(self.map.as_ptr(), self.map_bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_items_takes_no_memory() {
        let mut memory = TableMemory::filled(0, &7_u64, Pages::Reserved);
        assert!(memory.is_empty() && memory.get_mut(0).is_none());
    }

    #[test]
    fn items_are_written_aligned_and_one_s_own() {
        for pages in [Pages::Transparent, Pages::Reserved] {
            for len in [1, 1_000, 700_001] {
                let mut memory = TableMemory::filled(len, &0x0102_0304_u64, pages);
                assert_eq!(memory.len(), len);
                assert!(memory.iter().all(|item| *item == 0x0102_0304));
                assert_eq!(memory.as_ptr().align_offset(HUGE_PAGE), 0);
                let other = TableMemory::filled(len, &7_u64, pages);
                memory.iter_mut().for_each(|item| *item += 1);
                assert!(memory.iter().all(|item| *item == 0x0102_0305));
                assert!(other.iter().all(|item| *item == 7));
            }
        }
    }
}
