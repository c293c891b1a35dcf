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

#[cfg(test)]
pub mod tests;
