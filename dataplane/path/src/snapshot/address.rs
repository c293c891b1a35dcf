//! Addresses of ours: what each of them is, and which packets are certainly not for one.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use foldhash::fast::FixedState;

use crate::ids::InterfaceId;

/// What an address of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// An address of an interface.
    Own(InterfaceId),
    /// A VIP of a service.
    Vip,
    /// A local address of a pool.
    Local,
}

/// The addresses of interfaces, each with its own.
pub(super) fn own_addresses(
    interfaces: &[(Ipv4Addr, InterfaceId)],
) -> HashMap<u32, Address, FixedState> {
    interfaces.iter().map(|(a, interface)| (a.to_bits(), Address::Own(*interface))).collect()
}

/// A set of addresses that answers "certainly not" in one load: a bitmap indexed by a hash, at
/// least 32 bits for each address (Bloom, CACM 1970, with one hash function). It never forgets.
#[derive(Clone)]
pub(super) struct AddressFilter {
    words: Box<[u64]>,
    /// 64 minus the number of bits of a bit's number.
    shift: u32,
}

impl Default for AddressFilter {
    fn default() -> Self {
        AddressFilter { words: vec![0; 64].into(), shift: 64 - 12 }
    }
}

impl AddressFilter {
    pub(super) fn new<'a>(
        addresses: impl ExactSizeIterator<Item = &'a u32>,
        previous: &Self,
    ) -> Self {
        let bits = (addresses.len() * 32).next_power_of_two().max(previous.words.len() * 64);
        let mut filter =
            AddressFilter { words: vec![0; bits / 64].into(), shift: 64 - bits.trailing_zeros() };
        // A bit's number is the upper end of a hash: what stood at n stands at 2 n or 2 n + 1 in a
        // filter of twice the size.
        let times = bits / (previous.words.len() * 64);
        for bit in (0..previous.words.len() * 64).filter(|bit| previous.holds(*bit)) {
            (bit * times..(bit + 1) * times).for_each(|bit| filter.set(bit));
        }
        addresses.for_each(|address| filter.set(filter.bit(address.to_be())));
        filter
    }

    /// The bit of an address as it stands in a packet.
    #[inline(always)]
    fn bit(&self, address: u32) -> usize {
        // Fibonacci hashing (Knuth, TAOCP 6.4): whoever aims at a bit gains a slower drop.
        (u64::from(address).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline(always)]
    fn holds(&self, bit: usize) -> bool {
        self.words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    fn set(&mut self, bit: usize) {
        self.words[bit / 64] |= 1 << (bit % 64);
    }

    #[inline(always)]
    pub(super) fn may_contain(&self, address: u32) -> bool {
        self.holds(self.bit(address))
    }
}
