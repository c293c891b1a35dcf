//! Several workers at once: what a packet takes must not depend on how many there are.
//!
//! All workers run here one after the other, each with its share of the packets, as its NIC or
//! kernel would give it. The rings between workers are DPDK's and are not counted.

use std::sync::Arc;

use sluice_path::burst::Meta;
use sluice_path::flow::{FlowKey, Tuple};
use sluice_path::ids::{InterfaceId, WorkerId};
use sluice_path::pipeline::{Steering, Trust};
use sluice_path::table::owner::Owners;
use sluice_path::table::spread::Spread;
use sluice_path::table::toeplitz::{Reta, RssKey};
use sluice_path::testkit::{BACKEND_PORT, CLIENT_PORT};
use sluice_wire::tcp::TcpFlags;

use super::buffer::Buffer;
use super::runner::Runner;
use crate::traffic::client;

/// Conns of each worker, on average: more than the packets after which a NIC is believed.
const FLOWS: u32 = 2_048;
/// Entries of the NICs' redirection tables.
const RETA: usize = 128;

/// Workers behind two ports.
struct Site {
    workers: Vec<Runner>,
    /// How the ports spread packets; without RSS, anyhow.
    rss: Option<Arc<Spread>>,
}

impl Site {
    fn with_rss(workers: u16) -> Self {
        let spread = Spread::new(&RssKey::generate(7), &Reta::even(RETA, workers), workers);
        let spread = Arc::new(spread.expect("such a key reaches every queue"));
        let owners = Owners::Rss(Arc::clone(&spread));
        Self::new(workers, Steering { owners, by_nic: [true, true].into() }, Some(spread))
    }

    fn new(workers: u16, steering: Steering, rss: Option<Arc<Spread>>) -> Self {
        // Twice what each has on average: their shares differ.
        let worker = |w| Runner::one_of((w, workers), steering.clone(), 2 * FLOWS);
        Site { workers: WorkerId::first(workers).map(worker).collect(), rss }
    }

    fn flows(&self) -> impl Iterator<Item = FlowKey> + use<> {
        (0..FLOWS * self.workers.len() as u32).map(client)
    }

    /// Send a packet of each flow; counted or not. How many that were.
    fn send(
        &mut self,
        port: InterfaceId,
        flags: TcpFlags,
        flows: impl IntoIterator<Item = FlowKey>,
        count: bool,
    ) -> u64 {
        let mut queues = vec![Vec::new(); self.workers.len()];
        for (number, flow) in flows.into_iter().enumerate() {
            let queue = match &self.rss {
                Some(spread) => usize::from(spread.queue(&Tuple::from(&flow))),
                None => number % queues.len(),
            };
            queues[queue].push(flow);
        }
        let mut packets = 0;
        let mut foreign: Vec<Vec<Buffer>> = queues.iter().map(|_| Vec::new()).collect();
        for (worker, flows) in self.workers.iter_mut().zip(queues) {
            packets += worker.send(port, flags, flows, count);
            for (owner, _, buffer) in worker.take_handed_over() {
                foreign[owner.index()].push(buffer);
            }
        }
        for (worker, buffers) in self.workers.iter_mut().zip(foreign) {
            worker.process(Meta::received(port, true), buffers, count);
        }
        packets
    }

    /// Established conns; the flows of their replies.
    fn bring_up(&mut self) -> Vec<FlowKey> {
        self.send(CLIENT_PORT, TcpFlags::SYN, self.flows(), false);
        let reply = |key| self.workers.iter().find_map(|w| w.setup.pipeline.reply_flow(&key));
        let replies: Vec<FlowKey> = self.flows().filter_map(reply).collect();
        self.send(BACKEND_PORT, TcpFlags::SYN.with(TcpFlags::ACK), replies.iter().copied(), false);
        self.send(CLIENT_PORT, TcpFlags::ACK, self.flows(), false);
        self.check(self.flows().count());
        replies
    }

    /// So many conns were made, nothing was dropped, and each port does what it is here to do.
    fn check(&self, conns: usize) {
        let made = |w: &Runner| w.setup.pipeline.conns().len();
        assert_eq!(self.workers.iter().map(made).sum::<usize>(), conns, "all conns were made");
        for worker in &self.workers {
            assert_eq!(worker.dropped(), 0, "all packets were forwarded");
            let counters = worker.setup.pipeline.counters();
            if self.rss.is_some() && self.workers.len() > 1 {
                for port in [CLIENT_PORT, BACKEND_PORT] {
                    let trust = Trust::from_gauge(counters.queue(port.port()).trust.get());
                    assert_eq!(trust, Trust::Trusted, "port {port}");
                }
                assert_eq!(counters.handed_over.get(), 0, "every packet came to its owner");
            }
        }
    }

    /// A packet in each direction of every conn, counted.
    fn established(mut self) -> (u64, Self) {
        let replies = self.bring_up();
        let from_clients = self.send(CLIENT_PORT, TcpFlags::ACK, self.flows(), true);
        let from_backends = self.send(BACKEND_PORT, TcpFlags::ACK, replies, true);
        self.check(self.flows().count());
        (from_clients + from_backends, self)
    }
}

/// Established conns in both directions, whose packets RSS brings to their owner.
pub fn rss_established(workers: u16) -> u64 {
    Site::with_rss(workers).established().0
}

/// New conns, where RSS is to bring the replies to their owner.
pub fn rss_new(workers: u16) -> u64 {
    let mut site = Site::with_rss(workers);
    site.bring_up();
    let (old, new) = (FLOWS * u32::from(workers), FLOWS / 2 * u32::from(workers));
    let packets = site.send(CLIENT_PORT, TcpFlags::SYN, (old..old + new).map(client), true);
    site.check((old + new) as usize);
    packets
}

/// Established conns in both directions, whose packets come to any worker and are handed over.
pub fn handover(workers: u16) -> u64 {
    let (packets, site) = Site::new(workers, Steering::by_handover(workers), None).established();
    let handed_over = |w: &Runner| w.setup.pipeline.counters().handed_over.get();
    let handed_over: u64 = site.workers.iter().map(handed_over).sum();
    assert!(handed_over > packets / 4, "most packets came to another worker");
    packets
}
