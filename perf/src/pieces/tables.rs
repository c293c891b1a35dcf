//! The conn table, the timer wheel and the local ports.

use std::hint::black_box;

use sluice_path::flow::{Endpoint, FlowHasher, FlowKey, Tuple, WideTuple};
use sluice_path::ids::{BackendSlot, InterfaceId, L4Port, ServiceSlot, WorkerId};
use sluice_path::memory::Pages;
use sluice_path::table::conn::ConnRef;
use sluice_path::table::conn::state::{ConnState, STATES};
use sluice_path::table::conn::wheel::{Link, Links, SLOT_MS, Wheel};
use sluice_path::table::conn::{ConnTable, NewConn};
use sluice_path::table::local_port::{LocalPort, OwnPorts};
use sluice_path::table::port_space::PortSpace;
use sluice_path::testkit::Random;
use sluice_path::treatment::Treatment;

use super::Piece;
use crate::traffic::wide_conn;

/// Conns in the table.
const CONNS: u32 = 8_192;
/// Operations of a run.
const TIMES: u32 = 2_048;
const TIMEOUTS: [[u32; STATES]; 1] = [[60_000; STATES]];

fn from_client(i: u32) -> FlowKey {
    FlowKey {
        src: 0x6440_0000 + i,
        dst: 0xc000_0264,
        src_port: L4Port(40_000),
        dst_port: L4Port(80),
        protocol: 6,
    }
}

/// A full-NAT conn of client number `i`.
fn conn(i: u32) -> NewConn {
    let backend_address = 0x0a00_0101 + i % 4;
    let back = FlowKey {
        src: backend_address,
        dst: 0x0a00_ff01,
        src_port: L4Port(80),
        dst_port: L4Port(1_024 + (i / 4) as u16),
        protocol: 6,
    };
    NewConn {
        treatment: Treatment::FullNat,
        from_client: from_client(i),
        from_backend: Some(back),
        backend_address,
        service_slot: ServiceSlot(0),
        backend_slot: BackendSlot(i % 4),
        state: ConnState::Established,
        interface: InterfaceId(0),
        seq: 0,
    }
}

/// A table that has room for twice as many conns as it has.
fn table() -> (ConnTable, FlowHasher) {
    let hasher = FlowHasher::new(0x5eed);
    let mut table = ConnTable::new(2 * CONNS, hasher.clone(), 0, Pages::Transparent);
    for i in 0..CONNS {
        let hash = hasher.hash(&Tuple::from(&from_client(i)));
        table.insert(&conn(i), hash, 0, &TIMEOUTS).expect("there is room");
    }
    (table, hasher)
}

fn lookup(first: u32) -> Piece {
    let (table, hasher) = table();
    let mut random = Random(1);
    let keys = (0..TIMES).map(|_| from_client(first + random.below(CONNS as usize) as u32));
    let keys = keys.map(|key| Tuple::from(&key));
    let keys: Vec<(u64, Tuple)> = keys.map(|key| (hasher.hash(&key), key)).collect();
    Piece::new("lookup", TIMES, move || {
        for (hash, key) in &keys {
            let candidate = table.candidate(*hash);
            black_box(table.confirm(candidate, *hash, key));
        }
    })
}

/// The conn of a flow that has one: candidate and confirmation, as the stages do it.
pub fn conn_lookup_hit() -> Piece {
    lookup(0)
}

/// No conn for a flow that has none.
pub fn conn_lookup_miss() -> Piece {
    lookup(CONNS)
}

/// A full-NAT conn made and removed, both directions, timer and all.
pub fn conn_insert_remove() -> Piece {
    let (mut table, hasher) = table();
    let new = (CONNS..CONNS + TIMES).map(|i| (hasher.hash(&Tuple::from(&from_client(i))), conn(i)));
    let new: Vec<(u64, NewConn)> = new.collect();
    Piece::new("conn", TIMES, move || {
        for (hash, new) in &new {
            let made = table.insert(new, *hash, 0, &TIMEOUTS).expect("there is room");
            table.remove(made);
            table.end_burst();
        }
    })
}

/// A table with as many plain conns as wide ones, and room for as many more.
fn mixed_table() -> ConnTable {
    let hasher = FlowHasher::new(0x5eed);
    let mut table = ConnTable::with_wide(2 * CONNS, 2 * CONNS, hasher, 0, Pages::Transparent);
    for i in 0..CONNS {
        let hash = table.hash(&Tuple::from(&from_client(i)));
        table.insert(&conn(i), hash, 0, &TIMEOUTS).expect("there is room");
        let new = wide_conn(i);
        let hash = table.hash_wide(&new.from_client);
        table.insert_wide(&new, hash, 0, &TIMEOUTS).expect("there is room");
    }
    table
}

/// The wide conn of a flow that has one.
pub fn wide_lookup_hit() -> Piece {
    let table = mixed_table();
    let mut random = Random(4);
    let keys = (0..TIMES).map(|_| wide_conn(random.below(CONNS as usize) as u32).from_client);
    let keys: Vec<(u64, WideTuple)> = keys.map(|key| (table.hash_wide(&key), key)).collect();
    Piece::new("lookup", TIMES, move || {
        for (hash, key) in &keys {
            assert!(black_box(table.find_wide(*hash, key)).is_wide());
        }
    })
}

/// A wide conn made and removed, both directions, timer and all.
pub fn wide_insert_remove() -> Piece {
    let mut table = mixed_table();
    let new = (CONNS..CONNS + TIMES).map(wide_conn);
    let new: Vec<_> = new.map(|new| (table.hash_wide(&new.from_client), new)).collect();
    Piece::new("conn", TIMES, move || {
        for (hash, new) in &new {
            let made = table.insert_wide(new, *hash, 0, &TIMEOUTS).expect("there is room");
            table.remove(made);
            table.end_burst();
        }
    })
}

struct Store(Vec<Link>);

impl Links for Store {
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize]
    }

    fn prefetch(&self, _index: u32) {}
}

/// A timer armed and disarmed.
pub fn wheel_arm_disarm() -> Piece {
    let mut store = Store(vec![Link::UNARMED; CONNS as usize]);
    let mut wheel = Wheel::new(0);
    let mut random = Random(2);
    let timers = (0..TIMES).map(|i| (i * 7 % CONNS, random.below(900_000) as u32));
    let timers: Vec<(u32, u32)> = timers.collect();
    Piece::new("timer", TIMES, move || {
        for (index, deadline) in &timers {
            wheel.arm(&mut store, *index, *deadline);
        }
        for (index, _) in &timers {
            wheel.disarm(&mut store, *index);
        }
    })
}

/// A timer armed, and found when it is due.
pub fn wheel_arm_expire() -> Piece {
    let mut store = Store(vec![Link::UNARMED; CONNS as usize]);
    let mut wheel = Wheel::new(0);
    let mut random = Random(3);
    let timers: Vec<(u32, u32)> =
        (0..TIMES).map(|i| (i * 7 % CONNS, random.below(10_000) as u32)).collect();
    let mut now = 0u32;
    Piece::new("timer", TIMES, move || {
        for (index, after) in &timers {
            wheel.arm(&mut store, *index, now.wrapping_add(*after));
        }
        now = now.wrapping_add(10_000 + 2 * SLOT_MS);
        let mut due = 0;
        while wheel.pop_due(&mut store, now).is_some() {
            due += 1;
        }
        assert_eq!(due, TIMES, "all are due");
    })
}

/// The backend that local ports are for.
const BACKEND: Endpoint = Endpoint { address: 0x0a00_0101, port: L4Port(80), protocol: 6 };

fn local_addresses(count: u32) -> Vec<u32> {
    (0..count).map(|i| 0x0a00_ff01 + i).collect()
}

/// A local port taken unseen, and given back.
pub fn local_port_reserve() -> Piece {
    let owners = [OwnPorts::by_modulo(WorkerId(0), 2), OwnPorts::by_modulo(WorkerId(1), 2)];
    let addresses = local_addresses(4);
    let space = <PortSpace>::new(BACKEND, &addresses, &owners, 7);
    Piece::new("local port", TIMES, move || {
        for _ in 0..TIMES {
            let flow = black_box(space.reserve(&owners[0])).expect("there is room");
            let local = LocalPort { address: flow.dst - addresses[0], port: flow.dst_port };
            space.release(&owners[0], local);
        }
    })
}

/// The longest search among all ports of so many addresses, all of them in use but two: through the
/// rest of a block that has room only before it, and through one that has it at its end.
fn local_port_search(addresses: u32) -> Piece {
    let owners = [OwnPorts::by_modulo(WorkerId(0), 1)];
    let capacity = owners[0].capacity(addresses as usize);
    let local = local_addresses(addresses);
    let space = <PortSpace>::new(BACKEND, &local, &owners, 0);
    let hasher = FlowHasher::new(0x5eed);
    let mut table = ConnTable::new(capacity, hasher.clone(), 0, Pages::Transparent);
    let mut made = Vec::new();
    let make = move |table: &mut ConnTable, space: &PortSpace, i: u32| {
        let new = NewConn { from_client: from_client(i), ..conn(0) };
        let hash = hasher.hash(&Tuple::from(&new.from_client));
        let found = space.find(&owners[0], |flow| {
            let new = NewConn { from_backend: Some(flow), ..new };
            table.insert(&new, hash, 0, &TIMEOUTS).ok().map(|conn| (conn, flow))
        });
        found.expect("a port is free")
    };
    for i in 0..capacity {
        made.push(make(&mut table, &space, i));
    }
    let own = OwnPorts::by_modulo(WorkerId(0), 1);
    let first = local[0];
    let block = space.block(WorkerId(0)) as usize;
    let mut free = made[0];
    let end = move |table: &mut ConnTable, space: &PortSpace, (conn, flow): (ConnRef, FlowKey)| {
        table.remove(conn);
        table.end_burst();
        space.release(&own, LocalPort { address: flow.dst - first, port: flow.dst_port });
    };
    end(&mut table, &space, made[2 * block - 1]);
    end(&mut table, &space, free);
    free = make(&mut table, &space, 0);
    Piece::new("search", 1, move || {
        let last = make(&mut table, &space, capacity - 1);
        end(&mut table, &space, last);
        end(&mut table, &space, free);
        free = make(&mut table, &space, 0);
    })
}

/// The longest search, by one address.
pub fn local_port_search_1() -> Piece {
    local_port_search(1)
}

/// The longest search, by four addresses.
pub fn local_port_search_4() -> Piece {
    local_port_search(4)
}

/// The longest search, by 16 addresses.
pub fn local_port_search_16() -> Piece {
    local_port_search(16)
}
