//! The same random numbers everywhere, for the same seed.

/// xorshift64*: the same sequence for the same seed, everywhere. The seed is not 0.
pub struct Random(pub u64);

impl Random {
    /// From the environment's `SLUICE_SEED`, or a fixed seed; prints which.
    pub fn from_env() -> Self {
        let seed = std::env::var("SLUICE_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.filter(|s| *s != 0).unwrap_or(20_261_125);
        println!("SLUICE_SEED={seed}");
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// So many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }

    /// One of some items.
    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}
