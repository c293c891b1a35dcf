//! What every conn's line ends with, whatever else is in it: state, timer, whose it is.
//!
//! Its last eight bytes say whether the line is a conn's at all, so that one store decides that.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::seq::Seqs;
use super::state::{ConnState, Fins};
use super::wheel::Link;
use crate::ids::{BackendSlot, Direction, InterfaceId, ServiceSlot};
use crate::network::MAX_PORTS;
use crate::table::neighbour::NextHopRef;
use crate::time::Millis;
use crate::treatment::Treatment;

/// No port is known yet by which packets of a direction come in. Above it are the treatments of conns
/// whose backends' packets never do.
const NOT_YET: u8 = Treatment::FIRST_UNHEARD - 1;
const _: () = assert!(MAX_PORTS < NOT_YET as usize, "a port's number fits into a conn");

/// The end of a line. Arrays are by [`Direction`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    pub(super) last_seen: Millis,
    /// Next hops of packets from the client, and from the backend.
    pub next_hops: [NextHopRef; 2],
    backend_slot: BackendSlot,
    pub(super) link: Link,
    pub(super) service_slot: ServiceSlot,
    seqs: Seqs,
    /// IP protocol number; 0 when the conn is gone, which no packet's is.
    protocol: u8,
    pub(super) phase: Phase,
    /// The ports that packets come in by, or [`NOT_YET`]; or how the client's leave.
    interfaces: [u8; 2],
}

/// Length of a head, in bytes.
pub(super) const HEAD_BYTES: usize = 36;
const _: () = assert!(size_of::<Head>() == HEAD_BYTES && align_of::<Head>() == 4);
const _: () = assert!(std::mem::offset_of!(Head, seqs) == HEAD_BYTES - 8);
const _: () = assert!(std::mem::offset_of!(Head, protocol) == HEAD_BYTES - 4);

/// What a head is made of.
pub(super) struct NewHead {
    pub backend_slot: BackendSlot,
    pub service_slot: ServiceSlot,
    pub protocol: u8,
    pub state: ConnState,
    /// The port that the client's packet came in by.
    pub interface: InterfaceId,
    /// How packets leave.
    pub treatment: Treatment,
    /// The client's sequence number, in TCP.
    pub seq: u32,
}

impl Head {
    /// Of no conn.
    pub(super) const FREE: Head = Head {
        last_seen: 0,
        next_hops: [NextHopRef::UNRESOLVED; 2],
        backend_slot: BackendSlot(0),
        link: Link::UNARMED,
        service_slot: ServiceSlot(0),
        seqs: Seqs::UNKNOWN,
        protocol: 0,
        phase: Phase::new(ConnState::Closed, Fins::NONE),
        interfaces: [NOT_YET; 2],
    };

    /// Of a conn that begins.
    #[inline(always)]
    pub(super) fn new(new: &NewHead, now: Millis) -> Self {
        let mut seqs = Seqs::UNKNOWN;
        seqs.set(Direction::FromClient, new.seq);
        Head {
            last_seen: now,
            backend_slot: new.backend_slot,
            service_slot: new.service_slot,
            seqs,
            protocol: new.protocol,
            phase: Phase::new(new.state, Fins::NONE),
            interfaces: [new.interface.0 as u8, (new.treatment as u8).max(NOT_YET)],
            ..Head::FREE
        }
    }

    /// The conn ends: the line is nobody's from now on, and keeps its other contents.
    pub(super) fn end(&mut self) {
        self.protocol = 0;
    }

    /// Whether the backend's packets pass here: not in DR.
    #[inline(always)]
    pub fn sees_replies(&self) -> bool {
        self.interfaces[Direction::FromBackend.index()] <= NOT_YET
    }

    /// How packets of a plain conn leave.
    #[inline(always)]
    pub(super) fn noted_treatment(&self) -> Treatment {
        Treatment::of_note(self.interfaces[Direction::FromBackend.index()])
    }

    /// Slot of the backend's counters.
    #[inline(always)]
    pub fn backend_slot(&self) -> BackendSlot {
        self.backend_slot
    }

    /// Slot of the service's counters and timeouts.
    #[inline(always)]
    pub fn service_slot(&self) -> ServiceSlot {
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
    pub fn comes_by(&self, direction: Direction, interface: InterfaceId) -> bool {
        u16::from(self.interfaces[direction.index()]) == interface.0
    }

    /// Note that packets of a direction come in by a port.
    pub fn set_interface(&mut self, direction: Direction, interface: InterfaceId) {
        self.interfaces[direction.index()] = interface.0 as u8;
    }

    /// When its last packet was seen.
    pub fn last_seen(&self) -> Millis {
        self.last_seen
    }

    /// Whether the line is a conn's: it holds the last one's contents after its end.
    #[inline(always)]
    pub fn is_there(&self) -> bool {
        self.protocol != 0
    }

    /// IP protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Note the time of a packet that changes no state.
    #[inline(always)]
    pub fn see(&mut self, now: Millis) {
        self.last_seen = now;
    }
}

/// State and FINs of a conn, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(super) struct Phase(u8);

impl Phase {
    const STATE: u8 = 0x0f;
    const FINS: u32 = 4;

    pub(super) const fn new(state: ConnState, fins: Fins) -> Self {
        Phase(state as u8 | fins.bits() << Self::FINS)
    }

    /// Whether this is the state, and nothing is noted with it.
    #[inline(always)]
    fn is_plain(self, state: ConnState) -> bool {
        self.0 == state as u8
    }

    fn state(self) -> ConnState {
        ConnState::from_bits(self.0 & Self::STATE)
    }

    fn fins(self) -> Fins {
        Fins::from_bits(self.0 >> Self::FINS)
    }
}
