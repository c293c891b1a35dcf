//! Packets to feed a pipeline, and a look at what left it.

use std::net::Ipv4Addr;

use sluice_api::Protocol;
use sluice_wire::checksum;
use sluice_wire::ether::{EtherHeader, MacAddr, ethertype};
use sluice_wire::ipv4::{Ipv4Header, PROTO_TCP, PROTO_UDP};
use sluice_wire::tcp::{TcpFlags, TcpHeader};
use sluice_wire::udp::UdpHeader;
use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::PEER_MAC;
use crate::flow::FlowKey;
use crate::frame::{Frame, MemFrame};
use crate::ids::L4Port;

/// A flow from an address and port to another.
pub fn flow(protocol: Protocol, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> FlowKey {
    FlowKey {
        src: src.0.to_bits(),
        dst: dst.0.to_bits(),
        src_port: L4Port(src.1),
        dst_port: L4Port(dst.1),
        protocol: protocol.number(),
    }
}

/// A whole frame of a flow to a port's MAC address, with correct lengths and checksums; in TCP with
/// sequence and acknowledgment number 1.
pub fn packet(to: MacAddr, key: &FlowKey, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    segment(to, key, flags, (1, 1), payload)
}

/// The same with these sequence and acknowledgment numbers.
pub fn segment(
    to: MacAddr,
    key: &FlowKey,
    flags: TcpFlags,
    (seq, ack): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let mut l4 = Vec::new();
    let (src_port, dst_port) = (U16::new(key.src_port.0), U16::new(key.dst_port.0));
    if key.protocol == PROTO_UDP {
        let length = U16::new((8 + payload.len()) as u16);
        l4.extend(UdpHeader { src_port, dst_port, length, checksum: U16::ZERO }.as_bytes());
    } else {
        let header = TcpHeader {
            src_port,
            dst_port,
            seq: U32::new(seq),
            ack: U32::new(ack),
            data_offset: 0x50,
            flags,
            window: U16::new(1_000),
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        };
        l4.extend(header.as_bytes());
    }
    l4.extend(payload);
    let sum = checksum::compute_l4_v4(key.src, key.dst, key.protocol, &l4);
    let at = if key.protocol == PROTO_TCP { 16 } else { 6 };
    let sum = if key.protocol == PROTO_UDP && sum == 0 { 0xffff } else { sum };
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    ip_frame(to, key, 64, &l4)
}

/// A whole IPv4 frame around an L4 packet that stands for itself.
pub fn ip_frame(to: MacAddr, key: &FlowKey, ttl: u8, l4: &[u8]) -> Vec<u8> {
    let mut ip = Ipv4Header {
        version_ihl: 0x45,
        dscp_ecn: 0,
        total_len: U16::new((20 + l4.len()) as u16),
        id: U16::new(7),
        flags_fragment: U16::new(0x4000),
        ttl,
        protocol: key.protocol,
        checksum: U16::ZERO,
        src: U32::new(key.src),
        dst: U32::new(key.dst),
    };
    ip.fill_checksum();
    let ether = EtherHeader::new(to, PEER_MAC, ethertype::IPV4);
    let mut frame = [ether.as_bytes(), ip.as_bytes(), l4].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The flow of a frame that left, and whether its checksums are right.
pub fn inspect(frame: &MemFrame) -> (FlowKey, bool) {
    let bytes = frame.bytes();
    let Ok(view) = sluice_wire::Ipv4Frame::parse(bytes) else {
        return (FlowKey::default(), false);
    };
    let ip = &view.ip;
    let end = 14 + usize::from(ip.total_len());
    let l4 = &bytes[34..end];
    let l4_ok = match ip.protocol {
        PROTO_TCP => sluice_wire::tcp::checksum_is_valid(ip.src(), ip.dst(), l4),
        PROTO_UDP => sluice_wire::udp::parse(l4).is_ok_and(|(_, len)| {
            sluice_wire::udp::checksum_is_valid(ip.src(), ip.dst(), &l4[..len])
        }),
        _ => checksum::compute(l4) == 0,
    };
    (FlowKey::from(view), l4_ok && ip.checksum_is_valid())
}
