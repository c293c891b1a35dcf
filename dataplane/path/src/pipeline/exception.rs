//! IPv4 that only the kernel could take: to it, when it is for one of the ports' own addresses, or for
//! a group or broadcast address that the host listens to, within a rate.

use sluice_api::DropReason;

use super::rate_limit::{Rate, RateLimit};
use super::shared::Context;
use crate::burst::{Burst, Class, Mask, Verdict};
use crate::flow::FlowKey;
use crate::snapshot::Address;
use crate::time::Millis;

/// What is the kernel's.
pub struct Exception {
    /// Multicasts and broadcasts.
    groups: RateLimit,
}

impl Exception {
    /// Nothing was given to the kernel yet; `seed` is one that others do not know.
    pub fn new(seed: u64, now: Millis) -> Self {
        // Per second, from one port and in all: more than any routing daemon is sent, less than what
        // would keep the main thread from its work.
        let each = Rate { per_second: 500, at_once: 200 };
        let all = Rate { per_second: 1_000, at_once: 400 };
        Exception { groups: RateLimit::new(each, all, seed, now) }
    }

    /// The stage.
    pub fn decide<F>(&mut self, burst: &mut Burst<F>, which: Mask, cx: Context) {
        let config = cx.config;
        burst.filter(which, |_, meta| {
            let to_kernel = Verdict::Kernel { interface: meta.interface };
            let FlowKey { src, dst, .. } = meta.key();
            meta.verdict = match (meta.class, config.address(dst)) {
                (Class::Flow | Class::Arp | Class::Icmp, _) => return false,
                // As of TCP and UDP (RFC 1812, 5.3.7).
                (Class::Group, _) | (_, Some(_)) if config.address(src).is_some() => {
                    Verdict::Drop(DropReason::MartianSource)
                }
                (Class::Group, _) if self.groups.take(meta.interface.0, cx.now) => to_kernel,
                (Class::Group, _) => Verdict::Drop(DropReason::GroupRateLimit),
                (Class::Other(_), Some(Address::Own(_))) => to_kernel,
                (Class::Other(reason), _) => Verdict::Drop(reason),
            };
            true
        });
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        self.groups.written()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sluice_api::{DropReason, Mode, Protocol};
    use sluice_wire::arp;
    use sluice_wire::checksum;
    use sluice_wire::ether::MacAddr;
    use sluice_wire::tcp::TcpFlags;

    use crate::flow::FlowKey;
    use crate::frame::Frame;
    use crate::host_flows::KernelLane;
    use crate::ids::{InterfaceId, L4Port};
    use crate::testkit::{self, *};

    const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 0, 0, 1)];

    /// Whatever the protocol, and whichever of our addresses it claims to come from.
    #[test]
    fn nothing_comes_to_the_host_from_our_own_addresses() {
        let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
        let mut h = Harness::new(&snapshot(1, vec![service]), 100);
        let to = PORT_MACS[CLIENT_PORT.index()];
        let of = |src: Ipv4Addr| {
            let flow = |protocol| flow(protocol, (src, 5_000), (OWN[0], 22));
            let gre = FlowKey { protocol: 47, ..flow(Protocol::Tcp) };
            [
                packet(to, &flow(Protocol::Tcp), TcpFlags::SYN, b""),
                packet(to, &flow(Protocol::Udp), TcpFlags::NONE, b"?"),
                ip_frame(to, &gre, 9, &[0; 30]),
            ]
        };
        for src in [OWN[0], OWN[1], VIP, LOCAL] {
            let out = h.receive(CLIENT_PORT, of(src));
            assert!(out.to_kernel.is_empty() && out.transmitted.is_empty(), "{src}");
        }
        assert_eq!(h.all_drops(), [(DropReason::MartianSource, 12)]);
        assert_eq!(h.receive(CLIENT_PORT, of(GATEWAY)).to_kernel.len(), 3);
    }

    /// A frame to a group, of a protocol that only the kernel knows.
    fn to_group(mac: [u8; 6], src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Vec<u8> {
        let key = FlowKey { protocol, ..flow(Protocol::Tcp, (src, 0), (dst, 0)) };
        ip_frame(MacAddr(mac), &key, 1, &[0; 40])
    }

    const BROADCAST: [u8; 6] = [0xff; 6];
    const VRRP: ([u8; 6], Ipv4Addr) = ([1, 0, 0x5e, 0, 0, 18], Ipv4Addr::new(224, 0, 0, 18));
    const OSPF: ([u8; 6], Ipv4Addr) = ([1, 0, 0x5e, 0, 0, 5], Ipv4Addr::new(224, 0, 0, 5));
    const IGMP: ([u8; 6], Ipv4Addr) = ([1, 0, 0x5e, 0, 0, 22], Ipv4Addr::new(224, 0, 0, 22));
    const MDNS: ([u8; 6], Ipv4Addr) = ([1, 0, 0x5e, 0, 0, 251], Ipv4Addr::new(224, 0, 0, 251));
    const SSDP: ([u8; 6], Ipv4Addr) =
        ([1, 0, 0x5e, 0x7f, 0xff, 0xfa], Ipv4Addr::new(239, 255, 255, 250));

    #[test]
    fn groups_and_broadcasts_of_the_host_are_the_kernels_and_others_are_nobodys() {
        let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
        let mut h = Harness::new(&snapshot(1, vec![service]), 100);
        let peer = Ipv4Addr::new(192, 0, 2, 9);
        let nobody = Ipv4Addr::UNSPECIFIED;
        let dhcp = flow(Protocol::Udp, (nobody, 68), (Ipv4Addr::BROADCAST, 67));
        // IGMP carries an option: router alert (RFC 3376, 4).
        let mut igmp = to_group(IGMP.0, peer, IGMP.1, 2);
        igmp[14] = 0x46;
        igmp[24..26].fill(0);
        let sum = checksum::compute(&igmp[14..38]);
        igmp[24..26].copy_from_slice(&sum.to_be_bytes());
        let heard = [
            to_group(VRRP.0, peer, VRRP.1, 112),
            to_group(OSPF.0, peer, OSPF.1, 89),
            to_group(MDNS.0, peer, MDNS.1, 17),
            igmp,
            to_group(BROADCAST, peer, Ipv4Addr::BROADCAST, 17),
            to_group(BROADCAST, peer, Ipv4Addr::new(192, 0, 2, 255), 17),
            packet(MacAddr(BROADCAST), &dhcp, TcpFlags::NONE, b"discover"),
        ];
        for bytes in &heard {
            let out = h.receive(CLIENT_PORT, [bytes.clone()]);
            assert_eq!(out.to_kernel.len(), 1, "{:?} {bytes:x?}", h.all_drops());
            let (port, frame) = &out.to_kernel[0];
            assert_eq!((*port, frame.bytes()), (CLIENT_PORT, &bytes[..]), "untouched");
        }
        let not_heard = [
            // Other groups, another port's network, one host in a frame to all (RFC 1122, 3.3.6).
            to_group(SSDP.0, peer, SSDP.1, 17),
            to_group(BROADCAST, peer, Ipv4Addr::new(10, 0, 255, 255), 17),
            to_group(BROADCAST, peer, OWN[0], 17),
            to_group(BROADCAST, peer, VIP, 6),
        ];
        let out = h.receive(CLIENT_PORT, not_heard);
        assert!(out.to_kernel.is_empty() && out.transmitted.is_empty());
        assert_eq!(h.all_drops(), [(DropReason::NotForUs, 4)]);
        // What our own address sent has come round; nobody sends from a group.
        let out = h.receive(
            CLIENT_PORT,
            [OWN[0], VIP, VRRP.1].map(|src| to_group(VRRP.0, src, VRRP.1, 112)),
        );
        assert!(out.to_kernel.is_empty());
        assert_eq!(h.drops(DropReason::MartianSource), 3);
        let mut damaged = heard[0].clone();
        damaged[25] ^= 1;
        h.receive(CLIENT_PORT, [damaged]);
        assert_eq!(h.drops(DropReason::Ipv4BadChecksum), 1);
    }

    #[test]
    fn a_storm_reaches_the_kernel_at_a_rate() {
        let mut h = Harness::new(&snapshot(1, vec![]), 100);
        let storm = |h: &mut Harness, port: InterfaceId| {
            let one = to_group(BROADCAST, GATEWAY, Ipv4Addr::BROADCAST, 17);
            h.receive(port, vec![one; 1_000]).to_kernel.len()
        };
        assert_eq!((storm(&mut h, CLIENT_PORT), storm(&mut h, BACKEND_PORT)), (200, 200));
        h.now += 100;
        assert_eq!(storm(&mut h, CLIENT_PORT), 50);
        assert_eq!(h.all_drops(), [(DropReason::GroupRateLimit, 2_550)]);
    }

    #[test]
    fn without_an_exception_port_groups_are_nobodys() {
        let mut h = Harness::new(&snapshot(1, vec![]), 100);
        h.pipeline
            .shared
            .interfaces
            .all_mut()
            .iter_mut()
            .for_each(|port| port.has_exception = false);
        assert!(
            h.receive(CLIENT_PORT, [to_group(VRRP.0, GATEWAY, VRRP.1, 112)]).to_kernel.is_empty()
        );
        assert_eq!(h.all_drops(), [(DropReason::NotForUs, 1)]);
    }

    fn lane(h: &mut Harness, frame: Vec<u8>) -> KernelLane {
        let out = h.receive(BACKEND_PORT, [frame]);
        assert_eq!((out.to_kernel.len(), out.kernel_lanes.len()), (1, 1), "{:?}", h.all_drops());
        assert_eq!(out.to_kernel[0].0, BACKEND_PORT);
        out.kernel_lanes[0]
    }

    #[test]
    fn answers_neighbours_and_strangers_go_their_own_ways() {
        use KernelLane::{Answers, Neighbours, Unsolicited};
        let mut h = Harness::new(&snapshot(1, vec![]), 100);
        let to = PORT_MACS[BACKEND_PORT.index()];
        let (host, peer) = (OWN[1], Ipv4Addr::new(10, 0, 1, 1));
        let key = |protocol, port| flow(protocol, (peer, 80), (host, port));
        let packet = |key: &FlowKey, flags| packet(to, key, flags, b"x");
        let (syn, ack) = (TcpFlags::SYN, TcpFlags::ACK);
        let check = key(Protocol::Tcp, 40_000);
        assert_eq!(lane(&mut h, packet(&check, syn | ack)), Unsolicited, "not asked for yet");

        // The host checks a backend.
        let back = flow(Protocol::Tcp, (host, 40_000), (peer, 80));
        h.host_flows.note_sent(&packet(&back, syn), u64::from(h.now));
        assert_eq!(lane(&mut h, packet(&check, syn | ack)), Answers);
        assert_eq!(lane(&mut h, packet(&check, TcpFlags::RST | ack)), Answers);
        assert_eq!(lane(&mut h, packet(&check, syn)), Unsolicited, "a SYN never answers");
        let other = key(Protocol::Tcp, 40_001);
        assert_eq!(lane(&mut h, packet(&other, syn | ack)), Unsolicited, "another flow");

        let query = flow(Protocol::Udp, (host, 5_353), (peer, 80));
        let answer = key(Protocol::Udp, 5_353);
        assert_eq!(lane(&mut h, packet(&answer, TcpFlags::NONE)), Unsolicited);
        h.host_flows.note_sent(&packet(&query, TcpFlags::NONE), u64::from(h.now));
        assert_eq!(lane(&mut h, packet(&answer, TcpFlags::NONE)), Answers);
        h.now += 400_000;
        assert_eq!(lane(&mut h, packet(&answer, TcpFlags::NONE)), Unsolicited, "long ago");

        // GRE has no ports. VRRP to its group has a rate of its own.
        let gre =
            FlowKey { protocol: 47, src_port: L4Port::ZERO, dst_port: L4Port::ZERO, ..answer };
        assert_eq!(lane(&mut h, ip_frame(to, &gre, 255, &[0; 20])), Unsolicited);
        let vrrp = to_group([1, 0, 0x5e, 0, 0, 18], peer, Ipv4Addr::new(224, 0, 0, 18), 112);
        assert_eq!(lane(&mut h, vrrp), Neighbours);
        let reply = arp::build_arp(arp::OP_REPLY, PEER_MAC, peer, to, host, to);
        assert_eq!(lane(&mut h, reply.to_vec()), Neighbours);
    }
}
