//! Answer ARP for our addresses (RFC 826), and tell the main thread who is where.

use sluice_api::DropReason;
use sluice_wire::WireError;
use sluice_wire::arp::{self, ArpPacket, OP_REQUEST};
use sluice_wire::headers::L3_OFFSET;

use super::{Tables, ToMain};
use crate::burst::{Burst, Class, Mask, Meta, Verdict};
use crate::frame::Frame;
use crate::snapshot::{Address, Compiled};

/// The stage.
pub fn answer<F: Frame>(burst: &mut Burst<F>, which: Mask, t: &mut Tables, config: &Compiled) {
    burst.filter(which, |frame, meta| {
        let is_arp = meta.class == Class::Arp;
        if is_arp {
            meta.verdict = match arp::parse(&frame.bytes()[L3_OFFSET..]) {
                Ok(packet) => {
                    let packet = *packet;
                    decide(frame, &packet, meta, t, config)
                }
                Err(WireError::Truncated) => Verdict::Drop(DropReason::ArpTruncated),
                Err(_) => Verdict::Drop(DropReason::ArpInvalid),
            };
        }
        is_arp
    });
}

fn decide<F: Frame>(
    frame: &mut F,
    packet: &ArpPacket,
    meta: &Meta,
    t: &mut Tables,
    config: &Compiled,
) -> Verdict {
    if !packet.sender_is_station() {
        return Verdict::Drop(DropReason::ArpInvalid);
    }
    let target = config.address(packet.target_ip.get());
    // A port answers for its own address only on its own wire; VIPs and local addresses have none.
    let for_us = match target {
        Some(Address::Port(port)) => port == meta.in_port,
        Some(Address::Vip | Address::Local) => true,
        None => false,
    };
    if !for_us && !packet.is_announcement() {
        return Verdict::Drop(DropReason::ArpNotForUs);
    }
    let is_request = packet.op() == OP_REQUEST;
    let told = t.tell(ToMain::Arp {
        port: meta.in_port,
        sender: packet.sender_ip.get(),
        mac: packet.sender_mac,
        is_reply: !is_request,
        for_us,
        conflict: config.address(packet.sender_ip.get()).is_some(),
    });
    if is_request && for_us && !packet.is_announcement() {
        let reply = arp::build_reply(packet, t.ports[meta.in_port as usize].mac);
        if frame.set_len(reply.len()).is_err() {
            return Verdict::Drop(DropReason::NoMbuf);
        }
        frame.bytes_mut().copy_from_slice(&reply);
        return Verdict::Transmit { port: meta.in_port };
    }
    match (told, target) {
        // The kernel may have asked, through its exception port.
        (_, Some(Address::Port(port)))
            if !is_request && for_us && t.ports[port as usize].has_exception =>
        {
            Verdict::Kernel { port }
        }
        (true, _) => Verdict::Drop(DropReason::ArpConsumed),
        (false, _) => Verdict::Drop(DropReason::ArpQueueFull),
    }
}
