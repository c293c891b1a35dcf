//! Packets that have a conn: state, next hop, rewrite, egress, one packet at a time. By now every
//! line they need is on its way into the cache.
//!
//! Nearly all packets belong to an established conn with a reachable next hop: a first loop takes
//! these, with nothing in it that they do not need. A second one takes the others.

use std::hint::cold_path;

use sluice_api::DropReason;
use sluice_wire::flow_head::{FLOW_HEAD_BYTES, NatHead};
use sluice_wire::ipv4::PROTO_TCP;

use super::{Tables, conn, egress, next_hop, rewrite};
use crate::burst::{Burst, Mask, Meta, Verdict};
use crate::counters::BackendCounters;
use crate::frame::Frame;
use crate::intrinsics::Prefetcher;
use crate::snapshot::Compiled;
use crate::table::conn::Conn;
use crate::table::neighbour::{Neighbour, ready};
use crate::table::wheel::Millis;

/// The stage: those of `flows` that have no conn, undecided.
// Never inlined: a stage is a symbol in profiles.
#[inline(never)]
pub fn forward<F: Frame>(
    burst: &mut Burst<F>,
    flows: Mask,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) -> Mask {
    let Tables { conns, neighbours, counters, .. } = &mut *t;
    let (lines, next_hops, counters) =
        (conns.lines_mut(), neighbours.entries(), counters.backends());
    // `lookup` has asked for the lines, but not into the nearest cache.
    let near = Prefetcher::of(lines);
    let ahead = |meta: &Meta| near.prefetch(meta.conn.conn());
    let left = burst.filter_ahead(flows, ahead, |frame, meta| {
        let line = lines.get_mut(meta.conn.conn());
        let forwarded = line.is_some_and(|line| {
            line.is_flow(&meta.tuple, meta.conn)
                && conn::is_quiet(line, meta, config)
                && send(frame, meta, line, next_hops, counters, now).is_some()
        });
        if !forwarded {
            cold_path();
        }
        !forwarded
    });
    if left.is_empty() { left } else { forward_others(burst, left, t, config, now) }
}

/// Send a packet of a conn on its way, when there is nothing else to be done about it than to note
/// the time; `None`, and nothing done, when there is.
#[inline(always)]
fn send<F: Frame>(
    frame: &mut F,
    meta: &mut Meta,
    line: &mut Conn,
    next_hops: &[Neighbour],
    counters: &[BackendCounters],
    now: Millis,
) -> Option<()> {
    let direction = meta.conn.direction();
    let next_hop = ready(next_hops, line.next_hops[direction], now)?;
    let counters = counters.get(line.backend_slot() as usize)?;
    let head: &mut [u8; FLOW_HEAD_BYTES] = frame.bytes_mut().first_chunk_mut()?;
    let nat = NatHead::of(head)?;
    if nat.ttl() <= 1 || meta.ip_len > next_hop.mtu {
        return None;
    }
    line.see(now);
    nat.set_macs(&next_hop.macs);
    rewrite::rewrite_headers(head, meta, line);
    counters.forwarded[direction].add(meta.ip_len);
    meta.verdict = next_hop.verdict;
    Some(())
}

/// All other packets that have a conn.
#[inline(never)]
fn forward_others<F: Frame>(
    burst: &mut Burst<F>,
    flows: Mask,
    t: &mut Tables,
    config: &Compiled,
    now: Millis,
) -> Mask {
    burst.filter(flows, |frame, meta| {
        if meta.tuple.protocol == PROTO_TCP && !meta.tcp_flags.is_plausible() {
            meta.verdict = Verdict::Drop(DropReason::TcpBadFlags);
        } else if conn::track(meta, t, config, now) {
            forward_one(frame, meta, t, now);
        } else {
            return true;
        }
        false
    })
}

/// Send a packet on its conn's way, whatever that takes.
#[inline(always)]
pub fn forward_one<F: Frame>(frame: &mut F, meta: &mut Meta, t: &mut Tables, now: Millis) {
    let Tables { conns, neighbours, counters, .. } = &mut *t;
    let line = conns.get_mut(meta.conn);
    if send(frame, meta, line, neighbours.entries(), counters.backends(), now).is_none() {
        meta.verdict = find_way(frame, meta, t, now);
    }
}

/// Send a packet whose next hop is to be looked up, asked for or waited for, or that cannot be sent.
#[inline(never)]
fn find_way<F: Frame>(frame: &mut F, meta: &Meta, t: &mut Tables, now: Millis) -> Verdict {
    let slot = match next_hop::resolve(meta, t, now) {
        Ok(slot) => slot,
        Err(reason) => return Verdict::Drop(reason),
    };
    match rewrite::rewrite(frame, meta, t, slot, now) {
        Verdict::Continue => egress::egress(frame, t, slot, now),
        verdict => verdict,
    }
}
