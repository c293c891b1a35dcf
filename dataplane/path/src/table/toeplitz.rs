//! The hash by which NICs spread flows over their queues (RSS): Toeplitz, by a key, through a
//! redirection table (RETA).
//!
//! The hash of a tuple is the XOR of what its bytes contribute, each by itself: so each byte's share
//! is looked up, and an L4 port's share can be known before the rest of its flow (design,
//! invariant 2). Verified against DPDK's `rte_softrss`.

use std::fmt::Debug;

use crate::family::{Family, V4, V6};
use crate::flow::FlowBytes;
use crate::ids::L4Port;

/// Bytes of an IPv4 tuple: addresses and L4 ports, source before destination.
pub const IPV4_TUPLE_BYTES: usize = 12;
/// Bytes of an IPv6 tuple.
pub const IPV6_TUPLE_BYTES: usize = 36;

/// Bits of the hash, and of the key, that one bit of a tuple selects.
const HASH_BITS: usize = 32;
/// Bytes of a key that we make: as many as any device here wants.
const OWN_KEY_BYTES: usize = 64;

/// The key of the hash, as it is given to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssKey(Box<[u8]>);

impl RssKey {
    /// A key as a device tells it. Devices have 40 bytes, which an IPv6 tuple needs, or 52.
    pub fn new(bytes: &[u8]) -> Self {
        RssKey(bytes.into())
    }

    /// A key that nobody can guess who does not know the seed, and that leaves no local port unused
    /// by tables of up to 512 entries. The same seed gives the same bytes, of which a device takes
    /// as many as it wants: all hash alike.
    pub fn generate(seed: u64) -> Self {
        let mut state = seed;
        loop {
            let words =
                std::array::from_fn::<_, { OWN_KEY_BYTES / 8 }, _>(|_| split_mix(&mut state));
            let key = RssKey(words.iter().flat_map(|word| word.to_be_bytes()).collect());
            if key.spreads_ports_evenly() {
                return key;
            }
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it hashes IPv4 tuples as the other does.
    pub fn hashes_alike(&self, other: &RssKey) -> bool {
        let used = IPV4_TUPLE_BYTES + HASH_BITS / 8;
        self.0.get(..used).is_some_and(|own| other.0.get(..used) == Some(own))
    }

    /// Whether the lowest 9 bits of the hash, which choose a RETA's entry, take every value equally
    /// often over the ports below 1,024 and so over those from there on. So do fewer bits then.
    fn spreads_ports_evenly(&self) -> bool {
        let Some(hash) = Toeplitz::<V4>::new(self) else { return false };
        let mut counts = [0; 512];
        (0..1_024).for_each(|port| counts[hash.dst_port(L4Port(port)) as usize % 512] += 1);
        counts.iter().all(|count| *count == 2)
    }

    /// The 32 bits from bit number `from` on, the most significant bit being the first.
    fn window(&self, from: usize) -> u32 {
        let at = from / 8;
        let wide = self.0[at..].iter().chain([&0; 5]).take(5);
        let wide = wide.fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        (wide >> (8 - from % 8)) as u32
    }
}

/// Steele et al., Fast splittable pseudorandom number generators (OOPSLA 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// What each value of a byte of a tuple contributes to the hash.
type Share = [u32; 256];

/// A family whose flows are hashed: how long a tuple is, as NICs take it.
pub trait RssFamily: Family {
    /// A tuple as it lies in a packet: both addresses and both ports.
    type Tuple: AsRef<[u8]>;
    /// An address as it lies in a packet.
    type AddressBytes: AsRef<[u8]>;
    /// What each byte of a tuple contributes.
    type Shares: AsRef<[Share]> + AsMut<[Share]> + Clone + Debug + Send + Sync;

    /// No byte contributes anything.
    fn no_shares() -> Box<Self::Shares>;

    /// The tuple of a flow.
    fn tuple(flow: &FlowBytes<Self>) -> Self::Tuple;

    /// The bytes of an address, in host order.
    fn address_bytes(address: Self::Address) -> Self::AddressBytes;
}

impl RssFamily for V4 {
    type Tuple = [u8; IPV4_TUPLE_BYTES];
    type AddressBytes = [u8; 4];
    type Shares = [Share; IPV4_TUPLE_BYTES];

    fn no_shares() -> Box<Self::Shares> {
        Box::new([[0; 256]; IPV4_TUPLE_BYTES])
    }

    #[inline(always)]
    fn tuple(flow: &FlowBytes<V4>) -> Self::Tuple {
        let mut bytes = [0; IPV4_TUPLE_BYTES];
        bytes[..8].copy_from_slice(&flow.addresses.to_ne_bytes());
        bytes[8..].copy_from_slice(&flow.ports.to_ne_bytes());
        bytes
    }

    #[inline(always)]
    fn address_bytes(address: u32) -> [u8; 4] {
        address.to_be_bytes()
    }
}

impl RssFamily for V6 {
    type Tuple = [u8; IPV6_TUPLE_BYTES];
    type AddressBytes = [u8; 16];
    type Shares = [Share; IPV6_TUPLE_BYTES];

    fn no_shares() -> Box<Self::Shares> {
        Box::new([[0; 256]; IPV6_TUPLE_BYTES])
    }

    #[inline(always)]
    fn tuple(flow: &FlowBytes<V6>) -> Self::Tuple {
        let mut bytes = [0; IPV6_TUPLE_BYTES];
        for (eight, word) in bytes.chunks_exact_mut(8).zip(flow.addresses) {
            eight.copy_from_slice(&word.to_ne_bytes());
        }
        bytes[32..].copy_from_slice(&flow.ports.to_ne_bytes());
        bytes
    }

    #[inline(always)]
    fn address_bytes(address: u128) -> [u8; 16] {
        address.to_be_bytes()
    }
}

/// The hash of a family's tuples, in network order: 1 KiB for each byte.
#[derive(Clone, Debug)]
pub struct Toeplitz<F: RssFamily = V4>(Box<F::Shares>);

impl<F: RssFamily> Toeplitz<F> {
    /// The hash under a key; `None` when the key is too short for such tuples, or all zero, as some
    /// drivers answer who do not know theirs.
    pub fn new(key: &RssKey) -> Option<Self> {
        let mut shares = F::no_shares();
        let long_enough = key.0.len() >= (*shares).as_ref().len() + HASH_BITS / 8;
        if !long_enough || key.0.iter().all(|byte| *byte == 0) {
            return None;
        }
        for (index, of_byte) in (*shares).as_mut().iter_mut().enumerate() {
            for (value, share) in of_byte.iter_mut().enumerate() {
                *share = (0..8)
                    .filter(|bit| value & 0x80 >> bit != 0)
                    .fold(0, |hash, bit| hash ^ key.window(index * 8 + bit));
            }
        }
        Some(Toeplitz(shares))
    }

    /// The hash of a tuple.
    #[inline(always)]
    pub fn hash(&self, tuple: &F::Tuple) -> u32 {
        self.share(0, tuple.as_ref())
    }

    /// What the bytes from place `at` on contribute.
    #[inline(always)]
    fn share(&self, at: usize, bytes: &[u8]) -> u32 {
        let shares = (*self.0).as_ref()[at..].iter().zip(bytes);
        shares.fold(0, |hash, (share, byte)| hash ^ share[usize::from(*byte)])
    }

    /// What the source port contributes.
    #[inline(always)]
    pub fn src_port(&self, port: L4Port) -> u32 {
        self.share((*self.0).as_ref().len() - 4, &port.to_be_bytes())
    }

    /// What the destination port contributes.
    #[inline(always)]
    pub fn dst_port(&self, port: L4Port) -> u32 {
        self.share((*self.0).as_ref().len() - 2, &port.to_be_bytes())
    }

    /// What the source address (host order) contributes.
    #[inline(always)]
    pub fn src_address(&self, address: F::Address) -> u32 {
        self.share(0, F::address_bytes(address).as_ref())
    }

    /// What the destination address (host order) contributes.
    #[inline(always)]
    pub fn dst_address(&self, address: F::Address) -> u32 {
        let bytes = F::address_bytes(address);
        self.share(bytes.as_ref().len(), bytes.as_ref())
    }
}

/// A redirection table: which queue a hash leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reta {
    queues: Box<[u16]>,
    mask: u32,
}

impl Reta {
    /// Most entries of a table: with more, hardly a local port is left for each.
    pub const MOST: usize = 2_048;

    /// A table as it is in a device; `None` unless it has a power of two of entries, of which the
    /// lowest bits of a hash choose, and at most [`MOST`](Self::MOST).
    pub fn new(queues: &[u16]) -> Option<Self> {
        let len = queues.len();
        (len.is_power_of_two() && len <= Self::MOST)
            .then(|| Reta { queues: queues.into(), mask: len as u32 - 1 })
    }

    /// The queues of a table of `len` entries that spreads evenly. Longer ones repeat the first 128,
    /// so that tables of different lengths lead a flow to the same queue.
    pub fn even(len: usize, queues: u16) -> Box<[u16]> {
        (0..len).map(|entry| (entry % 128 % usize::from(queues)) as u16).collect()
    }

    /// How many entries it has.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// The entry of a hash.
    #[inline(always)]
    pub fn entry(&self, hash: u32) -> u32 {
        hash & self.mask
    }

    /// The queue that a hash leads to.
    #[inline(always)]
    pub fn queue(&self, hash: u32) -> u16 {
        self.queues[(hash & self.mask) as usize]
    }

    /// The entries that lead to a queue.
    pub fn entries_of(&self, queue: u16) -> Box<[u16]> {
        (0..).zip(&self.queues).filter(|(_, q)| **q == queue).map(|(entry, _)| entry).collect()
    }

    /// Whether every hash leads to the same queue by both.
    pub fn spreads_alike(&self, other: &Reta) -> bool {
        let entries = 0..self.len().max(other.len()) as u32;
        entries.into_iter().all(|entry| self.queue(entry) == other.queue(entry))
    }
}

/// Tests, and keys for those of others.
#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::testkit::Random;

    /// That of Microsoft's documentation, also the default of Intel's igb and ixgbe.
    const MICROSOFT: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];
    /// The default of mlx5.
    const MLX5: [u8; 40] = [
        0x2c, 0xc6, 0x81, 0xd1, 0x5b, 0xdb, 0xf4, 0xf7, 0xfc, 0xa2, 0x83, 0x19, 0xdb, 0x1a, 0x3e,
        0x94, 0x6b, 0x9e, 0x38, 0xd9, 0x2c, 0x9c, 0x03, 0xd1, 0xad, 0x99, 0x44, 0xa7, 0xd9, 0x56,
        0x3d, 0x59, 0x06, 0x3c, 0x25, 0xf3, 0xfc, 0x1f, 0xdc, 0x2a,
    ];
    /// The default of i40e, 52 bytes.
    const I40E: [u32; 13] = [
        0x6b79_3944,
        0x2350_4cb5,
        0x5bea_75b6,
        0x309f_4f12,
        0x3dc0_a2b8,
        0x024d_dcdf,
        0x339b_8ca0,
        0x4c4a_f64a,
        0x34fa_c605,
        0x55d8_5839,
        0x3a58_997d,
        0x2ec9_38e1,
        0x6603_1581,
    ];

    /// Keys that devices have, or that people give them, by name.
    pub fn real_keys() -> Vec<(&'static str, RssKey)> {
        let i40e: Vec<u8> = I40E.iter().flat_map(|word| word.to_le_bytes()).collect();
        vec![
            ("microsoft", RssKey::new(&MICROSOFT)),
            ("mlx5", RssKey::new(&MLX5)),
            ("i40e", RssKey::new(&i40e)),
            ("symmetric", RssKey::new(&[0x6d, 0x5a].repeat(20))),
            ("symmetric of 52", RssKey::new(&[0x6d, 0x5a].repeat(26))),
            ("ours", RssKey::generate(1)),
            ("ours of 40", RssKey::new(&RssKey::generate(2).bytes()[..40])),
        ]
    }

    /// The hash as it is defined: for each bit that is set, from the left, the 32 bits of the key that
    /// begin where it stands. Held to DPDK's by `dataplane/tests/toeplitz.rs`.
    pub fn soft_rss(words: &[u32], key: &[u8]) -> u32 {
        let key_bit = |at: usize| u32::from(key[at / 8] >> (7 - at % 8) & 1);
        let window = |at: usize| (at..at + 32).fold(0, |word, at| word << 1 | key_bit(at));
        let bits = words.iter().flat_map(|word| (0..32).rev().map(move |bit| word >> bit & 1 == 1));
        bits.enumerate().filter(|(_, set)| *set).fold(0, |hash, (at, _)| hash ^ window(at))
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect()
    }

    fn agrees<const BYTES: usize, F: RssFamily<Tuple = [u8; BYTES]>>(
        random: &mut Random,
        name: &str,
        key: &RssKey,
    ) {
        let ours = Toeplitz::<F>::new(key).unwrap();
        for _ in 0..2_000 {
            let tuple: [u8; BYTES] = std::array::from_fn(|_| random.next_u64() as u8);
            assert_eq!(ours.hash(&tuple), soft_rss(&words(&tuple), key.bytes()), "{name}");
        }
    }

    #[test]
    fn agrees_with_its_definition_over_random_tuples_and_real_keys() {
        let mut random = Random::from_env();
        for (name, key) in real_keys() {
            agrees::<IPV4_TUPLE_BYTES, V4>(&mut random, name, &key);
            agrees::<IPV6_TUPLE_BYTES, V6>(&mut random, name, &key);
        }
    }

    #[test]
    fn agrees_with_microsofts_verification_suite() {
        let hash = Toeplitz::<V4>::new(&RssKey::new(&MICROSOFT)).unwrap();
        let tuple = |src: [u8; 4], dst: [u8; 4], src_port: u16, dst_port: u16| {
            let mut bytes = [0; IPV4_TUPLE_BYTES];
            bytes[..4].copy_from_slice(&src);
            bytes[4..8].copy_from_slice(&dst);
            bytes[8..10].copy_from_slice(&src_port.to_be_bytes());
            bytes[10..].copy_from_slice(&dst_port.to_be_bytes());
            bytes
        };
        let first = tuple([66, 9, 149, 187], [161, 142, 100, 80], 2_794, 1_766);
        assert_eq!(hash.hash(&first), 0x51cc_c178);
        let second = tuple([199, 92, 111, 2], [65, 69, 140, 83], 14_230, 4_739);
        assert_eq!(hash.hash(&second), 0xc626_b0ea);
    }

    #[test]
    fn shares_add_up_to_the_hash() {
        let mut random = Random::from_env();
        let hash = Toeplitz::<V4>::new(&RssKey::generate(3)).unwrap();
        for _ in 0..1_000 {
            let (src, dst) = (random.next_u64() as u32, random.next_u64() as u32);
            let ports = random.next_u64() as u32;
            let (src_port, dst_port) = L4Port::of_pair(ports.to_be());
            let whole = soft_rss(&[src, dst, ports], RssKey::generate(3).bytes());
            let addresses = hash.src_address(src) ^ hash.dst_address(dst);
            assert_eq!(addresses ^ hash.src_port(src_port) ^ hash.dst_port(dst_port), whole);
        }
    }

    #[test]
    fn keys_that_nothing_can_be_known_by_are_refused() {
        for bytes in [&[][..], &[1; 15], &[0; 40]] {
            assert!(Toeplitz::<V4>::new(&RssKey::new(bytes)).is_none(), "{bytes:?}");
        }
        assert!(Toeplitz::<V4>::new(&RssKey::new(&[1; 16])).is_some());
        assert!(Toeplitz::<V6>::new(&RssKey::new(&[1; 39])).is_none());
    }

    #[test]
    fn our_keys_differ_by_seed_and_not_by_length() {
        let (one, other) = (RssKey::generate(1), RssKey::generate(2));
        assert!(one != other && !one.hashes_alike(&other));
        assert!(one.hashes_alike(&RssKey::new(&one.bytes()[..40])));
        assert!(!one.hashes_alike(&RssKey::new(&one.bytes()[..15])));
    }

    #[test]
    fn tables_are_taken_as_hardware_can_have_them() {
        for len in [0, 3, 96, 4_096] {
            assert!(Reta::new(&vec![0; len]).is_none(), "{len}");
        }
        for len in [1, 64, 128, 256, 512] {
            for queues in 1..=16 {
                let reta = Reta::new(&Reta::even(len, queues)).unwrap();
                let of_queues: Vec<usize> =
                    (0..queues).map(|queue| reta.entries_of(queue).len()).collect();
                assert_eq!(of_queues.iter().sum::<usize>(), len);
                let most = of_queues.iter().max().unwrap() - of_queues.iter().min().unwrap();
                assert!(most <= len.div_ceil(128), "{len} {queues}: {of_queues:?}");
                assert_eq!(reta.entry(0xffff_ffff) as usize, len - 1);
            }
        }
        let tables = [128, 256, 512].map(|len| Reta::new(&Reta::even(len, 3)).unwrap());
        assert!(tables.iter().all(|table| table.spreads_alike(&tables[0])));
        let of_64 = |queues| Reta::new(&Reta::even(64, queues)).unwrap();
        assert!(!tables[0].spreads_alike(&of_64(3)));
        assert!(of_64(4).spreads_alike(&Reta::new(&Reta::even(512, 4)).unwrap()));
    }
}
