//! IP families: a family is a type, so that what is the same for both is written once, and no packet is
//! asked for its own. [`V4`] is forwarded; [`V6`] is not yet, and exists so that this stays true.

use std::fmt::{Debug, Display};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{BitAnd, BitOr, Not};
use std::str::FromStr;

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::V4 {}
    impl Sealed for super::V6 {}
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6;

/// An IP family.
pub trait Family:
    sealed::Sealed + Copy + Debug + Default + Eq + Ord + Hash + Send + Sync + 'static
{
    /// An address as a number, in host order: to compare and to look up by.
    type Address: Copy
        + Debug
        + Default
        + Ord
        + Hash
        + Send
        + Sync
        + BitAnd<Output = Self::Address>
        + BitOr<Output = Self::Address>
        + Not<Output = Self::Address>;
    /// An address as people write it.
    type Ip: Copy + Debug + Display + FromStr + Ord + Hash + Into<IpAddr> + Send + Sync;
    /// Source and destination address as they lie in a header.
    type Pair: Copy + Debug + Default + Eq;

    /// Bits of an address: the longest prefix.
    const BITS: u8;

    /// An address as a number, if it is of this family.
    fn of(ip: IpAddr) -> Option<Self::Address>;

    /// An address as people write it.
    fn ip(address: Self::Address) -> Self::Ip;

    /// An address as a number.
    fn number(ip: Self::Ip) -> Self::Address;

    /// The mask of a prefix of so many bits, at most [`BITS`](Self::BITS).
    fn mask(prefix_len: u8) -> Self::Address;

    /// The next address; none after the last.
    fn after(address: Self::Address) -> Option<Self::Address>;

    /// Whether the first and the last address of a network of this prefix length are no host's.
    fn has_edges(prefix_len: u8) -> bool;

    /// Two addresses as they lie in a header.
    fn pair(src: Self::Address, dst: Self::Address) -> Self::Pair;

    /// The source and the destination address of a header.
    fn addresses(pair: Self::Pair) -> (Self::Address, Self::Address);

    /// The addresses of a packet that goes the other way.
    fn swap(pair: Self::Pair) -> Self::Pair;

    /// Make a pair part of a hash, in words of 64 bits.
    fn write(pair: Self::Pair, hasher: &mut impl Hasher);
}

impl V4 {
    /// An address of a snapshot, as a number.
    ///
    /// # Panics
    /// It is of another family, which [validation](sluice_api::validate) lets through nowhere.
    pub fn of_valid(ip: IpAddr) -> u32 {
        Self::of(ip).expect("only addresses of IPv4 are valid yet")
    }
}

impl Family for V4 {
    type Address = u32;
    type Ip = Ipv4Addr;
    type Pair = u64;

    const BITS: u8 = 32;

    fn of(ip: IpAddr) -> Option<u32> {
        match ip {
            IpAddr::V4(ip) => Some(ip.to_bits()),
            IpAddr::V6(_) => None,
        }
    }

    #[inline(always)]
    fn ip(address: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(address)
    }

    #[inline(always)]
    fn number(ip: Ipv4Addr) -> u32 {
        ip.to_bits()
    }

    fn mask(prefix_len: u8) -> u32 {
        u32::MAX.checked_shl(u32::from(Self::BITS - prefix_len)).unwrap_or(0)
    }

    fn after(address: u32) -> Option<u32> {
        address.checked_add(1)
    }

    /// The network's own address and its broadcast address, but for links between two (RFC 3021).
    fn has_edges(prefix_len: u8) -> bool {
        prefix_len < 31
    }

    #[inline(always)]
    fn pair(src: u32, dst: u32) -> u64 {
        (u64::from(src) << 32 | u64::from(dst)).to_be()
    }

    #[inline(always)]
    fn addresses(pair: u64) -> (u32, u32) {
        let both = u64::from_be(pair);
        ((both >> 32) as u32, both as u32)
    }

    #[inline(always)]
    fn swap(pair: u64) -> u64 {
        pair.rotate_left(32)
    }

    #[inline(always)]
    fn write(pair: u64, hasher: &mut impl Hasher) {
        hasher.write_u64(pair);
    }
}

impl Family for V6 {
    type Address = u128;
    type Ip = Ipv6Addr;
    type Pair = [u64; 4];

    const BITS: u8 = 128;

    fn of(ip: IpAddr) -> Option<u128> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip.to_bits()),
        }
    }

    #[inline(always)]
    fn ip(address: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(address)
    }

    #[inline(always)]
    fn number(ip: Ipv6Addr) -> u128 {
        ip.to_bits()
    }

    fn mask(prefix_len: u8) -> u128 {
        u128::MAX.checked_shl(u32::from(Self::BITS - prefix_len)).unwrap_or(0)
    }

    fn after(address: u128) -> Option<u128> {
        address.checked_add(1)
    }

    /// IPv6 has no broadcast; a network's first address is its routers' (RFC 4291, 2.6.1), and a host
    /// may be told to have it.
    fn has_edges(_: u8) -> bool {
        false
    }

    #[inline(always)]
    fn pair(src: u128, dst: u128) -> [u64; 4] {
        [(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64].map(u64::to_be)
    }

    #[inline(always)]
    fn addresses(pair: [u64; 4]) -> (u128, u128) {
        let [a, b, c, d] = pair.map(|word| u128::from(u64::from_be(word)));
        (a << 64 | b, c << 64 | d)
    }

    #[inline(always)]
    fn swap([a, b, c, d]: [u64; 4]) -> [u64; 4] {
        [c, d, a, b]
    }

    #[inline(always)]
    fn write(pair: [u64; 4], hasher: &mut impl Hasher) {
        pair.into_iter().for_each(|word| hasher.write_u64(word));
    }
}
