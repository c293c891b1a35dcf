//! The identity of a flow, and its keyed hash.

use crate::ids::WorkerId;
use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// Addresses, L4 ports and protocol of a packet, in host order: to read and to decide by.
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

/// The same as it stands in a packet, in network order: to match and to rewrite by, two words at a
/// time and without turning bytes around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Source and destination address: the last eight bytes of the IPv4 header as they lie.
    pub addresses: u64,
    /// Source and destination L4 port: the first four bytes behind it as they lie.
    pub ports: u32,
    /// IP protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// The tuple of packets that go the other way.
    #[inline(always)]
    pub const fn reversed(self) -> Tuple {
        Tuple {
            addresses: self.addresses.rotate_left(32),
            ports: self.ports.rotate_left(16),
            protocol: self.protocol,
        }
    }
}

impl From<&FlowKey> for Tuple {
    #[inline]
    fn from(key: &FlowKey) -> Tuple {
        let addresses = u64::from(key.src) << 32 | u64::from(key.dst);
        let ports = u32::from(key.src_port) << 16 | u32::from(key.dst_port);
        Tuple { addresses: addresses.to_be(), ports: ports.to_be(), protocol: key.protocol }
    }
}

impl From<&Tuple> for FlowKey {
    #[inline]
    fn from(tuple: &Tuple) -> FlowKey {
        let (addresses, ports) = (u64::from_be(tuple.addresses), u32::from_be(tuple.ports));
        FlowKey {
            src: (addresses >> 32) as u32,
            dst: addresses as u32,
            src_port: (ports >> 16) as u16,
            dst_port: ports as u16,
            protocol: tuple.protocol,
        }
    }
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
    pub fn hash(&self, tuple: &Tuple) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(tuple.addresses);
        hasher.write_u64(u64::from(tuple.protocol) << 32 | u64::from(tuple.ports));
        hasher.finish()
    }

    /// The worker, of `workers`, that owns a client's flow with this hash.
    #[inline(always)]
    pub fn owner(hash: u64, workers: u16) -> WorkerId {
        WorkerId(((((hash >> 32) as u16 as u32) * u32::from(workers)) >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flows that differ in little, as clients behind one router do, fill buckets like balls thrown
    /// at random: the variance of their number is their mean. (foldhash's fast variant: five times
    /// that, and full buckets in a table half empty.)
    #[test]
    fn flows_that_differ_in_little_spread_like_random_ones() {
        const BUCKETS: usize = 16_384;
        let client = |i: u32| FlowKey {
            src: 0x6440_0000 + i,
            dst: 0xc000_0264,
            src_port: 40_000,
            dst_port: 80,
            protocol: 6,
        };
        let port = |i: u32| FlowKey { src: 0x6440_0001, src_port: i as u16, ..client(0) };
        let back = |i: u32| FlowKey {
            src: 0x0a00_0101 + i % 4,
            dst: 0x0a00_ff01 + i / 4 % 64,
            src_port: 80,
            dst_port: 1_024 + (i / 256) as u16,
            protocol: 6,
        };
        let kinds: [&dyn Fn(u32) -> FlowKey; 3] = [&client, &port, &back];
        for seed in [0, 1, 0x5eed, u64::MAX] {
            let hasher = FlowHasher::new(seed);
            for (kind, flow) in kinds.iter().enumerate() {
                let hashes = (0..65_536).map(|i| hasher.hash(&Tuple::from(&flow(i))));
                let hashes: Vec<u64> = hashes.collect();
                // The bucket's bits, the worker's and the tag's.
                for shift in [0, 32, 50] {
                    let mut counts = vec![0_i64; BUCKETS];
                    hashes.iter().for_each(|h| counts[(h >> shift) as usize % BUCKETS] += 1);
                    let variance = counts.iter().map(|c| (c - 4) * (c - 4)).sum::<i64>() as f64;
                    let variance = variance / BUCKETS as f64;
                    assert!((3.6..4.4).contains(&variance), "{seed} {kind} {shift}: {variance}");
                }
            }
        }
    }

    #[test]
    fn a_tuple_lies_as_in_the_packet_and_turns_around() {
        let key = FlowKey {
            src: 0x0102_0304,
            dst: 0x0506_0708,
            src_port: 0x090a,
            dst_port: 0x0b0c,
            protocol: 6,
        };
        let tuple = Tuple::from(&key);
        assert_eq!(tuple.addresses.to_ne_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(tuple.ports.to_ne_bytes(), [9, 10, 11, 12]);
        assert_eq!(FlowKey::from(&tuple), key);
        let back = FlowKey {
            src: key.dst,
            dst: key.src,
            src_port: key.dst_port,
            dst_port: key.src_port,
            protocol: 6,
        };
        assert_eq!(FlowKey::from(&tuple.reversed()), back);
    }
}
