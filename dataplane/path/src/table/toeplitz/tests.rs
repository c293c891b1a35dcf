//! Tests, and keys for those of others.

use super::*;
use crate::testkit::Random;

/// That of Microsoft's documentation, also the default of Intel's igb and ixgbe.
const MICROSOFT: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
/// The default of mlx5.
const MLX5: [u8; 40] = [
    0x2c, 0xc6, 0x81, 0xd1, 0x5b, 0xdb, 0xf4, 0xf7, 0xfc, 0xa2, 0x83, 0x19, 0xdb, 0x1a, 0x3e, 0x94,
    0x6b, 0x9e, 0x38, 0xd9, 0x2c, 0x9c, 0x03, 0xd1, 0xad, 0x99, 0x44, 0xa7, 0xd9, 0x56, 0x3d, 0x59,
    0x06, 0x3c, 0x25, 0xf3, 0xfc, 0x1f, 0xdc, 0x2a,
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
