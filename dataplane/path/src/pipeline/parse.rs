//! Check a packet's headers and find its flow.
//!
//! Enters: raw frames. Leaves: a class and, for TCP and UDP, tuple and hash, with the conn index's
//! bucket on its way into the cache; or a drop reason.

use sluice_api::DropReason;
use sluice_wire::ether::{EtherHeader, MIN_FRAME_BYTES, ethertype};
use sluice_wire::flow_head::FlowHead;
use sluice_wire::headers::{IPV4_FRAME_BYTES, Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::{WireError, ipv4, tcp, udp};
use zerocopy::FromBytes;

use super::InterfaceInfo;
use super::next_hop::NextHops;
use super::shared::{Interfaces, Shared};
use crate::burst::{Burst, Class, Mask, Meta, Verdict};
use crate::family::{Family, V4};
use crate::flow::{FlowHasher, FlowKey, Tuple};
use crate::frame::{ChecksumStatus, Frame};
use crate::snapshot::Compiled;

/// What the stage leaves undecided.
#[derive(Clone, Copy)]
pub struct Undecided {
    /// TCP and UDP packets.
    pub flows: Mask,
    /// Others.
    pub others: Mask,
}

/// How packets are looked at.
pub struct Parse {
    hasher: FlowHasher,
    /// Whether TCP and UDP checksums are verified in software where the port did not.
    verifies_l4: bool,
}

impl Parse {
    /// With the hash that the conns are found by.
    pub fn new(hasher: FlowHasher, verifies_l4: bool) -> Self {
        Parse { hasher, verifies_l4 }
    }

    /// The stage.
    // Never inlined: a stage is a symbol in profiles.
    #[inline(never)]
    pub fn parse<F: Frame>(
        &self,
        burst: &mut Burst<F>,
        shared: &Shared,
        config: &Compiled,
    ) -> Undecided {
        for (frame, _) in burst.iter_mut() {
            frame.prefetch();
        }
        let mut undecided = Undecided { flows: Mask::first(burst.len()), others: Mask::NONE };
        for (index, (frame, meta)) in burst.iter_mut().enumerate() {
            let is_flow = match self.quick_look(frame, meta, &shared.interfaces, config) {
                Quick::Flow => true,
                Quick::NotForUs => {
                    meta.verdict = Verdict::Drop(DropReason::NotForUs);
                    false
                }
                Quick::Unclear => self.look_closely(frame, meta, shared, config),
            };
            if is_flow {
                meta.hash = self.hasher.hash(&meta.tuple);
                shared.conns.prefetch_index(meta.hash);
            } else {
                undecided.flows.remove(index);
                if meta.verdict == Verdict::Continue {
                    undecided.others.insert(index);
                }
            }
        }
        undecided
    }

    /// Nearly every packet is a sound one, and is known as such at once; all others are looked at
    /// header by header, for the reason.
    #[inline(always)]
    fn quick_look<F: Frame>(
        &self,
        frame: &F,
        meta: &mut Meta,
        interfaces: &Interfaces,
        config: &Compiled,
    ) -> Quick {
        let bytes = frame.bytes();
        let Some(head) = FlowHead::of(bytes) else { return Quick::Unclear };
        if !head.is_sound(interfaces.station(meta.interface), bytes.len()) {
            return Quick::Unclear;
        }
        let addresses = head.addresses();
        if !config.may_be_ours(addresses) {
            return Quick::NotForUs;
        }
        if !frame.checksums_are_good() && !verify(frame, head, self.verifies_l4) {
            return Quick::Unclear;
        }
        meta.tuple = Tuple { addresses, ports: head.ports(), protocol: head.protocol() };
        meta.ip_len = head.ip_len();
        meta.tcp_flags = head.tcp_flags();
        Quick::Flow
    }

    /// Find out what a packet is, or why it ends here; whether it is a flow that may be ours.
    #[cold]
    #[inline(never)]
    fn look_closely<F: Frame>(
        &self,
        frame: &mut F,
        meta: &mut Meta,
        shared: &Shared,
        config: &Compiled,
    ) -> bool {
        let Shared { next_hops, interfaces, .. } = shared;
        let interface = interfaces.get(meta.interface);
        let nic = [frame.ip_checksum(), frame.l4_checksum()];
        untag(frame);
        let class = classify(frame.bytes(), nic, interface, self.verifies_l4, meta);
        if matches!(class, Ok(class) if class != Class::Arp) {
            trim(frame, meta.ip_len);
        }
        match class.and_then(|class| {
            check_sender(frame, class, meta, next_hops, interfaces).map(|()| class)
        }) {
            Ok(Class::Flow) if config.may_be_ours(meta.tuple.addresses) => return true,
            Ok(Class::Flow) => meta.verdict = Verdict::Drop(DropReason::NotForUs),
            Ok(class) => meta.class = class,
            Err(reason) => meta.verdict = Verdict::Drop(reason),
        }
        false
    }
}

/// What a packet is at first sight.
enum Quick {
    /// A sound TCP or UDP packet.
    Flow,
    /// One for an address that is not ours.
    NotForUs,
    /// Anything else.
    Unclear,
}

/// Whether the checksums of a sound packet are right, where the NIC does not know.
// Not inlined: it would take the registers of those packets of which the NIC does.
#[inline(never)]
fn verify<F: Frame>(frame: &F, head: &FlowHead, verify_l4: bool) -> bool {
    is_good(frame.ip_checksum(), true, || head.ip_checksum_is_valid())
        && is_good(frame.l4_checksum(), verify_l4, || head.l4_checksum_is_valid(frame.bytes()))
}

/// Refuse what comes from nobody: no MAC address or our own, or an address of a whole network. What
/// [`Parse::quick_look`] takes for a flow is looked at so once it has no conn.
#[inline(always)]
pub fn check_sender<F: Frame>(
    frame: &F,
    class: Class,
    meta: &Meta,
    next_hops: &NextHops,
    interfaces: &Interfaces,
) -> Result<(), DropReason> {
    if let Ok((ether, _)) = EtherHeader::ref_from_prefix(frame.bytes()) {
        if !ether.src.is_station() {
            return Err(DropReason::BadSourceMac);
        }
        if interfaces.is_own_mac(ether.src) {
            return Err(DropReason::OwnMac);
        }
    }
    if class != Class::Arp && next_hops.routes.is_broadcast(meta.key().src) {
        return Err(DropReason::BroadcastSource);
    }
    Ok(())
}

/// Take a tag with VLAN id 0 off a frame: it says a priority and no VLAN, and the frame counts as
/// untagged (IEEE 802.1Q, 6.9). Switches send them.
fn untag<F: Frame>(frame: &mut F) {
    const MACS_BYTES: usize = 12;
    const TAG_BYTES: usize = 4;
    let bytes = frame.bytes_mut();
    // The id is the lower twelve bits; a priority and the drop-eligible bit stand above it.
    let tag = bytes.get(MACS_BYTES..MACS_BYTES + TAG_BYTES);
    if matches!(tag, Some([0x81, 0x00, high, 0x00]) if high & 0x0f == 0) {
        bytes.copy_within(..MACS_BYTES, TAG_BYTES);
        // It is longer than the tag.
        let _ = frame.strip(TAG_BYTES);
    }
}

/// Take off what follows an IPv4 packet in its frame (RFC 894): trailers of switches and of senders
/// would travel on, and make a frame larger than the MTU that the packet fits. What is left of it
/// pads a short frame, and is zero.
fn trim<F: Frame>(frame: &mut F, ip_len: u16) {
    let end = L3_OFFSET + usize::from(ip_len);
    let len = end.max(MIN_FRAME_BYTES);
    if frame.bytes().len() > len && frame.set_len(len).is_ok() {
        frame.bytes_mut()[end..].fill(0);
    }
}

/// Whether a checksum is right as far as anybody is to look. What the NIC calls bad is looked at
/// again: that is rare.
#[inline(always)]
fn is_good(nic: ChecksumStatus, verify: bool, is_valid: impl FnOnce() -> bool) -> bool {
    nic == ChecksumStatus::Good || (nic == ChecksumStatus::Unknown && !verify) || is_valid()
}

fn classify(
    frame: &[u8],
    [nic_ip, nic_l4]: [ChecksumStatus; 2],
    interface: &InterfaceInfo,
    verify_l4: bool,
    meta: &mut Meta,
) -> Result<Class, DropReason> {
    let Ok(view) = Ipv4Frame::parse(frame) else { return Err(too_short(frame)) };
    let to_group = view.ether.dst.is_multicast();
    if view.ether.dst != interface.mac && !to_group {
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
    let ip = &view.ip;
    if to_group && !is_for_host(interface, ip.dst_u32()) {
        // RFC 1122, 3.3.6: a unicast datagram does not come in a group frame, and none of our
        // services is a group.
        return Err(DropReason::NotForUs);
    }
    let header_len = ipv4::check(ip, frame.len() - L3_OFFSET).map_err(ipv4_reason)?;
    let ip_header = &frame[L3_OFFSET..L3_OFFSET + header_len];
    if !is_good(nic_ip, true, || ipv4::checksum_is_valid(ip_header)) {
        return Err(DropReason::Ipv4BadChecksum);
    }
    // A host that has no address yet may speak to all (RFC 1122, 3.2.1.3): DHCP, IGMP.
    if is_martian(ip.src_u32()) && !(to_group && ip.src_u32() == 0) {
        return Err(DropReason::MartianSource);
    }
    meta.ip_len = ip.total_len();
    let addresses = V4::pair(ip.src_u32(), ip.dst_u32());
    meta.tuple = Tuple { addresses, ports: 0, protocol: ip.protocol };
    if to_group {
        return Ok(Class::Group);
    }
    if ip.has_options() {
        return Ok(Class::Other(DropReason::Ipv4Options));
    }
    if ip.is_fragment() {
        return Ok(Class::Other(DropReason::Fragment));
    }
    let class = classify_l4(frame, view, nic_l4, verify_l4, meta)?;
    if class == Class::Flow {
        meta.tuple = Tuple::from(&FlowKey::from(view));
    }
    Ok(class)
}

/// What an IPv4 packet is by what it carries.
fn classify_l4(
    frame: &[u8],
    view: &Ipv4Frame,
    nic: ChecksumStatus,
    verify: bool,
    meta: &mut Meta,
) -> Result<Class, DropReason> {
    let ip = &view.ip;
    let l4 = &frame[L3_OFFSET..][..usize::from(ip.total_len())][L4_OFFSET - L3_OFFSET..];
    match ip.protocol {
        ipv4::PROTO_TCP => {
            let (header, _) = tcp::parse(l4).map_err(l4_reason)?;
            meta.tcp_flags = header.flags;
            check_l4_sum(view, l4, nic, verify)?;
        }
        ipv4::PROTO_UDP => {
            let (header, len) = udp::parse(l4).map_err(l4_reason)?;
            if header.checksum() != 0 {
                check_l4_sum(view, &l4[..len], nic, verify)?;
            }
        }
        ipv4::PROTO_ICMP => return Ok(Class::Icmp),
        _ => return Ok(Class::Other(DropReason::UnknownProtocol)),
    }
    Ok(Class::Flow)
}

/// Whether the host behind a port listens to a group or broadcast address: the groups that routers
/// do not forward (RFC 5771, 4: OSPF, VRRP, IGMP and their like), all hosts of the link, and those of
/// the port's networks.
fn is_for_host(interface: &InterfaceInfo, dst: u32) -> bool {
    const LOCAL_NETWORK_CONTROL: u32 = 0xe000_0000;
    let is_heard = dst >> 8 == LOCAL_NETWORK_CONTROL >> 8
        || dst == u32::MAX
        || interface.broadcasts.contains(&dst);
    interface.has_exception && is_heard
}

/// Nothing may come from these (RFC 1812, 5.3.7; RFC 6890): 0/8, 127/8, multicast and class E with
/// the limited broadcast.
pub fn is_martian(src: u32) -> bool {
    let first = (src >> 24) as u8;
    first == 0 || first == 127 || first >= 224
}

fn check_l4_sum(
    view: &Ipv4Frame,
    l4: &[u8],
    nic: ChecksumStatus,
    verify: bool,
) -> Result<(), DropReason> {
    match is_good(nic, verify, || view.ip.l4_checksum_is_valid(l4)) {
        true => Ok(()),
        false => Err(DropReason::L4BadChecksum),
    }
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

#[cfg(test)]
mod tests {
    use super::super::Pipeline;
    use super::*;
    use crate::frame::MemFrame;
    use crate::testkit::{self, CLIENT_PORT, Harness, PEER_MAC, PORT_MACS, Random, VIP};
    use sluice_api::{Mode, Protocol};
    use sluice_wire::tcp::TcpFlags;
    use sluice_wire::{arp, icmp};

    /// The quick look and the close one agree about every frame, damaged anywhere.
    #[test]
    fn both_looks_agree() {
        let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
        let h = Harness::new(&testkit::snapshot(1, vec![service]), 100);
        let Pipeline { parse, shared, .. } = &h.pipeline;
        let mut random = Random::from_env();
        let mut seen = [0; 3];
        for _ in 0..300_000 {
            let protocol = random.one_of(&[Protocol::Tcp, Protocol::Udp]);
            let client = ([198, 51, 100, random.next_u64() as u8].into(), 5_000);
            let key = testkit::flow(protocol, client, (VIP, 80));
            let len = random.below(80);
            let payload = random.bytes(len);
            let to = PORT_MACS[CLIENT_PORT.index()];
            let mut bytes = testkit::packet(to, &key, TcpFlags::ACK, &payload);
            for _ in 0..random.below(3) {
                let at = random.below(bytes.len());
                let other = random.next_u64() as u8;
                bytes[at] = random.one_of(&[0, 1, 0xff, other]);
            }
            // Damage behind checksums is what most of it is: half of it comes with them mended.
            if bytes.len() >= 34 && random.below(2) == 0 {
                bytes[24..26].fill(0);
                let sum = sluice_wire::checksum::compute(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            bytes.truncate(bytes.len() - random.below(3) * random.below(20));
            let trailer = random.below(2) * random.below(20);
            bytes.extend(random.bytes(trailer));

            let mut frame = MemFrame::new(&bytes);
            let mut quick = Meta::received(CLIENT_PORT, false);
            let mut close = quick;
            let at_first = parse.quick_look(&frame, &mut quick, &shared.interfaces, &h.compiled);
            let is_flow = parse.look_closely(&mut frame, &mut close, shared, &h.compiled);
            let trimmed = frame.bytes().len() < bytes.len();
            match at_first {
                Quick::Flow => {
                    seen[0] += 1;
                    // Who sent it is looked at once it has no conn.
                    if let Err(reason) = check_sender(
                        &frame,
                        Class::Flow,
                        &quick,
                        &shared.next_hops,
                        &shared.interfaces,
                    ) {
                        assert_eq!(close.verdict, Verdict::Drop(reason), "{bytes:x?}");
                        continue;
                    }
                    assert!(is_flow && !trimmed, "{close:?} {bytes:x?}");
                    assert_eq!((quick.tuple, quick.ip_len), (close.tuple, close.ip_len));
                    if quick.tuple.protocol == ipv4::PROTO_TCP {
                        assert_eq!(quick.tcp_flags, close.tcp_flags);
                    }
                }
                // Damage may stand in front of the reason; the packet ends here either way.
                Quick::NotForUs => {
                    seen[1] += 1;
                    assert!(matches!(close.verdict, Verdict::Drop(_)), "{close:?} {bytes:x?}");
                }
                // Short frames are left to the close look, and those that are to be trimmed.
                Quick::Unclear => {
                    seen[2] += 1;
                    assert!(!is_flow || bytes.len() < 54 || trimmed, "{close:?} {bytes:x?}");
                }
            }
        }
        assert!(seen.iter().all(|count| *count > 1_000), "{seen:?}");
    }

    /// Whatever follows a packet in its frame stays behind (RFC 894), whoever the packet is for: the
    /// same leaves as without it.
    #[test]
    fn trailers_end_at_sluice() {
        let to = PORT_MACS[CLIENT_PORT.index()];
        let client = ([198, 51, 100, 7].into(), 5_000);
        let echo = |len: usize| {
            let mut message = vec![0; 8 + len];
            message[0] = icmp::icmp_type::ECHO_REQUEST;
            icmp::fill_checksum(&mut message);
            message
        };
        let icmp = FlowKey { protocol: 1, ..testkit::flow(Protocol::Tcp, client, (VIP, 0)) };
        let own = [192, 0, 2, 1].into();
        let to_host = testkit::flow(Protocol::Tcp, client, (own, 22));
        let packet = |protocol, flags, len: usize| {
            let key = testkit::flow(protocol, client, (VIP, 80));
            testkit::packet(to, &key, flags, &vec![0xa5; len])
        };
        let cases = |len: usize| {
            vec![
                packet(Protocol::Tcp, TcpFlags::SYN, len),
                // By the established path, and by the other one.
                packet(Protocol::Tcp, TcpFlags::ACK, len),
                packet(Protocol::Tcp, TcpFlags(0x11), len),
                packet(Protocol::Udp, TcpFlags::NONE, len),
                testkit::ip_frame(to, &icmp, 9, &echo(len)),
                testkit::packet(to, &to_host, TcpFlags::SYN, &vec![0xa5; len]),
            ]
        };
        let site = || {
            let protocols = [Protocol::Tcp, Protocol::Udp];
            let services =
                protocols.map(|p| testkit::service(&p.to_string(), 80, p, Mode::FullNat, 1));
            Harness::new(&testkit::snapshot(1, services.into()), 100)
        };
        // The last one fills an MTU of 1,500: with a trailer the frame is larger than that.
        for len in [0, 1, 6, 7, 100, 1_460] {
            for trailer in [1, 4, 47, 500] {
                let (mut plain, mut trailed) = (site(), site());
                for bytes in cases(len) {
                    let longer = [&bytes[..], &vec![0xee; trailer]].concat();
                    let expected = plain.receive(CLIENT_PORT, [bytes]);
                    let out = trailed.receive(CLIENT_PORT, [longer]);
                    assert_eq!(out.transmitted, expected.transmitted, "{len} {trailer}");
                    assert_eq!(out.to_kernel, expected.to_kernel, "{len} {trailer}");
                    assert_eq!(trailed.all_drops(), plain.all_drops());
                    assert_eq!(out.transmitted.len() + out.to_kernel.len(), 1);
                }
            }
        }
    }

    /// IEEE 802.1Q, 6.9: a tag with VLAN id 0 says a priority and nothing else.
    #[test]
    fn priority_tagged_frames_are_untagged_ones() {
        let to = PORT_MACS[CLIENT_PORT.index()];
        let (client, own) = ([198, 51, 100, 7].into(), [192, 0, 2, 1].into());
        let to_service = testkit::flow(Protocol::Tcp, (client, 5_000), (VIP, 80));
        let to_host = testkit::flow(Protocol::Tcp, (client, 5_000), (own, 22));
        let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
        let snapshot = testkit::snapshot(1, vec![service]);
        let frames = [
            testkit::packet(to, &to_service, TcpFlags::SYN, &[0xa5; 900]),
            testkit::packet(to, &to_service, TcpFlags::ACK, b""),
            testkit::packet(to, &to_host, TcpFlags::SYN, b""),
            arp::build_request(PEER_MAC, [192, 0, 2, 9].into(), VIP).to_vec(),
        ];
        let tagged = |bytes: &[u8], tag: [u8; 4]| {
            let mut bytes = bytes.to_vec();
            bytes.splice(12..12, tag);
            bytes
        };
        // Priorities 0, 5 and 7, and "drop eligible".
        for tag in [[0x81, 0, 0, 0], [0x81, 0, 0xa0, 0], [0x81, 0, 0xf0, 0]] {
            let mut plain = Harness::new(&snapshot, 100);
            let mut h = Harness::new(&snapshot, 100);
            for bytes in &frames {
                let out = h.receive(CLIENT_PORT, [tagged(bytes, tag)]);
                let expected = plain.receive(CLIENT_PORT, [bytes.clone()]);
                assert_eq!(out.transmitted, expected.transmitted);
                assert_eq!(out.to_kernel, expected.to_kernel);
                assert_eq!(out.transmitted.len() + out.to_kernel.len(), 1);
            }
            assert_eq!(h.messages, plain.messages);
        }
        // Other ids, other tags, one behind another; and what is too short for either.
        let mut h = Harness::new(&snapshot, 100);
        for tag in [[0x81, 0, 0, 1], [0x81, 0, 0x01, 0], [0x81, 0, 0xef, 0xff], [0x88, 0xa8, 0, 0]]
        {
            h.receive(CLIENT_PORT, [tagged(&frames[0], tag)]);
            h.receive(CLIENT_PORT, [tagged(&tagged(&frames[0], tag), [0x81, 0, 0, 0])]);
        }
        assert_eq!(h.all_drops(), [(DropReason::VlanTagged, 8)]);
        let short = tagged(&frames[0], [0x81, 0, 0, 0]);
        h.receive(CLIENT_PORT, (12..18).map(|len| short[..len].to_vec()));
        let shorter = [(DropReason::EtherTruncated, 4), (DropReason::VlanTagged, 10)];
        assert_eq!(h.all_drops(), shorter);
    }
}
