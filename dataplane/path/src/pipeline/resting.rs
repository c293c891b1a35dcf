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

use super::{Pipeline, Sink, Tables, life};
use crate::burst::{BURST, Meta, Verdict};
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::ids::InterfaceId;
use crate::snapshot::Compiled;
use crate::table::conn::ConnRef;
use crate::table::conn::state::ConnState;
use crate::table::port_space::PortSpace;

#[cfg(test)]
mod tests;

/// Length of an Ethernet header.
const ETHER_BYTES: usize = 14;
/// Length of our RSTs: the least that Ethernet carries.
const RESET_BYTES: usize = 60;

/// A RST that is to end a TIME_WAIT.
pub struct Reset {
    /// The flow in which the backend answered, and will.
    flow: FlowKey,
    /// The sequence number that it expects next.
    seq: u32,
    /// The interface and the frame, once the SYN that follows has shown the way.
    out: Option<(InterfaceId, [u8; RESET_BYTES])>,
}

/// Give up the longest resting conn of a space, so that its port can be had; false when none rests.
#[cold]
#[inline(never)]
pub fn give_way(t: &mut Tables, config: &Compiled, space: &PortSpace) -> bool {
    let conns = &t.conns;
    let found = space.find_resting(&t.own_ports, |flow| {
        let conn = conns.find_key(&flow);
        let rests = !conn.is_none() && conns.get(conn).state() == ConnState::Resting;
        rests.then_some((conn, flow))
    });
    let Some((conn, flow)) = found else { return false };
    if t.resets.len() < BURST {
        t.resets.push(Reset { flow, seq: t.conns.get(conn).seqs().client_next(), out: None });
    }
    give_up(t, config, conn);
    true
}

fn give_up(t: &mut Tables, config: &Compiled, conn: ConnRef) {
    let mut meta = Meta::received(InterfaceId(0), false);
    meta.conn = conn;
    life::remove(&mut meta, t, config);
}

/// See to it that the next burst finds room in the table, as long as conns rest in it.
#[inline(always)]
pub fn make_room(t: &mut Tables, config: &Compiled) {
    if t.conns.free() < BURST {
        make_room_now(t, config);
    }
}

#[cold]
#[inline(never)]
fn make_room_now(t: &mut Tables, config: &Compiled) {
    for _ in 0..BURST {
        let Some(conn) = t.resting.pop(&t.conns) else { return };
        give_up(t, config, conn);
    }
}

/// The SYN of a new conn leaves: make the RST that is to go ahead of it, if one is.
#[inline(always)]
pub fn precede<F: Frame>(frame: &F, meta: &Meta, t: &mut Tables) {
    if !t.resets.is_empty() {
        precede_now(frame, meta, t);
    }
}

#[cold]
#[inline(never)]
fn precede_now<F: Frame>(frame: &F, meta: &Meta, t: &mut Tables) {
    let flow = t.conns.get(meta.conn).from_backend();
    let Verdict::Transmit { interface } = meta.verdict else { return };
    let Some(syn) = frame.bytes().first_chunk::<FLOW_HEAD_BYTES>() else { return };
    if let Some(reset) = t.resets.iter_mut().find(|reset| reset.flow == flow) {
        reset.out = Some((interface, reset_like(syn, &flow, reset.seq)));
    }
}

/// A RST to a backend with this sequence number and without options, so that its timestamps cannot be
/// wrong, by the way of a SYN that leaves for it.
fn reset_like(syn: &[u8; FLOW_HEAD_BYTES], back: &FlowKey, seq: u32) -> [u8; RESET_BYTES] {
    let tcp = TcpHeader {
        src_port: U16::new(back.dst_port),
        dst_port: U16::new(back.src_port),
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

impl<F: Frame> Pipeline<F> {
    /// Send the RSTs of a burst, ahead of its SYNs.
    #[cold]
    #[inline(never)]
    pub(super) fn send_resets(&mut self, sink: &mut impl Sink<F>) {
        let t = &mut self.tables;
        for (interface, bytes) in t.resets.drain(..).filter_map(|reset| reset.out) {
            // Without a buffer the SYN goes alone: the backend may take it for an old one.
            let Some(mut frame) = sink.spare() else { continue };
            if frame.set_len(bytes.len()).is_err() {
                continue;
            }
            frame.bytes_mut().copy_from_slice(&bytes);
            t.counters.tx_packets.add(1);
            sink.transmit(interface, frame);
        }
    }
}
