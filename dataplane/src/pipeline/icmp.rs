//! Answer pings to our addresses (RFC 792, RFC 1122 section 3.2.2.6); leave the rest of the ports'
//! own ICMP to the kernel.

use sluice_api::DropReason;
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::icmp;
use zerocopy::byteorder::network_endian::U32;

use crate::burst::{Burst, Class, Mask, Meta, Verdict};
use crate::frame::Frame;
use crate::snapshot::{Address, Compiled};

/// TTL of packets that we make (RFC 1700).
pub const OUR_TTL: u8 = 64;

/// The stage.
pub fn answer<F: Frame>(burst: &mut Burst<F>, which: Mask, config: &Compiled) {
    burst.filter(which, |frame, meta| {
        let is_icmp = meta.class == Class::Icmp;
        if is_icmp {
            meta.verdict = decide(frame.bytes_mut(), meta, config);
        }
        is_icmp
    });
}

fn decide(frame: &mut [u8], meta: &Meta, config: &Compiled) -> Verdict {
    let Some(address) = config.address(meta.key().dst) else {
        return Verdict::Drop(DropReason::NotForUs);
    };
    if config.address(meta.key().src).is_some() {
        return Verdict::Drop(DropReason::MartianSource);
    }
    let message = &mut frame[L4_OFFSET..L3_OFFSET + usize::from(meta.ip_len)];
    match icmp::parse(message) {
        Err(_) => Verdict::Drop(DropReason::IcmpInvalid),
        Ok(header) if header.is_echo_request() => {
            icmp::make_echo_reply(message);
            turn_around(frame, meta.key().dst, meta.key().src);
            Verdict::Transmit { port: meta.in_port }
        }
        Ok(_) if matches!(address, Address::Port(_)) => Verdict::Kernel { port: meta.in_port },
        Ok(_) => Verdict::Drop(DropReason::IcmpIgnored),
    }
}

/// Send a packet back to where it came from, from `src` to `dst`, with a fresh TTL.
pub fn turn_around(frame: &mut [u8], src: u32, dst: u32) {
    if let Ok(view) = Ipv4Frame::parse_mut(frame) {
        view.set_macs(view.ether.src, view.ether.dst);
        view.ip.src = U32::new(src);
        view.ip.dst = U32::new(dst);
        view.ip.ttl = OUR_TTL;
        view.ip.fill_checksum();
    }
}
