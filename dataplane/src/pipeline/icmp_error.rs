//! Tell the sender of a packet why it went no further: ICMP errors, in the packet's own buffer,
//! within a rate limit (RFC 1812, 4.3.2.8).

use sluice_api::DropReason;
use sluice_wire::headers::{Ipv4Frame, L3_OFFSET, L4_OFFSET};
use sluice_wire::icmp::{self, MAX_ERROR_BYTES};
use sluice_wire::ipv4::{HEADER_BYTES, PROTO_ICMP};
use zerocopy::byteorder::network_endian::U16;

use super::{Tables, icmp::turn_around};
use crate::burst::{Meta, Verdict};
use crate::frame::Frame;
use crate::table::wheel::Millis;

/// ICMP errors that a worker sends per second, on average.
const PER_SECOND: u32 = 100;
/// ICMP errors that a worker sends at once.
const AT_ONCE: u32 = 50;

/// A token bucket.
pub struct RateLimit {
    tokens: u32,
    filled_at: Millis,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(now: Millis) -> Self {
        RateLimit { tokens: AT_ONCE, filled_at: now }
    }

    /// Whether one more may be sent.
    fn take(&mut self, now: Millis) -> bool {
        let every = 1_000 / PER_SECOND;
        let fresh = now.wrapping_sub(self.filled_at) / every;
        if fresh > 0 {
            self.tokens = self.tokens.saturating_add(fresh).min(AT_ONCE);
            self.filled_at = now;
        }
        match self.tokens.checked_sub(1) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}

/// Turn a packet into an ICMP error about itself, back to its sender; or drop it, when no error may
/// be sent. The packet counts as dropped in either case.
#[cold]
pub fn answer<F: Frame>(
    frame: &mut F,
    meta: &Meta,
    t: &mut Tables,
    now: Millis,
    (icmp_type, code, rest): (u8, u8, [u8; 4]),
    reason: DropReason,
) -> Verdict {
    let drop = Verdict::Drop(reason);
    if !t.icmp_limit.take(now) {
        return drop;
    }
    let end = L3_OFFSET + usize::from(meta.ip_len);
    // Most of the original that may be quoted is on the stack: it moves within its own buffer.
    let mut message = [0; MAX_ERROR_BYTES - HEADER_BYTES];
    let original = &frame.bytes()[L3_OFFSET..end];
    let Some(len) = icmp::build_error(&mut message, icmp_type, code, rest, original) else {
        return drop;
    };
    if frame.set_len((L4_OFFSET + len).max(60)).is_err() {
        return drop;
    }
    let bytes = frame.bytes_mut();
    bytes[L4_OFFSET..L4_OFFSET + len].copy_from_slice(&message[..len]);
    bytes[L4_OFFSET + len..].fill(0);
    let Ok(view) = Ipv4Frame::parse_mut(bytes) else { return drop };
    view.ip.version_ihl = 0x45;
    // RFC 1812, 4.3.2.5: precedence 6, internetwork control.
    view.ip.dscp_ecn = 0xc0;
    view.ip.total_len = U16::new((HEADER_BYTES + len) as u16);
    view.ip.id = U16::ZERO;
    view.ip.flags_fragment = U16::ZERO;
    view.ip.protocol = PROTO_ICMP;
    let our_address = t.ports[meta.in_port as usize].address.to_bits();
    turn_around(bytes, our_address, meta.key().src);
    t.counters.drop_count(reason).add(1);
    Verdict::Transmit { port: meta.in_port }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_limited_to_a_rate() {
        let mut limit = RateLimit::new(0);
        let sent = |limit: &mut RateLimit, now| (0..1_000).filter(|_| limit.take(now)).count();
        assert_eq!(sent(&mut limit, 0), AT_ONCE as usize);
        assert_eq!(sent(&mut limit, 5), 0);
        assert_eq!(sent(&mut limit, 105), 10);
        assert_eq!(sent(&mut limit, 1_000_000), AT_ONCE as usize);
    }
}
