//! The states of a conn, and what each packet does to them.
//!
//! TCP after RFC 9293, section 3.3.2, as a middlebox sees it. A state chooses how long an idle conn is
//! kept and whether a new SYN may start it over. Only a segment that could be of this connection
//! changes it (RFC 5961), and where nothing but the ends themselves can know, theirs is the word.

use sluice_api::Timeouts;
use sluice_wire::tcp::TcpFlags;

/// State of a conn; indexes its service's timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnState {
    /// TCP: the client's SYN was seen.
    SynSent,
    /// TCP: the backend's SYN-ACK was seen; in DR, which sees no replies, the client's SYN, and not
    /// yet that somebody answers it.
    SynReceived,
    /// TCP: the handshake is complete.
    Established,
    /// TCP: one side has sent FIN.
    FinWait,
    /// TCP: both sides have sent FIN.
    LastAck,
    /// TCP: both sides have closed, the client first.
    TimeWait,
    /// TCP: one side has sent RST.
    Closed,
    /// UDP: only the client has sent.
    UdpOneWay,
    /// UDP: the backend has answered.
    UdpTwoWay,
    /// TCP: both sides have closed, the backend first: it holds the ports in TIME_WAIT, and the conn
    /// is there only to let them rest.
    Resting,
}

/// How many states there are.
pub const STATES: usize = 10;

/// How long a conn that its client closed first stays in `TimeWait`, in ms, at the most: for what
/// may be sent again. Its backend is done with the ports.
const CLIENT_FIRST_MS: u32 = 10_000;

/// Idle timeout of each state, in ms.
pub type StateTimeouts = [u32; STATES];

/// A service's timeouts, in the order of [`ConnState`].
pub fn state_timeouts(t: &Timeouts) -> StateTimeouts {
    [
        t.tcp_syn_sent_ms,
        t.tcp_syn_received_ms,
        t.tcp_established_ms,
        t.tcp_fin_wait_ms,
        t.tcp_last_ack_ms,
        t.tcp_time_wait_ms.min(CLIENT_FIRST_MS),
        t.tcp_closed_ms,
        t.udp_one_way_ms,
        t.udp_two_way_ms,
        t.tcp_time_wait_ms,
    ]
}

/// Which sides have sent FIN, and what else a state needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fins(u8);

impl Fins {
    /// Neither side.
    pub const NONE: Fins = Fins(0);
    const CLIENT: u8 = 1;
    const BACKEND: u8 = 2;
    /// The last FIN came from the backend; in `Closed`, the RST did.
    const LAST_FROM_BACKEND: u8 = 4;
    /// A SYN has passed to the backend, which may agree to start over. In `SynReceived` of DR: the
    /// client has acknowledged once.
    const ASKED: u8 = 8;

    /// Its four bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From its four bits.
    pub const fn from_bits(bits: u8) -> Self {
        Fins(bits & 15)
    }

    fn with(self, from_backend: bool) -> Self {
        let side = if from_backend { Self::BACKEND } else { Self::CLIENT };
        // One that is sent again is not a later one.
        if self.0 & side != 0 {
            return self;
        }
        Fins(self.0 & 3 | side).with_last(from_backend)
    }

    fn with_last(self, from_backend: bool) -> Self {
        Fins(self.0 & 3 | if from_backend { Self::LAST_FROM_BACKEND } else { 0 })
    }

    fn both(self) -> bool {
        self.0 & 3 == 3
    }

    fn last_is_from_backend(self) -> bool {
        self.0 & Self::LAST_FROM_BACKEND != 0
    }

    fn was_asked(self) -> bool {
        self.0 & Self::ASKED != 0
    }
}

/// A TCP segment of a conn, as far as its state goes by it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Its flags.
    pub flags: TcpFlags,
    /// Whose it is.
    pub from_backend: bool,
    /// Whether its sequence number could be right ([`Seqs`](super::seq::Seqs)).
    pub seq_fits: bool,
    /// Whether it acknowledges something that could be right.
    pub ack_fits: bool,
    /// Whether it carries data.
    pub has_data: bool,
    /// DR, in the handshake: whether it acknowledges something else than the client's first
    /// acknowledgment did.
    pub acks_more: bool,
}

impl Segment {
    /// Whether it is one of those that go to and fro once a connection is there, and not forged by
    /// somebody who does not see the connection.
    fn is_traffic(&self) -> bool {
        self.flags.contains(TcpFlags::ACK)
            && !self.flags.contains(TcpFlags::SYN)
            && self.seq_fits
            && self.ack_fits
    }

    fn is_syn_ack_of_backend(&self) -> bool {
        self.from_backend && self.flags.contains(TcpFlags::SYN.with(TcpFlags::ACK))
    }
}

impl ConnState {
    /// All states, in order.
    pub const ALL: [ConnState; STATES] = [
        ConnState::SynSent,
        ConnState::SynReceived,
        ConnState::Established,
        ConnState::FinWait,
        ConnState::LastAck,
        ConnState::TimeWait,
        ConnState::Closed,
        ConnState::UdpOneWay,
        ConnState::UdpTwoWay,
        ConnState::Resting,
    ];

    /// The one that four bits stand for; of bits that no state has, the one that ends soonest.
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        const BY_BITS: [ConnState; 16] = {
            let mut all = [ConnState::Closed; 16];
            let mut state = 0;
            while state < STATES {
                all[state] = ConnState::ALL[state];
                state += 1;
            }
            all
        };
        BY_BITS[bits as usize & 15]
    }

    /// State of a conn that a first TCP packet (a SYN) has made.
    pub const fn first_tcp(sees_replies: bool) -> Self {
        if sees_replies { ConnState::SynSent } else { ConnState::SynReceived }
    }

    /// Whether it is TCP and its handshake is not complete.
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived)
    }

    /// Whether a client's SYN with a sequence number of its own starts the conn over without the
    /// backend's word: both sides are done with it; in DR, where the backend is not heard, the
    /// client is.
    pub fn may_reopen(self, fins: Fins, sees_replies: bool) -> bool {
        match self {
            Self::TimeWait | Self::Closed => true,
            Self::FinWait => !sees_replies && fins.0 & Fins::CLIENT != 0,
            _ => false,
        }
    }

    /// Whether a segment makes the conn another connection of the same ports: the backend answers
    /// a SYN that Sluice has let pass by with a SYN-ACK whose sequence number is a new one.
    pub fn agrees_to_start_over(self, fins: Fins, segment: &Segment) -> bool {
        segment.is_syn_ack_of_backend()
            && match self {
                Self::SynSent => true,
                Self::UdpOneWay | Self::UdpTwoWay => false,
                _ => fins.was_asked() && !segment.seq_fits,
            }
    }

    /// State after a TCP segment that was forwarded.
    #[inline]
    pub fn after_tcp(self, fins: &mut Fins, segment: &Segment, sees_replies: bool) -> Self {
        use ConnState::*;
        if self.agrees_to_start_over(*fins, segment) {
            *fins = Fins::NONE;
            return SynReceived;
        }
        let Segment { flags, from_backend, .. } = *segment;
        if sees_replies && self != SynSent {
            if !from_backend && flags.is_open() {
                *fins = Fins(fins.0 | Fins::ASKED);
                return self;
            }
            // The backend went on as before: it did not agree.
            if from_backend && segment.is_traffic() {
                *fins = Fins(fins.0 & !Fins::ASKED);
            }
        }
        if flags.contains(TcpFlags::RST) {
            // RFC 9293, 3.10.7.3: a refusal has no sequence number, but acknowledges the SYN.
            let refuses = self == SynSent && from_backend && segment.ack_fits;
            if !segment.seq_fits && !refuses {
                return self;
            }
            *fins = fins.with_last(from_backend);
            return Closed;
        }
        if flags.contains(TcpFlags::FIN) && segment.seq_fits && self.can_finish() {
            *fins = if self.is_half_open() { Fins::NONE } else { *fins }.with(from_backend);
            return if fins.both() { LastAck } else { FinWait };
        }
        match self {
            SynReceived if !sees_replies => self.after_handshake_of_dr(fins, segment),
            SynReceived if !from_backend && segment.is_traffic() => Established,
            LastAck if segment.is_traffic() && fins.last_is_from_backend() != from_backend => {
                if from_backend {
                    Resting
                } else {
                    TimeWait
                }
            }
            // Who has sent a RST sends no more: it was not him, or it was not believed.
            Closed
                if segment.is_traffic()
                    && !flags.contains(TcpFlags::FIN)
                    && fins.last_is_from_backend() == from_backend =>
            {
                let sides = Fins(fins.0 & 3);
                *fins = sides;
                match (sides.both(), sides == Fins::NONE) {
                    (true, _) => LastAck,
                    (false, true) => Established,
                    (false, false) => FinWait,
                }
            }
            _ => self,
        }
    }

    const fn can_finish(self) -> bool {
        matches!(self, Self::SynReceived | Self::Established | Self::FinWait | Self::LastAck)
    }

    /// In DR only the client is heard: that it sends data, or acknowledges more than it did with its
    /// first acknowledgment, shows that somebody answers.
    fn after_handshake_of_dr(self, fins: &mut Fins, segment: &Segment) -> Self {
        let acks = segment.flags.contains(TcpFlags::ACK) && !segment.flags.contains(TcpFlags::SYN);
        if !acks || !segment.seq_fits {
            return self;
        }
        if segment.has_data || fins.was_asked() && segment.acks_more {
            *fins = Fins::NONE;
            return Self::Established;
        }
        *fins = Fins(Fins::ASKED);
        self
    }

    /// In a DR conn's handshake: whether the client has acknowledged once.
    pub fn has_first_ack(self, fins: Fins) -> bool {
        self == Self::SynReceived && fins.was_asked()
    }

    /// State after a UDP packet.
    #[inline]
    pub const fn after_udp(self, from_backend: bool) -> Self {
        if from_backend { ConnState::UdpTwoWay } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::ConnState::*;
    use super::*;

    const CLIENT: bool = false;
    const BACKEND: bool = true;

    /// A segment of which everything could be right.
    fn segment(from_backend: bool, flags: TcpFlags) -> Segment {
        let (seq_fits, ack_fits) = (true, flags.contains(TcpFlags::ACK));
        Segment { flags, from_backend, seq_fits, ack_fits, has_data: false, acks_more: false }
    }

    /// A segment of somebody who does not see the connection.
    fn forged(from_backend: bool, flags: TcpFlags) -> Segment {
        Segment { seq_fits: false, ack_fits: false, ..segment(from_backend, flags) }
    }

    fn walk_by(start: ConnState, sees_replies: bool, segments: &[Segment]) -> Vec<ConnState> {
        let (mut state, mut fins) = (start, Fins::default());
        segments
            .iter()
            .map(|segment| {
                state = state.after_tcp(&mut fins, segment, sees_replies);
                state
            })
            .collect()
    }

    fn walk(start: ConnState, packets: &[(bool, TcpFlags)]) -> Vec<ConnState> {
        let segments: Vec<_> = packets.iter().map(|(side, flags)| segment(*side, *flags)).collect();
        walk_by(start, true, &segments)
    }

    fn flags(names: &str) -> TcpFlags {
        names.chars().fold(TcpFlags::NONE, |all, c| {
            all.with(match c {
                'S' => TcpFlags::SYN,
                'A' => TcpFlags::ACK,
                'F' => TcpFlags::FIN,
                'R' => TcpFlags::RST,
                _ => unreachable!(),
            })
        })
    }

    #[test]
    fn handshake_and_close_by_the_client() {
        let packets = [
            (BACKEND, flags("SA")),
            (CLIENT, flags("A")),
            (CLIENT, flags("FA")),
            (BACKEND, flags("A")),
            (BACKEND, flags("FA")),
            (BACKEND, flags("A")), // a retransmitted ACK of the first FIN acknowledges nothing new
            (CLIENT, flags("A")),
        ];
        let expected = [SynReceived, Established, FinWait, FinWait, LastAck, LastAck, TimeWait];
        assert_eq!(walk(SynSent, &packets), expected);
    }

    #[test]
    fn close_by_the_backend_and_simultaneous_close() {
        let by_backend = [(BACKEND, flags("FA")), (CLIENT, flags("FA")), (BACKEND, flags("A"))];
        assert_eq!(walk(Established, &by_backend), [FinWait, LastAck, Resting]);
        let both = [(CLIENT, flags("FA")), (BACKEND, flags("FA")), (CLIENT, flags("A"))];
        assert_eq!(walk(Established, &both), [FinWait, LastAck, TimeWait]);
    }

    #[test]
    fn reset_by_either_side_closes_from_any_state_and_stays() {
        for start in [SynSent, SynReceived, Established, FinWait, LastAck, TimeWait] {
            for side in [CLIENT, BACKEND] {
                let packets = [(side, flags("R")), (!side, flags("A")), (side, flags("FA"))];
                assert_eq!(walk(start, &packets), [Closed, Closed, Closed]);
            }
        }
    }

    #[test]
    fn dr_is_young_until_the_client_sends_data_or_acknowledges_some() {
        let start = ConnState::first_tcp(false);
        let ack = segment(CLIENT, flags("A"));
        let (data, more) = (Segment { has_data: true, ..ack }, Segment { acks_more: true, ..ack });
        let fin = segment(CLIENT, flags("FA"));
        assert_eq!(walk_by(start, false, &[ack, ack, ack]), [SynReceived; 3], "nobody answers");
        assert_eq!(walk_by(start, false, &[ack, data]), [SynReceived, Established]);
        assert_eq!(walk_by(start, false, &[ack, more]), [SynReceived, Established]);
        assert_eq!(walk_by(start, false, &[data, fin, ack]), [Established, FinWait, FinWait]);
        let forged = Segment { has_data: true, ..forged(CLIENT, flags("A")) };
        assert_eq!(walk_by(start, false, &[ack, forged]), [SynReceived; 2]);
    }

    #[test]
    fn a_lone_syn_ack_from_the_client_changes_nothing() {
        assert_eq!(walk(SynSent, &[(CLIENT, flags("SA"))]), [SynSent]);
        assert_eq!(
            walk(SynSent, &[(CLIENT, flags("S")), (CLIENT, flags("A"))]),
            [SynSent, SynSent]
        );
    }

    #[test]
    fn who_does_not_see_the_connection_changes_nothing() {
        for start in ConnState::ALL.into_iter().take(7) {
            for side in [CLIENT, BACKEND] {
                for names in ["R", "RA", "F", "FA", "S", "A", "SA"] {
                    // A SYN-ACK of the backend is its word for a SYN that has passed.
                    let is_answer = side == BACKEND && names == "SA";
                    if is_answer && start != Established {
                        continue;
                    }
                    let walked = walk_by(start, true, &[forged(side, flags(names))]);
                    assert_eq!(walked, [start], "{start:?} {side} {names}");
                }
            }
        }
    }

    #[test]
    fn a_backend_refuses_a_syn_by_a_reset_without_a_sequence_number() {
        let reset = Segment { ack_fits: true, ..forged(BACKEND, flags("RA")) };
        assert_eq!(walk_by(SynSent, true, &[reset]), [Closed]);
        assert_eq!(walk_by(Established, true, &[reset]), [Established]);
    }

    #[test]
    fn a_syn_on_a_live_conn_is_the_backends_to_judge() {
        let (syn, answer) = (forged(CLIENT, flags("S")), forged(BACKEND, flags("SA")));
        assert_eq!(walk_by(Established, true, &[syn, answer]), [Established, SynReceived]);
        assert_eq!(walk_by(Established, true, &[answer]), [Established], "nobody had asked");
        // The backend goes on: what comes later is no answer.
        let challenge = segment(BACKEND, flags("A"));
        assert_eq!(walk_by(Established, true, &[syn, challenge, answer]), [Established; 3]);
        let late_copy = segment(BACKEND, flags("SA"));
        assert_eq!(walk_by(Established, true, &[syn, late_copy]), [Established; 2]);
        let mut fins = Fins::NONE;
        for state in ConnState::ALL.into_iter().take(7) {
            let expected = matches!(state, TimeWait | Closed);
            assert_eq!(state.may_reopen(fins, true), expected, "{state:?}");
            assert_eq!(state.may_reopen(fins, false), expected, "{state:?}");
        }
        // In DR the client's own FIN tells that it is done.
        Established.after_tcp(&mut fins, &segment(CLIENT, flags("FA")), false);
        assert!(FinWait.may_reopen(fins, false) && !FinWait.may_reopen(fins, true));
    }

    #[test]
    fn a_resting_conn_has_the_backends_word_only() {
        let (syn, answer) = (forged(CLIENT, flags("S")), forged(BACKEND, flags("SA")));
        for names in ["R", "FA", "A", "SA"] {
            let both = [forged(CLIENT, flags(names)), forged(BACKEND, flags(names))];
            assert_eq!(walk_by(Resting, true, &both), [Resting; 2], "{names}");
        }
        assert_eq!(walk_by(Resting, true, &[syn, answer]), [Resting, SynReceived]);
        assert!(!Resting.may_reopen(Fins::NONE, true));
    }

    #[test]
    fn a_syn_ack_that_nobody_asked_for_begins_nothing() {
        let answer = forged(BACKEND, flags("SA"));
        for start in [SynReceived, Established, FinWait, LastAck, TimeWait, Closed] {
            assert_eq!(walk_by(start, true, &[answer]), [start]);
            let asked = walk_by(start, true, &[forged(CLIENT, flags("S")), answer]);
            assert_eq!(asked, [start, SynReceived]);
        }
    }

    #[test]
    fn a_fin_that_is_sent_again_is_not_the_last_one() {
        let (c, b) = (segment(CLIENT, flags("FA")), segment(BACKEND, flags("FA")));
        let (ac, ab) = (segment(CLIENT, flags("A")), segment(BACKEND, flags("A")));
        let by_backend = walk_by(Established, true, &[b, c, b, ac, c, ab]);
        assert_eq!(by_backend[5], Resting, "the backend closed first");
        let by_client = walk_by(Established, true, &[c, b, c, ab, ac]);
        assert_eq!(by_client[4], TimeWait, "the client did");
    }

    #[test]
    fn a_conn_on_which_traffic_goes_on_returns_to_its_state() {
        for side in [CLIENT, BACKEND] {
            let (reset, goes_on) = (segment(side, flags("R")), segment(side, flags("A")));
            assert_eq!(walk_by(Established, true, &[reset, goes_on]), [Closed, Established]);
            // What was under way from the other side does not contradict it.
            let other = segment(!side, flags("A"));
            assert_eq!(walk_by(Established, true, &[reset, other]), [Closed, Closed]);
            let forged = forged(side, flags("A"));
            assert_eq!(walk_by(Established, true, &[reset, forged]), [Closed, Closed]);
            let fin = segment(side, flags("FA"));
            let walked = walk_by(Established, true, &[fin, reset, goes_on]);
            assert_eq!(walked, [FinWait, Closed, FinWait]);
        }
    }
}
