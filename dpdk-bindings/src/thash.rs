//! DPDK's own Toeplitz hash: slow, and the reference for a fast one.

/// `rte_softrss`: the RSS hash of a tuple of 32-bit words in host order, under a key as it is given
/// to a device.
///
/// # Panics
/// When the key is shorter than the tuple and one word more.
pub fn soft_rss(tuple: &[u32], key: &[u8]) -> u32 {
    assert!(key.len() >= 4 * (tuple.len() + 1), "each bit of a tuple has 32 bits of the key");
    let mut tuple = tuple.to_vec();
    // It reads the key by words.
    let (words, _) = key.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    // SAFETY: it reads `tuple.len()` words of the tuple and one more of the key, which has them as
    // was checked; both are aligned, and it keeps neither.
    unsafe { crate::sluice_softrss(tuple.as_mut_ptr(), tuple.len() as u32, words.as_ptr().cast()) }
}
