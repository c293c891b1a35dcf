//! The identity of a flow, and its keyed hash.

mod endpoint;
mod wide;

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use sluice_wire::Ipv4Frame;

use crate::family::{Family, V4};
use crate::ids::{L4Port, WorkerId};

pub use endpoint::Endpoint;
pub use wide::WideTuple;

/// Addresses (of a family, each an `A`), L4 ports and protocol of a packet, in host order: to read and to
/// decide by.
// Of addresses, not of a `Family`: where fields are an `F::Address`, rustc 1.95 fails ("broken MIR") at
// closures that capture such a struct by its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source L4 port.
    pub src_port: L4Port,
    /// Destination L4 port.
    pub dst_port: L4Port,
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
}

impl<A: Copy> Flow<A> {
    /// Where it comes from.
    #[inline(always)]
    pub fn source(&self) -> Endpoint<A> {
        Endpoint { address: self.src, port: self.src_port, protocol: self.protocol }
    }

    /// Where it goes to.
    #[inline(always)]
    pub fn destination(&self) -> Endpoint<A> {
        Endpoint { address: self.dst, port: self.dst_port, protocol: self.protocol }
    }
}

/// A flow of IPv4.
pub type FlowKey = Flow<u32>;

/// The same as it stands in a packet, in network order: to match and to rewrite by, two words at a
/// time and without turning bytes around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowBytes<F: Family> {
    /// Source and destination address: the last bytes of the IP header as they lie.
    pub addresses: F::Pair,
    /// Source and destination L4 port: the first four bytes behind it as they lie.
    pub ports: u32,
    /// IP protocol number.
    pub protocol: u8,
}

/// A flow of IPv4 as it stands in a packet.
pub type Tuple = FlowBytes<V4>;

impl<F: Family> FlowBytes<F> {
    /// Those of packets that go the other way.
    #[inline(always)]
    pub fn reversed(self) -> Self {
        FlowBytes {
            addresses: F::swap(self.addresses),
            ports: self.ports.rotate_left(16),
            protocol: self.protocol,
        }
    }
}

impl<F: Family> From<&Flow<F::Address>> for FlowBytes<F> {
    #[inline]
    fn from(flow: &Flow<F::Address>) -> Self {
        FlowBytes {
            addresses: F::pair(flow.src, flow.dst),
            ports: L4Port::pair(flow.src_port, flow.dst_port),
            protocol: flow.protocol,
        }
    }
}

impl<F: Family> From<&FlowBytes<F>> for Flow<F::Address> {
    #[inline]
    fn from(bytes: &FlowBytes<F>) -> Self {
        let (src, dst) = F::addresses(bytes.addresses);
        let (src_port, dst_port) = L4Port::of_pair(bytes.ports);
        Flow { src, dst, src_port, dst_port, protocol: bytes.protocol }
    }
}

impl From<&Ipv4Frame> for FlowKey {
    /// That of an unfragmented packet of TCP or UDP.
    #[inline]
    fn from(view: &Ipv4Frame) -> Self {
        FlowKey {
            src: view.ip.src_u32(),
            dst: view.ip.dst_u32(),
            src_port: L4Port(view.src_port()),
            dst_port: L4Port(view.dst_port()),
            protocol: view.ip.protocol,
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
    pub fn hash<F: Family>(&self, flow: &FlowBytes<F>) -> u64 {
        let mut hasher = self.0.build_hasher();
        F::write(flow.addresses, &mut hasher);
        hasher.write_u64(u64::from(flow.protocol) << 32 | u64::from(flow.ports));
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
    use crate::family::V6;

    /// Flows that differ in little, as clients behind one router do, fill buckets like balls thrown
    /// at random: the variance of their number is their mean. (foldhash's fast variant: five times
    /// that, and full buckets in a table half empty.)
    #[test]
    fn flows_that_differ_in_little_spread_like_random_ones() {
        const BUCKETS: usize = 16_384;
        let client = |i: u32| FlowKey {
            src: 0x6440_0000 + i,
            dst: 0xc000_0264,
            src_port: L4Port(40_000),
            dst_port: L4Port(80),
            protocol: 6,
        };
        let port = |i: u32| FlowKey { src: 0x6440_0001, src_port: L4Port(i as u16), ..client(0) };
        let back = |i: u32| FlowKey {
            src: 0x0a00_0101 + i % 4,
            dst: 0x0a00_ff01 + i / 4 % 64,
            src_port: L4Port(80),
            dst_port: L4Port(1_024 + (i / 256) as u16),
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
            src_port: L4Port(0x090a),
            dst_port: L4Port(0x0b0c),
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

    /// Whatever the family, a flow and its bytes say the same, and so do both directions.
    fn turns_around<F: Family>(flow: Flow<F::Address>, lies: &[u8])
    where
        F::Pair: zerocopy::IntoBytes + zerocopy::Immutable,
    {
        use zerocopy::IntoBytes;
        let bytes = FlowBytes::<F>::from(&flow);
        assert_eq!(bytes.addresses.as_bytes(), lies);
        assert_eq!(Flow::<F::Address>::from(&bytes), flow);
        let back = Flow {
            src: flow.dst,
            dst: flow.src,
            src_port: flow.dst_port,
            dst_port: flow.src_port,
            protocol: flow.protocol,
        };
        assert_eq!(Flow::<F::Address>::from(&bytes.reversed()), back);
        assert_eq!(bytes.reversed().reversed(), bytes);
        let hasher = FlowHasher::new(7);
        assert_eq!(hasher.hash(&bytes), hasher.hash(&FlowBytes::<F>::from(&flow)));
        assert_ne!(hasher.hash(&bytes), hasher.hash(&bytes.reversed()));
    }

    #[test]
    fn flows_of_both_families_turn_around() {
        let ports = |src: u128, dst: u128| Flow {
            src,
            dst,
            src_port: L4Port(40_000),
            dst_port: L4Port(443),
            protocol: 6,
        };
        let (a, b) = (u128::from_be_bytes(*b"0123456789abcdef"), u128::from_be_bytes([0xfd; 16]));
        turns_around::<V6>(
            ports(a, b),
            b"0123456789abcdef\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd",
        );
        let flow =
            FlowKey { src: 1, dst: 2, src_port: L4Port(3), dst_port: L4Port(4), protocol: 17 };
        turns_around::<V4>(flow, &[0, 0, 0, 1, 0, 0, 0, 2]);
    }

    /// Each part of a long address tells flows apart, and no bucket is preferred.
    #[test]
    fn flows_of_ipv6_spread_by_every_bit_of_their_addresses() {
        const BUCKETS: usize = 256;
        let hasher = FlowHasher::new(0x5eed);
        let flow = |src, dst| Flow {
            src,
            dst,
            src_port: L4Port(40_000),
            dst_port: L4Port(80),
            protocol: 6,
        };
        for shift in (0..128).step_by(16) {
            let mut counts = [0_i64; BUCKETS];
            for n in 0..16_384_u128 {
                let (near, far) = (0xfd00 << 112 ^ n << shift, 0x2001_0db8 << 96);
                for flow in [flow(near, far), flow(far, near)] {
                    let hash = hasher.hash(&FlowBytes::<V6>::from(&flow));
                    counts[hash as usize % BUCKETS] += 1;
                }
            }
            let mean = 2 * 16_384 / BUCKETS as i64;
            let variance = counts.iter().map(|c| (c - mean).pow(2)).sum::<i64>() as f64;
            let ratio = variance / BUCKETS as f64 / mean as f64;
            assert!((0.6..1.6).contains(&ratio), "{shift}: {ratio}");
        }
    }
}
