//! Conns of one worker: one cache line each, found by either direction through the index.

use sluice_wire::checksum::Delta;

use super::conn_index::{ConnIndex, ConnRef};
use super::conn_seq::Seqs;
use super::conn_state::{ConnState, Fins, StateTimeouts};
use super::neighbour::NextHopRef;
use super::wheel::{Link, Links, Millis, NIL, Wheel, at_or_after};
use crate::flow::{FlowHasher, FlowKey, Tuple};
use crate::intrinsics::{prefetch_far, prefetch_index};
use crate::memory::{Pages, TableMemory};
use crate::network::MAX_PORTS;

/// What is fixed when a conn is made.
#[derive(Clone, Copy, Debug)]
pub struct NewConn {
    /// The flow from the client: client, VIP, both L4 ports, protocol.
    pub from_client: FlowKey,
    /// The flow from the backend (full-NAT): backend, local address, both L4 ports. `None` in DR.
    pub from_backend: Option<FlowKey>,
    /// The backend's address: where DR sends the packet.
    pub backend_address: u32,
    /// Slot of the service's timeouts.
    pub service_slot: u16,
    /// Slot of the backend's counters.
    pub backend_slot: u32,
    /// First state.
    pub state: ConnState,
    /// The port that the client's packet came in by.
    pub in_port: u16,
    /// Its sequence number, in TCP.
    pub seq: u32,
}

/// No port is known yet by which packets of a direction come in.
const NOT_YET: u8 = u8::MAX - 1;
/// No packets of this direction come in: the backend's in DR, which is what tells DR.
const NEVER: u8 = u8::MAX;
const _: () = assert!(MAX_PORTS < NOT_YET as usize, "a port's number fits into a conn");

/// A conn: one cache line. Arrays are by direction ([`ConnRef::direction`]).
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Conn {
    /// Addresses of packets from the client (client, VIP) and from the backend (backend, local
    /// address; 0 in DR), as they stand in packets.
    addresses: [u64; 2],
    /// Their L4 ports, likewise.
    ports: [u32; 2],
    last_seen: Millis,
    /// What the rewrite towards the backend does to the IPv4 header's checksum as it lies in the
    /// packet.
    ip_delta: Delta,
    /// What it does to the TCP or UDP checksum.
    l4_delta: Delta,
    /// Next hops of packets from the client, and from the backend.
    pub next_hops: [NextHopRef; 2],
    backend_slot: u32,
    link: Link,
    service_slot: u16,
    seqs: Seqs,
    /// IP protocol number; 0 when the conn is gone, which no packet's is.
    protocol: u8,
    phase: Phase,
    /// The ports that packets come in by, [`NOT_YET`] or [`NEVER`].
    in_ports: [u8; 2],
}

/// State and FINs of a conn, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase(u8);

impl Phase {
    const STATE: u8 = 0x0f;
    const FINS: u32 = 4;

    const fn new(state: ConnState, fins: Fins) -> Self {
        Phase(state as u8 | fins.bits() << Self::FINS)
    }

    /// Whether this is the state, and nothing is noted with it.
    #[inline(always)]
    fn is_plain(self, state: ConnState) -> bool {
        self.0 == state as u8
    }

    fn state(self) -> ConnState {
        ConnState::ALL[usize::from(self.0 & Self::STATE)]
    }

    fn fins(self) -> Fins {
        Fins::from_bits(self.0 >> Self::FINS)
    }
}

const _: () = assert!(size_of::<Conn>() == 64, "a conn is one cache line");

/// What becomes of a packet's addresses, L4 ports and checksums.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    /// Addresses and L4 ports that the packet leaves with.
    pub to: Tuple,
    /// What that does to the IPv4 header's checksum, as it lies in the packet.
    pub ip_delta: Delta,
    /// What that does to the TCP or UDP checksum, likewise.
    pub l4_delta: Delta,
}

impl Conn {
    const FREE: Conn = Conn {
        addresses: [0; 2],
        ports: [0; 2],
        last_seen: 0,
        ip_delta: Delta::NONE,
        l4_delta: Delta::NONE,
        next_hops: [NextHopRef::UNRESOLVED; 2],
        backend_slot: 0,
        link: Link::UNARMED,
        service_slot: 0,
        seqs: Seqs::UNKNOWN,
        protocol: 0,
        phase: Phase::new(ConnState::Closed, Fins::NONE),
        in_ports: [NOT_YET, NEVER],
    };

    /// The packets of one direction, as they arrive.
    #[inline(always)]
    fn tuple(&self, direction: usize) -> Tuple {
        Tuple {
            addresses: self.addresses[direction],
            ports: self.ports[direction],
            protocol: self.protocol,
        }
    }

    /// The flow from the client.
    pub fn from_client(&self) -> FlowKey {
        FlowKey::from(&self.tuple(0))
    }

    /// The flow from the backend, as it arrives at the local address.
    pub fn from_backend(&self) -> FlowKey {
        FlowKey::from(&self.tuple(1))
    }

    /// How packets of one direction are rewritten; `None` in DR. They leave as the reverse of the
    /// other direction: from its destination to its source.
    #[inline(always)]
    pub fn rewrite(&self, direction: usize) -> Option<Rewrite> {
        let to = self.tuple(direction ^ 1).reversed();
        let inverse = direction != 0;
        let ip_delta = self.ip_delta.inverse_if(inverse);
        let l4_delta = self.l4_delta.inverse_if(inverse);
        self.is_full_nat().then_some(Rewrite { to, ip_delta, l4_delta })
    }

    /// Whether packets are rewritten; in DR they are not, and replies never pass here.
    #[inline(always)]
    pub fn is_full_nat(&self) -> bool {
        self.in_ports[1] != NEVER
    }

    /// Where packets of one direction are sent: the backend's or the client's address.
    pub fn destination(&self, direction: usize) -> u32 {
        FlowKey::from(&self.tuple(direction ^ 1)).src
    }

    /// Slot of the backend's counters.
    #[inline(always)]
    pub fn backend_slot(&self) -> u32 {
        self.backend_slot
    }

    /// Slot of the service's counters and timeouts.
    #[inline(always)]
    pub fn service_slot(&self) -> u16 {
        self.service_slot
    }

    /// Where it stands.
    pub fn state(&self) -> ConnState {
        self.phase.state()
    }

    /// Whether it stands in this state, and nothing else is noted with it.
    #[inline(always)]
    pub fn is_plain(&self, state: ConnState) -> bool {
        self.phase.is_plain(state)
    }

    /// Which sides have sent FIN.
    pub fn fins(&self) -> Fins {
        self.phase.fins()
    }

    /// What is known of its sequence numbers.
    #[inline(always)]
    pub fn seqs(&self) -> &Seqs {
        &self.seqs
    }

    /// The same, to note more.
    pub fn seqs_mut(&mut self) -> &mut Seqs {
        &mut self.seqs
    }

    /// Whether packets of a direction are known to come in by a port.
    #[inline(always)]
    pub fn comes_by(&self, direction: usize, port: u16) -> bool {
        u16::from(self.in_ports[direction]) == port
    }

    /// Note that packets of a direction come in by a port.
    pub fn set_in_port(&mut self, direction: usize, port: u16) {
        self.in_ports[direction] = port as u8;
    }

    /// When its last packet was seen.
    pub fn last_seen(&self) -> Millis {
        self.last_seen
    }

    /// Whether the line is a conn's: it holds the last one's contents after its end.
    pub fn is_there(&self) -> bool {
        self.protocol != 0
    }

    /// IP protocol number.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether a packet is of this conn, which is there, and of the direction that `conn` says.
    #[inline(always)]
    pub fn is_flow(&self, tuple: &Tuple, conn: ConnRef) -> bool {
        self.tuple(conn.direction()) == *tuple
    }

    /// Note the time of a packet that changes no state.
    #[inline(always)]
    pub fn see(&mut self, now: Millis) {
        self.last_seen = now;
    }
}

/// Why a conn could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// All conns are in use, or the index has no room near this flow's place.
    Full,
    /// The return flow belongs to another conn: this local port is taken towards this backend.
    ReturnFlowTaken,
}

/// Conns that are removed together when they expire.
const EXPIRE_BATCH: usize = 16;

struct Lines(TableMemory<Conn>);

impl Links for Lines {
    #[inline(always)]
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize].link
    }

    #[inline(always)]
    fn prefetch(&self, index: u32) {
        prefetch_index(&self.0, index as usize);
    }
}

/// The conns of one worker.
pub struct ConnTable {
    index: ConnIndex,
    lines: Lines,
    hasher: FlowHasher,
    wheel: Wheel,
    /// Free conns, the last freed first: their lines are the likeliest to be in the cache.
    free: Vec<u32>,
    /// Conns freed while a burst is under way: packets of it may still refer to them, so they are
    /// not used again before [`end_burst`](Self::end_burst).
    freed_in_burst: Vec<u32>,
    walk: Walk,
}

impl ConnTable {
    /// Where everything lies that is written while packets are forwarded.
    #[cfg(test)]
    pub(crate) fn written(&self) -> Vec<std::ops::Range<usize>> {
        use crate::testkit::range_of;
        vec![
            range_of(&self.lines.0),
            self.index.written(),
            self.wheel.written(),
            range_of(&self.free),
            self.freed_in_burst.as_ptr().addr()
                ..self.freed_in_burst.as_ptr().addr() + 4 * self.freed_in_burst.capacity(),
        ]
    }

    /// A table of `capacity` conns (at most 2^31 - 2). All memory is taken and touched here.
    pub fn new(capacity: u32, hasher: FlowHasher, now: Millis, pages: Pages) -> Self {
        assert!(capacity < NIL >> 1, "a conn's number is 31 bits");
        ConnTable {
            index: ConnIndex::new(capacity as usize * 2, pages),
            lines: Lines(TableMemory::filled(capacity as usize, &Conn::FREE, pages)),
            hasher,
            wheel: Wheel::new(now),
            free: (0..capacity).rev().collect(),
            freed_in_burst: Vec::with_capacity(1_024),
            walk: Walk { next: capacity as usize },
        }
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        let free = (self.free.capacity() + self.freed_in_burst.capacity()) * size_of::<u32>();
        self.index.bytes() + size_of_val(&*self.lines.0) + self.wheel.bytes() + free
    }

    /// Of it, the index, in bytes.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Conns that there can be.
    pub fn capacity(&self) -> usize {
        self.lines.0.len()
    }

    /// Conns that there are.
    pub fn len(&self) -> usize {
        self.capacity() - self.free.len() - self.freed_in_burst.len()
    }

    /// Whether there is no conn.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Start loading what [`candidate`](Self::candidate) will read.
    #[inline(always)]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The likely conn of a flow, its cache line on the way: to be confirmed by
    /// [`confirm`](Self::confirm).
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> ConnRef {
        let candidate = self.index.candidate(hash);
        prefetch_far(&self.lines.0, candidate.conn());
        candidate
    }

    /// The conn of a flow, given its candidate: the candidate itself in all but one of thousands
    /// of cases, where tags collide.
    #[inline(always)]
    pub fn confirm(&self, candidate: ConnRef, hash: u64, tuple: &Tuple) -> ConnRef {
        match self.lines.0.get(candidate.conn()) {
            Some(line) if line.is_flow(tuple, candidate) => candidate,
            Some(_) => self.find(hash, tuple),
            None => ConnRef::NONE,
        }
    }

    /// The conn of a flow.
    #[inline(never)]
    pub fn find(&self, hash: u64, tuple: &Tuple) -> ConnRef {
        self.index.find(hash, |conn| self.lines.0[conn.conn()].is_flow(tuple, conn))
    }

    /// The conn of a flow that has not been hashed.
    pub fn find_key(&self, key: &FlowKey) -> ConnRef {
        let tuple = Tuple::from(key);
        self.find(self.hasher.hash(&tuple), &tuple)
    }

    /// A conn's line.
    #[inline(always)]
    pub fn get(&self, conn: ConnRef) -> &Conn {
        &self.lines.0[conn.conn()]
    }

    /// A conn's line, to cache next hops in it.
    #[inline(always)]
    pub fn get_mut(&mut self, conn: ConnRef) -> &mut Conn {
        &mut self.lines.0[conn.conn()]
    }

    /// All lines, by number, to note packets that change no state.
    #[inline(always)]
    pub fn lines_mut(&mut self) -> &mut [Conn] {
        &mut self.lines.0
    }

    /// A packet of the conn was seen: note the time, and the state that it leads to.
    #[inline(always)]
    pub fn touch(
        &mut self,
        conn: ConnRef,
        state: ConnState,
        fins: Fins,
        now: Millis,
        timeouts: &[StateTimeouts],
    ) {
        let line = &mut self.lines.0[conn.conn()];
        line.last_seen = now;
        let phase = Phase::new(state, fins);
        if line.phase == phase {
            return;
        }
        let of = |state: ConnState| timeouts[line.service_slot as usize][state as usize];
        let sooner = of(state) < of(line.state());
        let deadline = now.wrapping_add(of(state));
        line.phase = phase;
        if sooner {
            self.wheel.arm_sooner(&mut self.lines, conn.conn() as u32, deadline);
        }
    }

    /// Conns that can still be made.
    #[inline(always)]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Start loading what [`insert`](Self::insert) will touch for this conn, when so many others
    /// are inserted before it.
    #[inline(always)]
    pub fn prefetch_new(&self, new: &NewConn, before: usize) {
        if let Some(back) = &new.from_backend {
            self.index.prefetch(self.hasher.hash(&Tuple::from(back)));
        }
        if let Some(number) = self.free.iter().nth_back(before) {
            prefetch_far(&self.lines.0, *number as usize);
        }
    }

    /// Make a conn, both directions at once.
    ///
    /// # Errors
    /// Nothing is changed when there is no room, or when the return flow is taken.
    pub fn insert(
        &mut self,
        new: &NewConn,
        hash: u64,
        now: Millis,
        timeouts: &[StateTimeouts],
    ) -> Result<ConnRef, InsertError> {
        let Some(&number) = self.free.last() else { return Err(InsertError::Full) };
        let conn = ConnRef::from_client(number);
        if let Some(back) = &new.from_backend {
            let back = Tuple::from(back);
            let back_hash = self.hasher.hash(&back);
            if !self.find(back_hash, &back).is_none() {
                return Err(InsertError::ReturnFlowTaken);
            }
            let back_ref = ConnRef::from_backend(number);
            if !self.index.insert(back_hash, back_ref) {
                return Err(InsertError::Full);
            }
            if !self.index.insert(hash, conn) {
                self.index.remove(back_hash, back_ref);
                return Err(InsertError::Full);
            }
        } else if !self.index.insert(hash, conn) {
            return Err(InsertError::Full);
        }
        self.free.pop();
        self.lines.0[number as usize] = new.line(now);
        let timeout = timeouts[new.service_slot as usize][new.state as usize];
        self.wheel.arm(&mut self.lines, number, now.wrapping_add(timeout));
        Ok(conn)
    }

    /// Remove a conn. Its line keeps its contents until the burst ends.
    pub fn remove(&mut self, conn: ConnRef) {
        let number = conn.conn() as u32;
        assert!(self.lines.0[number as usize].protocol != 0, "a conn is removed once");
        let hashes = self.hashes(number);
        self.wheel.disarm(&mut self.lines, number);
        self.unlink(number, hashes);
    }

    /// The hashes of a conn's flows; the second one counts in full-NAT only.
    fn hashes(&self, number: u32) -> [u64; 2] {
        let line = &self.lines.0[number as usize];
        [0, 1].map(|direction| self.hasher.hash(&line.tuple(direction)))
    }

    /// Take a conn that is not in the wheel out of the index, and free it.
    fn unlink(&mut self, number: u32, hashes: [u64; 2]) {
        let line = &mut self.lines.0[number as usize];
        line.protocol = 0;
        let directions = if line.is_full_nat() { 2 } else { 1 };
        let refs = [ConnRef::from_client(number), ConnRef::from_backend(number)];
        for (hash, conn) in hashes.into_iter().zip(refs).take(directions) {
            let known = self.index.remove(hash, conn);
            debug_assert!(known, "every direction of a conn is in the index");
        }
        self.freed_in_burst.push(number);
    }

    /// No packet refers to a removed conn any more: their numbers may be used again.
    #[inline(always)]
    pub fn end_burst(&mut self) {
        if !self.freed_in_burst.is_empty() {
            self.free.append(&mut self.freed_in_burst);
        }
    }

    /// For how long, in ms, conns have waited to be looked at by [`expire`](Self::expire); `None`
    /// when none does.
    #[inline]
    pub fn expiry_behind(&self, now: Millis) -> Option<Millis> {
        self.wheel.behind(now)
    }

    /// Remove conns that were idle for their timeout, looking at no more than `most` conns, and
    /// tell `gone` of each. Call between bursts.
    pub fn expire(
        &mut self,
        now: Millis,
        timeouts: &[StateTimeouts],
        most: usize,
        mut gone: impl FnMut(&Conn),
    ) {
        let mut left = most;
        while left > 0 {
            // A batch's lines in the index are asked for before the first of them is needed.
            let mut ended = [(0, [0; 2]); EXPIRE_BATCH];
            let mut count = 0;
            let batch = left.min(EXPIRE_BATCH);
            left -= batch;
            for _ in 0..batch {
                let Some(number) = self.wheel.pop_due(&mut self.lines, now) else {
                    left = 0;
                    break;
                };
                let line = &self.lines.0[number as usize];
                let timeout = timeouts[line.service_slot as usize][line.state() as usize];
                let deadline = line.last_seen.wrapping_add(timeout);
                if at_or_after(now, deadline) {
                    let hashes = self.hashes(number);
                    self.index.prefetch(hashes[0]);
                    self.index.prefetch(hashes[1]);
                    ended[count] = (number, hashes);
                    count += 1;
                } else {
                    self.wheel.arm(&mut self.lines, number, deadline);
                }
            }
            for (number, hashes) in &ended[..count] {
                gone(&self.lines.0[*number as usize]);
                self.unlink(*number, *hashes);
            }
        }
        self.end_burst();
    }
}

/// A walk over all lines after timeouts were shortened: each conn's new deadline may come before the
/// one that it stands in the wheel with.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    /// The line that is next; the walk is over at the end of the table.
    next: usize,
}

impl ConnTable {
    /// Timeouts were shortened: those of conns that there are count from now on, as soon as
    /// [`rearm`](Self::rearm) has come by.
    pub fn begin_rearming(&mut self) {
        self.walk.next = 0;
    }

    /// Whether a walk is under way.
    #[inline(always)]
    pub fn is_rearming(&self) -> bool {
        self.walk.next < self.lines.0.len()
    }

    /// Go on with the walk, over at most `most` lines: move the conns that are due sooner than they
    /// are armed for.
    pub fn rearm(&mut self, timeouts: &[StateTimeouts], most: usize) {
        let end = (self.walk.next + most).min(self.lines.0.len());
        for number in self.walk.next..end {
            let line = &self.lines.0[number];
            if line.is_there() {
                let timeout = timeouts[line.service_slot as usize][line.state() as usize];
                let deadline = line.last_seen.wrapping_add(timeout);
                self.wheel.arm_sooner(&mut self.lines, number as u32, deadline);
            }
        }
        self.walk.next = end;
    }
}

impl NewConn {
    fn line(&self, now: Millis) -> Conn {
        let client = &self.from_client;
        let from_client = Tuple::from(client);
        let mut line = Conn {
            addresses: [from_client.addresses, (u64::from(self.backend_address) << 32).to_be()],
            ports: [from_client.ports, 0],
            last_seen: now,
            backend_slot: self.backend_slot,
            service_slot: self.service_slot,
            protocol: client.protocol,
            phase: Phase::new(self.state, Fins::NONE),
            in_ports: [self.in_port as u8, NEVER],
            ..Conn::FREE
        };
        line.seqs.set(0, self.seq);
        if let Some(back) = &self.from_backend {
            let from_backend = Tuple::from(back);
            line.in_ports[1] = NOT_YET;
            line.addresses[1] = from_backend.addresses;
            line.ports[1] = from_backend.ports;
            let ip_delta = Delta::between_u32(client.src, back.dst)
                .and(Delta::between_u32(client.dst, back.src));
            let l4_delta = ip_delta
                .and(Delta::between_u16(client.src_port, back.dst_port))
                .and(Delta::between_u16(client.dst_port, back.src_port));
            (line.ip_delta, line.l4_delta) = (ip_delta.in_packets(), l4_delta.in_packets());
        }
        line
    }
}
