//! Confirm the conn of a packet, and note what the packet does to it.
//!
//! A packet changes a conn only when it has been sent on (design, invariant 11), and then only as
//! far as it could be of this connection. So what a packet would do is found out before it is sent
//! ([`track`]), and done after that ([`apply`]).

use sluice_api::DropReason;
use sluice_wire::flow_head::FlowHead;
use sluice_wire::ipv4::PROTO_TCP;
use sluice_wire::tcp::TcpFlags;

use super::shared::{Context, Shared};
use crate::burst::Meta;
use crate::frame::Frame;
use crate::ids::Direction;
use crate::snapshot::Compiled;
use crate::table::conn::Conn;
use crate::table::conn::ConnRef;
use crate::table::conn::resting::Resting;
use crate::table::conn::seq::Seqs;
use crate::table::conn::state::{ConnState, Fins, Segment};

/// How long a conn whose backend is gone must have been silent, in ms, before its client's SYN
/// starts it over: less than a client waits before it repeats one, and more than any pause of a
/// connection that works.
const SILENT_MS: u32 = 900;

/// Where the TTL lies, in bytes from the frame's start.
const TTL_AT: usize = 22;

/// How much a backend that rests may acknowledge beyond what it had when it began to, in bytes.
const MOST_UNACKNOWLEDGED: u32 = 1 << 20;

/// What a packet is to its conn.
pub enum Tracked {
    /// It has none, or none any more.
    Nothing,
    /// Not the conn's, though it says so.
    Refused(DropReason),
    /// One of its packets, which does this to it once it is sent.
    Packet(Change),
}

/// What a packet does to its conn once it is sent.
#[derive(Clone, Copy)]
pub struct Change {
    state: ConnState,
    fins: Fins,
    seqs: Seqs,
    /// Whether the conn's timeout begins anew.
    refreshes: bool,
}

/// Confirm a packet's conn, and find out what the packet does to it.
pub fn track<F: Frame>(frame: &F, meta: &mut Meta, shared: &mut Shared, cx: Context) -> Tracked {
    let conn = shared.conns.confirm(meta.conn, meta.hash, &meta.tuple);
    meta.conn = conn;
    if conn.is_none() {
        return Tracked::Nothing;
    }
    if conn.is_wide() {
        return Tracked::Refused(DropReason::NoTreatment);
    }
    if !shared.conns.get(conn).comes_by(conn.direction(), meta.interface)
        && let Err(reason) = learn_port(meta, shared)
    {
        return Tracked::Refused(reason);
    }
    let from_backend = conn.is_from_backend();
    let line = shared.conns.get(conn);
    if meta.tuple.protocol != PROTO_TCP {
        // A UDP flow has no end that could be waited for: as long as its client sends, it would
        // stay on a backend that is gone.
        if !from_backend && cx.config.is_gone(line.backend_slot()) {
            shared.end_conn_of(meta, cx.config);
            return Tracked::Nothing;
        }
        let state = line.state().after_udp(from_backend);
        let (fins, seqs) = (line.fins(), *line.seqs());
        return Tracked::Packet(Change { state, fins, seqs, refreshes: true });
    }
    let Some(head) = FlowHead::of(frame.bytes()) else {
        return Tracked::Refused(DropReason::L4Truncated);
    };
    let opens = meta.tcp_flags.is_open() && !from_backend;
    // One that goes no further starts nothing over.
    let has_hops = frame.bytes().get(TTL_AT).is_some_and(|ttl| *ttl > 1);
    if opens && has_hops && starts_over(shared, cx, conn, head) {
        shared.end_conn_of(meta, cx.config);
        return Tracked::Nothing;
    }
    let mut change = after_segment(line, head, meta);
    // A SYN on a conn that is there is the backend's to judge: it keeps nothing alive.
    change.refreshes = !opens || line.state().is_half_open();
    Tracked::Packet(change)
}

/// What a TCP segment does to its conn.
fn after_segment(line: &Conn, head: &FlowHead, meta: &Meta) -> Change {
    let (direction, from_backend) = (meta.conn.direction(), meta.conn.is_from_backend());
    let sees_replies = line.is_full_nat();
    let (flags, seq, ack) = (meta.tcp_flags, head.seq(), head.ack());
    let (mut fins, mut seqs) = (line.fins(), *line.seqs());
    let old = line.state();
    let is_young = !sees_replies && old == ConnState::SynReceived;
    let acks = flags.contains(TcpFlags::ACK);
    let ack_fits = acks && !is_young && seqs.fits(direction.opposite(), ack);
    let rests = old == ConnState::Resting;
    let segment = Segment {
        flags,
        from_backend,
        seq_fits: !rests && seqs.fits(direction, seq),
        ack_fits,
        has_data: head.tcp_data_len() > 0,
        acks_more: acks && !seqs.is_first_ack(ack),
    };
    let agrees = old.agrees_to_start_over(fins, &segment);
    let state = old.after_tcp(&mut fins, &segment, sees_replies);
    if agrees {
        // The backend's word for both directions.
        seqs.set(Direction::FromBackend, seq);
        seqs.set(Direction::FromClient, ack.wrapping_sub(1));
    } else if state == ConnState::Resting {
        // What the backend, in TIME_WAIT, expects next: as far as it has acknowledged.
        let ahead = ack.wrapping_sub(seqs.client_next());
        if !rests || from_backend && acks && (1..MOST_UNACKNOWLEDGED).contains(&ahead) {
            seqs = Seqs::of_resting(ack);
        }
    } else if is_young {
        if meta.tcp_flags.is_open() && !old.has_first_ack(line.fins()) {
            // The client begins again, with another number, before anybody has answered.
            seqs.set(Direction::FromClient, seq);
        } else if state != ConnState::SynReceived {
            if acks {
                seqs.set(Direction::FromBackend, ack);
            }
        } else if state.has_first_ack(fins) && !old.has_first_ack(line.fins()) {
            seqs.set_first_ack(ack);
        }
    } else if !flags.intersects(TcpFlags::SYN.with(TcpFlags::RST)) {
        seqs.follow(direction, seq, ack_fits);
        if !sees_replies && acks && segment.seq_fits {
            seqs.follow(Direction::FromBackend, ack, true);
        }
    }
    Change { state, fins, seqs, refreshes: true }
}

/// A packet was sent: do to its conn what it does.
pub fn apply(meta: &Meta, change: Change, resting: &mut Resting, shared: &mut Shared, cx: Context) {
    *shared.conns.get_mut(meta.conn).seqs_mut() = change.seqs;
    let line = shared.conns.get(meta.conn);
    let now = if change.refreshes { cx.now } else { line.last_seen() };
    let (rested, rests) = (line.state() == ConnState::Resting, change.state == ConnState::Resting);
    shared.conns.touch(meta.conn, change.state, change.fins, now, &cx.config.timeouts);
    if rests != rested {
        shared.note_rest(meta.conn, rests, cx.config);
        if rests {
            resting.push(meta.conn, &shared.conns);
        }
    }
}

/// Whether a packet of a conn leaves its state as it is, whatever it is: any but the first and the
/// last ones. In TCP, its sequence number is to be looked at beside this.
#[inline(always)]
pub fn is_quiet(line: &Conn, meta: &Meta, config: &Compiled) -> bool {
    let direction = meta.conn.direction();
    if !line.comes_by(direction, meta.interface) {
        return false;
    }
    if line.is_plain(ConnState::Established) {
        return meta.tcp_flags.is_quiet();
    }
    let from_backend = meta.conn.is_from_backend();
    (line.is_plain(ConnState::UdpTwoWay) || line.is_plain(ConnState::UdpOneWay) && !from_backend)
        && (from_backend || !config.is_gone(line.backend_slot()))
}

/// A packet came in by another port than the conn's packets do. What leads back to its source says
/// whether it may: addresses behind one port are not believed behind another (RFC 3704, strict
/// reverse path forwarding). The port is the conn's from then on.
#[cold]
fn learn_port(meta: &Meta, shared: &mut Shared) -> Result<(), DropReason> {
    let conn = meta.conn;
    if shared.interfaces.get(meta.interface).checks_source {
        let source = FlowSource::of(shared.conns.get(conn), conn);
        let back = shared.next_hops.routes.lookup(source.0);
        if back.is_none_or(|hop| hop.interface != meta.interface) {
            return Err(DropReason::WrongPort);
        }
    }
    shared.conns.get_mut(conn).set_interface(conn.direction(), meta.interface);
    Ok(())
}

/// Who sends the packets of a direction, in host order.
struct FlowSource(u32);

impl FlowSource {
    fn of(line: &Conn, conn: ConnRef) -> Self {
        FlowSource(line.destination(conn.direction().opposite()))
    }
}

/// Whether a client's SYN makes its old conn a new one.
#[cold]
fn starts_over(shared: &Shared, cx: Context, conn: ConnRef, head: &FlowHead) -> bool {
    let Context { config, now } = cx;
    let line = shared.conns.get(conn);
    let (state, is_silent) = (line.state(), now.wrapping_sub(line.last_seen()) >= SILENT_MS);
    // Its backend never answered, or is done with it, and takes no new conns any more; or has a limit,
    // which only who is planned is held to.
    let rests = state == ConnState::Resting;
    if (rests || state == ConnState::SynSent)
        && config.service(&line.from_client()).is_none_or(|service| {
            !service.takes_new_conns(line.backend_slot()) || rests && service.has_limits
        })
    {
        return true;
    }
    // Its backend is gone: nobody will answer the SYN.
    if is_silent && config.is_gone(line.backend_slot()) {
        return true;
    }
    // A guessed RST with a SYN right behind it would take a conn from its ends. In full-NAT the SYN
    // goes to the conn's backend meanwhile, which agrees where the RST was right.
    if state == ConnState::Closed && line.is_full_nat() && !is_silent {
        return false;
    }
    // A late copy of the SYN that the old conn began with lies near its sequence numbers.
    state.may_reopen(line.fins(), line.is_full_nat())
        && !line.seqs().fits(Direction::FromClient, head.seq())
}
