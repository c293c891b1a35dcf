//! IPv4 that only the kernel could take: to it, when it is for one of the ports' own addresses.

use sluice_api::DropReason;

use crate::burst::{Burst, Class, Mask, Verdict};
use crate::flow::FlowKey;
use crate::snapshot::{Address, Compiled};

/// The stage.
pub fn decide<F>(burst: &mut Burst<F>, which: Mask, config: &Compiled) {
    burst.filter(which, |_, meta| {
        let Class::Other(reason) = meta.class else { return false };
        let FlowKey { src, dst, .. } = meta.key();
        meta.verdict = match config.address(dst) {
            // As of TCP and UDP (RFC 1812, 5.3.7).
            Some(_) if config.address(src).is_some() => Verdict::Drop(DropReason::MartianSource),
            Some(Address::Port(_)) => Verdict::Kernel { port: meta.in_port },
            _ => Verdict::Drop(reason),
        };
        true
    });
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sluice_api::{DropReason, Mode, Protocol};
    use sluice_wire::tcp::TcpFlags;

    use crate::flow::FlowKey;
    use crate::testkit::{self, *};

    const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 0, 0, 1)];

    /// Whatever the protocol, and whichever of our addresses it claims to come from.
    #[test]
    fn nothing_comes_to_the_host_from_our_own_addresses() {
        let service = testkit::service("web", 80, Protocol::Tcp, Mode::FullNat, 1);
        let mut h = Harness::new(&snapshot(1, vec![service]), 100);
        let to = PORT_MACS[CLIENT_PORT as usize];
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
}
