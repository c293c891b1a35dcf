//! Give each packet to whom its verdict says.

use sluice_api::DropReason;
use sluice_wire::ipv4::PROTO_TCP;
use sluice_wire::tcp::TcpFlags;

use super::held::{Held, hold};
use super::{Pipeline, Sink};
use crate::burst::{Burst, Class, Meta, Verdict};
use crate::frame::Frame;
use crate::host_flows::{HostFlows, KernelLane};
use crate::snapshot::Compiled;
use crate::time::Millis;

impl<F: Frame> Pipeline<F> {
    #[inline(never)]
    pub(super) fn dispatch(
        &mut self,
        burst: &mut Burst<F>,
        config: &Compiled,
        now: Millis,
        sink: &mut impl Sink<F>,
    ) {
        let counters = &self.tables.counters;
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
                Verdict::Kernel { interface }
                    if self.tables.interfaces[interface.index()].has_exception =>
                {
                    counters.to_kernel.add(1);
                    sink.to_kernel(
                        interface,
                        frame,
                        kernel_lane(meta, &self.tables.host_flows, now),
                    );
                }
                Verdict::Kernel { .. } => {
                    counters.drop_count(DropReason::NoExceptionPort).add(1);
                }
                Verdict::Hold { .. } => {
                    let conn = self.tables.conns.get(meta.conn);
                    let note = conn.next_hops[meta.conn.direction()];
                    let (interface, begins_conn) = (meta.interface, meta.begins_conn);
                    let packet = Held { note, interface, begins_conn, frame };
                    let ended = hold(&mut self.held, packet, &self.tables.neighbours);
                    self.given_up.extend(ended);
                }
                Verdict::Continue => unreachable!("the last stage decides about every packet"),
            }
        }
        counters.tx_packets.add(transmitted);
        sink.discard(&mut self.dropped);
        if !self.given_up.is_empty() {
            self.end_wait(config);
        }
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
