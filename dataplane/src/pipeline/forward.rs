//! Packets that have a conn: state, next hop, rewrite, egress, one packet at a time. By now every
//! line they need is on its way into the cache.
//!
//! Nearly all packets belong to an established conn with a reachable next hop: a first loop takes
//! these, with nothing in it that they do not need. A second one takes the others.

use sluice_api::DropReason;
use sluice_wire::flow_head::NatHead;
use sluice_wire::ipv4::PROTO_TCP;

use super::{Tables, conn, egress, next_hop, rewrite};
use crate::burst::{Burst, Meta, Verdict};
use crate::counters::WorkerCounters;
use crate::frame::Frame;
use crate::snapshot::Compiled;
use crate::table::conn::Conn;
use crate::table::neighbour::Neighbours;
use crate::table::wheel::Millis;

/// The stage. Packets without a conn are left undecided, with `ConnRef::NONE`; how many.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn forward<F: Frame>(
    burst: &mut Burst<F>,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) -> usize {
    let Tables { conns, neighbours, counters, .. } = &mut *t;
    let lines = conns.lines_mut();
    let mut left = 0;
    for (frame, meta) in burst.live_flows() {
        let line = lines.get_mut(meta.conn.conn());
        match line.and_then(|line| plain(frame, meta, line, neighbours, counters, config, now)) {
            Some(verdict) => meta.verdict = verdict,
            None => left += 1,
        }
    }
    if left == 0 { 0 } else { forward_others(burst, t, config, now) }
}

/// Forward a packet that changes no state, and about which there is nothing else to do; `None`, and
/// nothing done, when there may be.
#[inline(always)]
fn plain<F: Frame>(
    frame: &mut F,
    meta: &Meta,
    line: &mut Conn,
    neighbours: &Neighbours,
    counters: &WorkerCounters,
    config: &Compiled,
    now: Millis,
) -> Option<Verdict> {
    if !line.is_flow(&meta.tuple, meta.conn) || !conn::is_quiet(line, meta, config) {
        return None;
    }
    let next_hop = neighbours.ready(line.next_hops[meta.conn.direction()], now)?;
    let bytes = frame.bytes_mut();
    let head = NatHead::of(bytes)?;
    if head.ttl() <= 1 || meta.ip_len > next_hop.mtu {
        return None;
    }
    line.see(now);
    head.set_macs(&next_hop.macs);
    rewrite::rewrite_headers(bytes, meta, line);
    rewrite::count(counters, meta, line);
    Some(Verdict::Transmit { port: next_hop.port })
}

/// All other packets that have a conn.
#[inline(never)]
fn forward_others<F: Frame>(
    burst: &mut Burst<F>,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) -> usize {
    let mut without = 0;
    for (frame, meta) in burst.live_flows() {
        if meta.tuple.protocol == PROTO_TCP && !meta.tcp_flags.is_plausible() {
            meta.verdict = Verdict::Drop(DropReason::TcpBadFlags);
        } else if conn::track(meta, t, config, now) {
            meta.verdict = forward_one(frame, meta, t, now);
        } else {
            without += 1;
        }
    }
    without
}

/// Send a packet on its conn's way.
pub fn forward_one<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, now: Millis) -> Verdict {
    let slot = match next_hop::resolve(meta, t, now) {
        Ok(slot) => slot,
        Err(reason) => return Verdict::Drop(reason),
    };
    match rewrite::rewrite(frame, meta, t, slot, now) {
        Verdict::Continue => egress::egress(frame, t, slot, now),
        verdict => verdict,
    }
}
