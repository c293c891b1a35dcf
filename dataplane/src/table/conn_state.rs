//! The states of a conn, and what each packet does to them.
//!
//! TCP after RFC 9293, section 3.3.2, as a middlebox sees it: no sequence numbers, so a state only
//! chooses how long an idle conn is kept and whether a new SYN may start it over.

use sluice_api::Timeouts;
use sluice_wire::tcp::TcpFlags;

/// State of a conn; indexes its service's timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnState {
    /// TCP: the client's SYN was seen.
    SynSent,
    /// TCP: the backend's SYN-ACK was seen; in DR, which sees no replies, the client's SYN.
    SynReceived,
    /// TCP: the handshake is complete.
    Established,
    /// TCP: one side has sent FIN.
    FinWait,
    /// TCP: both sides have sent FIN.
    LastAck,
    /// TCP: both sides have closed.
    TimeWait,
    /// TCP: one side has sent RST.
    Closed,
    /// UDP: only the client has sent.
    UdpOneWay,
    /// UDP: the backend has answered.
    UdpTwoWay,
}

/// How many states there are.
pub const STATES: usize = 9;

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
        t.tcp_time_wait_ms,
        t.tcp_closed_ms,
        t.udp_one_way_ms,
        t.udp_two_way_ms,
    ]
}

/// Which side has sent FIN, and which sent the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fins(u8);

impl Fins {
    /// Neither side.
    pub const NONE: Fins = Fins(0);
    const CLIENT: u8 = 1;
    const BACKEND: u8 = 2;
    const LAST_FROM_BACKEND: u8 = 4;

    fn with(self, from_backend: bool) -> Self {
        let sides = self.0 & 3;
        Fins(if from_backend {
            sides | Self::BACKEND | Self::LAST_FROM_BACKEND
        } else {
            sides | Self::CLIENT
        })
    }

    fn both(self) -> bool {
        self.0 & 3 == 3
    }

    /// Whether the side that did not send the last FIN is the one that sends now.
    fn acknowledges_last(self, from_backend: bool) -> bool {
        (self.0 & Self::LAST_FROM_BACKEND != 0) != from_backend
    }
}

impl ConnState {
    /// State of a conn that a first TCP packet (a SYN) has made.
    pub const fn first_tcp(sees_replies: bool) -> Self {
        if sees_replies { ConnState::SynSent } else { ConnState::SynReceived }
    }

    /// Whether a new SYN of the client starts the conn over.
    pub const fn may_reopen(self) -> bool {
        matches!(self, Self::FinWait | Self::LastAck | Self::TimeWait | Self::Closed)
    }

    /// State after a TCP packet.
    #[inline]
    pub fn after_tcp(self, fins: &mut Fins, flags: TcpFlags, from_backend: bool) -> Self {
        use ConnState::*;
        if flags.contains(TcpFlags::RST) {
            return Closed;
        }
        if flags.contains(TcpFlags::FIN) && !matches!(self, Closed | TimeWait) {
            *fins = fins.with(from_backend);
            return if fins.both() { LastAck } else { FinWait };
        }
        let syn = flags.contains(TcpFlags::SYN);
        let ack = flags.contains(TcpFlags::ACK);
        match self {
            SynSent if from_backend && syn && ack => SynReceived,
            SynReceived if !from_backend && ack && !syn => Established,
            LastAck if ack && fins.acknowledges_last(from_backend) => TimeWait,
            _ => self,
        }
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

    fn walk(start: ConnState, packets: &[(bool, TcpFlags)]) -> Vec<ConnState> {
        let (mut state, mut fins) = (start, Fins::default());
        packets
            .iter()
            .map(|(from_backend, flags)| {
                state = state.after_tcp(&mut fins, *flags, *from_backend);
                state
            })
            .collect()
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
        assert_eq!(walk(Established, &by_backend), [FinWait, LastAck, TimeWait]);
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
    fn dr_sees_only_the_client() {
        let packets = [(CLIENT, flags("A")), (CLIENT, flags("FA")), (CLIENT, flags("A"))];
        let start = ConnState::first_tcp(false);
        assert_eq!(walk(start, &packets), [Established, FinWait, FinWait]);
    }

    #[test]
    fn a_lone_syn_ack_from_the_client_changes_nothing() {
        assert_eq!(walk(SynSent, &[(CLIENT, flags("SA"))]), [SynSent]);
        assert_eq!(
            walk(SynSent, &[(CLIENT, flags("S")), (CLIENT, flags("A"))]),
            [SynSent, SynSent]
        );
    }
}
