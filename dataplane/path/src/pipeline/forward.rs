//! Packets that have a conn: state, next hop, rewrite, egress, one packet at a time. By now every
//! line they need is on its way into the cache.
//!
//! Nearly all packets belong to an established conn with a reachable next hop: a first loop takes
//! these, with nothing in it that they do not need. A second one takes the others.

use std::hint::cold_path;

use sluice_api::DropReason;
use sluice_wire::flow_head::{FLOW_HEAD_BYTES, FlowHead, NatHead};
use sluice_wire::headers::Ipv4Frame;
use sluice_wire::ipv4::PROTO_TCP;

use super::icmp_error::{ErrorLimits, Problem};
use super::shared::{Context, Shared};
use super::track::{self, Tracked};
use super::{egress, life, rewrite};
use crate::burst::{Burst, Mask, Meta, Verdict};
use crate::counters::BackendCounters;
use crate::frame::Frame;
use crate::ids::NextHopSlot;
use crate::intrinsics::Prefetcher;
use crate::snapshot::Compiled;
use crate::table::conn::resting::Resting;
use crate::table::conn::{Conn, ConnRef};
use crate::table::neighbour::{Neighbour, ready};
use crate::time::Millis;

/// What packets with a conn leave behind beside what is shared.
pub struct Forward {
    /// What their senders may be told.
    errors: ErrorLimits,
    /// Conns that began to rest, in order.
    pub resting: Resting,
}

impl Forward {
    /// Room for so many conns; `seed` is one that others do not know.
    pub fn new(conns: u32, seed: u64, now: Millis) -> Self {
        Forward { errors: ErrorLimits::new(seed, now), resting: Resting::new(conns) }
    }

    /// The stage: those of `flows` that have no conn, undecided. Packets that have waited for a MAC
    /// address say so.
    // Its two loops are the symbols in profiles.
    #[inline(always)]
    pub fn forward<F: Frame>(
        &mut self,
        burst: &mut Burst<F>,
        flows: Mask,
        shared: &mut Shared,
        cx: Context,
        have_waited: bool,
    ) -> Mask {
        // One that has waited may have a conn to begin: that is the second loop's to see.
        let left = if have_waited { flows } else { forward_quiet(burst, flows, shared, cx) };
        if left.is_empty() { left } else { self.forward_others(burst, left, shared, cx) }
    }

    /// All other packets that have a conn.
    #[inline(never)]
    fn forward_others<F: Frame>(
        &mut self,
        burst: &mut Burst<F>,
        flows: Mask,
        shared: &mut Shared,
        cx: Context,
    ) -> Mask {
        burst.filter(flows, |frame, meta| {
            if meta.tuple.protocol == PROTO_TCP && !meta.tcp_flags.is_plausible() {
                meta.verdict = Verdict::Drop(DropReason::TcpBadFlags);
                return false;
            }
            !self.forward_tracked(frame, meta, shared, cx)
        })
    }

    /// Send a packet on the way of its conn, if it has one, and note what that does to the conn; whether
    /// it has one.
    pub fn forward_tracked<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &mut Meta,
        shared: &mut Shared,
        cx: Context,
    ) -> bool {
        match track::track(frame, meta, shared, cx) {
            Tracked::Nothing => return false,
            Tracked::Refused(reason) => meta.verdict = Verdict::Drop(reason),
            Tracked::Packet(change) => {
                let fate = self.forward_one(frame, meta, shared, cx.now);
                if fate == Fate::Sent {
                    track::apply(meta, change, &mut self.resting, shared, cx);
                }
                if meta.begins_conn {
                    begin_conn(meta, shared, cx.config, fate);
                }
            }
        }
        true
    }

    /// Send a packet on its conn's way, whatever that takes.
    #[inline(always)]
    pub fn forward_one<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &mut Meta,
        shared: &mut Shared,
        now: Millis,
    ) -> Fate {
        let Shared { conns, next_hops, counters, .. } = &mut *shared;
        let line = conns.get_mut(meta.conn);
        let (next_hops, counters) = (next_hops.neighbours.entries(), counters.backends());
        match send(frame, meta, line, next_hops, counters, now, Look::Close) {
            Some(()) => Fate::Sent,
            None => self.find_way(frame, meta, shared, now),
        }
    }

    /// Send a packet whose next hop is to be looked up, asked for or waited for, or that cannot be sent.
    #[inline(never)]
    fn find_way<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &mut Meta,
        shared: &mut Shared,
        now: Millis,
    ) -> Fate {
        let Shared { conns, next_hops, counters, .. } = &mut *shared;
        let slot = match next_hops.resolve(meta, conns, counters, now) {
            Ok(slot) => slot,
            Err(reason) => {
                meta.verdict = Verdict::Drop(reason);
                return Fate::Ended;
            }
        };
        if let Some(verdict) = self.obstacle(frame, meta, shared, slot, now) {
            meta.verdict = verdict;
            return Fate::Ended;
        }
        let Shared { conns, next_hops, counters, .. } = &mut *shared;
        next_hops.ask(slot, now);
        let neighbour = next_hops.neighbours.get(slot);
        meta.verdict = neighbour.verdict;
        match neighbour.verdict {
            Verdict::Transmit { .. } => {}
            // As it came: it goes through all stages again when the next hop is known.
            Verdict::Hold => return Fate::Waits,
            _ => return Fate::Ended,
        }
        let line = conns.get(meta.conn);
        rewrite::rewrite_headers(frame.bytes_mut(), meta, line);
        egress::set_macs(frame.bytes_mut(), neighbour);
        counters.backend(line.backend_slot()).forwarded[meta.conn.direction().index()]
            .add(meta.ip_len);
        Fate::Sent
    }

    /// What keeps a packet from taking the way to its next hop: its sender is told.
    #[inline(always)]
    fn obstacle<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &Meta,
        shared: &Shared,
        next_hop: NextHopSlot,
        now: Millis,
    ) -> Option<Verdict> {
        let mtu = shared.next_hops.neighbours.get(next_hop).mtu;
        if meta.ip_len > mtu {
            return Some(self.too_big(frame, meta, shared, mtu, now));
        }
        if NatHead::of(frame.bytes_mut()).is_none_or(|head| head.ttl() <= 1) {
            return Some(self.errors.answer(frame, meta, Problem::TtlExceeded, shared, now));
        }
        None
    }

    /// A packet larger than the egress port's MTU: the sender is told to send smaller ones (RFC 1191), if it
    /// has set DF. One that has not expects to be fragmented and knows nothing to do about "fragmentation
    /// needed and DF set" (RFC 792; RFC 1812, 5.2.7.1), and Sluice does not fragment.
    #[cold]
    fn too_big<F: Frame>(
        &mut self,
        frame: &mut F,
        meta: &Meta,
        shared: &Shared,
        mtu: u16,
        now: Millis,
    ) -> Verdict {
        let ip = Ipv4Frame::parse(frame.bytes()).ok();
        if !ip.is_some_and(|frame| frame.ip.dont_fragment()) {
            return Verdict::Drop(DropReason::WouldFragment);
        }
        self.errors.answer(frame, meta, Problem::TooBig { mtu }, shared, now)
    }

    /// Where everything lies that is written while packets are forwarded, but for itself.
    #[cfg(test)]
    pub(super) fn written(&self) -> Vec<std::ops::Range<usize>> {
        let mut all = self.errors.written().to_vec();
        all.push(self.resting.written());
        all
    }
}

/// Those packets that change no state and whose next hop is ready; the others are left.
// Not inlined: what the other loop needs would take registers of this one.
#[inline(never)]
fn forward_quiet<F: Frame>(
    burst: &mut Burst<F>,
    flows: Mask,
    shared: &mut Shared,
    cx: Context,
) -> Mask {
    let Context { config, now } = cx;
    let Shared { conns, next_hops, counters, .. } = shared;
    let (lines, next_hops, counters) =
        (conns.lines_mut(), next_hops.neighbours.entries(), counters.backends());
    // `lookup` has asked for the lines, but not into the nearest cache.
    let near = Prefetcher::of(lines);
    let ahead = |meta: &Meta| near.prefetch(meta.conn.conn());
    burst.filter_ahead(flows, ahead, |frame, meta| {
        let line = lines.get_mut(meta.conn.conn());
        let forwarded = line.is_some_and(|line| {
            line.is_flow(&meta.tuple, meta.conn)
                && track::is_quiet(line, meta, config)
                && send(frame, meta, line, next_hops, counters, now, Look::First).is_some()
        });
        if !forwarded {
            cold_path();
        }
        !forwarded
    })
}

/// Who sends a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The hot loop: when, in TCP, the packet is where the last one was. The time is noted.
    First,
    /// Whoever knows what the packet does to its conn, and does that later.
    Close,
}

/// Send a packet of a conn on its way, when there is nothing else to be done about it; `None`, and
/// nothing done, when there is.
#[inline(always)]
fn send<F: Frame>(
    frame: &mut F,
    meta: &mut Meta,
    line: &mut Conn,
    next_hops: &[Neighbour],
    counters: &[BackendCounters],
    now: Millis,
    look: Look,
) -> Option<()> {
    let direction = meta.conn.direction();
    let next_hop = ready(next_hops, line.next_hops[direction.index()], now)?;
    let counters = counters.get(line.backend_slot().index())?;
    let head: &mut [u8; FLOW_HEAD_BYTES] = frame.bytes_mut().first_chunk_mut()?;
    if look == Look::First
        && meta.tuple.protocol == PROTO_TCP
        && !FlowHead::of(head).is_some_and(|head| line.seqs().is_same(direction, head))
    {
        return None;
    }
    let nat = NatHead::of(head)?;
    if nat.ttl() <= 1 || meta.ip_len > next_hop.mtu {
        return None;
    }
    if look == Look::First {
        line.see(now);
    }
    nat.set_macs(&next_hop.macs);
    rewrite::rewrite_headers(head, meta, line);
    counters.forwarded[direction.index()].add(meta.ip_len);
    meta.verdict = next_hop.verdict;
    Some(())
}

/// The packet for which a conn was made has met its fate: the conn counts as made once it has left,
/// and is taken back when it does not.
#[inline(always)]
pub fn begin_conn(meta: &mut Meta, shared: &mut Shared, config: &Compiled, fate: Fate) {
    match fate {
        Fate::Sent => {
            shared.counters.conns_created.add(1);
            shared
                .counters
                .backend(shared.conns.get(meta.conn).backend_slot())
                .conns_created
                .add(1);
        }
        Fate::Waits => {}
        Fate::Ended if life::is_new(shared.conns.get(meta.conn)) => {
            shared.take_back_conn(meta.conn, config);
            meta.conn = ConnRef::NONE;
        }
        Fate::Ended => {}
    }
}

/// What has become of a packet of a conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves for its conn's other side.
    Sent,
    /// It waits for a MAC address, as it came.
    Waits,
    /// It goes no further; its buffer may carry the news of that to its sender.
    Ended,
}
