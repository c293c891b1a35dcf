//! Maglev.

use std::hint::black_box;
use std::net::Ipv4Addr;

use sluice_api::BackendId;
use sluice_path::flow::FlowKey;
use sluice_path::scheduler::{MaglevTable, flow_hash};

use super::Piece;
use crate::traffic::client;

const SLOTS: u32 = 65_537;
const LOOKUPS: u32 = 1_024;

fn backends() -> Vec<(BackendId, u16)> {
    let address = |i: u32| Ipv4Addr::from_bits(0x0a00_0100 + i);
    (0..100u32).map(|i| (BackendId { address: address(i).into(), port: 80 }, 100)).collect()
}

/// A table of 65,537 slots for 100 backends.
pub fn maglev_build() -> Piece {
    let backends = backends();
    Piece::new("table", 1, move || {
        black_box(MaglevTable::build(black_box(&backends), SLOTS));
    })
}

/// A flow's hash and its slot.
pub fn maglev_lookup() -> Piece {
    let table = MaglevTable::build(&backends(), SLOTS);
    Piece::new("lookup", LOOKUPS, move || {
        for i in 0..LOOKUPS {
            let flow = FlowKey { src: black_box(0x6440_0000 + i), ..client(0) };
            black_box(table.lookup(flow_hash(&flow)));
        }
    })
}
