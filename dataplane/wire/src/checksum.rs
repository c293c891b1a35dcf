//! The Internet checksum: computed (RFC 1071), updated for changed words (RFC 1624), and the
//! change itself as a value that is computed once per conn and applied to every packet.
//!
//! All numbers are those that the big-endian fields hold, in host order.
//!
//! Zero has two representations in ones-complement, 0x0000 and 0xffff. A checksum computed over
//! bytes that are not all zero is never 0xffff, as the sum under the complement is never 0x0000.
//! RFC 1624's equation 3 keeps that property, which RFC 1141's equation does not; UDP alone sends
//! 0xffff, in place of the 0 that means "none" there (RFC 768).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ones-complement sum of two 64-bit words: the carry comes in again at the end.
#[inline(always)]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    // When there is a carry, the sum is below its largest value.
    sum + carry as u64
}

/// Ones-complement sum of `bytes` as 64-bit words in the machine's byte order, an odd end filled
/// with zeros: RFC 1071, 2 (B) and (C), as the sum does not care for byte order until the end, and
/// wider words hold more of the narrow ones at once.
#[inline(always)]
pub(crate) fn raw_sum(bytes: &[u8]) -> u64 {
    raw_sum_with(0, bytes)
}

/// The same, added to the sum of what came before, an even number of bytes.
#[inline(always)]
pub(crate) fn raw_sum_with(before: u64, bytes: &[u8]) -> u64 {
    let mut sum = before;
    let (chunks, mut rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        sum = add(sum, u64::from_ne_bytes(*chunk));
    }
    // The rest in ever smaller words: to copy it into one of 8 bytes costs a call and a stall.
    if let Some((word, after)) = rest.split_first_chunk() {
        sum = add(sum, u64::from(u32::from_ne_bytes(*word)));
        rest = after;
    }
    if let Some((word, after)) = rest.split_first_chunk() {
        sum = add(sum, u64::from(u16::from_ne_bytes(*word)));
        rest = after;
    }
    if let [last] = rest {
        sum = add(sum, u64::from(u16::from_ne_bytes([*last, 0])));
    }
    sum
}

/// A raw sum in 16 bits: still in the machine's byte order. It is 0 only for 0.
#[inline(always)]
const fn fold_raw(sum: u64) -> u16 {
    // The halves added, with their carry, stand in the upper half.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Ones-complement sum of `bytes` as big-endian 16-bit words, at most 0xffff; an odd last byte
/// counts as if a zero followed (RFC 1071, 1). Sums of parts of even length may be added.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    u32::from(u16::from_be(fold_raw(raw_sum(bytes))))
}

/// Whether the checksum among `bytes` is right: their sum is then all ones, in any byte order.
#[inline(always)]
pub fn is_valid(bytes: &[u8]) -> bool {
    fold_raw(raw_sum(bytes)) == 0xffff
}

/// Whether the TCP or UDP checksum is right in `len` bytes with this raw sum, under the IPv4
/// pseudo-header of `addresses`, both as they stand in the IP header, and `protocol`.
#[inline(always)]
pub(crate) fn is_valid_l4_v4(addresses: &[u8; 8], protocol: u8, len: u16, sum: u64) -> bool {
    let pseudo = u64::from(u16::from(protocol).to_be()) + u64::from(len.to_be());
    fold_raw(add(add(sum, u64::from_ne_bytes(*addresses)), pseudo)) == 0xffff
}

/// The 16-bit ones-complement sum that a wider sum stands for. It is 0 only for 0.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    // The halves added, with their carry, stand in the upper half.
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum of `bytes` (RFC 1071), whose checksum field holds 0. Over bytes whose field holds
/// the right checksum it is 0.
#[inline]
pub fn compute(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Sum of the IPv4 pseudo-header (RFC 9293, 3.1; RFC 768). Addresses are in host order, `l4_len`
/// is the length of TCP header and data, or UDP's length field.
#[inline]
pub const fn pseudo_header_v4(src: u32, dst: u32, protocol: u8, l4_len: u16) -> u32 {
    (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + protocol as u32 + l4_len as u32
}

/// The TCP, UDP or pseudo-header-less sum's checksum over an IPv4 pseudo-header and `l4`: to be
/// sent when the checksum field in `l4` holds 0, and 0 when the field holds the right checksum.
#[inline]
pub fn compute_l4_v4(src: u32, dst: u32, protocol: u8, l4: &[u8]) -> u16 {
    !fold(sum(l4) + pseudo_header_v4(src, dst, protocol, l4.len() as u16))
}

/// A checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
#[inline]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    Delta::between_u16(old, new).apply(checksum)
}

/// A checksum after one 32-bit word under it, at an even offset, changed from `old` to `new`.
#[inline]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    Delta::between_u32(old, new).apply(checksum)
}

/// What changes of some words do to every checksum over them: the `~m + m'` of RFC 1624's
/// equation 3, summed. A conn rewrites the same words in each packet, so one `Delta` per direction
/// serves all its packets.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Delta(u16);

impl Delta {
    /// Nothing changes.
    pub const NONE: Delta = Delta(0);

    /// The change from the words `old` to the words `new`; either may have more of them, which
    /// then count as added or removed. At most 16,384 words each.
    #[inline]
    pub fn between(old: &[u16], new: &[u16]) -> Self {
        debug_assert!(old.len() <= 16_384 && new.len() <= 16_384, "the sums would overflow");
        let old: u32 = old.iter().map(|word| u32::from(!word)).sum();
        let new: u32 = new.iter().map(|word| u32::from(*word)).sum();
        Delta(fold(u32::from(fold(old)) + u32::from(fold(new))))
    }

    /// The change of one 16-bit word.
    #[inline]
    pub const fn between_u16(old: u16, new: u16) -> Self {
        Delta(fold(!old as u32 + new as u32))
    }

    /// The change of one 32-bit word at an even offset, such as an address.
    #[inline]
    pub const fn between_u32(old: u32, new: u32) -> Self {
        let old = !old;
        Delta(fold((old >> 16) + (old & 0xffff) + (new >> 16) + (new & 0xffff)))
    }

    /// The change of up to four words at an even offset, as they lie in packets: already
    /// [in packets](Self::in_packets).
    #[inline]
    pub const fn between_in_packets(old: u64, new: u64) -> Self {
        Delta(fold_raw(add(!old, new)))
    }

    /// Both changes together.
    #[inline]
    pub const fn and(self, other: Delta) -> Self {
        Delta(fold(self.0 as u32 + other.0 as u32))
    }

    /// The change back.
    #[inline]
    pub const fn inverse(self) -> Self {
        Delta(!self.0)
    }

    /// The change back if `inverse`, without a branch.
    #[inline(always)]
    pub const fn inverse_if(self, inverse: bool) -> Self {
        Delta(self.0 ^ (inverse as u16).wrapping_neg())
    }

    /// The same change to checksums that are read from packets as they lie: the sum does not care
    /// for byte order, so they need not be turned around (RFC 1071, 2 (B)).
    #[inline]
    pub const fn in_packets(self) -> Self {
        Delta(self.0.to_be())
    }

    /// A checksum after the change. For IPv4 headers, TCP and ICMP. This is RFC 1624's equation 4,
    /// with the borrow brought around, and equal to equation 3 in every bit.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        let (difference, borrow) = checksum.overflowing_sub(self.0);
        difference.wrapping_sub(borrow as u16)
    }

    /// A UDP checksum after the change: 0 means "none" and stays so, a result of 0 is sent as
    /// 0xffff (RFC 768).
    #[inline]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            updated => updated,
        }
    }

    /// As a plain number, to store in a conn.
    #[inline]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// From [`Delta::to_bits`].
    #[inline]
    pub const fn from_bits(bits: u16) -> Self {
        Delta(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, section 4.1, word by word: slow and plain.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0xddf2);
        assert_eq!(compute(&bytes), !0xddf2);
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        // HC = 0xdd2f, m = 0x5555, m' = 0x3285: RFC 1141 would give 0xffff, right is 0x0000.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn edges_of_the_sum() {
        assert_eq!(compute(&[]), 0xffff);
        assert_eq!(compute(&[0; 40]), 0xffff);
        assert_eq!(compute(&[0xff; 40]), 0);
        assert_eq!(compute(&[0xab]), !0xab00);
        assert_eq!(compute(&[0xff; 65_535]), reference(&[0xff; 65_535]));
        assert_eq!(fold(0), 0);
        assert_eq!(fold(0xffff), 0xffff);
        assert_eq!(fold(0x1_0000), 1);
        assert_eq!(fold(u32::MAX), 0xffff);
    }

    #[test]
    fn udp_zero_stays_zero_and_is_never_made() {
        let delta = Delta::between_u16(0x1234, 0xfff1);
        assert_eq!(delta.apply_udp(0), 0);
        for checksum in 1..=u16::MAX {
            let updated = delta.apply_udp(checksum);
            assert_ne!(updated, 0);
            let back = delta.inverse().apply_udp(updated);
            assert_eq!(back, checksum);
        }
    }

    #[test]
    fn no_change_leaves_every_computed_checksum_as_it_is() {
        for checksum in 0..0xffff {
            assert_eq!(Delta::NONE.apply(checksum), checksum);
            assert_eq!(Delta::between(&[7, 9], &[7, 9]).apply(checksum), checksum);
            assert_eq!(Delta::NONE.inverse().apply(checksum), checksum);
        }
    }

    /// Words among which the two zeros of ones-complement and their neighbours are frequent.
    fn word() -> impl Strategy<Value = u16> {
        prop_oneof![
            any::<u16>(),
            prop::sample::select(vec![0u16, 1, 0x7fff, 0x8000, 0xfffe, 0xffff])
        ]
    }

    fn be(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn sum_equals_the_plain_one_at_every_length(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            skip in 0usize..8,
        ) {
            let bytes = &bytes[skip.min(bytes.len())..];
            prop_assert_eq!(compute(bytes), reference(bytes));
            prop_assert_eq!(is_valid(bytes), reference(bytes) == 0);
        }

        #[test]
        fn l4_validity_is_that_of_the_computed_checksum(
            src: u32, dst: u32, protocol in prop::sample::select(vec![6u8, 17]),
            mut l4 in prop::collection::vec(any::<u8>(), 8..100),
            right: bool,
        ) {
            l4[6..8].fill(0);
            if right {
                let checksum = compute_l4_v4(src, dst, protocol, &l4);
                l4[6..8].copy_from_slice(&checksum.to_be_bytes());
            }
            let addresses = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            let valid = is_valid_l4_v4(
                addresses.first_chunk().unwrap(), protocol, l4.len() as u16, raw_sum(&l4),
            );
            prop_assert_eq!(valid, compute_l4_v4(src, dst, protocol, &l4) == 0);
            prop_assert!(valid || !right);
        }

        #[test]
        fn parts_of_even_length_may_be_added(
            words in prop::collection::vec(word(), 0..40), at in 0usize..40,
        ) {
            let bytes = be(&words);
            let at = (at * 2).min(bytes.len());
            prop_assert_eq!(fold(sum(&bytes[..at]) + sum(&bytes[at..])), fold(sum(&bytes)));
        }

        /// The rest of a header that is not all zero, and words in it that change.
        #[test]
        fn delta_equals_full_recomputation(
            rest in prop::collection::vec(word(), 1..12),
            changes in prop::collection::vec((word(), word()), 0..8),
        ) {
            prop_assume!(rest.iter().any(|w| *w != 0));
            let (old, new): (Vec<u16>, Vec<u16>) = changes.iter().copied().unzip();
            let before = compute(&be(&[rest.clone(), old.clone()].concat()));
            let after = compute(&be(&[rest, new.clone()].concat()));

            let delta = Delta::between(&old, &new);
            prop_assert_eq!(delta.apply(before), after);
            prop_assert_eq!(delta.inverse().apply(after), before);
            prop_assert_eq!(Delta::from_bits(delta.to_bits()), delta);

            let one_by_one = changes.iter().fold(before, |c, (m, n)| update_u16(c, *m, *n));
            prop_assert_eq!(one_by_one, after);
            let joined =
                changes.iter().fold(Delta::NONE, |d, (m, n)| d.and(Delta::between_u16(*m, *n)));
            prop_assert_eq!(joined.apply(before), after);
        }

        #[test]
        fn words_as_they_lie_change_as_they_do_in_host_order(old: [u16; 4], new: [u16; 4]) {
            let words = |words: [u16; 4]| u64::from_ne_bytes(be(&words).try_into().unwrap());
            let delta = Delta::between_in_packets(words(old), words(new));
            prop_assert_eq!(delta, Delta::between(&old, &new).in_packets());
        }

        #[test]
        fn a_32_bit_word_is_two_of_16(checksum in 0u16..0xffff, old: [u16; 2], new: [u16; 2]) {
            let wide = |w: [u16; 2]| u32::from(w[0]) << 16 | u32::from(w[1]);
            prop_assert_eq!(
                update_u32(checksum, wide(old), wide(new)),
                Delta::between(&old, &new).apply(checksum)
            );
        }
    }
}
