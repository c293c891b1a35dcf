//! Plain and wide conns in one table, beside a plain `HashMap`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::flow::{FlowHasher, FlowKey, Tuple, WideTuple};
use crate::ids::{BackendSlot, Direction, InterfaceId, L4Port, ServiceSlot};
use crate::memory::Pages;
use crate::table::conn::state::{ConnState, Fins, STATES, StateTimeouts};
use crate::table::conn::wheel::SLOT_MS;
use crate::table::conn::{ConnRef, ConnTable, InsertError, Line, NewConn, NewWideConn};
use crate::testkit::Random;
use crate::time::Millis;
use crate::treatment::Treatment;

const PLAIN: u32 = 24;
const WIDE: u32 = 96;
/// Established conns live for ten seconds, all others for one.
const TIMEOUTS: [StateTimeouts; 1] = [{
    let mut timeouts = [1_000; STATES];
    timeouts[ConnState::Established as usize] = 10_000;
    timeouts
}];

/// A flow, to look up by.
type Key = ([u64; 4], u32);

fn key(flow: &WideTuple) -> Key {
    (flow.addresses, flow.ports)
}

/// A client's flow and its answer.
type Flows = (WideTuple, Option<WideTuple>);

/// Full-NAT over any two families, or none that comes back.
fn flows(client: u16, random: &mut Random) -> Flows {
    let v4 = |a, b| (Ipv4Addr::new(10, a, (client >> 8) as u8, b).into(), L4Port(client));
    let v6 = |a| (Ipv6Addr::new(0x2001, 0xdb8, a, 0, 0, 0, 0, client).into(), L4Port(client));
    let http = L4Port(80);
    let (vip4, vip6) = ((Ipv4Addr::new(192, 0, 2, 1).into(), http), (v6(9).0, http));
    let client_side = match random.below(2) {
        0 => WideTuple::between(v4(1, client as u8), vip4, 6),
        _ => WideTuple::between(v6(1), vip6, 6),
    };
    let back = match random.below(3) {
        0 => Some(WideTuple::between((v4(2, 7).0, http), v4(3, client as u8), 6)),
        1 => Some(WideTuple::between((v6(2).0, http), v6(3), 6)),
        _ => None,
    };
    (client_side, back)
}

fn wide(flows: &Flows) -> NewWideConn {
    NewWideConn {
        from_client: flows.0,
        from_backend: flows.1,
        backend_address: Ipv4Addr::new(10, 2, 0, 7).into(),
        treatment: 3,
        service_slot: ServiceSlot(0),
        backend_slot: BackendSlot(5),
        state: ConnState::SynSent,
        interface: InterfaceId(1),
        seq: 9,
    }
}

/// The same as a plain conn, where both sides are IPv4.
fn plain(flows: &Flows) -> Option<NewConn> {
    let plain = |wide: &WideTuple| wide.plain().map(|tuple| FlowKey::from(&tuple));
    let from_backend = match &flows.1 {
        Some(back) => Some(plain(back)?),
        None => None,
    };
    Some(NewConn {
        treatment: if flows.1.is_some() { Treatment::FullNat } else { Treatment::Dr },
        from_client: plain(&flows.0)?,
        from_backend,
        backend_address: 0x0a02_0007,
        service_slot: ServiceSlot(0),
        backend_slot: BackendSlot(5),
        state: ConnState::SynSent,
        interface: InterfaceId(1),
        seq: 9,
    })
}

struct Expected {
    conn: ConnRef,
    back: Option<WideTuple>,
    state: ConnState,
    last_seen: Millis,
}

struct Model {
    table: ConnTable,
    hasher: FlowHasher,
    now: Millis,
    /// By the client's flow.
    conns: HashMap<Key, Expected>,
}

impl Model {
    fn new() -> Self {
        let hasher = FlowHasher::new(7);
        let now = u32::MAX - 60_000; // wraps on the way
        let table = ConnTable::with_wide(PLAIN, WIDE, hasher.clone(), now, Pages::Transparent);
        Model { table, hasher, now, conns: HashMap::new() }
    }

    fn find(&self, tuple: &WideTuple) -> ConnRef {
        let found = self.table.find_wide(self.hasher.hash_wide(tuple), tuple);
        // An IPv4 packet finds it as it finds any.
        if let Some(tuple) = tuple.plain() {
            let hash = self.hasher.hash(&tuple);
            assert_eq!(self.table.confirm(self.table.candidate(hash), hash, &tuple), found);
        }
        found
    }

    fn insert(&mut self, flows: &Flows, as_wide: bool) -> Result<ConnRef, InsertError> {
        let hash = self.hasher.hash_wide(&flows.0);
        let (table, now) = (&mut self.table, self.now);
        match plain(flows).filter(|_| !as_wide) {
            Some(new) => table.insert(&new, hash, now, &TIMEOUTS),
            None => table.insert_wide(&wide(flows), hash, now, &TIMEOUTS),
        }
    }

    fn of_kind(&self, is_wide: bool) -> usize {
        self.conns.values().filter(|known| known.conn.is_wide() == is_wide).count()
    }

    /// Let time pass, as a worker does it; what ended was due, and nothing is left that is overdue.
    fn pass(&mut self, ms: u32) -> [usize; 2] {
        self.now = self.now.wrapping_add(ms);
        let mut ended = Vec::new();
        self.table.expire(self.now, &TIMEOUTS, usize::MAX, |line| {
            assert_eq!(line.head().backend_slot(), BackendSlot(5));
            ended.push(match line {
                Line::Plain(line) => (WideTuple::from(&Tuple::from(&line.from_client())), false),
                Line::Wide(line) => (line.from_client(), true),
            });
        });
        let mut kinds = [0, 0];
        for (flow, is_wide) in ended {
            let known = self.conns.remove(&key(&flow)).expect("it was there");
            assert_eq!(known.conn.is_wide(), is_wide);
            let idle = self.now.wrapping_sub(known.last_seen);
            assert!(idle >= TIMEOUTS[0][known.state as usize], "{idle} ms in {:?}", known.state);
            kinds[usize::from(is_wide)] += 1;
        }
        for known in self.conns.values() {
            let idle = self.now.wrapping_sub(known.last_seen);
            assert!(idle <= TIMEOUTS[0][known.state as usize] + SLOT_MS, "{idle} ms");
        }
        kinds
    }
}

#[test]
fn both_kinds_agree_with_a_hash_map_in_one_table() {
    let mut random = Random::from_env();
    let mut model = Model::new();
    let mut full = [0, 0];
    let mut ended = [0, 0];
    for round in 0..60_000 {
        let client = random.below(1_024) as u16;
        let flows = flows(client, &mut random);
        let as_wide = random.below(2) == 0;
        match model.conns.get(&key(&flows.0)).map(|known| (known.conn, known.back)) {
            None => {
                assert!(model.find(&flows.0).is_none());
                let is_taken = flows.1.is_some_and(|back| !model.find(&back).is_none());
                let is_wide = as_wide || plain(&flows).is_none();
                let is_full = model.of_kind(is_wide) == if is_wide { WIDE } else { PLAIN } as usize;
                let made = model.insert(&flows, as_wide);
                let expected = match (is_full, is_taken) {
                    (true, _) => Err(InsertError::Full),
                    (_, true) => Err(InsertError::ReturnFlowTaken),
                    _ => Ok(is_wide),
                };
                assert_eq!(made.map(ConnRef::is_wide), expected, "round {round}");
                full[usize::from(is_wide)] += usize::from(is_full);
                let Ok(conn) = made else { continue };
                let (state, last_seen) = (ConnState::SynSent, model.now);
                model
                    .conns
                    .insert(key(&flows.0), Expected { conn, back: flows.1, state, last_seen });
            }
            Some((conn, back)) => {
                assert_eq!(model.find(&flows.0), conn);
                if let Some(back) = back {
                    let reverse = ConnRef::from_backend(conn.conn() as u32);
                    assert_eq!(model.find(&back), reverse);
                }
                let known = model.conns.get_mut(&key(&flows.0)).unwrap();
                if random.below(8) == 0 {
                    model.table.remove(conn);
                    model.table.end_burst();
                    model.conns.remove(&key(&flows.0));
                    assert!(model.find(&flows.0).is_none());
                } else {
                    let to = random.one_of(&[ConnState::Established, ConnState::Closed]);
                    model.table.touch(conn, to, Fins::NONE, model.now, &TIMEOUTS);
                    (known.state, known.last_seen) = (to, model.now);
                }
            }
        }
        assert_eq!(model.table.len(), model.of_kind(false));
        assert_eq!(model.table.wide_len(), model.of_kind(true));
        if random.below(20) == 0 {
            let ms = random.below(400) as u32;
            let kinds = model.pass(ms);
            ended = [ended[0] + kinds[0], ended[1] + kinds[1]];
        }
    }
    assert!(full.into_iter().all(|times| times > 50), "full: {full:?}");
    assert!(ended.into_iter().all(|times| times > 200), "ended: {ended:?}");
    model.pass(20_000);
    assert!(model.table.is_empty() && model.conns.is_empty());
}

/// A shorter timeout reaches wide conns by the walk, too.
#[test]
fn shortened_timeouts_count_for_both_kinds() {
    let mut model = Model::new();
    let mut random = Random::from_env();
    for client in 0..64 {
        let flows = flows(client, &mut random);
        let Ok(conn) = model.insert(&flows, client % 2 == 0) else { continue };
        model.table.touch(conn, ConnState::Established, Fins::NONE, model.now, &TIMEOUTS);
    }
    let conns = model.table.len() + model.table.wide_len();
    assert!(model.table.wide_len() > 20 && model.table.len() > 5);
    let shorter = [[500; STATES]];
    model.table.begin_rearming();
    while model.table.is_rearming() {
        model.table.rearm(&shorter, 50);
    }
    let mut gone = 0;
    let now = model.now.wrapping_add(500 + SLOT_MS);
    model.table.expire(now, &shorter, usize::MAX, |_| gone += 1);
    assert_eq!(gone, conns);
    assert!(model.table.is_empty());
}

#[test]
fn a_line_says_what_it_was_made_of() {
    let mut model = Model::new();
    let of = |address: &str, port| (address.parse().unwrap(), L4Port(port));
    let (client, vip) = (of("2001:db8::1", 5_000), of("2001:db8:9::1", 80));
    let (backend, local) = (of("10.2.0.7", 8_080), of("10.3.0.1", 1_024));
    let flows = (WideTuple::between(client, vip, 6), Some(WideTuple::between(backend, local, 6)));
    let conn = model.insert(&flows, true).unwrap();
    let line = model.table.wide(conn);
    assert_eq!((line.from_client(), line.from_backend()), flows);
    assert_eq!(
        (line.treatment(), line.service_slot(), line.backend_slot()),
        (3, ServiceSlot(0), BackendSlot(5))
    );
    assert_eq!((line.state(), line.protocol()), (ConnState::SynSent, 6));
    assert!(
        line.sees_replies()
            && line.comes_by(Direction::FromClient, InterfaceId(1))
            && line.seqs().fits(Direction::FromClient, 9)
    );
    // Whoever holds a local port is told by its IPv4 flow.
    let port = model.table.line(conn).from_backend().unwrap();
    assert_eq!((port.dst_port, Ipv4Addr::from_bits(port.src)), (local.1, [10, 2, 0, 7].into()));
    // One whose replies pass elsewhere.
    let one_way = (WideTuple::between(vip, client, 17), None);
    let conn = model.insert(&one_way, true).unwrap();
    assert_eq!(model.table.wide(conn).from_backend(), None);
    assert!(model.table.line(conn).from_backend().is_none());
}
