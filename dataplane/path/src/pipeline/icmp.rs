//! Answer pings to our addresses (RFC 792, RFC 1122 section 3.2.2.6); send errors about conns to whom
//! they concern; leave the rest of the ports' own ICMP to the kernel.

use sluice_api::DropReason;
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::icmp;
use zerocopy::byteorder::network_endian::U32;

use super::relate::Relate;
use super::shared::{Context, Shared};
use super::steer::Steer;
use crate::burst::{Burst, Class, Mask, Meta, Verdict};
use crate::frame::Frame;
use crate::snapshot::Address;
use crate::time::Millis;

/// TTL of packets that we make (RFC 1700).
pub const OUR_TTL: u8 = 64;

/// What is done about ICMP.
pub struct Icmp {
    /// Errors about conns.
    related: Relate,
}

impl Icmp {
    /// Nothing was done yet; `seed` is one that others do not know.
    pub fn new(seed: u64, now: Millis) -> Self {
        Icmp { related: Relate::new(seed, now) }
    }

    /// The stage.
    pub fn answer<F: Frame>(
        &mut self,
        burst: &mut Burst<F>,
        which: Mask,
        steer: &Steer,
        shared: &mut Shared,
        cx: Context,
    ) {
        burst.filter(which, |frame, meta| {
            let is_icmp = meta.class == Class::Icmp;
            if is_icmp {
                meta.verdict = self.decide(frame, meta, steer, shared, cx);
            }
            is_icmp
        });
    }

    fn decide<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &mut Meta,
        steer: &Steer,
        shared: &mut Shared,
        cx: Context,
    ) -> Verdict {
        let config = cx.config;
        let (src, dst) = (meta.key().src, meta.key().dst);
        let Some(address) = config.address_of_conns(dst) else {
            return Verdict::Drop(DropReason::NotForUs);
        };
        if config.address(src).is_some() {
            return Verdict::Drop(DropReason::MartianSource);
        }
        let bytes = frame.bytes_mut();
        let message = &mut bytes[L4_OFFSET..L3_OFFSET + usize::from(meta.ip_len)];
        match icmp::parse(message) {
            Err(_) => Verdict::Drop(DropReason::IcmpInvalid),
            Ok(header) if header.is_error() && !matches!(address, Address::Own(_)) => {
                self.related.send_on(frame, meta, steer, shared, cx)
            }
            // The conns of an address that was ours go on, and that is all there is to it.
            Ok(_) if config.answered(dst).is_none() => Verdict::Drop(DropReason::NotForUs),
            Ok(header) if header.is_echo_request() => {
                icmp::make_echo_reply(message);
                turn_around(bytes, dst, src);
                Verdict::Transmit { interface: meta.interface }
            }
            Ok(_) if matches!(address, Address::Own(_)) => {
                Verdict::Kernel { interface: meta.interface }
            }
            Ok(_) => Verdict::Drop(DropReason::IcmpIgnored),
        }
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> std::ops::Range<usize> {
        self.related.written()
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
