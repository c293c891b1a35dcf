//! Check a packet's headers and find its flow.
//!
//! Enters: raw frames. Leaves: a class and, for TCP and UDP, flow and hash, with the conn index's
//! bucket on its way into the cache; or a drop reason.

use sluice_api::DropReason;
use sluice_wire::ether::{EtherHeader, ethertype};
use sluice_wire::headers::{IPV4_FRAME_BYTES, Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::{WireError, ipv4, tcp, udp};
use zerocopy::FromBytes;

use super::{PortInfo, Tables};
use crate::burst::{Burst, Class, Meta, Verdict};
use crate::flow::FlowKey;
use crate::frame::{ChecksumStatus, Frame, RxChecksums};

/// The stage; how many packets it left undecided that are no flows.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn parse<F: Frame>(burst: &mut Burst<F>, t: &mut Tables) -> usize {
    let mut no_flows = 0;
    for (frame, _) in burst.iter_mut() {
        frame.prefetch();
    }
    for (frame, meta) in burst.iter_mut() {
        let port = &t.ports[meta.in_port as usize];
        match classify(frame.bytes(), frame.rx_checksums(), port, t.verify_l4_checksum, meta) {
            Ok(Class::Flow) => {
                meta.class = Class::Flow;
                meta.hash = t.hasher.hash(&meta.key);
                t.conns.prefetch_index(meta.hash);
            }
            Ok(class) => {
                meta.class = class;
                no_flows += 1;
            }
            Err(reason) => meta.verdict = Verdict::Drop(reason),
        }
    }
    no_flows
}

#[inline(always)]
fn classify(
    frame: &[u8],
    nic: RxChecksums,
    port: &PortInfo,
    verify_l4: bool,
    meta: &mut Meta,
) -> Result<Class, DropReason> {
    let Ok(view) = Ipv4Frame::parse(frame) else { return Err(too_short(frame)) };
    let to_group = view.ether.dst.is_multicast();
    if view.ether.dst != port.mac && !to_group {
        return Err(DropReason::NotOurMac);
    }
    if !view.ether.src.is_station() {
        return Err(DropReason::BadSourceMac);
    }
    match view.ether.ethertype() {
        ethertype::IPV4 => {}
        ethertype::ARP => return Ok(Class::Arp),
        other => return Err(not_ipv4(other)),
    }
    if to_group {
        // RFC 1122, 3.3.6: a unicast datagram does not come in a group frame, and none of our
        // services is a group.
        return Err(DropReason::NotForUs);
    }
    let ip = &view.ip;
    let header_len = ipv4::check(ip, frame.len() - L3_OFFSET).map_err(ipv4_reason)?;
    let sum_is_bad = match nic.ip {
        ChecksumStatus::Good => false,
        ChecksumStatus::Bad => true,
        ChecksumStatus::Unknown => match header_len {
            ipv4::HEADER_BYTES => !ip.checksum_is_valid(),
            _ => !ipv4::checksum_is_valid(&frame[L3_OFFSET..L3_OFFSET + header_len]),
        },
    };
    if sum_is_bad {
        return Err(DropReason::Ipv4BadChecksum);
    }
    if is_martian(ip.src_u32()) {
        return Err(DropReason::MartianSource);
    }
    meta.ip_len = ip.total_len();
    meta.key = FlowKey {
        src: ip.src_u32(),
        dst: ip.dst_u32(),
        src_port: 0,
        dst_port: 0,
        protocol: ip.protocol,
    };
    if ip.has_options() {
        return Ok(Class::Other(DropReason::Ipv4Options));
    }
    if ip.is_fragment() {
        return Ok(Class::Other(DropReason::Fragment));
    }
    let l4 = &frame[L4_OFFSET..L3_OFFSET + usize::from(ip.total_len())];
    match ip.protocol {
        ipv4::PROTO_TCP => {
            let (header, _) = tcp::parse(l4).map_err(l4_reason)?;
            if !header.flags.is_plausible() {
                return Err(DropReason::TcpBadFlags);
            }
            meta.tcp_flags = header.flags;
            check_l4_sum(view, l4, nic.l4, verify_l4)?;
        }
        ipv4::PROTO_UDP => {
            let (header, len) = udp::parse(l4).map_err(l4_reason)?;
            if header.checksum() != 0 {
                check_l4_sum(view, &l4[..len], nic.l4, verify_l4)?;
            }
        }
        ipv4::PROTO_ICMP => return Ok(Class::Icmp),
        _ => return Ok(Class::Other(DropReason::UnknownProtocol)),
    }
    meta.key.src_port = view.src_port();
    meta.key.dst_port = view.dst_port();
    if meta.key.src_port == 0 || meta.key.dst_port == 0 {
        return Err(DropReason::L4PortZero);
    }
    Ok(Class::Flow)
}

/// Nothing may come from these (RFC 1812, 5.3.7; RFC 6890): 0/8, 127/8, multicast and class E with
/// the limited broadcast.
#[inline(always)]
fn is_martian(src: u32) -> bool {
    let first = (src >> 24) as u8;
    first == 0 || first == 127 || first >= 224
}

#[inline(always)]
fn check_l4_sum(
    view: &Ipv4Frame,
    l4: &[u8],
    nic: ChecksumStatus,
    verify: bool,
) -> Result<(), DropReason> {
    let is_bad = match nic {
        ChecksumStatus::Good => false,
        ChecksumStatus::Bad => true,
        ChecksumStatus::Unknown => verify && !view.ip.l4_checksum_is_valid(l4),
    };
    if is_bad { Err(DropReason::L4BadChecksum) } else { Ok(()) }
}

/// Why a frame too short for Ethernet, IPv4 and ports cannot be used.
#[cold]
fn too_short(frame: &[u8]) -> DropReason {
    debug_assert!(frame.len() < IPV4_FRAME_BYTES, "long frames are viewed as they are");
    let Ok((ether, rest)) = EtherHeader::ref_from_prefix(frame) else {
        return DropReason::EtherTruncated;
    };
    match ether.ethertype() {
        ethertype::IPV4 => match ipv4::parse(rest) {
            // The IP header is whole: what it carries is not.
            Ok(_) => DropReason::L4Truncated,
            Err(error) => ipv4_reason(error),
        },
        ethertype::ARP => DropReason::ArpTruncated,
        other => not_ipv4(other),
    }
}

#[cold]
fn not_ipv4(ethertype: u16) -> DropReason {
    match ethertype {
        ethertype::VLAN | ethertype::QINQ => DropReason::VlanTagged,
        _ => DropReason::UnknownEthertype,
    }
}

#[cold]
fn ipv4_reason(error: WireError) -> DropReason {
    match error {
        WireError::Truncated => DropReason::Ipv4Truncated,
        WireError::BadLength => DropReason::Ipv4BadLength,
        _ => DropReason::Ipv4BadHeader,
    }
}

#[cold]
fn l4_reason(error: WireError) -> DropReason {
    match error {
        WireError::Truncated => DropReason::L4Truncated,
        _ => DropReason::L4BadLength,
    }
}
