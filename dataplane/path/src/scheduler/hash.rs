//! Hashes that every node and every version of Sluice must agree on, so that a conn reaches the
//! same backend whichever node its packets take: XXH3 64, whose output is specified, with fixed
//! seeds, over bytes in network order. Changing anything here moves conns in a mixed cluster.

use std::net::IpAddr;

use sluice_api::BackendId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::flow::FlowKey;

/// "flow", "source", "offset", "skip", "draw": seeds only have to differ.
const SEED_FLOW: u64 = 0x666c_6f77;
const SEED_SOURCE: u64 = 0x736f_7572_6365;
const SEED_OFFSET: u64 = 0x6f66_6673_6574;
const SEED_SKIP: u64 = 0x736b_6970;
const SEED_DRAW: u64 = 0x6472_6177;

/// Hash of a flow's 5-tuple: both addresses, both ports, the protocol, padded with zeros to 16 bytes. Keys a table under `hash_on = "5-tuple"`.
#[inline]
pub fn flow_hash(flow: &FlowKey) -> u64 {
    // Two whole words, as XXH3 reads 16 bytes: 13 bytes put together piecewise cost a store
    // forwarding stall, 20 ns instead of 2.
    let addresses = u64::from(flow.src) << 32 | u64::from(flow.dst);
    let (src_port, dst_port) = (u64::from(flow.src_port.0), u64::from(flow.dst_port.0));
    let l4 = src_port << 48 | dst_port << 32 | u64::from(flow.protocol) << 24;
    let mut key = [0; 16];
    key[..8].copy_from_slice(&addresses.to_be_bytes());
    key[8..].copy_from_slice(&l4.to_be_bytes());
    xxh3_64_with_seed(&key, SEED_FLOW)
}

/// Hash of a client's address, in host order: all its flows get the same backend. Keys a table
/// under `hash_on = "source"`, and the source hash scheduler.
#[inline]
pub fn source_hash(src: u32) -> u64 {
    xxh3_64_with_seed(&src.to_be_bytes(), SEED_SOURCE)
}

/// The slot of a table of `slots` that a hash falls into: its upper 32 bits, as a fraction, times
/// `slots` (multiply-shift; no division, and even to within 1 in 2^32).
#[inline]
pub(super) const fn slot_of(hash: u64, slots: usize) -> usize {
    (((hash >> 32) * slots as u64) >> 32) as usize
}

/// How many choices in a row are looked at for one that takes a new conn, before all backends are
/// looked through: with half of the backends full, one in 2^64 conns gets that far.
pub(super) const CHOICES: usize = 64;

/// The first backend from a hash's slot on that takes a new conn, of [`CHOICES`] slots: as its slots
/// lie anywhere, what a full backend cannot take is spread over all others by weight (Mirrokni,
/// Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018).
pub(super) fn next_slot_that_takes(
    slots: &[u16],
    hash: u64,
    takes: impl Fn(u16) -> bool,
) -> Option<u16> {
    let (before, from) = slots.split_at(slot_of(hash, slots.len()));
    let mut choices = from.iter().chain(before).take(CHOICES).copied();
    choices.find(|index| takes(*index))
}

/// The first backend of weight above 0, from `start` on, that takes a new conn.
pub fn first_that_takes(
    weights: &[u16],
    start: u64,
    takes: impl Fn(usize) -> bool,
) -> Option<usize> {
    let start = (start as usize).min(weights.len());
    (start..weights.len()).chain(0..start).find(|index| weights[*index] > 0 && takes(*index))
}

/// The order in which a backend wishes for the slots of a table: Maglev's `offset` and `skip`
/// (NSDI 2016, 3.4). Over a prime number of slots it visits each once.
#[derive(Clone, Copy)]
pub(super) struct Preference {
    slot: u32,
    skip: u32,
    slots: u32,
}

impl Preference {
    /// # Panics
    /// When `slots` is no prime: the walk might never see some slots. Validation refuses such.
    pub(super) fn new(id: BackendId, slots: u32) -> Self {
        debug_assert!(is_prime(slots));
        let offset = backend_hash(id, SEED_OFFSET) % u64::from(slots);
        let skip = backend_hash(id, SEED_SKIP) % u64::from(slots - 1) + 1;
        Preference { slot: offset as u32, skip: skip as u32, slots }
    }

    /// The next slot wished for; after all of them it starts anew.
    #[inline]
    pub(super) fn next_slot(&mut self) -> usize {
        let slot = self.slot;
        let next = slot + self.skip;
        self.slot = if next >= self.slots { next - self.slots } else { next };
        slot as usize
    }
}

/// Where the random numbers of a backend begin, for the source hash scheduler.
pub(super) fn draw_seed(id: BackendId) -> u64 {
    backend_hash(id, SEED_DRAW)
}

fn backend_hash(id: BackendId, seed: u64) -> u64 {
    let mut key = [0; 18];
    let mut put = |bytes: &[u8], at: usize| {
        key[at..at + bytes.len()].copy_from_slice(bytes);
        at + bytes.len()
    };
    let end = match id.address {
        IpAddr::V4(address) => put(&address.octets(), 0),
        IpAddr::V6(address) => put(&address.octets(), 0),
    };
    let end = put(&id.port.to_be_bytes(), end);
    xxh3_64_with_seed(&key[..end], seed)
}

/// Whether `n` is a prime; by trial division, some µs for the largest table.
pub(super) fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::L4Port;

    #[test]
    fn preferences_visit_every_slot_once() {
        for port in 1..50 {
            let id = BackendId { address: [10, 0, 0, 1].into(), port };
            let mut preference = Preference::new(id, 251);
            let mut seen = [false; 251];
            for _ in 0..251 {
                assert!(!std::mem::replace(&mut seen[preference.next_slot()], true));
            }
        }
    }

    #[test]
    fn slots_are_within_the_table_and_evenly_used() {
        assert_eq!(slot_of(0, 65_537), 0);
        assert_eq!(slot_of(u64::MAX, 65_537), 65_536);
        let mut counts = [0u32; 251];
        for client in 0..251_000u32 {
            counts[slot_of(source_hash(client), 251)] += 1;
        }
        // 1,000 each, sd 32: 6 sd.
        assert!(counts.iter().all(|c| (810..1_190).contains(c)), "{counts:?}");
    }

    #[test]
    fn every_part_of_the_tuple_counts() {
        let base =
            FlowKey { src: 1, dst: 2, src_port: L4Port(3), dst_port: L4Port(4), protocol: 6 };
        let others = [
            FlowKey { src: 2, dst: 1, ..base },
            FlowKey { src_port: L4Port(4), dst_port: L4Port(3), ..base },
            FlowKey { src: 0, ..base },
            FlowKey { dst: 3, ..base },
            FlowKey { protocol: 17, ..base },
        ];
        assert!(others.iter().all(|other| flow_hash(other) != flow_hash(&base)));
    }
}
