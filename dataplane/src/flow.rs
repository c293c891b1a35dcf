//! The identity of a flow, and its keyed hash.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

/// Addresses, L4 ports and protocol of a packet, in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source L4 port.
    pub src_port: u16,
    /// Destination L4 port.
    pub dst_port: u16,
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
}

/// Hashes flows with a seed that an attacker does not know, so that nobody can aim at a bucket.
/// All workers share the seed: they agree on who owns a flow.
#[derive(Clone)]
pub struct FlowHasher(SeedableRandomState);

impl FlowHasher {
    /// A hasher with this seed.
    pub fn new(seed: u64) -> Self {
        FlowHasher(SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()))
    }

    /// The hash of a flow. Low bits choose the bucket, bits 32 to 47 the worker, the upper 16 are
    /// the tag.
    #[inline(always)]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(u64::from(key.src) << 32 | u64::from(key.dst));
        hasher.write_u64(
            u64::from(key.protocol) << 32 | u64::from(key.src_port) << 16 | u64::from(key.dst_port),
        );
        hasher.finish()
    }

    /// The worker, of `workers`, that owns a client's flow with this hash.
    #[inline(always)]
    pub fn owner(hash: u64, workers: u16) -> u16 {
        ((((hash >> 32) as u16 as u32) * u32::from(workers)) >> 16) as u16
    }
}
