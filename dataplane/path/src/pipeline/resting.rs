//! Ports that rest: a conn that its backend closed first stays in the table, as the backend holds its
//! ports in TIME_WAIT (RFC 9293, 3.6.1) and may take another client's SYN from them for an old one.
//!
//! It counts nowhere but for its port. When no other port is free, that of the longest resting one is
//! used again: a RST of our own goes ahead of the SYN, with the sequence number that the backend
//! expects next, and ends its TIME_WAIT (RFC 1337 calls that its assassination: here both ends are
//! known to be done). When the table is full, the longest resting ones give way.

use sluice_wire::checksum;
use sluice_wire::flow_head::FLOW_HEAD_BYTES;
use sluice_wire::ipv4::{Ipv4Header, PROTO_TCP};
use sluice_wire::tcp::{TcpFlags, TcpHeader};
use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::Sink;
use super::shared::Shared;
use crate::burst::{BURST, Meta, Verdict};
use crate::counters::WorkerCounters;
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::ids::InterfaceId;
use crate::snapshot::Compiled;
use crate::table::conn::ConnTable;
use crate::table::conn::resting::Resting;
use crate::table::conn::state::ConnState;
use crate::table::port_space::PortSpace;

#[cfg(test)]
mod tests;

/// Length of an Ethernet header.
const ETHER_BYTES: usize = 14;
/// Length of our RSTs: the least that Ethernet carries.
const RESET_BYTES: usize = 60;

/// A RST that is to end a TIME_WAIT.
struct Reset {
    /// The flow in which the backend answered, and will.
    flow: FlowKey,
    /// The sequence number that it expects next.
    seq: u32,
    /// The interface and the frame, once the SYN that follows has shown the way.
    out: Option<(InterfaceId, [u8; RESET_BYTES])>,
}

/// RSTs that go ahead of a burst's SYNs.
pub struct Resets(Vec<Reset>);

impl Resets {
    /// None.
    pub fn new() -> Self {
        Resets(Vec::with_capacity(BURST))
    }

    /// Give up the longest resting conn of a space, so that its port can be had; false when none
    /// rests.
    #[cold]
    #[inline(never)]
    pub fn give_way(&mut self, space: &PortSpace, shared: &mut Shared, config: &Compiled) -> bool {
        let conns = &shared.conns;
        let found = space.find_resting(&shared.local_ports, |flow| {
            let conn = conns.find_key(&flow);
            let rests = !conn.is_none() && conns.head(conn).state() == ConnState::Resting;
            rests.then_some((conn, flow))
        });
        let Some((conn, flow)) = found else { return false };
        if self.0.len() < BURST {
            let seq = conns.head(conn).seqs().client_next();
            self.0.push(Reset { flow, seq, out: None });
        }
        shared.end_conn(conn, config);
        true
    }

    /// The SYN of a new conn leaves: make the RST that is to go ahead of it, if one is.
    #[inline(always)]
    pub fn precede<F: Frame>(&mut self, frame: &F, meta: &Meta, conns: &ConnTable) {
        if !self.0.is_empty() {
            self.precede_now(frame, meta, conns);
        }
    }

    #[cold]
    #[inline(never)]
    fn precede_now<F: Frame>(&mut self, frame: &F, meta: &Meta, conns: &ConnTable) {
        let flow = conns.get(meta.conn).from_backend();
        let Verdict::Transmit { interface } = meta.verdict else { return };
        let Some(syn) = frame.bytes().first_chunk::<FLOW_HEAD_BYTES>() else { return };
        if let Some(reset) = self.0.iter_mut().find(|reset| reset.flow == flow) {
            reset.out = Some((interface, reset_like(syn, &flow, reset.seq)));
        }
    }

    /// Send those of a burst, ahead of its SYNs.
    #[inline(always)]
    pub fn send<F: Frame>(&mut self, counters: &WorkerCounters, sink: &mut impl Sink<F>) {
        if !self.0.is_empty() {
            self.send_now(counters, sink);
        }
    }

    #[cold]
    #[inline(never)]
    fn send_now<F: Frame>(&mut self, counters: &WorkerCounters, sink: &mut impl Sink<F>) {
        for (interface, bytes) in self.0.drain(..).filter_map(|reset| reset.out) {
            // Without a buffer the SYN goes alone: the backend may take it for an old one.
            let Some(mut frame) = sink.spare() else { continue };
            if frame.set_len(bytes.len()).is_err() {
                continue;
            }
            frame.bytes_mut().copy_from_slice(&bytes);
            counters.tx_packets.add(1);
            sink.transmit(interface, frame);
        }
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        let start = self.0.as_ptr().addr();
        start..start + BURST * size_of::<Reset>()
    }
}

/// See to it that the next burst finds room in the table, as long as conns rest in it.
#[inline(always)]
pub fn make_room(resting: &mut Resting, shared: &mut Shared, config: &Compiled) {
    if shared.conns.free() < BURST {
        make_room_now(resting, shared, config);
    }
}

#[cold]
#[inline(never)]
fn make_room_now(resting: &mut Resting, shared: &mut Shared, config: &Compiled) {
    for _ in 0..BURST {
        let Some(conn) = resting.pop(&shared.conns) else { return };
        shared.end_conn(conn, config);
    }
}

/// A RST to a backend with this sequence number and without options, so that its timestamps cannot be
/// wrong, by the way of a SYN that leaves for it.
fn reset_like(syn: &[u8; FLOW_HEAD_BYTES], back: &FlowKey, seq: u32) -> [u8; RESET_BYTES] {
    let tcp = TcpHeader {
        src_port: U16::new(back.dst_port.0),
        dst_port: U16::new(back.src_port.0),
        seq: U32::new(seq),
        ack: U32::ZERO,
        data_offset: 0x50,
        flags: TcpFlags::RST,
        window: U16::ZERO,
        checksum: U16::ZERO,
        urgent: U16::ZERO,
    };
    let mut ip = Ipv4Header {
        version_ihl: 0x45,
        dscp_ecn: 0,
        total_len: U16::new(40),
        id: U16::ZERO,
        flags_fragment: U16::new(0x4000),
        ttl: 64,
        protocol: PROTO_TCP,
        checksum: U16::ZERO,
        src: U32::new(back.dst),
        dst: U32::new(back.src),
    };
    ip.fill_checksum();
    let mut bytes = [0; RESET_BYTES];
    bytes[..ETHER_BYTES].copy_from_slice(&syn[..ETHER_BYTES]);
    bytes[ETHER_BYTES..34].copy_from_slice(ip.as_bytes());
    bytes[34..54].copy_from_slice(tcp.as_bytes());
    let sum = checksum::compute_l4_v4(back.dst, back.src, PROTO_TCP, &bytes[34..54]);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    bytes
}
