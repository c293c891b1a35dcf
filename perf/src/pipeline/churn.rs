//! Churn: conns that are made, used, closed and expired, as many at once as the table bears.
//!
//! A life is six packets: SYN, SYN-ACK, ACK, the client's FIN, the backend's FIN, the last ACK;
//! then the conn waits out its TIME_WAIT and the wheel takes it. Each burst holds packets of some
//! 32 conns in all stages of their lives, in another order at each stage, from both ports. Expiry
//! runs after each burst as in a worker, and is timed with it. The clock goes at the pace at which
//! the table is about 90 % full.

use sluice_api::Mode;
use sluice_dataplane::dpdk::Mbuf;
use sluice_path::burst::BURST;
use sluice_path::flow::{FlowKey, Tuple};
use sluice_path::frame::Frame;
use sluice_path::ids::InterfaceId;
use sluice_path::table::conn::wheel::SLOT_MS;
use sluice_path::testkit::{BACKEND_PORT, CLIENT_PORT};
use sluice_path::time::Millis;
use sluice_wire::headers::Ipv4Frame;
use sluice_wire::tcp::TcpFlags;

use super::bench::{Bench, Setup, Traffic};
use super::goal::{self, Goal};
use super::report::{Row, round};
use super::scenario::{Rounds, bring_up, clients};
use crate::traffic::{Template, client};
use sluice_path::pipeline::EXPIRE_PER_ROUND;

/// Packets of a life.
const STEPS: usize = 6;
/// Conns that take a step together, each in its own place: the next step of a conn comes when all
/// others have taken theirs, give or take.
const BLOCK: u32 = 1 << 15;
/// Odd, so that multiples of them visit a whole block in another order at each step.
const STRIDES: [u32; STEPS] = [1, 12_345, 7_919, 20_011, 3_001, 28_657];

/// Who sends each packet of a life, and with which flags.
fn life() -> [(InterfaceId, TcpFlags); STEPS] {
    let ack = TcpFlags::ACK;
    let fin = TcpFlags::FIN.with(ack);
    [
        (CLIENT_PORT, TcpFlags::SYN),
        (BACKEND_PORT, TcpFlags::SYN.with(ack)),
        (CLIENT_PORT, ack),
        (CLIENT_PORT, fin),
        (BACKEND_PORT, fin),
        (CLIENT_PORT, ack),
    ]
}

struct Churn {
    /// The next packet: its block's number, place in it, and step.
    block: u32,
    place: u32,
    step: usize,
    templates: [Template; STEPS],
    /// The flow in which the backend answers, by conn modulo their number.
    replies: Vec<FlowKey>,
    /// Conns whose SYN is in this burst; none elsewhere in it.
    syns: Vec<Option<u32>>,
    /// First clients are those of this number.
    clients: u32,
    start: Millis,
    conns_per_ms: f64,
}

impl Churn {
    fn new(clients: u32, start: Millis, conns_per_ms: f64) -> Self {
        Churn {
            block: 0,
            place: 0,
            step: 0,
            templates: life().map(|(port, flags)| Template::new(port, client(0), flags)),
            replies: vec![FlowKey::default(); 2 * STEPS * BLOCK as usize],
            syns: Vec::with_capacity(BURST),
            clients,
            start,
            conns_per_ms,
        }
    }

    /// The conn that the next packet belongs to; none while the first have not come so far.
    fn conn(&self) -> Option<u32> {
        let block = self.block.checked_sub(self.step as u32)?;
        let place = self.place.wrapping_mul(STRIDES[self.step]) % BLOCK;
        Some(block * BLOCK + place)
    }

    fn advance(&mut self) {
        self.step += 1;
        if self.step == STEPS {
            self.step = 0;
            self.place += 1;
            if self.place == BLOCK {
                self.place = 0;
                self.block += 1;
            }
        }
    }
}

impl Traffic for Churn {
    const EXPIRE: usize = EXPIRE_PER_ROUND;

    fn next(&mut self) -> (InterfaceId, Vec<u8>) {
        while self.conn().is_none() {
            self.advance();
        }
        let (conn, step) = (self.conn().unwrap_or_default(), self.step);
        self.advance();
        self.syns.push((step == 0).then_some(conn));
        let (port, _) = life()[step];
        let key = match port {
            BACKEND_PORT => self.replies[conn as usize % self.replies.len()],
            _ => client(conn % self.clients),
        };
        (port, self.templates[step].with(key))
    }

    fn now(&mut self, _: Millis) -> Millis {
        let conns = f64::from(self.block) * f64::from(BLOCK) + f64::from(self.place);
        self.start.wrapping_add((conns / self.conns_per_ms) as u32)
    }

    /// Note the replies' flows of the conns that were made: the packets' own bytes tell, without a
    /// look into the table that would warm it.
    fn left(&mut self, frames: &[Mbuf]) {
        // A burst whose next hop is not known yet is held back: only at the start.
        if frames.len() == self.syns.len() {
            for (frame, conn) in frames.iter().zip(&self.syns) {
                if let (Ok(view), Some(conn)) = (Ipv4Frame::parse(frame.bytes()), conn) {
                    let index = *conn as usize % self.replies.len();
                    let sent = Tuple::from(&FlowKey::from(view));
                    self.replies[index] = FlowKey::from(&sent.reversed());
                }
            }
        }
        self.syns.clear();
    }
}

/// Measure it over a table of `conns` conns.
pub fn measure(bench: &mut Bench, conns: u32) -> Row {
    let mut setup = Setup::one_service(Mode::FullNat, conns);
    // Every next hop is known before: no packet is held back.
    bring_up(bench, &mut setup, &clients(1_000));
    let timeouts = setup.snapshot.services[0].timeouts;
    setup.now += timeouts.tcp_established_ms + SLOT_MS;
    setup.pipeline.expire(&setup.compiled, setup.now, usize::MAX);
    let made_before = setup.pipeline.counters().conns_created.get();

    // In the table are those that live, and those in TIME_WAIT until their slot of the wheel.
    let alive = (STEPS as u32 - 1) * BLOCK;
    let waiting = (conns * 9 / 10).saturating_sub(alive);
    let conns_per_ms = f64::from(waiting) / f64::from(timeouts.tcp_time_wait_ms + SLOT_MS);
    let mut churn = Churn::new(4 * conns, setup.now, conns_per_ms);
    let mut rounds = Rounds::default();
    // The warm-up fills the table and lasts until the first conns have expired.
    bench.run(&mut setup, STEPS * conns as usize * 3 / 2, &mut churn);
    let mut ns_per_conn = Vec::new();
    for _ in 0..bench.rounds {
        rounds.floor(bench);
        let before = conns_counted(&setup);
        let cycles = bench.run(&mut setup, bench.packets, &mut churn);
        let ended = (conns_counted(&setup).1 - before.1) as f64;
        let ns = cycles.iter().sum::<u64>() as f64 / (bench.hz() as f64 / 1e9);
        // As many packets as a conn has, whichever conns they belong to.
        ns_per_conn.push(ns / (cycles.len() * BURST) as f64 * STEPS as f64);
        let made = (conns_counted(&setup).0 - before.0) as f64;
        assert!((ended / made - 1.0).abs() < 0.5, "{made} conns were made, {ended} ended");
        rounds.cycles.push(cycles);
    }
    let dropped = setup.pipeline.counters().dropped();
    assert_eq!(dropped, 0, "churn drops no packet");
    assert!(conns_counted(&setup).0 > made_before);
    ns_per_conn.sort_by(f64::total_cmp);
    let ns_per_conn = ns_per_conn[ns_per_conn.len() / 2];
    let conn_per_s = (1e9 / ns_per_conn).round();
    let mut row = rounds.row(bench, &setup);
    row.ns_per_conn = Some(round(ns_per_conn));
    row.conn_per_s = Some(conn_per_s);
    row.goal = Some(Goal::at_least("conn_per_s", goal::CONN_PER_S, conn_per_s));
    row
}

/// Conns made and conns ended so far.
fn conns_counted(setup: &Setup) -> (u64, u64) {
    let counters = setup.pipeline.counters();
    (counters.conns_created.get(), counters.conns_expired.get())
}
