//! Lines that nobody has.

/// The numbers of a kind's free lines.
pub(super) struct Free {
    /// The last freed last: its line is the likeliest to be in the cache.
    ready: Vec<u32>,
    /// Those freed while a burst is under way: packets of it may still refer to them, so they are not
    /// used again before its end.
    freed_in_burst: Vec<u32>,
}

impl Free {
    /// All of these, the last of which is used first.
    pub fn of(numbers: impl Iterator<Item = u32>) -> Self {
        Free { ready: numbers.collect(), freed_in_burst: Vec::with_capacity(1_024) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ready.len() + self.freed_in_burst.len()
    }

    /// How many may be used at once.
    #[inline(always)]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The one to use next.
    #[inline(always)]
    pub fn next(&self) -> Option<u32> {
        self.ready.last().copied()
    }

    /// The one to use after so many others.
    #[inline(always)]
    pub fn nth(&self, before: usize) -> Option<u32> {
        self.ready.iter().nth_back(before).copied()
    }

    /// [`next`](Self::next) is used.
    #[inline(always)]
    pub fn take(&mut self) {
        self.ready.pop();
    }

    /// One is free again.
    #[inline(always)]
    pub fn give_back(&mut self, number: u32) {
        self.freed_in_burst.push(number);
    }

    /// No packet refers any more to what was freed.
    #[inline(always)]
    pub fn end_burst(&mut self) {
        if !self.freed_in_burst.is_empty() {
            self.ready.append(&mut self.freed_in_burst);
        }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        (self.ready.capacity() + self.freed_in_burst.capacity()) * size_of::<u32>()
    }

    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub fn written(&self) -> [std::ops::Range<usize>; 2] {
        [&self.ready, &self.freed_in_burst].map(|numbers| {
            let start = numbers.as_ptr().addr();
            start..start + numbers.capacity() * size_of::<u32>()
        })
    }
}
