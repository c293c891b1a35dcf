//! Our Toeplitz hash beside DPDK's own.

use dpdk_sys::soft_rss;
use sluice_path::family::{V4, V6};
use sluice_path::table::toeplitz::{
    IPV4_TUPLE_BYTES, IPV6_TUPLE_BYTES, RssFamily, RssKey, Toeplitz,
};
use sluice_path::testkit::Random;

/// That of Microsoft's documentation, also the default of Intel's igb and ixgbe.
const MICROSOFT: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

fn agrees<const BYTES: usize, F: RssFamily<Tuple = [u8; BYTES]>>(
    random: &mut Random,
    key: &RssKey,
) {
    let ours = Toeplitz::<F>::new(key).unwrap();
    for _ in 0..2_000 {
        let tuple: [u8; BYTES] = std::array::from_fn(|_| random.next_u64() as u8);
        let words: Vec<u32> =
            tuple.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
        assert_eq!(ours.hash(&tuple), soft_rss(&words, key.bytes()));
    }
}

#[test]
fn agrees_with_dpdk_over_random_tuples() {
    let mut random = Random::from_env();
    let mut keys = vec![
        RssKey::new(&MICROSOFT),
        RssKey::new(&[0x6d, 0x5a].repeat(26)),
        RssKey::new(&RssKey::generate(2).bytes()[..40]),
    ];
    keys.extend((0..20).map(RssKey::generate));
    for key in keys {
        agrees::<IPV4_TUPLE_BYTES, V4>(&mut random, &key);
        agrees::<IPV6_TUPLE_BYTES, V6>(&mut random, &key);
    }
}
