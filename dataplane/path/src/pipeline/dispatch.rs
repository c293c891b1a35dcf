//! Give each packet to whom its verdict says.

use std::sync::Arc;

use sluice_api::DropReason;
use sluice_wire::ipv4::PROTO_TCP;
use sluice_wire::tcp::TcpFlags;

use super::Sink;
use super::held::{Held, Waiting};
use super::shared::Shared;
use crate::burst::{BURST, Burst, Class, Meta, Verdict};
use crate::counters::WorkerCounters;
use crate::frame::Frame;
use crate::host_flows::{HostFlows, KernelLane};
use crate::time::Millis;

/// What is kept to give packets away.
pub struct Dispatch<F> {
    /// Which flows the host itself has asked for.
    host_flows: Arc<HostFlows>,
    /// Packets of a burst that end here, to be given back together.
    dropped: Vec<F>,
}

impl<F: Frame> Dispatch<F> {
    /// Where the host has asked for these.
    pub fn new(host_flows: Arc<HostFlows>) -> Self {
        Dispatch { host_flows, dropped: Vec::with_capacity(BURST) }
    }

    /// The stage.
    // Never inlined: a stage is a symbol in profiles.
    #[inline(never)]
    pub fn dispatch(
        &mut self,
        burst: &mut Burst<F>,
        waiting: &mut Waiting<F>,
        shared: &Shared,
        now: Millis,
        sink: &mut impl Sink<F>,
    ) {
        let counters: &WorkerCounters = &shared.counters;
        if let Some(interface) = burst.common_interface() {
            counters.tx_packets.add(burst.len() as u64);
            sink.transmit_all(interface, burst.frames_mut());
            return;
        }
        let mut transmitted = 0;
        for (frame, meta) in burst.drain() {
            match meta.verdict {
                Verdict::Transmit { interface } => {
                    transmitted += 1;
                    sink.transmit(interface, frame);
                }
                Verdict::Drop(reason) => {
                    counters.drop_count(reason).add(1);
                    self.dropped.push(frame);
                }
                Verdict::HandOver { worker } => {
                    counters.handed_over.add(1);
                    sink.hand_over(worker, meta.interface, frame);
                }
                Verdict::Kernel { interface } if shared.interfaces.get(interface).has_exception => {
                    counters.to_kernel.add(1);
                    sink.to_kernel(interface, frame, kernel_lane(meta, &self.host_flows, now));
                }
                Verdict::Kernel { .. } => {
                    counters.drop_count(DropReason::NoExceptionPort).add(1);
                }
                Verdict::Hold => {
                    let note = shared.conns.get(meta.conn).next_hops[meta.conn.direction().index()];
                    let (interface, begins_conn) = (meta.interface, meta.begins_conn);
                    let packet = Held { note, interface, begins_conn, frame };
                    waiting.hold(packet, &shared.next_hops.neighbours);
                }
                Verdict::Continue => unreachable!("the last stage decides about every packet"),
            }
        }
        counters.tx_packets.add(transmitted);
        sink.discard(&mut self.dropped);
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        let start = self.dropped.as_ptr().addr();
        start..start + BURST * size_of::<F>()
    }
}

/// The part of the way to the kernel that a packet takes. A SYN is never an answer: whoever sends many
/// of them on one flow keeps to the part of strangers.
#[cold]
fn kernel_lane(meta: &Meta, host_flows: &HostFlows, now: Millis) -> KernelLane {
    if matches!(meta.class, Class::Arp | Class::Group) {
        return KernelLane::Neighbours;
    }
    // Only TCP and UDP packets with ports have a hash.
    let has_hash = meta.tuple.ports != 0;
    let opens = meta.tuple.protocol == PROTO_TCP
        && meta.tcp_flags.contains(TcpFlags::SYN)
        && !meta.tcp_flags.contains(TcpFlags::ACK);
    if has_hash && !opens && host_flows.knows(meta.hash, u64::from(now)) {
        KernelLane::Answers
    } else {
        KernelLane::Unsolicited
    }
}
