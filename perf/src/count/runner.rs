//! A pipeline that is fed burst by burst, and counted or not.

use sluice_api::Mode;
use sluice_path::burst::{BURST, Burst, Meta};
use sluice_path::flow::FlowKey;
use sluice_path::ids::{InterfaceId, WorkerId};
use sluice_path::pipeline::{Steering, ToMain};
use sluice_path::testkit::{self, BACKEND_PORT, CLIENT_PORT};
use sluice_wire::tcp::TcpFlags;

use super::buffer::{Buffer, Lane};
use super::inside::counted;
use crate::setup::Setup;
use crate::traffic::{Template, client};

/// A pipeline and where its packets go.
pub struct Runner {
    /// The pipeline.
    pub setup: Setup<Buffer>,
    burst: Burst<Buffer>,
    lane: Lane,
}

impl Runner {
    /// One worker, one service.
    pub fn new(mode: Mode, conns: u32) -> Self {
        Self::over(Setup::one_service(mode, conns))
    }

    /// The same beside so many wide conns.
    pub fn beside_wide(mode: Mode, conns: u32, wide: u32) -> Self {
        Self::over(Setup::beside_wide(mode, conns, wide))
    }

    /// Worker number so of so many, with one service in full-NAT.
    pub fn one_of(worker: (WorkerId, u16), steering: Steering, conns: u32) -> Self {
        Self::over(Setup::one_of(worker, steering, conns))
    }

    fn over(setup: Setup<Buffer>) -> Self {
        let sent = Vec::with_capacity(2 * BURST);
        // Room for all that are ever taken at once: growing must not be counted.
        let lane = Lane { sent, handed_over: Vec::with_capacity(8_192) };
        Runner { setup, burst: Burst::default(), lane }
    }

    /// Send a packet of each flow; counted or not. How many that were.
    pub fn send(
        &mut self,
        port: InterfaceId,
        flags: TcpFlags,
        flows: impl IntoIterator<Item = FlowKey>,
        count: bool,
    ) -> u64 {
        let mut template = Template::new(port, client(0), flags);
        let buffers = Buffer::all(flows.into_iter().map(|key| template.with(key)));
        let packets = buffers.len() as u64;
        self.process(Meta::received(port, false), buffers, count);
        packets
    }

    /// Process packets that came by one way, in bursts.
    pub fn process(&mut self, meta: Meta, mut buffers: Vec<Buffer>, count: bool) {
        while !buffers.is_empty() {
            let count_here = buffers.len().min(BURST);
            self.burst.frames_mut().extend(buffers.drain(..count_here));
            let Runner { setup, burst, lane } = self;
            let mut run = || {
                burst.received(|_| meta);
                setup.pipeline.process(burst, &setup.compiled, setup.now, lane);
            };
            if count {
                counted(&mut run)
            } else {
                run()
            }
            self.answer_wants();
        }
    }

    /// What was for other workers since the last call: to which, by which port, and the packet.
    pub fn take_handed_over(&mut self) -> Vec<(WorkerId, InterfaceId, Buffer)> {
        self.lane.handed_over.drain(..).collect()
    }

    fn answer_wants(&mut self) {
        self.lane.sent.clear();
        let Setup { pipeline, compiled, now, .. } = &mut self.setup;
        let messages: Vec<ToMain> = pipeline.take_messages().collect();
        for message in messages {
            if let ToMain::Want { hop, .. } = message {
                let update = testkit::is_reachable(hop.interface, hop.ip());
                pipeline.update_neighbour(&update, compiled, *now, &mut self.lane);
            }
        }
        self.lane.sent.clear();
    }

    /// Established conns; the flows of their replies, in full-NAT.
    pub fn bring_up(&mut self, flows: u32) -> Vec<FlowKey> {
        self.send(CLIENT_PORT, TcpFlags::SYN, (0..flows).map(client), false);
        let reply = |i| self.setup.pipeline.reply_flow(&client(i));
        let replies: Vec<FlowKey> = (0..flows).filter_map(reply).collect();
        let syn_ack = TcpFlags::SYN.with(TcpFlags::ACK);
        self.send(BACKEND_PORT, syn_ack, replies.iter().copied(), false);
        self.send(CLIENT_PORT, TcpFlags::ACK, (0..flows).map(client), false);
        assert_eq!(self.setup.pipeline.conns().len(), flows as usize, "all conns were made");
        replies
    }

    /// Packets dropped so far, for any reason.
    pub fn dropped(&self) -> u64 {
        self.setup.pipeline.counters().dropped()
    }
}
