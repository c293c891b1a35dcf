//! The way to the kernel and back, for all ports: what workers have for it, what it sends, what it is told
//! of next hops, and its side of the ports, which is kept as it should be.

use std::sync::Arc;

use sluice_api::DropReason;
use sluice_wire::arp;
use sluice_wire::ether::MacAddr;

use super::crew::Crew;
use super::exception::{ExceptionPort, Strangers};
use super::outgoing::Outgoing;
use crate::config::Route;
use crate::dpdk::Mbuf;
use crate::events::EventLog;
use crate::kernel::Keeper;
use sluice_path::burst::BURST;
use sluice_path::frame::Frame;
use sluice_path::host_flows::{HostFlows, KernelLane};
use sluice_path::ids::InterfaceId;
use sluice_path::next_hop::NextHop;

/// The kernel behind the ports.
pub struct KernelPath {
    /// By port; none for a port without the kernel behind it.
    ports: Vec<Option<ExceptionPort>>,
    /// What the host has asked for: what it sends is noted here.
    host_flows: Arc<HostFlows>,
    /// How much it takes of what it has not asked for.
    strangers: Strangers,
    /// Who sees to it that its side of the ports is as it should be.
    keeper: Option<Keeper>,
}

impl KernelPath {
    /// By these exception ports, in the order of the ports.
    pub fn new(
        ports: Vec<Option<ExceptionPort>>,
        host_flows: Arc<HostFlows>,
        keeper: Option<Keeper>,
    ) -> Self {
        KernelPath { ports, host_flows, strangers: Strangers::default(), keeper }
    }

    /// Carry packets to and from the kernel; how many.
    pub fn carry(&mut self, now_ms: u64, crew: &mut Crew, outgoing: &mut Outgoing) -> usize {
        let mut frames = Vec::with_capacity(BURST);
        self.carry_in(now_ms, crew, outgoing, &mut frames)
            + self.carry_out(now_ms, outgoing, &mut frames)
    }

    fn carry_in(
        &mut self,
        now_ms: u64,
        crew: &mut Crew,
        outgoing: &Outgoing,
        frames: &mut Vec<Mbuf>,
    ) -> usize {
        let mut count = 0;
        let first = self.strangers.next_first(crew.workers().len());
        for worker in crew.from(first) {
            for (lane, ring) in worker.for_kernel.iter_mut().enumerate() {
                let by_strangers = lane == KernelLane::Unsolicited as usize;
                let most = if by_strangers { self.strangers.allowed(now_ms) } else { BURST };
                let received = ring.receive(frames, most);
                count += received;
                if by_strangers {
                    self.strangers.came(received);
                }
                for frame in frames.drain(..) {
                    self.push(frame.interface(), frame, outgoing);
                }
            }
        }
        count
    }

    fn carry_out(&mut self, now_ms: u64, outgoing: &mut Outgoing, frames: &mut Vec<Mbuf>) -> usize {
        let mut count = 0;
        for (interface, exception) in (0..).map(InterfaceId).zip(&mut self.ports) {
            let Some(exception) = exception else { continue };
            exception.flush();
            if !outgoing.has_room_for_kernel() {
                continue;
            }
            count += exception.receive(frames);
            for mut frame in frames.drain(..) {
                self.host_flows.note_sent(frame.bytes(), now_ms);
                frame.set_interface(interface);
                outgoing.queue(frame, DropReason::ExceptionRingFull);
            }
        }
        count
    }

    /// A packet for the kernel behind an interface, if it has one.
    fn push(&mut self, interface: InterfaceId, frame: Mbuf, outgoing: &Outgoing) {
        let port = &mut self.ports[interface.port().index()];
        if let Some(Err(reason)) = port.as_mut().map(|to| to.push(frame)) {
            outgoing.dropped(reason);
        }
    }

    /// The kernel behind an interface is to know where a next hop is: it believes an announcement about one
    /// that it knows, as we do, and takes no notice of others.
    pub fn tell(&mut self, hop: NextHop, mac: MacAddr, outgoing: &Outgoing) {
        if self.ports[hop.interface.port().index()].is_none() {
            return;
        }
        if let Some(frame) = outgoing.frame(hop.interface, &arp::build_announcement(mac, hop.ip()))
        {
            self.push(hop.interface, frame, outgoing);
        }
    }

    /// Tell what the kernel's side of the ports has lost and got back.
    pub fn tell_of_losses(&self, events: &mut EventLog) {
        let Some(keeper) = &self.keeper else { return };
        while let Some(news) = keeper.news() {
            let (kind, subject, message) = news.told();
            events.add_about(kind, &subject, message);
        }
    }

    /// Have the host go by these routes, too.
    pub fn reroute(&self, routes: &[Route]) {
        if let Some(keeper) = &self.keeper {
            keeper.reroute(routes.to_vec());
        }
    }
}
