//! Answer ARP for our addresses (RFC 826), and tell the main thread who is where.

use sluice_api::DropReason;
use sluice_wire::WireError;
use sluice_wire::arp::{self, OP_REQUEST};
use sluice_wire::headers::L3_OFFSET;

use super::ToMain;
use super::next_hop::NextHops;
use super::parse::is_martian;
use super::rate_limit::{Rate, RateLimit};
use super::shared::{Context, Interfaces};
use crate::burst::{Burst, Class, Mask, Meta, Verdict};
use crate::frame::Frame;
use crate::next_hop::NextHop;
use crate::snapshot::Address;
use crate::time::Millis;

/// How much of the ARP that others send the main thread is told: no flood of it keeps the rest out.
/// By sender's address, and in all.
pub struct Arp {
    conflicts: RateLimit,
    others: RateLimit,
}

impl Arp {
    /// Nothing has been told yet; `seed` is one that others do not know.
    pub fn new(seed: u64, now: Millis) -> Self {
        // One is enough for the defence, which is due every 10 s for each address.
        let conflicts =
            [Rate { per_second: 1, at_once: 2 }, Rate { per_second: 100, at_once: 200 }];
        // As many as there may be answers to our own questions.
        let others =
            [Rate { per_second: 20, at_once: 20 }, Rate { per_second: 20_000, at_once: 2_000 }];
        let limit = |[each, all]: [Rate; 2]| RateLimit::new(each, all, seed, now);
        Arp { conflicts: limit(conflicts), others: limit(others) }
    }

    fn take(&mut self, sender: u32, is_conflict: bool, now: Millis) -> bool {
        let limit = if is_conflict { &mut self.conflicts } else { &mut self.others };
        limit.take(sender, now)
    }

    /// The stage.
    pub fn answer<F: Frame>(
        &mut self,
        burst: &mut Burst<F>,
        which: Mask,
        next_hops: &mut NextHops,
        interfaces: &Interfaces,
        cx: Context,
    ) {
        burst.filter(which, |frame, meta| {
            let is_arp = meta.class == Class::Arp;
            if is_arp {
                meta.verdict = self.decide(frame, meta, next_hops, interfaces, cx);
            }
            is_arp
        });
    }

    fn decide<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &Meta,
        next_hops: &mut NextHops,
        interfaces: &Interfaces,
        cx: Context,
    ) -> Verdict {
        let packet = match arp::parse(&frame.bytes()[L3_OFFSET..]) {
            Ok(packet) => *packet,
            Err(WireError::Truncated) => return Verdict::Drop(DropReason::ArpTruncated),
            Err(_) => return Verdict::Drop(DropReason::ArpInvalid),
        };
        let sender = packet.sender_ip.get();
        let is_nobody =
            !packet.is_probe() && (is_martian(sender) || next_hops.routes.is_broadcast(sender));
        if !packet.sender_is_station() || is_nobody {
            return Verdict::Drop(DropReason::ArpBadSender);
        }
        if interfaces.is_own_mac(packet.sender_mac) {
            return Verdict::Drop(DropReason::OwnMac);
        }
        // RFC 5227, 2.4: whatever it asks, who says that it has an address of ours is in conflict.
        let conflict = cx.config.address(sender).is_some();
        // Who probes for an address that was ours wants to have it (RFC 5227, 2.1.1), and may.
        let target = match packet.is_probe() {
            true => cx.config.address(packet.target_ip.get()),
            false => cx.config.answered(packet.target_ip.get()),
        };
        // A port answers for its own address only on its own wire; VIPs and local addresses have none.
        let for_us = match target {
            Some(Address::Own(of)) => of == meta.interface,
            Some(Address::Vip | Address::Local) => true,
            None => false,
        };
        if !for_us && !packet.is_announcement() && !conflict {
            return Verdict::Drop(DropReason::ArpNotForUs);
        }
        let is_request = packet.op() == OP_REQUEST;
        let told = self.take(sender, conflict, cx.now)
            && next_hops.tell(ToMain::Arp {
                sender: NextHop { interface: meta.interface, address: sender },
                mac: packet.sender_mac,
                is_reply: !is_request,
                for_us,
                conflict,
            });
        if is_request && for_us && !packet.is_announcement() {
            let reply = arp::build_reply(&packet, interfaces.get(meta.interface).mac);
            if frame.set_len(reply.len()).is_err() {
                return Verdict::Drop(DropReason::NoMbuf);
            }
            frame.bytes_mut().copy_from_slice(&reply);
            return Verdict::Transmit { interface: meta.interface };
        }
        match (told, target) {
            _ if conflict => Verdict::Drop(DropReason::ArpConflict),
            // The kernel may have asked, through its exception port.
            (_, Some(Address::Own(of)))
                if !is_request && for_us && interfaces.get(of).has_exception =>
            {
                Verdict::Kernel { interface: of }
            }
            (true, _) => Verdict::Drop(DropReason::ArpConsumed),
            (false, _) => Verdict::Drop(DropReason::ArpQueueFull),
        }
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> [std::ops::Range<usize>; 2] {
        [self.conflicts.written(), self.others.written()]
    }
}
