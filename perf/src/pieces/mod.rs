//! The pieces of the packet path, each on its own: for `sluice-perf count`, which counts their
//! instructions, and for `cargo bench -p sluice-perf`, which takes their time.
//!
//! Whole packets through the whole pipeline are elsewhere: `sluice-perf pipeline` times them on real
//! mbufs, `sluice-perf count` counts their instructions.

mod scheduler;
mod tables;
mod wire;

/// A piece, ready to run: everything it works on is made.
pub struct Piece {
    /// What one operation is: `lookup`, `table`, `frame` …
    pub unit: &'static str,
    /// Operations of one run.
    pub operations: u32,
    /// Run them. It leaves everything as it was, so that it can be run again.
    pub run: Box<dyn FnMut()>,
}

impl Piece {
    fn new(unit: &'static str, operations: u32, run: impl FnMut() + 'static) -> Self {
        Piece { unit, operations, run: Box::new(run) }
    }
}

/// A piece's name, and how it is made ready.
pub type Named = (&'static str, fn() -> Piece);

/// All pieces.
pub const PIECES: &[Named] = &[
    ("conn-lookup-hit", tables::conn_lookup_hit),
    ("conn-lookup-miss", tables::conn_lookup_miss),
    ("conn-insert-remove", tables::conn_insert_remove),
    ("wide-lookup-hit", tables::wide_lookup_hit),
    ("wide-insert-remove", tables::wide_insert_remove),
    ("wheel-arm-disarm", tables::wheel_arm_disarm),
    ("wheel-arm-expire", tables::wheel_arm_expire),
    ("local-port-reserve", tables::local_port_reserve),
    ("maglev-build", scheduler::maglev_build),
    ("maglev-lookup", scheduler::maglev_lookup),
    ("checksum-20", wire::checksum_20),
    ("checksum-60", wire::checksum_60),
    ("checksum-1500", wire::checksum_1500),
    ("parse-tcp", wire::parse_tcp),
    ("parse-udp", wire::parse_udp),
];

/// Those that take too long to make ready for `count`, which runs under valgrind.
pub const LARGE: &[Named] = &[
    ("local-port-search-1-address", tables::local_port_search_1),
    ("local-port-search-4-addresses", tables::local_port_search_4),
    ("local-port-search-16-addresses", tables::local_port_search_16),
];
